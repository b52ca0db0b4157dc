package node

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/horkos/horkos/plugin"
	"github.com/horkos/horkos/verifier"
)

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// enforcing is the least that must be given to enforce.
func enforcing() Config {
	c := Defaults()
	c.DefaultAction, c.Floor = "deny", "/etc/horkos/floor"
	return c
}

func TestTheExampleHasEveryFieldAndItsDefault(t *testing.T) {
	const example = "../docs/node.yaml"
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	var written map[string]any
	if err := yaml.Unmarshal(text, &written); err != nil {
		t.Fatal(err)
	}
	var loaded Config
	if err := loaded.Load(example); err != nil {
		t.Fatal(err)
	}
	if err := loaded.Complete(); err != nil {
		t.Error(err)
	}
	// What has no default is an example there.
	want := enforcing()
	want.Kubeconfig, want.NodeName = "/etc/kubernetes/kubelet.conf", "node-1"
	if err := want.Complete(); err != nil {
		t.Fatal(err)
	}
	if len(loaded.Sources) == 0 {
		t.Error("no source is in the example")
	}
	loaded.Sources = nil
	if !reflect.DeepEqual(loaded, want) {
		t.Errorf("got  %+v\nwant %+v", loaded, want)
	}
	fields := reflect.TypeFor[Config]()
	for i := range fields.NumField() {
		if name := fields.Field(i).Tag.Get("json"); written[name] == nil {
			t.Errorf("%s is not in the example", name)
		}
	}
}

func TestAConfigurationIsReadStrictly(t *testing.T) {
	tests := []struct {
		name, text, err string
	}{
		{"nothing", "", ""},
		{"comments only", "# nothing\n", ""},
		{"a field", "policyDir: /p\n", ""},
		{"a document with its mark", "---\npolicyDir: /p\n", ""},
		{"JSON", `{"policyDir": "/p"}`, ""},
		{"an unknown field", "policydirectory: /p\n", "policydirectory"},
		{"a field in other letters", "PolicyDir: /p\n", "PolicyDir"},
		{"a field as a flag", "policy-dir: /p\n", "policy-dir"},
		{"a field twice", "policyDir: /p\npolicyDir: /q\n", "policyDir"},
		{"a number for a text", "policyDir: 1\n", "policyDir"},
		{"a text for a number", "maxSpecBytes: much\n", "maxSpecBytes"},
		{"a second document", "policyDir: /p\n---\nstateDir: /s\n", "more than one document"},
		{"a list", "- policyDir\n", ""},
		{"no YAML", "{", "yaml"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := Defaults()
			err := c.Load(file(t, tt.text))
			switch {
			case tt.name == "a list":
				if err == nil {
					t.Error("read")
				}
			case tt.err == "" && err != nil:
				t.Error(err)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("got %v, want %q", err, tt.err)
			case strings.Contains(tt.text, "/p") && tt.err == "" && c.PolicyDir != "/p":
				t.Errorf("policyDir %q", c.PolicyDir)
			case c.StateDir != Defaults().StateDir && tt.err == "":
				t.Errorf("what was not written changed: %q", c.StateDir)
			}
		})
	}
	var c Config
	if err := c.Load(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there was read")
	}
	for n, ok := range map[int]bool{maxConfig: true, maxConfig + 1: false} {
		if err := c.Load(file(t, "#"+strings.Repeat("x", n-1))); (err == nil) != ok {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestWhatAConfigurationMayBe(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		err    string
	}{
		{"the least to enforce", func(*Config) {}, ""},
		{"no default action when enforcing", func(c *Config) { c.DefaultAction = "" }, "--default-action allow|deny must be given"},
		{"no floor when enforcing", func(c *Config) { c.Floor = "" }, "--floor FILE must be given"},
		{"neither when auditing", func(c *Config) { c.Enforcement, c.DefaultAction, c.Floor = "audit", "", "" }, ""},
		{"an enforcement that is none", func(c *Config) { c.Enforcement = "Enforce" }, "--enforcement: want enforce or audit"},
		{"no enforcement", func(c *Config) { c.Enforcement = "" }, "--enforcement"},
		{"a default action that is none", func(c *Config) { c.DefaultAction = "Deny" }, "--default-action: want allow or deny"},
		{"no policy folder", func(c *Config) { c.PolicyDir = "" }, "--policy-dir is empty"},
		{"no state folder", func(c *Config) { c.StateDir = "" }, "--state-dir is empty"},
		{"no namespace of containerd", func(c *Config) { c.ContainerdNamespace = "" }, "--containerd-namespace is empty"},
		{"the least spec", func(c *Config) { c.MaxSpecBytes = 1 << 10 }, ""},
		{"one byte less", func(c *Config) { c.MaxSpecBytes = 1<<10 - 1 }, "--max-spec-bytes"},
		{"the largest spec", func(c *Config) { c.MaxSpecBytes = plugin.MaxObjectBytes }, ""},
		{"one byte more", func(c *Config) { c.MaxSpecBytes = plugin.MaxObjectBytes + 1 }, "--max-spec-bytes"},
		{"the least sum", func(c *Config) { c.MaxSyncBytes = 64 << 10 }, ""},
		{"one byte less of the sum", func(c *Config) { c.MaxSyncBytes = 64<<10 - 1 }, "--max-sync-bytes"},
		{"the largest sum", func(c *Config) { c.MaxSyncBytes = 4 << 20 }, ""},
		{"one byte more of the sum", func(c *Config) { c.MaxSyncBytes = 4<<20 + 1 }, "--max-sync-bytes"},
		{"health nowhere", func(c *Config) { c.HealthAddress = "" }, ""},
		{"health on a port", func(c *Config) { c.HealthAddress = "127.0.0.1:9000" }, ""},
		{"health on an IPv6 port", func(c *Config) { c.HealthAddress = "[::1]:9000" }, ""},
		{"health on a host without a port", func(c *Config) { c.HealthAddress = "localhost" }, "--health-address"},
		{"a log format that is none", func(c *Config) { c.LogFormat = "xml" }, "--log-format"},
		{"a log level that is none", func(c *Config) { c.LogLevel = "loud" }, "--log-level"},
		{"a log level with an offset", func(c *Config) { c.LogLevel = "info+1" }, "--log-level"},
		{"several at once, in their order", func(c *Config) { c.PolicyDir, c.LogFormat = "", "xml" }, "--policy-dir is empty; --log-format: want text or json, not \"xml\""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := enforcing()
			tt.change(&c)
			err := c.Complete()
			if (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got %v, want %q", err, tt.err)
			}
		})
	}
}

