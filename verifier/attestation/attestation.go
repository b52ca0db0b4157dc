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

// The formats.
const (
	// PKIX is a raw signature over a payload that travels beside it.
	PKIX Format = "PKIX"
	// PGP is an OpenPGP message with its signature attached (RFC 9580, section 10.3). It is
	// the envelope's Signature, and what it signs the payload.
	PGP Format = "PGP"
	// JWT is a JSON Web Signature in compact form (RFC 7515, section 7.1), all of it in the
	// envelope's Signature; the payload is among its claims.
	JWT Format = "JWT"
)

// Envelope is one signature and what it signs, as read from a source: hostile until verified.
type Envelope struct {
	Format    Format
	KeyID     string // the key id that the envelope names; only a hint which keys to try. See Key.KeyIDs
	Payload   []byte // of PKIX; that of PGP and JWT is within the signature
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

// Statement is what a verified envelope says. Everything in it was under the signature, or
// under one that the key made over itself; all times are the signer's own word.
type Statement struct {
	Identity  image.Identity // repository normalised
	Timestamp time.Time      // when the payload was made, a JWT's iat; zero when it does not say
	NotBefore time.Time      // a JWT's nbf; zero when there is none
	Expires   time.Time      // the earliest of those of payload, JWT and OpenPGP signature; zero when there is none

	// Of PGP only: when the signature was made, and from when until when the key that made it
	// is valid. KeyUntil is zero when the key has no end. SignedAt lies within, else the
	// outcome is an ExpiredKey; whether that is enough once KeyUntil has passed is for the
	// authority to say.
	SignedAt          time.Time
	KeyFrom, KeyUntil time.Time
}

// Outcome is what verifying an envelope under a key gave. It depends on nothing but
// the two, so it may be remembered; whether the statement counts now is for package
// verifier to judge. The zero value is a failure.
type Outcome struct {
	// Statement is nil unless the signature verifies and the payload is well formed.
	Statement *Statement
	Failure   *Failure // why there is no statement
}

// verified is the Outcome of a good envelope.
func verified(s Statement) Outcome { return Outcome{Statement: &s} }

// Failure says why an envelope gives no statement under a key.
type Failure struct {
	Kind   FailureKind
	Detail string // for people; no secrets, nothing of more than 200 bytes of the envelope
}

func (f *Failure) Error() string { return string(f.Kind) + ": " + f.Detail }

// FailureKind tells the ways to fail apart.
type FailureKind string

// The kinds of failure.
const (
	// BadSignature: the signature does not verify under the key.
	BadSignature FailureKind = "bad signature"
	// BadPayload: the signature is good, what it signs is not a statement about an image.
	BadPayload FailureKind = "bad payload"
	// RevokedKey: the signature is good, the key that made it is revoked.
	RevokedKey FailureKind = "revoked key"
	// ExpiredKey: the signature is good, and by its own word made after its key had expired.
	ExpiredKey FailureKind = "expired key"
)
