package verifier_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
)

// crowd are the manifests of so many policies, each with 64 authorities of their own and as
// many for emergencies, and objects of those.
func crowd(t *testing.T, policies int) *policy.Snapshot {
	keys := fmt.Sprintf("publicKeys: [{keyType: PKIX, keyId: k, pkixPublicKey: {publicKeyPem: %q}}]", newSigner(1).pem(t))
	var objects []crds.Object
	for p := range policies {
		var names, manifests []string
		for a := range policy.MaxAuthorities {
			name := fmt.Sprintf("a%d-%d", p, a)
			manifests = append(manifests, fmt.Sprintf("apiVersion: kritis.grafeas.io/v1beta1\nkind: AttestationAuthority\nmetadata: {name: %s, namespace: shop}\nspec: {%s}\n", name, keys))
			names = append(names, name)
		}
		list := "[" + strings.Join(names, ", ") + "]"
		manifests = append(manifests, gap(fmt.Sprint("p", p), "attestationAuthorityNames: "+list+", emergencyAuthorityNames: "+list))
		objects = append(objects, set(t, crds.Folder, manifests...).Objects...)
	}
	return policy.Compile(crds.Set{Origin: crds.Folder, Objects: objects})
}

// twins is a request for an image with so many candidates, each with forgeries under the key
// id of the crowd, all of them verified before.
func twins(t *testing.T, snap *policy.Snapshot, candidates, forgeries int) (*verifier.Request, *counting) {
	req := asks(cart(0))
	img := &req.Images[0]
	img.Candidates = nil
	good := newSigner(1).attest(t, cart(0)).Envelopes[0]
	records := evidence.Records{}
	for c := range candidates {
		id := image.Identity{Repository: fmt.Sprintf("registry.example.com/shop/cart-%d", c), Digest: digestOf(0)}
		img.Candidates = append(img.Candidates, verifier.Candidate{Repository: id.Repository, Digests: []image.Digest{id.Digest}})
		for n := range forgeries {
			records[id] = append(records[id], evidence.Attestation{Envelopes: []attestation.Envelope{
				attestation.NewEnvelope(attestation.PKIX, "k", good.Payload, fmt.Append(nil, "forgery ", n))}})
		}
	}
	memory := &counting{Memory: evidence.NewMemory()}
	memory.Replace("folder", records)
	verify(t, req, snap, memory)
	return req, memory
}

// TestADecisionAtTheLimitsFitsIntoACreate: all policies that a namespace may have, with all
// authorities, of an image with all candidates, with and without evidence.
func TestADecisionAtTheLimitsFitsIntoACreate(t *testing.T) {
	whole := crowd(t, policy.MaxPolicies)
	part := crowd(t, policy.MaxPolicies/4)
	for _, forgeries := range []int{0, limitTried} {
		t.Run(fmt.Sprintf("%d forgeries", forgeries), func(t *testing.T) {
			requests, memories := make(map[*policy.Snapshot]*verifier.Request), make(map[*policy.Snapshot]*counting)
			for _, snap := range []*policy.Snapshot{whole, part} {
				requests[snap], memories[snap] = twins(t, snap, verifier.MaxCandidates, forgeries)
			}
			decide := func(snap *policy.Snapshot) verifier.Decision {
				return decider().Decide(requests[snap], snap, memories[snap])
			}
			grows(t, "policies", func(quarters int) {
				if quarters == 4 {
					decide(whole)
				} else {
					decide(part)
				}
			})
			best := time.Hour
			for range 3 {
				started := time.Now()
				decide(whole)
				best = min(best, time.Since(started))
			}
			t.Logf("decided in %s", best)
			if best > time.Second { // a tenth of it where nothing else runs
				t.Errorf("a decision took %s", best)
			}
			dec := decide(whole)
			want(t, dec, verifier.Misconfigured, verifier.ObjectMalformed)
			checks := dec.Images[0].Checks
			if last := checks[len(checks)-1]; len(checks) != 1025 || !strings.HasPrefix(last.Detail, "and ") || !strings.HasSuffix(last.Detail, " more checks") {
				t.Errorf("%d checks, the last %+v", len(checks), last)
			}
			fits(t, dec.Message())
			if !strings.Contains(dec.Message(), "than are looked at for one image") {
				t.Error(dec.Message())
			}
		})
	}
}

