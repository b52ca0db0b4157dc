package harness

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestTheAuditLogIsReadUpToItsLastCompleteLine(t *testing.T) {
	node := &Node{AuditFile: filepath.Join(t.TempDir(), "audit.log")}
	if records, err := node.Audit(); err != nil || len(records) != 0 {
		t.Errorf("without a file: %v, %v; want none", records, err)
	}
	content := `{"seq":1,"result":"denied","admitted":false}` + "\n" + `{"seq":2,"result":"allowed","admitted":true}` + "\n" + `{"seq":3,"res`
	if err := os.WriteFile(node.AuditFile, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	records, err := node.Audit()
	if err != nil || len(records) != 2 || records[0].Result != "denied" || !records[1].Admitted {
		t.Errorf("%+v, %v; want the two complete records", records, err)
	}
}

func TestANodeIsGivenTheFlagsThatWereSet(t *testing.T) {
	node := &Node{Dir: "/n", PolicyDir: "/n/policies", StateDir: "/n/state", FloorFile: "/n/floor", AuditFile: "/n/audit.log"}
	flags := node.flags(NodeOptions{
		Containerd:    &Containerd{Address: "/c/containerd.sock", NRISocket: "/c/nri.sock"},
		DefaultAction: "deny",
		MaxSpecBytes:  1024,
		Floor:         []string{"sha256:00"},
		Args:          []string{"--log-level=info"},
	})
	want := []string{
		"--policy-dir=/n/policies", "--state-dir=/n/state", "--audit-log=/n/audit.log", "--health-address=/n/health.sock",
		"--nri-socket=/c/nri.sock", "--containerd-address=/c/containerd.sock", "--containerd-namespace=k8s.io",
		"--log-format=text", "--log-level=debug", "--floor=/n/floor", "--default-action=deny", "--max-spec-bytes=1024", "--log-level=info",
	}
	if !slices.Equal(flags, want) {
		t.Errorf("flags\n%q\nwant\n%q", flags, want)
	}
}
