// Package crds decodes the objects Horkos decides by, strictly and in one way,
// whether they come from a file, the kept copy on disk or the API server.
package crds

import (
	"fmt"
	"strings"
)

// Object is one object and where it was read. A malformed object keeps its kind,
// namespace and name, and of its spec what could be read: what a malformed object
// governs is decided by package policy, never by leaving it out.
type Object struct {
	APIVersion string
	Kind       string
	Namespace  string // empty for a cluster-scoped object
	Name       string

	// Spec is a pointer to the type of the kind, *kritis.AttestationAuthoritySpec and so
	// on, and nil for a kind that is known but not built yet.
	Spec any

	// Source names the file (and document) or the API server, for people.
	Source string

	// Raw is the object as JSON: what is kept on disk and decoded again. It carries
	// apiVersion, kind, metadata.name, metadata.namespace, metadata.labels (of a Namespace) and spec only.
	Raw []byte

	// UnknownKind is true for a kind, or a version of it, that this version does not know,
	// of a group that Horkos decides by. Such an object could restrict anything; Kind and
	// Namespace say nothing about what. It is malformed too.
	UnknownKind bool

	// Problems is not empty when the object is malformed.
	Problems []Problem
}

// Problem is one thing wrong with an object.
type Problem struct {
	Field   string // a path such as spec.publicKeys[0].keyType; empty for the whole object
	Message string
}

func (p Problem) String() string {
	if p.Field == "" {
		return p.Message
	}
	return p.Field + ": " + p.Message
}

// ID names the object for people and messages: Kind namespace/name.
func (o Object) ID() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// Malformed says what is wrong with the object, or is empty.
func (o Object) Malformed() string {
	if len(o.Problems) == 0 {
		return ""
	}
	texts := make([]string, len(o.Problems))
	for i, p := range o.Problems {
		texts[i] = p.String()
	}
	return fmt.Sprintf("%s (%s): %s", o.ID(), o.Source, strings.Join(texts, "; "))
}

// Origin is where a set of objects comes from. Names of authorities, allowlists and
// enforcement act inside their own origin only.
type Origin string

// The origins.
const (
	Folder  Origin = "folder"
	Cluster Origin = "cluster"
)

// Set is everything one origin holds at one moment. A Set is immutable once it is handed on.
type Set struct {
	Origin  Origin
	Objects []Object

	// Faults are parts of the origin that cannot be read. They make what they govern misconfigured.
	Faults []Fault

	// Stale is not empty when this is the last set that was good, kept in force because
	// what came after it cannot be believed; it says why.
	Stale string

	// Unknown is not nil when what the origin holds is not known, or not any more. Its
	// objects can restrict; nothing is allowed because of them, or because there are none.
	Unknown *Unknown
}

// Unknown says why nobody can tell what an origin holds.
type Unknown struct {
	Expired bool // it was known, too long ago
	Message string
}

// Fault is a part of an origin that cannot be read.
type Fault struct {
	Source string
	// Namespaces are those that the part spoke of when it was last good; nil means every
	// namespace, and empty but not nil none: such a fault is only reported.
	Namespaces []string
	Message    string
}
