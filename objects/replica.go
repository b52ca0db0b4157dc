package objects

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
)

// Times of following a cluster.
const (
	// deleteSettle is how long an object must be gone before that is believed.
	deleteSettle = time.Second
	// deletesTogether is how far apart deletions may be that are one: if nothing that enforces is
	// left in the end, they are taken back. What stayed in force for want of anything else stays so
	// long after that is over: who applies many objects anew does not do it at once.
	deletesTogether = time.Minute
	// deletesRemembered is how long a deletion can be taken back at most, however many follow.
	deletesRemembered = 5 * time.Minute
)

// Bounds of what is remembered of deletions.
const (
	maxGoing      = 16 << 10
	maxGoingBytes = 32 << 20
)

// Limits of what a cluster's namespace holds of one kind. What is over them is its own
// trouble: nothing is kept of it but that it is there.
const (
	maxNamespaceObjects = 1024
	maxNamespaceBytes   = 4 << 20
)

// replica is what a node has of a cluster's objects: what it was told, and what of that it
// believes, which is in force. It knows no clock and no network.
type replica struct {
	cluster  string // UID of namespace kube-system; empty until it is known
	kinds    []*collection
	kept     bool   // held is of a kept copy, or of all kinds: it can be judged by
	absent   bool   // nothing in the cluster enforces any more, and held is what did
	restored string // why the cluster is an older one than held is of; empty when it is not
	going    []deleted
	synced   time.Time // when held was last known to be what the cluster holds

	definitions map[string]definition // by name; nil until they were listed
	current     bool                  // definitions are those of now
	settled     bool                  // under what definition something is held is another than was kept
	grace       time.Time             // until then nothing goes: an absence is only just over
	added       map[key]bool          // revocations that came while the cluster is a restored one
}

// collection is what is known of one resource.
type collection struct {
	resource
	held       map[key]crds.Object
	found      map[key]crds.Object // nil until it was listed
	load       map[string]burden   // of found, by namespace
	sizes      map[key]int         // of found, as it was told
	missing    map[key]time.Time   // of held, since when it is not found
	freed      map[key]time.Time   // of missing, since when there are others in its place
	version    uint64              // the highest resource version that was ever told
	told       uint64              // the resource version of found
	definition string              // UID of that under which all of held was found
	under      string              // UID of that under which found was listed
	confirmed  confirmation
	seen       map[key]bool // what was found since an absence is over; nil but for the minute after it
	partial    bool         // stubs are found of namespaces that hold no more than they may
	unserved   bool         // the API server does not know the resource
	heard      time.Time    // when the API server last told anything of it
}

type key struct{ namespace, name string }

// burden is what a namespace holds of a kind.
type burden struct{ objects, bytes int }

func (l burden) over() bool { return l.objects > maxNamespaceObjects || l.bytes > maxNamespaceBytes }

// deleted is an object whose deletion was believed.
type deleted struct {
	kind   string // name of its collection
	object crds.Object
	at     time.Time
}

// definition is what counts of a CustomResourceDefinition.
type definition struct {
	uid   string // empty: there is none
	going bool
}

// confirmation is what the API server answered, when asked after objects were gone, about
// the definition of their kind.
type confirmation struct {
	definition
	asked time.Time // when it was asked; zero: it was not
}

func newReplica() *replica {
	r := &replica{}
	for _, res := range resources() {
		k := &collection{resource: res}
		k.empty()
		r.kinds = append(r.kinds, k)
	}
	return r
}

func (k *collection) empty() {
	k.held, k.version, k.definition = make(map[key]crds.Object), 0, ""
	k.missing, k.freed = make(map[key]time.Time), make(map[key]time.Time)
}

func (r *replica) kind(name string) *collection {
	for _, k := range r.kinds {
		if k.name() == name {
			return k
		}
	}
	return nil
}

