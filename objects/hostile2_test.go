package objects

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/state"
	"github.com/horkos/horkos/verifier/policy"
)

func pol(ns, name, extra string) string {
	return "apiVersion: kritis.grafeas.io/v1beta1\nkind: GenericAttestationPolicy\nmetadata: {name: " + name + ", namespace: " + ns + "}\nspec: {attestationAuthorityNames: [a]" + extra + "}\n"
}

func TestWhatIsNotReadIsMalformedInTheKeptCopyToo(t *testing.T) {
	for _, r := range resources() {
		ns := "n"
		if r.kind == "ImageRevocation" || r.kind == "ClusterAttestationPolicy" || r.kind == crds.KindNamespace || r.kind == "TrustPolicy" || r.kind == "TrustStore" {
			ns = ""
		}
		s := stubFor(r.GroupVersion().String(), r.kind, ns, "x", "too much")
		d, err := decodeOne(s.Raw, r)
		if r.kind == "TrustPolicy" || r.kind == "TrustStore" {
			continue // any of them is misconfigured as it is
		}
		if s.Malformed() == "" || d.Malformed() == "" || err != nil {
			t.Errorf("%s: malformed %q, read back %q, %v", r.kind, s.Malformed(), d.Malformed(), err)
		}
	}
}

func TestManyPoliciesThatGoTogetherAreAllTakenBack(t *testing.T) {
	w := newWorld(t)
	for n := range 1500 {
		w.put(pol(fmt.Sprintf("ns%d", n), "p", ""))
	}
	w.list()
	w.after(time.Second)
	for n := range 1500 {
		w.remove(fmt.Sprintf("%s ns%d/p", gap, n))
	}
	set := w.after(5 * time.Second)
	if n := len(set.Objects) - 1; set.Stale == "" || n != 1500 {
		t.Errorf("%d of 1500 policies are in force, stale %q", n, set.Stale)
	}
}

func TestOneNamespaceDoesNotHaveTheDeletionsOfOthersForgotten(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, elsewhere)
	for n := range 1030 {
		w.put(strings.Replace(tenantAudit, "mine", fmt.Sprintf("m%d", n), 1))
	}
	for n := range 1030 {
		w.remove(fmt.Sprintf("%s tenant/m%d", gap, n))
	}
	for n := range 1020 {
		w.put(strings.Replace(tenantAudit, "mine", fmt.Sprintf("m%d", n), 1))
	}
	w.list()
	w.after(time.Second)
	w.remove(isPolicyProd)
	w.after(5 * time.Second)
	for n := range 1020 {
		w.remove(fmt.Sprintf("%s tenant/m%d", gap, n))
	}
	w.after(5 * time.Second)
	for n := range 1020 {
		w.put(strings.Replace(tenantAudit, "mine", fmt.Sprintf("k%d", n), 1))
	}
	w.after(time.Second)
	for n := range 1020 {
		w.remove(fmt.Sprintf("%s tenant/k%d", gap, n))
	}
	w.after(5 * time.Second)
	w.remove(isPolicyTest)
	set := w.after(5 * time.Second)
	names := ""
	for _, o := range set.Objects {
		if o.Namespace != "tenant" {
			names += o.ID() + ","
		}
	}
	if !strings.Contains(names, isPolicyProd) {
		t.Errorf("both deleted 20 s apart: %s stale %q", names, set.Stale)
	}
}

func TestUnderWhatDefinitionSomethingIsHeldIsLearntFromAListThatHasIt(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, capEnf)
	w.meet()
	for _, r := range resources() { // definitions come late: await gave up after 5 s
		w.listOne(r)
	}
	w.wants("listed", w.after(time.Second), "ClusterAttestationPolicy c", isPolicyProd)
	w.listDefinitions()
	w.after(5 * time.Minute)
	t.Logf("in memory %q", w.cluster.replica.kind(resourceOf(gap).name()).definition)
	w.wants("restart", w.start(), "ClusterAttestationPolicy c", isPolicyProd)
	t.Logf("kept %q", w.cluster.replica.kind(resourceOf(gap).name()).definition)
	// while it is down: kubectl replace --force -f crd
	w.defined[resourceOf(gap).name()] = definition{uid: "new"}
	delete(w.objects[resourceOf(gap).name()], key{"prod", "p"})
	w.version += 10
	w.list()
	w.wants("back", w.after(5*time.Second), "ClusterAttestationPolicy c", isPolicyProd, "stale")
}

