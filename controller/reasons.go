package controller

// Types of conditions.
const (
	// Ready: the object is in force, all of it. What is not ready, `horkos policy check` calls
	// a problem.
	Ready = "Ready"
	// Warning is there, and True, where the object is hardly what was meant, though it can be
	// judged as it stands.
	Warning = "Warning"
)

// Reasons of condition Ready.
const (
	Accepted          = "Accepted"
	Malformed         = "Malformed"
	NotSupported      = "NotSupported"      // a kind, or what it wants, is not built in this version
	TooMany           = "TooMany"           // more objects than are judged
	KeyUnparsable     = "KeyUnparsable"     // of an authority, or of a policy's own
	AuthorityNotFound = "AuthorityNotFound" // the policy names one that does not exist
	AuthorityUnusable = "AuthorityUnusable" // the policy names one that has no key to verify with
	PatternUnreadable = "PatternUnreadable" // of an allowlist
)

// Reasons of condition Warning.
const (
	OpenHostPattern = "OpenHostPattern" // it matches registries that anybody may own
	KeysShared      = "KeysShared"      // with another authority: they share attestations
	SelectsNothing  = "SelectsNothing"  // the conditions of a selector exclude one another
	NeverSatisfied  = "NeverSatisfied"  // more keys are wanted than there are
	NamedTwice      = "NamedTwice"
	ScopeNarrow     = "ScopeNarrow" // a pattern without a tag
	HardlyMeant     = "HardlyMeant" // anything else
)

// gravity orders the reasons of what is not ready: of several the first is the condition's.
var gravity = []string{Malformed, NotSupported, TooMany, KeyUnparsable, AuthorityNotFound, AuthorityUnusable, PatternUnreadable}