// forget makes nothing known of any cluster.
func (r *replica) forget() {
	r.cluster, r.kept, r.absent, r.restored, r.going, r.synced, r.grace, r.added = "", false, false, "", nil, time.Time{}, time.Time{}, nil
	for _, k := range r.kinds {
		k.empty()
	}
}

// lose makes what was found old, as when another API server is asked.
func (r *replica) lose() {
	r.definitions, r.current = nil, false
	for _, k := range r.kinds {
		k.unfind()
		clear(k.missing)
		clear(k.freed)
		k.unserved, k.heard = false, time.Time{}
	}
}

// unfind makes a collection one that was not listed.
func (k *collection) unfind() {
	k.found, k.told, k.under, k.confirmed, k.partial = nil, 0, "", confirmation{}, false
}

// list begins to take what a collection holds, listed under what is known of its definition.
func (k *collection) list(version uint64, under definition) {
	k.unfind()
	k.found, k.load, k.sizes = make(map[key]crds.Object), make(map[string]burden), make(map[key]int)
	k.told, k.under, k.unserved = version, under.uid, false
}

// put takes an object, of so many bytes as it was told.
func (k *collection) put(o crds.Object, size int) {
	at := key{o.Namespace, o.Name}
	before := k.load[at.namespace].over()
	k.take(at)
	l := k.load[at.namespace]
	was := l.over()
	l.objects, l.bytes = l.objects+1, l.bytes+size
	k.load[at.namespace], k.sizes[at] = l, size
	k.found[at] = o
	k.partial = k.partial || (before && at.namespace != "" && !l.over())
	switch {
	case at.namespace == "" || !l.over():
	case was:
		k.found[at] = stub(o)
	default:
		for other, o := range k.found {
			if other.namespace == at.namespace {
				k.found[other] = stub(o)
			}
		}
	}
}

// drop takes out an object, and notes whether others of its namespace can be had whole again.
func (k *collection) drop(at key) {
	was := k.load[at.namespace].over()
	k.take(at)
	k.partial = k.partial || (was && at.namespace != "" && !k.load[at.namespace].over())
}

func (k *collection) take(at key) {
	if _, ok := k.found[at]; !ok {
		return
	}
	l := k.load[at.namespace]
	l.objects, l.bytes = l.objects-1, l.bytes-k.sizes[at]
	if l.objects == 0 {
		delete(k.load, at.namespace)
	} else {
		k.load[at.namespace] = l
	}
	delete(k.sizes, at)
	delete(k.found, at)
}

// judge brings what is in force up to what was found, as far as that is believed. It gives
// why the rest is not, of which kinds the definition must be asked for before more can be
// believed, and when to judge again though nothing happens; zero: no need.
func (r *replica) judge(now time.Time) (stale string, ask []string, again time.Time) {
	r.clamp(now)
	if old := r.older(); old != nil && r.restored == "" {
		r.restored = fmt.Sprintf("the cluster was restored from an older copy (its %s are of resource version %d, and were of %d); what it held last stays in force "+
			"until all of that is there again, or root on this node runs horkos policy accept-empty --origin cluster", old.name(), old.told, old.version)
	}
	if r.restored != "" {
		if !r.covered() {
			r.addRevocations()
			return r.restored, nil, time.Time{}
		}
		r.restored, r.added = "", nil
		for _, k := range r.kinds {
			k.version = k.told
		}
	}
	back := false
	demanded := r.absent && slices.ContainsFunc(r.objects(), demands)
	for _, k := range r.kinds {
		k.version = max(k.version, k.told)
		back = k.believe(r.absent, demanded) || back
	}
	r.kept = r.kept || r.complete()
	r.forgetDeletions(now)
	if r.absent && back {
		r.absent, r.grace = false, now.Add(deletesTogether)
	}
	r.see(now)
	waiting, ask, again := r.remove(now)
	for _, k := range r.kinds {
		r.settled = k.settle(r) || r.settled
	}
	return r.staleness(waiting), ask, again
}

