package verifier_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
)

func TestResultsAreOrderedBySeverityAndTheZeroValueDenies(t *testing.T) {
	order := []verifier.Result{verifier.Denied, verifier.Misconfigured, verifier.Unavailable, verifier.Unresolved, verifier.Allowed}
	if !slices.IsSorted(order) || order[0] != verifier.Result(0) {
		t.Errorf("order %v, zero value %v", order, verifier.Result(0))
	}
	names := []string{"denied", "misconfigured", "unavailable", "unresolved", "allowed"}
	for i, r := range order {
		text, err := r.MarshalText()
		if err != nil || string(text) != names[i] {
			t.Errorf("%d is written %q, %v", r, text, err)
		}
		var back verifier.Result
		if err := back.UnmarshalText(text); err != nil || back != r {
			t.Errorf("%q is read as %v, %v", text, back, err)
		}
	}
	if err := new(verifier.Result).UnmarshalText([]byte("Allowed")); err == nil {
		t.Error("a name in other letters was read")
	}
	if s := verifier.Result(99).String(); s != "denied" {
		t.Errorf("a result that is none is %s", s)
	}
}

func TestARequestWithoutImagesIsRefusedAndTold(t *testing.T) {
	d := verifier.Decider{Default: verifier.AllowByDefault}
	dec := d.Decide(&verifier.Request{Namespace: "shop", Time: noon}, policy.Compile(), evidence.NewMemory())
	want(t, dec, verifier.Unresolved, verifier.ImageUnbound)
	if m := dec.Message(); !strings.Contains(m, "the request names no image") {
		t.Errorf("message %q", m)
	}
	if dec := verifier.Refuse(&verifier.Request{}, verifier.Denied, verifier.Internal, "x"); len(dec.Images) != 1 {
		t.Errorf("refused with %d images", len(dec.Images))
	}
}