func TestTheAuditLogIsInTheStateFolderUnlessSaid(t *testing.T) {
	c := enforcing()
	c.StateDir = "/s"
	if err := c.Complete(); err != nil || c.AuditLog != "/s/audit.log" {
		t.Errorf("audit log %q, %v", c.AuditLog, err)
	}
	c.AuditLog = "/elsewhere"
	if err := c.Complete(); err != nil || c.AuditLog != "/elsewhere" {
		t.Errorf("audit log %q, %v", c.AuditLog, err)
	}
}

func TestTheDefaultActionDeniesUnlessSaid(t *testing.T) {
	tests := []struct {
		enforcement, action string
		want                verifier.DefaultAction
	}{
		{"enforce", "deny", verifier.DenyByDefault}, {"enforce", "allow", verifier.AllowByDefault}, {"enforce", "", verifier.DenyByDefault},
		{"audit", "deny", verifier.DenyByDefault}, {"audit", "allow", verifier.AllowByDefault}, {"audit", "", verifier.AllowByDefault},
	}
	for _, tt := range tests {
		c := Config{Enforcement: tt.enforcement, DefaultAction: tt.action}
		if c.defaultAction() != tt.want {
			t.Errorf("%s, %q: %v", tt.enforcement, tt.action, c.defaultAction())
		}
	}
}

func TestAPrintedConfigurationIsReadAgain(t *testing.T) {
	want := enforcing()
	if err := want.Complete(); err != nil {
		t.Fatal(err)
	}
	text, err := want.YAML()
	if err != nil {
		t.Fatal(err)
	}
	var got Config
	if err := got.Load(file(t, string(text))); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}
