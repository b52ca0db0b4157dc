package attestation

import (
	"fmt"
	"strings"
	"unicode"
)

// Verify tells whether the signature of an envelope verifies under a key, and what the
// envelope then says. The key's id plays no part, so that Key.Fingerprint and Envelope.Sum
// determine the outcome; the envelope's only in that a JWT must bear it.
func Verify(key *Key, env *Envelope) Outcome {
	if key == nil || env == nil {
		return failed(BadSignature, "there is no key or no envelope")
	}
	switch env.Format {
	case PKIX:
		return verifyPKIX(key, env)
	case PGP:
		return verifyPGP(key, env)
	case JWT:
		return verifyJWT(key, env)
	}
	return failed(BadSignature, fmt.Sprintf("unknown format %q", env.Format))
}

// failed makes an Outcome of why it failed, fit for a log line and a pod's event.
func failed(kind FailureKind, detail string) Outcome {
	detail = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, detail)
	if len(detail) > maxDetailBytes {
		detail = strings.ToValidUTF8(detail[:maxDetailBytes-len("...")], "") + "..."
	}
	return Outcome{Failure: &Failure{Kind: kind, Detail: detail}}
}
