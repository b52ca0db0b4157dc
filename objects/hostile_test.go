package objects

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/horkos/horkos/crds"
)

const gap = "GenericAttestationPolicy"

var oldDef = definition{uid: "uid of genericattestationpolicies.kritis.grafeas.io"}

// Manifests.
const capEnf = "apiVersion: horkos.dev/v1alpha1\nkind: ClusterAttestationPolicy\nmetadata: {name: c}\nspec: {enforcement: Enforce}\n"
const tenantAudit = "apiVersion: kritis.grafeas.io/v1beta1\nkind: GenericAttestationPolicy\nmetadata: {name: mine, namespace: tenant}\nspec: {attestationAuthorityNames: [a], enforcement: Audit}\n"

func TestAKindThatWasReplacedWhileTheNodeWasCutOffTakesNoPolicyAlong(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, capEnf)
	w.list()
	w.wants("first", w.after(time.Second), "ClusterAttestationPolicy c", isPolicyProd)
	// away
	w.definitions().failed(errors.New("connection refused"))
	for _, r := range resources() {
		w.mirror(r).failed(errors.New("connection refused"))
	}
	// meanwhile: kubectl replace --force -f crd: objects gone, new definition
	w.defined[w.resourceOf(gap).name()] = definition{uid: "new"}
	delete(w.objects[w.resourceOf(gap).name()], key{"prod", "p"})
	w.version += 10
	w.after(time.Minute)
	// back: definitions first
	w.listDefinitions()
	w.after(500 * time.Millisecond)
	w.listOne(w.resourceOf(gap))
	w.wants("back", w.after(3*time.Second), "ClusterAttestationPolicy c", isPolicyProd, "stale")
}

func TestAKindThatIsReplacedTakesNoPolicyAlong(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, capEnf)
	w.list()
	w.after(time.Second)
	w.define(gap, definition{uid: oldDef.uid, going: true})
	gone := w.objects[w.resourceOf(gap).name()][key{"prod", "p"}]
	delete(w.objects[w.resourceOf(gap).name()], key{"prod", "p"})
	w.define(gap, definition{})
	w.define(gap, definition{uid: "new"})
	w.after(100 * time.Millisecond)
	w.mirror(w.resourceOf(gap)).removed(gone)
	w.wants("later", w.after(3*time.Second), "ClusterAttestationPolicy c", isPolicyProd, "stale")
}

func TestOneTenantDoesNotDropWhatWentWithItsKind(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, elsewhere, capEnf)
	w.list()
	w.after(time.Second)
	w.define(gap, definition{uid: oldDef.uid, going: true})
	w.remove(isPolicyProd, isPolicyTest)
	w.define(gap, definition{})
	w.listOne(w.resourceOf(gap))
	w.after(time.Minute)
	w.define(gap, definition{uid: "new"})
	w.listOne(w.resourceOf(gap))
	w.wants("back, empty", w.after(time.Minute), "ClusterAttestationPolicy c", isPolicyProd, isPolicyTest, "stale")
	w.put(tenantAudit)
	set, _, _ := w.cluster.step()
	w.wants("one tenant's Audit policy, at once", set, "ClusterAttestationPolicy c", isPolicyProd, "GenericAttestationPolicy tenant/mine", isPolicyTest, "stale")
	w.wants("and later", w.after(time.Hour), "ClusterAttestationPolicy c", isPolicyProd, "GenericAttestationPolicy tenant/mine", isPolicyTest, "stale")
}

func TestAPolicyThatOnlyAuditsEndsNoAbsence(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, capEnf, revoking)
	w.list()
	w.after(time.Second)
	w.remove(isPolicyProd, "ClusterAttestationPolicy c", isRevocation)
	w.wants("gone", w.after(time.Minute), "ClusterAttestationPolicy c", isPolicyProd, isRevocation, "stale")
	w.put(tenantAudit)
	set, _, _ := w.cluster.step()
	w.wants("tenant", set, "ClusterAttestationPolicy c", isPolicyProd, "GenericAttestationPolicy tenant/mine", isRevocation, "stale")
}

func TestAPolicyThatOnlyAuditsReplacesNone(t *testing.T) {
	w := newWorld(t)
	w.put(capEnf, tenantAudit, revoking)
	w.list()
	w.after(time.Second)
	w.remove("ClusterAttestationPolicy c", isRevocation)
	w.wants("kubectl delete cap --all", w.after(time.Minute), "ClusterAttestationPolicy c", "GenericAttestationPolicy tenant/mine", isRevocation, "stale")
}

func TestADefinitionThatIsToldLateIsAskedFor(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, capEnf)
	w.list()
	w.after(time.Second)
	w.defined[w.resourceOf(gap).name()] = definition{uid: oldDef.uid, going: true}
	w.remove(isPolicyProd)
	w.after(1100 * time.Millisecond)
	w.define(gap, definition{uid: oldDef.uid, going: true})
	w.wants("later", w.after(3*time.Second), "ClusterAttestationPolicy c", isPolicyProd, "stale")
}

