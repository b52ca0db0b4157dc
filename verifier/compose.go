package verifier

import (
	"slices"

	"github.com/horkos/horkos/verifier/policy"
)

// verdict is what a candidate, a layer or a policy gave. Its checks are in the judgement.
type verdict struct {
	result  Result
	reason  Reason
	decided bool // an enforcing policy took part
}

// rank orders verdicts, the worst first. Of what is allowed an emergency is the worse: it is
// told, unless it was not needed.
func (v verdict) rank() int {
	if v.reason == Emergency {
		return 2*int(v.result) - 1
	}
	return 2 * int(v.result)
}

// bestCandidate judges the layers under each candidate and gives the best, with its checks:
// one candidate must satisfy all layers.
func (j *judgement) bestCandidate(layers []judgedLayer) verdict {
	if len(j.img.Candidates) == 0 {
		return j.allLayers(layers, Candidate{})
	}
	var best verdict
	var checks []Check
	first, asked := len(j.checks), len(j.missing.questions)
	for i, c := range j.img.Candidates[:min(len(j.img.Candidates), MaxCandidates)] {
		if j.exhausted() {
			break
		}
		j.checks = j.checks[:first]
		before := len(j.missing.questions)
		v := j.allLayers(layers, c)
		if (v.result == Allowed && v.reason != Emergency) || len(j.img.Candidates) == 1 {
			j.missing.cut(asked, before) // what is missing of other candidates no longer matters
			return v
		}
		if i == 0 || v.rank() > best.rank() {
			best, checks = v, slices.Clone(j.checks[first:])
		}
	}
	j.checks = append(j.checks[:first], checks...)
	return best
}

// allLayers gives the worst of the layers, and marks the checks of those that do not allow.
func (j *judgement) allLayers(layers []judgedLayer, c Candidate) verdict {
	all := verdict{result: Allowed, reason: Attested}
	for i := range layers {
		first := len(j.checks)
		v := j.layer(&layers[i], c)
		if !v.decided {
			continue
		}
		if !all.decided || v.rank() < all.rank() {
			all = v
		}
		if v.result == Allowed {
			continue
		}
		for k := range j.checks[first:] {
			check := &j.checks[first+k]
			check.failed = check.Decides
		}
	}
	return all
}

// layer combines the policies of a layer, by the best or the worst; those that do not
// enforce are only reported.
func (j *judgement) layer(l *judgedLayer, c Candidate) verdict {
	if l.Fault != "" {
		j.checks = append(j.checks, Check{Result: Misconfigured, Reason: ObjectMalformed, Layer: l.Name, Detail: l.Fault, Decides: true})
		return verdict{Misconfigured, ObjectMalformed, true}
	}
	if l.Unknown != nil {
		reason := PoliciesNotSynced
		if l.Unknown.Expired {
			reason = PoliciesExpired
		}
		j.checks = append(j.checks, Check{Result: Unresolved, Reason: reason, Layer: l.Name, Detail: clip(l.Unknown.Message, 500), Decides: true})
		return verdict{Unresolved, reason, true}
	}
	broken := l.Best && malformed(l.policies)
	all := verdict{result: Allowed, reason: Attested}
	for _, p := range l.policies {
		v := j.policy(l.Layer, p, c)
		if p.Enforcement != policy.Enforce {
			continue
		}
		if broken && p.Malformed == "" {
			continue // the malformed one decides for the namespace
		}
		better := v.rank() - all.rank()
		if !all.decided || (l.Best && better > 0) || (!l.Best && better < 0) {
			all = v
			all.decided = true
		}
	}
	return all
}

// malformed tells whether a policy of the layer cannot be understood: then the namespace
// is misconfigured and no allowlist helps.
func malformed(policies []*policy.Policy) bool {
	return slices.ContainsFunc(policies, func(p *policy.Policy) bool { return p.Malformed != "" })
}
