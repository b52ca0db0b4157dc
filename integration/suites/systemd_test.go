package suites

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/horkos/horkos/integration/harness"
	"github.com/horkos/horkos/plugin"
)

// dropIn is what users put in containerd's conf.d.
const dropIn = "systemd/zz-horkos.toml"

// kubeletUnit stands in for the kubelet: when it was started is all that matters.
const kubeletUnit = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"

// host is a fixture whose gate is run by a real systemd, from the files in systemd/: the
// unit, and containerd's drop-in.
type host struct {
	*fixture
	machine *harness.Machine
}

// hostUnderSystemd prepares it, with more configuration of containerd. It is not booted, and
// containerd runs.
func hostUnderSystemd(t *testing.T, extra string) *host {
	t.Helper()
	return hostOfCluster(t, extra, func(*harness.Run) *harness.ControlPlane { return nil })
}

// hostOfCluster prepares one that follows the cluster that is made in its run.
func hostOfCluster(t *testing.T, extra string, cluster func(*harness.Run) *harness.ControlPlane) *host {
	t.Helper()
	harness.RequireSystemd(t)
	f := prepare(t, func(o *setup) {
		o.containerd.NRI.RequiredPlugins = nil
		o.containerd.Extra = extra
	})
	machine, err := f.run.NewMachine(f.containerd.Dir)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{fixture: f, machine: machine}
	if f.node, err = machine.InstallNode(f.containerd, cluster(f.run)); err != nil {
		t.Fatal(err)
	}
	f.policy("policy.yaml", authority(shop, "release", f.release)+policy(shop, "release", "release"))
	h.unit("kubelet.service", kubeletUnit)
	if err := machine.Enable("kubelet.service"); err != nil {
		t.Fatal(err)
	}
	if err := f.containerd.DropIn(dropIn); err != nil {
		t.Fatal(err)
	}
	if err := f.containerd.Restart(f.ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, unit := range []string{harness.NodeUnit, "init.scope"} {
			text, err := machine.Journal(context.WithoutCancel(f.ctx), unit)
			t.Logf("the journal of %s (%v):\n%s", unit, err, text[max(0, len(text)-4000):])
		}
	})
	return h
}

// unit writes a unit, or a drop-in of one.
func (h *host) unit(name, text string) {
	h.Helper()
	if err := h.machine.WriteFile("etc/systemd/system/"+name, text); err != nil {
		h.Fatal(err)
	}
}

func (h *host) boot() {
	h.Helper()
	if err := h.machine.Start(h.ctx); err != nil {
		h.Fatal(err)
	}
}

func (h *host) systemctl(arguments ...string) string {
	h.Helper()
	text, err := h.machine.Systemctl(h.ctx, arguments...)
	if err != nil {
		h.Fatal(err)
	}
	return text
}

// show is a property of a unit.
func (h *host) show(unit, property string) string {
	h.Helper()
	values, err := h.machine.Show(h.ctx, unit, property)
	if err != nil {
		h.Fatal(err)
	}
	return values[property]
}

// number is a property that is one.
func (h *host) number(unit, property string) int {
	h.Helper()
	n, err := strconv.Atoi(h.show(unit, property))
	if err != nil {
		h.Fatal(err)
	}
	return n
}

