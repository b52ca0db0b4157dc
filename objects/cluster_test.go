package objects

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/horkos/horkos/crds"
)

// world is a cluster as an API server tells of it, and a node that follows it. Its time
// goes by when it is told to.
type world struct {
	testing.TB
	state   string
	node    string
	now     time.Time
	uid     string
	version uint64
	objects map[string]map[key]object // by collection
	defined map[string]definition
	served  map[string]bool

	cluster *Cluster
	asked   int  // questions about definitions
	deaf    bool // nothing is listed anew
}

func newWorld(t testing.TB) *world {
	w := &world{TB: t, state: filepath.Join(t.TempDir(), "state"), node: "n1", uid: "one", version: 100,
		now: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), objects: make(map[string]map[key]object), defined: make(map[string]definition), served: make(map[string]bool)}
	for _, r := range resources() {
		w.objects[r.name()] = make(map[key]object)
		w.served[r.name()] = true
		if r.kind != crds.KindNamespace {
			w.defined[r.name()] = definition{uid: "uid of " + r.name()}
		}
	}
	w.namespace("kube-system", nil)
	w.start()
	return w
}

// start starts the daemon anew.
func (w *world) start() crds.Set {
	w.Helper()
	c, set, err := OpenCluster(ClusterOptions{StateDir: w.state, Node: w.node, MaximumAge: DefaultMaximumAge,
		Now: func() time.Time { return w.now }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.Fatal(err)
	}
	w.cluster = c
	return set
}

func (w *world) mirror(r resource) *collected {
	return &collected{mirrored: mirrored{w.cluster, r.name()}, resource: r}
}

func (w *world) definitions() *definitionsMirror {
	return &definitionsMirror{mirrored{w.cluster, definitions.GroupResource().String()}}
}

// meet has the API server say which cluster it is of, as it is asked before any list.
func (w *world) meet() {
	w.cluster.mu.Lock()
	defer w.cluster.mu.Unlock()
	if err := w.cluster.meet(w.uid); err != nil {
		w.Error(err)
	}
}

// confirm answers what is asked about definitions, and lists what is to be listed anew.
func (w *world) confirm() {
	for {
		select {
		case name := <-w.cluster.asks:
			w.cluster.confirmed(name, confirmation{w.defined[name], w.now})
			w.asked++
			continue
		default:
		}
		if w.deaf {
			return
		}
		again := false
		for _, r := range resources() {
			select {
			case <-w.cluster.restarts[r.name()]:
				w.listOne(r)
				again = true
			default:
			}
		}
		select {
		case <-w.cluster.restarts[definitions.GroupResource().String()]:
			w.listDefinitions()
			again = true
		default:
		}
		if !again {
			return
		}
	}
}

var errGone = apierrors.NewNotFound(definitions.GroupResource(), "")

// list has the API server asked for everything anew.
func (w *world) list() {
	w.cluster.mu.Lock()
	w.cluster.replica.lose()
	w.cluster.mu.Unlock()
	w.meet()
	w.listDefinitions()
	for _, r := range resources() {
		w.listOne(r)
	}
}

func (w *world) listOne(r resource) {
	if !w.served[r.name()] {
		w.mirror(r).failed(errGone)
		return
	}
	w.mirror(r).failed(nil)
	var all []object
	for _, o := range w.objects[r.name()] {
		all = append(all, o)
	}
	m := w.mirror(r)
	m.begin()
	m.listed(all, strconv.FormatUint(w.version, 10))
}

func (w *world) listDefinitions() {
	var all []object
	for name, d := range w.defined {
		all = append(all, definedAs(name, d))
	}
	w.definitions().failed(nil)
	w.definitions().listed(all, strconv.FormatUint(w.version, 10))
}

func definedAs(name string, d definition) object {
	o := &metav1.PartialObjectMetadata{}
	o.Name, o.UID = name, types.UID(d.uid)
	if d.going {
		o.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	}
	return o
}

func (w *world) resourceOf(kind string) resource {
	for _, r := range resources() {
		if r.kind == kind {
			return r
		}
	}
	w.Fatalf("no resource of kind %s", kind)
	return resource{}
}

// put creates or changes objects.
func (w *world) put(manifests ...string) {
	w.Helper()
	for _, text := range manifests {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
			w.Fatal(err)
		}
		w.version++
		r := w.resourceOf(o.GetKind())
		w.objects[r.name()][key{o.GetNamespace(), o.GetName()}] = o
		w.mirror(r).changed(o)
		w.mirror(r).advanced(strconv.FormatUint(w.version, 10))
	}
}

