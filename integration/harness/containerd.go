package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The releases of containerd that the harness runs.
const (
	Containerd24 = "2.4" // fills Container.Image in NRI
	Containerd22 = "2.2" // the oldest with NRI validators; does not
)

// Namespace is the containerd namespace of Kubernetes' containers and images.
const Namespace = "k8s.io"

// ContainerdOptions say how containerd is configured. The zero value is a containerd
// 2.4 with NRI on, nothing required, and no registry to pull from.
type ContainerdOptions struct {
	Version  string    // Containerd24 if empty, or Containerd22
	Registry *Registry // serves every registry host; nil: nothing can be pulled

	// Pause is the image of the sandboxes, PauseImage if empty.
	Pause string

	// Snapshotter is overlayfs if empty and possible here, else native.
	Snapshotter string

	NRI NRIOptions

	// Extra is a drop-in file of configuration (version 3, without its version line),
	// merged over the rest as containerd merges files.
	Extra string
}

// NRIOptions are the settings of containerd's NRI plugin. Unless Disabled, containerd
// requires the plugin at its top level, and so does not run without NRI.
type NRIOptions struct {
	Disabled           bool
	RequiredPlugins    []string      // not empty: the default validator is on and requires them
	RequestTimeout     time.Duration // plugin_request_timeout, 0: containerd's default (2s)
	DisableConnections bool          // no plugin may connect by the socket
}

// Containerd is a containerd with folders and sockets of its own. After an end and a new
// start the clients reconnect by themselves.
type Containerd struct {
	*Service

	Dir       string // everything below is in it
	Address   string // path of its gRPC socket
	NRISocket string // path
	State     string // its state folder, with image-volumes and rootfs mounts
	PluginDir string // pre-registered NRI plugins are started from here, at containerd's start

	Conn *grpc.ClientConn // to Address, for the stubs of containerd/api
	CRI  *CRI

	pause Pushed // what the registry has as pause image; zero without registry
}

// StartContainerd starts a containerd and waits until it serves CRI, which takes about
// a second. The run ends it.
func (r *Run) StartContainerd(ctx context.Context, options ContainerdOptions) (*Containerd, error) {
	c, err := r.newContainerd(options)
	if err != nil {
		return nil, fmt.Errorf("prepare containerd: %w", err)
	}
	if err := c.Start(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

func (r *Run) newContainerd(options ContainerdOptions) (*Containerd, error) {
	dir, err := r.folder("c")
	if err != nil {
		return nil, err
	}
	bin := r.tool("containerd")
	switch options.Version {
	case "", Containerd24:
	case Containerd22:
		bin = r.tool("containerd-2.2/containerd")
		if err := keepAbsent(r.Dir, "/run/containerd/s", "/run/containerd"); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("there is no containerd %q here", options.Version)
	}
	c := &Containerd{
		Dir:       dir,
		Address:   filepath.Join(dir, "containerd.sock"),
		NRISocket: filepath.Join(dir, "nri", "nri.sock"),
		State:     filepath.Join(dir, "state"),
		PluginDir: filepath.Join(dir, "nri", "plugins"),
	}
	if options.Registry != nil {
		c.pause = options.Registry.Pause
	}
	config := filepath.Join(dir, "config.toml")
	if err := c.configure(r, config, options); err != nil {
		return nil, err
	}
	if err := c.dial(); err != nil {
		return nil, err
	}
	c.CRI = newCRI(c.Conn, filepath.Join(dir, "logs"), filepath.Base(r.Dir))
	c.Service = &Service{
		name: filepath.Base(dir) + " (containerd)",
		log:  filepath.Join(dir, "containerd.log"),
		run:  r,
		argv: func() ([]string, error) { return []string{bin, "--config", config}, nil },
		// The shim is looked for on the path, and must be of containerd's version.
		env:   []string{"PATH=" + filepath.Dir(bin) + ":" + os.Getenv("PATH")},
		probe: c.serves,
	}
	r.own(c.Service)
	r.onClose(c.Conn.Close)
	return c, nil
}

func (c *Containerd) dial() error {
	conn, err := grpc.NewClient("unix://"+c.Address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20), grpc.MaxCallSendMsgSize(16<<20)),
		// The socket is gone while containerd restarts; waiting longer would only be slow.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.2, MaxDelay: 100 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}))
	if err != nil {
		return fmt.Errorf("make a client for %s: %w", c.Address, err)
	}
	c.Conn = conn
	return nil
}

// serves looks whether CRI says that containers can be run. The network is not ready,
// since there is no CNI plugin: pods of the harness use the host's.
func (c *Containerd) serves(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	status, err := c.CRI.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return err
	}
	for _, condition := range status.GetStatus().GetConditions() {
		if condition.GetType() == runtimeapi.RuntimeReady && condition.GetStatus() {
			return nil
		}
	}
	return errors.New("the runtime is not ready")
}