func TestDefinitionsListedBeforeADeletionSayNothingOfIt(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, capEnf)
	w.list()
	w.after(time.Second)
	w.definitions().failed(errors.New("cut"))
	w.definitions().failed(nil)
	w.deaf = true
	before := w.defined[w.resourceOf(gap).name()]
	now := definition{uid: oldDef.uid, going: true}
	w.defined[w.resourceOf(gap).name()] = now
	w.remove(isPolicyProd)
	w.after(1500 * time.Millisecond)
	w.defined[w.resourceOf(gap).name()] = before
	w.listDefinitions() // the answer of before
	w.defined[w.resourceOf(gap).name()] = now
	w.wants("the answer came", w.after(time.Second), "ClusterAttestationPolicy c", isPolicyProd, "stale")
	w.define(gap, definition{uid: oldDef.uid, going: true}) // first event of the watch
	w.wants("later", w.after(3*time.Second), "ClusterAttestationPolicy c", isPolicyProd, "stale")
}

func TestWhatIsRememberedOfDeletionsIsBounded(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing)
	w.list()
	w.after(time.Second)
	big := strings.Repeat("x", 100_000)
	for n := range 100 {
		w.put(fmt.Sprintf("apiVersion: kritis.grafeas.io/v1beta1\nkind: AttestationAuthority\nmetadata: {name: t, namespace: tenant}\nspec: {noteReference: %s%d}\n", big, n))
		w.now = w.now.Add(time.Second)
		w.cluster.step()
		w.remove("AttestationAuthority tenant/t")
		w.cluster.step()
		w.now = w.now.Add(1100 * time.Millisecond)
		w.cluster.step()
		w.confirm()
		w.cluster.step()
		w.now = w.now.Add(40 * time.Second)
		w.cluster.step()
	}
	text, err := encodeReplica(w.cluster.replica, "n1")
	t.Logf("going holds %d objects; kept copy %d bytes, %v; held %d", len(w.cluster.replica.going), len(text), err, len(w.cluster.replica.objects()))
	if n := len(w.cluster.replica.going); n != 1 {
		t.Errorf("%d objects, want the last of the one", n)
	}
	w.put(enforcing) // beside the one there is
	for n := range maxGoing + 200 {
		id := fmt.Sprintf("t%d", n)
		w.put("apiVersion: kritis.grafeas.io/v1beta1\nkind: AttestationAuthority\nmetadata: {name: " + id + ", namespace: tenant}\nspec: {noteReference: x}\n")
		w.remove("AttestationAuthority tenant/" + id)
	}
	w.after(5 * time.Second)
	if n := len(w.cluster.replica.going); n > maxGoing {
		t.Errorf("%d objects are remembered", n)
	}
}

func TestWhatIsTakenBackIsWhatWasThereLast(t *testing.T) {
	w := newWorld(t)
	w.put(strings.Replace(enforcing, "[a]", "[compromised]", 1))
	w.put(elsewhere)
	w.list()
	w.after(time.Second)
	w.remove(isPolicyProd)
	w.after(10 * time.Second)
	w.put(strings.Replace(enforcing, "[a]", "[new]", 1))
	w.after(10 * time.Second)
	w.remove(isPolicyProd, isPolicyTest)
	set := w.after(10 * time.Second)
	for _, o := range set.Objects {
		if o.Namespace == "prod" && !strings.Contains(string(o.Raw), "new") {
			t.Errorf("in force again: %s", o.Raw)
		}
	}
}

func TestAClockThatLeaptAndCameBackKeepsTheMaximumAge(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, elsewhere)
	w.list()
	w.after(time.Second)
	right := w.now
	w.now = right.AddDate(1, 0, 0)
	w.list() // recovers
	w.after(time.Minute)
	w.remove(isPolicyTest)
	w.after(500 * time.Millisecond)
	w.now = right.Add(time.Hour) // horkos policy accept-time
	w.list()
	w.wants("deleted", w.after(time.Minute), isPolicyProd)
	t.Logf("synced %v now %v", w.cluster.Status().Synced, w.now)
	w.deaf = true // three months without the API server
	w.now = w.now.AddDate(0, 3, 0)
	w.wants("three months later", w.after(time.Minute), isPolicyProd, "expired")
}

func TestDefinitionsThatSayNothingAreListedAnew(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, capEnf)
	w.list()
	w.after(time.Second)
	signalled := 0
	for range 120 { // two hours: everything else has bookmarks, definitions say nothing
		w.now = w.now.Add(time.Minute)
		for _, r := range resources() {
			w.mirror(r).advanced(strconv.FormatUint(w.version, 10))
		}
		w.cluster.step()
		select {
		case <-w.cluster.restarts[definitions.GroupResource().String()]:
			signalled++
		default:
		}
	}
	t.Logf("definitions asked anew %d times in two silent hours; status %+v", signalled, w.cluster.Status())
	if signalled == 0 {
		t.Error("they are not listed anew")
	}
	w.defined[w.resourceOf(gap).name()] = definition{uid: oldDef.uid, going: true}
	w.deaf = true
	w.remove(isPolicyProd) // with its definition, of which the silent watch tells nothing
	w.wants("CRD deleted", w.after(5*time.Second), "ClusterAttestationPolicy c", isPolicyProd, "stale")
}

