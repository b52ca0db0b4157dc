// Package notation has the objects of group notation.nirmata.io whole.
// +groupName=notation.nirmata.io
// +versionName=v1alpha1
package notation

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/horkos/horkos/crds/notation"
	"github.com/horkos/horkos/crds/schema"
)

// TrustPolicy is a trust policy document of the Notary Project.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=tp,categories=horkos
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=horkos"
// +kubebuilder:printcolumn:name=Policy,type=string,JSONPath=`.spec.trustPolicyName`
// +kubebuilder:printcolumn:name=Level,type=string,JSONPath=`.spec.trustPolicies[0].signatureVerification.level`,description="of the first statement"
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type TrustPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec notation.TrustPolicySpec `json:"spec"`
	// +optional
	Status schema.Status `json:"status,omitempty"`
}

// TrustStore holds certificates that trust policies speak of.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=ts,categories=horkos
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=horkos"
// +kubebuilder:printcolumn:name=Store,type=string,JSONPath=`.spec.trustStoreName`
// +kubebuilder:printcolumn:name=Type,type=string,JSONPath=`.spec.type`
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type TrustStore struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec notation.TrustStoreSpec `json:"spec"`
	// +optional
	Status schema.Status `json:"status,omitempty"`
}
