package policy

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/kritis"
)

// compileGAP reads a GenericAttestationPolicy. What is wrong with it makes it malformed,
// and with it its namespace misconfigured; only of its allowlist a part can be left out.
func (c *compiler) compileGAP(o *origin, obj *crds.Object, authorities map[string]*Authority) *Policy {
	p := &Policy{Kind: obj.Kind, Namespace: obj.Namespace, Name: obj.Name, Enforcement: Enforce}
	spec, _ := obj.Spec.(*kritis.GenericAttestationPolicySpec)
	if spec == nil {
		spec = &kritis.GenericAttestationPolicySpec{}
	}
	problems := obj.Problems
	bad := func(field, format string, args ...any) {
		problems = append(problems[:len(problems):len(problems)], crds.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	switch e := Enforcement(spec.Enforcement); e {
	case "", Enforce:
	case Warn, Audit:
		p.Enforcement = e
	default:
		bad("spec.enforcement", "want Enforce, Warn or Audit, not %q", e)
	}
	if len(obj.Problems) > 0 {
		// What was not read cleanly is not believed when it says that it decides nothing.
		p.Enforcement = Enforce
	}
	names := c.once(obj, spec.AttestationAuthorityNames)
	switch {
	case len(names) == 0:
		bad("spec.attestationAuthorityNames", "at least one authority is needed")
	case len(names) > MaxAuthorities:
		bad("spec.attestationAuthorityNames", "%d authorities, at most %d are allowed", len(names), MaxAuthorities)
		names = nil
	}
	var err error
	if p.Require, p.Distinct, err = require(spec.Require, len(names)); err != nil {
		bad("spec.require", "%v", err)
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"spec.maximumAttestationAge", spec.MaximumAttestationAge != ""},
		{"spec.notBefore", spec.NotBefore != ""},
		{"spec.emergencyAuthorityNames", len(spec.EmergencyAuthorityNames) > 0},
	} {
		if f.set {
			bad(f.name, "this version of horkos cannot judge it")
		}
	}
	for _, name := range names {
		a, ok := authorities[obj.Namespace+"/"+name]
		if !ok {
			a = &Authority{Name: name, Missing: true}
			c.report(*obj, false, "AttestationAuthority "+obj.Namespace+"/"+name+" does not exist")
		}
		c.index(a)
		p.Authorities = append(p.Authorities, a)
	}
	if p.Enforcement == Enforce {
		for _, e := range spec.AdmissionAllowlistPatterns {
			if err := o.allowlist(obj.Namespace).add(e.NamePattern, obj.ID(), kritisDialect); err != nil {
				c.report(*obj, true, err.Error())
			}
		}
	}
	if n := distinctKeys(p.Authorities); p.Distinct && n < p.Require && len(problems) == 0 {
		c.report(*obj, false, fmt.Sprintf("spec.require: %d different keys are wanted, its authorities have %d: it denies everything", p.Require, n))
	}
	if len(problems) > 0 {
		p.Malformed = crds.Object{Kind: obj.Kind, Namespace: obj.Namespace, Name: obj.Name, Source: obj.Source, Problems: problems}.Malformed()
		c.report(*obj, false, p.Malformed)
	}
	return p
}

// once drops the names that were listed before: one authority counts once.
func (c *compiler) once(obj *crds.Object, names []string) []string {
	var all []string
	for _, name := range names {
		if slices.Contains(all, name) {
			c.report(*obj, true, fmt.Sprintf("spec.attestationAuthorityNames: %q is listed again", name))
			continue
		}
		if all = append(all, name); len(all) > MaxAuthorities {
			return names // too many: malformed
		}
	}
	return all
}

func distinctKeys(authorities []*Authority) int {
	keys := make(map[string]bool)
	for _, a := range authorities {
		for _, key := range a.distinct {
			keys[key] = true
		}
	}
	return len(keys)
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
		return n, false, fmt.Errorf("want All, Any or a number, not %q", string(*v))
	case count < 1:
		return n, false, fmt.Errorf("%d is less than 1", count)
	case count > n:
		return n, false, fmt.Errorf("%d is more than the %d authorities of the policy", count, n)
	}
	return count, true, nil
}
