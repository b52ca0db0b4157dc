package verifier

import (
	"slices"

	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
)

// authority tells whether an authority attested a candidate as a policy asks for. Where the
// policy counts keys, every key that did is gathered; else the first is enough.
func (j *judgement) authority(p *policy.Policy, a *policy.Authority, c Candidate, emergency bool) search {
	s := search{j: j, policy: p, authority: a, emergency: emergency, all: p.Distinct && !emergency, worst: Check{Result: Denied, Reason: NotAttested}}
	switch {
	case a.Missing != "":
		s.worst = Check{Result: Misconfigured, Reason: AuthorityNotFound, Detail: a.Missing + " does not exist"}
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
	policy    *policy.Policy
	authority *policy.Authority
	emergency bool
	all       bool

	found   Check    // the first attestation that counts
	keys    []string // distinct names of the keys that attested; of all only
	pending bool     // something is not known yet
	worst   Check    // the most telling reason why not
}

func (s *search) attested() bool { return s.found.Result == Allowed }

// check is what the search came to, in the terms of its policy.
func (s *search) check(base *Check) Check {
	check := s.worst
	if s.attested() {
		check = s.found
	}
	check.Layer, check.Policy, check.Requirement, check.decides, check.Authority = base.Layer, base.Policy, base.Requirement, base.decides, s.authority.Name
	return check
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
	tried.each(s.authority, attestations, func(at *evidence.Attestation, env *attestation.Envelope, key *policy.Key) bool {
		return !s.try(q, at, env, key) || s.all
	})
	if tried.over {
		s.not(Denied, NotAttested, "", "", "more attestations bear its key ids than are looked at")
	}
	return s.attested()
}

// try judges one envelope under one key, now.
func (s *search) try(q evidence.Question, at *evidence.Attestation, env *attestation.Envelope, key *policy.Key) bool {
	out, ok := s.j.view.Outcome(key.Key, env)
	if !ok {
		s.miss(q, key.ID, "its signature is not verified yet")
		return false
	}
	reason, detail := failed(out.Failure)
	switch {
	case reason != "":
	case out.Statement.Identity != q.Identity:
		reason, detail = WrongImage, "it speaks of "+out.Statement.Identity.String()
	default:
		reason, detail = s.timely(at, key, &out.Statement)
	}
	if reason != "" {
		s.not(Denied, reason, key.ID, at.Origin, detail)
		return false
	}
	if !s.attested() {
		s.found = Check{Result: Allowed, Reason: Attested, KeyID: key.ID, Attestation: at.Origin, Detail: detail}
	}
	if s.all && !slices.Contains(s.keys, key.Distinct()) {
		s.keys = append(s.keys, key.Distinct())
	}
	return true
}

// failed is why an envelope gives no statement; no reason when it does.
func failed(f *attestation.Failure) (Reason, string) {
	switch {
	case f == nil:
		return "", ""
	case f.Kind == attestation.RevokedKey:
		return KeyRevoked, f.Detail
	case f.Kind == attestation.ExpiredKey:
		return KeyExpired, f.Detail
	}
	return SignatureInvalid, f.Detail
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
		return 6
	case KeyRevoked:
		return 5
	case KeyExpired:
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
