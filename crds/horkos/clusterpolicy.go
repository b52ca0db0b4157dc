package horkos

import "github.com/horkos/horkos/crds/kritis"

// ClusterAttestationPolicySpec says which authorities must have attested images in all
// namespaces that it selects (cluster-scoped).
type ClusterAttestationPolicySpec struct {
	// NamespaceSelector selects namespaces by their labels; absent or empty: every namespace.
	NamespaceSelector *LabelSelector `json:"namespaceSelector,omitempty"`
	// Images limits the policy to names; an image without a bound name is in every scope.
	Images []string `json:"images,omitempty"`

	Authorities          []Authority `json:"authorities"` // 1 to 64
	EmergencyAuthorities []Authority `json:"emergencyAuthorities,omitempty"`

	Require               *kritis.IntOrString  `json:"require,omitempty"`
	Enforcement           string               `json:"enforcement,omitempty"`
	MaximumAttestationAge string               `json:"maximumAttestationAge,omitempty"`
	NotBefore             string               `json:"notBefore,omitempty"`
	Allowlist             []kritis.NamePattern `json:"allowlist,omitempty"`
}

// Authority is one of the policy's own, with its keys, or an AttestationAuthority by reference.
type Authority struct {
	Name              string             `json:"name"`
	Ref               *AuthorityRef      `json:"ref,omitempty"`
	NoteReference     string             `json:"noteReference,omitempty"`
	PublicKeys        []kritis.PublicKey `json:"publicKeys,omitempty"`
	AcceptExpiredKeys *bool              `json:"acceptExpiredKeys,omitempty"`
}

// AuthorityRef names an AttestationAuthority of the same origin.
type AuthorityRef struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// LabelSelector has the shape and the meaning of metav1.LabelSelector.
type LabelSelector struct {
	MatchLabels      map[string]string          `json:"matchLabels,omitempty"`
	MatchExpressions []LabelSelectorRequirement `json:"matchExpressions,omitempty"`
}

// LabelSelectorRequirement is one condition of a LabelSelector.
type LabelSelectorRequirement struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"` // In, NotIn, Exists, DoesNotExist
	Values   []string `json:"values,omitempty"`
}
