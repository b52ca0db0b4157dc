package objects

import (
	"slices"
	"time"

	"github.com/horkos/horkos/crds"
)

// Bounds of what is remembered of deletions.
const (
	maxGoing      = 16 << 10
	maxGoingBytes = 32 << 20
)

// deleted is an object whose deletion was believed.
type deleted struct {
	kind   string // name of its collection
	object crds.Object
	at     time.Time
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