func TestARequestWithoutATimeIsRefused(t *testing.T) {
	s := newSigner(1)
	payload := fmt.Sprintf(`{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"atomic container signature"},"optional":{"horkos.dev/expires":%q}}`,
		cart(1).Repository, cart(1).Digest, noon.Add(-time.Hour).Format(time.RFC3339))
	signature, key, err := attestation.Sign(s.private, "", []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	expired := evidence.Attestation{Envelopes: []attestation.Envelope{attestation.NewEnvelope(attestation.PKIX, key.ID, []byte(payload), signature)}}
	snap := policy.Compile(set(t, crds.Folder, authority(t, "release", s), gap("shop", "attestationAuthorityNames: [release]")))
	req := asks(cart(1), cart(2))
	req.Time = time.Time{}
	dec := verify(t, req, snap, holds(cart(1), expired))
	want(t, dec, verifier.Unresolved, verifier.Internal)
	if len(dec.Images) != 2 || dec.Revision != snap.Revision() {
		t.Errorf("%d images, revision %q", len(dec.Images), dec.Revision)
	}
	for _, img := range dec.Images {
		if img.Result != verifier.Unresolved || img.Reason != verifier.Internal || img.Detail != "the request has no time" {
			t.Errorf("got %+v", img)
		}
	}
	req.Time = noon
	want(t, verify(t, req, snap, holds(cart(1), expired)), verifier.Denied, verifier.AttestationExpired)
}

func TestTheZeroDeciderDenies(t *testing.T) {
	dec := new(verifier.Decider).Decide(asks(cart(1)), policy.Compile(), evidence.NewMemory())
	want(t, dec, verifier.Denied, verifier.NoPolicy)
}

func TestWhatASourceHasNotAnsweredIsUnresolvedAndAsked(t *testing.T) {
	s := newSigner(1)
	d := decider()
	d.Sources = append(d.Sources, evidence.Question{Source: "other", Locator: "here"})
	snap := requires(t, s)

	dec, err := d.Verify(context.Background(), asks(cart(1), cart(1)), snap, holds(cart(1)))
	if err != nil {
		t.Fatal(err)
	}
	want(t, dec, verifier.Unresolved, verifier.EvidencePending)
	asked := evidence.Question{Source: "other", Locator: "here", Identity: cart(1)}
	if !slices.Equal(dec.Missing, []evidence.Question{asked}) {
		t.Errorf("missing %v, want once %v", dec.Missing, asked)
	}

	dec, err = d.Verify(context.Background(), asks(cart(1)), snap, holds(cart(1), s.attest(t, cart(1))))
	if err != nil {
		t.Fatal(err)
	}
	want(t, dec, verifier.Allowed, verifier.Attested)
	if len(dec.Missing) > 0 {
		t.Errorf("allowed by one source, and %v is asked", dec.Missing)
	}
}

func TestAPolicyThatOnlyReportsIsEvaluatedToo(t *testing.T) {
	s := newSigner(1)
	snap := policy.Compile(set(t, crds.Folder, authority(t, "release", s), gap("trial", "attestationAuthorityNames: [release], enforcement: Audit")))
	dec := verify(t, asks(cart(1)), snap, holds(cart(1), s.attest(t, cart(1))))
	want(t, dec, verifier.Denied, verifier.NoPolicy)
	checks := dec.Images[0].Checks
	if len(checks) != 1 || checks[0].Result != verifier.Allowed || checks[0].Requirement != "all of 1, only reported (Audit)" {
		t.Errorf("checks %+v", checks)
	}
}

func TestACheckTellsTheEnforcementOfItsPolicy(t *testing.T) {
	snap := policy.Compile(set(t, crds.Folder, authority(t, "release", newSigner(1)), authority(t, "urgent", newSigner(2)),
		gap("enforces", "attestationAuthorityNames: [release], emergencyAuthorityNames: [urgent]"),
		gap("warns", "attestationAuthorityNames: [release], emergencyAuthorityNames: [urgent], enforcement: Warn"),
		gap("audits", "attestationAuthorityNames: [release], emergencyAuthorityNames: [urgent], enforcement: Audit"),
		gap("malformed", "attestationAuthorityNames: [release], require: 7, enforcement: Audit"),
		allowlist("registry.example.com/mirror/*")))
	dec := verify(t, asks(cart(1)), snap, holds(cart(0)))
	found := make(map[string]policy.Enforcement)
	for _, c := range dec.Images[0].Checks {
		name := strings.TrimPrefix(c.Policy, "GenericAttestationPolicy shop/") + " " + c.Authority
		found[name] = c.Enforcement
		if strings.Contains(c.Requirement, "only reported ("+string(c.Enforcement)+")") == (c.Enforcement == policy.Enforce) && c.Requirement != verifier.RequirementEmergency {
			t.Errorf("check %+v", c)
		}
		if text, err := json.Marshal(c); err != nil || strings.Contains(strings.ToLower(string(text)), "enforcement") {
			t.Errorf("%s, %v", text, err)
		}
	}
	for name, want := range map[string]policy.Enforcement{
		"enforces release": policy.Enforce, "warns release": policy.Warn, "audits release": policy.Audit,
		"enforces urgent": policy.Enforce, "warns urgent": policy.Warn, "audits urgent": policy.Audit, "malformed ": policy.Enforce, // it is not believed that it decides nothing
	} {
		if found[name] != want {
			t.Errorf("%s: %q, want %q", name, found[name], want)
		}
	}
}

// TestAnExemptionDoesNotHideWhatIsOnlyReported: who tries a policy wants to know of the
// images that an older one exempts. What an AdmissionAllowlist names it would let in anyway.
func TestAnExemptionDoesNotHideWhatIsOnlyReported(t *testing.T) {
	old := gap("old", "attestationAuthorityNames: [release], admissionAllowlistPatterns: [{namePattern: registry.example.com/shop/*}]")
	trial := gap("trial", "attestationAuthorityNames: [release], enforcement: Warn")
	tests := []struct {
		name      string
		manifests []string
		want      []string // policies of the checks
	}{
		{"by a policy", []string{old, trial}, []string{"GenericAttestationPolicy shop/old", "GenericAttestationPolicy shop/trial"}},
		{"by a policy alone", []string{old}, []string{"GenericAttestationPolicy shop/old"}},
		{"by an AdmissionAllowlist", []string{trial, allowlist("registry.example.com/shop/*")}, []string{"AdmissionAllowlist list"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			snap := policy.Compile(set(t, crds.Folder, append(tt.manifests, authority(t, "release", newSigner(1)))...))
			dec := verify(t, asks(cart(1)), snap, holds(cart(2)))
			want(t, dec, verifier.Allowed, verifier.Exempt)
			var policies []string
			for _, c := range dec.Images[0].Checks {
				policies = append(policies, c.Policy)
				if reports := strings.Contains(c.Requirement, "only reported (Warn)"); reports != (c.Result == verifier.Denied) {
					t.Errorf("check %+v", c)
				}
			}
			if !slices.Equal(policies, tt.want) {
				t.Errorf("checks of %v, want %v", policies, tt.want)
			}
		})
	}
}

func TestAnOutcomeThatSaysNothingAttestsNothing(t *testing.T) {
	s := newSigner(1)
	snap := requires(t, s)
	at := s.attest(t, cart(1))
	memory := holds(cart(1), at)
	env := &at.Envelopes[0]
	memory.Remember("", snap.Authorities(env.KeyID)[0].Keys(env.KeyID)[0].Key, env, attestation.Outcome{})
	want(t, decider().Decide(asks(cart(1)), snap, memory), verifier.Denied, verifier.SignatureInvalid)
}

func TestVerifyStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s := newSigner(1)
	dec, err := decider().Verify(ctx, asks(cart(1)), requires(t, s), holds(cart(1), s.attest(t, cart(1))))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if dec.Result == verifier.Allowed {
		t.Error("allowed")
	}
}

