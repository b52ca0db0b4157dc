package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// What a kubelet puts on the machine whatever its settings: links to the logs of
// containers, and the socket for device plugins.
const (
	kubeletLogs    = "/var/log/containers"
	kubeletDir     = "/var/lib/kubelet"
	kubeletDevices = kubeletDir + "/device-plugins"
)

// KubeletOptions say what a kubelet works on.
type KubeletOptions struct {
	Containerd *Containerd

	// ControlPlane is what the kubelet registers with, as NodeName. Nil: it is standalone.
	ControlPlane *ControlPlane
	Kubeconfig   string   // with a ControlPlane: the path of that of the node; empty: one is made
	Network      *Network // with a ControlPlane: the node's address is the bridge's
}

// Kubelet is a kubelet. Standalone it knows no API server and runs static pods; else it is
// a node of a cluster.
type Kubelet struct {
	*Service

	Dir        string // everything of it is in it
	PodDir     string // the manifests of static pods
	Kubeconfig string // of the node; empty when standalone

	readOnlyPort int
}

// StartKubelet starts a kubelet and waits until it says that it is healthy; that its node
// is ready comes later. The run ends it, and its pods with it.
func (r *Run) StartKubelet(ctx context.Context, options KubeletOptions) (*Kubelet, error) {
	k, err := r.newKubelet(options)
	if err != nil {
		return nil, fmt.Errorf("prepare a kubelet: %w", err)
	}
	if err := k.Start(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

func (r *Run) newKubelet(options KubeletOptions) (*Kubelet, error) {
	dir, err := r.folder("k")
	if err != nil {
		return nil, err
	}
	k := &Kubelet{Dir: dir, PodDir: filepath.Join(dir, "manifests")}
	if err := os.Mkdir(k.PodDir, 0o700); err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	k.readOnlyPort = ports[1]
	if err := keepKernelSettings(r.Dir); err != nil {
		return nil, err
	}
	if err := keepAbsent(r.Dir, kubeletLogs, kubeletDevices+"/kubelet.sock", kubeletDevices, kubeletDir); err != nil {
		return nil, err
	}
	cgroup := filepath.Base(r.Dir) + "/" + filepath.Base(dir)
	if err := makeCgroup(cgroup); err != nil {
		return nil, err
	}
	settings := kubeletConfiguration(k, options.Containerd.Address, "/"+cgroup, ports)
	var flags []string
	if options.ControlPlane != nil {
		if options.Kubeconfig == "" {
			if options.Kubeconfig, err = options.ControlPlane.NodeKubeconfig(dir, NodeName); err != nil {
				return nil, err
			}
		}
		flags = k.join(options, settings)
	}
	config, err := json.Marshal(settings)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, err
	}
	argv := append([]string{
		r.tool("kubelet"),
		"--config=" + file,
		"--root-dir=" + filepath.Join(dir, "root"),
		"--cert-dir=" + filepath.Join(dir, "certs"),
		"--hostname-override=" + NodeName,
	}, flags...)
	health := fmt.Sprintf("http://127.0.0.1:%d/healthz", ports[2])
	k.Service = &Service{
		name: filepath.Base(dir) + " (kubelet)",
		log:  filepath.Join(dir, "kubelet.log"),
		run:  r,
		argv: func() ([]string, error) { return argv, nil },
		probe: func(ctx context.Context) error {
			_, err := get(ctx, http.DefaultClient, health)
			return err
		},
	}
	r.own(k.Service)
	return k, nil
}

// kubeletConfiguration is a KubeletConfiguration that leaves the machine alone as far
// as a kubelet can, and puts the cgroups of pods below the run's.
func kubeletConfiguration(k *Kubelet, containerd, cgroup string, ports []int) map[string]any {
	return map[string]any{
		"apiVersion":                       "kubelet.config.k8s.io/v1beta1",
		"kind":                             "KubeletConfiguration",
		"containerRuntimeEndpoint":         "unix://" + containerd,
		"staticPodPath":                    k.PodDir,
		"podLogsDir":                       filepath.Join(k.Dir, "logs"),
		"volumePluginDir":                  filepath.Join(k.Dir, "volume-plugins"),
		"address":                          "127.0.0.1",
		"port":                             ports[0],
		"readOnlyPort":                     ports[1],
		"healthzPort":                      ports[2],
		"healthzBindAddress":               "127.0.0.1",
		"authentication":                   map[string]any{"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": false}},
		"authorization":                    map[string]any{"mode": "AlwaysAllow"},
		"cgroupDriver":                     "cgroupfs",
		"cgroupRoot":                       cgroup,
		"enforceNodeAllocatable":           []string{},
		"failCgroupV1":                     false,
		"failSwapOn":                       false,
		"makeIPTablesUtilChains":           false,
		"localStorageCapacityIsolation":    false,
		"resolvConf":                       "",
		"oomScoreAdj":                      0,
		"imageGCHighThresholdPercent":      100,
		"evictionHard":                     map[string]string{"memory.available": "1Mi", "nodefs.available": "0.001%", "imagefs.available": "0.001%"},
		"evictionPressureTransitionPeriod": "0s",
		"fileCheckFrequency":               "1s",
	}
}

