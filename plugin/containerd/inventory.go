package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// Pinned is an image that CRI keeps from being collected: that of the sandboxes.
type Pinned struct {
	Name    string         // the record's; an image id where a tag has moved on from the content
	Digests []image.Digest // config, manifests and indexes; the config first
}

// Pinned are the images that CRI has pinned, which is none before the first pod, and none
// while the index knows none.
func (ix *Index) Pinned() ([]Pinned, error) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	var pinned []Pinned
	for name := range ix.catalog.pinned {
		points := ix.catalog.named(name)
		if points.fault != "" {
			ix.want(wish{target: points.digest})
			return nil, fmt.Errorf("the pinned image %q: %s", clip(name), points.fault)
		}
		p := Pinned{Name: name}
		for _, w := range points.ways {
			p.Digests = append(p.Digests, w.config)
			p.Digests = append(p.Digests, w.digests...)
		}
		pinned = append(pinned, p)
	}
	return pinned, nil
}

// maxRecord bounds the record of one container: the largest spec that CRI's own limits let through.
const maxRecord = 32 << 20

// maxAnswer bounds one list of CRI, in which strangers' annotations are.
const maxAnswer = 256 << 20

// Inventory is what runs on the node, as far as a plugin that registers is concerned.
type Inventory struct {
	// Large names the pods and containers that take more bytes than asked about to tell a plugin of.
	Large []string
	// Bytes is what it takes to tell a plugin of all, by Kubernetes namespace; "" has what
	// is in none. Estimated, never less than it is.
	Bytes map[string]int
	// Images are the names of the images of the containers there are.
	Images []string
}

// maxNamed bounds Inventory.Large: enough to act on, whatever a tenant made.
const maxNamed = 10

// namespaceLabel is how the kubelet labels containers; the labels of images cannot change it.
const namespaceLabel = "io.kubernetes.pod.namespace"

// Inventory goes through all sandboxes and containers. What a plugin would be told of
// one is estimated from its record, never less than it is.
func (c *Client) Inventory(ctx context.Context, large int) (Inventory, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	inv := Inventory{Bytes: map[string]int{}}
	note := func(what, id, namespace string, bytes int) {
		inv.Bytes[namespace] += bytes
		if bytes > large && len(inv.Large) < maxNamed {
			inv.Large = append(inv.Large, fmt.Sprintf("%s %.12s (%d bytes)", what, id, bytes))
		}
	}
	pods, err := c.runtime.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{}, grpc.MaxCallRecvMsgSize(maxAnswer))
	if err != nil {
		return inv, fmt.Errorf("list sandboxes: %w", err)
	}
	namespaces := make(map[string]string, len(pods.GetItems())) // by sandbox
	for _, p := range pods.GetItems() {
		namespaces[p.GetId()] = p.GetMetadata().GetNamespace()
		note(fmt.Sprintf("pod %s/%s", p.GetMetadata().GetNamespace(), p.GetMetadata().GetName()), p.GetId(), p.GetMetadata().GetNamespace(), proto.Size(p))
	}
	exited, err := c.exited(ctx)
	if err != nil {
		return inv, err
	}
	named := make(map[string]bool)
	err = c.eachContainer(ctx, func(ctr *containersapi.Container) {
		if name := ctr.GetImage(); !named[name] {
			named[name] = true
			inv.Images = append(inv.Images, name)
		}
		if _, isPod := namespaces[ctr.GetID()]; isPod || exited[ctr.GetID()] {
			return // told of as a pod, or not at all
		}
		namespace, known := namespaces[ctr.GetSandbox()]
		if !known {
			namespace = ctr.GetLabels()[namespaceLabel]
		}
		note("container", ctr.GetID(), namespace, recordSize(ctr))
	})
	return inv, err
}

// exited returns the containers that have ended, of which NRI does not tell. That is final.
func (c *Client) exited(ctx context.Context) (map[string]bool, error) {
	filter := &criapi.ContainerFilter{State: &criapi.ContainerStateValue{State: criapi.ContainerState_CONTAINER_EXITED}}
	r, err := c.runtime.ListContainers(ctx, &criapi.ListContainersRequest{Filter: filter}, grpc.MaxCallRecvMsgSize(maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("list exited containers: %w", err)
	}
	exited := make(map[string]bool, len(r.GetContainers()))
	for _, ctr := range r.GetContainers() {
		if ctr.GetState() == criapi.ContainerState_CONTAINER_EXITED {
			exited[ctr.GetId()] = true
		}
	}
	return exited, nil
}

// eachContainer goes through the records of all containers.
func (c *Client) eachContainer(ctx context.Context, do func(*containersapi.Container)) error {
	stream, err := c.containers.ListStream(ctx, &containersapi.ListContainersRequest{}, grpc.MaxCallRecvMsgSize(maxRecord))
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list containers: %w", err)
		}
		do(m.GetContainer())
	}
}

// Named are the candidates of the records of these names.
func (ix *Index) Named(names []string) []verifier.Candidate {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	var out []verifier.Candidate
	for _, name := range names {
		if r := ix.catalog.records[name]; r != nil {
			out = append(out, r.candidates()...)
		}
	}
	return out
}