func (w *world) namespace(name string, labels map[string]string) {
	o := &metav1.PartialObjectMetadata{}
	o.Name, o.Labels = name, labels
	if name == "kube-system" {
		o.UID = types.UID(w.uid)
	}
	w.objects[namespaces.name()][key{"", name}] = o
	if w.cluster != nil {
		w.mirror(namespaces).changed(o)
	}
}

// remove deletes an object, named as crds.Object.ID.
func (w *world) remove(ids ...string) {
	w.Helper()
	for _, id := range ids {
		kind, name, _ := strings.Cut(id, " ")
		namespace, name, ok := strings.Cut(name, "/")
		if !ok {
			namespace, name = "", namespace
		}
		r := w.resourceOf(kind)
		o, ok := w.objects[r.name()][key{namespace, name}]
		if !ok {
			w.Fatalf("there is no %s", id)
		}
		w.version++
		delete(w.objects[r.name()], key{namespace, name})
		w.mirror(r).removed(o)
		w.mirror(r).advanced(strconv.FormatUint(w.version, 10))
	}
}

// define changes the definition of a kind, and with it whether it is served.
func (w *world) define(kind string, d definition) {
	r := w.resourceOf(kind)
	w.version++
	if d.uid == "" {
		delete(w.defined, r.name())
		w.served[r.name()] = false
		w.definitions().removed(definedAs(r.name(), d))
		return
	}
	w.defined[r.name()] = d
	w.served[r.name()] = true
	w.definitions().changed(definedAs(r.name(), d))
}

// after lets time go by in small steps, as the daemon sees it, and gives what is in force.
func (w *world) after(d time.Duration) crds.Set {
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(min(d/8+1, end.Sub(w.now))) {
		w.cluster.step()
		w.confirm()
	}
	w.cluster.step()
	w.confirm()
	set, _, _ := w.cluster.step()
	return set
}

func (w *world) wants(when string, set crds.Set, want ...string) {
	w.Helper()
	full := describe(set)
	set.Objects = slices.DeleteFunc(slices.Clone(set.Objects), func(o crds.Object) bool { return o.Kind == crds.KindNamespace })
	got := brief(set)
	if set.Unknown != nil {
		full += "; unknown: " + set.Unknown.Message
		text := "unknown"
		if set.Unknown.Expired {
			text = "expired"
		}
		got = append(got, text)
	}
	if !slices.Equal(got, want) {
		w.Errorf("%s: got %q, want %q (%s)", when, got, want, full)
	}
}

const isAllowlist = "AdmissionAllowlist l"

func TestAClusterIsUnknownUntilAllOfItWasListed(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing)
	w.wants("before anything is told", w.after(time.Second), "unknown")
	w.listDefinitions()
	for _, r := range resources() {
		w.listOne(r)
	}
	w.wants("before it is known which cluster it is", w.after(time.Second), "unknown")
	w.meet()
	w.wants("all listed", w.after(time.Second), isPolicyProd)
}

func TestAKindThatIsNotServedIsNoEmptyList(t *testing.T) {
	w := newWorld(t)
	w.define("TrustPolicy", definition{})
	w.put(enforcing)
	w.list()
	set := w.after(time.Minute)
	w.wants("never served", set, isPolicyProd, "unknown")
	if !strings.Contains(set.Unknown.Message, "trustpolicies.notation.nirmata.io") {
		t.Errorf("message %q", set.Unknown.Message)
	}
	w.define("TrustPolicy", definition{uid: "new"})
	select {
	case <-w.cluster.restarts["trustpolicies.notation.nirmata.io"]:
	default:
		t.Error("the kind is not asked for at once when it comes")
	}
	w.listOne(w.resourceOf("TrustPolicy"))
	w.wants("served", w.after(time.Second), isPolicyProd)
}