// join makes the settings those of a node of a cluster, as kubeadm has them, and returns
// the flags for that.
func (k *Kubelet) join(options KubeletOptions, settings map[string]any) []string {
	k.Kubeconfig = options.Kubeconfig
	settings["authentication"] = map[string]any{
		"anonymous": map[string]any{"enabled": false},
		"webhook":   map[string]any{"enabled": true},
		"x509":      map[string]any{"clientCAFile": options.ControlPlane.file("ca.crt")},
	}
	settings["authorization"] = map[string]any{"mode": "Webhook"}
	settings["syncFrequency"] = "5s" // not a minute until a mirror pod is tried again
	flags := []string{"--kubeconfig=" + k.Kubeconfig}
	if options.Network != nil {
		address := options.Network.Gateway.String()
		settings["address"] = address // where the API server asks for logs
		flags = append(flags, "--node-ip="+address)
	}
	return flags
}

// WriteStaticPod puts the manifest of a static pod, JSON or YAML, in place.
func (k *Kubelet) WriteStaticPod(name string, manifest []byte) error {
	return writeAtomically(filepath.Join(k.PodDir, name), manifest)
}

// RemoveStaticPod removes the manifest: the kubelet ends the pod.
func (k *Kubelet) RemoveStaticPod(name string) error {
	if err := os.Remove(filepath.Join(k.PodDir, name)); err != nil {
		return fmt.Errorf("remove a static pod: %w", err)
	}
	return nil
}

// ContainerState is the state of a container as the kubelet would tell the API server.
type ContainerState struct {
	State   string // "waiting", "running" or "terminated"
	Reason  string // CreateContainerError, Completed, ...
	Message string // why it waits: what the runtime, and so the gate, said
}

// Containers are the states of the containers the kubelet looks after, those of init
// containers among them, by namespace/pod/container. A static pod's name ends in "-" and
// NodeName. In a cluster the state of a static pod is that of its mirror: while the API
// server is away it is not known here.
func (k *Kubelet) Containers(ctx context.Context) (map[string]ContainerState, error) {
	body, err := get(ctx, http.DefaultClient, fmt.Sprintf("http://127.0.0.1:%d/pods", k.readOnlyPort))
	if err != nil {
		return nil, fmt.Errorf("ask the kubelet for its pods: %w", err)
	}
	var pods struct {
		Items []struct {
			Metadata struct{ Namespace, Name string }
			Status   struct{ InitContainerStatuses, ContainerStatuses []containerStatus }
		}
	}
	if err := json.Unmarshal([]byte(body), &pods); err != nil {
		return nil, fmt.Errorf("read the kubelet's pods: %w", err)
	}
	states := make(map[string]ContainerState)
	for _, pod := range pods.Items {
		for _, status := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
			for state, detail := range status.State {
				key := pod.Metadata.Namespace + "/" + pod.Metadata.Name + "/" + status.Name
				states[key] = ContainerState{State: state, Reason: detail.Reason, Message: detail.Message}
			}
		}
	}
	return states, nil
}

// containerStatus is what is needed of a v1.ContainerStatus, whose state has one key.
type containerStatus struct {
	Name  string
	State map[string]struct{ Reason, Message string }
}

// get returns the body of an answer with status 200; another status is an error.
func get(ctx context.Context, client *http.Client, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return string(body), fmt.Errorf("%s: %s: %s", url, response.Status, body)
	}
	return string(body), nil
}

// freePorts finds ports of the loopback interface that nothing listens on now.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer listener.Close() // only when all are found, so that they differ
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// writeAtomically puts a file in place by rename, so that nobody reads half of it.
func writeAtomically(path string, content []byte) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}