// Ctr runs containerd's ctr in the namespace of Kubernetes and returns its standard
// output: Ctr(ctx, "images", "tag", "--force", from, to).
func (c *Containerd) Ctr(ctx context.Context, arguments ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.run.tool("ctr"), append([]string{"--address", c.Address, "--namespace", Namespace}, arguments...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("ctr %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// configure writes the configuration of containerd, and the folders it speaks of.
func (c *Containerd) configure(r *Run, file string, options ContainerdOptions) error {
	for _, name := range []string{"conf.d", "certs.d/_default", "nri/plugins", "nri/conf.d", "logs"} {
		if err := os.MkdirAll(filepath.Join(c.Dir, name), 0o700); err != nil {
			return err
		}
	}
	values := configuration{
		ContainerdOptions: options,
		Dir:               c.Dir,
		State:             c.State,
		Address:           c.Address,
		NRISocket:         c.NRISocket,
		Runtime:           r.tool("runtime"),
		ShimSocketDir:     options.Version != Containerd22,
	}
	if values.Pause == "" {
		values.Pause = PauseImage
	}
	if values.Snapshotter == "" {
		values.Snapshotter = snapshotter(c.Dir)
	}
	var text bytes.Buffer
	if err := configTemplate.Execute(&text, values); err != nil {
		return fmt.Errorf("write containerd's configuration: %w", err)
	}
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.Dir, "conf.d", "extra.toml"), []byte("version = 3\n"+options.Extra), 0o600); err != nil {
		return err
	}
	// Without a registry every pull fails, at an address that nothing listens on.
	mirror := "http://127.0.0.1:9"
	if options.Registry != nil {
		mirror = "http://" + options.Registry.Address
	}
	hosts := fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n", mirror, mirror)
	return os.WriteFile(filepath.Join(c.Dir, "certs.d", "_default", "hosts.toml"), []byte(hosts), 0o600)
}

type configuration struct {
	ContainerdOptions
	Dir, State, Address, NRISocket, Runtime string
	ShimSocketDir                           bool // 2.2 does not know the setting
}

// configTemplate is containerd's configuration. restrict_oom_score_adj lets pods run
// where the machine gives root no CAP_SYS_RESOURCE.
var configTemplate = template.Must(template.New("config.toml").Parse(`version = 3
root = '{{.Dir}}/root'
state = '{{.State}}'
imports = ['{{.Dir}}/conf.d/*.toml']
{{if not .NRI.Disabled}}required_plugins = ['io.containerd.nri.v1.nri']
{{end}}
[grpc]
address = '{{.Address}}'

[plugins.'io.containerd.internal.v1.opt']
path = '{{.Dir}}/opt'
{{if .ShimSocketDir}}
[plugins.'io.containerd.shim.v1.manager']
socket_dir = '{{.Dir}}/s'
{{end}}
[plugins.'io.containerd.image-verifier.v1.bindir']
bin_dir = '{{.Dir}}/image-verifiers'

[plugins.'io.containerd.cri.v1.images']
snapshotter = '{{.Snapshotter}}'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{{.Pause}}'
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '{{.Dir}}/certs.d'
{{if ne .Snapshotter "overlayfs"}}
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
platform = 'linux'
snapshotter = '{{.Snapshotter}}'
{{end}}
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
cdi_spec_dirs = []
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{{.Dir}}/cni']
conf_dir = '{{.Dir}}/cni'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '{{.Runtime}}'
Root = '{{.Dir}}/runc'
SystemdCgroup = false

[plugins.'io.containerd.nri.v1.nri']
disable = {{.NRI.Disabled}}
disable_connections = {{.NRI.DisableConnections}}
socket_path = '{{.NRISocket}}'
plugin_path = '{{.Dir}}/nri/plugins'
plugin_config_path = '{{.Dir}}/nri/conf.d'
{{if .NRI.RequestTimeout}}plugin_request_timeout = '{{.NRI.RequestTimeout}}'
{{end}}{{if .NRI.RequiredPlugins}}
[plugins.'io.containerd.nri.v1.nri'.default_validator]
enable = true
required_plugins = [{{range .NRI.RequiredPlugins}}'{{.}}', {{end}}]
tolerate_missing_plugins_annotation = ''
{{end}}`))
