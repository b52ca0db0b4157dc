package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/kritis"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
	source "github.com/horkos/horkos/verifier/source/objects"
)

// maxVerified bounds the signatures that check verifies: it takes arithmetic.
const maxVerified = 4096

// audition looks for attestations that can count for no policy.
type audition struct {
	snap     *policy.Snapshot
	now      time.Time
	verified int
	told     bool // that there are more
}

// requires tells whether a set has a policy: without any there is nothing to hold attestations to.
func requires(set crds.Set) bool {
	return slices.ContainsFunc(set.Objects, func(o crds.Object) bool {
		return slices.Contains([]string{kritis.KindGenericAttestationPolicy, kritis.KindImageSecurityPolicy, horkos.KindClusterAttestationPolicy}, o.Kind)
	})
}

// attestations gives the warnings about those of an object.
func (a *audition) attestations(o *crds.Object) []crds.Problem {
	spec, ok := o.Spec.(*horkos.ImageAttestationSpec)
	if !ok || len(o.Problems) > 0 {
		return nil
	}
	var warnings []crds.Problem
	for n := range spec.Attestations {
		one := *o
		one.Spec = &horkos.ImageAttestationSpec{Attestations: spec.Attestations[n : n+1]}
		records, _ := source.Records([]crds.Object{one}) // what cannot be read is told as a problem
		for id, list := range records {
			for i := range list {
				why := a.why(id, &list[i])
				if a.verified > maxVerified && !a.told {
					a.told, why = true, fmt.Sprintf("there are more than %d signatures: from here on they are not verified", maxVerified)
				}
				if why != "" {
					warnings = append(warnings, crds.Problem{Field: fmt.Sprintf("spec.attestations[%d]", n), Message: why})
				}
			}
		}
	}
	return warnings
}

// why says why an attestation cannot count; empty when it may.
func (a *audition) why(id image.Identity, at *evidence.Attestation) string {
	if over(at.Expires, a.now) {
		return "it expired at " + stamp(at.Expires) + ": it counts no more"
	}
	var ids []string
	why := ""
	for i := range at.Envelopes {
		env := &at.Envelopes[i]
		if !slices.Contains(ids, env.KeyID) {
			ids = append(ids, env.KeyID)
		}
		for _, authority := range a.snap.Authorities(env.KeyID) {
			if !authority.Accepts(at.Note) {
				why = fmt.Sprintf("it counts for nothing: its note %.80q is not that of an authority with its key", at.Note)
				continue
			}
			for _, key := range authority.Keys(env.KeyID) {
				if a.verified++; a.verified > maxVerified {
					return ""
				}
				if why = a.of(attestation.Verify(key.Key, env), id); why == "" {
					return ""
				}
			}
		}
	}
	if why == "" {
		why = fmt.Sprintf("it counts for nothing: no authority that a policy names has its key %.200s", strings.Join(ids, ", "))
	}
	return why
}

// of says why a statement cannot count for an image.
func (a *audition) of(out attestation.Outcome, id image.Identity) string {
	switch {
	case out.Failure != nil:
		return "it counts for nothing: " + out.Failure.Error()
	case out.Statement.Identity != id:
		return fmt.Sprintf("it counts for nothing: it speaks of %s@%s, not of the image of its resourceUri", out.Statement.Identity.Repository, out.Statement.Identity.Digest)
	case over(out.Statement.Expires, a.now):
		return "it expired at " + stamp(out.Statement.Expires) + ": it counts no more"
	}
	return ""
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// over tells whether a time that ends something has come; the zero time ends nothing.
func over(end, now time.Time) bool { return !end.IsZero() && !now.Before(end) }
