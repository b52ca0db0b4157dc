// Package node puts the daemon of a node together: policies and evidence, the index of
// containerd's images, the gate at the runtime, health, and the service manager.
package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	yamlv3 "go.yaml.in/yaml/v3"
	strictjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/horkos/horkos/audit"
	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/plugin"
	"github.com/horkos/horkos/state"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/source"
)

// Config is how a node is run. Every field is a flag of horkos-node, and the file of
// --config has the same names in lowerCamelCase.
type Config struct {
	PolicyDir           string `json:"policyDir"`
	StateDir            string `json:"stateDir"`
	Kubeconfig          string `json:"kubeconfig"`
	InCluster           bool   `json:"inCluster"`
	NodeName            string `json:"nodeName"`
	MaximumPolicyAge    string `json:"maximumPolicyAge"`
	NRISocket           string `json:"nriSocket"`
	ContainerdAddress   string `json:"containerdAddress"`
	ContainerdNamespace string `json:"containerdNamespace"`
	Floor               string `json:"floor"`
	DefaultAction       string `json:"defaultAction"`
	Enforcement         string `json:"enforcement"`
	MaxSpecBytes        int    `json:"maxSpecBytes"`
	MaxSyncBytes        int    `json:"maxSyncBytes"`
	AuditLog            string `json:"auditLog"`
	AuditMaxBytes       int    `json:"auditMaxBytes"`
	AuditMaxFiles       int    `json:"auditMaxFiles"`
	AuditFailure        string `json:"auditFailure"`
	HealthAddress       string `json:"healthAddress"`
	LogFormat           string `json:"logFormat"`
	LogLevel            string `json:"logLevel"`

	// Sources are asked for evidence; there is no flag for them.
	Sources []source.Config `json:"sources"`
}

// Defaults are the values of what is not given. The default action has none when enforcing.
func Defaults() Config {
	return Config{
		PolicyDir:           "/etc/horkos/policies",
		StateDir:            "/var/lib/horkos",
		MaximumPolicyAge:    "168h",
		NRISocket:           "/var/run/nri/nri.sock",
		ContainerdAddress:   "/run/containerd/containerd.sock",
		ContainerdNamespace: "k8s.io",
		Enforcement:         string(gate.Enforce),
		MaxSpecBytes:        plugin.DefaultMaxSpecBytes,
		MaxSyncBytes:        plugin.DefaultMaxSyncBytes,
		AuditMaxBytes:       audit.DefaultMaxBytes,
		AuditMaxFiles:       audit.DefaultMaxFiles,
		AuditFailure:        string(gate.DenyAllowed),
		HealthAddress:       "/run/horkos/health.sock",
		LogFormat:           "text",
		LogLevel:            "info",
	}
}

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 1 << 20

// Load reads a configuration file over c: what the file does not say stays. A field that
// is unknown, repeated or in other letters is an error, and so is a second document.
func (c *Config) Load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	data, err := state.ReadAtMost(f, maxConfig)
	if err == nil {
		err = c.parse(data)
	}
	if err != nil {
		return fmt.Errorf("read the configuration %s: %w", path, err)
	}
	return nil
}

func (c *Config) parse(data []byte) error {
	documents := yamlv3.NewDecoder(bytes.NewReader(data))
	for n := 1; ; n++ {
		var document yamlv3.Node
		if err := documents.Decode(&document); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if n > 1 {
			return errors.New("more than one document")
		}
	}
	text, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return err
	}
	problems, err := strictjson.UnmarshalStrict(text, c)
	return errors.Join(append(problems, err)...)
}