func TestAnAbsenceThatWasMendedWhileTheDaemonWasAwayEnds(t *testing.T) {
	for name, again := range map[string]string{"same": enforcing, "audit": auditing} {
		t.Run(name, func(t *testing.T) {
			for _, restart := range []bool{false, true} {
				w := newWorld(t)
				w.put(enforcing)
				w.list()
				w.after(time.Second)
				w.remove(isPolicyProd)
				w.wants("gone", w.after(10*time.Second), isPolicyProd, "stale")
				if restart {
					w.start()
				}
				w.put(again)
				if restart {
					w.list()
				}
				w.wants(fmt.Sprintf("back, restart %v", restart), w.after(time.Hour), isPolicyProd)
			}
		})
	}
}

func TestANamespaceThatHoldsLessAgainIsReadWhole(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing)
	large := func(n, size int) *unstructured.Unstructured {
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "kritis.grafeas.io/v1beta1", "kind": gap,
			"metadata": map[string]any{"name": fmt.Sprintf("large%d", n), "namespace": "tenant"}, "spec": map[string]any{"attestationAuthorityNames": []any{"a"}, "description": strings.Repeat("x", size)}}}
		w.objects[resourceOf(gap).name()][key{"tenant", o.GetName()}] = o
		return o
	}
	for n := range 5 {
		large(n, 900_000)
	}
	w.list()
	w.wants("over", w.after(time.Second), isPolicyProd, "fault of cluster in tenant")
	w.mirror(resourceOf(gap)).changed(large(0, 10))
	set := w.after(time.Minute)
	for range 120 { // two hours with bookmarks
		w.now = w.now.Add(time.Minute)
		for _, r := range resources() {
			w.mirror(r).advanced(fmt.Sprint(w.version))
		}
		w.cluster.step()
	}
	set = w.after(time.Second)
	t.Logf("faults %v", set.Faults)
	for _, o := range set.Objects {
		if o.Namespace == "tenant" && strings.Contains(o.Malformed(), "holds too much") {
			t.Errorf("%s: %s", o.ID(), o.Malformed())
		}
	}
}

func TestWhatGoesWhileKindsAreListedApartGoesTogether(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, capEnf)
	w.list()
	w.after(time.Second)
	// down; kubectl delete --all of both kinds
	w.remove(isPolicyProd, "ClusterAttestationPolicy c")
	w.start()
	w.meet()
	w.listDefinitions()
	for _, r := range resources() {
		if r.kind != "ClusterAttestationPolicy" {
			w.listOne(r)
		}
	}
	w.after(3 * time.Minute) // that one is refused (429, timeout, RBAC)
	w.listOne(resourceOf("ClusterAttestationPolicy"))
	w.wants("all listed", w.after(5*time.Second), "ClusterAttestationPolicy c", isPolicyProd, "stale")
}

func TestARestoredClusterTakesDigestsThatAreRevokedAnew(t *testing.T) {
	w := newWorld(t)
	w.put(revoking, enforcing)
	w.list()
	w.after(time.Second)
	w.version = 50
	delete(w.objects[resourceOf(gap).name()], key{"prod", "p"})
	w.list()
	w.wants("restored", w.after(time.Second), isPolicyProd, isRevocation, "stale")
	w.put(strings.Replace(revoking, "[d]", "[d, eee]", 1))
	set := w.after(time.Second)
	found := false
	for _, o := range set.Objects {
		found = found || strings.Contains(string(o.Raw), "eee")
	}
	if !found {
		t.Error("the digest that was added to the revocation is not in force")
	}
}

