package objects

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/crds"
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

func newReplica() *replica {
	r := &replica{}
	for _, res := range resources() {
		k := &collection{resource: res}
		k.empty()
		r.kinds = append(r.kinds, k)
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
