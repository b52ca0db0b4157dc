// Package policy compiles the objects of every origin into a Snapshot: what must be
// attested by whom, in which namespace, what is exempt by name, and what is revoked.
// A Snapshot is immutable; compiling and looking up do no I/O.
package policy

import (
	"fmt"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/image"
)

// Limits of what is compiled; more is malformed.
const (
	MaxKeys        = 64 // of an authority
	MaxAuthorities = 64 // of a policy
	MaxPattern     = 512
	MaxPatterns    = 1024 // of a scope

	MaxNamespaceKeys   = 256  // of all AttestationAuthorities of a namespace, different ones
	MaxPolicies        = 256  // of one kind in a namespace
	MaxClusterPolicies = 1024 // of an origin

	maxFault = 2048 // bytes that are told of what is wrong with an origin or a namespace
)

// Snapshot is the policy in force at one moment, for every namespace.
type Snapshot struct {
	revision   string
	namespaces map[string][]Layer
	elsewhere  []Layer
	revoked    map[image.Digest]Revocation
	byKey      map[string][]*Authority
	findings   []Finding
}

// Revision is twelve hex digits, equal wherever the policies are equal.
func (s *Snapshot) Revision() string { return s.revision }

// Layers are those that speak of a namespace; all of them must allow.
func (s *Snapshot) Layers(namespace string) []Layer {
	if layers, ok := s.namespaces[namespace]; ok {
		return layers
	}
	return s.elsewhere
}

// Revocation tells whether a digest is withdrawn, by whom and why. Where both origins
// revoke it, the folder's is told: it is the one that the floor cannot lift.
func (s *Snapshot) Revocation(d image.Digest) (Revocation, bool) {
	r, ok := s.revoked[d]
	return r, ok
}

// HasRevocations saves callers a look-up a digest where nothing is revoked.
func (s *Snapshot) HasRevocations() bool { return len(s.revoked) > 0 }

// Authorities are those that a policy names and that have a key of that id: those in whose
// name a signature may be judged later, so that it can be verified beforehand. Of several
// with the same keys and note it is one.
func (s *Snapshot) Authorities(keyID string) []*Authority { return s.byKey[keyID] }

// Findings are what is wrong with the objects, for reports; what follows from it is
// already in the layers.
func (s *Snapshot) Findings() []Finding { return s.findings }

// Revocation withdraws a digest.
type Revocation struct {
	Origin crds.Origin
	Object string
	Reason string
}

// Finding is one thing that somebody should mend.
type Finding struct {
	Object  string // as crds.Object.ID; empty for a whole file or origin
	Source  string
	Message string
	// Problems are what Message tells, one by one and with their fields.
	Problems []crds.Problem
	// Ignored marks what is left out: it could only have loosened, or it decides nothing.
	Ignored bool
	// Warning marks what can be judged as it stands, and is hardly what was meant.
	Warning bool
	// Unusable tells that nothing can be verified by the AttestationAuthority that Object is. Of
	// several findings about one the last bears it.
	Unusable bool
}

// Layer is a set of objects that stands for itself: one origin and one kind of policy.
type Layer struct {
	Name   string // folder/GenericAttestationPolicy
	Origin crds.Origin

	// Fault says why the layer cannot be understood; not empty means misconfigured,
	// whatever else is in it.
	Fault string

	// Unknown is not nil when nobody can tell what the origin holds: unresolved.
	Unknown *crds.Unknown

	// Best tells how the policies of the layer combine: the best of them (Kritis' OR) or the worst.
	Best     bool
	Policies []*Policy

	admits  []*allowlist // AdmissionAllowlists
	exempts *allowlist   // of its policies that enforce; nil where each has its own
	scopes  *scopes      // of Policies; nil where none has one
}

// Judges tells whether the policies of the layer are all there is to it.
func (l *Layer) Judges() bool { return l.Fault == "" && l.Unknown == nil }

// Exempts names the allowlist entry that exempts an image from the policies of the layer,
// and tells whether from those that only report too: what an AdmissionAllowlist lets in
// would be let in if they were in force.
func (l *Layer) Exempts(name Name) (by Exemption, reports, ok bool) {
	for _, a := range l.admits {
		if by, ok := a.match(name); ok {
			return by, true, true
		}
	}
	by, ok = l.exempts.match(name)
	return by, false, ok
}

