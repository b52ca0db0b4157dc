package verifier_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
)

const (
	benchPolicies = 1_000
	benchImages   = 10_000
)

// benchObjects are 1,000 policies over some namespaces: namespace shop has two, every
// namespace is selected by ten cluster policies, two of which are about images of the shop.
func benchObjects(t testing.TB, namespaces int) crds.Set {
	var manifests []string
	add := func(group, kind, meta, spec string) {
		manifests = append(manifests, fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{%s},"spec":{%s}}`, group, kind, meta, spec))
	}
	keys := fmt.Sprintf(`"publicKeys":[{"keyType":"PKIX","pkixPublicKey":{"publicKeyPem":%q}}]`, newSigner(1).pem(t))
	name := func(n int) string {
		if n == 0 {
			return "shop"
		}
		return fmt.Sprint("n", n)
	}
	for n := range namespaces {
		manifests = append(manifests, fmt.Sprintf(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q,"labels":{"tier":"prod"}}}`, name(n)))
	}
	for n := range 10 {
		scope := "registry.example.com/shop/**"
		if n >= 2 {
			scope = fmt.Sprintf("registry.example.com/team-%d/**", n)
		}
		add("horkos.dev/v1alpha1", "ClusterAttestationPolicy", fmt.Sprintf(`"name":"c%d"`, n),
			fmt.Sprintf(`"authorities":[{"name":"release",%s}],"images":[%q],"namespaceSelector":{"matchLabels":{"tier":"prod"}}`, keys, scope))
	}
	perNamespace := make(map[int]int)
	for p := range benchPolicies - 10 {
		n := 1 + p%(namespaces-1)
		if p < 2 {
			n = 0
		}
		if perNamespace[n]++; perNamespace[n] == 1 {
			add("kritis.grafeas.io/v1beta1", "AttestationAuthority", fmt.Sprintf(`"name":"release","namespace":%q`, name(n)), keys)
		}
		add("kritis.grafeas.io/v1beta1", "GenericAttestationPolicy", fmt.Sprintf(`"name":"p%d","namespace":%q`, p, name(n)),
			`"attestationAuthorityNames":["release"],"admissionAllowlistPatterns":[{"namePattern":"registry.example.com/mirror/*"}]`)
	}
	objects, err := crds.Decode([]byte(strings.Join(manifests, "\n")), "bench.json")
	if err != nil {
		t.Fatal(err)
	}
	return crds.Set{Origin: crds.Folder, Objects: objects}
}

// benchEvidence attests 10,000 images, and verifies that once.
func benchEvidence(t testing.TB, snap *policy.Snapshot) *evidence.Memory {
	records := make(evidence.Records, benchImages)
	var asked []verifier.Image
	for n := range benchImages {
		records[cart(n)] = []evidence.Attestation{newSigner(1).attest(t, cart(n))}
		asked = append(asked, bound(cart(n)))
	}
	memory := evidence.NewMemory()
	memory.Replace("folder", records)
	want(t, verify(t, &verifier.Request{Namespace: "shop", Time: noon, Images: asked}, snap, memory), verifier.Allowed, verifier.Attested)
	return memory
}

// benchRequests ask about n images each, from the first on.
func benchRequests(first int) []*verifier.Request {
	var all []*verifier.Request
	for n := range benchImages {
		all = append(all, asks(cart(first+n)))
	}
	return all
}

func benchDecide(b *testing.B, snap *policy.Snapshot, memory *evidence.Memory, requests []*verifier.Request, result verifier.Result) {
	d := decider()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if dec := d.Decide(requests[n%len(requests)], snap, memory); dec.Result != result {
			b.Fatal(dec.Message())
		}
		n++
	}
}

