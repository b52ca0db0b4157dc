// Package policy compiles the objects of every origin into a Snapshot: what must be
// attested by whom, in which namespace, what is exempt by name, and what is revoked.
// A Snapshot is immutable; compiling and looking up do no I/O.
package policy

import (
	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/image"
)

// Limits of what is compiled; more is malformed.
const (
	MaxKeys        = 64 // of an authority
	MaxAuthorities = 64 // of a policy
	MaxPattern     = 512
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

// Authorities are all that a policy names and that have a key of that id: those in whose
// name a signature may be judged later, so that it can be verified beforehand.
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
	// Ignored marks what is left out: it could only have loosened, or it decides nothing.
	Ignored bool
}

// Layer is a set of objects that stands for itself: one origin and one kind of policy.
type Layer struct {
	Name   string // folder/GenericAttestationPolicy
	Origin crds.Origin

	// Fault says why the layer cannot be understood; not empty means misconfigured,
	// whatever else is in it.
	Fault string

	// Best tells how the policies of the layer combine: the best of them (Kritis' OR) or the worst.
	Best     bool
	Policies []*Policy

	allowlists []*allowlist // none is nil
}

// Enforcing tells whether anything in the layer decides.
func (l *Layer) Enforcing() bool {
	if l.Fault != "" {
		return true
	}
	for _, p := range l.Policies {
		if p.Enforcement == Enforce {
			return true
		}
	}
	return false
}

// Exempts names the allowlist entry that exempts an image from the layer. Only a bound
// name may be asked about; none is never exempt.
func (l *Layer) Exempts(name image.Reference) (Exemption, bool) {
	if name.Repository == "" {
		return Exemption{}, false
	}
	text := matchable(name)
	for _, a := range l.allowlists {
		if by, ok := a.match(text); ok {
			return by, true
		}
	}
	return Exemption{}, false
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

	// Malformed says why the policy cannot be understood; not empty means misconfigured.
	Malformed string

	// Require is how many of Authorities must have attested; with Distinct, which a number
	// in the policy means and All and Any do not, each by a key of its own.
	Require     int
	Distinct    bool
	Authorities []*Authority
}

// ID is Kind namespace/name, or Kind name.
func (p *Policy) ID() string {
	return crds.Object{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name}.ID()
}

// Authority is one compiled authority, as a policy refers to it.
type Authority struct {
	Name string
	Note string // normalised; empty when it names none

	// Missing: no object of that name is where the policy looks.
	Missing bool
	// Malformed says why it has no usable key; not empty means misconfigured.
	Malformed string

	keys     map[string][]*attestation.Key // by id
	distinct []string                      // of all of them, as Key.Distinct
}

// Keys are the authority's keys of that id.
func (a *Authority) Keys(id string) []*attestation.Key { return a.keys[id] }

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