func TestADeletionIsBelievedAfterASecondAndNoEarlier(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, elsewhere)
	w.list()
	w.wants("first", w.after(time.Second), isPolicyProd, isPolicyTest)
	w.remove(isPolicyProd)
	w.wants("at once", w.after(900*time.Millisecond), isPolicyProd, isPolicyTest)
	w.wants("after a second", w.after(200*time.Millisecond), isPolicyTest)
	w.remove(isPolicyTest)
	w.after(500 * time.Millisecond)
	w.put(elsewhere)
	w.wants("deleted and made again", w.after(time.Minute), isPolicyTest)
}

func TestAChangeIsBelievedAtOnce(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing)
	w.list()
	w.after(time.Second)
	w.put(auditing)
	set, changed, _ := w.cluster.step()
	if !changed || !strings.Contains(string(set.Objects[0].Raw), "Audit") {
		t.Errorf("changed %v: %s", changed, set.Objects[0].Raw)
	}
	if _, changed, _ = w.cluster.step(); changed {
		t.Error("nothing happened, and it is another set")
	}
}

func TestTheLastPoliciesOfAClusterStayInForce(t *testing.T) {
	for _, tt := range []struct {
		name string
		held []string
		kept bool
	}{
		{"an enforcing policy", []string{enforcing}, true},
		{"a malformed one", []string{malformed}, true},
		{"two of them", []string{enforcing, elsewhere}, true},
		{"with what belongs to it", []string{enforcing, authority, allowlist}, true},
		{"a revocation beside", []string{revoking, enforcing}, true},
		{"a revocation alone", []string{revoking}, true},
		{"a trust policy", []string{trust}, true},
		{"what only audits", []string{auditing}, false},
		{"what only warns", []string{clusterly}, false},
		{"no policy", []string{authority, allowlist}, false},
	} {
		for way, vanish := range map[string]func(w *world, ids []string){
			"all at once": func(w *world, ids []string) { w.remove(ids...) },
			"one by one": func(w *world, ids []string) {
				for _, id := range ids {
					w.remove(id)
					w.after(50 * time.Second)
				}
			},
			"while it is not followed": func(w *world, ids []string) { w.remove(ids...); w.start(); w.list() },
			"while it is not followed, and nothing answers at first": func(w *world, ids []string) {
				w.remove(ids...)
				w.start()
				w.after(time.Minute)
				w.list()
			},
		} {
			t.Run(tt.name+", "+way, func(t *testing.T) {
				w := newWorld(t)
				w.put(tt.held...)
				w.list()
				first := w.after(time.Second)
				before := brief(crds.Set{Objects: slices.DeleteFunc(slices.Clone(first.Objects), func(o crds.Object) bool { return o.Kind == crds.KindNamespace })})
				var ids []string
				for _, o := range first.Objects {
					if o.Kind != crds.KindNamespace {
						ids = append(ids, o.ID())
					}
				}
				vanish(w, ids)
				var want []string
				if tt.kept {
					want = append(before, "stale")
				}
				w.wants("gone", w.after(2*time.Second), want...)
				w.wants("much later", w.after(time.Hour), want...)
				w.start()
				w.list()
				w.wants("after a restart", w.after(2*time.Second), want...)
				w.put(elsewhere)
				w.after(2 * time.Second)
				w.wants("a policy is there again, for a while", w.after(2*time.Minute), isPolicyTest)
			})
		}
	}
}

func TestDeletionsFarApartAreBelievedOneByOne(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, elsewhere)
	w.list()
	w.after(time.Second)
	w.remove(isPolicyProd)
	w.wants("one", w.after(2*time.Minute), isPolicyTest)
	w.remove(isPolicyTest)
	w.wants("the other, long after", w.after(time.Minute), isPolicyTest, "stale")
}

