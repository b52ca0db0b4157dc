package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// NodeName is the name of the node, for the kubelet.
const NodeName = "node"

// NodeOptions are the flags of a horkos-node; an empty one is not given, unless
// something else is said here.
type NodeOptions struct {
	Containerd *Containerd // gives --nri-socket and --containerd-address

	DefaultAction string // "allow" or "deny"; must be given when enforcing
	Enforcement   string // "enforce" or "audit"
	MaxSpecBytes  int
	MaxSyncBytes  int
	LogLevel      string // "debug" if empty
	Config        string // path

	// Floor are the lines of the floor file. Nil: the digest of the registry's pause
	// image. Empty but not nil: no --floor.
	Floor []string

	Args []string // after the others
	Env  []string // KEY=value, beside the environment of this process

	// Within is the program, with its arguments, that becomes the node: {"unshare", "--net"}
	// runs it without a network.
	Within []string
}

// Node is a horkos-node. Its folders outlive its restarts.
type Node struct {
	*Service

	Dir       string // everything below is in it
	PolicyDir string
	StateDir  string
	FloorFile string
	AuditFile string

	client *http.Client // to the health socket
}

// StartNode starts a horkos-node and waits until it is ready: registered with
// containerd and synchronised. The run ends it.
func (r *Run) StartNode(ctx context.Context, options NodeOptions) (*Node, error) {
	n, err := r.NewNode(options)
	if err != nil {
		return nil, err
	}
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	return n, nil
}

// NewNode prepares a horkos-node, with an empty policy folder, and does not start it:
// for policies that must be there first (WritePolicy), and for starts that should fail.
func (r *Run) NewNode(options NodeOptions) (*Node, error) {
	dir, err := r.folder("n")
	if err != nil {
		return nil, err
	}
	n := &Node{
		Dir:       dir,
		PolicyDir: filepath.Join(dir, "policies"),
		StateDir:  filepath.Join(dir, "state"),
		FloorFile: filepath.Join(dir, "floor"),
		AuditFile: filepath.Join(dir, "audit.log"),
		client:    unixClient(filepath.Join(dir, "health.sock")),
	}
	if err := os.Mkdir(n.PolicyDir, 0o700); err != nil {
		return nil, fmt.Errorf("prepare horkos-node: %w", err)
	}
	if options.Floor == nil && options.Containerd.pause.Digest != "" {
		options.Floor = []string{options.Containerd.pause.Digest}
	}
	if err := n.WriteFloor(options.Floor...); err != nil {
		return nil, fmt.Errorf("prepare horkos-node: %w", err)
	}
	argv := slices.Concat(options.Within, []string{filepath.Join(r.root, "bin", "horkos-node")}, n.flags(options))
	n.Service = &Service{
		name:  filepath.Base(dir) + " (horkos-node)",
		log:   filepath.Join(dir, "horkos-node.log"),
		run:   r,
		argv:  func() ([]string, error) { return argv, nil },
		env:   options.Env,
		probe: n.readyz,
	}
	r.own(n.Service)
	return n, nil
}

func (n *Node) flags(options NodeOptions) []string {
	flags := []string{
		"--policy-dir=" + n.PolicyDir,
		"--state-dir=" + n.StateDir,
		"--audit-log=" + n.AuditFile,
		"--health-address=" + filepath.Join(n.Dir, "health.sock"),
		"--nri-socket=" + options.Containerd.NRISocket,
		"--containerd-address=" + options.Containerd.Address,
		"--containerd-namespace=" + Namespace,
		"--log-format=text",
		"--log-level=" + orElse(options.LogLevel, "debug"),
	}
	if len(options.Floor) > 0 {
		flags = append(flags, "--floor="+n.FloorFile)
	}
	given := func(flag, value string) {
		if value != "" && value != "0" {
			flags = append(flags, "--"+flag+"="+value)
		}
	}
	given("default-action", options.DefaultAction)
	given("enforcement", options.Enforcement)
	given("max-spec-bytes", strconv.Itoa(options.MaxSpecBytes))
	given("max-sync-bytes", strconv.Itoa(options.MaxSyncBytes))
	given("config", options.Config)
	return append(flags, options.Args...)
}

// WritePolicy puts a file in the policy folder, by rename.
func (n *Node) WritePolicy(name, content string) error {
	return writeAtomically(filepath.Join(n.PolicyDir, name), []byte(content))
}

// RemovePolicy removes a file from the policy folder.
func (n *Node) RemovePolicy(name string) error {
	if err := os.Remove(filepath.Join(n.PolicyDir, name)); err != nil {
		return fmt.Errorf("remove a policy: %w", err)
	}
	return nil
}

// WriteFloor replaces the lines of the floor file, by rename.
func (n *Node) WriteFloor(lines ...string) error {
	var content bytes.Buffer
	for _, line := range lines {
		content.WriteString(line + "\n")
	}
	return writeAtomically(n.FloorFile, content.Bytes())
}

// Get returns the answer to GET path ("/readyz", "/metrics") on the health socket; a
// status other than 200 is an error, beside the body.
func (n *Node) Get(ctx context.Context, path string) (string, error) {
	return get(ctx, n.client, "http://node"+path)
}

func (n *Node) readyz(ctx context.Context) error {
	_, err := n.Get(ctx, "/readyz")
	return err
}

// AuditRecord is one line of the audit log, with the keys that tests look at; Line has
// all of them.
type AuditRecord struct {
	Seq         int64     `json:"seq"`
	Time        time.Time `json:"time"`
	Gate        string    `json:"gate"`
	Result      string    `json:"result"`
	Reason      string    `json:"reason"`
	Enforcement string    `json:"enforcement"`
	Admitted    bool      `json:"admitted"`
	Namespace   string    `json:"namespace"`
	Pod         string    `json:"pod"`
	UID         string    `json:"uid"`
	Container   string    `json:"container"`
	Static      bool      `json:"static"`
	Image       string    `json:"image"`
	Message     string    `json:"message"`

	Line json.RawMessage `json:"-"`
}

// Audit reads the audit log: the complete lines of the current file, and none if there
// is no file yet.
func (n *Node) Audit() ([]AuditRecord, error) {
	content, err := os.ReadFile(n.AuditFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	var records []AuditRecord
	for line := range bytes.Lines(content) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // being written
		}
		record := AuditRecord{Line: bytes.TrimSpace(line)}
		if err := json.Unmarshal(line, &record); err != nil {
			return nil, fmt.Errorf("read the audit log, line %d: %w", len(records)+1, err)
		}
		records = append(records, record)
	}
	return records, nil
}

// unixClient is an HTTP client for the server at a unix socket. Connections are not kept:
// a server that was killed would leave a dead one.
func unixClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", path)
		},
	}}
}