func TestTimesAreJudgedAtTheMoment(t *testing.T) {
	s := newSigner(1)
	beside := func(at evidence.Attestation, expires time.Time) evidence.Attestation {
		at.Expires = expires
		return at
	}
	hourAgo := noon.Add(-time.Hour)
	tests := []struct {
		name string
		at   evidence.Attestation
		want verifier.Reason
	}{
		{"a second before its signed expiry it is good", s.attestAt(t, cart(1), hourAgo, noon.Add(time.Second)), verifier.Attested},
		{"at its signed expiry it is expired", s.attestAt(t, cart(1), hourAgo, noon), verifier.AttestationExpired},
		{"a second before the expiry beside it it is good", beside(s.attest(t, cart(1)), noon.Add(time.Second)), verifier.Attested},
		{"at the expiry beside it it is expired", beside(s.attest(t, cart(1)), noon), verifier.AttestationExpired},
		{"five minutes ahead it is good", s.attestAt(t, cart(1), noon.Add(5*time.Minute), time.Time{}), verifier.Attested},
		{"a second more ahead it is refused", s.attestAt(t, cart(1), noon.Add(5*time.Minute+time.Second), time.Time{}), verifier.SignatureInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if dec := verify(t, asks(cart(1)), requires(t, s), holds(cart(1), tt.at)); dec.Reason != tt.want {
				t.Errorf("got %s, want %s: %s", dec.Reason, tt.want, dec.Message())
			}
		})
	}
}

// TestAllSignedTimesMustLieWithinTheTimeOfAKeyThatExpired: those of the payload and of an
// OpenPGP signature, and the key's own end as well as the one that the authority gives it.
func TestAllSignedTimesMustLieWithinTheTimeOfAKeyThatExpired(t *testing.T) {
	s := newSigner(1)
	day := func(n int) time.Time { return noon.AddDate(0, 0, n) }
	until := fmt.Sprintf("validFrom: %q, validUntil: %q, keyType", day(-30).Format(time.RFC3339), day(-10).Format(time.RFC3339))
	bounded, open := strings.Replace(authority(t, "release", s), "keyType", until, 1), authority(t, "release", s)
	tests := []struct {
		name                string
		authority           string
		timestamp, signedAt time.Time
		keyUntil            time.Time
		want                verifier.Reason
	}{
		{"both within", bounded, day(-20), day(-15), time.Time{}, verifier.Attested},
		{"the payload's alone within", bounded, day(-20), time.Time{}, time.Time{}, verifier.Attested},
		{"the signature's alone within", bounded, time.Time{}, day(-20), time.Time{}, verifier.Attested},
		{"the signature's behind", bounded, day(-20), day(-5), time.Time{}, verifier.KeyExpired},
		{"the signature's before", bounded, day(-20), day(-40), time.Time{}, verifier.KeyExpired},
		{"the payload's behind", bounded, day(-5), day(-20), time.Time{}, verifier.KeyExpired},
		{"neither", bounded, time.Time{}, time.Time{}, time.Time{}, verifier.KeyExpired},
		{"within the key's own time", open, day(-20), day(-20), day(-10), verifier.Attested},
		{"behind the key's own end", open, day(-5), day(-20), day(-10), verifier.KeyExpired},
		{"before the authority's end and behind the key's", bounded, day(-15), day(-15), day(-18), verifier.KeyExpired},
		{"while the key is valid", open, day(-5), day(-5), day(1), verifier.Attested},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			snap := policy.Compile(set(t, crds.Folder, tt.authority, gap("shop", "attestationAuthorityNames: [release]")))
			at := s.attest(t, cart(1))
			memory := holds(cart(1), at)
			env := &at.Envelopes[0]
			memory.Remember("", snap.Authorities(env.KeyID)[0].Keys(env.KeyID)[0].Key, env, attestation.Outcome{Statement: &attestation.Statement{
				Identity: cart(1), Timestamp: tt.timestamp, SignedAt: tt.signedAt, KeyUntil: tt.keyUntil}})
			if dec := decider().Decide(asks(cart(1)), snap, memory); dec.Reason != tt.want {
				t.Errorf("got %s, want %s: %s", dec.Reason, tt.want, dec.Message())
			}
		})
	}
}

