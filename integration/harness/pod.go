package harness

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The labels of pods and containers that the kubelet sets (package
// k8s.io/kubelet/pkg/types).
const (
	labelPodName       = "io.kubernetes.pod.name"
	labelPodNamespace  = "io.kubernetes.pod.namespace"
	labelPodUID        = "io.kubernetes.pod.uid"
	labelContainerName = "io.kubernetes.container.name"
)

// PodConfig describes a pod on the host's network.
type PodConfig struct {
	Name        string // "pod" if empty
	Namespace   string // "default" if empty
	UID         string // made up if empty
	Labels      map[string]string
	Annotations map[string]string
}

// Pod is a running pod sandbox.
type Pod struct {
	ID        string // of the sandbox
	Namespace string
	Name      string
	UID       string

	config *runtimeapi.PodSandboxConfig
}

// RunPod runs the sandbox of a pod, and no container in it.
func (c *CRI) RunPod(ctx context.Context, pod PodConfig) (*Pod, error) {
	ctx, cancel := withDefaultTimeout(ctx, criTimeout)
	defer cancel()
	p := &Pod{Name: orElse(pod.Name, "pod"), Namespace: orElse(pod.Namespace, "default"), UID: orElse(pod.UID, rand.Text())}
	p.config = c.sandboxConfig(p, pod)
	if err := os.MkdirAll(p.config.GetLogDirectory(), 0o700); err != nil {
		return nil, fmt.Errorf("run pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	response, err := c.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: p.config})
	if err != nil {
		return nil, fmt.Errorf("run pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	p.ID = response.GetPodSandboxId()
	return p, nil
}

func (c *CRI) sandboxConfig(p *Pod, pod PodConfig) *runtimeapi.PodSandboxConfig {
	labels := make(map[string]string)
	maps.Copy(labels, pod.Labels)
	maps.Copy(labels, p.identity()) // over the pod's own
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: p.Name, Namespace: p.Namespace, Uid: p.UID},
		LogDirectory: filepath.Join(c.logs, p.Namespace+"_"+p.Name+"_"+p.UID),
		Labels:       labels,
		Annotations:  pod.Annotations,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: "/" + c.cgroup + "/pod" + p.UID,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: hostNetwork(),
				Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
			},
		},
	}
}

func (p *Pod) identity() map[string]string {
	return map[string]string{labelPodName: p.Name, labelPodNamespace: p.Namespace, labelPodUID: p.UID}
}

// RemovePod stops and removes a pod with its containers, without grace.
func (c *CRI) RemovePod(ctx context.Context, pod *Pod) error {
	ctx, cancel := withDefaultTimeout(ctx, criTimeout)
	defer cancel()
	if _, err := c.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod.ID}); err != nil {
		return fmt.Errorf("stop pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if _, err := c.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod.ID}); err != nil {
		return fmt.Errorf("remove pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// Pods lists the sandboxes, those that are not ready too.
func (c *CRI) Pods(ctx context.Context) ([]*runtimeapi.PodSandbox, error) {
	ctx, cancel := withDefaultTimeout(ctx, criTimeout)
	defer cancel()
	response, err := c.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	return response.GetItems(), nil
}

// ContainerConfig describes a container of a pod.
type ContainerConfig struct {
	Name string // "main" if empty

	// Image is the image as the pod names it. The kubelet resolves it to an image id by
	// PullPolicy (IfNotPresent if empty), and creates the container with both.
	Image      string
	PullPolicy string

	// ImageRef is sent instead of the image id, unless it is empty: an id that was
	// resolved earlier, or a name, as other clients of CRI send one.
	ImageRef string

	Command     []string
	Args        []string
	Env         map[string]string
	Labels      map[string]string // the kubelet sends none but its own, which win
	Annotations map[string]string
	Volumes     []ImageVolume
	Attempt     uint32 // a second container of one name in a pod needs another
}

// ImageVolume is an image mounted in a container, resolved as the container's own is.
type ImageVolume struct {
	Image      string
	PullPolicy string
	ImageRef   string // as in ContainerConfig
	Path       string // in the container
	SubPath    string // in the image
}

// CreateContainer creates a container and returns its id. This is the call that a gate
// refuses.
func (c *CRI) CreateContainer(ctx context.Context, pod *Pod, container ContainerConfig) (string, error) {
	ctx, cancel := withDefaultTimeout(ctx, criTimeout)
	defer cancel()
	config, err := c.containerConfig(ctx, pod, container)
	if err != nil {
		return "", fmt.Errorf("create container of %s: %w", container.Image, err)
	}
	response, err := c.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: pod.ID, Config: config, SandboxConfig: pod.config,
	})
	if err != nil {
		return "", fmt.Errorf("create container of %s: %w", container.Image, err)
	}
	return response.GetContainerId(), nil
}

func (c *CRI) containerConfig(ctx context.Context, pod *Pod, container ContainerConfig) (*runtimeapi.ContainerConfig, error) {
	image, err := c.imageSpec(ctx, pod, container.Image, container.PullPolicy, container.ImageRef)
	if err != nil {
		return nil, err
	}
	name := orElse(container.Name, "main")
	labels := make(map[string]string)
	maps.Copy(labels, container.Labels)
	maps.Copy(labels, pod.identity())
	labels[labelContainerName] = name
	config := &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: name, Attempt: container.Attempt},
		Image:       image,
		Command:     container.Command,
		Args:        container.Args,
		Labels:      labels,
		Annotations: container.Annotations,
		LogPath:     fmt.Sprintf("%s_%d.log", name, container.Attempt),
		Linux: &runtimeapi.LinuxContainerConfig{
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: hostNetwork(),
				Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined},
			},
		},
	}
	for _, key := range slices.Sorted(maps.Keys(container.Env)) {
		config.Envs = append(config.Envs, &runtimeapi.KeyValue{Key: key, Value: []byte(container.Env[key])})
	}
	for _, volume := range container.Volumes {
		image, err := c.imageSpec(ctx, pod, volume.Image, volume.PullPolicy, volume.ImageRef)
		if err != nil {
			return nil, err
		}
		image.Annotations = pod.config.GetAnnotations()
		config.Mounts = append(config.Mounts, &runtimeapi.Mount{
			ContainerPath: volume.Path, Readonly: true, Image: image, ImageSubPath: volume.SubPath,
		})
	}
	return config, nil
}

