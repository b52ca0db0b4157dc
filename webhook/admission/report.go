package admission

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/policy"
)

// report is that a policy which only reports would refuse an image.
type report struct {
	policy string
	image  string
	result verifier.Result
	reason verifier.Reason
	why    []string
}

func (r *report) warning() string {
	return warning(clip(r.policy, 52)+" (Warn) would deny ", r.image, ": "+string(r.reason))
}

func texts(all []report) []string {
	var list []string
	for _, r := range all {
		text := r.policy + " (Audit) would deny " + r.image + ": " + r.result.String() + ", " + string(r.reason)
		if len(r.why) > 0 {
			text += ": " + strings.Join(r.why, ", ")
		}
		list = append(list, clip(printable(text), maxAnnotation))
	}
	return list
}

// reports gives what policies that only report would refuse of images that are allowed, in
// the order of the images and of the policies. Of an image that is not allowed, its own
// message tells.
func reports(dec *verifier.Decision) (warn, audit []report) {
	for i := range dec.Images {
		img := &dec.Images[i]
		if img.Result != verifier.Allowed {
			continue
		}
		for _, p := range evaluated(img.Checks) {
			r, ok := p.refuses()
			if !ok {
				continue
			}
			if r.image = img.Image.Written; p.enforcement == policy.Warn {
				warn = append(warn, r)
			} else {
				audit = append(audit, r)
			}
		}
	}
	return warn, audit
}

// asked is a policy that was only evaluated, and its checks.
type asked struct {
	enforcement policy.Enforcement
	layer, id   string
	checks      []*verifier.Check
}

// evaluated gathers the checks of each policy that only reports.
func evaluated(checks []verifier.Check) (all []*asked) {
	for i := range checks {
		c := &checks[i]
		if c.Enforcement != policy.Warn && c.Enforcement != policy.Audit {
			continue
		}
		n := slices.IndexFunc(all, func(p *asked) bool { return p.layer == c.Layer && p.id == c.Policy })
		if n < 0 {
			n = len(all)
			all = append(all, &asked{enforcement: c.Enforcement, layer: c.Layer, id: c.Policy})
		}
		all[n].checks = append(all[n].checks, c)
	}
	return all
}

// refuses tells whether the policy, if it enforced, would not be satisfied: of its
// authorities, the n-th best counts.
func (p *asked) refuses() (report, bool) {
	var named []*verifier.Check
	r := report{policy: p.id, result: verifier.Allowed}
	for _, c := range p.checks {
		switch {
		case c.Requirement == verifier.RequirementEmergency && c.Result == verifier.Allowed:
			return r, false
		case c.Requirement == verifier.RequirementEmergency:
		case c.Authority != "":
			named = append(named, c)
		case c.Result < r.result: // what it requires besides attestations
			r.result, r.reason = c.Result, c.Reason
		}
	}
	slices.SortStableFunc(named, func(a, b *verifier.Check) int { return cmp.Compare(b.Result, a.Result) })
	if n := needs(named); n > len(named) {
		r.result, r.reason = verifier.Denied, verifier.NotAttested
	} else if n > 0 && named[n-1].Result < r.result {
		r.result, r.reason = named[n-1].Result, named[n-1].Reason
	}
	for _, c := range p.checks {
		if c.Result != verifier.Allowed && c.Authority != "" {
			r.why = append(r.why, "by authority "+c.Authority+" ("+cmp.Or(c.Detail, string(c.Reason))+")")
		}
	}
	return r, r.result != verifier.Allowed
}

// needs is how many of a policy's authorities have to attest: "all of 2", "any of 2", "2 of 3".
func needs(authorities []*verifier.Check) int {
	if len(authorities) == 0 {
		return 0
	}
	first, _, _ := strings.Cut(authorities[0].Requirement, " ")
	switch n, err := strconv.Atoi(first); {
	case first == "any":
		return 1
	case err == nil:
		return n
	}
	return len(authorities)
}
