package objects

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/crds"
)

// Times of following a cluster.
const (
	// deleteSettle is how long an object must be gone before that is believed: by then one
	// knows whether its kind is going, which takes its objects along first.
	deleteSettle = time.Second
	// deletesTogether is how far apart deletions may be that are one: if nothing is left in
	// the end, all of them are taken back.
	deletesTogether = time.Minute
)

// Limits of what a cluster holds. What is over them in a namespace is that namespace's trouble.
const (
	maxNamespaceObjects = 1024
	maxNamespaceBytes   = 4 << 20
)

// replica is what a node has of a cluster's objects: what it was told, and what of that it
// believes, which is in force. It knows no clock and no network.
type replica struct {
	cluster string // UID of namespace kube-system; empty until it is known
	kinds   []*collection
	kept    bool // held is of a kept copy, or of all kinds: it can be judged by
	absent  bool // the cluster holds no policy any more
	going   []deleted
	synced  time.Time // when held was last known to be what the cluster holds

	definitions map[string]definition // by name; nil while nobody tells
	current     bool                  // definitions are those of now
}

// collection is what is known of one resource.
type collection struct {
	resource
	held       map[key]crds.Object
	found      map[key]crds.Object // nil until it was listed
	missing    map[key]time.Time   // of held, since when it is not found
	version    uint64              // the highest resource version that was ever told
	told       uint64              // the resource version of found
	definition string              // UID of that under which held was found
	unserved   bool                // the API server does not know the resource
	heard      time.Time           // when the API server last told anything of it
}

type key struct{ namespace, name string }

// deleted is an object whose deletion was believed.
type deleted struct {
	kind   string // name of its collection
	object crds.Object
	at     time.Time
}

// definition is what counts of a CustomResourceDefinition.
type definition struct {
	uid   string
	going bool
}

func newReplica() *replica {
	r := &replica{}
	for _, res := range resources() {
		r.kinds = append(r.kinds, &collection{resource: res, held: make(map[key]crds.Object), missing: make(map[key]time.Time)})
	}
	return r
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
	r.cluster, r.kept, r.absent, r.going, r.synced = "", false, false, nil, time.Time{}
	for _, k := range r.kinds {
		k.held, k.version, k.definition = make(map[key]crds.Object), 0, ""
		clear(k.missing)
	}
}

// lose makes what was found old, as when another API server is asked.
func (r *replica) lose() {
	r.definitions, r.current = nil, false
	for _, k := range r.kinds {
		k.found, k.told, k.unserved, k.heard = nil, 0, false, time.Time{}
	}
}

