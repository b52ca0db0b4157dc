package suites

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/horkos/horkos/integration/harness"
)

// horkos runs the operator's program.
func (f *fixture) horkos(args ...string) (string, error) {
	f.Helper()
	out, err := exec.CommandContext(f.ctx, f.run.Program("horkos"), args...).CombinedOutput()
	return string(out), err
}

func TestTheAuditLogOfANodeThatIsKilledIsProven(t *testing.T) {
	f := newFixture(t, nil)
	good, evil := f.push(cart+":1", harness.Image{Seed: "good"}), f.push(miner+":1", harness.Image{Seed: "evil"})
	f.attest(good)
	pod := f.pod(shop)
	for range harness.Tries(t, 20) {
		f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
		f.refused(pod, harness.ContainerConfig{Image: evil.ByDigest()}, "not attested")
		if err := f.node.Kill(); err != nil {
			t.Fatal(err)
		}
		f.start()
	}
	if err := f.node.Stop(f.ctx); err != nil { // the head is told in its log then
		t.Fatal(err)
	}
	log, err := f.node.Log()
	if err != nil {
		t.Fatal(err)
	}
	_, told, found := strings.Cut(log[max(strings.LastIndex(log, "audit head"), 0):], "hash=")
	if !found || len(told) < 64 {
		t.Fatalf("no head in the log: %s", f.node.LogTail())
	}
	if out, err := f.horkos("audit", "verify", f.node.AuditFile, "--head", told[:64]); err != nil {
		t.Errorf("the log is not proven: %v\n%s", err, out)
	}
	text, err := os.ReadFile(f.node.AuditFile)
	if err != nil {
		t.Fatal(err)
	}
	forged := strings.Replace(string(text), `"result":"denied"`, `"result":"allowed"`, 1)
	if forged == string(text) {
		t.Fatal("no refusal is in the log")
	}
	if err := os.WriteFile(f.node.AuditFile, []byte(forged), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := f.horkos("audit", "verify", f.node.AuditFile); err == nil {
		t.Errorf("an edited log is taken for whole:\n%s", out)
	}
}

func TestWhatCannotBeRecordedIsNotAllowed(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=2m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	f := newFixture(t, func(o *setup) {
		o.node.Args = []string{"--audit-log=" + filepath.Join(disk, "audit.log"), "--audit-max-bytes=1048576", "--audit-max-files=1"}
	})
	good := f.push(cart+":1", harness.Image{Seed: "good"})
	f.attest(good)
	pod := f.pod(shop)
	f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})

	// The log has its space reserved: the disk has to fill and that space to be lost.
	full := filepath.Join(disk, "full")
	if err := os.WriteFile(full, make([]byte, 2<<20), 0o600); err == nil {
		t.Fatal("the disk does not fill")
	}
	if err := os.Truncate(filepath.Join(disk, "audit.log"), 0); err != nil { // and its reserve is gone
		t.Fatal(err)
	}
	if err := os.WriteFile(full+"er", make([]byte, 2<<20), 0o600); err == nil {
		t.Fatal("the disk does not fill again")
	}
	f.refused(pod, harness.ContainerConfig{Image: good.ByDigest()}, "could not be recorded")
	f.within("it is not ready", func() bool { ok, text := f.ready(); return !ok && strings.Contains(text, "audit log") })
	for _, name := range []string{full, full + "er"} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
	f.within("it is ready again", func() bool { ok, _ := f.ready(); return ok })
}
