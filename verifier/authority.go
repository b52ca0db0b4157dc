package verifier

import (
	"fmt"
	"slices"
	"time"

	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
)

// maxAhead is how far a signed timestamp may lie ahead of now.
const maxAhead = 5 * time.Minute

// policy gives the result of one policy: the Require-th best of its authorities.
func (j *judgement) policy(l *policy.Layer, p *policy.Policy, c Candidate) verdict {
	base := Check{Layer: l.Name, Policy: p.ID(), Requirement: requirement(p), decides: p.Enforcement == policy.Enforce}
	if p.Malformed != "" {
		base.Result, base.Reason, base.Detail = Misconfigured, ObjectMalformed, p.Malformed
		return verdict{result: base.Result, reason: base.Reason, checks: []Check{base}}
	}
	v := verdict{checks: make([]Check, 0, len(p.Authorities))}
	searches := make([]*search, 0, len(p.Authorities))
	for _, a := range p.Authorities {
		s := j.authority(a, c, p.Distinct)
		check := s.worst
		if s.keys != nil {
			check = s.found
		}
		check.Layer, check.Policy, check.Requirement, check.decides, check.Authority = base.Layer, base.Policy, base.Requirement, base.decides, a.Name
		v.checks = append(v.checks, check)
		searches = append(searches, s)
	}
	if p.Distinct {
		countOnce(v.checks, searches)
	}
	v.result, v.reason = nthBest(v.checks, p.Require)
	return v
}

// requirement tells what a policy asks for, in the words of its field require.
func requirement(p *policy.Policy) string {
	text := fmt.Sprintf("all of %d", len(p.Authorities))
	switch {
	case p.Malformed != "":
		text = "not understood"
	case p.Distinct:
		text = fmt.Sprintf("%d of %d", p.Require, len(p.Authorities))
	case p.Require < len(p.Authorities):
		text = fmt.Sprintf("any of %d", len(p.Authorities))
	}
	if p.Enforcement != policy.Enforce {
		text += fmt.Sprintf(", only reported (%s)", p.Enforcement)
	}
	return text
}

// nthBest is the n-th best result of the checks.
func nthBest(checks []Check, n int) (Result, Reason) {
	if n < 1 || n > len(checks) {
		return Misconfigured, ObjectMalformed
	}
	best := slices.SortedStableFunc(slices.Values(checks), func(a, b Check) int { return int(b.Result - a.Result) })
	return best[n-1].Result, best[n-1].Reason
}

// countOnce takes back what authorities attested with keys that count for others already:
// as many as possible are given a key of their own, by a maximum bipartite matching,
// small by the limits of a policy.
func countOnce(checks []Check, searches []*search) {
	owner := make(map[string]int)
	var assign func(a int, seen map[string]bool) bool
	assign = func(a int, seen map[string]bool) bool {
		for _, k := range searches[a].keys {
			if seen[k] {
				continue
			}
			seen[k] = true
			if other, taken := owner[k]; !taken || assign(other, seen) {
				owner[k] = a
				return true
			}
		}
		return false
	}
	pending := slices.ContainsFunc(searches, func(s *search) bool { return s.keys != nil && s.pending })
	for a := range checks {
		check := &checks[a]
		if check.Result != Allowed || assign(a, make(map[string]bool)) {
			continue
		}
		check.Result, check.Reason, check.Detail = Denied, NotAttested, "it attested, with a key that counts for another authority"
		if pending { // another key may have attested, and free this one
			check.Result, check.Reason = Unresolved, EvidencePending
		}
	}
}

// authority tells whether an authority attested a candidate. With all, every key that
// did is gathered; else the first is enough.
func (j *judgement) authority(a *policy.Authority, c Candidate, all bool) *search {
	s := &search{j: j, authority: a, all: all, worst: Check{Result: Denied, Reason: NotAttested}}
	switch {
	case a.Missing:
		s.worst = Check{Result: Misconfigured, Reason: AuthorityNotFound, Detail: "no AttestationAuthority of that name in the namespace"}
	case a.Malformed != "":
		s.worst = Check{Result: Misconfigured, Reason: ObjectMalformed, Detail: a.Malformed}
	case c.Repository == "":
		s.worst.Detail = "the image has no repository that an attestation could speak of"
	case len(c.Digests) == 0:
		s.worst = Check{Result: Unresolved, Reason: TagNotResolved, Detail: "the image is named by a tag; name it by its digest"}
	default:
		s.run(c)
	}
	return s
}

