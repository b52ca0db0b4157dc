// Package schema and those below it have whole objects around the specs that the decoder
// reads, with the markers that the manifests of the CRDs are generated from (make
// generate). Nothing else uses them: the node reads specs only, and knows no apimachinery.
package schema

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Status is what the controller says of an object.
type Status struct {
	// ObservedGeneration is the generation of the object that the conditions are about.
	// +kubebuilder:validation:Minimum=0
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions tell how the object was understood. Ready is true when nodes can judge by it.
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