func TestCandidatesAreLookedAtUpToTheirLimit(t *testing.T) {
	s := newSigner(1)
	twin := func(n int) verifier.Candidate {
		return verifier.Candidate{Repository: fmt.Sprintf("registry.example.com/twin-%d", n), Digests: []image.Digest{digestOf(n)}}
	}
	for _, n := range []int{verifier.MaxCandidates, verifier.MaxCandidates + 1} {
		req := asks(cart(0))
		img := &req.Images[0]
		for i := 1; i < n; i++ {
			img.Candidates = append(img.Candidates, twin(i))
		}
		last := image.Identity{Repository: img.Candidates[n-1].Repository, Digest: digestOf(n - 1)}
		dec := verify(t, req, requires(t, s), holds(last, s.attest(t, last)))
		if allowed := dec.Result == verifier.Allowed; allowed != (n <= verifier.MaxCandidates) {
			t.Errorf("with the last of %d attested: %s", n, dec.Result)
		}
	}
}

func TestARevocationIsSeenOutsideTheBoundOfCandidates(t *testing.T) {
	s := newSigner(1)
	req := asks(cart(1))
	for n := range 10_000 {
		req.Images[0].Digests = append(req.Images[0].Digests, digestOf(n+2))
	}
	snap := policy.Compile(set(t, crds.Folder, authority(t, "release", s), gap("shop", "attestationAuthorityNames: [release]"), revocation("bad", digestOf(10_001))))
	want(t, verify(t, req, snap, holds(cart(1), s.attest(t, cart(1)))), verifier.Denied, verifier.ImageRevoked)
}

func TestTheConfigThatRunsMayBeRevoked(t *testing.T) {
	req := asks(cart(1))
	req.Images[0].Config = digestOf(7)
	want(t, verify(t, req, policy.Compile(set(t, crds.Folder, revocation("bad", digestOf(7)))), evidence.NewMemory()), verifier.Denied, verifier.ImageRevoked)
}

