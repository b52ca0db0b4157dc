// Package plugin is the gate at the runtime: an NRI plugin that is asked before
// containerd creates a container, and has the last word.
package plugin

// The names under which the gate registers. The index is the highest there is, so that
// no plugin adjusts a container after the gate looked at it. An auditing gate bears
// another name: required_plugins matches by name, and must not be satisfied by a gate
// that admits everything.
const (
	Index     = "99"
	Name      = "horkos"
	AuditName = "horkos-audit"

	FullName      = Index + "-" + Name
	AuditFullName = Index + "-" + AuditName
)

// GateName is the gate's name in audit records and metrics.
const GateName = "node"

// Annotations that containerd and the kubelet write, and that nobody else can: the first
// on the container, not on the pod, where the pod's author writes what he likes.
const (
	imageNameAnnotation    = "io.kubernetes.cri.image-name"
	configSourceAnnotation = "kubernetes.io/config.source"
)