// Complete fills in what follows from other fields, and says what is wrong or missing.
func (c *Config) Complete() error {
	var problems []string
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	for _, f := range []struct{ name, value string }{
		{"policy-dir", c.PolicyDir}, {"state-dir", c.StateDir}, {"nri-socket", c.NRISocket},
		{"containerd-address", c.ContainerdAddress}, {"containerd-namespace", c.ContainerdNamespace},
	} {
		if f.value == "" {
			bad("--%s is empty", f.name)
		}
	}
	if c.Kubeconfig != "" && c.InCluster {
		bad("--kubeconfig and --in-cluster: give one of them")
	}
	if age, err := time.ParseDuration(c.MaximumPolicyAge); err != nil || age < time.Minute || age > maxPolicyAge {
		bad("--maximum-policy-age: want a duration such as 168h, %v to %v, not %q", time.Minute, maxPolicyAge, c.MaximumPolicyAge)
	}
	if err := c.nameNode(); err != nil {
		bad("%v", err)
	}
	switch gate.Mode(c.Enforcement) {
	case gate.Enforce:
		if c.DefaultAction == "" {
			bad("--default-action allow|deny must be given when enforcing: it decides about images that no policy speaks of")
		}
		if c.Floor == "" {
			bad("--floor FILE must be given when enforcing: without the pause image on it no pod starts")
		}
	case gate.Audit:
	default:
		bad("--enforcement: want enforce or audit, not %q", c.Enforcement)
	}
	switch c.DefaultAction {
	case "", "allow", "deny":
	default:
		bad("--default-action: want allow or deny, not %q", c.DefaultAction)
	}
	if c.MaxSpecBytes < 1<<10 || c.MaxSpecBytes > plugin.MaxObjectBytes {
		bad("--max-spec-bytes: want %d to %d, not %d", 1<<10, plugin.MaxObjectBytes, c.MaxSpecBytes)
	}
	if c.MaxSyncBytes < 64<<10 || c.MaxSyncBytes > 4<<20 {
		bad("--max-sync-bytes: want %d to %d, not %d", 64<<10, 4<<20, c.MaxSyncBytes)
	}
	if c.AuditMaxBytes < 1<<20 || c.AuditMaxBytes > 1<<30 {
		bad("--audit-max-bytes: want %d to %d, not %d", 1<<20, 1<<30, c.AuditMaxBytes)
	}
	if c.AuditMaxFiles < 1 || c.AuditMaxFiles > 1000 {
		bad("--audit-max-files: want 1 to 1000, not %d", c.AuditMaxFiles)
	}
	switch gate.AuditFailure(c.AuditFailure) {
	case gate.DenyAllowed, gate.AllowAnyway:
	default:
		bad("--audit-failure: want deny-allowed or allow, not %q", c.AuditFailure)
	}
	if sources, err := source.Build(c.Sources); err != nil {
		bad("%v", err)
	} else {
		source.Close(sources)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		bad("--log-format: want text or json, not %q", c.LogFormat)
	}
	if _, err := c.Level(); err != nil {
		bad("%v", err)
	}
	if !strings.Contains(c.HealthAddress, "/") && c.HealthAddress != "" {
		if _, _, err := net.SplitHostPort(c.HealthAddress); err != nil {
			bad("--health-address: want host:port or the path of a unix socket, not %q", c.HealthAddress)
		}
	}
	if c.AuditLog == "" {
		c.AuditLog = filepath.Join(c.StateDir, "audit.log")
	}
	if len(problems) > 0 {
		return errors.New(strings.Join(problems, "; "))
	}
	return nil
}

// maxPolicyAge bounds how long what a cluster held is used without hearing of it.
const maxPolicyAge = 365 * 24 * time.Hour

// nameNode takes the name that the kubelet registers the node by where none is given.
func (c *Config) nameNode() error {
	if c.NodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("--node-name: ask for the host's name: %w", err)
		}
		if !c.cluster() {
			c.NodeName = name
			return nil
		}
		c.NodeName = strings.ToLower(name)
	}
	if !nodeName.MatchString(c.NodeName) || len(c.NodeName) > 253 {
		return fmt.Errorf("--node-name: %.80q is not a name that a node can have", c.NodeName)
	}
	return nil
}

// nodeName is a DNS-1123 subdomain.
var nodeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// cluster tells whether the node follows a cluster.
func (c *Config) cluster() bool { return c.Kubeconfig != "" || c.InCluster }

func (c *Config) policyAge() time.Duration {
	age, _ := time.ParseDuration(c.MaximumPolicyAge) // Complete has looked
	return age
}

// Level is the log level.
func (c *Config) Level() (slog.Level, error) {
	switch c.LogLevel {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("--log-level: want debug, info, warn or error, not %q", c.LogLevel)
}

// YAML is the configuration in the form of the file.
func (c *Config) YAML() ([]byte, error) { return yaml.Marshal(c) }

func (c *Config) defaultAction() verifier.DefaultAction {
	return verifier.DefaultAction(c.DefaultAction == "allow" || (c.DefaultAction == "" && c.Enforcement == string(gate.Audit)))
}
