// Package attestation turns a signed envelope and a key into a verified statement,
// or says why it cannot. One file a format; no I/O, no clock, no idea where the bytes
// came from or which policy asks.
package attestation

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/horkos/horkos/verifier/image"
)

// Format is how an envelope is signed.
type Format string

// PKIX is a raw signature over a payload that travels beside it.
const PKIX Format = "PKIX"

// Envelope is one signature and what it signs, as read from a source: hostile until verified.
type Envelope struct {
	Format    Format
	KeyID     string // the key id that the envelope names; not signed, only a hint which keys to try
	Payload   []byte
	Signature []byte

	sum [32]byte
}

// NewEnvelope makes an envelope and computes its sum once. The slices must not be changed after.
func NewEnvelope(format Format, keyID string, payload, signature []byte) Envelope {
	e := Envelope{Format: format, KeyID: keyID, Payload: payload, Signature: signature}
	e.sum = e.Sum()
	return e
}

// Sum tells envelopes apart: a SHA-256 over all that verifying looks at.
func (e *Envelope) Sum() [32]byte {
	if e.sum != [32]byte{} {
		return e.sum
	}
	h := sha256.New()
	for _, part := range [][]byte{[]byte(e.Format), []byte(e.KeyID), e.Payload, e.Signature} {
		var length [8]byte // so that no two envelopes share a concatenation
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write(part)
	}
	return [32]byte(h.Sum(nil))
}

// Statement is what a verified envelope says. Everything in it was under the signature.
type Statement struct {
	Identity  image.Identity // repository normalised
	Timestamp time.Time      // zero when the payload has none; the signer's own word
	Expires   time.Time      // zero when the payload has none
}

// Outcome is what verifying an envelope under a key gave. It depends on nothing but
// the two, so it may be remembered; whether the statement counts now is for package
// verifier to judge.
type Outcome struct {
	Statement Statement
	// Failure is nil when the signature verifies and the payload is well formed.
	Failure *Failure
}

// Failure says why an envelope gives no statement under a key.
type Failure struct {
	Kind   FailureKind
	Detail string // for people; no secrets, nothing of more than 200 bytes of the envelope
}

func (f *Failure) Error() string { return string(f.Kind) + ": " + f.Detail }

// FailureKind tells the two ways to fail apart.
type FailureKind string

// The kinds of failure.
const (
	// BadSignature: the signature does not verify under the key.
	BadSignature FailureKind = "bad signature"
	// BadPayload: the signature is good, what it signs is not a statement about an image.
	BadPayload FailureKind = "bad payload"
)
