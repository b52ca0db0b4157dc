package policy

import (
	"fmt"
	"slices"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/kritis"
	"github.com/horkos/horkos/verifier/image"
)

// maxName bounds the name of an object, as the API server does.
const maxName = 253

// compileGAP reads a GenericAttestationPolicy. What is wrong with it makes it malformed,
// and with it its namespace misconfigured; only of its allowlist a part can be left out.
func (c *compiler) compileGAP(o *origin, obj *crds.Object) *Policy {
	spec, _ := obj.Spec.(*kritis.GenericAttestationPolicySpec)
	if spec == nil {
		spec = &kritis.GenericAttestationPolicySpec{}
	}
	d := c.draft(obj)
	d.terms(terms{spec.Enforcement, spec.Require, spec.MaximumAttestationAge, spec.NotBefore}, d.named(o, "spec.attestationAuthorityNames", spec.AttestationAuthorityNames, 1))
	d.policy.Emergency = d.named(o, "spec.emergencyAuthorityNames", spec.EmergencyAuthorityNames, 0)
	if d.policy.Enforcement == Enforce {
		for i, e := range spec.AdmissionAllowlistPatterns {
			if err := o.exempts.of(obj.Namespace).add(e.NamePattern, obj.ID(), kritisDialect); err != nil {
				c.report(*obj, true, fmt.Sprintf("spec.admissionAllowlistPatterns[%d]", i), err.Error())
			}
		}
	}
	return d.done()
}

// compileISP reads an ImageSecurityPolicy. Its scans have no source in this version, so
// that what it governs is misconfigured, and says that; everything else of it is judged.
func (c *compiler) compileISP(o *origin, obj *crds.Object) *Policy {
	spec, _ := obj.Spec.(*kritis.ImageSecurityPolicySpec)
	if spec == nil {
		spec = &kritis.ImageSecurityPolicySpec{}
	}
	d := c.draft(obj)
	names := spec.AttestationAuthorityNames
	if spec.AttestationAuthorityName != "" {
		names = append([]string{spec.AttestationAuthorityName}, names...)
	}
	d.terms(terms{spec.Enforcement, spec.Require, spec.MaximumAttestationAge, spec.NotBefore}, d.named(o, "spec.attestationAuthorityNames", names, 0))
	d.policy.Emergency = d.named(o, "spec.emergencyAuthorityNames", spec.EmergencyAuthorityNames, 0)
	d.policy.Wants = "vulnerability scans"
	d.severities(spec.PackageVulnerabilityRequirements)
	d.policy.exempts = &allowlist{}
	for i, name := range spec.ImageAllowlist {
		at := fmt.Sprintf("spec.imageAllowlist[%d]", i)
		if ref, err := image.Parse(name); err != nil {
			c.report(*obj, true, at, err.Error())
		} else if err := d.policy.exempts.add(ref.String(), obj.ID(), kritisDialect); err != nil {
			c.report(*obj, true, at, err.Error())
		}
	}
	return d.done()
}

func (d *draft) severities(r *kritis.PackageVulnerabilityRequirements) {
	if r == nil {
		return
	}
	for _, s := range []struct{ field, value string }{
		{"maximumSeverity", r.MaximumSeverity},
		{"maximumFixUnavailableSeverity", r.MaximumFixUnavailableSeverity},
		{"maximumFixNotAvailableSeverity", r.MaximumFixNotAvailableSeverity},
	} {
		switch s.value {
		case "", "BLOCK_ALL", "ALLOW_ALL", "MINIMAL", "LOW", "MEDIUM", "HIGH", "CRITICAL":
		default:
			d.problem("spec.packageVulnerabilityRequirements."+s.field, "%.40q is not a severity", s.value)
		}
	}
	if r.MaximumFixUnavailableSeverity != "" && r.MaximumFixNotAvailableSeverity != "" {
		d.problem("spec.packageVulnerabilityRequirements.maximumFixNotAvailableSeverity", "it is the older name of maximumFixUnavailableSeverity: write one of them")
	}
}

// named finds the authorities that a policy names, in its own namespace and origin.
func (d *draft) named(o *origin, field string, names []string, least int) []*Authority {
	var all []*Authority
	switch {
	case len(names) < least:
		d.problem(field, "at least one authority is needed")
	case len(names) > MaxAuthorities:
		d.problem(field, "%d authorities, at most %d are allowed", len(names), MaxAuthorities)
		return nil
	}
	for i, name := range names {
		switch {
		case len(name) > maxName:
			d.problem(fmt.Sprintf("%s[%d]", field, i), "a name of more than %d bytes", maxName)
		case slices.Contains(names[:i], name):
			d.c.warn(*d.obj, true, fmt.Sprintf("%s[%d]", field, i), fmt.Sprintf("%.80q is listed again", name))
		default:
			all = append(all, d.authority(o, fmt.Sprintf("%s[%d]", field, i), d.obj.Namespace, name, name))
		}
	}
	return all
}

// authority finds an AttestationAuthority, under the name that the policy gives it; a missing
// one is what the policy gets instead.
func (d *draft) authority(o *origin, field, namespace, name, as string) *Authority {
	a, ok := o.authorities[namespace+"/"+name]
	if !ok {
		d.c.report(*d.obj, false, field, fmt.Sprintf("AttestationAuthority %s/%s does not exist", namespace, name))
		return &Authority{Name: as, Missing: "AttestationAuthority " + namespace + "/" + name}
	}
	if as != a.Name {
		b := *a
		b.Name = as
		a = &b
	}
	return a
}