// judge brings what is in force up to what was found, as far as that is believed. It gives
// why the rest is not, and when to judge again though nothing happens; zero: no need.
func (r *replica) judge(now time.Time) (stale string, again time.Time) {
	if r.cluster == "" {
		return "", time.Time{}
	}
	if old := r.older(); old != nil {
		r.addRevocations()
		return fmt.Sprintf("the cluster's %s are of resource version %d, and were of %d: it was restored from an older copy; "+
			"what it held last stays in force until it is as new again, or an operator gives it up", old.name(), old.told, old.version), time.Time{}
	}
	for _, k := range r.kinds {
		k.version = max(k.version, k.told)
		k.take(r.definitions[k.name()])
	}
	r.kept = r.kept || r.complete()
	if n := len(r.going); n > 0 && now.Sub(r.going[n-1].at) > deletesTogether {
		r.going = nil
	}
	waiting, again := r.remove(now)
	return r.staleness(waiting), again
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

// newest is the highest resource version that was ever told.
func (r *replica) newest() uint64 {
	var n uint64
	for _, k := range r.kinds {
		n = max(n, k.version, k.told)
	}
	return n
}

// complete tells whether every collection was listed.
func (r *replica) complete() bool {
	return !slices.ContainsFunc(r.kinds, func(k *collection) bool { return k.found == nil })
}

// take puts in force what was found and is new or other than before.
func (k *collection) take(d definition) {
	if k.found == nil {
		return
	}
	for at, o := range k.found {
		if old, ok := k.held[at]; !ok || !bytes.Equal(old.Raw, o.Raw) {
			k.held[at] = o
		}
		delete(k.missing, at)
	}
	// Objects that went with their definition were not withdrawn. They stay until there are
	// objects under the new one.
	if d.uid != "" && (k.definition == "" || len(k.found) > 0 || len(k.held) == 0) {
		k.definition = d.uid
	}
}

// remove takes out of force what was withdrawn. It gives how many objects of which
// collections are not found and stay.
func (r *replica) remove(now time.Time) (waiting map[string]int, again time.Time) {
	if r.absent && r.holdsPolicy() {
		r.absent = false
	}
	waiting = make(map[string]int)
	before := r.objects()
	removed := false
	for _, k := range r.kinds {
		if k.found == nil {
			continue
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
			switch due := since.Add(deleteSettle); {
			case r.absent:
			case !r.withdrawn(k):
				waiting[k.name()]++
			case now.Before(due):
				if again.IsZero() || due.Before(again) {
					again = due
				}
			default:
				delete(k.held, at)
				delete(k.missing, at)
				if k.kind != crds.KindNamespace {
					r.going = append(r.going, deleted{k.name(), o, now})
					removed = true
				}
			}
		}
	}
	if removed {
		r.reconsider(before)
	}
	return waiting, again
}

// withdrawn tells whether objects that are gone were deleted one by one, and not with
// their kind.
func (r *replica) withdrawn(k *collection) bool {
	if k.kind == crds.KindNamespace {
		return true
	}
	d, ok := r.definitions[k.name()]
	return ok && r.current && !d.going && d.uid == k.definition
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

// reconsider takes deletions back after which nothing is left: absence is not permission.
func (r *replica) reconsider(before []crds.Object) {
	for _, d := range r.going {
		before = append(before, d.object)
	}
	if !vanished(before, r.objects()) {
		return
	}
	r.absent = true
	for _, d := range r.going {
		k, at := r.kind(d.kind), key{d.object.Namespace, d.object.Name}
		if _, ok := k.held[at]; !ok {
			k.held[at] = d.object
		}
	}
	r.going = nil
}

// addRevocations puts those in force that are found: they can only tighten.
func (r *replica) addRevocations() {
	for _, k := range r.kinds {
		for at, o := range k.found {
			if _, ok := k.held[at]; !ok && revokes(o) {
				k.held[at] = o
			}
		}
	}
}

// accept gives up what is held, for what is found. The error says why that cannot be.
func (r *replica) accept(hash string) error {
	switch {
	case hash != hashOf(r.accountable()):
		return fmt.Errorf("that set is not the one in force")
	case r.cluster == "" || slices.ContainsFunc(r.kinds, func(k *collection) bool { return k.found == nil && !k.unserved }):
		return fmt.Errorf("it is not known what the cluster holds")
	}
	for _, k := range r.kinds {
		k.held = maps.Clone(k.found)
		if k.held == nil {
			k.held = make(map[key]crds.Object)
		}
		k.version, k.definition = k.told, r.definitions[k.name()].uid
		clear(k.missing)
	}
	r.absent, r.going = false, nil
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
		texts = append(texts, "the cluster holds no policy any more; what it held last stays in force until policies are there again, or an operator gives it up")
	}
	for _, k := range r.kinds {
		n := waiting[k.name()]
		d, defined := r.definitions[k.name()]
		switch {
		case k.unserved && k.found == nil && len(k.held) > 0:
			texts = append(texts, fmt.Sprintf("the API server does not know %s any more; the last %d stay in force", k.name(), len(k.held)))
		case n == 0:
		case !r.current:
			texts = append(texts, fmt.Sprintf("%d %s are gone; they stay in force until it is known whether they were deleted one by one or with their CustomResourceDefinition", n, k.name()))
		case !defined || d.going:
			texts = append(texts, fmt.Sprintf("%d %s go with their CustomResourceDefinition; they stay in force", n, k.name()))
		default:
			texts = append(texts, fmt.Sprintf("%d %s went with their CustomResourceDefinition; they stay in force until there are others, or an operator gives them up", n, k.name()))
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
	objects := r.objects()
	count, size := make(map[string]int), make(map[string]int)
	for _, o := range objects {
		count[o.Namespace]++
		size[o.Namespace] += len(o.Raw)
	}
	over := func(ns string) bool {
		return ns != "" && (count[ns] > maxNamespaceObjects || size[ns] > maxNamespaceBytes)
	}
	for _, o := range objects {
		if !over(o.Namespace) {
			set.Objects = append(set.Objects, o)
		}
	}
	for _, ns := range slices.Sorted(maps.Keys(count)) {
		if over(ns) {
			set.Faults = append(set.Faults, crds.Fault{Source: clusterSource, Namespaces: []string{ns}, Message: fmt.Sprintf(
				"namespace %s holds %d objects of %d bytes, at most %d of %d are judged", ns, count[ns], size[ns], maxNamespaceObjects, maxNamespaceBytes)})
		}
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

// clusterSource is where objects of the cluster are from, in messages.
const clusterSource = "cluster"
