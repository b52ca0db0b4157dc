package verifier_test

import (
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
	source "github.com/horkos/horkos/verifier/source/objects"
)

// within fails the test if something takes longer than any machine needs for work that
// grows with its input: what grows with its square takes minutes.
func within(t *testing.T, bound time.Duration, what string, do func()) {
	t.Helper()
	started := time.Now()
	do()
	if took := time.Since(started); took > bound {
		t.Errorf("%s: %s, want at most %s", what, took, bound)
	}
}

// TestAMegabyteIsReadCompiledAndDecidedInBoundedTime: every shape that a field of an object can take.
func TestAMegabyteIsReadCompiledAndDecidedInBoundedTime(t *testing.T) {
	release := authority(t, "release", newSigner(1))
	fill := func(part string) string {
		return strings.TrimSuffix(strings.Repeat(part+", ", 650_000/(len(part)+2)), ", ")
	}
	many := func(format string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format+", ", i)
		}
		return strings.TrimSuffix(b.String(), ", ")
	}
	cluster := func(spec string) string {
		return "apiVersion: horkos.dev/v1alpha1\nkind: ClusterAttestationPolicy\nmetadata: {name: c}\nspec: {" + spec + "}\n"
	}
	attestations := func(spec string) string {
		return "apiVersion: horkos.dev/v1alpha1\nkind: ImageAttestation\nmetadata: {name: sha256-" + strings.Repeat("a1", 32) + "}\nspec: {" + spec + "}\n"
	}
	allowlist := func(patterns string) string {
		return "apiVersion: kritis.grafeas.io/v1beta1\nkind: AdmissionAllowlist\nmetadata: {name: l}\nspec: {patterns: [" + patterns + "]}\n"
	}
	deep := func(open, end string) string {
		const depth = 9_900
		return `{"apiVersion":"kritis.grafeas.io/v1beta1","kind":"GenericAttestationPolicy","metadata":{"name":"p","namespace":"shop"},"spec":{"x":` +
			strings.Repeat(open, depth) + `"` + strings.Repeat("x", 900_000) + `"` + strings.Repeat(end, depth) + "}}"
	}
	tests := []struct{ name, manifest string }{
		{"names of authorities", gap("p", "attestationAuthorityNames: ["+fill("release")+"]")},
		{"different names of authorities", gap("p", "attestationAuthorityNames: ["+many("a%d", 90_000)+"]")},
		{"fields that are not known", gap("p", many("x%d: 1", 70_000))},
		{"one field", gap("p", "require: 1, "+fill("require: 1"))},
		{"objects in objects", deep(`{"a":`, "}")},
		{"lists in lists", deep("[", "]")},
		{"keys", "apiVersion: kritis.grafeas.io/v1beta1\nkind: AttestationAuthority\nmetadata: {name: big, namespace: shop}\nspec: {publicKeys: [" + fill("{keyType: PGP}") + "]}\n"},
		{"a key", "apiVersion: kritis.grafeas.io/v1beta1\nkind: AttestationAuthority\nmetadata: {name: big, namespace: shop}\nspec: {publicKeyData: " + strings.Repeat("QUFB", 250_000) + "}\n"},
		{"patterns", allowlist(fill("{namePattern: registry.example.com/x/*}"))},
		{"patterns of stars", allowlist(fill(`{namePattern: "a*a*a*a*a*a*a*a*/b"}`))},
		{"patterns that match no name", allowlist(fill(`{namePattern: "A/*"}`))},
		{"a scope", cluster("authorities: [{name: r, ref: {namespace: shop, name: release}}], images: [" + fill("registry.example.com/x/**") + "]")},
		{"a selector", cluster("authorities: [{name: r, ref: {namespace: shop, name: release}}], namespaceSelector: {matchLabels: {" + many("k%d: v", 60_000) + "}}")},
		{"conditions", cluster("authorities: [{name: r, ref: {namespace: shop, name: release}}], namespaceSelector: {matchExpressions: [" + fill("{key: a, operator: Exists}") + "]}")},
		{"authorities of a cluster policy", cluster("authorities: [" + fill("{name: r, ref: {namespace: shop, name: release}}") + "]")},
		{"labels of a namespace", "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {" + many("k%d: v", 60_000) + "}}\n"},
		{"digests", "apiVersion: horkos.dev/v1alpha1\nkind: ImageRevocation\nmetadata: {name: r}\nspec: {digests: [" + many("%064x", 14_000) + "]}\n"},
		{"attestations", attestations("attestations: [" + fill("{resourceUri: x}") + "]")},
		{"a PGP message", attestations(`attestations: [{resourceUri: "` + cartA1 + `", pgpSignedAttestation: {signature: ` + strings.Repeat("xA0D", 240_000) + "}}]")},
		{"a JWT", attestations(`attestations: [{resourceUri: "` + cartA1 + `", attestation: {jwts: [{compactJwt: ` + strings.Repeat("a.b", 320_000) + "}]}}]")},
		{"a payload", attestations(`attestations: [{resourceUri: "` + cartA1 + `", attestation: {serializedPayload: ` + strings.Repeat("e30K", 240_000) + ", signatures: [{signature: AAAA, publicKeyId: k}]}}]")},
		{"signatures", attestations(`attestations: [{resourceUri: "` + cartA1 + `", attestation: {serializedPayload: e30K, signatures: [` + fill("{signature: AAAA, publicKeyId: k}") + "]}}]")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if n := len(tt.manifest); n < 500_000 || n > 1<<20 {
				t.Fatalf("%d bytes are not about a megabyte", n)
			}
			within(t, 10*time.Second, "a megabyte", func() {
				objects, err := crds.Decode([]byte(tt.manifest), "big.yaml")
				if err != nil {
					t.Logf("refused: %.200v", err)
					return
				}
				snap := policy.Compile(set(t, crds.Folder, release, gap("shop", "attestationAuthorityNames: [release]")), crds.Set{Origin: crds.Cluster, Objects: objects})
				records, _ := source.Records(objects)
				memory := evidence.NewMemory()
				memory.Replace("folder", records)
				if dec := verify(t, asks(cart(1)), snap, memory); dec.Result == verifier.Allowed && dec.Reason != verifier.Exempt {
					t.Errorf("allowed: %s", dec.Message())
				}
			})
		})
	}
}