// BenchmarkDecide decides about one image, all signatures verified.
func BenchmarkDecide(b *testing.B) {
	for _, namespaces := range []int{10, 10_000} {
		snap := policy.Compile(benchObjects(b, namespaces))
		memory := benchEvidence(b, snap)
		attested, others := benchRequests(0), benchRequests(benchImages)
		b.Run(fmt.Sprintf("allowed/namespaces=%d", namespaces), func(b *testing.B) { benchDecide(b, snap, memory, attested, verifier.Allowed) })
		b.Run(fmt.Sprintf("denied/namespaces=%d", namespaces), func(b *testing.B) { benchDecide(b, snap, memory, others, verifier.Denied) })
	}
}

// BenchmarkDecideStrangers refuses an image that five keys have attested, none of which counts.
func BenchmarkDecideStrangers(b *testing.B) {
	snap := policy.Compile(benchObjects(b, 10))
	records := make(evidence.Records, benchImages)
	for n := range benchImages {
		for k := range 5 {
			records[cart(n)] = append(records[cart(n)], newSigner(2+k).attest(b, cart(n)))
		}
	}
	memory := evidence.NewMemory()
	memory.Replace("folder", records)
	benchDecide(b, snap, memory, benchRequests(0), verifier.Denied)
}

// BenchmarkDecideExpired refuses an image with five attestations of the right key, each
// verified, all of which have expired.
func BenchmarkDecideExpired(b *testing.B) {
	snap := policy.Compile(benchObjects(b, 10))
	records := make(evidence.Records, benchImages/10)
	var asked []verifier.Image
	for n := range benchImages / 10 {
		for k := range 5 {
			records[cart(n)] = append(records[cart(n)], newSigner(1).attestAt(b, cart(n), noon.Add(-time.Duration(2+k)*time.Hour), noon.Add(-time.Hour)))
		}
		asked = append(asked, bound(cart(n)))
	}
	memory := evidence.NewMemory()
	memory.Replace("folder", records)
	want(b, verify(b, &verifier.Request{Namespace: "shop", Time: noon, Images: asked}, snap, memory), verifier.Denied, verifier.AttestationExpired)
	benchDecide(b, snap, memory, benchRequests(0)[:benchImages/10], verifier.Denied)
}

// BenchmarkCompile compiles 1,000 policies.
func BenchmarkCompile(b *testing.B) {
	for _, namespaces := range []int{10, 500, 10_000} {
		set := benchObjects(b, namespaces)
		b.Run(fmt.Sprintf("namespaces=%d", namespaces), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if snap := policy.Compile(set); len(snap.Layers("shop")) != 2 {
					b.Fatal(snap.Layers("shop"))
				}
			}
		})
	}
}

// BenchmarkCompileKeys compiles a namespace full of keys that are slow to read: for the first
// time, and when something else has changed.
func BenchmarkCompileKeys(b *testing.B) {
	objects := set(b, crds.Folder, slowAuthorities(policy.MaxNamespaceKeys))
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			policy.Compile(objects)
		}
	})
	b.Run("again", func(b *testing.B) {
		var c policy.Compiler
		c.Compile(objects)
		for b.Loop() {
			c.Compile(objects)
		}
	})
}

// BenchmarkDecideClusterPolicies decides over as many cluster policies, of each of which the
// scope has to be looked at; two are about the image.
func BenchmarkDecideClusterPolicies(b *testing.B) {
	for _, policies := range []int{10, 100, 1_000} {
		manifests := []string{authority(b, "release", newSigner(1))}
		for n := range policies {
			scope := "registry.example.com/shop/**"
			if n >= 2 {
				scope = fmt.Sprintf("registry.example.com/team-%d/**", n)
			}
			manifests = append(manifests, fmt.Sprintf("apiVersion: horkos.dev/v1alpha1\nkind: ClusterAttestationPolicy\nmetadata: {name: c%d}\n"+
				"spec: {images: [%q], authorities: [{name: release, ref: {namespace: shop, name: release}}]}\n", n, scope))
		}
		snap := policy.Compile(set(b, crds.Folder, manifests...))
		memory := benchEvidence(b, snap)
		b.Run(fmt.Sprintf("policies=%d", policies), func(b *testing.B) { benchDecide(b, snap, memory, benchRequests(0), verifier.Allowed) })
	}
}
