package verifier

import (
	"slices"

	"github.com/horkos/horkos/verifier/policy"
)

// policy gives the result of one policy: the Require-th best of its authorities.
func (j *judgement) policy(l *policy.Layer, p *policy.Policy, c Candidate) verdict {
	base := Check{Layer: l.Name, Policy: p.ID(), Requirement: p.Requirement(), Enforcement: p.Enforcement, Decides: p.Enforcement == policy.Enforce}
	if p.Malformed != "" {
		base.Result, base.Reason, base.Detail = Misconfigured, ObjectMalformed, p.Malformed
		j.checks = append(j.checks, base)
		return verdict{result: base.Result, reason: base.Reason}
	}
	v := j.authorities(p, c, &base)
	if p.Wants != "" {
		base.Result, base.Reason, base.Detail = Misconfigured, NoSource, "it requires "+p.Wants+", and no source of them is configured"
		j.checks = append(j.checks, base)
		v = worse(v, verdict{result: base.Result, reason: base.Reason})
	}
	if v.result != Allowed {
		v = j.emergency(v, p, c, base)
	}
	return v
}

func worse(a, b verdict) verdict {
	if b.rank() < a.rank() {
		return b
	}
	return a
}

// authorities gives the Require-th best of a policy's authorities. One that has none asks
// for something else.
func (j *judgement) authorities(p *policy.Policy, c Candidate, base *Check) verdict {
	if len(p.Authorities) == 0 {
		return verdict{result: Allowed, reason: Attested}
	}
	first := len(j.checks)
	var searches []search
	for _, a := range p.Authorities {
		s := j.authority(p, a, c, false)
		j.checks = append(j.checks, s.check(base))
		if p.Distinct {
			searches = append(searches, s)
		}
	}
	checks := j.checks[first:]
	if p.Distinct {
		j.looked += countOnce(checks, searches)
	}
	return nthBest(checks, p.Require)
}

// emergency lets one attestation by an emergency authority satisfy a policy that is not met.
func (j *judgement) emergency(v verdict, p *policy.Policy, c Candidate, base Check) verdict {
	base.Requirement = RequirementEmergency
	for _, a := range p.Emergency {
		s := j.authority(p, a, c, true)
		check := s.check(&base)
		if check.Result == Allowed {
			check.Reason = Emergency
		} else if check.Detail == "" {
			check.Decides = false // that nobody declared an emergency is no news
		}
		j.checks = append(j.checks, check)
		if check.Result > v.result {
			v = verdict{result: check.Result, reason: check.Reason}
		}
		if v.result == Allowed {
			break
		}
	}
	return v
}

// nthBest is the n-th best result of the checks.
func nthBest(checks []Check, n int) verdict {
	for result := Allowed; result >= Denied; result-- {
		for i := range checks {
			if checks[i].Result != result {
				continue
			}
			if n--; n == 0 {
				return verdict{result: result, reason: checks[i].Reason}
			}
		}
	}
	return verdict{result: Misconfigured, reason: ObjectMalformed} // no such policy is compiled
}

// countOnce takes back what authorities attested with keys that count for others already:
// as many as possible are given a key of their own, by a maximum bipartite matching,
// small by the limits of a policy. It tells how many keys it looked at.
func countOnce(checks []Check, searches []search) (looked int) {
	owner := make(map[string]int)
	var assign func(a int, seen map[string]bool) bool
	assign = func(a int, seen map[string]bool) bool {
		for _, k := range searches[a].keys {
			looked++
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
	pending := slices.ContainsFunc(searches, func(s search) bool { return s.attested() && s.pending })
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
	return looked
}