var cartA1 = "registry.example.com/shop/cart@sha256:" + strings.Repeat("a1", 32)

// TestTenThousandKeysAreLookedUpNotTried: of as many authorities each with a key of its own,
// one is asked.
func TestTenThousandKeysAreLookedUpNotTried(t *testing.T) {
	const authorities = 10_000
	var manifests []string
	for n := range authorities {
		manifests = append(manifests, authority(t, fmt.Sprint("a", n), newSigner(n)))
		manifests = append(manifests, gap(fmt.Sprint("p", n), fmt.Sprintf("attestationAuthorityNames: [a%d]", n)))
	}
	objects := set(t, crds.Folder, manifests...)
	var snap *policy.Snapshot
	within(t, 20*time.Second, "compile", func() { snap = policy.Compile(objects) })
	memory := &counting{Memory: holds(cart(1), newSigner(authorities-1).attest(t, cart(1)))}
	within(t, 10*time.Second, "decide", func() { want(t, verify(t, asks(cart(1)), snap, memory), verifier.Allowed, verifier.Attested) })
	if memory.verified != 1 {
		t.Errorf("%d signatures were verified, want one", memory.verified)
	}
}

// TestOneKeyInTenThousandNamespacesIsVerifiedOnce: so are most clusters.
func TestOneKeyInTenThousandNamespacesIsVerifiedOnce(t *testing.T) {
	release := authority(t, "release", newSigner(1))
	policies := gap("shop", "attestationAuthorityNames: [release]")
	var manifests []string
	for n := range 9_999 {
		namespace := fmt.Sprintf("namespace: n%d", n)
		manifests = append(manifests, strings.Replace(release, "namespace: shop", namespace, 1), strings.Replace(policies, "namespace: shop", namespace, 1))
	}
	objects := set(t, crds.Folder, manifests[:10_000]...)
	rest := set(t, crds.Folder, append(manifests[10_000:], release, policies)...)
	objects.Objects = append(objects.Objects, rest.Objects...)
	var snap *policy.Snapshot
	within(t, 20*time.Second, "compile", func() { snap = policy.Compile(objects) })

	var all []evidence.Attestation
	for n := range 2 * limitTried {
		all = append(all, newSigner(1).forged(t, cart(1), n))
	}
	all[0] = newSigner(1).attest(t, cart(1))
	memory := &counting{Memory: holds(cart(1), all...)}
	within(t, 5*time.Second, "decide", func() { want(t, verify(t, asks(cart(1)), snap, memory), verifier.Allowed, verifier.Attested) })
	if memory.verified != limitTried {
		t.Errorf("%d signatures were verified, want %d", memory.verified, limitTried)
	}
}