func TestARestoredClusterWithoutAKindThatNobodyUsedIsCovered(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing)
	w.list()
	w.after(time.Second)
	w.define("TrustStore", definition{})
	w.list()
	w.wants("uninstalled", w.after(time.Second), isPolicyProd)
	w.version = 50
	delete(w.objects[resourceOf(gap).name()], key{"prod", "p"})
	w.list()
	w.wants("restored", w.after(time.Second), isPolicyProd, "stale")
	w.put(enforcing)
	w.wants("all there again", w.after(time.Hour), isPolicyProd)
}

func TestARevocationThatCameWhileAClusterIsRestoredMayGoAgain(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing)
	w.list()
	w.after(time.Second)
	w.version = 50
	delete(w.objects[resourceOf(gap).name()], key{"prod", "p"})
	w.list()
	w.after(time.Second)
	w.put(revoking)
	w.after(time.Second)
	w.remove(isRevocation)
	w.put(enforcing)
	w.after(5 * time.Second)
	w.wants("all that was held is there again", w.after(5*time.Second), isPolicyProd)
}

func TestTheMinuteAfterAnAbsenceOutlivesARestart(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, elsewhere)
	w.list()
	w.after(time.Second)
	w.remove(isPolicyProd, isPolicyTest)
	w.wants("gone", w.after(5*time.Second), isPolicyProd, isPolicyTest, "stale")
	w.put(enforcing)
	w.wants("grace", w.after(5*time.Second), isPolicyProd, isPolicyTest)
	w.start()
	w.list()
	w.wants("grace after a restart", w.after(5*time.Second), isPolicyProd, isPolicyTest)
}

func TestNamespacesComeAndGoWhileNothingEnforces(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing)
	w.list()
	w.after(time.Second)
	w.remove(isPolicyProd)
	w.after(2 * time.Second)
	for n := range 500 {
		name := fmt.Sprintf("ci-%d", n)
		w.namespace(name, nil)
		w.cluster.step()
		o := w.objects[namespaces.name()][key{"", name}]
		delete(w.objects[namespaces.name()], key{"", name})
		w.mirror(namespaces).removed(o)
		w.now = w.now.Add(10 * time.Second)
		w.cluster.step()
	}
	if n := len(w.cluster.replica.kind(namespaces.name()).held); n > 10 {
		t.Errorf("%d namespaces are held, there is 1", n)
	}
}

func TestAListThatWasUnderWayWhenItsKindWasReplacedIsMadeAnew(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, capEnf)
	w.list()
	w.after(time.Second)
	w.start()
	w.meet()
	w.listDefinitions()
	for _, r := range resources() {
		if r.kind != gap {
			w.listOne(r)
		}
	}
	p := w.objects[resourceOf(gap).name()][key{"prod", "p"}]
	version := fmt.Sprint(w.version)
	m := w.mirror(resourceOf(gap)) // the list of policies is answered now, and takes a while to be read
	m.begin()
	w.define(gap, definition{uid: oldDef.uid, going: true})
	delete(w.objects[resourceOf(gap).name()], key{"prod", "p"})
	w.define(gap, definition{})
	w.define(gap, definition{uid: "new"})
	restart := len(w.cluster.restarts[resourceOf(gap).name()])
	m.listed([]object{p}, version)
	w.after(500 * time.Millisecond)
	t.Logf("restarts signalled before the list came: %d", restart)
	w.mirror(resourceOf(gap)).removed(p) // the watch goes on from there
	w.wants("later", w.after(5*time.Second), "ClusterAttestationPolicy c", isPolicyProd, "stale")
}

func TestWhoHoldsTooMuchAndLessByTurnsHasLittleListedAnew(t *testing.T) {
	w := newWorld(t)
	for n := range maxNamespaceObjects + 1 {
		w.put(strings.Replace(tenantAudit, "mine", fmt.Sprintf("m%d", n), 1))
	}
	w.list()
	w.after(time.Second)
	relists := 0
	for range 100 { // 10 s
		w.remove(gap + " tenant/m0")
		select {
		case <-w.cluster.restarts[resourceOf(gap).name()]:
			relists++
			w.listOne(resourceOf(gap))
		default:
		}
		w.put(strings.Replace(tenantAudit, "mine", "m0", 1))
		w.now = w.now.Add(100 * time.Millisecond)
		w.cluster.step()
	}
	if relists > 10 {
		t.Errorf("%d whole lists in 10 s", relists)
	}
}

