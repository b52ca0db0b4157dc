package evidence

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/image"
)

// Memory is evidence in memory: what complete sources hold, what sources that are asked
// answered, and which signatures verify.
// It is safe for concurrent use; looking up never waits for anything slow.
type Memory struct {
	replace sync.Mutex
	sources atomic.Pointer[map[string]Records]

	answers  answers
	elapsed  func() time.Duration // since some moment, on the monotonic clock
	outcomes outcomes
}

// Records are all attestations a source holds, by the image they are filed under. What
// they speak of is in what is signed.
type Records map[image.Identity][]Attestation

// NewMemory returns a Memory that knows nothing: every question is unanswered.
func NewMemory() *Memory {
	start := time.Now()
	m := &Memory{
		answers:  answers{terms: make(map[string]Terms), at: make(map[string]string), by: make(map[Question]*answer), most: maxAnswerBytes},
		elapsed:  func() time.Duration { return time.Since(start) },
		outcomes: newOutcomes(),
	}
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
	hold := func(attestations []Attestation) {
		for i := range attestations {
			for k := range attestations[i].Envelopes {
				held[attestations[i].Envelopes[k].Sum()] = true
			}
		}
	}
	for _, records := range sources {
		for _, attestations := range records {
			hold(attestations)
		}
	}
	m.answers.mu.RLock()
	for _, a := range m.answers.by {
		hold(a.attestations)
	}
	m.answers.mu.RUnlock()
	m.outcomes.forget(held)
}

// Lookup gives what is known of what a source holds about an image. A source that was
// neither replaced nor asked has not answered.
func (m *Memory) Lookup(q Question) Answer {
	if records, ok := (*m.sources.Load())[q.Source]; ok {
		return Answer{State: Fresh, Attestations: records[q.Identity]}
	}
	answer, _ := m.answers.look(q, m.elapsed())
	return answer
}

// Outcome gives what verifying an envelope under a key gave, if that is remembered.
func (m *Memory) Outcome(key *attestation.Key, env *attestation.Envelope) (attestation.Outcome, bool) {
	return m.outcomes.get(outcomeKey{key.Fingerprint(), env.Sum()})
}

// Remember keeps the outcome of verifying an envelope under a key, on behalf of the
// namespace whose policies name the key; empty where they are those of the whole node.
func (m *Memory) Remember(namespace string, key *attestation.Key, env *attestation.Envelope, out attestation.Outcome) {
	m.outcomes.put(namespace, outcomeKey{key.Fingerprint(), env.Sum()}, out)
}