// TestManyPoliciesDoNotKeepAnImageFromTheFirstThatAllows: what was found before counts.
func TestManyPoliciesDoNotKeepAnImageFromTheFirstThatAllows(t *testing.T) {
	s := newSigner(1)
	manifests := []string{authority(t, "release", s), gap("a", "attestationAuthorityNames: [release]")}
	for n := 1; n < policy.MaxPolicies; n++ {
		manifests = append(manifests, gap(fmt.Sprint("p", n), "attestationAuthorityNames: [release]"))
	}
	snap := policy.Compile(set(t, crds.Folder, manifests...))
	want(t, verify(t, asks(cart(1)), snap, holds(cart(1), s.attest(t, cart(1)))), verifier.Allowed, verifier.Attested)
	snap = policy.Compile(set(t, crds.Folder, append(manifests, gap("more", "attestationAuthorityNames: [release]"))...))
	dec := verify(t, asks(cart(1)), snap, holds(cart(1), s.attest(t, cart(1))))
	want(t, dec, verifier.Misconfigured, verifier.ObjectMalformed)
	if !strings.Contains(dec.Message(), "namespace shop has 257 objects of kind GenericAttestationPolicy, at most 256 are judged") {
		t.Error(dec.Message())
	}
	req := asks(cart(1))
	req.Namespace = "elsewhere"
	want(t, verify(t, req, snap, holds(cart(1))), verifier.Denied, verifier.NoPolicy)
}

// TestAsManyClusterPoliciesAsAreJudged: of one more none decides.
func TestAsManyClusterPoliciesAsAreJudged(t *testing.T) {
	s := newSigner(1)
	manifests := []string{authority(t, "release", s)}
	for n := range policy.MaxClusterPolicies + 1 {
		manifests = append(manifests, fmt.Sprintf("apiVersion: horkos.dev/v1alpha1\nkind: ClusterAttestationPolicy\nmetadata: {name: c%d}\n"+
			"spec: {authorities: [{name: release, ref: {namespace: shop, name: release}}]}\n", n))
	}
	memory := holds(cart(1), s.attest(t, cart(1)))
	want(t, verify(t, asks(cart(1)), policy.Compile(set(t, crds.Folder, manifests[:len(manifests)-1]...)), memory), verifier.Allowed, verifier.Attested)
	dec := verify(t, asks(cart(1)), policy.Compile(set(t, crds.Folder, manifests...)), memory)
	want(t, dec, verifier.Misconfigured, verifier.ObjectMalformed)
	if !strings.Contains(dec.Message(), "1025 objects of kind ClusterAttestationPolicy, at most 1024 are judged") {
		t.Error(dec.Message())
	}
}

// TestAsManyKeysAsANamespaceMayHave: of one more its authority is not understood, in that
// namespace and where a cluster policy refers to it; nothing else is touched.
func TestAsManyKeysAsANamespaceMayHave(t *testing.T) {
	s := newSigner(1)
	in := func(namespace, manifest string) string {
		return strings.Replace(manifest, "namespace: shop", "namespace: "+namespace, 1)
	}
	crowd := []string{in("mallory", authority(t, "z", s))}
	for n := range policy.MaxNamespaceKeys {
		crowd = append(crowd, in("mallory", authority(t, fmt.Sprint("a", n), newSigner(10+n))))
	}
	manifests := []string{
		authority(t, "release", s), gap("p", "attestationAuthorityNames: [release]"),
		in("mallory", gap("p", "attestationAuthorityNames: [z]")),
		in("elsewhere", authority(t, "z", s)), in("elsewhere", gap("p", "attestationAuthorityNames: [z]")),
		"apiVersion: horkos.dev/v1alpha1\nkind: ClusterAttestationPolicy\nmetadata: {name: c}\n" +
			"spec: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: far}}, authorities: [{name: z, ref: {namespace: mallory, name: z}}]}\n",
	}
	memory := holds(cart(1), s.attest(t, cart(1)))
	decide := func(namespace string, crowd []string) verifier.Decision {
		req := asks(cart(1))
		req.Namespace = namespace
		return verify(t, req, policy.Compile(set(t, crds.Folder, slices.Concat(manifests, crowd)...)), memory)
	}
	for _, namespace := range []string{"shop", "elsewhere", "mallory", "far"} {
		want(t, decide(namespace, crowd[:policy.MaxNamespaceKeys]), verifier.Allowed, verifier.Attested)
	}
	for _, namespace := range []string{"shop", "elsewhere"} {
		want(t, decide(namespace, crowd), verifier.Allowed, verifier.Attested)
	}
	for _, namespace := range []string{"mallory", "far"} {
		dec := decide(namespace, crowd)
		want(t, dec, verifier.Misconfigured, verifier.ObjectMalformed)
		if !strings.Contains(dec.Message(), "namespace mallory holds more than 256 keys: AttestationAuthority mallory/z is not read") {
			t.Error(dec.Message())
		}
	}
}