func TestACopyThatDoesNotKnowAKindIsNotWhole(t *testing.T) {
	w := newWorld(t)
	w.put(trust, enforcing)
	w.list()
	w.after(time.Second)
	path := filepath.Join(w.state, keptClusterName)
	r, node, err := readReplica(w.state, false)
	if err != nil {
		t.Fatal(err)
	}
	r.kinds = slices.DeleteFunc(r.kinds, func(k *collection) bool { return k.kind == "TrustPolicy" })
	text, _ := encodeReplica(r, node)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = state.Seal
	w.wants("a kind that the copy does not know of", w.start(), isPolicyProd, "unknown")
}

func TestRevocationsThatComeBackEndTheirAbsence(t *testing.T) {
	w := newWorld(t)
	w.put(revoking)
	w.list()
	w.after(time.Second)
	w.remove(isRevocation)
	w.wants("gone", w.after(5*time.Second), isRevocation, "stale")
	w.put(revoking)
	w.wants("it is there again", w.after(time.Hour), isRevocation)
}

func TestACopyFromTheFutureExpiresToo(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing)
	w.now = w.now.AddDate(1, 0, 0)
	w.list()
	w.after(time.Second)
	w.now = w.now.AddDate(-1, 0, 0)
	w.start() // no API server
	w.after(time.Minute)
	w.now = w.now.AddDate(0, 3, 0)
	w.wants("three months offline", w.after(time.Minute), isPolicyProd, "expired")
}

var _ = errors.New

func TestAnnotationsTakeNoNamespaceOutOfASelector(t *testing.T) {
	for _, restart := range []bool{false, true} {
		w := newWorld(t)
		w.put("apiVersion: horkos.dev/v1alpha1\nkind: ClusterAttestationPolicy\nmetadata: {name: c}\nspec: {authorities: [{namespace: prod, name: a}], namespaceSelector: {matchLabels: {tier: prod}}}\n")
		w.list()
		w.after(time.Second)
		o := &metav1.PartialObjectMetadata{}
		o.Name, o.Labels = "shop", map[string]string{"tier": "prod"}
		o.Annotations = map[string]string{"note": strings.Repeat(",", 140_000)}
		w.objects[namespaces.name()][key{"", "shop"}] = o
		w.mirror(namespaces).changed(o)
		set := w.after(10 * time.Second)
		if restart {
			w.start()
			w.list()
			set = w.after(10 * time.Second)
		}
		t.Logf("restart %v: layers of shop: %d, of a namespace that is not known: %d", restart, policies(set, "shop"), policies(set, "elsewhere"))
		if policies(set, "shop") == 0 {
			t.Error("nothing is required in shop")
		}
	}
}

func policies(set crds.Set, ns string) (n int) {
	for _, l := range policy.Compile(set).Layers(ns) {
		n += len(l.Policies)
	}
	return n
}

func TestInTheMinuteAfterAnAbsenceWhatIsThereGoesAsEver(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, elsewhere)
	w.list()
	w.after(time.Second)
	w.remove(isPolicyProd, isPolicyTest)
	w.wants("gone", w.after(5*time.Second), isPolicyProd, isPolicyTest, "stale")
	w.put(enforcing, capEnf)
	w.wants("back", w.after(5*time.Second), "ClusterAttestationPolicy c", isPolicyProd, isPolicyTest)
	w.remove("ClusterAttestationPolicy c")
	w.wants("one that is there goes", w.after(5*time.Second), isPolicyProd, isPolicyTest)
	w.start()
	w.list()
	w.wants("what is not back stays, also over a restart", w.after(5*time.Second), isPolicyProd, isPolicyTest)
	w.wants("and goes after a minute", w.after(2*time.Minute), isPolicyProd)
}
