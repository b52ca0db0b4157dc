package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sort"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/kritis"
)

// defaulted is an object with the defaults of its spec written out, so that leaving one
// out and writing it are the same.
func defaulted(obj crds.Object) crds.Object {
	if len(obj.Problems) > 0 {
		return obj
	}
	switch spec := obj.Spec.(type) {
	case *kritis.GenericAttestationPolicySpec:
		s := *spec
		s.Enforcement, s.Require = cmp.Or(s.Enforcement, string(Enforce)), cmp.Or(s.Require, all())
		obj.Spec = &s
	case *kritis.ImageSecurityPolicySpec:
		s := *spec
		s.Enforcement, s.Require = cmp.Or(s.Enforcement, string(Enforce)), cmp.Or(s.Require, all())
		s.PackageVulnerabilityRequirements = defaultSeverities(s.PackageVulnerabilityRequirements)
		obj.Spec = &s
	case *horkos.ClusterAttestationPolicySpec:
		s := *spec
		s.Enforcement, s.Require = cmp.Or(s.Enforcement, string(Enforce)), cmp.Or(s.Require, all())
		if n := s.NamespaceSelector; n != nil && len(n.MatchLabels) == 0 && len(n.MatchExpressions) == 0 {
			s.NamespaceSelector = nil
		}
		s.Authorities, s.EmergencyAuthorities = defaultAuthorities(s.Authorities), defaultAuthorities(s.EmergencyAuthorities)
		obj.Spec = &s
	case *kritis.AttestationAuthoritySpec:
		s := *spec
		s.AcceptExpiredKeys = cmp.Or(s.AcceptExpiredKeys, new(true))
		obj.Spec = &s
	}
	return obj
}

func all() *kritis.IntOrString { return new(kritis.IntOrString("All")) }

// defaultSeverities are those of Kritis. What can be written by two names is by one.
func defaultSeverities(r *kritis.PackageVulnerabilityRequirements) *kritis.PackageVulnerabilityRequirements {
	var d kritis.PackageVulnerabilityRequirements
	if r != nil {
		d = *r
	}
	d.MaximumSeverity = cmp.Or(d.MaximumSeverity, "CRITICAL")
	d.MaximumFixUnavailableSeverity = cmp.Or(d.MaximumFixUnavailableSeverity, d.MaximumFixNotAvailableSeverity, "ALLOW_ALL")
	d.MaximumFixNotAvailableSeverity = ""
	return &d
}

// defaultAuthorities leaves those by reference alone: their object says.
func defaultAuthorities(list []horkos.Authority) []horkos.Authority {
	list = slices.Clone(list)
	for i := range list {
		if list[i].Ref == nil {
			list[i].AcceptExpiredKeys = cmp.Or(list[i].AcceptExpiredKeys, new(true))
		}
	}
	return list
}

// revision is a digest of everything that decides, after decoding, in an order of its own.
func revision(sets []crds.Set) string {
	var lines []string
	for _, set := range sets {
		for _, obj := range set.Objects {
			switch obj.Kind {
			case horkos.KindImageAttestation, horkos.KindNodeGate:
				continue // evidence and status are not policy
			}
			lines = append(lines, string(set.Origin)+"/"+string(defaulted(obj).Canonical()))
		}
	}
	sort.Strings(lines)
	h := sha256.New()
	for _, l := range lines {
		h.Write([]byte(l))
		h.Write([]byte{'\n'})
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}
