package evidence

import (
	"cmp"
	"slices"
	"sync"

	"github.com/horkos/horkos/verifier/attestation"
)

// maxOutcomes bounds what is remembered of arithmetic: some 300 bytes each. Beyond it the
// namespace on whose behalf most is remembered loses the older half of it, which is verified
// again when asked for: that delays it and admits nothing, and delays nobody else.
const maxOutcomes = 1 << 17

// handful bounds how many outcomes go under one lock, so that no look-up waits for long.
const handful = 512

// outcomeKey is (format and key, envelope); both are digests over all that verifying looks at.
type outcomeKey struct{ key, envelope [32]byte }

// outcomes are what verifying envelopes under keys gave.
type outcomes struct {
	mu    sync.RWMutex
	by    map[outcomeKey]remembered
	count map[string]int // by owner
	seq   uint64
}

type remembered struct {
	attestation.Outcome
	owner string // the namespace on whose behalf; empty for the node itself
	seq   uint64 // the order in which they came
}

func newOutcomes() outcomes {
	return outcomes{by: make(map[outcomeKey]remembered), count: make(map[string]int)}
}

func (o *outcomes) get(k outcomeKey) (attestation.Outcome, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	out, ok := o.by[k]
	return out.Outcome, ok
}

func (o *outcomes) put(owner string, k outcomeKey, out attestation.Outcome) {
	o.mu.RLock()
	full := len(o.by) >= maxOutcomes
	o.mu.RUnlock()
	if full {
		o.drop(o.older())
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if before, ok := o.by[k]; ok {
		o.count[before.owner]--
	}
	o.seq++
	o.by[k] = remembered{out, owner, o.seq}
	o.count[owner]++
}

// older are the older half of what is remembered for the owner of most.
func (o *outcomes) older() []outcomeKey {
	o.mu.RLock()
	defer o.mu.RUnlock()
	most := ""
	for owner, n := range o.count {
		if n > o.count[most] {
			most = owner
		}
	}
	type one struct {
		k   outcomeKey
		seq uint64
	}
	var all []one
	for k, r := range o.by {
		if r.owner == most {
			all = append(all, one{k, r.seq})
		}
	}
	slices.SortFunc(all, func(a, b one) int { return cmp.Compare(a.seq, b.seq) })
	keys := make([]outcomeKey, (len(all)+1)/2)
	for i := range keys {
		keys[i] = all[i].k
	}
	return keys
}

// forget drops the outcomes of envelopes that are not held any more.
func (o *outcomes) forget(held map[[32]byte]bool) {
	o.mu.RLock()
	var gone []outcomeKey
	for k := range o.by {
		if !held[k.envelope] {
			gone = append(gone, k)
		}
	}
	o.mu.RUnlock()
	o.drop(gone)
}

func (o *outcomes) drop(keys []outcomeKey) {
	for chunk := range slices.Chunk(keys, handful) {
		o.mu.Lock()
		for _, k := range chunk {
			r, ok := o.by[k]
			if !ok {
				continue
			}
			delete(o.by, k)
			if o.count[r.owner]--; o.count[r.owner] == 0 {
				delete(o.count, r.owner)
			}
		}
		o.mu.Unlock()
	}
}