func TestDeletionsTogetherAreTakenBackOverARestart(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, elsewhere)
	w.list()
	w.after(time.Second)
	w.remove(isPolicyProd)
	w.wants("one", w.after(10*time.Second), isPolicyTest)
	w.start()
	w.remove(isPolicyTest)
	w.list()
	w.wants("the other, after a restart", w.after(2*time.Second), isPolicyProd, isPolicyTest, "stale")
}

func TestAPolicyThatWasSetToAuditMayGo(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, authority)
	w.list()
	w.after(time.Second)
	w.put(auditing)
	w.after(time.Second)
	w.remove(isPolicyProd)
	w.wants("gone", w.after(2*time.Second), isAuthority)
}

func TestObjectsThatGoWithTheirKindStayInForce(t *testing.T) {
	const kind = "GenericAttestationPolicy"
	old := definition{uid: "uid of genericattestationpolicies.kritis.grafeas.io"}
	for way, drop := range map[string]func(w *world){
		"the definition first": func(w *world) {
			w.define(kind, definition{uid: old.uid, going: true})
			w.remove(isPolicyProd)
			w.after(2 * time.Second)
			w.define(kind, definition{})
			w.listOne(w.resourceOf(kind))
		},
		"the objects told first": func(w *world) {
			w.remove(isPolicyProd)
			w.after(800 * time.Millisecond)
			w.define(kind, definition{uid: old.uid, going: true})
			w.after(2 * time.Second)
			w.define(kind, definition{})
			w.listOne(w.resourceOf(kind))
		},
		"while it is not followed": func(w *world) {
			w.define(kind, definition{})
			delete(w.objects[w.resourceOf(kind).name()], key{"prod", "p"})
			w.start()
			w.list()
		},
		"while definitions are not heard of": func(w *world) {
			w.definitions().failed(errors.New("cut"))
			w.remove(isPolicyProd)
			w.after(time.Minute)
			w.definitions().failed(nil) // asked again, and what was missed is not told yet
			w.after(time.Minute)
			w.defined[w.resourceOf(kind).name()] = definition{uid: old.uid, going: true}
			w.listDefinitions()
			w.after(time.Minute)
			w.define(kind, definition{})
			w.listOne(w.resourceOf(kind))
		},
	} {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t)
			w.put(enforcing, clusterly, authority) // clusterly is a policy that stays
			w.list()
			want := []string{isAuthority, "ClusterAttestationPolicy c", isPolicyProd}
			w.wants("first", w.after(time.Second), want...)
			drop(w)
			want = append(want, "stale")
			w.wants("the kind is gone", w.after(time.Hour), want...)
			w.start()
			w.list()
			w.wants("after a restart", w.after(2*time.Second), want...)
			w.define(kind, definition{uid: "another"})
			w.listOne(w.resourceOf(kind))
			w.after(time.Hour)
			w.wants("the kind is back, and empty", w.after(3*time.Second), want...)
			w.put(elsewhere)
			want = append(slices.Clone(want[:len(want)-1]), isPolicyTest, "stale")
			w.after(time.Hour)
			w.wants("there is one of it in another namespace", w.after(3*time.Second), want...)
			w.put(strings.Replace(enforcing, "name: p,", "name: q,", 1))
			w.wants("there is another in its namespace", w.after(30*time.Second), isAuthority, "ClusterAttestationPolicy c", isPolicyProd, "GenericAttestationPolicy prod/q", isPolicyTest, "stale")
			w.wants("there is another for a minute", w.after(time.Minute), isAuthority, "ClusterAttestationPolicy c", "GenericAttestationPolicy prod/q", isPolicyTest)
		})
	}
}

