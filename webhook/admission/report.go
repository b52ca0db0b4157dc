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
	requires    string // such as "all of 2"
	layer, id   string
	checks      []*verifier.Check
}

// evaluated gathers the checks of each policy that only reports: a Requirement says so.
func evaluated(checks []verifier.Check) (all []*asked) {
	for i := range checks {
		c := &checks[i]
		if c.Policy == "" {
			continue
		}
		var p *asked
		if n := slices.IndexFunc(all, func(p *asked) bool { return p.layer == c.Layer && p.id == c.Policy }); n >= 0 {
			p = all[n]
		} else if requires, enforcement, ok := onlyReported(c.Requirement); ok {
			p = &asked{enforcement: enforcement, requires: requires, layer: c.Layer, id: c.Policy}
			all = append(all, p)
		} else {
			continue // of a policy that decides
		}
		p.checks = append(p.checks, c)
	}
	return all
}

// onlyReported reads a Requirement of a policy that only reports.
func onlyReported(requirement string) (requires string, e policy.Enforcement, ok bool) {
	for _, e := range []policy.Enforcement{policy.Warn, policy.Audit} {
		if requires, ok := strings.CutSuffix(requirement, ", only reported ("+string(e)+")"); ok {
			return requires, e, true
		}
	}
	return "", "", false
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
	if n := p.needs(len(named)); n > len(named) {
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

// needs is how many of the authorities that were looked at have to attest.
func (p *asked) needs(authorities int) int {
	first, _, _ := strings.Cut(p.requires, " ")
	switch n, err := strconv.Atoi(first); {
	case authorities == 0:
		return 0
	case first == "any":
		return 1
	case err == nil:
		return n
	}
	return authorities
}