// Exemption is an allowlist entry that matched.
type Exemption struct {
	Object  string
	Pattern string
}

// Enforcement tells what a policy's result is used for.
type Enforcement string

// The enforcements. Only Enforce decides.
const (
	Enforce Enforcement = "Enforce"
	Warn    Enforcement = "Warn"
	Audit   Enforcement = "Audit"
)

// Policy is one compiled policy.
type Policy struct {
	Kind        string
	Namespace   string
	Name        string
	Enforcement Enforcement

	// Malformed says why the policy cannot be understood; not empty means misconfigured, and
	// Enforce whatever the policy claims.
	Malformed string

	// Require is how many of Authorities must have attested; with Distinct, which a number
	// in the policy means and All and Any do not, each by a key of its own.
	Require     int
	Distinct    bool
	Authorities []*Authority

	// Emergency are those of whom one attestation, made for a short time, satisfies the policy.
	Emergency []*Authority

	// MaximumAge and NotBefore bound the signed timestamp of an attestation that counts; zero: no bound.
	MaximumAge time.Duration
	NotBefore  time.Time

	// Wants names what the policy requires and no source brings; not empty means misconfigured.
	Wants string

	scope   *allowlist // of a cluster policy: the names it is about; nil means every image
	exempts *allowlist // of its own; nil where its layer has the exemptions

	id, asks, requirement string // written once: deciding tells them often
}

// Applies tells whether an image is in the policy's scope. One without a bound name is in
// every scope, and a malformed policy is about all images.
func (p *Policy) Applies(name Name) bool {
	if p.scope == nil || name == "" || p.Malformed != "" {
		return true
	}
	_, ok := p.scope.match(name)
	return ok
}

// Exempts names the entry of the policy's own allowlist that exempts an image from it.
func (p *Policy) Exempts(name Name) (Exemption, bool) { return p.exempts.match(name) }

// ID is Kind namespace/name, or Kind name.
func (p *Policy) ID() string { return p.id }

// Asks tells what the policy asks for, in the words of its field require.
func (p *Policy) Asks() string { return p.asks }

// Requirement is Asks, and that it is only reported where it is.
func (p *Policy) Requirement() string { return p.requirement }

// describe writes what the policy asks for.
func (p *Policy) describe() {
	p.asks = fmt.Sprintf("all of %d", len(p.Authorities))
	switch {
	case p.Malformed != "":
		p.asks = "not understood"
	case p.Distinct:
		p.asks = fmt.Sprintf("%d of %d", p.Require, len(p.Authorities))
	case p.Require < len(p.Authorities):
		p.asks = fmt.Sprintf("any of %d", len(p.Authorities))
	}
	p.requirement = p.asks
	if p.Enforcement != Enforce {
		p.requirement += fmt.Sprintf(", only reported (%s)", p.Enforcement)
	}
}

// Authority is one compiled authority, as a policy refers to it.
type Authority struct {
	Name string
	Note string // normalised; empty when it names none

	// Missing names the object that is not there; empty when it is.
	Missing string
	// Malformed says why it has no usable key; not empty means misconfigured.
	Malformed string

	// Namespace is that of the policy that names it; empty where a policy of all namespaces does.
	Namespace string

	// AcceptExpiredKeys: a signature that says it was made while its key was valid counts.
	AcceptExpiredKeys bool

	keys     map[string][]*Key // by each of their ids
	distinct []string          // of all of them, as attestation.Key.Distinct
	alike    string            // equal of authorities that accept the same signatures
}

// Keys are the authority's keys of that id.
func (a *Authority) Keys(id string) []*Key { return a.keys[id] }

// Key is a key of an authority, and when the authority may use it.
type Key struct {
	*attestation.Key
	From, Until time.Time // zero: no bound
}

// Accepts tells whether an attestation that claims that note may speak for the
// authority: where both name a note they are equal, or the attestation's lies under the
// authority's by whole segments. The claim is not signed.
func (a *Authority) Accepts(note string) bool {
	if a.Note == "" || note == "" {
		return true
	}
	note = normalNote(note)
	if len(note) == len(a.Note) {
		return note == a.Note
	}
	return len(note) > len(a.Note) && note[:len(a.Note)] == a.Note && note[len(a.Note)] == '/'
}