func TestARestoredClusterIsNotBelieved(t *testing.T) {
	w := newWorld(t)
	w.put(auditing)
	w.list()
	w.after(time.Second)
	old := w.version
	w.put(enforcing, revoking)
	w.wants("before", w.after(time.Second), isPolicyProd, isRevocation)
	now := w.version

	restore := func() {
		w.version = old
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(auditing), &o.Object); err != nil {
			t.Fatal(err)
		}
		w.objects[w.resourceOf(o.GetKind()).name()] = map[key]object{{"prod", "p"}: o}
		w.objects[w.resourceOf("ImageRevocation").name()] = map[key]object{}
	}
	restore()
	w.list()
	set := w.after(time.Minute)
	w.wants("restored", set, isPolicyProd, isRevocation, "stale")
	if strings.Contains(string(set.Objects[0].Raw), "Audit") || !strings.Contains(set.Stale, "restored from an older copy") {
		t.Errorf("%s, stale %q", set.Objects[0].Raw, set.Stale)
	}
	w.start()
	w.list()
	set = w.after(time.Minute)
	w.wants("after a restart", set, isPolicyProd, isRevocation, "stale")
	w.put(strings.Replace(revoking, "name: r}", "name: s}", 1))
	w.wants("a revocation that is new", w.after(time.Second), isPolicyProd, isRevocation, "ImageRevocation s", "stale")

	w.version = now + 10
	w.list()
	set = w.after(time.Minute)
	w.wants("as new as it was by its number", set, isPolicyProd, isRevocation, "ImageRevocation s", "stale")
	w.put(enforcing)
	w.wants("the policy is there again", w.after(time.Minute), isPolicyProd, isRevocation, "ImageRevocation s", "stale")
	w.put(revoking)
	w.wants("all is there again", w.after(time.Minute), isPolicyProd, isRevocation, "ImageRevocation s")
	w.put(auditing)
	set = w.after(time.Second)
	w.wants("and is changed", set, isPolicyProd, isRevocation, "ImageRevocation s")
	if !strings.Contains(string(set.Objects[0].Raw), "Audit") {
		t.Errorf("%s", set.Objects[0].Raw)
	}
}

func TestTheCopyOfAnotherNodeOrClusterIsRefused(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"node":    func(w *world) { w.node = "n2" },
		"cluster": func(w *world) { w.uid = "two"; w.namespace("kube-system", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.put(enforcing)
			w.list()
			w.after(time.Second)
			w.cluster = nil
			change(w)
			set := w.start()
			if name == "node" {
				w.wants("at start", set, "unknown")
			} else {
				w.wants("at start", set, isPolicyProd)
			}
			w.objects[w.resourceOf("GenericAttestationPolicy").name()] = map[key]object{}
			w.version = 5
			w.meet()
			w.wants("known which it is", w.after(time.Second), "unknown")
			w.list()
			w.wants("listed", w.after(2*time.Second))
		})
	}
}

func TestAnotherClusterBehindTheSameAddressIsNotBelieved(t *testing.T) {
	w := newWorld(t)
	w.list()
	w.after(time.Second)
	w.cluster.mu.Lock()
	err := w.cluster.meet("two")
	w.cluster.mu.Unlock()
	if !errors.Is(err, errAnotherCluster) {
		t.Error(err)
	}
}

func TestACopyThatIsTooOldAllowsNothing(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing)
	w.list()
	w.after(time.Second)
	w.now = w.now.Add(DefaultMaximumAge - time.Minute)
	w.wants("just before, after a restart", w.start(), isPolicyProd)
	w.now = w.now.Add(2 * time.Minute)
	w.wants("just after", w.after(time.Second), isPolicyProd, "expired")
	w.wants("just after, after a restart", w.start(), isPolicyProd, "expired")
	w.list()
	w.wants("listed again", w.after(time.Second), isPolicyProd)
}

