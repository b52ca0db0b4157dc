package horkos

// NodeGateStatus is what a node says of its gate (cluster-scoped; the object has the name
// of the node, which writes it). A NodeGate has no spec. Times are of RFC 3339.
type NodeGateStatus struct {
	// Mode is enforce or audit.
	// +kubebuilder:validation:Enum=enforce;audit
	Mode string `json:"mode,omitempty"`
	// Version is that of horkos-node.
	// +kubebuilder:validation:MaxLength=128
	Version string `json:"version,omitempty"`
	// RuntimeVersion is the container runtime and its version.
	// +kubebuilder:validation:MaxLength=128
	RuntimeVersion string `json:"runtimeVersion,omitempty"`

	// PolicyRevision is that of the policies that the node decides by: equal wherever they are equal.
	// +kubebuilder:validation:MaxLength=64
	PolicyRevision string `json:"policyRevision,omitempty"`
	// SyncedAt is when the node last knew the objects of the cluster to be current.
	// +kubebuilder:validation:Format=date-time
	SyncedAt string `json:"syncedAt,omitempty"`

	// Ready tells whether the gate is in force; if it is not, Problems say why.
	Ready bool `json:"ready"`
	// Problems are what somebody should look at.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=512
	// +listType=atomic
	Problems []string `json:"problems,omitempty"`

	// Decisions counts what was decided since StartedAt, by result.
	// +kubebuilder:validation:MaxItems=5
	// +listType=map
	// +listMapKey=result
	Decisions []DecisionCount `json:"decisions,omitempty"`
	// StartedAt is when horkos-node started.
	// +kubebuilder:validation:Format=date-time
	StartedAt string `json:"startedAt,omitempty"`

	// AuditHead is the last record of the node's audit log.
	AuditHead *AuditHead `json:"auditHead,omitempty"`

	// ObservedAt is when all this was so.
	// +kubebuilder:validation:Format=date-time
	ObservedAt string `json:"observedAt,omitempty"`
}

// DecisionCount is how often a result was decided.
type DecisionCount struct {
	// Result is allowed, unresolved, unavailable, misconfigured or denied.
	// +kubebuilder:validation:Enum=allowed;unresolved;unavailable;misconfigured;denied
	Result string `json:"result"`
	// Count is how often.
	// +kubebuilder:validation:Minimum=0
	Count int64 `json:"count"`
}

// AuditHead names a record of an audit log. Who keeps it elsewhere finds out when the log
// is cut or written anew.
type AuditHead struct {
	// Seq is the number of the record.
	// +kubebuilder:validation:Minimum=0
	Seq int64 `json:"seq"`
	// Hash is the SHA-256 of the record's line, in hex.
	// +kubebuilder:validation:MaxLength=64
	Hash string `json:"hash"`
}