func TestAKindThatNobodyUsedMayGo(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing)
	w.list()
	w.after(time.Second)
	w.define("TrustStore", definition{})
	w.listOne(w.resourceOf("TrustStore"))
	for range 8 * 24 * 30 {
		w.now = w.now.Add(2 * time.Minute)
		for _, r := range resources() {
			if w.served[r.name()] {
				w.mirror(r).advanced(strconv.FormatUint(w.version, 10))
			}
		}
		w.cluster.step()
	}
	set := w.after(time.Second)
	t.Logf("stale %q", set.Stale)
	w.wants("eight days later", set, isPolicyProd)
	w.put(elsewhere)
	w.wants("it is up to date", w.after(time.Second), isPolicyProd, isPolicyTest)
}

func TestOfANamespaceThatHoldsTooMuchNothingIsKeptButThatItIsThere(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing)
	large := func(n int) *unstructured.Unstructured {
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "kritis.grafeas.io/v1beta1", "kind": gap,
			"metadata": map[string]any{"name": fmt.Sprintf("large%d", n), "namespace": "tenant"}, "spec": map[string]any{"x": strings.Repeat("x", 900_000)}}}
		w.objects[w.resourceOf(gap).name()][key{"tenant", o.GetName()}] = o
		return o
	}
	for n := range 20 {
		large(n)
	}
	w.list()
	w.wants("listed", w.after(time.Second), isPolicyProd, "fault of cluster in tenant")
	for n := range 20 {
		w.mirror(w.resourceOf(gap)).changed(large(100 + n))
	}
	w.wants("told", w.after(time.Second), isPolicyProd, "fault of cluster in tenant")
	text, err := encodeReplica(w.cluster.replica, "n")
	if err != nil || len(text) > 100_000 {
		t.Errorf("the kept copy is of %d bytes, %v", len(text), err)
	}
	for n := range 18 {
		w.remove(fmt.Sprintf("%s tenant/large%d", gap, n), fmt.Sprintf("%s tenant/large%d", gap, 100+n))
	}
	set := w.after(5 * time.Second)
	if len(set.Faults) != 0 || len(set.Objects) != 6 { // a namespace among them
		t.Errorf("little is left, and there are %d objects and %v", len(set.Objects), set.Faults)
	}
}

func TestAnObjectOfTooManyValuesIsNotRead(t *testing.T) {
	w := newWorld(t)
	values := make([]any, maxValues)
	for i := range values {
		values[i] = map[string]any{}
	}
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "kritis.grafeas.io/v1beta1", "kind": gap,
		"metadata": map[string]any{"name": "p", "namespace": "prod"}, "spec": map[string]any{"x": values}}}
	read, size := w.mirror(w.resourceOf(gap)).read(o)
	if !strings.Contains(read.Malformed(), "more values than are read") || size < maxValues || len(read.Raw) > 1000 {
		t.Errorf("%s, %d bytes", read.Malformed(), size)
	}
}

func TestAListThatIsStreamedIsReadAsOneThatIsNot(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, malformed, revoking)
	for name, objects := range w.objects {
		for _, o := range objects {
			r := w.resourceOf(map[bool]string{true: crds.KindNamespace, false: o.GetObjectKind().GroupVersionKind().Kind}[name == namespaces.name()])
			before, size := w.mirror(r).read(o)
			copied, ok := o.DeepCopyObject().(object)
			if !ok {
				t.Fatal("a copy is no object")
			}
			if err := reduce(copied); err != nil {
				t.Fatal(err)
			}
			after, _ := w.mirror(r).read(copied)
			if string(before.Raw) != string(after.Raw) || before.Malformed() != after.Malformed() || size == 0 {
				t.Errorf("%s\n%s", before.Raw, after.Raw)
			}
		}
	}
}

func TestAClusterThatIsOlderIsNotComparedWithWhatItWas(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, elsewhere)
	w.list()
	w.after(time.Second)
	w.version = 50
	w.objects[w.resourceOf(gap).name()] = map[key]object{}
	w.cluster.mu.Lock() // as compare does
	for _, k := range w.cluster.replica.kinds {
		k.unfind()
	}
	w.cluster.mu.Unlock()
	w.wants("before anything is listed", w.after(time.Minute), isPolicyProd, isPolicyTest)
	w.listOne(w.resourceOf("ImageRevocation"))
	w.wants("one is listed", w.after(time.Minute), isPolicyProd, isPolicyTest, "stale")
	w.list()
	w.wants("all are listed", w.after(time.Minute), isPolicyProd, isPolicyTest, "stale")
}