// is waits until a property of a unit is, or says, something.
func (h *host) is(unit, property, want string) {
	h.Helper()
	h.eventually(fmt.Sprintf("%s of %s is %q", property, unit, want), func() error {
		if got := h.show(unit, property); !strings.Contains(got, want) || got == "inactive" && want == "active" {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
}

// gating waits until another daemon than the one that was killed says it is ready.
func (h *host) gating(killed int) {
	h.Helper()
	h.eventually("the gate is ready", func() error {
		pid, err := h.machine.ServicePID(harness.NodeUnit)
		if err != nil || pid == killed {
			return errors.Join(errNotYet, err)
		}
		_, err = h.node.Get(h.ctx, "/readyz")
		return err
	})
}

func (h *host) pid() int {
	h.Helper()
	pid, err := h.machine.ServicePID(harness.NodeUnit)
	if err != nil {
		h.Fatal(err)
	}
	return pid
}

// TestTheKubeletStartsWhenTheGateGates: READY is told when the runtime asks, and not before.
func TestTheKubeletStartsWhenTheGateGates(t *testing.T) {
	h := hostUnderSystemd(t, "")
	if err := h.containerd.Stop(h.ctx); err != nil {
		t.Fatal(err)
	}
	h.boot()
	h.is(harness.NodeUnit, "StatusText", "not ready: ")
	if state := h.show(harness.NodeUnit, "ActiveState"); state != "activating" {
		t.Errorf("without a runtime the unit is %s, want activating", state)
	}
	if limit := h.show(harness.NodeUnit, "TimeoutStartUSec"); limit == "infinity" {
		t.Error("it waits without end, and the boot with it")
	}
	if state := h.show("kubelet.service", "ActiveState"); state != "inactive" {
		t.Errorf("the kubelet is %s before the gate gates, want inactive", state)
	}
	if err := h.containerd.Start(h.ctx); err != nil {
		t.Fatal(err)
	}
	h.is("kubelet.service", "ActiveState", "active")
	h.gating(0)
	h.is(harness.NodeUnit, "StatusText", "gating")
	ready, kubelet := h.number(harness.NodeUnit, "ActiveEnterTimestampMonotonic"), h.number("kubelet.service", "ExecMainStartTimestampMonotonic")
	if ready == 0 || kubelet < ready {
		t.Errorf("the kubelet was started %d µs before the unit was", ready-kubelet)
	}
	if after := h.show(harness.NodeUnit, "After"); !strings.Contains(after, "containerd.service") {
		t.Errorf("the unit is ordered after %s, and not containerd", after)
	}
	evil := h.push(miner+":1", harness.Image{Seed: "evil"})
	h.refused(h.pod(shop), harness.ContainerConfig{Image: evil.ByDigest()}, "not attested")
}

// TestABootDoesNotWaitForeverForAContainerdThatStaysAway: and nothing is open for it.
func TestABootDoesNotWaitForeverForAContainerdThatStaysAway(t *testing.T) {
	h := hostUnderSystemd(t, "")
	if err := h.containerd.Stop(h.ctx); err != nil {
		t.Fatal(err)
	}
	h.unit(harness.NodeUnit+".d/50-short.conf", "[Service]\nTimeoutStartSec=1s\n")
	h.boot()
	h.is("kubelet.service", "ActiveState", "active")
	h.is("multi-user.target", "ActiveState", "active")
	if err := h.containerd.Start(h.ctx); err != nil {
		t.Fatal(err)
	}
	h.is(harness.NodeUnit, "ActiveState", "active")
	if h.number(harness.NodeUnit, "NRestarts") == 0 {
		t.Error("the unit was not started again")
	}
	h.gating(0)
}

func TestTheHardenedUnitGatesAndComesBack(t *testing.T) {
	metrics := freeAddress(t)
	h := hostUnderSystemd(t, harness.Metrics(metrics))
	evil := h.push(miner+":1", harness.Image{Seed: "evil"})
	good := h.push(harness.Host+"/team/app:1", harness.Image{Seed: "good"})
	h.attest(good)
	var pod *harness.Pod
	refused := harness.ContainerConfig{Image: evil.ByDigest()}

	h.sub("while it was never started nothing is created", func(t *testing.T, _ *fixture) {
		pod = h.pod(shop)
		h.refused(pod, refused, missing)
	})
	h.boot()
	h.gating(0)
	h.sub("attested images run and others do not", func(t *testing.T, f *fixture) {
		f.refused(pod, refused, "not attested")
		f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
		if n := f.calls(metrics)["Content/Read"]; n > 0 {
			t.Errorf("containerd was asked for %d blobs, which the unit should be able to read", n)
		}
	})
	h.sub("what it writes is root's alone", func(t *testing.T, f *fixture) {
		for path, want := range map[string]os.FileMode{
			f.node.StateDir:                                     0o700,
			f.node.AuditFile:                                    0o600,
			filepath.Join(f.node.Dir, "run/horkos"):             0o755,
			filepath.Join(f.node.Dir, "run/horkos/health.sock"): 0o700,
		} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
			}
		}
		records, err := f.node.Audit()
		if err != nil || len(records) == 0 || records[len(records)-1].Result != "allowed" {
			t.Errorf("recorded %d decisions, %v; want the last to be allowed", len(records), err)
		}
	})
	h.sub("killed, it is back within a second, without end", func(t *testing.T, f *fixture) {
		var away []time.Duration
		for range harness.Tries(t, 20) {
			pid := h.pid()
			if err := h.machine.SignalService(harness.NodeUnit, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			killed := time.Now()
			if _, err := f.create(pod, refused); err == nil {
				t.Fatal("a container was created while the gate was away")
			}
			h.gating(pid)
			away = append(away, time.Since(killed))
			f.refused(pod, refused, "not attested")
		}
		slices.Sort(away)
		middle, longest := away[len(away)/2], away[len(away)-1]
		t.Logf("gating again after %v in the middle, %v at most", middle.Round(time.Millisecond), longest.Round(time.Millisecond))
		// One of them may have met something else that the machine does.
		if middle > time.Second || longest > 5*time.Second {
			t.Error("it is away for more than a second")
		}
		f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
	})
	h.sub("stopped, it stays away, and containerd creates nothing", func(t *testing.T, f *fixture) {
		h.systemctl("stop", harness.NodeUnit)
		f.refused(pod, refused, missing)
		f.refused(pod, harness.ContainerConfig{Image: good.ByDigest()}, missing)
		h.systemctl("start", harness.NodeUnit)
		f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
	})
	h.sub("it outlives containerd", func(t *testing.T, f *fixture) {
		pid := h.pid()
		if err := f.containerd.Restart(f.ctx); err != nil {
			t.Fatal(err)
		}
		f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
		if h.pid() != pid {
			t.Error("the daemon was started again because containerd was")
		}
	})
	h.sub("hanging, it is ended by the watchdog and started again", func(t *testing.T, f *fixture) {
		h.unit(harness.NodeUnit+".d/50-watchdog.conf", "[Service]\nWatchdogSec=1s\n")
		h.systemctl("daemon-reload")
		h.systemctl("restart", harness.NodeUnit)
		h.gating(0)
		pid := h.pid()
		if err := h.machine.SignalService(harness.NodeUnit, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		h.gating(pid)
		f.refused(pod, refused, "not attested")
		journal, err := h.machine.Journal(f.ctx, harness.NodeUnit)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Watchdog timeout", "SIGABRT: abort", "goroutine "} {
			if !strings.Contains(journal, want) {
				t.Errorf("%q is not in the journal", want)
			}
		}
	})
	h.sub("wrongly configured, it is tried again, and the journal says why", func(t *testing.T, f *fixture) {
		file := filepath.Join(f.node.Dir, "etc/horkos/node.yaml")
		right, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.machine.WriteFile("etc/horkos/node.yaml", string(right)+"enforcemend: audit\n"); err != nil {
			t.Fatal(err)
		}
		h.systemctl("restart", "--no-block", harness.NodeUnit)
		f.eventually("it is started a second time", func() error {
			if n := h.number(harness.NodeUnit, "NRestarts"); n < 2 {
				return fmt.Errorf("%d times", n)
			}
			return nil
		})
		f.refused(pod, refused, missing)
		f.eventually("the journal says why", func() error {
			journal, err := h.machine.Journal(f.ctx, harness.NodeUnit)
			if err != nil || !strings.Contains(journal, `unknown field "enforcemend"`) || !strings.Contains(journal, "code=exited, status=2") {
				return errors.Join(errNotYet, err)
			}
			return nil
		})
		if err := h.machine.WriteFile("etc/horkos/node.yaml", string(right)); err != nil {
			t.Fatal(err)
		}
		f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
	})
}

// TestTheHardenedUnitFollowsACluster, by the kubelet's kubeconfig and certificate.
func TestTheHardenedUnitFollowsACluster(t *testing.T) {
	harness.RequireCluster(t)
	f := &followed{}
	h := hostOfCluster(t, "", func(run *harness.Run) *harness.ControlPlane {
		var err error
		if f.plane, err = run.StartControlPlane(t.Context(), harness.ControlPlaneOptions{}); err != nil {
			t.Fatal(err)
		}
		return f.plane
	})
	f.fixture = h.fixture
	f.install()
	f.kubectl("", "create", "namespace", market)
	h.boot()
	h.gating(0)
	good, evil := f.push(cart+":1", harness.Image{Seed: "good"}), f.push(miner+":1", harness.Image{Seed: "evil"})
	f.attest(good)
	pod := f.pod(market)
	f.refused(pod, harness.ContainerConfig{Image: good.ByTag()}, "no enforcing policy speaks of the image")
	f.apply(authority(market, "release", f.release) + policy(market, "release", "release"))
	f.soonCreated(pod, good.ByTag())
	f.refused(pod, harness.ContainerConfig{Image: evil.ByTag()}, "is not attested: by authority release (no attestation found)")

	// Without an API server it starts with what it kept.
	if err := f.plane.APIServer.Kill(); err != nil {
		t.Fatal(err)
	}
	pid := h.pid()
	if err := h.machine.SignalService(harness.NodeUnit, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.eventually("another daemon has begun", func() error {
		if now, err := h.machine.ServicePID(harness.NodeUnit); err != nil || now == pid {
			return errors.Join(errNotYet, err)
		}
		return nil
	})
	f.created(pod, harness.ContainerConfig{Image: good.ByTag()})
	f.refused(pod, harness.ContainerConfig{Image: evil.ByTag()}, "is not attested: by authority release")
	h.is(harness.NodeUnit, "ActiveState", "active")
}

// TestTheUnitMayDoWhatTheDaemonNeedsAndNoMore runs a shell in place of the daemon, under
// everything else that the unit says.
func TestTheUnitMayDoWhatTheDaemonNeedsAndNoMore(t *testing.T) {
	h := hostUnderSystemd(t, "")
	h.pod(shop) // there is content
	host, port, _ := strings.Cut(h.registry.Address, ":")
	for name, text := range map[string]string{
		"etc/kubernetes/kubelet.conf":                 "kubeconfig",
		"var/lib/kubelet/pki/kubelet-client-2026.pem": "certificate",
		"etc/horkos/attestations-token":               "token",
		"root/.kube/config":                           "somebody's",
		"etc/systemd/system/" + harness.NodeUnit + ".d/50-probe.conf": "[Service]\nType=oneshot\nRestart=no\nStandardOutput=file:/var/probe\n" +
			"ExecStart=\nExecStart=/bin/bash /etc/probe\n",
	} {
		if err := h.machine.WriteFile(name, text); err != nil {
			t.Fatal(err)
		}
	}
	for _, secret := range []string{"etc/kubernetes/kubelet.conf", "var/lib/kubelet/pki/kubelet-client-2026.pem", "etc/horkos/attestations-token"} {
		if err := os.Chmod(filepath.Join(h.machine.Root, secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("kubelet-client-2026.pem", filepath.Join(h.machine.Root, "var/lib/kubelet/pki/kubelet-client-current.pem")); err != nil {
		t.Fatal(err)
	}
	content := filepath.Join(h.containerd.Dir, "root/io.containerd.content.v1.content/blobs/sha256")
	may := map[string]string{
		"read the kubelet's kubeconfig":      "cat /etc/kubernetes/kubelet.conf",
		"read the kubelet's certificate":     "cat /var/lib/kubelet/pki/kubelet-client-current.pem",
		"read a source's token":              "cat /etc/horkos/attestations-token",
		"read containerd's content":          "cat " + content + "/* >/dev/null",
		"write its state":                    "echo x >/var/lib/horkos/x",
		"serve in its run folder":            "echo x >/run/horkos/x",
		"reach an API server":                fmt.Sprintf("exec 3<>/dev/tcp/%s/%s", host, port),
		"send to a name server":              "echo x >/dev/udp/127.0.0.1/53",
		"know itself":                        "cat /proc/self/status >/dev/null",
		"see containerd's and NRI's sockets": "test -S /run/containerd/containerd.sock -a -S /var/run/nri/nri.sock",
	}
	mayNot := map[string]string{
		"write its configuration":    "echo x >/etc/horkos/x",
		"write the kubelet's folder": "echo x >/var/lib/kubelet/x",
		"write what users run":       "echo x >/usr/local/bin/x",
		"write elsewhere in /run":    "echo x >/run/x",
		"read homes":                 "cat /root/.kube/config",
		"write cgroups":              "echo $$ >/sys/fs/cgroup/cgroup.procs",
		"mount":                      "mount -t tmpfs tmpfs /tmp",
		"make namespaces":            "unshare --user true",
		"give files away":            "touch /var/lib/horkos/y && chown 1000 /var/lib/horkos/y",
		"make setuid programs":       "touch /var/lib/horkos/z && chmod 4755 /var/lib/horkos/z",
		"use a capability":           "grep -q 'CapBnd:.*[1-9a-f]' /proc/self/status",
	}
	var script strings.Builder
	number := make(map[string]string)
	for _, all := range []map[string]string{may, mayNot} {
		for name, command := range all {
			number[name] = strconv.Itoa(len(number))
			fmt.Fprintf(&script, "( %s ) >/dev/null && echo did %s || echo failed %s\n", command, number[name], number[name])
		}
	}
	script.WriteString("echo end\n")
	if err := h.machine.WriteFile("etc/probe", script.String()); err != nil {
		t.Fatal(err)
	}
	h.boot()
	h.is("kubelet.service", "ActiveState", "active")
	answers, err := os.ReadFile(filepath.Join(h.machine.Root, "var/probe"))
	if err != nil || !strings.HasSuffix(string(answers), "end\n") {
		t.Fatalf("the shell did not run to its end: %v\n%s", err, answers)
	}
	did := func(name string) bool { return strings.Contains(string(answers), "did "+number[name]+"\n") }
	for name := range may {
		if !did(name) {
			t.Errorf("it cannot %s", name)
		}
	}
	for name := range mayNot {
		if did(name) {
			t.Errorf("it can %s", name)
		}
	}
}

// TestTheDropInIsWhatTheSuitesRequire: containerd takes from it, by an import, what the
// harness writes for all other suites.
func TestTheDropInIsWhatTheSuitesRequire(t *testing.T) {
	for _, version := range []string{harness.Containerd24, harness.Containerd22} {
		t.Run(version, func(t *testing.T) {
			run := harness.New(t)
			dump := func(o harness.NRIOptions, dropIns ...string) string {
				c, err := run.StartContainerd(t.Context(), harness.ContainerdOptions{Version: version, NRI: o})
				if err != nil {
					t.Fatal(err)
				}
				for _, file := range dropIns {
					if err := c.DropIn(file); err != nil {
						t.Fatal(err)
					}
				}
				text, err := c.ConfigDump(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return strings.Replace(text, ", 'Dir/conf.d/zz-horkos.toml'", "", 1) // the import is the difference
			}
			want := dump(harness.NRIOptions{RequiredPlugins: []string{plugin.FullName}, RequestTimeout: 5 * time.Second})
			got := dump(harness.NRIOptions{}, dropIn)
			if got != want {
				t.Errorf("containerd takes\n%s\nwant\n%s", section(got), section(want))
			}
			// The harness's own configuration says it as well, unless it disables NRI.
			const needsNRI = "\nrequired_plugins = ['io.containerd.nri.v1.nri']\n"
			if got := dump(harness.NRIOptions{Disabled: true}, dropIn); !strings.Contains(got, needsNRI) {
				t.Errorf("containerd would run without NRI:\n%s", section(got))
			}
		})
	}
}

// section is the part of a configuration that is about NRI.
func section(dump string) string {
	_, after, _ := strings.Cut(dump, "\n  [plugins.'io.containerd.nri.v1.nri']\n")
	text, _, _ := strings.Cut(after, "\n\n  [")
	return dump[:strings.Index(dump+"\n[", "\n[")] + "\n" + text
}
