package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
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

// asked are the label keys that selectors of the objects ask for. Other labels of
// namespaces, which come and go, decide nothing.
func asked(sets []crds.Set) map[string]bool {
	keys := make(map[string]bool)
	for _, set := range sets {
		for _, obj := range set.Objects {
			spec, ok := obj.Spec.(*horkos.ClusterAttestationPolicySpec)
			if !ok || spec.NamespaceSelector == nil {
				continue
			}
			for key := range spec.NamespaceSelector.MatchLabels {
				keys[key] = true
			}
			for _, c := range spec.NamespaceSelector.MatchExpressions {
				keys[c.Key] = true
			}
		}
	}
	delete(keys, nameLabel)
	return keys
}

// namespaceLine is what of a namespace decides; empty when nothing does.
func namespaceLine(obj crds.Object, asked map[string]bool) string {
	if len(asked) == 0 {
		return ""
	}
	labels := labelsOf([]crds.Object{obj})[obj.Name]
	line := obj.Kind + "/" + obj.Name
	for _, key := range slices.Sorted(maps.Keys(asked)) {
		if value, ok := labels[key]; ok {
			line += fmt.Sprintf(" %q=%q", key, value)
		}
	}
	return line
}

// revision is a digest of everything that decides, after decoding, in an order of its own.
func revision(sets []crds.Set) string {
	var lines []string
	keys := asked(sets)
	for _, set := range sets {
		for _, obj := range set.Objects {
			switch obj.Kind {
			case horkos.KindImageAttestation, horkos.KindNodeGate:
				continue // evidence and status are not policy
			case crds.KindNamespace:
				if line := namespaceLine(obj, keys); line != "" {
					lines = append(lines, string(set.Origin)+"/"+line)
				}
				continue
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
