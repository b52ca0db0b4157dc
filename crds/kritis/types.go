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
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule=`(has(self.publicKeys) ? self.publicKeys.size() : 0) + (has(self.publicKeyData) && self.publicKeyData.size() > 0 ? 1 : 0) <= 64`,message=`at most 64 keys, publicKeyData among them: use another authority for the rest`
// +kubebuilder:validation:XValidation:rule=`!has(self.publicKeyData) || self.publicKeyData.matches('^[A-Za-z0-9+/=[:space:]]*$')`,message=`want base64 of an armored PGP key or of a PEM public key`,fieldPath=`.publicKeyData`
type AttestationAuthoritySpec struct {
	// NoteReference says where the attestations are kept: projects/P, projects/P/notes/N,
	// v1beta1/projects/P or namespaces/N.
	// +kubebuilder:validation:MaxLength=1024
	NoteReference string `json:"noteReference,omitempty"`

	// PublicKeys is the newer shape; any key of the list may verify.
	// +kubebuilder:validation:MaxItems=64
	PublicKeys []PublicKey `json:"publicKeys,omitempty"`

	// PublicKeyData is the older shape: base64 of an armored PGP key or of a PEM public key.
	// +kubebuilder:validation:MaxLength=1048576
	PublicKeyData string `json:"publicKeyData,omitempty"`
	// PublicKeyID is Alibaba Cloud's addition to the older shape: the id of the KMS key.
	// +kubebuilder:validation:MaxLength=1024
	PublicKeyID string `json:"publicKeyId,omitempty"`
	// PrivateKeySecretName was used by Kritis' signer; nothing here reads it.
	// +kubebuilder:validation:MaxLength=253
	PrivateKeySecretName string `json:"privateKeySecretName,omitempty"`
	// PolicyType was used by Alibaba Cloud's console; nothing here reads it.
	// +kubebuilder:validation:MaxLength=253
	PolicyType string `json:"policyType,omitempty"`

	// AcceptExpiredKeys is horkos.dev's addition; absent means true.
	AcceptExpiredKeys *bool `json:"acceptExpiredKeys,omitempty"`
}

// PublicKey is one key of the newer shape.
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule=`self.keyType != 'PGP' || (has(self.asciiArmoredPgpPublicKey) && self.asciiArmoredPgpPublicKey.size() > 0 && !has(self.pkixPublicKey))`,message=`a key of keyType PGP has asciiArmoredPgpPublicKey, and no pkixPublicKey`
// +kubebuilder:validation:XValidation:rule=`self.keyType != 'PKIX' || (has(self.pkixPublicKey) && !(has(self.asciiArmoredPgpPublicKey) && self.asciiArmoredPgpPublicKey.size() > 0))`,message=`a key of keyType PKIX has pkixPublicKey, and no asciiArmoredPgpPublicKey`
type PublicKey struct {
	// KeyID is what signatures name the key by; without it the key has the one that follows
	// from what it is.
	// +kubebuilder:validation:MaxLength=1024
	KeyID string `json:"keyId,omitempty"`
	// KeyType is PGP or PKIX.
	// +kubebuilder:validation:Enum=PGP;PKIX
	// +required
	KeyType string `json:"keyType,omitempty"`
	// ASCIIArmoredPGPPublicKey is base64 of an armored key.
	// +kubebuilder:validation:MaxLength=65536
	ASCIIArmoredPGPPublicKey string `json:"asciiArmoredPgpPublicKey,omitempty"`
	// PKIXPublicKey is the key of keyType PKIX.
	PKIXPublicKey *PKIXPublicKey `json:"pkixPublicKey,omitempty"`

	// ValidFrom is when the authority may begin to use the key (horkos.dev, RFC 3339).
	// +nullable
	ValidFrom Timestamp `json:"validFrom,omitempty"`
	// ValidUntil is when the authority may no longer use it (horkos.dev, RFC 3339).
	// +nullable
	ValidUntil Timestamp `json:"validUntil,omitempty"`
}

