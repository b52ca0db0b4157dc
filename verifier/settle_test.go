package verifier_test

import (
	"context"
	"fmt"
	"math/rand/v2"
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

// Limits of the contracts: what is looked at for one authority, an image and a source.
const (
	limitTried = 64
	limitRead  = 256
)

func TestForeignAttestationsDoNotCrowdOutTheGoodOne(t *testing.T) {
	s := newSigner(1)
	id := cart(1)
	foreign := newSigner(2).attest(t, id)
	broken := attestation.NewEnvelope(attestation.PKIX, "no key of anybody", []byte("no payload"), []byte("no signature"))
	var all []evidence.Attestation
	for n := range 10_000 {
		at := evidence.Attestation{Origin: fmt.Sprint(n), Envelopes: []attestation.Envelope{broken}}
		if n%2 == 0 {
			at = foreign
		}
		all = append(all, at)
	}
	all = append(all, s.attest(t, id))
	snap := requires(t, s)
	memory := &counting{Memory: holds(id, all...)}
	started := time.Now()
	dec := verify(t, asks(id), snap, memory)
	want(t, dec, verifier.Allowed, verifier.Attested)
	if memory.verified != 1 {
		t.Errorf("%d signatures were verified, want that of the good one", memory.verified)
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestForgeriesOfOtherNotesAndRepositoriesAreNotCounted(t *testing.T) {
	s := newSigner(1)
	id := cart(1)
	manifest := strings.Replace(authority(t, "release", s), "spec:\n", "spec:\n  noteReference: projects/p\n", 1)
	snap := policy.Compile(set(t, crds.Folder, manifest, gap("shop", "attestationAuthorityNames: [release]")))
	other := image.Identity{Repository: "registry.example.com/shop/other", Digest: id.Digest}
	records := evidence.Records{}
	for n := range 2 * limitRead {
		forged := s.forged(t, id, n)
		forged.Note = "projects/q"
		records[id] = append(records[id], forged)
		records[other] = append(records[other], s.forged(t, other, n))
	}
	records[id] = append(records[id], s.attest(t, id))
	memory := evidence.NewMemory()
	memory.Replace("folder", records)
	want(t, verify(t, asks(id), snap, memory), verifier.Allowed, verifier.Attested)
}

func TestTheLimitsOfWhatIsLookedAt(t *testing.T) {
	s := newSigner(1)
	id := cart(1)
	copied := func(int) int { return 0 }
	different := func(n int) int { return n }
	tests := []struct {
		name    string
		forged  int
		which   func(int) int
		allowed bool
	}{
		{"the last envelope that is tried counts", limitTried - 1, different, true},
		{"one above is not looked at", limitTried, different, false},
		{"copies of one envelope are tried once, and the last attestation that is read counts", limitRead - 1, copied, true},
		{"one above is not read", limitRead, copied, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var all []evidence.Attestation
			for n := range tt.forged {
				all = append(all, s.forged(t, id, tt.which(n)))
			}
			dec := verify(t, asks(id), requires(t, s), holds(id, append(all, s.attest(t, id))...))
			if (dec.Result == verifier.Allowed) != tt.allowed {
				t.Errorf("got %s: %s", dec.Result, dec.Message())
			}
		})
	}
}

func TestTheLimitsAreOfAnImageAndASource(t *testing.T) {
	s := newSigner(1)
	index, manifest := cart(1), cart(2)
	records := evidence.Records{}
	for n := range 2 * limitTried {
		records[index] = append(records[index], s.forged(t, index, n))
	}
	records[manifest] = []evidence.Attestation{s.attest(t, manifest)}
	memory := evidence.NewMemory()
	memory.Replace("folder", records)
	req := asks(index)
	req.Images[0].Candidates[0].Digests = []image.Digest{index.Digest, manifest.Digest}
	want(t, verify(t, req, requires(t, s), memory), verifier.Allowed, verifier.Attested)
}

// TestSettleVerifiesAllThatDecideLooksAt: after all questions are settled, nothing that a
// decision rests on is pending, whatever the policies and the evidence.
func TestSettleVerifiesAllThatDecideLooksAt(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 25 {
		snap, memory, req := randomWorld(t, random)
		for i := range req.Images {
			for _, c := range req.Images[i].Candidates {
				for _, d := range c.Digests {
					q := evidence.Question{Source: "folder", Identity: image.Identity{Repository: c.Repository, Digest: d}}
					if err := verifier.Settle(context.Background(), snap, memory, "", q); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		dec := decider().Decide(req, snap, memory)
		if len(dec.Missing) > 0 {
			t.Fatalf("round %d: still missing %v: %s", round, dec.Missing, dec.Message())
		}
		verified := memory.verified
		if again := verify(t, req, snap, memory); again.Result != dec.Result || memory.verified != verified {
			t.Fatalf("round %d: %s, and after verifying %d more %s", round, dec.Result, memory.verified-verified, again.Result)
		}
	}
}

// randomWorld makes policies over few keys, and much evidence good and bad.
func randomWorld(t *testing.T, random *rand.Rand) (*policy.Snapshot, *counting, *verifier.Request) {
	var manifests []string
	for n := range 4 {
		var keys []signer
		for range 1 + random.IntN(3) {
			keys = append(keys, newSigner(random.IntN(5)))
		}
		manifest := authority(t, fmt.Sprint("a", n), keys...)
		if random.IntN(3) == 0 {
			manifest = strings.Replace(manifest, "spec:\n", "spec:\n  noteReference: projects/p\n", 1)
		}
		manifests = append(manifests, manifest)
	}
	specs := []string{"attestationAuthorityNames: [a0, a1]", "attestationAuthorityNames: [a0, a1, a2, a3], require: 2",
		"attestationAuthorityNames: [a2, a3], require: Any", "attestationAuthorityNames: [a3], enforcement: Audit"}
	for n, spec := range specs {
		if random.IntN(2) == 0 {
			manifests = append(manifests, gap(fmt.Sprint("p", n), spec))
		}
	}
	records := evidence.Records{}
	for range random.IntN(200) {
		id, s := cart(random.IntN(3)), newSigner(random.IntN(6))
		at := s.attest(t, id)
		switch random.IntN(3) {
		case 0:
			at = s.forged(t, id, random.IntN(1000))
		case 1:
			at.Envelopes = append(at.Envelopes, newSigner(random.IntN(6)).forged(t, id, 1).Envelopes...)
		}
		at.Note = []string{"", "projects/p/notes/n", "projects/q"}[random.IntN(3)]
		records[id] = append(records[id], at)
	}
	memory := evidence.NewMemory()
	memory.Replace("folder", records)
	req := asks(cart(0), cart(1))
	req.Images[0].Candidates[0].Digests = []image.Digest{digestOf(0), digestOf(2)}
	return policy.Compile(set(t, crds.Folder, manifests...)), &counting{Memory: memory}, req
}

// counting counts the signatures that were verified.
type counting struct {
	*evidence.Memory
	verified int
}

func (c *counting) Remember(namespace string, key *attestation.Key, env *attestation.Envelope, out attestation.Outcome) {
	c.verified++
	c.Memory.Remember(namespace, key, env, out)
}

// asked counts how often it is looked up what sources hold.
type asked struct {
	*evidence.Memory
	lookups map[string]int
}

func (a *asked) Lookup(q evidence.Question) evidence.Answer {
	a.lookups[q.Source]++
	return a.Memory.Lookup(q)
}

// maxRoundsOfVerify is in how many rounds Verify ends, whatever it learns.
const maxRoundsOfVerify = 4

func TestWhatAnotherRequestVerifiedMeanwhileCounts(t *testing.T) {
	s := newSigner(1)
	for range 200 {
		snap, memory := requires(t, s), holds(cart(1), s.attest(t, cart(1)))
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if dec, err := decider().Verify(t.Context(), asks(cart(1)), snap, memory); err != nil || dec.Result != verifier.Allowed {
					t.Errorf("%v: %s", err, dec.Message())
				}
			})
		}
		all.Wait()
	}
}

func TestVerifyEndsWhenNothingNewIsLearnt(t *testing.T) {
	s := newSigner(1)
	d := decider()
	d.Sources = append(d.Sources, evidence.Question{Source: "other"})
	memory := &asked{holds(cart(1), s.forged(t, cart(1), 1)), make(map[string]int)}
	dec, err := d.Verify(t.Context(), asks(cart(1)), requires(t, s), memory)
	if err != nil {
		t.Fatal(err)
	}
	want(t, dec, verifier.Unresolved, verifier.EvidencePending)
	// Decided, settled, and that again, until it tells nothing new.
	if n := memory.lookups["other"]; n < 3 || n > 2*maxRoundsOfVerify {
		t.Errorf("a source that does not answer was looked up %d times", n)
	}
}
