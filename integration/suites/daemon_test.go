package suites

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/integration/harness"
)

// TestTheServiceManagerIsTold: READY once the node is gated, STATUS with what is missing,
// and the watchdog fed as long as a decision can be made, also while containerd is away.
func TestTheServiceManagerIsTold(t *testing.T) {
	var messages chan string
	f := prepare(t, func(o *setup) {
		dir := t.TempDir()
		var env []string
		messages, env = serviceManager(t, dir)
		o.node.Env = append(env, "WATCHDOG_USEC=600000")
	})
	if err := f.containerd.Stop(f.ctx); err != nil {
		t.Fatal(err)
	}
	if err := f.node.Launch(); err != nil {
		t.Fatal(err)
	}
	f.told(messages, "runtime: ", "READY=1")
	f.told(messages, "WATCHDOG=1", "READY=1")
	if err := f.containerd.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.told(messages, "READY=1", "")
	f.told(messages, "WATCHDOG=1", "")
	if err := f.containerd.Stop(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.told(messages, "runtime: ", "")
	f.told(messages, "WATCHDOG=1", "")
	if err := f.node.Stop(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.told(messages, "STOPPING=1", "")
}

// serviceManager listens where a service manager would.
func serviceManager(t *testing.T, dir string) (chan string, []string) {
	t.Helper()
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	messages := make(chan string, 1000)
	go func() {
		buffer := make([]byte, 64<<10)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			messages <- string(buffer[:n])
		}
	}()
	return messages, []string{"NOTIFY_SOCKET=" + path}
}

// told waits for a message, and fails if the other comes first.
func (f *fixture) told(messages chan string, want, never string) {
	f.Helper()
	limit := time.After(patience)
	var heard []string
	for {
		select {
		case m := <-messages:
			heard = append(heard, m)
			if never != "" && strings.Contains(m, never) {
				f.Fatalf("told %q before %q", m, want)
			}
			if strings.Contains(m, want) {
				return
			}
		case <-limit:
			f.Fatalf("not told %q but %q", want, heard)
		}
	}
}

func TestAnAuditingGateRecordsAndRefusesNothingButWhatWouldHarmContainerd(t *testing.T) {
	f := newFixture(t, func(o *setup) {
		o.containerd.NRI.RequiredPlugins = nil
		o.node = harness.NodeOptions{Enforcement: "audit", Floor: []string{}}
	})
	evil := f.push(miner+":1", harness.Image{Seed: "evil"})
	pod := f.pod(shop)
	if _, err := f.create(pod, harness.ContainerConfig{Name: "evil", Image: evil.ByDigest()}); err != nil {
		t.Fatal(err)
	}
	records, err := f.node.Audit()
	if err != nil {
		t.Fatal(err)
	}
	last := records[len(records)-1]
	if last.Result == "allowed" || !last.Admitted || last.Enforcement != "audit" {
		t.Errorf("recorded %s, want a refusal that was not enforced", last.Line)
	}
	f.refused(pod, harness.ContainerConfig{Image: evil.ByDigest(), Env: map[string]string{"BIG": strings.Repeat("x", 200<<10)}}, "enableServiceLinks: false")

	t.Run("and does not satisfy a containerd that requires the enforcing one", func(t *testing.T) {
		f := prepare(t, func(o *setup) { o.node = harness.NodeOptions{Enforcement: "audit", Floor: []string{}} })
		f.start()
		f.neverBoth(f.pod(shop), "under an auditing gate", f.push(miner+":1", harness.Image{Seed: "evil"}))
	})
}

func TestTheDaemonRefusesToStartAndSaysWhatToDo(t *testing.T) {
	f := prepare(t, nil)
	f.pod(shop) // containerd has pulled the pause image
	for _, c := range []struct {
		name    string
		options harness.NodeOptions
		text    string
	}{
		{"enforcing without a floor", harness.NodeOptions{DefaultAction: "deny", Floor: []string{}}, "--floor FILE must be given"},
		{"enforcing without a default action", harness.NodeOptions{}, "--default-action allow|deny must be given"},
		{"a floor without the pause image", harness.NodeOptions{DefaultAction: "deny", Floor: []string{"sha256:" + strings.Repeat("0", 64)}},
			f.registry.Pause.Config + "  # " + harness.PauseImage},
		{"a floor that cannot be read", harness.NodeOptions{DefaultAction: "deny", Floor: []string{"pause:3.10"}}, "line 1"},
	} {
		f.sub(c.name, func(t *testing.T, f *fixture) {
			c.options.Containerd = f.containerd
			node, err := f.run.NewNode(c.options)
			if err != nil {
				t.Fatal(err)
			}
			if err := node.Launch(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(f.ctx, patience)
			defer cancel()
			code, err := node.ExitCode(ctx)
			if err != nil {
				t.Fatal(err)
			}
			log, err := node.Log()
			if err != nil {
				t.Fatal(err)
			}
			if code != 2 || !strings.Contains(log, c.text) {
				t.Errorf("exit code %d, want 2 and %q in:\n%s", code, c.text, log)
			}
		})
	}
}

// TestAnObjectTooLargeToTellOfKeepsTheGateAway: registering could crash containerd.
func TestAnObjectTooLargeToTellOfKeepsTheGateAway(t *testing.T) {
	f := prepare(t, func(o *setup) { o.containerd.NRI.RequiredPlugins = nil })
	evil := f.push(miner+":1", harness.Image{Seed: "evil"})
	big := make(map[string]string)
	for i := range 6 {
		big[fmt.Sprint("BIG_", i)] = strings.Repeat("x", 100<<10)
	}
	pod := f.pod("before")
	id, err := f.create(pod, harness.ContainerConfig{Image: evil.ByDigest(), Env: big})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.node.Launch(); err != nil {
		t.Fatal(err)
	}
	f.eventually("the gate names the container", func() error {
		_, err := f.node.Get(f.ctx, "/readyz")
		if err == nil {
			t.Fatal("ready beside a container that could crash containerd")
		}
		if !strings.Contains(err.Error(), id[:12]) {
			return err
		}
		return nil
	})
	if err := f.containerd.CRI.RemoveContainer(f.ctx, id); err != nil {
		t.Fatal(err)
	}
	f.eventually("the gate registers once it is gone", func() error {
		_, err := f.node.Get(f.ctx, "/readyz")
		return err
	})
}
