package evidence

import (
	"crypto/ed25519"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/image"
)

var testTime = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func identity(repository string) image.Identity {
	return image.Identity{Repository: repository, Digest: image.SHA256([]byte("content"))}
}

func envelope(n int) attestation.Envelope {
	return attestation.NewEnvelope(attestation.PKIX, "key", []byte("payload"), fmt.Append(nil, n))
}

func key(t *testing.T) *attestation.Key {
	t.Helper()
	payload, err := attestation.NewPayload(image.Identity{Repository: "docker.io/library/x", Digest: image.SHA256(nil)}, testTime, testTime)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := attestation.Sign(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), "", payload)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestASourceThatWasNeverReadHasNotAnswered(t *testing.T) {
	m := NewMemory()
	q := Question{Source: "folder", Identity: identity("a")}
	if m.Lookup(q).State != Unasked {
		t.Error("it answered before it was read")
	}
	m.Replace("folder", nil)
	if found := m.Lookup(q); found.State != Fresh || len(found.Attestations) > 0 {
		t.Errorf("it holds nothing, and answered %v", found)
	}
	if m.Lookup(Question{Source: "other", Identity: q.Identity}).State != Unasked {
		t.Error("another source answered")
	}
}

func TestASourceAnswersAboutTheImageItIsAskedFor(t *testing.T) {
	m := NewMemory()
	m.Replace("folder", Records{identity("a"): {{Origin: "of a"}}})
	if found := m.Lookup(Question{Source: "folder", Identity: identity("a")}).Attestations; len(found) != 1 {
		t.Errorf("found %v", found)
	}
	if found := m.Lookup(Question{Source: "folder", Identity: identity("b")}).Attestations; len(found) != 0 {
		t.Errorf("found %v about another repository", found)
	}
	m.Replace("other", Records{identity("a"): {{}, {}}})
	m.Replace("folder", Records{})
	if found := m.Lookup(Question{Source: "folder", Identity: identity("a")}); found.State != Fresh || len(found.Attestations) != 0 {
		t.Errorf("after it was emptied: %v", found)
	}
	if found := m.Lookup(Question{Source: "other", Identity: identity("a")}).Attestations; len(found) != 2 {
		t.Error("replacing one source changed another")
	}
}

func TestOutcomesAreForgottenWithTheirEnvelopes(t *testing.T) {
	m, k := NewMemory(), key(t)
	kept, gone := envelope(1), envelope(2)
	m.Replace("folder", Records{identity("a"): {{Envelopes: []attestation.Envelope{kept, gone}}}})
	for _, env := range []attestation.Envelope{kept, gone} {
		if _, ok := m.Outcome(k, &env); ok {
			t.Error("an outcome before there was one")
		}
		m.Remember("", k, &env, attestation.Outcome{})
	}
	m.Replace("folder", Records{identity("a"): {{Envelopes: []attestation.Envelope{kept}}}})
	if _, ok := m.Outcome(k, &kept); !ok {
		t.Error("what is still held was forgotten")
	}
	if _, ok := m.Outcome(k, &gone); ok {
		t.Error("what is gone was remembered")
	}
}

func TestANamespaceThatHasTooMuchRememberedLosesItsOwn(t *testing.T) {
	m, k := NewMemory(), key(t)
	for n := range 1000 {
		env := envelope(n)
		m.Remember("shop", k, &env, attestation.Outcome{})
		m.Remember("", k, &env, attestation.Outcome{}) // of two who ask, the later one's
	}
	for n := range 1000 {
		env := envelope(1000 + n)
		m.Remember("shop", k, &env, attestation.Outcome{})
	}
	for n := range 2 * maxOutcomes {
		env := envelope(10_000 + n)
		m.Remember("mallory", k, &env, attestation.Outcome{})
	}
	if n := len(m.outcomes.by); n > maxOutcomes || n < maxOutcomes/2 {
		t.Errorf("%d are remembered", n)
	}
	for n := range 2000 {
		env := envelope(n)
		if _, ok := m.Outcome(k, &env); !ok {
			t.Fatalf("outcome %d of others is forgotten", n)
		}
	}
	sum := 0
	for _, n := range m.outcomes.count {
		sum += n
	}
	if sum != len(m.outcomes.by) || m.outcomes.count["shop"] != 1000 || m.outcomes.count[""] != 1000 {
		t.Errorf("counted %v of %d", m.outcomes.count, len(m.outcomes.by))
	}
}

func TestMemoryIsSafeForConcurrentUse(t *testing.T) {
	m, k := NewMemory(), key(t)
	var wait sync.WaitGroup
	for worker := range 4 {
		wait.Go(func() {
			for n := range 200 {
				env := envelope(n)
				m.Remember("", k, &env, attestation.Outcome{})
				m.Outcome(k, &env)
				m.Lookup(Question{Source: "folder", Identity: identity("a")})
				m.Replace(fmt.Sprint(worker), Records{identity("a"): {{Envelopes: []attestation.Envelope{env}}}})
			}
		})
	}
	wait.Wait()
	for worker := range 4 {
		if m.Lookup(Question{Source: fmt.Sprint(worker), Identity: identity("a")}).State != Fresh {
			t.Errorf("what source %d held was lost", worker)
		}
	}
}
