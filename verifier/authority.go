package verifier

import (
	"fmt"
	"sort"
	"time"

	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
)

// maxAhead is how far a signed timestamp may lie ahead of now.
const maxAhead = 5 * time.Minute

// policy gives the result of one policy: the Require-th best of its authorities.
func (j *judgement) policy(l *policy.Layer, p *policy.Policy, c Candidate) verdict {
	enforcement := enforcementMark(p.Enforcement)
	if p.Malformed != "" {
		return verdict{result: Misconfigured, reason: ObjectMalformed, checks: []Check{{Result: Misconfigured, Reason: ObjectMalformed,
			Layer: l.Name, Policy: p.ID(), Enforcement: enforcement, Detail: p.Malformed}}}
	}
	v := verdict{checks: make([]Check, 0, len(p.Authorities))}
	var keys [][]string // of the authorities that attested, in order; only when they must be distinct
	for _, a := range p.Authorities {
		check, by := j.authority(a, c, p.Distinct, p.Enforcement == policy.Enforce)
		check.Layer, check.Policy, check.Enforcement, check.Authority = l.Name, p.ID(), enforcement, a.Name
		if p.Distinct {
			check.Requirement = fmt.Sprintf("%d of %d", p.Require, len(p.Authorities))
			if check.Result == Allowed {
				keys = append(keys, by)
			}
		} else if p.Require < len(p.Authorities) {
			check.Requirement = "any"
		}
		v.checks = append(v.checks, check)
	}
	v.result, v.reason = nthBest(v.checks, p.Require, len(keys)-distinct(keys))
	return v
}

// nthBest is the n-th best result of the checks, of which the given number of allowed
// ones do not count because they are by keys that count already.
func nthBest(checks []Check, n, shared int) (Result, Reason) {
	type answer struct {
		result Result
		reason Reason
	}
	answers := make([]answer, 0, len(checks))
	for i := range checks {
		a := answer{checks[i].Result, checks[i].Reason}
		if a.result == Allowed && shared > 0 {
			a = answer{Denied, NotAttested}
			shared--
		}
		answers = append(answers, a)
	}
	sort.SliceStable(answers, func(i, k int) bool { return answers[i].result > answers[k].result })
	if n < 1 || n > len(answers) {
		return Misconfigured, ObjectMalformed
	}
	return answers[n-1].result, answers[n-1].reason
}

// distinct is how many authorities can be given a key of their own out of those that
// verified for them: a maximum bipartite matching, small by the limits of a policy.
func distinct(keys [][]string) int {
	owner := make(map[string]int)
	var assign func(a int, seen map[string]bool) bool
	assign = func(a int, seen map[string]bool) bool {
		for _, k := range keys[a] {
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
	n := 0
	for a := range keys {
		if assign(a, make(map[string]bool)) {
			n++
		}
	}
	return n
}

// authority tells whether an authority attested a candidate. With all, every key that
// did is gathered; else the first is enough. With ask, what is not known becomes a question.
func (j *judgement) authority(a *policy.Authority, c Candidate, all, ask bool) (Check, []string) {
	switch {
	case a.Missing:
		return Check{Result: Misconfigured, Reason: AuthorityNotFound, Detail: "no AttestationAuthority of that name in the namespace"}, nil
	case a.Malformed != "":
		return Check{Result: Misconfigured, Reason: ObjectMalformed, Detail: a.Malformed}, nil
	case c.Repository == "":
		return Check{Result: Denied, Reason: NotAttested, Detail: "the image has no repository that an attestation could speak of"}, nil
	case len(c.Digests) == 0:
		return Check{Result: Unresolved, Reason: TagNotResolved, Detail: "the image is named by a tag; name it by its digest"}, nil
	}
	s := search{j: j, authority: a, all: all, ask: ask, worst: Check{Result: Denied, Reason: NotAttested}}
	for _, digest := range c.Digests {
		for _, source := range j.decider.Sources {
			source.Identity.Repository, source.Identity.Digest = c.Repository, digest
			if s.look(source) && !all {
				return s.found, s.keys
			}
		}
	}
	if s.keys != nil {
		return s.found, s.keys
	}
	return s.worst, nil
}

// search goes through the evidence of one authority for one candidate.
type search struct {
	j         *judgement
	authority *policy.Authority
	all, ask  bool
	tried     bounds

	found Check
	keys  []string // distinct names of the keys that attested
	worst Check    // the most telling reason why not
}

// look goes through what one source holds, and tells whether it holds an attestation that counts.
func (s *search) look(q evidence.Question) bool {
	attestations, ok := s.j.view.Lookup(q)
	if !ok {
		s.miss(q, "", "not asked yet")
		return false
	}
	s.tried.each(s.authority, attestations, func(at *evidence.Attestation, env *attestation.Envelope, key *attestation.Key) bool {
		return !s.try(q, at, env, key) || s.all
	})
	if s.tried.full() {
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
		s.keys = append(s.keys, key.Distinct())
		return true
	}
	return false
}

// miss notes a question whose answer could still make the authority speak.
func (s *search) miss(q evidence.Question, keyID, detail string) {
	s.not(Unresolved, EvidencePending, keyID, "", detail)
	if !s.ask {
		return
	}
	for _, m := range s.j.missing {
		if m == q {
			return
		}
	}
	s.j.missing = append(s.j.missing, q)
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
