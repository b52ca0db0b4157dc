package evidence

import (
	"sync"
	"sync/atomic"

	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/image"
)

// maxOutcomes bounds what is remembered of arithmetic: some 100 bytes each. Beyond it
// all is forgotten and verified again when asked for, which delays and never admits.
const maxOutcomes = 1 << 17

// Memory is evidence in memory: what complete sources hold, and which signatures verify.
// It is safe for concurrent use; looking up never waits for anything slow.
type Memory struct {
	replace sync.Mutex
	sources atomic.Pointer[map[string]Records]

	mu       sync.RWMutex
	outcomes map[outcomeKey]attestation.Outcome
}

// Records are all attestations a source holds, by the image they are filed under. What
// they speak of is in what is signed.
type Records map[image.Identity][]Attestation

// outcomeKey is (format and key, envelope); both are digests over all that verifying looks at.
type outcomeKey struct{ key, envelope [32]byte }

// NewMemory returns a Memory that knows nothing: every question is unanswered.
func NewMemory() *Memory {
	m := &Memory{outcomes: make(map[outcomeKey]attestation.Outcome)}
	m.sources.Store(&map[string]Records{})
	return m
}

// Replace puts all that a source holds now in place of what it held. The records must
// not be changed after.
func (m *Memory) Replace(source string, records Records) {
	m.replace.Lock()
	defer m.replace.Unlock()
	next := make(map[string]Records)
	for name, r := range *m.sources.Load() {
		next[name] = r
	}
	next[source] = records
	m.sources.Store(&next)
	m.forget(next)
}

// forget drops the outcomes of envelopes that no source holds any more.
func (m *Memory) forget(sources map[string]Records) {
	held := make(map[[32]byte]bool)
	for _, records := range sources {
		for _, attestations := range records {
			for i := range attestations {
				for k := range attestations[i].Envelopes {
					held[attestations[i].Envelopes[k].Sum()] = true
				}
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.outcomes {
		if !held[k.envelope] {
			delete(m.outcomes, k)
		}
	}
}

// Lookup gives what a source holds about an image. A source that was never replaced has not answered.
func (m *Memory) Lookup(q Question) ([]Attestation, bool) {
	records, ok := (*m.sources.Load())[q.Source]
	return records[q.Identity], ok
}

// Outcome gives what verifying an envelope under a key gave, if that is remembered.
func (m *Memory) Outcome(key *attestation.Key, env *attestation.Envelope) (attestation.Outcome, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out, ok := m.outcomes[outcomeKey{key.Fingerprint(), env.Sum()}]
	return out, ok
}

// Remember keeps the outcome of verifying an envelope under a key.
func (m *Memory) Remember(key *attestation.Key, env *attestation.Envelope, out attestation.Outcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.outcomes) >= maxOutcomes {
		clear(m.outcomes)
	}
	m.outcomes[outcomeKey{key.Fingerprint(), env.Sum()}] = out
}