func TestOriginsStandForThemselves(t *testing.T) {
	f, c := newSigner(1), newSigner(2)
	policyOf := func(origin crds.Origin, s signer, more ...string) crds.Set {
		return set(t, origin, append([]string{authority(t, "release", s), gap("shop", "attestationAuthorityNames: [release]")}, more...)...)
	}
	fault := func(s crds.Set, namespaces []string) crds.Set {
		s.Faults = []crds.Fault{{Source: "broken.yaml", Namespaces: namespaces, Message: "does not parse"}}
		return s
	}
	unknown := func(s crds.Set, expired bool) crds.Set {
		s.Unknown = &crds.Unknown{Expired: expired, Message: "the API server was not reached yet"}
		return s
	}
	id := cart(1)
	by := func(signers ...signer) []evidence.Attestation {
		var all []evidence.Attestation
		for _, s := range signers {
			all = append(all, s.attest(t, id))
		}
		return all
	}
	tests := []struct {
		name   string
		sets   []crds.Set
		by     []evidence.Attestation
		result verifier.Result
		reason verifier.Reason
	}{
		{"what both require both must have", []crds.Set{policyOf(crds.Folder, f), policyOf(crds.Cluster, c)}, by(f, c), verifier.Allowed, verifier.Attested},
		{"the folder alone is not enough", []crds.Set{policyOf(crds.Folder, f), policyOf(crds.Cluster, c)}, by(f), verifier.Denied, verifier.NotAttested},
		{"the cluster alone is not enough", []crds.Set{policyOf(crds.Folder, f), policyOf(crds.Cluster, c)}, by(c), verifier.Denied, verifier.NotAttested},
		{"an allowlist of the cluster does not exempt from the folder", []crds.Set{policyOf(crds.Folder, f), policyOf(crds.Cluster, c, allowlist("registry.example.com/shop/*"))}, by(), verifier.Denied, verifier.NotAttested},
		{"an allowlist of the cluster exempts from the cluster", []crds.Set{policyOf(crds.Folder, f), policyOf(crds.Cluster, c, allowlist("registry.example.com/shop/*"))}, by(f), verifier.Allowed, verifier.Attested},
		{"an allowlist of an origin without policies does not exempt from the other", []crds.Set{policyOf(crds.Folder, f), set(t, crds.Cluster, allowlist("registry.example.com/shop/*"))}, by(), verifier.Denied, verifier.NotAttested},
		{"an authority of the cluster is none of the folder", []crds.Set{set(t, crds.Folder, gap("shop", "attestationAuthorityNames: [release]")), set(t, crds.Cluster, authority(t, "release", c))}, by(c), verifier.Misconfigured, verifier.AuthorityNotFound},
		{"an Audit policy of the cluster does not loosen the folder", []crds.Set{policyOf(crds.Folder, f), set(t, crds.Cluster, authority(t, "release", c), gap("shop", "attestationAuthorityNames: [release], enforcement: Audit"))}, by(c), verifier.Denied, verifier.NotAttested},
		{"a part of the folder that cannot be read makes every namespace misconfigured", []crds.Set{fault(policyOf(crds.Folder, f), nil)}, by(f), verifier.Misconfigured, verifier.ObjectMalformed},
		{"a part of the folder that spoke of the namespace makes it misconfigured", []crds.Set{fault(policyOf(crds.Folder, f), []string{"shop"})}, by(f), verifier.Misconfigured, verifier.ObjectMalformed},
		{"a part of the folder that spoke of another namespace does not", []crds.Set{fault(policyOf(crds.Folder, f), []string{"other"})}, by(f), verifier.Allowed, verifier.Attested},
		{"a part of the folder that spoke of none does not", []crds.Set{fault(policyOf(crds.Folder, f), []string{})}, by(f), verifier.Allowed, verifier.Attested},
		{"no allowlist cures what cannot be read", []crds.Set{fault(set(t, crds.Folder, allowlist("registry.example.com/shop/*")), nil)}, by(), verifier.Misconfigured, verifier.ObjectMalformed},
		{"a cluster that is not known allows nothing", []crds.Set{policyOf(crds.Folder, f), unknown(crds.Set{Origin: crds.Cluster}, false)}, by(f), verifier.Unresolved, verifier.PoliciesNotSynced},
		{"nor does one of which a part is known", []crds.Set{unknown(policyOf(crds.Cluster, c, allowlist("*")), false)}, by(c), verifier.Unresolved, verifier.PoliciesNotSynced},
		{"nor one that was known too long ago", []crds.Set{unknown(policyOf(crds.Cluster, c), true)}, by(c), verifier.Unresolved, verifier.PoliciesExpired},
		{"what the folder denies is denied though the cluster is not known", []crds.Set{policyOf(crds.Folder, f), unknown(crds.Set{Origin: crds.Cluster}, false)}, by(), verifier.Denied, verifier.NotAttested},
		{"a revocation of a cluster that expired still holds", []crds.Set{unknown(set(t, crds.Cluster, revocation("r", id.Digest)), true)}, by(c), verifier.Denied, verifier.ImageRevoked},
		{"the other origin does not cure what cannot be read", []crds.Set{fault(crds.Set{Origin: crds.Folder}, nil), policyOf(crds.Cluster, c)}, by(c), verifier.Misconfigured, verifier.ObjectMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want(t, verify(t, asks(id), policy.Compile(tt.sets...), holds(id, tt.by...)), tt.result, tt.reason)
		})
	}
}

