// Package containerd answers one question: which content is it that containerd is about
// to run? It keeps an index of containerd's image records, current by image events, and
// ties a claim to what is in the content store and the snapshotter, or says why it cannot.
package containerd

// Claim is what NRI says about a container that containerd is about to create. Nothing
// in it is believed before it is bound.
type Claim struct {
	ContainerID    string
	SandboxID      string
	RuntimeHandler string // of the pod; empty is the default one

	// Requested is the container's annotation io.kubernetes.cri.image-name: the literal
	// image: of the pod.
	Requested string

	// Digest and ConfigDigest are Container.Image of NRI; both empty before containerd 2.4.
	Digest       string
	ConfigDigest string

	// Mounts are the sources of the container's mounts, as NRI shows them.
	Mounts []string
}

// withoutDigests tells a claim of containerd before 2.4.
func (c Claim) withoutDigests() bool { return c.Digest == "" && c.ConfigDigest == "" }