// TestOfManyChecksThoseThatRefusedAreTold: the one that did is the last.
func TestOfManyChecksThoseThatRefusedAreTold(t *testing.T) {
	s, other := newSigner(1), newSigner(2)
	var names []string
	manifests := []string{authority(t, "other", other)}
	for n := range policy.MaxAuthorities {
		manifests = append(manifests, authority(t, fmt.Sprint("a", n), s))
		names = append(names, fmt.Sprint("a", n))
	}
	for n := range 20 {
		manifests = append(manifests, fmt.Sprintf("apiVersion: kritis.grafeas.io/v1beta1\nkind: GenericAttestationPolicy\nmetadata: {name: p%d, namespace: shop}\nspec: {enforcement: Audit, attestationAuthorityNames: [%s]}\n", n, strings.Join(names, ", ")))
	}
	manifests = append(manifests, gap("enforced", "attestationAuthorityNames: [other]"))
	dec := verify(t, asks(cart(1)), policy.Compile(set(t, crds.Folder, manifests...)), holds(cart(1)))
	want(t, dec, verifier.Denied, verifier.NotAttested)
	checks := dec.Images[0].Checks
	if len(checks) != 1025 || !slices.ContainsFunc(checks, func(c verifier.Check) bool { return c.Authority == "other" }) {
		t.Errorf("%d checks, the first %+v", len(checks), checks[0])
	}
	if last := checks[1024].Detail; last != fmt.Sprintf("and %d more checks", 20*policy.MaxAuthorities+1-1024) {
		t.Error(last)
	}
}

// TestNoEmergencyIsLookedForWhereThePolicyIsMet: it would take time, and tell what is no news.
func TestNoEmergencyIsLookedForWhereThePolicyIsMet(t *testing.T) {
	s := newSigner(1)
	snap := policy.Compile(set(t, crds.Folder, authority(t, "release", s), authority(t, "oncall", newSigner(2)),
		gap("p", "attestationAuthorityNames: [release], emergencyAuthorityNames: [oncall]")))
	dec := verify(t, asks(cart(1)), snap, holds(cart(1), s.attest(t, cart(1))))
	want(t, dec, verifier.Allowed, verifier.Attested)
	if checks := dec.Images[0].Checks; len(checks) != 1 || checks[0].Authority != "release" {
		t.Errorf("checks %+v", checks)
	}
}

// looks is a View of forgeries that counts how often it is looked at.
type looks struct {
	arithmetic
	n *int
}

func (l looks) Outcome(key *attestation.Key, env *attestation.Envelope) (attestation.Outcome, bool) {
	*l.n++
	return l.arithmetic.Outcome(key, env)
}

// TestOnePolicyTakesABoundedLook: all its authorities have all their keys under one id, which
// all the attestations bear.
func TestOnePolicyTakesABoundedLook(t *testing.T) {
	var keys strings.Builder
	for n := range policy.MaxKeys {
		fmt.Fprintf(&keys, "{keyType: PKIX, keyId: k, pkixPublicKey: {publicKeyPem: %q}}, ", newSigner(n).pem(t))
	}
	var names, manifests []string
	for n := range policy.MaxAuthorities {
		names = append(names, fmt.Sprint("a", n))
		manifests = append(manifests, fmt.Sprintf("apiVersion: kritis.grafeas.io/v1beta1\nkind: AttestationAuthority\nmetadata: {name: a%d, namespace: shop}\nspec: {publicKeys: [%s]}\n", n, keys.String()))
	}
	snap := policy.Compile(set(t, crds.Folder, append(manifests, gap("p", "attestationAuthorityNames: ["+strings.Join(names, ", ")+"]"))...))
	records := evidence.Records{}
	for n := range limitTried {
		records[cart(1)] = append(records[cart(1)], evidence.Attestation{Envelopes: []attestation.Envelope{attestation.NewEnvelope(attestation.PKIX, "k", []byte("{}"), fmt.Append(nil, n))}})
	}
	n := 0
	dec := decider().Decide(asks(cart(1)), snap, looks{arithmetic{records: records}, &n})
	if most := 200_000 + policy.MaxKeys*limitTried; n > most || n < 200_000 {
		t.Errorf("looked at %d outcomes, want at most %d", n, most)
	}
	want(t, dec, verifier.Denied, verifier.SignatureInvalid) // all that was looked at was bad
	if !strings.Contains(dec.Message(), "than are looked at for one image") {
		t.Error(dec.Message())
	}
}