func TestARevocationOfTheFolderIsToldBeforeThatOfTheCluster(t *testing.T) {
	folder, cluster := set(t, crds.Folder, revocation("mine", digestOf(1))), set(t, crds.Cluster, revocation("theirs", digestOf(1), digestOf(2)))
	both := asks(cart(1))
	both.Images[0].Config = digestOf(2)
	for _, tt := range []struct {
		name   string
		sets   []crds.Set
		req    *verifier.Request
		folder bool
	}{
		{"by the cluster alone", []crds.Set{cluster}, asks(cart(1)), false},
		{"by both, the folder first", []crds.Set{folder, cluster}, asks(cart(1)), true},
		{"by both, the cluster first", []crds.Set{cluster, folder}, asks(cart(1)), true},
		{"by both, by other digests", []crds.Set{cluster, folder}, both, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dec := verify(t, tt.req, policy.Compile(tt.sets...), evidence.NewMemory())
			want(t, dec, verifier.Denied, verifier.ImageRevoked)
			if dec.Images[0].FolderRevoked != tt.folder {
				t.Errorf("revoked by the folder: %v", dec.Images[0].FolderRevoked)
			}
		})
	}
}

func TestKeysCountOnceHoweverTheyAreSharedOut(t *testing.T) {
	k1, k2 := newSigner(1), newSigner(2)
	all := func(require string, authorities ...string) *policy.Snapshot {
		return policy.Compile(set(t, crds.Folder, append(authorities, gap("shop", "attestationAuthorityNames: [a, b], require: "+require))...))
	}
	id := cart(1)
	tests := []struct {
		name string
		snap *policy.Snapshot
		by   []signer
		want verifier.Result
	}{
		{"two authorities with one key are one", all("2", authority(t, "a", k1), authority(t, "b", k1)), []signer{k1}, verifier.Denied},
		{"the first gives way where it has another key", all("2", authority(t, "a", k1, k2), authority(t, "b", k1)), []signer{k1, k2}, verifier.Allowed},
		{"the second gives way where it has another key", all("2", authority(t, "a", k1), authority(t, "b", k1, k2)), []signer{k1, k2}, verifier.Allowed},
		{"a key that did not attest is no other key", all("2", authority(t, "a", k1, k2), authority(t, "b", k1)), []signer{k1}, verifier.Denied},
		{"All wants authorities, not keys", all("All", authority(t, "a", k1), authority(t, "b", k1)), []signer{k1}, verifier.Allowed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var attestations []evidence.Attestation
			for _, s := range tt.by {
				attestations = append(attestations, s.attest(t, id))
			}
			if dec := verify(t, asks(id), tt.snap, holds(id, attestations...)); dec.Result != tt.want {
				t.Errorf("got %s, want %s: %s", dec.Result, tt.want, dec.Message())
			}
		})
	}
}

func TestAKeyThatMayStillCountIsWaitedFor(t *testing.T) {
	k1, k2 := newSigner(1), newSigner(2)
	snap := policy.Compile(set(t, crds.Folder, authority(t, "a", k1, k2), authority(t, "b", k1), gap("shop", "attestationAuthorityNames: [a, b], require: 2")))
	one, two := k1.attest(t, cart(1)), k2.attest(t, cart(1))
	m := holds(cart(1), one, two)
	for _, a := range snap.Authorities(one.Envelopes[0].KeyID) {
		for _, key := range a.Keys(one.Envelopes[0].KeyID) {
			m.Remember("", key.Key, &one.Envelopes[0], attestation.Verify(key.Key, &one.Envelopes[0]))
		}
	}
	want(t, decider().Decide(asks(cart(1)), snap, m), verifier.Unresolved, verifier.EvidencePending)
	want(t, verify(t, asks(cart(1)), snap, m), verifier.Allowed, verifier.Attested)
}

func TestDecideIsPure(t *testing.T) {
	s := newSigner(1)
	snap := policy.Compile(set(t, crds.Folder, authority(t, "release", s), authority(t, "build", newSigner(2)),
		gap("one", "attestationAuthorityNames: [release, build], require: 1"), gap("two", "attestationAuthorityNames: [release]"),
		gap("three", "attestationAuthorityNames: [build], enforcement: Warn"), revocation("bad", digestOf(9))))
	memory := holds(cart(1), s.attest(t, cart(1)), s.forged(t, cart(1), 1))
	req := asks(cart(1), cart(2), cart(9))
	before := verify(t, req, snap, memory)
	text := before.Message()

	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 50 {
				dec := decider().Decide(req, snap, memory)
				if !reflect.DeepEqual(dec, before) || dec.Message() != text {
					t.Error("the same question got another answer")
					return
				}
			}
		})
	}
	wait.Wait()
	if again := asks(cart(1), cart(2), cart(9)); !reflect.DeepEqual(req, again) {
		t.Error("the request was changed")
	}
}
