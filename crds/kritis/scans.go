package kritis

// ImageSecurityPolicySpec says which vulnerabilities the images of a namespace may have,
// and who must have attested them (namespaced).
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule=`!has(self.require) || (type(self.require) == int ? self.require <= (has(self.attestationAuthorityNames) ? self.attestationAuthorityNames.size() : 0) + (has(self.attestationAuthorityName) && self.attestationAuthorityName.size() > 0 ? 1 : 0) : (self.require.matches('^[+]?[0-9]{1,9}$') ? int(self.require) <= (has(self.attestationAuthorityNames) ? self.attestationAuthorityNames.size() : 0) + (has(self.attestationAuthorityName) && self.attestationAuthorityName.size() > 0 ? 1 : 0) : true))`,message=`more is required than the policy names authorities: lower the number, or name more authorities`,fieldPath=`.require`
// +kubebuilder:validation:XValidation:rule=`(has(self.attestationAuthorityNames) ? self.attestationAuthorityNames.size() : 0) + (has(self.attestationAuthorityName) && self.attestationAuthorityName.size() > 0 ? 1 : 0) <= 64`,message=`at most 64 authorities, attestationAuthorityName among them`,fieldPath=`.attestationAuthorityNames`
type ImageSecurityPolicySpec struct {
	// ImageAllowlist holds the exact names of images that the policy is not about.
	// +kubebuilder:validation:MaxItems=2048
	// +kubebuilder:validation:items:MaxLength=512
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('^([[][a-f0-9:]+])?[-a-z0-9._:/]*(:[-A-Za-z0-9_.]*)?(@[a-z0-9:]*)?$') && !self.contains('//') && !self.endsWith('/')`,message=`want the exact name of an image such as registry.example.com/team/app:v1; in lower case, without https:// and *`
	ImageAllowlist []string `json:"imageAllowlist,omitempty"`
	// PackageVulnerabilityRequirements say which vulnerabilities are too many.
	PackageVulnerabilityRequirements *PackageVulnerabilityRequirements `json:"packageVulnerabilityRequirements,omitempty"`
	// AttestationAuthorityName names an AttestationAuthority of the policy's namespace.
	// +kubebuilder:validation:MaxLength=253
	AttestationAuthorityName string `json:"attestationAuthorityName,omitempty"`
	// AttestationAuthorityNames is the older way to name several.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	AttestationAuthorityNames []string `json:"attestationAuthorityNames,omitempty"`
	// PrivateKeySecretName was used by Kritis' signer; nothing here reads it.
	// +kubebuilder:validation:MaxLength=253
	PrivateKeySecretName string `json:"privateKeySecretName,omitempty"`

	// The rest are horkos.dev's additions, as in GenericAttestationPolicySpec.

	// Enforcement is Enforce (the default), Warn or Audit.
	// +kubebuilder:validation:Enum="";Enforce;Warn;Audit
	Enforcement string `json:"enforcement,omitempty"`
	// Require is "All" (the default), "Any" or a number of authorities, each with a key of its own.
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
	// EmergencyAuthorityNames are authorities of whom one attestation, made for at most a day, is enough.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	EmergencyAuthorityNames []string `json:"emergencyAuthorityNames,omitempty"`
}

// PackageVulnerabilityRequirements hold severities: BLOCK_ALL, ALLOW_ALL, MINIMAL, LOW,
// MEDIUM, HIGH or CRITICAL.
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule=`!has(self.maximumFixUnavailableSeverity) || self.maximumFixUnavailableSeverity.size() == 0 || !has(self.maximumFixNotAvailableSeverity) || self.maximumFixNotAvailableSeverity.size() == 0`,message=`it is the older name of maximumFixUnavailableSeverity: write one of them`,fieldPath=`.maximumFixNotAvailableSeverity`
type PackageVulnerabilityRequirements struct {
	// MaximumSeverity is for vulnerabilities with a fix; CRITICAL is the default.
	// +kubebuilder:validation:Enum="";BLOCK_ALL;ALLOW_ALL;MINIMAL;LOW;MEDIUM;HIGH;CRITICAL
	MaximumSeverity string `json:"maximumSeverity,omitempty"`
	// MaximumFixUnavailableSeverity is for those without a fix; ALLOW_ALL is the default.
	// +kubebuilder:validation:Enum="";BLOCK_ALL;ALLOW_ALL;MINIMAL;LOW;MEDIUM;HIGH;CRITICAL
	MaximumFixUnavailableSeverity string `json:"maximumFixUnavailableSeverity,omitempty"`
	// MaximumFixNotAvailableSeverity is the older name of maximumFixUnavailableSeverity.
	// +kubebuilder:validation:Enum="";BLOCK_ALL;ALLOW_ALL;MINIMAL;LOW;MEDIUM;HIGH;CRITICAL
	MaximumFixNotAvailableSeverity string `json:"maximumFixNotAvailableSeverity,omitempty"`
	// AllowlistCVEs are vulnerabilities that are let pass: CVE-2026-0001, or the name of its note.
	// +kubebuilder:validation:MaxItems=4096
	// +kubebuilder:validation:items:MaxLength=512
	AllowlistCVEs []string `json:"allowlistCVEs,omitempty"`
}

// KritisConfigSpec configured Kritis (cluster-scoped); nothing here reads it.
// +kubebuilder:pruning:PreserveUnknownFields
type KritisConfigSpec struct {
	MetadataBackend string         `json:"metadataBackend,omitempty"`
	CronInterval    string         `json:"cronInterval,omitempty"`
	ServerAddr      string         `json:"serverAddr,omitempty"`
	Grafeas         *GrafeasConfig `json:"grafeas,omitempty"`
}

// GrafeasConfig is where Kritis found Grafeas.
// +kubebuilder:pruning:PreserveUnknownFields
type GrafeasConfig struct {
	Addr string `json:"addr,omitempty"`
}

// VulnzSigningPolicySpec told Kritis' signer what to sign (namespaced); nothing here reads it.
// +kubebuilder:pruning:PreserveUnknownFields
type VulnzSigningPolicySpec struct {
	ImageVulnerabilityRequirements *ImageVulnerabilityRequirements `json:"imageVulnerabilityRequirements,omitempty"`
}

// ImageVulnerabilityRequirements are the severities of a VulnzSigningPolicy.
// +kubebuilder:pruning:PreserveUnknownFields
type ImageVulnerabilityRequirements struct {
	MaximumFixableSeverity   string   `json:"maximumFixableSeverity,omitempty"`
	MaximumUnfixableSeverity string   `json:"maximumUnfixableSeverity,omitempty"`
	AllowlistCVEs            []string `json:"allowlistCVEs,omitempty"`
}

// BuildPolicySpec told Kritis' signer which builds to attest (namespaced); nothing here reads it.
// +kubebuilder:pruning:PreserveUnknownFields
type BuildPolicySpec struct {
	AttestationAuthorityName string             `json:"attestationAuthorityName,omitempty"`
	PrivateKeySecretName     string             `json:"privateKeySecretName,omitempty"`
	BuildRequirements        *BuildRequirements `json:"buildRequirements,omitempty"`
}

// BuildRequirements holds an anchored regular expression.
// +kubebuilder:pruning:PreserveUnknownFields
type BuildRequirements struct {
	BuiltFrom string `json:"builtFrom,omitempty"`
}
