package webhook

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/horkos/horkos/objects"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
)

// signer is a key, by number.
type signer struct{ private ed25519.PrivateKey }

func newSigner(n byte) signer {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	return signer{ed25519.NewKeyFromSeed(seed)}
}

func (s signer) authority(t *testing.T, name string) string {
	der, err := x509.MarshalPKIXPublicKey(s.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("apiVersion: kritis.grafeas.io/v1beta1\nkind: AttestationAuthority\nmetadata: {name: %s, namespace: shop}\nspec:\n  publicKeys:\n  - {keyType: PKIX, pkixPublicKey: {publicKeyPem: %q}}\n---\n",
		name, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// attest signs for an image, or only says so.
func (s signer) attest(t *testing.T, id image.Identity, forgery int) evidence.Attestation {
	payload, err := attestation.NewPayload(id, start.Add(-time.Hour), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	signature, key, err := attestation.Sign(s.private, "", payload)
	if err != nil {
		t.Fatal(err)
	}
	if forgery > 0 {
		signature = fmt.Append(nil, "forgery ", forgery)
	}
	return evidence.Attestation{Origin: "test", Envelopes: []attestation.Envelope{attestation.NewEnvelope(attestation.PKIX, key.ID, payload, signature)}}
}

// slow answers after a moment, in which others ask, too.
type slow []evidence.Attestation

func (s slow) Fetch(context.Context, evidence.Question) ([]evidence.Attestation, error) {
	time.Sleep(5 * time.Millisecond)
	return s, nil
}

// changing is a source whose answers change, or that hangs.
type changing struct {
	mu    sync.Mutex
	found []evidence.Attestation
	hangs bool
	asked int
}

func (c *changing) Fetch(ctx context.Context, _ evidence.Question) ([]evidence.Attestation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.hangs {
		c.mu.Unlock()
		<-ctx.Done()
		c.mu.Lock()
		return nil, ctx.Err()
	}
	return c.found, nil
}

func (c *changing) set(hangs bool, found ...evidence.Attestation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found, c.hangs = found, hangs
}

// verifies runs a test in a bubble with what decides, by manifests and what a source holds.
func verifies(t *testing.T, manifests string, found evidence.Source, test func(*testing.T, *waiting)) {
	file := filepath.Join(t.TempDir(), "policies.yaml")
	if err := os.WriteFile(file, []byte(manifests), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := objects.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	snap := policy.Compile(set)
	synctest.Test(t, func(t *testing.T) {
		memory := evidence.NewMemory()
		store := evidence.NewStore(memory, evidence.StoreOptions{Dir: t.TempDir(), Now: time.Now, OnNode: func() map[image.Identity]bool { return nil }, Log: quiet()})
		fetcher := evidence.NewFetcher(evidence.FetcherOptions{
			Store:    store,
			Sources:  []evidence.Asked{{Name: "cluster", Terms: evidence.Terms{Fresh: 5 * time.Minute, Again: missingFor}, Timeout: 20 * time.Second, Source: found}},
			Revision: snap.Revision,
			Applies:  func(keyID string) bool { return len(snap.Authorities(keyID)) > 0 },
			Settle: func(ctx context.Context, namespace string, q evidence.Question) error {
				return verifier.Settle(ctx, snap, memory, namespace, q)
			},
			Log: quiet(),
		})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = fetcher.Run(ctx) })
		test(t, &waiting{decider: verifier.Decider{Sources: []evidence.Question{{Source: "cluster"}}}, snapshot: func() *policy.Snapshot { return snap }, memory: memory, fetcher: fetcher})
		cancel()
		running.Wait()
	})
}

const bothRequired = `apiVersion: kritis.grafeas.io/v1beta1
kind: GenericAttestationPolicy
metadata: {name: both, namespace: shop}
spec: {attestationAuthorityNames: [a, b]}
`

func asks(t *testing.T) *verifier.Request {
	img, err := verifier.AsWritten("registry.example.com/shop/cart@sha256:" + fmt.Sprintf("%064x", 1))
	if err != nil {
		t.Fatal(err)
	}
	return &verifier.Request{Namespace: "shop", Time: start, Once: true, Images: []verifier.Image{img}}
}

func TestForgeriesInANamespaceHideNoAttestationFromItsOwnReviews(t *testing.T) {
	a, b, req := newSigner(1), newSigner(2), asks(t)
	id := image.Identity{Repository: "registry.example.com/shop/cart", Digest: req.Images[0].Candidates[0].Digests[0]}
	var found slow
	for n := range 40 { // of two authorities more than are verified on behalf of all
		found = append(found, a.attest(t, id, n+1), b.attest(t, id, n+1))
	}
	found = append(found, a.attest(t, id, 0), b.attest(t, id, 0))
	verifies(t, a.authority(t, "a")+b.authority(t, "b")+bothRequired, found, func(t *testing.T, w *waiting) {
		if dec, err := w.Verify(t.Context(), req); err != nil || dec.Result != verifier.Allowed {
			t.Errorf("%v: %s", err, dec.Message())
		}
	})
}

func TestOfManyReviewsOfANewImageNoneIsRefusedForWantOfTheOthers(t *testing.T) {
	a, b, req := newSigner(1), newSigner(2), asks(t)
	id := image.Identity{Repository: "registry.example.com/shop/cart", Digest: req.Images[0].Candidates[0].Digests[0]}
	found := slow{a.attest(t, id, 0), b.attest(t, id, 0)}
	for range 20 {
		verifies(t, a.authority(t, "a")+b.authority(t, "b")+bothRequired, found, func(t *testing.T, w *waiting) {
			var all sync.WaitGroup
			for n := range 16 {
				all.Go(func() {
					time.Sleep(time.Duration(n) * time.Millisecond / 2) // before, while and after it is asked
					if dec, err := w.Verify(t.Context(), req); err != nil || dec.Result != verifier.Allowed {
						t.Errorf("%v: %s", err, dec.Message())
					}
				})
			}
			all.Wait()
		})
	}
}

func TestASecondAttestationCountsWithinSeconds(t *testing.T) {
	a, b, req := newSigner(1), newSigner(2), asks(t)
	id := image.Identity{Repository: "registry.example.com/shop/cart", Digest: req.Images[0].Candidates[0].Digests[0]}
	source := &changing{}
	verifies(t, a.authority(t, "a")+b.authority(t, "b")+bothRequired, source, func(t *testing.T, w *waiting) {
		is := func(want verifier.Result) {
			t.Helper()
			if dec, err := w.Verify(t.Context(), req); err != nil || dec.Result != want {
				t.Errorf("%v, want %s: %s", err, want, dec.Message())
			}
		}
		for range 3 { // nothing is known at first, then one of two
			is(verifier.Denied)
			time.Sleep(missingFor)
		}
		source.set(false, a.attest(t, id, 0))
		is(verifier.Denied)
		asked := source.asked
		is(verifier.Denied)
		if source.asked != asked {
			t.Error("it is asked again at once")
		}
		source.set(false, a.attest(t, id, 0), b.attest(t, id, 0))
		time.Sleep(missingFor)
		is(verifier.Allowed)
		asked = source.asked
		time.Sleep(missingFor)
		if is(verifier.Allowed); source.asked != asked {
			t.Error("what suffices is asked again")
		}
	})
}

func TestWhatIsAttestedDoesNotWaitForASourceThatHangs(t *testing.T) {
	a, b, req := newSigner(1), newSigner(2), asks(t)
	id := image.Identity{Repository: "registry.example.com/shop/cart", Digest: req.Images[0].Candidates[0].Digests[0]}
	source := &changing{found: []evidence.Attestation{a.attest(t, id, 0), b.attest(t, id, 0)}}
	verifies(t, a.authority(t, "a")+b.authority(t, "b")+bothRequired, source, func(t *testing.T, w *waiting) {
		if dec, err := w.Verify(t.Context(), req); err != nil || dec.Result != verifier.Allowed {
			t.Fatalf("%v: %s", err, dec.Message())
		}
		source.set(true)
		time.Sleep(6 * time.Minute) // its answer is stale
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		began := time.Now()
		if dec, err := w.Verify(ctx, req); err != nil || dec.Result != verifier.Allowed || time.Since(began) > 2*betterWithin {
			t.Errorf("%v after %v: %s", err, time.Since(began), dec.Message())
		}
	})
}
