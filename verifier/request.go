package verifier

import (
	"time"

	"github.com/horkos/horkos/verifier/image"
)

// Request is one question to the verifier: may these images run in this namespace?
// The images of a request stand or fall together.
type Request struct {
	Namespace string
	Images    []Image
	// Time is now as the gate knows it; Decide has no clock of its own, and refuses a request
	// that has none.
	Time time.Time
	// Once: nobody asks again of their own accord, as a kubelet does. Messages advise accordingly.
	Once bool
}

// Image is what binding made of a claim: the content that will run, and every name
// under which it may be spoken for.
type Image struct {
	// Written is the image as the pod wrote it; it appears in messages and decides nothing.
	Written string

	// Name is the bound name: the one the pod asked for, and only if it leads to the
	// content that runs. Allowlists and scopes look at nothing else. The zero value is no name.
	Name image.Reference

	// Config is the digest of the config that runs; empty at gates without a node.
	Config image.Digest

	// Candidates are the records of the same content, the asked-for first, at most
	// MaxCandidates. They only offer identities to attestations; one of them must satisfy all layers.
	Candidates []Candidate

	// Digests is Config and the digest of every index and manifest on the node that leads
	// to it, whatever their number: revocations and the floor look here.
	Digests []image.Digest

	// Unbound says why the claim could not be tied to content; not empty means unresolved.
	Unbound string
}

// Candidate is one repository and the digests in it that lead to the content, outermost
// first: index, manifest.
type Candidate struct {
	Repository string
	Digests    []image.Digest
}

// MaxCandidates bounds Image.Candidates.
const MaxCandidates = 16