// imageSpec is what the kubelet sends in a create: the image id, and what the pod says.
func (c *CRI) imageSpec(ctx context.Context, pod *Pod, image, policy, ref string) (*runtimeapi.ImageSpec, error) {
	if ref == "" {
		var err error
		if ref, err = c.resolve(ctx, image, policy, pod); err != nil {
			return nil, err
		}
	}
	return &runtimeapi.ImageSpec{Image: ref, UserSpecifiedImage: image}, nil
}

// StartContainer starts a created container.
func (c *CRI) StartContainer(ctx context.Context, id string) error {
	ctx, cancel := withDefaultTimeout(ctx, criTimeout)
	defer cancel()
	if _, err := c.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		return fmt.Errorf("start container %s: %w", id, err)
	}
	return nil
}

// RunContainer creates and starts a container and returns its id.
func (c *CRI) RunContainer(ctx context.Context, pod *Pod, container ContainerConfig) (string, error) {
	id, err := c.CreateContainer(ctx, pod, container)
	if err != nil {
		return "", err
	}
	return id, c.StartContainer(ctx, id)
}

// StopContainer stops a container: SIGTERM, and SIGKILL after the grace, to the second.
func (c *CRI) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	ctx, cancel := withDefaultTimeout(ctx, criTimeout)
	defer cancel()
	request := &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: int64(grace / time.Second)}
	if _, err := c.Runtime.StopContainer(ctx, request); err != nil {
		return fmt.Errorf("stop container %s: %w", id, err)
	}
	return nil
}

// RemoveContainer removes a container, running or not.
func (c *CRI) RemoveContainer(ctx context.Context, id string) error {
	ctx, cancel := withDefaultTimeout(ctx, criTimeout)
	defer cancel()
	if _, err := c.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id}); err != nil {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	return nil
}

// Container is the status of a container.
func (c *CRI) Container(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	ctx, cancel := withDefaultTimeout(ctx, criTimeout)
	defer cancel()
	response, err := c.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return nil, fmt.Errorf("look up container %s: %w", id, err)
	}
	return response.GetStatus(), nil
}

// Containers lists the containers that exist, in any state; sandboxes are not among them.
func (c *CRI) Containers(ctx context.Context) ([]*runtimeapi.Container, error) {
	ctx, cancel := withDefaultTimeout(ctx, criTimeout)
	defer cancel()
	response, err := c.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return response.GetContainers(), nil
}

// Exec runs a command in a running container and returns what it wrote to standard
// output; another exit code than 0 is an error.
func (c *CRI) Exec(ctx context.Context, id string, command ...string) (string, error) {
	ctx, cancel := withDefaultTimeout(ctx, criTimeout)
	defer cancel()
	response, err := c.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: 30})
	if err != nil {
		return "", fmt.Errorf("run %q in container %s: %w", command, id, err)
	}
	if response.GetExitCode() != 0 {
		return "", fmt.Errorf("run %q in container %s: exit code %d: %s", command, id, response.GetExitCode(), response.GetStderr())
	}
	return string(response.GetStdout()), nil
}

func hostNetwork() *runtimeapi.NamespaceOption {
	return &runtimeapi.NamespaceOption{
		Network: runtimeapi.NamespaceMode_NODE,
		Pid:     runtimeapi.NamespaceMode_CONTAINER,
		Ipc:     runtimeapi.NamespaceMode_POD,
	}
}

func orElse(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