// see notes what is there in the minute after an absence: it can go as ever.
func (r *replica) see(now time.Time) {
	for _, k := range r.kinds {
		if !now.Before(r.grace) {
			k.seen = nil
			continue
		}
		if k.seen == nil {
			k.seen = make(map[key]bool)
		}
		for at := range k.found {
			k.seen[at] = true
		}
	}
}

// clamp has no time be later than it can: the clock may have gone back.
func (r *replica) clamp(now time.Time) {
	limit := now.Add(deletesTogether)
	before := func(t *time.Time, limit time.Time) {
		if t.After(limit) {
			*t = limit
		}
	}
	before(&r.synced, now)
	before(&r.grace, limit)
	for i := range r.going {
		before(&r.going[i].at, now)
	}
	for _, k := range r.kinds {
		before(&k.heard, now)
		before(&k.confirmed.asked, now)
		for _, times := range []map[key]time.Time{k.missing, k.freed} {
			for at, t := range times {
				before(&t, limit)
				times[at] = t
			}
		}
	}
}

// older is a collection that the cluster once had newer.
func (r *replica) older() *collection {
	for _, k := range r.kinds {
		if k.found != nil && k.told < k.version {
			return k
		}
	}
	return nil
}

// covered tells whether everything that is held is found as it is held.
func (r *replica) covered() bool {
	for _, k := range r.kinds {
		if k.found == nil && k.unserved && len(k.held) == 0 {
			continue
		}
		if k.found == nil {
			return false
		}
		if k.kind == crds.KindNamespace {
			continue
		}
		for at, o := range k.held {
			if revokes(o) && r.added[at] {
				continue
			}
			if f, ok := k.found[at]; ok && revokes(o) && withdraws(f, o) {
				continue
			}
			if f, ok := k.found[at]; !ok || !bytes.Equal(f.Raw, o.Raw) {
				return false
			}
		}
	}
	return true
}

// newest is the highest resource version that was told.
func (r *replica) newest() uint64 {
	var n uint64
	for _, k := range r.kinds {
		n = max(n, k.told)
	}
	return n
}

// holdsPolicy tells whether any policy is found.
func (r *replica) holdsPolicy() bool {
	for _, k := range r.kinds {
		for _, o := range k.found {
			if isPolicy(o) {
				return true
			}
		}
	}
	return false
}

// complete tells whether every collection was listed.
func (r *replica) complete() bool {
	return !slices.ContainsFunc(r.kinds, func(k *collection) bool { return k.found == nil })
}

// believe puts in force what was found and is new or other than before. It tells whether a
// policy came that ends an absence: one that enforces, or one that was missing or enforced,
// whatever it says now; a revocation, where no policy was demanded. What was missing is not known after a start.
func (k *collection) believe(absent, demanded bool) (back bool) {
	for at, o := range k.found {
		_, missed := k.missing[at]
		old, ok := k.held[at]
		if !ok || !bytes.Equal(old.Raw, o.Raw) {
			k.held[at] = o
			back = back || (absent && ok && demands(old))
		}
		if absent {
			back = back || (isPolicy(o) && missed) || demands(o) || (revokes(o) && !demanded)
		}
		if missed {
			delete(k.missing, at)
			delete(k.freed, at)
		}
	}
	return back
}

// settle notes under which definition all of held is, once that is one.
func (k *collection) settle(r *replica) (other bool) {
	if k.found == nil || k.under == "" || !r.current || r.definitions[k.name()].uid != k.under || k.under == k.definition || len(k.missing) > 0 {
		return false
	}
	k.definition = k.under
	return true
}

