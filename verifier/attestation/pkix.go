package attestation

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"fmt"
)

// verifyPKIX verifies a raw signature over the payload itself, without any framing, as
// Kritis and Binary Authorization make it, and reads the payload only if that is good.
func verifyPKIX(key *Key, env *Envelope) Outcome {
	if key.public == nil {
		return failed(BadSignature, "the key is not one for raw signatures")
	}
	if len(env.Payload) > MaxPayloadBytes {
		return failed(BadSignature, fmt.Sprintf("payload of %d bytes: at most %d are read", len(env.Payload), MaxPayloadBytes))
	}
	if !key.verifies(env.Payload, env.Signature) {
		return failed(BadSignature, "it does not verify under the key by "+key.algorithm.name)
	}
	statement, err := decodePayload(env.Payload)
	if err != nil {
		return failed(BadPayload, err.Error())
	}
	return verified(statement)
}

// verifies reports whether signature is this key's over payload. RSA-PSS salts may have any
// length; an ECDSA signature is ASN.1 DER with nothing behind it.
func (k *Key) verifies(payload, signature []byte) bool {
	digest := k.algorithm.digest(payload)
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		if k.algorithm.pss {
			anySalt := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto}
			return rsa.VerifyPSS(public, k.algorithm.hash, digest, signature, anySalt) == nil
		}
		return rsa.VerifyPKCS1v15(public, k.algorithm.hash, digest, signature) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(public, digest, signature)
	case ed25519.PublicKey:
		return ed25519.Verify(public, digest, signature)
	}
	return false
}