// PKIXPublicKey is a PEM public key and the algorithm that signatures of it bear.
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule=`['-----BEGIN PUBLIC KEY-----', '-----BEGIN RSA PUBLIC KEY-----', ' ', '\t', '\r', '\n'].exists(p, self.publicKeyPem.startsWith(p))`,message=`want one block PUBLIC KEY in PEM; if this is a private key, it has leaked`,fieldPath=`.publicKeyPem`
type PKIXPublicKey struct {
	// PublicKeyPEM is one block PUBLIC KEY.
	// +kubebuilder:validation:MaxLength=16384
	// +required
	PublicKeyPEM string `json:"publicKeyPem,omitempty"`
	// SignatureAlgorithm is that of its signatures; without it the key says it.
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('(?i)^(rsa[-_](sign[-_])?pss[-_]((2048|3072|4096)[-_]sha256|4096[-_]sha512)|rsa[-_]sign[-_]pkcs1[-_]((2048|3072|4096)[-_]sha256|4096[-_]sha512)|(ecdsa|ec[-_]sign)[-_](p256[-_]sha256|p384[-_]sha384|p521[-_]sha512)|ed25519)?$')`,message=`want rsa-pss-, rsa-sign-pkcs1- or ecdsa- with size and hash, such as ecdsa-p256-sha256 or rsa-pss-4096-sha512, or ed25519; or leave it out: the key says it`
	SignatureAlgorithm string `json:"signatureAlgorithm,omitempty"`
}

// GenericAttestationPolicySpec says which authorities must have attested the images
// of a namespace (namespaced).
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule=`!has(self.require) || (type(self.require) == int ? self.require <= self.attestationAuthorityNames.size() : (self.require.matches('^[+]?[0-9]{1,9}$') ? int(self.require) <= self.attestationAuthorityNames.size() : true))`,message=`more is required than the policy names authorities: lower the number, or name more authorities`,fieldPath=`.require`
type GenericAttestationPolicySpec struct {
	// AttestationAuthorityNames name AttestationAuthorities of the policy's namespace.
	// +required
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	AttestationAuthorityNames []string `json:"attestationAuthorityNames,omitempty"`
	// AdmissionAllowlistPatterns exempt images by name from the policies of the namespace.
	// +kubebuilder:validation:MaxItems=2048
	// +kubebuilder:validation:items:XValidation:rule=`self.namePattern.matches('^([[][a-f0-9:]+])?[-a-z0-9._:/]*(:[-A-Za-z0-9_.]*)?(@[a-z0-9:]*)?[*]?$') && !self.namePattern.contains('//') && !self.namePattern.endsWith('/')`,message=`want the name of an image, or the beginning of one and *, such as registry.example.com/team/app:v1 or registry.example.com/team/*; in lower case, without https://`,fieldPath=`.namePattern`
	// +kubebuilder:validation:items:XValidation:rule=`!has(self.__namespace__) || self.__namespace__.size() == 0`,message=`only entries of an AdmissionAllowlist have a namespace: take it out`
	AdmissionAllowlistPatterns []NamePattern `json:"admissionAllowlistPatterns,omitempty"`

	// The rest are horkos.dev's additions.

	// Enforcement is Enforce (the default), Warn or Audit.
	// +kubebuilder:validation:Enum="";Enforce;Warn;Audit
	Enforcement string `json:"enforcement,omitempty"`
	// Require is "All" (the default), "Any" or a number, also as a string.
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:XValidation:rule=`type(self) == int ? self >= 1 : self.matches('^(All|Any|[+]?0*[1-9][0-9]?)$')`,message=`want All, Any or a number of 1 at least`
	Require *IntOrString `json:"require,omitempty"`
	// MaximumAttestationAge is how old an attestation may be, by the time that is signed: 720h.
	// +nullable
	MaximumAttestationAge Duration `json:"maximumAttestationAge,omitempty"`
	// NotBefore is the earliest time of signing that counts, of RFC 3339.
	// +nullable
	NotBefore Timestamp `json:"notBefore,omitempty"`
	// EmergencyAuthorityNames are authorities of whom one attestation, made for at most a day,
	// is enough.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	EmergencyAuthorityNames []string `json:"emergencyAuthorityNames,omitempty"`
}

// NamePattern is one entry of an allowlist.
// +kubebuilder:pruning:PreserveUnknownFields
type NamePattern struct {
	// NamePattern is the name of an image, or the beginning of one and *.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	NamePattern string `json:"namePattern"`
	// Namespace limits an entry of an AdmissionAllowlist to one namespace.
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
}

// AdmissionAllowlistSpec exempts images by name (Alibaba Cloud; cluster-scoped).
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule=`!has(self.__namespace__) || self.__namespace__.size() == 0 || !has(self.patterns) || self.patterns.all(p, !has(p.__namespace__) || p.__namespace__.size() == 0 || p.__namespace__ == self.__namespace__)`,message=`a pattern is for another namespace than the object: write the namespace in one place`,fieldPath=`.patterns`
type AdmissionAllowlistSpec struct {
	// Patterns are the images that are exempt.
	// +kubebuilder:validation:MaxItems=2048
	// +kubebuilder:validation:items:XValidation:rule=`self.namePattern.matches('^([[][a-f0-9:]+])?[-a-z0-9._:/]*(:[-A-Za-z0-9_.]*)?(@[a-z0-9:]*)?[*]?$') && !self.namePattern.contains('//') && !self.namePattern.endsWith('/') || self.namePattern.matches('[*].')`,message=`want the name of an image, or the beginning of one and *, or one with * inside, such as registry.example.com/team/*; in lower case, without https:// and white space`,fieldPath=`.namePattern`
	Patterns []NamePattern `json:"patterns,omitempty"`
	// Namespace, when written beside the patterns, limits all of them.
	Namespace string `json:"namespace,omitempty"`
}

// Timestamp is a time of RFC 3339.
// +kubebuilder:validation:MaxLength=64
// +kubebuilder:validation:XValidation:rule=`self.matches('^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{1,2}:[0-9]{2}:[0-9]{2}([.,][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$') && timestamp(self) > timestamp('0001-01-01T00:00:00Z')`,message=`want a time of RFC 3339 such as "2026-01-31T00:00:00Z", in quotes, or leave the field out`
type Timestamp = string

// Duration is what Go writes a duration as, above zero: 720h.
// +kubebuilder:validation:MaxLength=128
// +kubebuilder:validation:XValidation:rule=`self.matches('^[+]?(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+$') && duration(self) > duration('0s')`,message=`want a duration above zero such as 720h, or leave the field out`
type Duration = string