// forgetDeletions ends what can be taken back.
func (r *replica) forgetDeletions(now time.Time) {
	if slices.ContainsFunc(r.kinds, func(k *collection) bool { return k.found == nil && !k.unserved }) {
		for i := range r.going { // more may be gone, and have gone together
			r.going[i].at = now
		}
		return
	}
	if n := len(r.going); n > 0 && now.Sub(r.going[n-1].at) > deletesTogether {
		r.going = nil
	}
	r.going = slices.DeleteFunc(r.going, func(d deleted) bool { return now.Sub(d.at) > deletesRemembered })
}

// remember keeps deletions that may have to be taken back, the last of each object.
func (r *replica) remember(more []deleted) {
	type id struct {
		kind string
		key
	}
	of := func(d deleted) id { return id{d.kind, key{d.object.Namespace, d.object.Name}} }
	again := make(map[id]bool)
	for _, d := range more {
		again[of(d)] = true
	}
	r.going = append(slices.DeleteFunc(r.going, func(d deleted) bool { return again[of(d)] }), more...)
}

// boundDeletions bounds what is remembered. What enforces comes first, and the last of each
// namespace: none can have what was in others forgotten.
func (r *replica) boundDeletions() {
	size := 0
	for _, d := range r.going {
		size += len(d.object.Raw)
	}
	if len(r.going) <= maxGoing && size <= maxGoingBytes {
		return
	}
	type ranked struct {
		at, rank int // in going; among those of its namespace
		idle     bool
	}
	var all []ranked
	seen := make(map[string]int)
	for at, d := range slices.Backward(r.going) {
		all = append(all, ranked{at, seen[d.object.Namespace], !demands(d.object)})
		seen[d.object.Namespace]++
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		if a.idle != b.idle {
			return map[bool]int{true: 1, false: -1}[a.idle]
		}
		return a.rank - b.rank
	})
	keep := make(map[int]bool)
	size = 0
	for _, a := range all {
		if size += len(r.going[a.at].object.Raw); size > maxGoingBytes || len(keep) == maxGoing {
			break
		}
		keep[a.at] = true
	}
	var kept []deleted
	for at, d := range r.going {
		if keep[at] {
			kept = append(kept, d)
		}
	}
	r.going = kept
}

// remove takes out of force what was withdrawn. It gives how many objects of which
// collections are not found and stay, and which definitions to ask for.
func (r *replica) remove(now time.Time) (waiting map[string]int, ask []string, again time.Time) {
	waiting = make(map[string]int)
	soon := func(at time.Time) {
		if again.IsZero() || at.Before(again) {
			again = at
		}
	}
	before := r.objects()
	var removed []deleted
	for _, k := range r.kinds {
		if k.found == nil {
			continue
		}
		inPlace := make(map[string]bool) // namespaces that hold something of the kind
		for at := range k.found {
			inPlace[at.namespace] = true
		}
		for at, o := range k.held {
			if _, ok := k.found[at]; ok {
				continue
			}
			since, ok := k.missing[at]
			if !ok {
				since = now
				k.missing[at] = now
			}
			if r.absent && k.kind != crds.KindNamespace {
				continue
			}
			if due := since.Add(deleteSettle); now.Before(due) {
				soon(due)
				continue
			}
			switch gone, due := k.withdrawn(at, since, now, inPlace[at.namespace]); {
			case k.kind == crds.KindNamespace:
				k.lose(at)
			case gone && now.Before(r.grace) && !k.seen[at]:
				soon(r.grace)
			case gone:
				k.lose(at)
				removed = append(removed, deleted{k.name(), o, now})
			case k.confirmed.asked.Before(since):
				if !slices.Contains(ask, k.name()) {
					ask = append(ask, k.name())
				}
				waiting[k.name()]++
			default:
				if !due.IsZero() {
					soon(due)
				}
				waiting[k.name()]++
			}
		}
	}
	if len(removed) > 0 {
		r.remember(removed)
		r.reconsider(before)
		r.boundDeletions()
	}
	return waiting, ask, again
}

func (k *collection) lose(at key) {
	delete(k.held, at)
	delete(k.missing, at)
	delete(k.freed, at)
}