// search goes through the evidence of one authority for one candidate.
type search struct {
	j         *judgement
	authority *policy.Authority
	all       bool

	found   Check
	keys    []string // distinct names of the keys that attested; nil while none did
	pending bool     // something is not known yet
	worst   Check    // the most telling reason why not
}

// run asks every source about every digest, until it knows enough.
func (s *search) run(c Candidate) {
	for _, digest := range c.Digests {
		for _, q := range s.j.decider.Sources {
			q.Identity.Repository, q.Identity.Digest = c.Repository, digest
			if s.look(q) && !s.all {
				return
			}
		}
	}
}

// look goes through what one source holds, and tells whether it holds an attestation that counts.
func (s *search) look(q evidence.Question) bool {
	attestations, ok := s.j.view.Lookup(q)
	if !ok {
		s.miss(q, "", "not asked yet")
		return false
	}
	var tried bounds
	tried.each(s.authority, attestations, func(at *evidence.Attestation, env *attestation.Envelope, key *attestation.Key) bool {
		return !s.try(q, at, env, key) || s.all
	})
	if tried.over {
		s.not(Denied, NotAttested, "", "", "more attestations bear its key ids than are looked at")
	}
	return s.keys != nil
}

// try judges one envelope under one key, now.
func (s *search) try(q evidence.Question, at *evidence.Attestation, env *attestation.Envelope, key *attestation.Key) bool {
	out, ok := s.j.view.Outcome(key, env)
	if !ok {
		s.miss(q, key.ID, "its signature is not verified yet")
		return false
	}
	if out.Failure != nil {
		s.not(Denied, SignatureInvalid, key.ID, at.Origin, out.Failure.Detail)
		return false
	}
	now, st := s.j.req.Time, out.Statement
	switch {
	case st.Identity != q.Identity:
		s.not(Denied, WrongImage, key.ID, at.Origin, "it speaks of "+st.Identity.String())
	case !st.Timestamp.IsZero() && st.Timestamp.After(now.Add(maxAhead)):
		s.not(Denied, SignatureInvalid, key.ID, at.Origin, "it is dated ahead of now: "+st.Timestamp.UTC().Format(time.RFC3339))
	case !st.Expires.IsZero() && !now.Before(st.Expires):
		s.not(Denied, AttestationExpired, key.ID, at.Origin, "it expired at "+st.Expires.UTC().Format(time.RFC3339))
	case !at.Expires.IsZero() && !now.Before(at.Expires):
		s.not(Denied, AttestationExpired, key.ID, at.Origin, "the object lets it expire at "+at.Expires.UTC().Format(time.RFC3339))
	default:
		if s.keys == nil {
			s.found = Check{Result: Allowed, Reason: Attested, KeyID: key.ID, Attestation: at.Origin}
		}
		if !slices.Contains(s.keys, key.Distinct()) {
			s.keys = append(s.keys, key.Distinct())
		}
		return true
	}
	return false
}

// miss notes a question whose answer could still make the authority speak. It is asked of
// policies that only report too: a report of what is not known tells nothing.
func (s *search) miss(q evidence.Question, keyID, detail string) {
	s.pending = true
	s.not(Unresolved, EvidencePending, keyID, "", detail)
	if !slices.Contains(s.j.missing, q) {
		s.j.missing = append(s.j.missing, q)
	}
}

// telling orders the reasons why an authority has not attested: of several, the one that
// helps most to mend it is told.
func telling(r Reason) int {
	switch r {
	case EvidencePending:
		return 4
	case AttestationExpired:
		return 3
	case SignatureInvalid:
		return 2
	case WrongImage:
		return 1
	}
	return 0
}

func (s *search) not(result Result, reason Reason, keyID, origin, detail string) {
	if telling(reason) < telling(s.worst.Reason) || (s.worst.Detail != "" && telling(reason) == telling(s.worst.Reason)) {
		return
	}
	s.worst = Check{Result: result, Reason: reason, KeyID: keyID, Attestation: origin, Detail: detail}
}