// TestKeysAreSharedOutInBoundedTime: 64 authorities with the same 64 keys, all of which
// attested, and one key too few.
func TestKeysAreSharedOutInBoundedTime(t *testing.T) {
	var signers []signer
	var attestations []evidence.Attestation
	for n := range policy.MaxKeys - 1 {
		s := newSigner(n)
		signers = append(signers, s)
		attestations = append(attestations, s.attest(t, cart(1)))
	}
	var manifests, names []string
	for n := range policy.MaxAuthorities {
		name := fmt.Sprint("a", n)
		manifests, names = append(manifests, authority(t, name, signers...)), append(names, name)
	}
	spec := "attestationAuthorityNames: [" + strings.Join(names, ", ") + "], require: "
	for require, result := range map[int]verifier.Result{policy.MaxAuthorities - 1: verifier.Allowed, policy.MaxAuthorities: verifier.Denied} {
		snap := policy.Compile(set(t, crds.Folder, append(manifests, gap("shop", spec+fmt.Sprint(require)))...))
		within(t, 10*time.Second, "decide", func() {
			if dec := verify(t, asks(cart(1)), snap, holds(cart(1), attestations...)); dec.Result != result {
				t.Errorf("require %d: %s", require, dec.Message())
			}
		})
	}
}

// TestHostilePatternsMatchInBoundedTime: the longest names against the patterns that make
// a backtracking matcher try for ever.
func TestHostilePatternsMatchInBoundedTime(t *testing.T) {
	name := image.Reference{Repository: "registry.example.com/" + strings.Repeat("a", 250), Tag: strings.Repeat("a", 128)}
	pattern := "registry.example.com/" + strings.Repeat("a*", 240) + "b"
	var patterns []string
	for range 2_000 {
		patterns = append(patterns, fmt.Sprintf("{namePattern: %q}", pattern))
	}
	snap := policy.Compile(set(t, crds.Folder, "apiVersion: kritis.grafeas.io/v1beta1\nkind: AdmissionAllowlist\nmetadata: {name: l}\nspec: {patterns: ["+strings.Join(patterns, ", ")+"]}\n"))
	req := asks(cart(1))
	req.Images[0].Name = name
	within(t, 10*time.Second, "decide", func() {
		for range 100 {
			want(t, decider().Decide(req, snap, evidence.NewMemory()), verifier.Denied, verifier.NoPolicy)
		}
	})
}

// TestManyEnvelopesAndCandidatesAreDecidedInBoundedTime: every limit at once.
func TestManyEnvelopesAndCandidatesAreDecidedInBoundedTime(t *testing.T) {
	s := newSigner(1)
	records := evidence.Records{}
	req := asks(cart(0))
	img := &req.Images[0]
	for c := range verifier.MaxCandidates {
		id := image.Identity{Repository: fmt.Sprintf("registry.example.com/twin-%d", c), Digest: digestOf(c)}
		img.Candidates = append(img.Candidates, verifier.Candidate{Repository: id.Repository, Digests: []image.Digest{id.Digest}})
		good := s.attest(t, cart(1)).Envelopes[0]
		for n := range 2 * limitRead {
			env := attestation.NewEnvelope(good.Format, good.KeyID, good.Payload, fmt.Append(nil, "forgery ", n))
			records[id] = append(records[id], evidence.Attestation{Envelopes: []attestation.Envelope{env}})
		}
	}
	memory := evidence.NewMemory()
	memory.Replace("folder", records)
	within(t, 10*time.Second, "decide", func() {
		if dec := verify(t, req, requires(t, s), memory); dec.Result != verifier.Denied || len(dec.Message()) > verifier.MaxMessage {
			t.Errorf("got %s: %s", dec.Result, dec.Message())
		}
	})
}
