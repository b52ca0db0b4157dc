package verifier_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
)

// claims are authorities of a tenant's namespace, of 16 keys each, that all claim a key id,
// and a policy that names them.
func claims(t *testing.T, keyID string, n int) (manifests []string) {
	var names []string
	for i := range n {
		var b strings.Builder
		name := fmt.Sprintf("claim-%d", i)
		names = append(names, name)
		fmt.Fprintf(&b, "apiVersion: kritis.grafeas.io/v1beta1\nkind: AttestationAuthority\nmetadata: {name: %s, namespace: mallory}\nspec:\n  publicKeys:\n", name)
		for k := range 16 {
			fmt.Fprintf(&b, "  - {keyType: PKIX, keyId: %q, pkixPublicKey: {publicKeyPem: %q}}\n", keyID, newSigner(1000+16*i+k).pem(t))
		}
		manifests = append(manifests, b.String())
	}
	return append(manifests, "apiVersion: kritis.grafeas.io/v1beta1\nkind: GenericAttestationPolicy\nmetadata: {name: p, namespace: mallory}\nspec: {attestationAuthorityNames: ["+
		strings.Join(names, ", ")+"]}\n")
}

func TestKeysThatATenantClaimsDoNotHoldUpThoseOfOthers(t *testing.T) {
	release := newSigner(1)
	keyID := release.attest(t, cart(1)).Envelopes[0].KeyID
	manifests := append(claims(t, keyID, policy.MaxNamespaceKeys/16), authority(t, "release", release), gap("shop", "attestationAuthorityNames: [release]"))
	snap := policy.Compile(set(t, crds.Folder, manifests...))
	q := evidence.Question{Source: "folder", Identity: cart(1)}
	for _, tt := range []struct {
		namespace string
		most      int
	}{
		{"shop", 1},
		{"", 1 + 64}, // its own and what each namespace may have verified ahead
		{"mallory", policy.MaxNamespaceKeys},
	} {
		memory := &counting{Memory: holds(cart(1), release.attest(t, cart(1)))}
		if err := verifier.Settle(context.Background(), snap, memory, tt.namespace, q); err != nil {
			t.Fatal(err)
		}
		if memory.verified > tt.most || memory.verified == 0 {
			t.Errorf("for namespace %q %d signatures are verified, want at most %d", tt.namespace, memory.verified, tt.most)
		}
		dec := decider().Decide(asks(cart(1)), snap, memory)
		if tt.namespace != "mallory" {
			want(t, dec, verifier.Allowed, verifier.Attested)
		}
	}
}

func TestATenantWhoHasTooMuchVerifiedForgetsNothingOfOthers(t *testing.T) {
	release, mallory := newSigner(1), newSigner(2)
	manifests := append(claims(t, mallory.attest(t, cart(2)).Envelopes[0].KeyID, policy.MaxNamespaceKeys/16), authority(t, "release", release), gap("shop", "attestationAuthorityNames: [release]"))
	snap := policy.Compile(set(t, crds.Folder, manifests...))
	memory := evidence.NewMemory()
	records := evidence.Records{cart(1): {release.attest(t, cart(1))}}
	const images = 15 // of 256 keys and 64 signatures each: more than is remembered
	for n := range images {
		for k := range 64 {
			records[cart(10+n)] = append(records[cart(10+n)], mallory.forged(t, cart(10+n), k))
		}
	}
	memory.Replace("folder", records)
	if err := verifier.Settle(context.Background(), snap, memory, "shop", evidence.Question{Source: "folder", Identity: cart(1)}); err != nil {
		t.Fatal(err)
	}
	for n := range images {
		if err := verifier.Settle(context.Background(), snap, memory, "mallory", evidence.Question{Source: "folder", Identity: cart(10 + n)}); err != nil {
			t.Fatal(err)
		}
	}
	want(t, decider().Decide(asks(cart(1)), snap, memory), verifier.Allowed, verifier.Attested)
}

// An index may list 128 manifests, and a node have 16 names of it and several sources.
func TestWhatIsMissingCostsNoMoreThanItsNumber(t *testing.T) {
	snap := requires(t, newSigner(1))
	decide := func(sources int) (time.Duration, verifier.Decision) {
		d := &verifier.Decider{}
		for n := range sources {
			d.Sources = append(d.Sources, evidence.Question{Source: fmt.Sprint("source-", n)})
		}
		req := asks(cart(1))
		req.Images[0].Candidates = nil
		for c := range verifier.MaxCandidates {
			candidate := verifier.Candidate{Repository: fmt.Sprint("registry.example.com/shop/cart-", c)}
			for n := range 129 {
				candidate.Digests = append(candidate.Digests, digestOf(n))
			}
			req.Images[0].Candidates = append(req.Images[0].Candidates, candidate)
		}
		best, dec := time.Hour, verifier.Decision{}
		for range 5 {
			started := time.Now()
			dec = d.Decide(req, snap, evidence.NewMemory())
			best = min(best, time.Since(started))
		}
		return best, dec
	}
	few, dec := decide(2)
	many, _ := decide(8)
	want(t, dec, verifier.Unresolved, verifier.EvidencePending)
	if len(dec.Missing) != 256 {
		t.Errorf("%d questions are wanted", len(dec.Missing))
	}
	if many > 12*few {
		t.Errorf("4 times the sources take %s in place of %s", many, few)
	}
}
