package verifier_test

import (
	"testing"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
)

// TestARevokedDigestIsFoundWhereverTheImageBearsIt: gates fill the fields of an image in
// their own ways, and each by itself is enough.
func TestARevokedDigestIsFoundWhereverTheImageBearsIt(t *testing.T) {
	s := newSigner(1)
	snap := policy.Compile(set(t, crds.Folder, authority(t, "release", s), gap("shop", "attestationAuthorityNames: [release]"), revocation("bad", digestOf(99))))
	memory := holds(cart(1), s.attest(t, cart(1)))
	tests := map[string]func(*verifier.Image){
		"its config":                 func(i *verifier.Image) { i.Config = digestOf(99) },
		"its name":                   func(i *verifier.Image) { i.Name.Digest = digestOf(99) },
		"what leads to it":           func(i *verifier.Image) { i.Digests = append(i.Digests, digestOf(99)) },
		"the last digest of a twin":  func(i *verifier.Image) { i.Candidates = append(i.Candidates, twin(digestOf(2), digestOf(99))) },
		"a twin that is not decided": func(i *verifier.Image) { i.Candidates = append(many(verifier.MaxCandidates), twin(digestOf(99))) },
	}
	for name, revoke := range tests {
		req := asks(cart(1))
		want(t, verify(t, req, snap, memory), verifier.Allowed, verifier.Attested)
		revoke(&req.Images[0])
		if dec := verify(t, req, snap, memory); dec.Reason != verifier.ImageRevoked {
			t.Errorf("%s: %s", name, dec.Message())
		}
	}
}

func twin(digests ...image.Digest) verifier.Candidate {
	return verifier.Candidate{Repository: "registry.example.com/shop/twin", Digests: digests}
}

func many(n int) (all []verifier.Candidate) {
	for i := range n {
		all = append(all, twin(digestOf(i)))
	}
	return all
}
