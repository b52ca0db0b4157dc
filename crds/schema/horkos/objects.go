// Package horkos has the objects of group horkos.dev whole.
// +groupName=horkos.dev
// +versionName=v1alpha1
package horkos

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/schema"
)

// ImageAttestation carries the attestations of one image digest, which its name is.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=ia,categories=horkos
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=horkos"
// +kubebuilder:validation:XValidation:rule=`self.metadata.name.matches('^sha256-[a-f0-9]{64}$')`,message=`metadata.name: want the digest of the image: sha256- and 64 hexadecimal digits in lower case`
// +kubebuilder:validation:XValidation:rule=`self.spec.attestations.all(a, a.resourceUri.contains('@sha256:') && a.resourceUri.size() > 71 && self.metadata.name == 'sha256-' + a.resourceUri.substring(a.resourceUri.size() - 64))`,message=`the digest at the end of each resourceUri is the one that metadata.name is of: registry.example.com/team/app@sha256:...`,fieldPath=`.spec.attestations`
// +kubebuilder:printcolumn:name=Image,type=string,JSONPath=`.spec.attestations[0].resourceUri`
// +kubebuilder:printcolumn:name=Note,type=string,JSONPath=`.spec.attestations[0].noteName`,priority=1,description="of the first attestation"
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type ImageAttestation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec horkos.ImageAttestationSpec `json:"spec"`
	// +optional
	Status schema.Status `json:"status,omitempty"`
}

// ImageRevocation withdraws images: no attestation, allowlist or policy lets them run.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=ir,categories=horkos
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=horkos"
// +kubebuilder:printcolumn:name=Digest,type=string,JSONPath=`.spec.digests[0]`,priority=1,description="the first of them"
// +kubebuilder:printcolumn:name=Why,type=string,JSONPath=`.spec.reason`
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type ImageRevocation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec horkos.ImageRevocationSpec `json:"spec"`
	// +optional
	Status schema.Status `json:"status,omitempty"`
}

// ClusterAttestationPolicy says which authorities must have attested images in the namespaces that it selects.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=cap,categories=horkos
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=horkos"
// +kubebuilder:printcolumn:name=Authority,type=string,JSONPath=`.spec.authorities[0].name`,description="the first of them"
// +kubebuilder:printcolumn:name=Images,type=string,JSONPath=`.spec.images`,priority=1
// +kubebuilder:printcolumn:name=Enforcement,type=string,JSONPath=`.spec.enforcement`
// +kubebuilder:printcolumn:name=Require,type=string,JSONPath=`.spec.require`,priority=1
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterAttestationPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec horkos.ClusterAttestationPolicySpec `json:"spec"`
	// +optional
	Status schema.Status `json:"status,omitempty"`
}

// NodeGate is what a node says of its gate; it has the name of the node.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=ng,categories=horkos
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=horkos"
// +kubebuilder:printcolumn:name=Mode,type=string,JSONPath=`.status.mode`
// +kubebuilder:printcolumn:name=Ready,type=boolean,JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name=Policy,type=string,JSONPath=`.status.policyRevision`
// +kubebuilder:printcolumn:name=Synced,type=date,JSONPath=`.status.syncedAt`
// +kubebuilder:printcolumn:name=Allowed,type=integer,JSONPath=`.status.decisions[?(@.result=="allowed")].count`
// +kubebuilder:printcolumn:name=Denied,type=integer,JSONPath=`.status.decisions[?(@.result=="denied")].count`
// +kubebuilder:printcolumn:name=Runtime,type=string,JSONPath=`.status.runtimeVersion`
// +kubebuilder:printcolumn:name=Problem,type=string,JSONPath=`.status.problems[0]`,priority=1
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type NodeGate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Status horkos.NodeGateStatus `json:"status,omitempty"`
}
