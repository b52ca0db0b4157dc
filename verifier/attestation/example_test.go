package attestation_test

import (
	"crypto/ed25519"
	"fmt"
	"log"
	"time"

	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/image"
)

// A signer attests an image; whoever has the key reads the verified statement.
func ExampleVerify() {
	identity, err := image.ParseIdentity("registry.example.com/shop/cart@sha256:50d858e0985ecc7f60418aaf0cc5ab587f42c2570a884095a9e8ccacd0f6545c")
	if err != nil {
		log.Fatal(err)
	}
	payload, err := attestation.NewPayload(identity, time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), time.Time{})
	if err != nil {
		log.Fatal(err)
	}
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) // an example, and no secret
	signature, key, err := attestation.Sign(private, "", payload)
	if err != nil {
		log.Fatal(err)
	}

	envelope := attestation.NewEnvelope(attestation.PKIX, key.ID, payload, signature)
	outcome := attestation.Verify(key, &envelope)
	fmt.Println(outcome.Failure == nil, outcome.Statement.Identity.Repository, outcome.Statement.Timestamp.Format(time.DateOnly))

	signature[0] ^= 1
	envelope = attestation.NewEnvelope(attestation.PKIX, key.ID, payload, signature)
	fmt.Println(attestation.Verify(key, &envelope).Failure)
	// Output:
	// true registry.example.com/shop/cart 2026-11-01
	// bad signature: it does not verify under the key by ed25519
}
