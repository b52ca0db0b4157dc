package verifier_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"
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

// maxGrowth is how much longer four times the work may take: what grows with its square
// takes sixteen times as long.
const maxGrowth = 10

// grows fails the test if four quarters of some work take much more than four times as long
// as one. The time is that of the processor, and the fastest of some turns counts, so that
// others on the machine do not; what takes no time at all tells nothing.
func grows(t *testing.T, what string, do func(quarters int)) {
	t.Helper()
	spent := func(quarters int) time.Duration {
		before := processorTime(t)
		do(quarters)
		return processorTime(t) - before
	}
	part, whole := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
	for range 5 {
		part, whole = min(part, spent(1)), min(whole, spent(4))
		if whole <= maxGrowth*part || whole < 50*time.Millisecond {
			return
		}
	}
	t.Errorf("%s: %s, and of four times as much %s", what, part, whole)
}

// processorTime is what this process has used.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// TestAMegabyteIsReadCompiledAndDecidedInBoundedTime: every shape that a field of an object
// can take, and that a quarter of it takes its share of the time.
func TestAMegabyteIsReadCompiledAndDecidedInBoundedTime(t *testing.T) {
	whole, quarter := megabytes(t, 4), megabytes(t, 1)
	for i, tt := range whole {
		t.Run(tt.name, func(t *testing.T) {
			if n := len(tt.manifest); n < 500_000 || n > 1<<20 {
				t.Fatalf("%d bytes are not about a megabyte", n)
			}
			if n, part := len(tt.manifest), len(quarter[i].manifest); part < n/5 || part > n/3 {
				t.Fatalf("%d bytes are not a quarter of %d", part, n)
			}
			within(t, 2*time.Minute, "a megabyte", func() {
				grows(t, tt.name, func(quarters int) {
					if quarters == 4 {
						readCompileDecide(t, tt.manifest)
					} else {
						readCompileDecide(t, quarter[i].manifest)
					}
				})
			})
		})
	}
}

func readCompileDecide(t *testing.T, manifest string) {
	objects, err := crds.Decode([]byte(manifest), "big.yaml")
	if err != nil {
		return // refused
	}
	release := set(t, crds.Folder, authority(t, "release", newSigner(1)), gap("shop", "attestationAuthorityNames: [release]"))
	snap := policy.Compile(release, crds.Set{Origin: crds.Cluster, Objects: objects})
	records, _ := source.Records(objects)
	memory := evidence.NewMemory()
	memory.Replace("folder", records)
	if dec := verify(t, asks(cart(1)), snap, memory); dec.Result == verifier.Allowed && dec.Reason != verifier.Exempt {
		t.Errorf("allowed: %s", dec.Message())
	}
}

// shape is a large manifest.
type shape struct{ name, manifest string }

// megabytes are manifests of some quarters of a megabyte.
func megabytes(t *testing.T, quarters int) []shape {
	fill := func(part string) string {
		return strings.TrimSuffix(strings.Repeat(part+", ", quarters*162_500/(len(part)+2)), ", ")
	}
	many := func(format string, n int) string {
		var b strings.Builder
		for i := range n * quarters / 4 {
			fmt.Fprintf(&b, format+", ", i)
		}
		return strings.TrimSuffix(b.String(), ", ")
	}
	long := func(part string, n int) string { return strings.Repeat(part, n*quarters/4) }
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
		depth := 9_900 * quarters / 4
		return `{"apiVersion":"kritis.grafeas.io/v1beta1","kind":"GenericAttestationPolicy","metadata":{"name":"p","namespace":"shop"},"spec":{"x":` +
			strings.Repeat(open, depth) + `"` + long("x", 900_000) + `"` + strings.Repeat(end, depth) + "}}"
	}
	return []shape{
		{"names of authorities", gap("p", "attestationAuthorityNames: ["+fill("release")+"]")},
		{"different names of authorities", gap("p", "attestationAuthorityNames: ["+many("a%d", 90_000)+"]")},
		{"fields that are not known", gap("p", many("x%d: 1", 70_000))},
		{"bounds left empty", `{"apiVersion":"kritis.grafeas.io/v1beta1","kind":"GenericAttestationPolicy","metadata":{"name":"p","namespace":"shop"},"spec":{"` +
			long("x", 500_000) + `":[` + long(`{"notBefore":""},`, 25_000) + "{}]}}"},
		{"one field", gap("p", "require: 1, "+fill("require: 1"))},
		{"objects in objects", deep(`{"a":`, "}")},
		{"lists in lists", deep("[", "]")},
		{"keys", "apiVersion: kritis.grafeas.io/v1beta1\nkind: AttestationAuthority\nmetadata: {name: big, namespace: shop}\nspec: {publicKeys: [" + fill("{keyType: PGP}") + "]}\n"},
		{"a key", "apiVersion: kritis.grafeas.io/v1beta1\nkind: AttestationAuthority\nmetadata: {name: big, namespace: shop}\nspec: {publicKeyData: " + long("QUFB", 250_000) + "}\n"},
		{"keys that are slow to verify", slowAuthorities(140 * quarters)},
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
		{"a PGP message", attestations(`attestations: [{resourceUri: "` + cartA1 + `", pgpSignedAttestation: {signature: ` + long("xA0D", 240_000) + "}}]")},
		{"a JWT", attestations(`attestations: [{resourceUri: "` + cartA1 + `", attestation: {jwts: [{compactJwt: ` + long("a.b", 320_000) + "}]}}]")},
		{"a payload", attestations(`attestations: [{resourceUri: "` + cartA1 + `", attestation: {serializedPayload: ` + long("e30K", 240_000) + ", signatures: [{signature: AAAA, publicKeyId: k}]}}]")},
		{"signatures", attestations(`attestations: [{resourceUri: "` + cartA1 + `", attestation: {serializedPayload: e30K, signatures: [` + fill("{signature: AAAA, publicKeyId: k}") + "]}}]")},
	}
}

