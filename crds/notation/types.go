// Package notation has the objects of group notation.nirmata.io/v1alpha1, which Nirmata's
// extension services for Kyverno brought: a trust policy document and the certificates
// that it speaks of, in the words of the Notary Project's specification.
//
// The types hold what is written in a manifest. Horkos does not judge by these objects yet.
package notation

// TrustPolicySpec is a trust policy document (cluster-scoped). Requests choose one by
// trustPolicyName, and not by the name of the object.
// +kubebuilder:pruning:PreserveUnknownFields
type TrustPolicySpec struct {
	// Version of the document: "1.0".
	// +kubebuilder:validation:Enum="1.0"
	Version string `json:"version"`
	// TrustPolicyName is what requests choose the document by.
	// +kubebuilder:validation:MaxLength=253
	TrustPolicyName string `json:"trustPolicyName,omitempty"`
	// TrustPolicies are its statements, each about other repositories.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:XValidation:rule=`self.filter(p, '*' in p.registryScopes).size() <= 1`,message=`the registryScope * is in two statements: each scope is in one`
	TrustPolicies []TrustPolicyStatement `json:"trustPolicies"`
}

// TrustPolicyStatement says what is asked of the signatures of some repositories.
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule=`self.signatureVerification.level != 'skip' || ((!has(self.trustStores) || self.trustStores.size() == 0) && (!has(self.trustedIdentities) || self.trustedIdentities.size() == 0))`,message=`level skip looks at no signature: leave trustStores and trustedIdentities out, or take another level`
// +kubebuilder:validation:XValidation:rule=`self.signatureVerification.level == 'skip' || (has(self.trustStores) && self.trustStores.size() > 0 && has(self.trustedIdentities) && self.trustedIdentities.size() > 0)`,message=`levels other than skip need trustStores and trustedIdentities`
type TrustPolicyStatement struct {
	// Name of the statement.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// RegistryScopes are repositories, such as registry.example.com/team/app, or * alone: all
	// that no other statement is about.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=512
	// +kubebuilder:validation:items:Pattern=`^([*]|([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|[[][A-Fa-f0-9:]+])(:[0-9]+)?(/[a-z0-9]([-a-z0-9._]*[a-z0-9])?)+)$`
	// +listType=set
	// +kubebuilder:validation:XValidation:rule=`!('*' in self) || self.size() == 1`,message=`* stands alone: take out the other scopes, or *`
	RegistryScopes []string `json:"registryScopes"`
	// SignatureVerification is how strict to be.
	SignatureVerification SignatureVerification `json:"signatureVerification"`
	// TrustStores are the certificates to trust: TYPE:NAME, by the type and the trustStoreName of a TrustStore.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=300
	// +kubebuilder:validation:items:Pattern=`^(ca|signingAuthority|tsa):[A-Za-z0-9_.-]+$`
	// +listType=set
	TrustStores []string `json:"trustStores,omitempty"`
	// TrustedIdentities are those that may sign: x509.subject: and a subject, what a plugin knows, or * alone.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=1024
	// +listType=set
	// +kubebuilder:validation:items:XValidation:rule=`!self.startsWith('x509.subject:') || (self.lowerAscii().contains('c=') && (self.lowerAscii().contains('st=') || self.lowerAscii().contains('s=')) && self.lowerAscii().contains('o='))`,message=`a subject has C, ST and O at least, such as x509.subject: C=US, ST=WA, O=example`
	// +kubebuilder:validation:XValidation:rule=`!('*' in self) || self.size() == 1`,message=`* stands alone: take out the other identities, or *`
	TrustedIdentities []string `json:"trustedIdentities,omitempty"`
}

// SignatureVerification is how strict to be with signatures.
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule=`self.level != 'skip' || !has(self.override) || self.override.size() == 0`,message=`level skip looks at nothing that could be overridden: leave override out`
type SignatureVerification struct {
	// Level is strict, permissive, audit or skip.
	// +kubebuilder:validation:Enum=strict;permissive;audit;skip
	Level string `json:"level"`
	// Override says of authenticity, authenticTimestamp, expiry and revocation what to do when
	// it fails, where that is not what the level says: enforce, log or, for revocation, skip.
	// +kubebuilder:validation:MaxProperties=4
	// +kubebuilder:validation:XValidation:rule=`self.all(k, k in ['authenticity', 'authenticTimestamp', 'expiry', 'revocation'])`,message=`only authenticity, authenticTimestamp, expiry and revocation can be overridden`
	// +kubebuilder:validation:XValidation:rule=`self.all(k, self[k] != 'skip' || k == 'revocation')`,message=`only revocation can be skip`
	Override map[string]Action `json:"override,omitempty"`
	// VerifyTimestamp says when a countersignature of time is looked at: always (the default)
	// or afterCertExpiry.
	// +kubebuilder:validation:Enum=always;afterCertExpiry
	VerifyTimestamp string `json:"verifyTimestamp,omitempty"`
}

// Action is what to do when something is found wrong.
// +kubebuilder:validation:Enum=enforce;log;skip
type Action string

// TrustStoreSpec holds certificates to trust (cluster-scoped). Trust policies name it by
// trustStoreName, and not by the name of the object.
// +kubebuilder:pruning:PreserveUnknownFields
type TrustStoreSpec struct {
	// TrustStoreName is what trust policies name it by.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[A-Za-z0-9_.-]+$')`,message=`want letters, digits, dots, dashes and underscores only`
	TrustStoreName string `json:"trustStoreName"`
	// Type is ca, signingAuthority or, for those that sign times, tsa.
	// +kubebuilder:validation:Enum=ca;signingAuthority;tsa
	Type string `json:"type"`
	// CABundle holds the certificates in PEM.
	// +kubebuilder:validation:MaxLength=524288
	// +kubebuilder:validation:XValidation:rule=`self.contains('-----BEGIN CERTIFICATE-----')`,message=`want certificates in PEM, each from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----`
	CABundle string `json:"caBundle"`
}
