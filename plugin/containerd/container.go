package containerd

import (
	"context"
	"errors"
	"fmt"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
)

// container is what binding reads of a container's record.
type container struct {
	image       string // the name of the record it was made from
	snapshotter string
	snapshotKey string
	spec        []byte // the OCI runtime specification as JSON
}

// containerOf gets the record of a container; a sandbox has one under its own id.
func (c *Client) containerOf(ctx context.Context, id string) (container, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := c.containers.Get(ctx, &containersapi.GetContainerRequest{ID: id})
	if err != nil {
		return container{}, fmt.Errorf("get container record %q: %w", clip(id), err)
	}
	got := r.GetContainer()
	if got.GetID() != id {
		return container{}, fmt.Errorf("containerd was asked for container %q and answered with %q", clip(id), clip(got.GetID()))
	}
	return container{
		image:       got.GetImage(),
		snapshotter: got.GetSnapshotter(),
		snapshotKey: got.GetSnapshotKey(),
		spec:        got.GetSpec().GetValue(),
	}, nil
}

// snapshotterOf returns the snapshotter in which CRI makes snapshots for a pod. Where the
// runtime handler has none of its own, it is containerd's default, which only the record
// of a sandbox tells; it is asked for once a connection.
func (ix *Index) snapshotterOf(ctx context.Context, handler, sandboxID string) (string, error) {
	ix.mu.Lock()
	if handler == "" {
		handler = ix.settings.DefaultHandler
	}
	name, known := ix.settings.Snapshotters[handler]
	if name == "" {
		name = ix.snapshotter
	}
	ix.mu.Unlock()
	if !known {
		return "", fmt.Errorf("containerd has no runtime handler %q", clip(handler))
	}
	if name != "" {
		return name, nil
	}
	sandbox, err := ix.client.containerOf(ctx, sandboxID)
	if err != nil {
		return "", fmt.Errorf("learn the default snapshotter from the sandbox: %w", err)
	}
	if sandbox.snapshotter == "" {
		return "", errors.New("learn the default snapshotter from the sandbox: its record names none")
	}
	ix.mu.Lock()
	ix.snapshotter = sandbox.snapshotter
	ix.mu.Unlock()
	return sandbox.snapshotter, nil
}

// unlearn forgets the default snapshotter: the sandbox that told may be older than
// containerd's present configuration.
func (ix *Index) unlearn() {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.snapshotter = ""
}
