package verifier

import (
	"time"

	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
)

const (
	// maxAhead is how far a signed time may lie ahead of now.
	maxAhead = 5 * time.Minute
	// maxEmergency is how long an attestation in an emergency may be made for.
	maxEmergency = 24 * time.Hour
)

// timely tells whether a statement counts now: no reason when it does, and a detail where
// that rests on the signer's own word about time.
func (s *search) timely(at *evidence.Attestation, key *policy.Key, st *attestation.Statement) (Reason, string) {
	now := s.j.req.Time
	for _, signed := range [...]time.Time{st.Timestamp, st.SignedAt} {
		if signed.After(now.Add(maxAhead)) {
			return SignatureInvalid, "it is dated ahead of now: " + stamp(signed)
		}
	}
	switch {
	case st.NotBefore.After(now):
		return NotAttested, "it is not to be used before " + stamp(st.NotBefore)
	case over(st.Expires, now):
		return AttestationExpired, "it expired at " + stamp(st.Expires)
	case over(at.Expires, now):
		return AttestationExpired, "the object lets it expire at " + stamp(at.Expires)
	}
	reason, detail := s.keyTimely(key, st)
	if reason != "" {
		return reason, detail
	}
	if s.emergency {
		return s.emergencyTimely(st)
	}
	return s.ageTimely(st, detail)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// over tells whether a time that ends something has come; the zero time ends nothing.
func over(end, now time.Time) bool { return !end.IsZero() && !now.Before(end) }

// signedAt is when the signer says it signed: the payload's word, or the signature's.
func signedAt(st *attestation.Statement) time.Time {
	if st.Timestamp.IsZero() {
		return st.SignedAt
	}
	return st.Timestamp
}

// keyTimely tells whether the key may be used: now lies within its time, or, where the
// authority accepts expired keys, all signed times do.
func (s *search) keyTimely(key *policy.Key, st *attestation.Statement) (Reason, string) {
	within := func(t time.Time) bool {
		return !t.Before(key.From) && !over(key.Until, t) && !over(st.KeyUntil, t)
	}
	now, signed := s.j.req.Time, signedAt(st)
	switch {
	case within(now):
		return "", ""
	case now.Before(key.From):
		return KeyExpired, "its key is not to be used before " + stamp(key.From)
	case !s.authority.AcceptExpiredKeys:
		return KeyExpired, "its key has expired, and the authority does not accept expired keys"
	case signed.IsZero():
		return KeyExpired, "its key has expired, and it does not say when it was signed"
	case !within(signed) || (!st.SignedAt.IsZero() && !within(st.SignedAt)):
		return KeyExpired, "it was signed at " + stamp(signed) + ", when its key was not valid"
	}
	return "", "its key has expired; it was signed before, at " + stamp(signed) + " by the signer's own word"
}

// ageTimely tells whether an attestation is as young as the policy asks for.
func (s *search) ageTimely(st *attestation.Statement, detail string) (Reason, string) {
	if s.policy.MaximumAge == 0 && s.policy.NotBefore.IsZero() {
		return "", detail
	}
	signed := signedAt(st)
	switch {
	case signed.IsZero():
		return NotAttested, "it does not say when it was signed, and the policy asks for an age"
	case s.policy.MaximumAge > 0 && s.j.req.Time.Sub(signed) > s.policy.MaximumAge:
		return AttestationExpired, "it was signed at " + stamp(signed) + ", longer than " + s.policy.MaximumAge.String() + " ago"
	case signed.Before(s.policy.NotBefore):
		return AttestationExpired, "it was signed at " + stamp(signed) + ", before " + stamp(s.policy.NotBefore)
	}
	if detail == "" {
		detail = "signed at " + stamp(signed) + " by the signer's own word"
	}
	return "", detail
}

// emergencyTimely tells whether an attestation was made for an emergency, for at most a day.
func (s *search) emergencyTimely(st *attestation.Statement) (Reason, string) {
	signed := signedAt(st)
	switch {
	case signed.IsZero() || st.Expires.IsZero():
		return NotAttested, "an attestation in an emergency says when it was signed and when it expires: make it with --expires of at most 24h"
	case signed.After(s.j.req.Time):
		return NotAttested, "it begins at " + stamp(signed)
	case st.Expires.Sub(signed) > maxEmergency:
		return NotAttested, "it was made for longer than " + maxEmergency.String()
	}
	return "", "until " + stamp(st.Expires)
}