func TestACopyThatIsDamagedIsNoEmptyCluster(t *testing.T) {
	for name, now := range map[string][]string{"that holds no policy": {authority}, "that holds one": {enforcing}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.put(elsewhere)
			w.list()
			w.after(time.Second)
			path := filepath.Join(w.state, keptClusterName)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text[len(text)/2] ^= 1
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			w.remove(isPolicyTest)
			w.put(now...)
			w.wants("at start", w.start(), "unknown")
			w.list()
			set := w.after(2 * time.Second)
			if now[0] == enforcing {
				w.wants("listed", set, isPolicyProd)
				return
			}
			w.wants("listed", set, isAuthority, "fault of policy-cluster.json in every namespace")
			w.start()
			w.list()
			w.wants("listed, after a restart", w.after(2*time.Second), isAuthority, "fault of policy-cluster.json in every namespace")
		})
	}
}

func TestWhatAClusterHeldCanBeGivenUp(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, elsewhere, allowlist)
	w.list()
	w.after(time.Second)
	w.remove(isPolicyProd, isPolicyTest)
	want := []string{isAllowlist, isPolicyProd, isPolicyTest, "stale"}
	w.wants("gone", w.after(2*time.Second), want...)
	objects, _, err := keptObjectsOf(w)
	if err != nil {
		t.Fatal(err)
	}
	give := func(hash string) {
		if err := os.WriteFile(filepath.Join(w.state, acceptClusterName), []byte(hash+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	give(strings.Repeat("0", 64))
	w.wants("another set is given up", w.after(time.Second), want...)
	w.namespace("new", nil)
	give(hashOf(objects))
	w.wants("given up", w.after(time.Second), isAllowlist)
	if _, err := os.Stat(filepath.Join(w.state, acceptClusterName)); err == nil {
		t.Error("it is not used up")
	}
	w.start()
	w.list()
	w.wants("given up, after a restart", w.after(2*time.Second), isAllowlist)
}

func keptObjectsOf(w *world) ([]crds.Object, bool, error) {
	r, _, err := readReplica(w.state, false)
	if err != nil {
		return nil, false, err
	}
	return r.accountable(), r.absent, nil
}

func TestARestoredClusterCanBeAccepted(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing)
	w.list()
	w.after(time.Second)
	w.version = 50
	w.objects[w.resourceOf("GenericAttestationPolicy").name()] = map[key]object{}
	w.put(elsewhere)
	w.list()
	w.wants("restored", w.after(time.Second), isPolicyProd, "stale")
	objects, _, err := keptObjectsOf(w)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.state, acceptClusterName), []byte(hashOf(objects)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.wants("accepted", w.after(time.Second), isPolicyTest)
	w.start()
	w.list()
	w.wants("accepted, after a restart", w.after(time.Second), isPolicyTest)
}

func TestANamespaceThatHoldsTooMuchIsItsOwnTrouble(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing)
	for n := range maxNamespaceObjects + 1 {
		w.put(strings.Replace(elsewhere, "name: p,", fmt.Sprintf("name: p%d,", n), 1))
	}
	w.list()
	set := w.after(time.Second)
	w.wants("one too many", set, isPolicyProd, "fault of cluster in test")
	w.remove("GenericAttestationPolicy test/p0")
	set = w.after(2 * time.Second)
	if len(set.Faults) != 0 || len(set.Objects) != maxNamespaceObjects+2 {
		t.Errorf("%d objects, %v", len(set.Objects), set.Faults)
	}
}

func TestLabelsOfNamespacesComeAndGo(t *testing.T) {
	w := newWorld(t)
	w.namespace("shop", map[string]string{"tier": "prod"})
	w.list()
	labels := func(set crds.Set) string {
		for _, o := range set.Objects {
			if o.Name == "shop" {
				return string(o.Raw)
			}
		}
		return "none"
	}
	if got := labels(w.after(time.Second)); !strings.Contains(got, `"tier":"prod"`) {
		t.Error(got)
	}
	if got := labels(w.start()); !strings.Contains(got, `"tier":"prod"`) {
		t.Errorf("in the kept copy: %s", got)
	}
	w.list()
	w.namespace("shop", map[string]string{"tier": "test"})
	if got := labels(w.after(time.Second)); !strings.Contains(got, `"tier":"test"`) {
		t.Error(got)
	}
	delete(w.objects[namespaces.name()], key{"", "shop"})
	w.list()
	if got := labels(w.after(2 * time.Second)); got != "none" {
		t.Error(got)
	}
}

