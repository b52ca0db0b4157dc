package verifier_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
)

// knownBySource is a View of what several sources are known to hold about any image. Every
// signature is verified.
type knownBySource map[string]evidence.Answer

func (k knownBySource) Lookup(q evidence.Question) evidence.Answer { return k[q.Source] }

func (k knownBySource) Outcome(key *attestation.Key, env *attestation.Envelope) (attestation.Outcome, bool) {
	return attestation.Verify(key, env), true
}

// What a source is known to hold decides what its silence means.
func TestHowWellASourceIsKnownDecidesWhatItsSilenceMeans(t *testing.T) {
	s := newSigner(1)
	good := []evidence.Attestation{s.attest(t, cart(1))}
	expired := []evidence.Attestation{s.attestAt(t, cart(1), noon.Add(-2*time.Hour), noon.Add(-time.Hour))}
	type answers = knownBySource
	for _, tt := range []struct {
		name   string
		known  answers
		result verifier.Result
		reason verifier.Reason
		detail string
		asked  []string // sources that are asked
		age    time.Duration
	}{
		{"a fresh answer attests", answers{"a": {State: evidence.Fresh, Attestations: good, Age: time.Minute}},
			verifier.Allowed, verifier.Attested, "", nil, time.Minute},
		{"a fresh answer without an attestation denies", answers{"a": {State: evidence.Fresh}},
			verifier.Denied, verifier.NotAttested, "", nil, 0},
		{"which is asked again when it may be", answers{"a": {State: evidence.Fresh, Again: true}},
			verifier.Denied, verifier.NotAttested, "", []string{"a"}, 0},
		{"a stale answer attests, says so, and is asked again", answers{"a": {State: evidence.Stale, Attestations: good, Age: 3 * time.Hour, Again: true}},
			verifier.Allowed, verifier.Attested, "as its source said 3h0m0s ago", []string{"a"}, 3 * time.Hour},
		{"also while its source fails", answers{"a": {State: evidence.Stale, Attestations: good, Age: 3 * time.Hour, Problem: "no route"}},
			verifier.Allowed, verifier.Attested, "3h0m0s ago; since then it failed: no route", nil, 3 * time.Hour},
		{"a stale answer without one is not known to be all", answers{"a": {State: evidence.Stale, Age: time.Hour, Again: true}},
			verifier.Unresolved, verifier.EvidencePending, "did not attest 1h0m0s ago", []string{"a"}, time.Hour},
		{"nor while its source fails", answers{"a": {State: evidence.Stale, Age: time.Hour, Problem: "no route"}},
			verifier.Unavailable, verifier.SourceUnavailable, "no route", nil, time.Hour},
		{"a stale answer is judged by the time of the moment", answers{"a": {State: evidence.Stale, Attestations: expired, Age: time.Hour, Problem: "no route"}},
			verifier.Unavailable, verifier.SourceUnavailable, "no route", nil, time.Hour},
		{"an expired answer does not attest", answers{"a": {State: evidence.Expired, Attestations: good, Age: 48 * time.Hour, Again: true}},
			verifier.Unavailable, verifier.EvidenceExpired, "48h0m0s ago, is too old", []string{"a"}, 0},
		{"a source that failed is unavailable", answers{"a": {State: evidence.Failed, Problem: "no route", Again: true}},
			verifier.Unavailable, verifier.SourceUnavailable, "its source failed: no route", []string{"a"}, 0},
		{"one that was not asked is unresolved", answers{"a": {Again: true}},
			verifier.Unresolved, verifier.EvidencePending, "not asked yet", []string{"a"}, 0},
		{"what one source fails to say another says", answers{"a": {State: evidence.Failed, Problem: "no route"}, "b": {State: evidence.Fresh, Attestations: good}},
			verifier.Allowed, verifier.Attested, "", nil, 0},
		{"one that may still speak comes before one that failed", answers{"a": {State: evidence.Failed, Problem: "no route"}, "b": {}},
			verifier.Unresolved, verifier.EvidencePending, "not asked yet", []string{"b"}, 0},
		{"one that failed comes before one that has nothing", answers{"a": {State: evidence.Fresh}, "b": {State: evidence.Failed, Problem: "no route"}},
			verifier.Unavailable, verifier.SourceUnavailable, "no route", nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &verifier.Decider{Sources: []evidence.Question{{Source: "a"}}}
			if _, ok := tt.known["b"]; ok {
				d.Sources = append(d.Sources, evidence.Question{Source: "b"})
			}
			dec := d.Decide(asks(cart(1)), requires(t, s), tt.known)
			want(t, dec, tt.result, tt.reason)
			checks := dec.Images[0].Checks
			if got := checks[len(checks)-1].Detail; !strings.Contains(got, tt.detail) {
				t.Errorf("detail %q, want %q", got, tt.detail)
			}
			var asked []string
			for _, q := range dec.Missing {
				asked = append(asked, q.Source)
			}
			if !slices.Equal(asked, tt.asked) {
				t.Errorf("asked %v, want %v", asked, tt.asked)
			}
			if got := dec.Images[0].EvidenceAge; got != tt.age {
				t.Errorf("age %s, want %s", got, tt.age)
			}
		})
	}
}