// withdrawn tells whether an object that is gone was deleted by itself, and not with its
// kind: the definition, asked for since, is the one that it was held under. Where the kind went and
// came back, what is gone is withdrawn when others are in its place, in its namespace, for a while.
func (k *collection) withdrawn(at key, since, now time.Time, inPlace bool) (gone bool, due time.Time) {
	c := k.confirmed
	switch {
	case c.asked.Before(since) || c.uid == "" || c.going:
		return false, due
	case c.uid == k.definition:
		return true, due
	case !inPlace:
		delete(k.freed, at)
		return false, due
	}
	freed, ok := k.freed[at]
	if !ok {
		freed = now
		k.freed[at] = now
	}
	due = freed.Add(deletesTogether)
	return !now.Before(due), due
}

// reconsider takes deletions back after which nothing enforces any more: absence is not
// permission. It is judged by what enforces: a policy that only reports replaces none.
func (r *replica) reconsider(before []crds.Object) {
	for _, d := range r.going {
		before = append(before, d.object)
	}
	now := r.objects()
	lost := slices.ContainsFunc(before, demands) && !slices.ContainsFunc(now, demands)
	if !lost && !vanished(before, now) {
		return
	}
	r.absent = true
	for _, d := range r.going {
		k, at := r.kind(d.kind), key{d.object.Namespace, d.object.Name}
		if _, ok := k.held[at]; !ok {
			k.held[at] = d.object
			k.missing[at] = d.at
		}
	}
	r.going = nil
}

// addRevocations puts those in force that are found: they can only tighten.
func (r *replica) addRevocations() {
	k := r.kind(resourceOf(horkos.KindImageRevocation).name())
	for at, o := range k.found {
		old, ok := k.held[at]
		switch {
		case ok && !withdraws(old, o):
			k.held[at] = withdrawing(old, o, k.resource)
		case !ok:
			k.held[at] = o
			if r.added == nil {
				r.added = make(map[key]bool)
			}
			r.added[at] = true
		}
	}
}

// digests are those that a revocation withdraws.
func digests(o crds.Object) []string {
	var r struct {
		Spec struct {
			Digests []string `json:"digests"`
		} `json:"spec"`
	}
	_ = json.Unmarshal(o.Raw, &r) // of what cannot be read it is known already
	return r.Spec.Digests
}

// withdraws tells whether a revocation withdraws all that another does.
func withdraws(o, other crds.Object) bool {
	has := digests(o)
	return bytes.Equal(o.Raw, other.Raw) || (len(other.Problems) == 0 && !slices.ContainsFunc(digests(other), func(d string) bool { return !slices.Contains(has, d) }))
}

// withdrawing is a revocation that withdraws what another does too.
func withdrawing(o, other crds.Object, r resource) crds.Object {
	both := append(digests(o), digests(other)...)
	slices.Sort(both)
	raw, _ := json.Marshal(map[string]any{"apiVersion": o.APIVersion, "kind": o.Kind, "metadata": map[string]string{"name": o.Name}, "spec": map[string]any{"digests": slices.Compact(both)}})
	if merged, err := decodeOne(raw, r); err == nil {
		return merged
	}
	return stub(o)
}

// accept gives up what is held, for what is found. The error says why that cannot be.
func (r *replica) accept(hash string) error {
	switch {
	case hash != hashOf(r.accountable()):
		return errors.New("that set is not the one in force")
	case r.cluster == "" || slices.ContainsFunc(r.kinds, func(k *collection) bool { return k.found == nil && !k.unserved }):
		return errors.New("it is not known what the cluster holds")
	}
	for _, k := range r.kinds {
		found := maps.Clone(k.found)
		version, under := k.told, k.under
		k.empty()
		k.version, k.definition = version, under
		if found != nil {
			k.held = found
		}
	}
	r.absent, r.restored, r.going, r.grace, r.added = false, "", nil, time.Time{}, nil
	return nil
}

