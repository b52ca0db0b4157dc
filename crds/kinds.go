package crds

import (
	"fmt"
	"strings"

	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/kritis"
)

// Group and version of the objects of Notation's operator, and its kinds.
const (
	NotationGroupVersion = "notation.nirmata.io/v1alpha1"
	KindTrustPolicy      = "TrustPolicy"
	KindTrustStore       = "TrustStore"
)

// KindNamespace is the one kind outside our groups that is kept, of apiVersion v1: its labels say what
// selectors match.
const KindNamespace = "Namespace"

// kind is what the decoder knows of a kind.
type kind struct {
	namespaced bool
	spec       any                         // a new pointer to the type of its spec; nil when it is not built
	check      func(o *Object) []Problem   // what a type cannot say; may be nil
	explain    func(spec []byte) []Problem // names fields that could not be decoded; may be nil
}

// knownKind finds a kind; ok is false for those that are not known.
func knownKind(apiVersion, name string) (k kind, ok bool) {
	switch apiVersion + " " + name {
	case kritis.GroupVersion + " " + kritis.KindAttestationAuthority:
		return kind{namespaced: true, spec: new(kritis.AttestationAuthoritySpec)}, true
	case kritis.GroupVersion + " " + kritis.KindGenericAttestationPolicy:
		return kind{namespaced: true, spec: new(kritis.GenericAttestationPolicySpec), check: checkGenericAttestationPolicy}, true
	case kritis.GroupVersion + " " + kritis.KindAdmissionAllowlist:
		return kind{spec: new(kritis.AdmissionAllowlistSpec)}, true
	case horkos.GroupVersion + " " + horkos.KindImageAttestation:
		return kind{spec: new(horkos.ImageAttestationSpec), check: checkImageAttestation, explain: badBase64}, true
	case horkos.GroupVersion + " " + horkos.KindImageRevocation:
		return kind{spec: new(horkos.ImageRevocationSpec), check: checkImageRevocation}, true

	case kritis.GroupVersion + " " + kritis.KindImageSecurityPolicy:
		return kind{namespaced: true, spec: new(kritis.ImageSecurityPolicySpec)}, true
	case horkos.GroupVersion + " " + horkos.KindClusterAttestationPolicy:
		return kind{spec: new(horkos.ClusterAttestationPolicySpec), check: checkClusterAttestationPolicy}, true
	case kritis.GroupVersion + " " + kritis.KindVulnzSigningPolicy:
		return kind{namespaced: true, spec: new(kritis.VulnzSigningPolicySpec)}, true
	case kritis.GroupVersion + " " + kritis.KindBuildPolicy:
		return kind{namespaced: true, spec: new(kritis.BuildPolicySpec)}, true
	case kritis.GroupVersion + " " + kritis.KindKritisConfig:
		return kind{spec: new(kritis.KritisConfigSpec)}, true

	case horkos.GroupVersion + " " + horkos.KindNodeGate,
		NotationGroupVersion + " " + KindTrustPolicy,
		NotationGroupVersion + " " + KindTrustStore,
		"v1 " + KindNamespace:
		return kind{}, true
	}
	return kind{}, false
}

// ours tells whether an apiVersion is of a group that Horkos decides by. It is generous:
// a group in other letters, or without its version, is a mistake to be told, and no
// reason to leave an object out.
func ours(apiVersion string) bool {
	group, _, _ := strings.Cut(apiVersion, "/")
	for _, gv := range []string{kritis.GroupVersion, horkos.GroupVersion, NotationGroupVersion} {
		if our, _, _ := strings.Cut(gv, "/"); strings.EqualFold(strings.TrimSpace(group), our) {
			return true
		}
	}
	return false
}

// looksLike gives the group and version that was probably meant by one that is not ours.
func looksLike(apiVersion, name string) (like string, ok bool) {
	for _, gv := range []string{kritis.GroupVersion, horkos.GroupVersion} {
		if _, known := knownKind(gv, name); known {
			return gv, true
		}
	}
	group, _, _ := strings.Cut(strings.ToLower(apiVersion), "/")
	switch {
	case strings.Contains(group, "kritis"), strings.Contains(group, "grafeas"):
		return kritis.GroupVersion, true
	case strings.Contains(group, "horkos"):
		return horkos.GroupVersion, true
	}
	return "", false
}

func checkGenericAttestationPolicy(o *Object) []Problem {
	return checkPatterns("spec.admissionAllowlistPatterns", o.Spec.(*kritis.GenericAttestationPolicySpec).AdmissionAllowlistPatterns)
}

func checkClusterAttestationPolicy(o *Object) []Problem {
	return checkPatterns("spec.allowlist", o.Spec.(*horkos.ClusterAttestationPolicySpec).Allowlist)
}

// checkPatterns looks at a policy's own patterns, which share their type with the entries of
// an AdmissionAllowlist: only those have a namespace.
func checkPatterns(field string, patterns []kritis.NamePattern) []Problem {
	var problems []Problem
	for i, p := range patterns {
		if p.Namespace != "" {
			problems = append(problems, Problem{fmt.Sprintf("%s[%d].namespace", field, i), "unknown field"})
		}
	}
	return problems
}

func checkImageRevocation(o *Object) []Problem {
	spec := o.Spec.(*horkos.ImageRevocationSpec)
	if n := len(spec.Digests); n < 1 || n > MaxRevokedDigests {
		return []Problem{{"spec.digests", fmt.Sprintf("%d digests, want 1 to %d", n, MaxRevokedDigests)}}
	}
	return nil
}
