// Package kritis has the objects of group kritis.grafeas.io/v1beta1 that Horkos
// decides by, in the union of the shapes found in the field: the older Kritis
// shape, which Alibaba Cloud's kritis-validation-hook extends, and the newer one.
//
// The types hold what is written in a manifest; what it means, and whether it is
// valid beyond its shape, is the business of package policy.
package kritis

// GroupVersion is the API group and version of every type of this package.
const GroupVersion = "kritis.grafeas.io/v1beta1"

// Kinds of this group.
const (
	KindAttestationAuthority     = "AttestationAuthority"
	KindGenericAttestationPolicy = "GenericAttestationPolicy"
	KindImageSecurityPolicy      = "ImageSecurityPolicy"
	KindAdmissionAllowlist       = "AdmissionAllowlist"
	KindKritisConfig             = "KritisConfig"
	KindVulnzSigningPolicy       = "VulnzSigningPolicy"
	KindBuildPolicy              = "BuildPolicy"
)

// AttestationAuthoritySpec names the keys of one that may attest images (namespaced).
type AttestationAuthoritySpec struct {
	// NoteReference says where the attestations are kept: projects/P, projects/P/notes/N,
	// v1beta1/projects/P or namespaces/N.
	NoteReference string `json:"noteReference,omitempty"`

	// PublicKeys is the newer shape; any key of the list may verify.
	PublicKeys []PublicKey `json:"publicKeys,omitempty"`

	// PublicKeyData is the older shape: base64 of an armored PGP key or of a PEM public key.
	PublicKeyData string `json:"publicKeyData,omitempty"`
	// PublicKeyID is Alibaba Cloud's addition to the older shape: the id of the KMS key.
	PublicKeyID string `json:"publicKeyId,omitempty"`
	// PrivateKeySecretName was used by Kritis' signer; nothing here reads it.
	PrivateKeySecretName string `json:"privateKeySecretName,omitempty"`
	// PolicyType was used by Alibaba Cloud's console; nothing here reads it.
	PolicyType string `json:"policyType,omitempty"`

	// AcceptExpiredKeys is horkos.dev's addition; absent means true.
	AcceptExpiredKeys *bool `json:"acceptExpiredKeys,omitempty"`
}

// PublicKey is one key of the newer shape.
type PublicKey struct {
	KeyID string `json:"keyId,omitempty"`
	// KeyType is PGP or PKIX.
	KeyType string `json:"keyType,omitempty"`
	// ASCIIArmoredPGPPublicKey is base64 of an armored key.
	ASCIIArmoredPGPPublicKey string         `json:"asciiArmoredPgpPublicKey,omitempty"`
	PKIXPublicKey            *PKIXPublicKey `json:"pkixPublicKey,omitempty"`

	// ValidFrom and ValidUntil are horkos.dev's additions, RFC 3339.
	ValidFrom  string `json:"validFrom,omitempty"`
	ValidUntil string `json:"validUntil,omitempty"`
}

// PKIXPublicKey is a PEM public key and the algorithm that signatures of it bear.
type PKIXPublicKey struct {
	PublicKeyPEM       string `json:"publicKeyPem,omitempty"`
	SignatureAlgorithm string `json:"signatureAlgorithm,omitempty"`
}

// GenericAttestationPolicySpec says which authorities must have attested the images
// of a namespace (namespaced).
type GenericAttestationPolicySpec struct {
	AttestationAuthorityNames  []string      `json:"attestationAuthorityNames,omitempty"`
	AdmissionAllowlistPatterns []NamePattern `json:"admissionAllowlistPatterns,omitempty"`

	// The rest are horkos.dev's additions.

	// Enforcement is Enforce (the default), Warn or Audit.
	Enforcement string `json:"enforcement,omitempty"`
	// Require is "All" (the default), "Any" or a number, also as a string.
	Require                 *IntOrString `json:"require,omitempty"`
	MaximumAttestationAge   string       `json:"maximumAttestationAge,omitempty"`
	NotBefore               string       `json:"notBefore,omitempty"`
	EmergencyAuthorityNames []string     `json:"emergencyAuthorityNames,omitempty"`
}

// NamePattern is one entry of an allowlist.
type NamePattern struct {
	NamePattern string `json:"namePattern"`
	// Namespace limits an entry of an AdmissionAllowlist to one namespace.
	Namespace string `json:"namespace,omitempty"`
}

// AdmissionAllowlistSpec exempts images by name (Alibaba Cloud; cluster-scoped).
type AdmissionAllowlistSpec struct {
	Patterns []NamePattern `json:"patterns,omitempty"`
	// Namespace, when written beside the patterns, limits all of them.
	Namespace string `json:"namespace,omitempty"`
}
