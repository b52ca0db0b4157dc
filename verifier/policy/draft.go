package policy

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/kritis"
)

// draft is a policy that is being read, with what is wrong with it.
type draft struct {
	c      *compiler
	obj    *crds.Object
	bad    crds.Object // obj, with the problems that are found here
	policy *Policy
}

func (c *compiler) draft(obj *crds.Object) *draft {
	return &draft{c: c, obj: obj, bad: *obj, policy: &Policy{Kind: obj.Kind, Namespace: obj.Namespace, Name: obj.Name, Enforcement: Enforce}}
}

func (d *draft) problem(field, format string, args ...any) {
	d.bad.Problems = append(slices.Clip(d.bad.Problems), crds.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
}

// done gives the policy, malformed if anything was wrong, and has the signatures of its
// authorities verified. What was not read cleanly is not believed when it says that it
// decides nothing.
func (d *draft) done() *Policy {
	p := d.policy
	for _, a := range slices.Concat(p.Authorities, p.Emergency) {
		d.c.index(a, d.obj.Namespace)
	}
	if p.Malformed = d.bad.Malformed(); p.Malformed != "" {
		p.Enforcement = Enforce
		d.c.reportMalformed(d.bad, false)
	}
	p.id = d.obj.ID()
	p.describe()
	d.reportEmergency()
	return p
}

// reportEmergency tells of emergency authorities with a key of the others: whoever attests
// from day to day, for at most a day at a time, satisfies the policy alone.
func (d *draft) reportEmergency() {
	owners := make(map[string]string)
	for _, a := range d.policy.Authorities {
		for _, key := range a.distinct {
			owners[key] = a.Name
		}
	}
	field := "spec.emergencyAuthorityNames"
	if d.obj.Kind == horkos.KindClusterAttestationPolicy {
		field = "spec.emergencyAuthorities"
	}
	for _, a := range d.policy.Emergency {
		for _, key := range a.distinct {
			if other, shared := owners[key]; shared {
				d.c.warn(*d.obj, false, field, fmt.Sprintf("%.80s has a key in common with authority %.80s: what that one attests for at most a day satisfies the policy by itself", a.Name, other))
				break
			}
		}
	}
}

// terms are what all kinds of policy have in common.
type terms struct {
	enforcement string
	require     *kritis.IntOrString
	maximumAge  string
	notBefore   string
}

func (d *draft) terms(t terms, authorities []*Authority) {
	p := d.policy
	p.Authorities = authorities
	switch e := Enforcement(t.enforcement); e {
	case "", Enforce:
	case Warn, Audit:
		p.Enforcement = e
	default:
		d.problem("spec.enforcement", "want Enforce, Warn or Audit, not %.80q", e)
	}
	var err error
	if p.Require, p.Distinct, err = require(t.require, len(authorities)); err != nil {
		d.problem("spec.require", "%v", err)
	}
	if t.maximumAge != "" {
		if p.MaximumAge, err = time.ParseDuration(t.maximumAge); err != nil || p.MaximumAge <= 0 {
			d.problem("spec.maximumAttestationAge", "%.40q is not a duration such as 720h", t.maximumAge)
		}
	}
	if t.notBefore != "" {
		if p.NotBefore, err = instant(t.notBefore); err != nil {
			d.problem("spec.notBefore", "%v", err)
		}
	}
	keys := make(map[string]bool)
	for _, a := range authorities {
		for _, key := range a.distinct {
			keys[key] = true
		}
	}
	if p.Distinct && len(keys) < p.Require {
		d.c.warn(*d.obj, false, "spec.require", fmt.Sprintf("%d different keys are wanted, its authorities have %d: it denies everything", p.Require, len(keys)))
	}
}

// instant reads a time of RFC 3339. The zero time would read as none.
func instant(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.IsZero() {
		return time.Time{}, fmt.Errorf("%.40q is not a time of RFC 3339", text)
	}
	return t, nil
}

// require reads All, Any or a number of at most n authorities.
func require(v *kritis.IntOrString, n int) (count int, distinct bool, err error) {
	if v == nil {
		return n, false, nil
	}
	switch *v {
	case "All":
		return n, false, nil
	case "Any":
		return min(1, n), false, nil
	}
	count, err = strconv.Atoi(string(*v))
	switch {
	case err != nil:
		return n, false, fmt.Errorf("want All, Any or a number, not %.80q", string(*v))
	case count < 1:
		return n, false, fmt.Errorf("%d is less than 1", count)
	case count > n:
		return n, false, fmt.Errorf("%d is more than the %d authorities of the policy", count, n)
	}
	return count, true, nil
}
