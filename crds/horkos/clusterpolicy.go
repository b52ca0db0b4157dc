package horkos

import "github.com/horkos/horkos/crds/kritis"

// ClusterAttestationPolicySpec says which authorities must have attested images in all
// namespaces that it selects (cluster-scoped).
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule=`!has(self.require) || (type(self.require) == int ? self.require <= self.authorities.size() : (self.require.matches('^[+]?[0-9]{1,9}$') ? int(self.require) <= self.authorities.size() : true))`,message=`more is required than the policy names authorities: lower the number, or name more authorities`,fieldPath=`.require`
type ClusterAttestationPolicySpec struct {
	// NamespaceSelector selects namespaces by their labels; absent or empty: every namespace.
	NamespaceSelector *LabelSelector `json:"namespaceSelector,omitempty"`
	// Images limits the policy to names; an image without a bound name is in every scope.
	// +kubebuilder:validation:MaxItems=1024
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('^([[][a-f0-9:]+])?[-a-z0-9._:/]*(:[-A-Za-z0-9_.]*)?(@[a-z0-9:]*)?[*]{0,2}$') && !self.contains('//') && !self.endsWith('/')`,message=`want the name of an image, or the beginning of one with * or /** at its end, such as registry.example.com/team/**; in lower case, without https://`
	// +kubebuilder:validation:items:XValidation:rule=`!self.endsWith('**') || self == '**' || self.contains('/')`,message=`write a slash before the two stars: REGISTRY/** or docker.io/NAME**`
	Images []string `json:"images,omitempty"`

	// Authorities are 1 to 64 that must have attested the images, as require says.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=name
	Authorities []Authority `json:"authorities"`
	// EmergencyAuthorities are those of whom one attestation, made for at most a day, is enough.
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=name
	EmergencyAuthorities []Authority `json:"emergencyAuthorities,omitempty"`

	// Require is "All" (the default), "Any" or a number of authorities, each with a key of its own.
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:XValidation:rule=`type(self) == int ? self >= 1 : self.matches('^(All|Any|[+]?0*[1-9][0-9]?)$')`,message=`want All, Any or a number of 1 at least`
	Require *kritis.IntOrString `json:"require,omitempty"`
	// Enforcement is Enforce (the default), Warn or Audit.
	// +kubebuilder:validation:Enum="";Enforce;Warn;Audit
	Enforcement string `json:"enforcement,omitempty"`
	// MaximumAttestationAge is how old an attestation may be, by the time that is signed: 720h.
	// +nullable
	MaximumAttestationAge kritis.Duration `json:"maximumAttestationAge,omitempty"`
	// NotBefore is the earliest time of signing that counts, of RFC 3339.
	// +nullable
	NotBefore kritis.Timestamp `json:"notBefore,omitempty"`
	// Allowlist exempts images from this policy by name.
	// +kubebuilder:validation:MaxItems=2048
	// +kubebuilder:validation:items:XValidation:rule=`self.namePattern.matches('^([[][a-f0-9:]+])?[-a-z0-9._:/]*(:[-A-Za-z0-9_.]*)?(@[a-z0-9:]*)?[*]?$') && !self.namePattern.contains('//') && !self.namePattern.endsWith('/')`,message=`want the name of an image, or the beginning of one and *, such as registry.example.com/team/app:v1 or registry.example.com/team/*; in lower case, without https://`,fieldPath=`.namePattern`
	// +kubebuilder:validation:items:XValidation:rule=`!has(self.__namespace__) || self.__namespace__.size() == 0`,message=`only entries of an AdmissionAllowlist have a namespace: take it out`
	Allowlist []kritis.NamePattern `json:"allowlist,omitempty"`
}

// Authority is one of the policy's own, with its keys, or an AttestationAuthority by reference.
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule=`has(self.ref) != (has(self.publicKeys) && self.publicKeys.size() > 0)`,message=`write either ref, or publicKeys of its own`
// +kubebuilder:validation:XValidation:rule=`!has(self.ref) || (!has(self.acceptExpiredKeys) && (!has(self.noteReference) || self.noteReference.size() == 0))`,message=`what is referred to by ref has noteReference and acceptExpiredKeys of its own: leave them out here`
type Authority struct {
	// Name is what messages call it; each of the list has another.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Ref is an AttestationAuthority; without it there are publicKeys.
	Ref *AuthorityRef `json:"ref,omitempty"`
	// NoteReference says where the attestations are kept, as in an AttestationAuthority.
	// +kubebuilder:validation:MaxLength=1024
	NoteReference string `json:"noteReference,omitempty"`
	// PublicKeys are its own; any of them may verify.
	// +kubebuilder:validation:MaxItems=64
	PublicKeys []kritis.PublicKey `json:"publicKeys,omitempty"`
	// AcceptExpiredKeys lets what a key signed before its end count after it; absent means true.
	AcceptExpiredKeys *bool `json:"acceptExpiredKeys,omitempty"`
}

// AuthorityRef names an AttestationAuthority of the same origin.
// +kubebuilder:pruning:PreserveUnknownFields
type AuthorityRef struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// LabelSelector has the shape and the meaning of metav1.LabelSelector.
// +kubebuilder:pruning:PreserveUnknownFields
type LabelSelector struct {
	// MatchLabels are labels that the namespace has, with these values.
	// +kubebuilder:validation:MaxProperties=1024
	MatchLabels map[string]LabelValue `json:"matchLabels,omitempty"`
	// MatchExpressions are conditions that all hold.
	// +kubebuilder:validation:MaxItems=1024
	MatchExpressions []LabelSelectorRequirement `json:"matchExpressions,omitempty"`
}

// LabelSelectorRequirement is one condition of a LabelSelector.
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule=`(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)`,message=`In and NotIn need values, Exists and DoesNotExist take none`,fieldPath=`.values`
type LabelSelectorRequirement struct {
	// Key is that of a label.
	// +kubebuilder:validation:MaxLength=317
	// +kubebuilder:validation:XValidation:rule=`self.matches('^([a-z0-9][-a-z0-9.]{0,252}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')`,message=`want the key of a label such as kubernetes.io/metadata.name`
	Key string `json:"key"`
	// Operator is In, NotIn, Exists or DoesNotExist.
	// +kubebuilder:validation:Enum=In;NotIn;Exists;DoesNotExist
	Operator string `json:"operator"`
	// Values are for In and NotIn.
	// +kubebuilder:validation:MaxItems=1024
	Values []LabelValue `json:"values,omitempty"`
}

// LabelValue is the value of a label.
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$`
type LabelValue = string
