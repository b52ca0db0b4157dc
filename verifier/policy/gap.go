package policy

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/kritis"
)

// maxName bounds the name of an object, as the API server does.
const maxName = 253

// compileGAP reads a GenericAttestationPolicy. What is wrong with it makes it malformed,
// and with it its namespace misconfigured; only of its allowlist a part can be left out.
func (c *compiler) compileGAP(o *origin, obj *crds.Object, authorities map[string]*Authority) *Policy {
	p := &Policy{Kind: obj.Kind, Namespace: obj.Namespace, Name: obj.Name, Enforcement: Enforce}
	spec, _ := obj.Spec.(*kritis.GenericAttestationPolicySpec)
	if spec == nil {
		spec = &kritis.GenericAttestationPolicySpec{}
	}
	bad := *obj // with the problems that are found here
	bad.Problems = slices.Concat(obj.Problems, notBuilt(spec))
	problem := func(field, format string, args ...any) {
		bad.Problems = append(bad.Problems, crds.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	switch e := Enforcement(spec.Enforcement); e {
	case "", Enforce:
	case Warn, Audit:
		// What was not read cleanly is not believed when it says that it decides nothing.
		if len(obj.Problems) == 0 {
			p.Enforcement = e
		}
	default:
		problem("spec.enforcement", "want Enforce, Warn or Audit, not %.80q", e)
	}
	names := c.once(obj, spec.AttestationAuthorityNames)
	switch {
	case len(names) == 0:
		problem("spec.attestationAuthorityNames", "at least one authority is needed")
	case len(names) > MaxAuthorities:
		problem("spec.attestationAuthorityNames", "%d authorities, at most %d are allowed", len(names), MaxAuthorities)
		names = nil
	case slices.ContainsFunc(names, func(name string) bool { return len(name) > maxName }):
		problem("spec.attestationAuthorityNames", "a name of more than %d bytes", maxName)
		names = nil
	}
	var err error
	if p.Require, p.Distinct, err = require(spec.Require, len(names)); err != nil {
		problem("spec.require", "%v", err)
	}
	c.authorities(p, obj, names, authorities)
	if p.Enforcement == Enforce {
		for _, e := range spec.AdmissionAllowlistPatterns {
			if err := o.allowlist(obj.Namespace).add(e.NamePattern, obj.ID(), kritisDialect); err != nil {
				c.report(*obj, true, err.Error())
			}
		}
	}
	if p.Malformed = bad.Malformed(); p.Malformed != "" {
		c.report(*obj, false, p.Malformed)
	}
	return p
}

// notBuilt are the fields that are written and that this version cannot judge: to leave
// one out would make a policy looser than it reads.
func notBuilt(spec *kritis.GenericAttestationPolicySpec) []crds.Problem {
	var problems []crds.Problem
	for _, f := range []struct {
		name    string
		written bool
	}{
		{"spec.maximumAttestationAge", spec.MaximumAttestationAge != ""},
		{"spec.notBefore", spec.NotBefore != ""},
		{"spec.emergencyAuthorityNames", len(spec.EmergencyAuthorityNames) > 0},
	} {
		if f.written {
			problems = append(problems, crds.Problem{Field: f.name, Message: "this version of horkos cannot judge it"})
		}
	}
	return problems
}

// authorities gives a policy those of its namespace and origin that it names.
func (c *compiler) authorities(p *Policy, obj *crds.Object, names []string, all map[string]*Authority) {
	keys := make(map[string]bool)
	for _, name := range names {
		a, ok := all[obj.Namespace+"/"+name]
		if !ok {
			a = &Authority{Name: name, Missing: true}
			c.report(*obj, false, fmt.Sprintf("AttestationAuthority %s/%s does not exist", obj.Namespace, name))
		}
		c.index(a)
		p.Authorities = append(p.Authorities, a)
		for _, key := range a.distinct {
			keys[key] = true
		}
	}
	if p.Distinct && len(keys) < p.Require {
		c.report(*obj, false, fmt.Sprintf("spec.require: %d different keys are wanted, its authorities have %d: it denies everything", p.Require, len(keys)))
	}
}

// once drops the names that were listed before: one authority counts once.
func (c *compiler) once(obj *crds.Object, names []string) []string {
	var all []string
	for _, name := range names {
		if slices.Contains(all, name) {
			c.report(*obj, true, fmt.Sprintf("spec.attestationAuthorityNames: %.80q is listed again", name))
			continue
		}
		if all = append(all, name); len(all) > MaxAuthorities {
			return names // too many: malformed
		}
	}
	return all
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
		return 1, false, nil
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