// accountable are the objects in force that somebody gives up. Namespaces come and go.
func (r *replica) accountable() []crds.Object {
	return slices.DeleteFunc(r.objects(), func(o crds.Object) bool { return o.Kind == crds.KindNamespace })
}

// staleness says what is in force though it is not found.
func (r *replica) staleness(waiting map[string]int) string {
	var texts []string
	if r.absent {
		texts = append(texts, "no policy in the cluster enforces any more; what it held last stays in force until policies are there again, or root on this node runs horkos policy accept-empty --origin cluster")
	}
	for _, k := range r.kinds {
		n := waiting[k.name()]
		c := k.confirmed
		switch {
		case k.unserved && k.found == nil && len(k.held) > 0:
			texts = append(texts, fmt.Sprintf("the API server does not know %s any more; the last %d stay in force", k.name(), len(k.held)))
		case n == 0:
		case c.asked.IsZero():
			texts = append(texts, fmt.Sprintf("%d %s are gone; they stay in force until it is known whether they were deleted one by one or with their CustomResourceDefinition", n, k.name()))
		case c.uid == "" || c.going:
			texts = append(texts, fmt.Sprintf("%d %s go with their CustomResourceDefinition; they stay in force", n, k.name()))
		default:
			texts = append(texts, fmt.Sprintf("%d %s went with their CustomResourceDefinition; they stay in force until there are others in their namespaces, or root on this node runs horkos policy accept-empty --origin cluster", n, k.name()))
		}
	}
	return strings.Join(texts, "; ")
}

// objects are those in force, in one order.
func (r *replica) objects() []crds.Object {
	var all []crds.Object
	for _, k := range r.kinds {
		for _, o := range k.held {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b crds.Object) int {
		return strings.Compare(a.Kind+"\x00"+a.Namespace+"\x00"+a.Name, b.Kind+"\x00"+b.Namespace+"\x00"+b.Name)
	})
	return all
}

// set is what is in force, as others see it, but for how old it is.
func (r *replica) set() crds.Set {
	set := crds.Set{Origin: crds.Cluster}
	over := make(map[string]string)
	for _, k := range r.kinds {
		for ns, l := range k.load {
			if k.found != nil && ns != "" && l.over() {
				over[ns] = fmt.Sprintf("namespace %s holds %d %s of %d bytes, at most %d of %d are judged: put what they say into fewer", ns, l.objects, k.name(), l.bytes, maxNamespaceObjects, maxNamespaceBytes)
			}
		}
	}
	for _, o := range r.objects() {
		if over[o.Namespace] == "" {
			set.Objects = append(set.Objects, o)
		}
	}
	for _, ns := range slices.Sorted(maps.Keys(over)) {
		set.Faults = append(set.Faults, crds.Fault{Source: clusterSource, Namespaces: []string{ns}, Message: over[ns]})
	}
	if !r.kept {
		set.Unknown = &crds.Unknown{Message: "what the cluster holds was never known on this node: " + r.unlisted()}
	}
	return set
}

// unlisted says what is missing to know the cluster.
func (r *replica) unlisted() string {
	var unserved []string
	for _, k := range r.kinds {
		if k.unserved && k.found == nil {
			unserved = append(unserved, k.name())
		}
	}
	if len(unserved) > 0 {
		return "the API server does not know " + strings.Join(unserved, ", ") + "; install the CustomResourceDefinitions of horkos"
	}
	return "the API server has not told it yet"
}

// uninstalled tells whether there is sure to be nothing of a kind: it is not defined, and
// nothing was ever there that could have gone with it.
func (r *replica) uninstalled(k *collection) bool {
	_, defined := r.definitions[k.name()]
	return k.unserved && len(k.held) == 0 && r.current && !defined
}

// clusterSource is where objects of the cluster are from, in messages.
const clusterSource = "cluster"
