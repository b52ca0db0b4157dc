package harness

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criTimeout is the kubelet's runtimeRequestTimeout, for calls whose context has no
// deadline.
const criTimeout = 2 * time.Minute

// CRI does with a container runtime what a kubelet (1.36) does, with the same fields
// in the requests wherever an image, a name or an identity is concerned. Errors wrap
// the runtime's own, whose text is what a kubelet shows.
type CRI struct {
	Runtime runtimeapi.RuntimeServiceClient // for what is not here
	Images  runtimeapi.ImageServiceClient

	logs   string // the folder of container logs
	cgroup string // the parent of all pods' cgroups
}

// The pull policies of a container.
const (
	PullIfNotPresent = "IfNotPresent" // the default
	PullAlways       = "Always"
	PullNever        = "Never"
)

func newCRI(conn *grpc.ClientConn, logs, cgroup string) *CRI {
	return &CRI{
		Runtime: runtimeapi.NewRuntimeServiceClient(conn),
		Images:  runtimeapi.NewImageServiceClient(conn),
		logs:    logs,
		cgroup:  cgroup,
	}
}

// Pull pulls an image as a pod names it and returns its id, the digest of its config.
func (c *CRI) Pull(ctx context.Context, image string) (string, error) {
	return c.pull(ctx, image, nil)
}

func (c *CRI) pull(ctx context.Context, image string, pod *Pod) (string, error) {
	ctx, cancel := withDefaultTimeout(ctx, criTimeout)
	defer cancel()
	request := &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: withDefaultTag(image)}}
	if pod != nil {
		request.SandboxConfig = pod.config
		request.Image.Annotations = pod.config.GetAnnotations()
	}
	response, err := c.Images.PullImage(ctx, request)
	if err != nil {
		return "", fmt.Errorf("pull %s: %w", image, err)
	}
	return response.GetImageRef(), nil
}

// Image is what the runtime knows of an image, by name, digest or id; nil if it has none.
func (c *CRI) Image(ctx context.Context, image string) (*runtimeapi.Image, error) {
	ctx, cancel := withDefaultTimeout(ctx, criTimeout)
	defer cancel()
	request := &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: withDefaultTag(image)}}
	response, err := c.Images.ImageStatus(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", image, err)
	}
	return response.GetImage(), nil
}

// RemoveImage removes an image with all its names. One that is not there is no error.
func (c *CRI) RemoveImage(ctx context.Context, image string) error {
	ctx, cancel := withDefaultTimeout(ctx, criTimeout)
	defer cancel()
	request := &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: image}}
	if _, err := c.Images.RemoveImage(ctx, request); err != nil {
		return fmt.Errorf("remove %s: %w", image, err)
	}
	return nil
}

// resolve returns the image id that the kubelet creates a container with
// (EnsureImageExists, package images of the kubelet): of what the runtime has under the name,
// or of what it pulls.
func (c *CRI) resolve(ctx context.Context, image, policy string, pod *Pod) (string, error) {
	switch policy {
	case PullAlways:
		return c.pull(ctx, image, pod)
	case "", PullIfNotPresent, PullNever:
	default:
		return "", fmt.Errorf("there is no pull policy %q", policy)
	}
	present, err := c.Image(ctx, image)
	if err != nil {
		return "", err
	}
	if present != nil {
		return present.GetId(), nil
	}
	if policy == PullNever {
		return "", errors.New("image " + image + " is not present and is never pulled")
	}
	return c.pull(ctx, image, pod)
}

// withDefaultTag adds :latest to a name without tag and digest, as the kubelet does.
// An image id, of 64 hexadecimal digits, stays as it is: a kubelet would refuse the bare one.
func withDefaultTag(image string) string {
	if strings.Contains(image, "@") || strings.Contains(image[strings.LastIndex(image, "/")+1:], ":") || len(image) == 64 {
		return image
	}
	return image + ":latest"
}
