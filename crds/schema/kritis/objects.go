// Package kritis has the objects of group kritis.grafeas.io whole.
// +groupName=kritis.grafeas.io
// +versionName=v1beta1
package kritis

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/horkos/horkos/crds/kritis"
	"github.com/horkos/horkos/crds/schema"
)

// AttestationAuthority names the keys of one that may attest images.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,shortName=aa,categories=horkos
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=horkos"
// +kubebuilder:printcolumn:name=Note,type=string,JSONPath=`.spec.noteReference`
// +kubebuilder:printcolumn:name=Key,type=string,JSONPath=`.spec.publicKeys[0].keyType`,priority=1,description="the type of the first"
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type AttestationAuthority struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec kritis.AttestationAuthoritySpec `json:"spec,omitempty"`
	// +optional
	Status schema.Status `json:"status,omitempty"`
}

// GenericAttestationPolicy says which authorities must have attested the images of a namespace.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,shortName=gap,categories=horkos
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=horkos"
// +kubebuilder:printcolumn:name=Authorities,type=string,JSONPath=`.spec.attestationAuthorityNames`
// +kubebuilder:printcolumn:name=Enforcement,type=string,JSONPath=`.spec.enforcement`
// +kubebuilder:printcolumn:name=Require,type=string,JSONPath=`.spec.require`,priority=1
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type GenericAttestationPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec kritis.GenericAttestationPolicySpec `json:"spec"`
	// +optional
	Status schema.Status `json:"status,omitempty"`
}

// ImageSecurityPolicy says which vulnerabilities the images of a namespace may have, and who must have attested them.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,shortName=isp,categories=horkos
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=horkos"
// +kubebuilder:printcolumn:name=Maximum,type=string,JSONPath=`.spec.packageVulnerabilityRequirements.maximumSeverity`
// +kubebuilder:printcolumn:name=Authority,type=string,JSONPath=`.spec.attestationAuthorityName`,priority=1
// +kubebuilder:printcolumn:name=Enforcement,type=string,JSONPath=`.spec.enforcement`
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type ImageSecurityPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec kritis.ImageSecurityPolicySpec `json:"spec,omitempty"`
	// +optional
	Status schema.Status `json:"status,omitempty"`
}

// AdmissionAllowlist exempts images by name from the policies of namespaces.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=aal,categories=horkos
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=horkos"
// +kubebuilder:printcolumn:name=Pattern,type=string,JSONPath=`.spec.patterns[0].namePattern`,description="the first of them"
// +kubebuilder:printcolumn:name=Namespace,type=string,JSONPath=`.spec.namespace`,priority=1
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type AdmissionAllowlist struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec kritis.AdmissionAllowlistSpec `json:"spec,omitempty"`
	// +optional
	Status schema.Status `json:"status,omitempty"`
}

// KritisConfig configured Kritis. Horkos keeps it and reads nothing in it.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=horkos
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=horkos"
// +kubebuilder:printcolumn:name=Backend,type=string,JSONPath=`.spec.metadataBackend`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type KritisConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec kritis.KritisConfigSpec `json:"spec,omitempty"`
	// +optional
	Status schema.Status `json:"status,omitempty"`
}

// VulnzSigningPolicy told the signer of Kritis what to sign. Horkos keeps it and reads nothing in it.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,categories=horkos
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=horkos"
// +kubebuilder:printcolumn:name=Fixable,type=string,JSONPath=`.spec.imageVulnerabilityRequirements.maximumFixableSeverity`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type VulnzSigningPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec kritis.VulnzSigningPolicySpec `json:"spec,omitempty"`
	// +optional
	Status schema.Status `json:"status,omitempty"`
}

// BuildPolicy told the signer of Kritis which builds to attest. Horkos keeps it and reads nothing in it.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,categories=horkos
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=horkos"
// +kubebuilder:printcolumn:name=Authority,type=string,JSONPath=`.spec.attestationAuthorityName`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type BuildPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec kritis.BuildPolicySpec `json:"spec,omitempty"`
	// +optional
	Status schema.Status `json:"status,omitempty"`
}