var cartA1 = "registry.example.com/shop/cart@sha256:" + strings.Repeat("a1", 32)

// TestTenThousandKeysAreLookedUpNotTried: of as many authorities each with a key of its own,
// in as many namespaces as that takes, one is asked.
func TestTenThousandKeysAreLookedUpNotTried(t *testing.T) {
	const authorities, each = 10_000, 40                // of a policy
	const crowd = policy.MaxNamespaceKeys / each * each // of a namespace
	var keys, names, policies []string
	for n := range authorities {
		namespace := "namespace: shop"
		if n < authorities-authorities%crowd {
			namespace = fmt.Sprint("namespace: n", n/crowd)
		}
		keys = append(keys, strings.Replace(authority(t, fmt.Sprint("a", n), newSigner(n)), "namespace: shop", namespace, 1))
		if names = append(names, fmt.Sprint("a", n)); len(names) == each {
			policies = append(policies, strings.Replace(gap(fmt.Sprint("p", n), "require: Any, attestationAuthorityNames: ["+strings.Join(names, ", ")+"]"), "namespace: shop", namespace, 1))
			names = nil
		}
	}
	authorityObjects, policyObjects := set(t, crds.Folder, keys...).Objects, set(t, crds.Folder, policies...).Objects
	var snap *policy.Snapshot
	grows(t, "compile", func(quarters int) {
		n := authorities * quarters / 4
		snap = policy.Compile(crds.Set{Origin: crds.Folder, Objects: slices.Concat(authorityObjects[:n], policyObjects[:n/each])})
	})
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
	grows(t, "patterns", func(quarters int) {
		name := image.Reference{Repository: "registry.example.com/" + strings.Repeat("a", 250), Tag: strings.Repeat("a", 128)}
		snap := hostile(t, 60, 500*quarters)
		req := asks(cart(1))
		req.Images[0].Name = name
		for range 100 {
			want(t, decider().Decide(req, snap, evidence.NewMemory()), verifier.Denied, verifier.NoPolicy)
		}
	})
	grows(t, "the length of a name and of a pattern", func(quarters int) {
		name := image.Reference{Repository: "registry.example.com/" + strings.Repeat("a", 62*quarters), Tag: strings.Repeat("a", 32*quarters)}
		snap := hostile(t, 60*quarters, 100)
		req := asks(cart(1))
		req.Images[0].Name = name
		for range 1_000 {
			want(t, decider().Decide(req, snap, evidence.NewMemory()), verifier.Denied, verifier.NoPolicy)
		}
	})
}

// hostile are so many patterns of so many stars.
func hostile(t *testing.T, stars, patterns int) *policy.Snapshot {
	pattern := fmt.Sprintf("{namePattern: %q}", "registry.example.com/"+strings.Repeat("a*", stars)+"b")
	list := strings.TrimSuffix(strings.Repeat(pattern+", ", patterns), ", ")
	return policy.Compile(set(t, crds.Folder, "apiVersion: kritis.grafeas.io/v1beta1\nkind: AdmissionAllowlist\nmetadata: {name: l}\nspec: {patterns: ["+list+"]}\n"))
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