func TestTheCopyOfAClusterIsReadBackWhole(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing, malformed, revoking, allowlist, trust)
	w.namespace("shop", map[string]string{"tier": "prod"})
	w.list()
	first := w.after(time.Second)
	second := w.start()
	if !reflect.DeepEqual(first, second) {
		t.Errorf("got  %+v\nwant %+v", second, first)
	}
}

func TestTheTimeOfTheCopyIsBroughtUpToDate(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing)
	w.list()
	w.after(time.Second)
	for range 40 { // bookmarks
		w.now = w.now.Add(time.Minute)
		for _, r := range resources() {
			w.mirror(r).advanced(strconv.FormatUint(w.version, 10))
		}
		w.cluster.step()
	}
	r, _, err := readReplica(w.state, false)
	if err != nil {
		t.Fatal(err)
	}
	if age := w.now.Sub(r.synced); age > keepEvery+time.Minute {
		t.Errorf("the copy is of %v ago", age)
	}
}

func TestHowThingsStandWithTheClusterIsTold(t *testing.T) {
	w := newWorld(t)
	if got := w.cluster.Status(); got.Problem != "the API server was not reached since the start" || !got.Synced.IsZero() {
		t.Errorf("%+v", got)
	}
	w.list()
	w.after(time.Second)
	if got := w.cluster.Status(); got.Problem != "" || got.Synced.IsZero() {
		t.Errorf("%+v", got)
	}
	w.mirror(w.resourceOf("ImageRevocation")).failed(errors.New("connection refused"))
	if got := w.cluster.Status(); !strings.Contains(got.Problem, "imagerevocations.horkos.dev: connection refused") {
		t.Errorf("%+v", got)
	}
	w.list()
	w.now = w.now.Add(2*lapse + time.Minute)
	if got := w.cluster.Status(); !strings.Contains(got.Problem, "nothing was heard") {
		t.Errorf("%+v", got)
	}
	w.define("TrustStore", definition{})
	w.list()
	if got := w.cluster.Status(); !strings.Contains(got.Problem, "truststores.notation.nirmata.io") {
		t.Errorf("%+v", got)
	}
}

func TestACollectionThatNothingIsHeardOfIsListedAnew(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing)
	w.list()
	w.after(time.Second)
	name := w.resourceOf("ImageRevocation").name()
	again := func() bool {
		select {
		case <-w.cluster.restarts[name]:
			return true
		default:
			return false
		}
	}
	w.deaf = true
	w.after(lapse - time.Minute)
	if again() {
		t.Error("listed anew too soon")
	}
	w.after(2 * time.Minute)
	if !again() {
		t.Error("not listed anew")
	}
	w.after(time.Minute)
	if again() {
		t.Error("listed anew again and again")
	}
	w.after(lapse)
	if !again() {
		t.Error("not listed anew when that was in vain")
	}
}

func TestAPolicyIsKeptBeforeItIsInForceAndANamespaceWhenThereIsTime(t *testing.T) {
	w := newWorld(t)
	w.put(enforcing)
	w.list()
	w.after(time.Second)
	keeps := func(name string) bool {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(w.state, keptClusterName))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(text), `"`+name+`"`)
	}
	for n := range 5 { // within a second of each other
		name := fmt.Sprintf("q%d", n)
		w.put(strings.Replace(enforcing, "name: p,", "name: "+name+",", 1))
		w.cluster.step()
		if !keeps(name) {
			t.Errorf("%s is in force and not kept", name)
		}
		w.now = w.now.Add(10 * time.Millisecond)
	}
	w.namespace("new", nil)
	w.cluster.step()
	if keeps("new") {
		t.Error("the copy is written for every namespace")
	}
	if w.after(3 * time.Second); !keeps("new") {
		t.Error("a namespace is not kept")
	}
}
