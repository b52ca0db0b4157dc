// Package systemd tests the files that put horkos-node on a host. What they do is proven in
// integration/suites, under a real systemd and a real containerd.
package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/horkos/horkos/node"
	"github.com/horkos/horkos/plugin"
)

const (
	unitFile = "horkos-node.service"
	dropIn   = "zz-horkos.toml"
	example  = "../docs/node.yaml"
)

// maxExposure is ten times the exposure that systemd-analyze may tell.
const maxExposure = "20"

// analyze runs systemd-analyze, which must be there in continuous integration.
func analyze(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("HORKOS_INTEGRATION") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	out, err := exec.Command(path, arguments...).CombinedOutput()
	return string(out), err
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// settings are those of the unit, the last of each name.
func settings(t *testing.T) map[string]string {
	t.Helper()
	values := make(map[string]string)
	for line := range strings.Lines(read(t, unitFile)) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok && !strings.HasPrefix(name, "#") {
			values[name] = value
		}
	}
	return values
}

func TestTheUnitHasNoMistakeThatSystemdKnows(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "horkos-node")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	// The program is not installed where this runs.
	text := strings.Replace(read(t, unitFile), "/usr/local/bin/horkos-node", program, 1)
	for name, test := range map[string]struct {
		text string
		ok   bool
	}{
		"as it is":               {text, true},
		"with a misspelt name":   {text + "[Service]\nProtectSistem=strict\n", false},
		"with a value of no use": {text + "[Service]\nWatchdogSec=soon\n", false},
	} {
		unit := filepath.Join(dir, unitFile)
		if err := os.WriteFile(unit, []byte(test.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := analyze(t, "verify", "--man=no", unit); (err == nil && out == "") != test.ok {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestTheUnitsExposureIsAtMostTwo(t *testing.T) {
	if out, err := analyze(t, "security", "--offline=true", "--threshold="+maxExposure, unitFile); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	open := filepath.Join(t.TempDir(), unitFile)
	text := strings.NewReplacer("ProtectSystem=strict\n", "", "CapabilityBoundingSet=\n", "").Replace(read(t, unitFile))
	if err := os.WriteFile(open, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := analyze(t, "security", "--offline=true", "--threshold="+maxExposure, open); err == nil {
		t.Error("a unit with all capabilities passes as well")
	}
}

// TestTheUnitAndTheExampleOfAConfigurationAgree: what the configuration has the daemon write,
// the unit makes and lets it write.
func TestTheUnitAndTheExampleOfAConfigurationAgree(t *testing.T) {
	unit := settings(t)
	if want := "/usr/local/bin/horkos-node --config /etc/horkos/node.yaml"; unit["ExecStart"] != want {
		t.Errorf("it runs %q, and the documents say %q", unit["ExecStart"], want)
	}
	config := node.Defaults()
	if err := config.Load(example); err != nil {
		t.Fatal(err)
	}
	if err := config.Complete(); err != nil {
		t.Fatal(err)
	}
	if want := "/var/lib/" + unit["StateDirectory"]; config.StateDir != want || filepath.Dir(config.AuditLog) != want {
		t.Errorf("state is in %s and the audit log %s; the unit makes %s", config.StateDir, config.AuditLog, want)
	}
	if want := "/run/" + unit["RuntimeDirectory"]; filepath.Dir(config.HealthAddress) != want {
		t.Errorf("the health socket is %s; the unit makes %s", config.HealthAddress, want)
	}
}

func TestTheDropInRequiresTheGateThatEnforces(t *testing.T) {
	text := read(t, dropIn)
	required := regexp.MustCompile(`(?m)^\s*required_plugins = \['([^']*)'\]$`).FindAllStringSubmatch(text, -1)
	if len(required) != 1 || required[0][1] != plugin.FullName {
		t.Errorf("it requires %q, want %s", required, plugin.FullName)
	}
	if table := "\n  [plugins.'io.containerd.nri.v1.nri'.default_validator]\n"; !strings.Contains(text, table) {
		t.Errorf("it has no table %q", table)
	}
	guide := read(t, "../docs/running-on-a-node.md")
	for _, file := range []string{"systemd/" + unitFile, "systemd/" + dropIn, "docs/node.yaml"} {
		if !strings.Contains(guide, file) {
			t.Errorf("docs/running-on-a-node.md does not have %s installed", file)
		}
	}
}
