package kritis

// ImageSecurityPolicySpec says which vulnerabilities the images of a namespace may have,
// and who must have attested them (namespaced).
type ImageSecurityPolicySpec struct {
	ImageAllowlist                   []string                          `json:"imageAllowlist,omitempty"` // exact names
	PackageVulnerabilityRequirements *PackageVulnerabilityRequirements `json:"packageVulnerabilityRequirements,omitempty"`
	AttestationAuthorityName         string                            `json:"attestationAuthorityName,omitempty"`
	AttestationAuthorityNames        []string                          `json:"attestationAuthorityNames,omitempty"` // older
	PrivateKeySecretName             string                            `json:"privateKeySecretName,omitempty"`

	// The rest are horkos.dev's additions, as in GenericAttestationPolicySpec.

	Enforcement             string       `json:"enforcement,omitempty"`
	Require                 *IntOrString `json:"require,omitempty"`
	MaximumAttestationAge   string       `json:"maximumAttestationAge,omitempty"`
	NotBefore               string       `json:"notBefore,omitempty"`
	EmergencyAuthorityNames []string     `json:"emergencyAuthorityNames,omitempty"`
}

// PackageVulnerabilityRequirements hold severities: BLOCK_ALL, ALLOW_ALL, MINIMAL, LOW,
// MEDIUM, HIGH or CRITICAL.
type PackageVulnerabilityRequirements struct {
	MaximumSeverity                string   `json:"maximumSeverity,omitempty"`                // with a fix; CRITICAL
	MaximumFixUnavailableSeverity  string   `json:"maximumFixUnavailableSeverity,omitempty"`  // without; ALLOW_ALL
	MaximumFixNotAvailableSeverity string   `json:"maximumFixNotAvailableSeverity,omitempty"` // its older name
	AllowlistCVEs                  []string `json:"allowlistCVEs,omitempty"`
}

// KritisConfigSpec configured Kritis (cluster-scoped); nothing here reads it.
type KritisConfigSpec struct {
	MetadataBackend string         `json:"metadataBackend,omitempty"`
	CronInterval    string         `json:"cronInterval,omitempty"`
	ServerAddr      string         `json:"serverAddr,omitempty"`
	Grafeas         *GrafeasConfig `json:"grafeas,omitempty"`
}

// GrafeasConfig is where Kritis found Grafeas.
type GrafeasConfig struct {
	Addr string `json:"addr,omitempty"`
}

// VulnzSigningPolicySpec told Kritis' signer what to sign (namespaced); nothing here reads it.
type VulnzSigningPolicySpec struct {
	ImageVulnerabilityRequirements *ImageVulnerabilityRequirements `json:"imageVulnerabilityRequirements,omitempty"`
}

// ImageVulnerabilityRequirements are the severities of a VulnzSigningPolicy.
type ImageVulnerabilityRequirements struct {
	MaximumFixableSeverity   string   `json:"maximumFixableSeverity,omitempty"`
	MaximumUnfixableSeverity string   `json:"maximumUnfixableSeverity,omitempty"`
	AllowlistCVEs            []string `json:"allowlistCVEs,omitempty"`
}

// BuildPolicySpec told Kritis' signer which builds to attest (namespaced); nothing here reads it.
type BuildPolicySpec struct {
	AttestationAuthorityName string             `json:"attestationAuthorityName,omitempty"`
	PrivateKeySecretName     string             `json:"privateKeySecretName,omitempty"`
	BuildRequirements        *BuildRequirements `json:"buildRequirements,omitempty"`
}

// BuildRequirements holds an anchored regular expression.
type BuildRequirements struct {
	BuiltFrom string `json:"builtFrom,omitempty"`
}
