package verifier_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
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

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// digestOf is a digest of nothing but a number.
func digestOf(n int) image.Digest { return image.SHA256(fmt.Append(nil, n)) }

// cart is an identity in the one repository of most tests.
func cart(n int) image.Identity {
	return image.Identity{Repository: "registry.example.com/shop/cart", Digest: digestOf(n)}
}

// signer is a private key that any number stands for.
type signer struct{ private ed25519.PrivateKey }

func newSigner(n int) signer {
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, fmt.Sprint("signer ", n))
	return signer{ed25519.NewKeyFromSeed(seed)}
}

func (s signer) pem(t testing.TB) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(s.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// attest signs for an image, an hour before noon.
func (s signer) attest(t testing.TB, id image.Identity) evidence.Attestation {
	return s.attestAt(t, id, noon.Add(-time.Hour), time.Time{})
}

func (s signer) attestAt(t testing.TB, id image.Identity, at, expires time.Time) evidence.Attestation {
	t.Helper()
	payload, err := attestation.NewPayload(id, at, expires)
	if err != nil {
		t.Fatal(err)
	}
	signature, key, err := attestation.Sign(s.private, "", payload)
	if err != nil {
		t.Fatal(err)
	}
	return evidence.Attestation{Origin: "test", Envelopes: []attestation.Envelope{
		attestation.NewEnvelope(attestation.PKIX, key.ID, payload, signature)}}
}

// forged is an attestation that names a signer's key and is not signed by it; n tells forgeries apart.
func (s signer) forged(t testing.TB, id image.Identity, n int) evidence.Attestation {
	t.Helper()
	at := s.attest(t, id)
	env := at.Envelopes[0]
	at.Envelopes[0] = attestation.NewEnvelope(env.Format, env.KeyID, env.Payload, fmt.Append(nil, "forgery ", n))
	return at
}

// authority is the manifest of one with these keys.
func authority(t testing.TB, name string, signers ...signer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: kritis.grafeas.io/v1beta1\nkind: AttestationAuthority\nmetadata: {name: %s, namespace: shop}\nspec:\n  publicKeys:\n", name)
	for _, s := range signers {
		fmt.Fprintf(&b, "  - {keyType: PKIX, pkixPublicKey: {publicKeyPem: %q}}\n", s.pem(t))
	}
	return b.String()
}

// gap is the manifest of a policy of namespace shop.
func gap(name, spec string) string {
	return fmt.Sprintf("apiVersion: kritis.grafeas.io/v1beta1\nkind: GenericAttestationPolicy\nmetadata: {name: %s, namespace: shop}\nspec: {%s}\n", name, spec)
}

func allowlist(pattern string) string {
	return fmt.Sprintf("apiVersion: kritis.grafeas.io/v1beta1\nkind: AdmissionAllowlist\nmetadata: {name: list}\nspec: {patterns: [{namePattern: %q}]}\n", pattern)
}

func revocation(name string, digests ...image.Digest) string {
	manifest := fmt.Sprintf("apiVersion: horkos.dev/v1alpha1\nkind: ImageRevocation\nmetadata: {name: %s}\nspec:\n  digests:\n", name)
	for _, d := range digests {
		manifest += fmt.Sprintf("  - %q\n", d)
	}
	return manifest
}

// set decodes the manifests of an origin.
func set(t testing.TB, origin crds.Origin, manifests ...string) crds.Set {
	t.Helper()
	objects, err := crds.Decode([]byte(strings.Join(manifests, "---\n")), string(origin)+".yaml")
	if err != nil {
		t.Fatal(err)
	}
	return crds.Set{Origin: origin, Objects: objects}
}

// requires is the snapshot of a policy that one signer must have attested.
func requires(t testing.TB, s signer) *policy.Snapshot {
	return policy.Compile(set(t, crds.Folder, authority(t, "release", s), gap("shop", "attestationAuthorityNames: [release]")))
}

// holds is a memory in which source folder holds these attestations of an image.
func holds(id image.Identity, attestations ...evidence.Attestation) *evidence.Memory {
	m := evidence.NewMemory()
	m.Replace("folder", evidence.Records{id: attestations})
	return m
}

func decider() *verifier.Decider {
	return &verifier.Decider{Sources: []evidence.Question{{Source: "folder"}}}
}

// asks is a request for images bound to one identity each.
func asks(ids ...image.Identity) *verifier.Request {
	req := &verifier.Request{Namespace: "shop", Time: noon}
	for _, id := range ids {
		req.Images = append(req.Images, bound(id))
	}
	return req
}

func bound(id image.Identity) verifier.Image {
	return verifier.Image{
		Written: id.String(), Name: image.Reference{Repository: id.Repository, Digest: id.Digest},
		Candidates: []verifier.Candidate{{Repository: id.Repository, Digests: []image.Digest{id.Digest}}},
		Digests:    []image.Digest{id.Digest},
	}
}

// verify decides with all signatures verified.
func verify(t testing.TB, req *verifier.Request, snap *policy.Snapshot, ev verifier.Evidence) verifier.Decision {
	t.Helper()
	dec, err := decider().Verify(context.Background(), req, snap, ev)
	if err != nil {
		t.Fatal(err)
	}
	return dec
}

// want fails the test if a decision is another.
func want(t testing.TB, dec verifier.Decision, result verifier.Result, reason verifier.Reason) {
	t.Helper()
	if dec.Result != result || dec.Reason != reason {
		t.Fatalf("got %s %s, want %s %s\n%s", dec.Result, dec.Reason, result, reason, dec.Message())
	}
}
