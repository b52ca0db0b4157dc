package verifier

import (
	"slices"
	"time"

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
	check.Layer, check.Policy, check.Requirement, check.Authority = base.Layer, base.Policy, base.Requirement, s.authority.Name
	check.Enforcement, check.Decides = base.Enforcement, base.Decides
	return check
}

// run asks every source about every digest, until it knows enough.
func (s *search) run(c Candidate) {
	for _, digest := range c.Digests {
		for _, q := range s.j.decider.Sources {
			if s.j.exhausted() {
				s.worst = tooMuch()
				return
			}
			q.Identity.Repository, q.Identity.Digest = c.Repository, digest
			if s.look(q) && !s.all {
				return
			}
		}
	}
}

// look goes through what one source holds, and tells whether it holds an attestation that counts.
func (s *search) look(q evidence.Question) bool {
	s.j.looked++
	known := s.j.view.Lookup(q)
	if known.State == evidence.Unasked {
		s.miss(q, "", "not asked yet")
		return false
	}
	if known.Again {
		s.j.missing.add(q)
	}
	if known.State < evidence.Stale {
		s.unknown(known)
		return false
	}
	before := s.attested()
	var tried bounds
	tried.each(s.authority, known.Attestations, func(at *evidence.Attestation, env *attestation.Envelope, key *policy.Key) bool {
		return !s.try(q, at, env, key) || s.all
	})
	if known.Anew && !s.attested() {
		s.j.missing.add(q)
	}
	if tried.over {
		s.not(Denied, NotAttested, "", "", "more attestations bear its key ids than are looked at")
	}
	if known.State == evidence.Stale {
		s.stale(known, s.attested() && !before)
	}
	s.j.age = max(s.j.age, known.Age)
	return s.attested()
}

// unknown notes that a source was asked in vain, and that nothing recent enough is known.
func (s *search) unknown(known evidence.Answer) {
	s.pending = true
	if known.State == evidence.Failed {
		s.not(Unavailable, SourceUnavailable, "", "", "its source failed: "+known.Problem)
		return
	}
	s.not(Unavailable, EvidenceExpired, "", "", "what its source said last, "+ago(known.Age)+" ago, is too old to be used"+because(known.Problem))
}

// stale says what the age of an answer means: what was attested still is, and what was not
// may be by now.
func (s *search) stale(known evidence.Answer, attested bool) {
	switch {
	case attested:
		detail := "as its source said " + ago(known.Age) + " ago" + because(known.Problem)
		if s.found.Detail != "" {
			detail = s.found.Detail + "; " + detail
		}
		s.found.Detail = detail
	case s.attested():
	case known.Problem != "":
		s.pending = true
		s.not(Unavailable, SourceUnavailable, "", "", "it did not attest "+ago(known.Age)+" ago"+because(known.Problem))
	default:
		s.pending = true
		s.not(Unresolved, EvidencePending, "", "", "it did not attest "+ago(known.Age)+" ago, and its source is asked again")
	}
}

// ago is a time span for people.
func ago(d time.Duration) string { return d.Truncate(time.Second).String() }

// because adds why a source fails, if it does.
func because(problem string) string {
	if problem == "" {
		return ""
	}
	return "; since then it failed: " + problem
}

// try judges one envelope under one key, now.
func (s *search) try(q evidence.Question, at *evidence.Attestation, env *attestation.Envelope, key *policy.Key) bool {
	s.j.looked++
	out, ok := s.j.view.Outcome(key.Key, env)
	if !ok {
		s.miss(q, key.ID, "its signature is not verified yet")
		return false
	}
	reason, detail := failed(out)
	switch {
	case reason != "":
	case out.Statement.Identity != q.Identity:
		reason, detail = WrongImage, "it speaks of "+out.Statement.Identity.String()
	default:
		reason, detail = s.timely(at, key, out.Statement)
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
func failed(out attestation.Outcome) (Reason, string) {
	f := out.Failure
	switch {
	case f == nil && out.Statement != nil:
		return "", ""
	case f == nil:
		return SignatureInvalid, "it was not verified"
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
	s.j.missing.add(q)
}

// telling orders the reasons why an authority has not attested: of several, the one that
// helps most to mend it is told.
func telling(r Reason) int {
	switch r {
	case EvidencePending:
		return 8
	case SourceUnavailable:
		return 7
	case EvidenceExpired:
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
