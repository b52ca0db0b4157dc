package verifier

import "fmt"

// Result is one of five answers. The order is that of severity: of several results the
// worst is the least, and the zero value is Denied.
type Result int

// The results. Only Allowed lets anything run.
const (
	// Denied: everything that could speak has answered, and it is not enough.
	Denied Result = iota
	// Misconfigured: asking again cannot help until somebody edits an object or a setting.
	Misconfigured
	// Unavailable: a source was asked and failed, and nothing recent enough is known.
	Unavailable
	// Unresolved: not known yet, not tied down or not synced; asking again may help.
	Unresolved
	// Allowed: what the policies require is there, or they require nothing.
	Allowed
)

var resultNames = [...]string{"denied", "misconfigured", "unavailable", "unresolved", "allowed"}

func (r Result) String() string {
	if r < 0 || int(r) >= len(resultNames) {
		return resultNames[Denied]
	}
	return resultNames[r]
}

// MarshalText writes the name that metrics, audit records and JSON bear.
func (r Result) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a name and refuses any other.
func (r *Result) UnmarshalText(text []byte) error {
	for i, name := range resultNames {
		if name == string(text) {
			*r = Result(i)
			return nil
		}
	}
	return fmt.Errorf("unknown result %.40q: want allowed, denied, unresolved, unavailable or misconfigured", text)
}

// Reason says why, from a closed list that users may match on.
type Reason string

// The reasons of decisions.
const (
	NoPolicy           Reason = "NoPolicy"           // no enforcing policy speaks of the image; the default action decided
	Exempt             Reason = "Exempt"             // an allowlist names the image
	Floor              Reason = "Floor"              // the node's owner pinned the digest
	Attested           Reason = "Attested"           // the required authorities attested it
	Emergency          Reason = "Emergency"          // an emergency authority attested it, for at most a day
	NotAttested        Reason = "NotAttested"        // no attestation of a required authority
	ImageRevoked       Reason = "ImageRevoked"       // an ImageRevocation names a digest of it
	KeyRevoked         Reason = "KeyRevoked"         // the key that signed is revoked
	KeyExpired         Reason = "KeyExpired"         // the key that signed is not valid now, or was not when it signed
	AttestationExpired Reason = "AttestationExpired" // what attestations there are have expired
	SignatureInvalid   Reason = "SignatureInvalid"   // a signature in an authority's name does not verify, or is dated ahead of now
	WrongImage         Reason = "WrongImage"         // the attestation speaks of another image
	EvidencePending    Reason = "EvidencePending"    // evidence not gathered or not verified yet
	SourceUnavailable  Reason = "SourceUnavailable"  // a source was asked and failed, and nothing recent enough is known
	EvidenceExpired    Reason = "EvidenceExpired"    // what a source said last is too old to be used
	ImageUnbound       Reason = "ImageUnbound"       // the claim could not be tied to what runs
	TagNotResolved     Reason = "TagNotResolved"     // a tag, and no node to ask what it means
	PoliciesNotSynced  Reason = "PoliciesNotSynced"  // what the cluster holds was never known here
	PoliciesExpired    Reason = "PoliciesExpired"    // what the cluster held last is too old to be used
	ObjectMalformed    Reason = "ObjectMalformed"    // a policy or an authority cannot be understood
	AuthorityNotFound  Reason = "AuthorityNotFound"  // a policy names an authority that does not exist
	NoSource           Reason = "NoSource"           // a policy requires evidence that no source brings
	SpecTooLarge       Reason = "SpecTooLarge"       // the object would endanger containerd's synchronisation
	DeadlineExceeded   Reason = "DeadlineExceeded"   // the gate ran out of time
	AuditFailed        Reason = "AuditFailed"        // the decision could not be recorded
	Breakglass         Reason = "Breakglass"         // somebody who may let it through did so, at the webhook
	Internal           Reason = "Internal"           // horkos failed
)

// Reasons are all there are.
func Reasons() []Reason {
	return []Reason{NoPolicy, Exempt, Floor, Attested, Emergency, NotAttested, ImageRevoked, KeyRevoked, KeyExpired, AttestationExpired,
		SignatureInvalid, WrongImage, EvidencePending, SourceUnavailable, EvidenceExpired, ImageUnbound, TagNotResolved, PoliciesNotSynced, PoliciesExpired, ObjectMalformed,
		AuthorityNotFound, NoSource, SpecTooLarge, DeadlineExceeded, AuditFailed, Breakglass, Internal}
}
