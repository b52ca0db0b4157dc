package suites

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/horkos/horkos/integration/harness"
)

// TestWhatMakeClusterSaysToTypeWorksAndNothingIsLeft: a person starts the program, types
// all that it prints, sees what it promises, and ends it with Ctrl-C.
func TestWhatMakeClusterSaysToTypeWorksAndNothingIsLeft(t *testing.T) {
	harness.RequireCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	began := time.Now()
	p := startClusterProgram(ctx, t)
	t.Logf("the cluster ran after %v", time.Since(began).Round(time.Millisecond))
	// What must be seen, by what a command begins with, in the order of the commands.
	wants := []struct{ command, output string }{
		{"kubectl get nodegates", `(?m)^node +enforce +true`},
		{"kubectl -n shop run cart", `^pod/cart created`},
		{"kubectl -n shop wait pod/cart --for=condition=Ready", `condition met`},
		{"kubectl -n shop run miner", `kritis-validation-hook\.grafeas\.io" denied the request: image registry\.example\.com/shop/miner@sha256:[0-9a-f]+ is not attested`},
		{"kubectl apply -f", `attestationauthority\.kritis\.grafeas\.io/demo-aa created\ngenericattestationpolicy\.kritis\.grafeas\.io/demo-gap created`},
		{"kubectl wait genericattestationpolicy/demo-gap", `condition met`},
		{"kubectl create deployment test-denied --image=alpine:3.11", `^error: failed to create deployment: admission webhook "kritis-validation-hook-deployments\.grafeas\.io" denied the request: image alpine:3\.11 is not attested`},
		{"kubectl create deployment test-allow", `^deployment\.apps/test-allow created`},
		{"kubectl rollout status deployment/test-allow", `successfully rolled out`},
		{"kubectl apply -f", `^admissionallowlist\.kritis\.grafeas\.io/allow-acs-images created`},
		{"kubectl get events", `FailedKritisAdmission`},
		{"kubectl delete validatingwebhookconfiguration horkos", `deleted`},
		{"kubectl -n shop run miner", `^pod/miner created`},
		{"kubectl -n shop wait pod/miner --for=jsonpath", `condition met`},
		{"kubectl -n shop describe pod miner", `image registry\.example\.com/shop/miner@sha256:[0-9a-f]+ is not attested`},
		{"kubectl apply -f", `imagerevocation\.horkos\.dev/cart created`},
		{"kubectl -n shop delete pod cart", `"cart"`},
		{"kubectl -n shop run cart", `^pod/cart created`},
		{"kubectl -n shop wait pod/cart --for=jsonpath", `condition met`},
		{"kubectl -n shop describe pod cart", `revoked`},
		{"horkos attest", `imageattestation\.horkos\.dev/sha256-[0-9a-f]+ created`},
		{"kubectl -n shop wait pod/miner --for=condition=Ready", `condition met`},
		{"kubectl apply --server-side -f", `validatingwebhookconfiguration\.admissionregistration\.k8s\.io/horkos serverside-applied`},
		{"horkos status", `(?m)^ready: `},
	}
	if len(p.commands) != len(wants) {
		t.Fatalf("it says to type %d commands, and %d are known here: %q", len(p.commands), len(wants), p.commands)
	}
	for i, want := range wants {
		command := p.commands[i]
		if !strings.HasPrefix(command, want.command) {
			t.Fatalf("it says to type %q, want %q", command, want.command)
		}
		began := time.Now()
		see := func(ctx context.Context) error {
			output, err := p.typed(ctx, command)
			if refused := strings.HasSuffix(command, "# is refused"); refused && err == nil {
				err = errors.New("it is not")
			} else if refused {
				err = nil
			}
			if err != nil || !regexp.MustCompile(want.output).MatchString(output) {
				return fmt.Errorf("%s\n%w; want %s", output, err, want.output)
			}
			t.Logf("%s (%v)\n%s", command, time.Since(began).Round(time.Millisecond), output)
			return nil
		}
		err := see(ctx)
		if err != nil && want.command == "horkos status" { // a controller looks at what is new soon, and not at once
			soon, cancel := context.WithTimeout(ctx, 30*time.Second)
			err = harness.Poll(soon, "the controller", see)
			cancel()
		}
		if err != nil {
			logs, _ := p.typed(ctx, "kubectl -n horkos-system get pods; kubectl -n horkos-system logs --prefix --tail=50 -l app.kubernetes.io/name=horkos-controller")
			t.Fatalf("$ %s\n%v\n%s", command, err, logs)
		}
	}
	p.interrupt(t)
}

func TestAClusterThatIsInterruptedWhileItStartsLeavesNothing(t *testing.T) {
	harness.RequireCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p := launchClusterProgram(ctx, t)
	for p.lines.Scan() && !strings.Contains(p.lines.Text(), "-k daemonset/") {
	}
	p.interrupt(t)
}

// clusterProgram is a run of the program of make cluster.
type clusterProgram struct {
	command     *exec.Cmd
	lines       *bufio.Scanner
	environment string   // the command that sets it
	commands    []string // after that
	ended       bool
}

// prompt begins the lines that can be typed.
const prompt = "  $ "

// startClusterProgram starts the program and reads all that it says.
func startClusterProgram(ctx context.Context, t *testing.T) *clusterProgram {
	t.Helper()
	p := launchClusterProgram(ctx, t)
	var said strings.Builder
	for p.lines.Scan() {
		line := p.lines.Text()
		said.WriteString(line + "\n")
		if typed, found := strings.CutPrefix(line, prompt); found {
			p.commands = append(p.commands, typed)
		}
		if strings.HasPrefix(line, "Ctrl-C") {
			break
		}
	}
	if len(p.commands) < 2 {
		t.Fatalf("the program said:\n%s%v", said.String(), p.lines.Err())
	}
	p.environment, p.commands = p.commands[0], p.commands[1:]
	return p
}

func launchClusterProgram(ctx context.Context, t *testing.T) *clusterProgram {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "cluster")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./integration/cluster")
	build.Dir = root
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, said)
	}
	p := &clusterProgram{command: exec.CommandContext(ctx, program)}
	p.command.Dir, p.command.Stderr = root, os.Stderr
	stdout, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewScanner(stdout)
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !p.ended { // what it leaves is found by the next run
			_ = p.command.Process.Kill()
			_ = p.command.Wait()
		}
	})
	return p
}

// typed is what a person sees who types a command into a shell.
func (p *clusterProgram) typed(ctx context.Context, command string) (string, error) {
	shell := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", p.environment+"\n"+command)
	shell.Dir = os.TempDir()
	said, err := shell.CombinedOutput()
	return string(said), err
}

// interrupt ends the program as Ctrl-C does, and looks for what is left of it.
func (p *clusterProgram) interrupt(t *testing.T) {
	t.Helper()
	dir := p.folder(t)
	links, err := filepath.Glob(filepath.Join("/sys/class/net", filepath.Base(dir), "brif", "*"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := p.command.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	for p.lines.Scan() {
	}
	err = p.command.Wait()
	p.ended = true
	if err != nil {
		t.Errorf("interrupted, the program ends with %v", err)
	}
	t.Logf("it ended %v after Ctrl-C", time.Since(began).Round(time.Millisecond))
	if left := traces(t, dir); len(left) > 0 {
		t.Errorf("left of %s: %q", dir, left)
	}
	// The kernel removes the interfaces of a pod after its last process.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := harness.Poll(ctx, "network interfaces to go", func(context.Context) error {
		for _, link := range links {
			if _, err := os.Lstat(filepath.Join("/sys/class/net", filepath.Base(link))); !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s is there: %v", filepath.Base(link), err)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// folder is that of the program's run, which has its process id in its lock.
func (p *clusterProgram) folder(t *testing.T) string {
	t.Helper()
	locks, err := filepath.Glob(filepath.Join(os.TempDir(), "hk*", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	for _, lock := range locks {
		owner, err := os.ReadFile(lock)
		if err == nil && strings.TrimSpace(string(owner)) == strconv.Itoa(p.command.Process.Pid) {
			return filepath.Dir(lock)
		}
	}
	t.Fatalf("no run of process %d among %v", p.command.Process.Pid, locks)
	return ""
}

// traces are what of a run is on this machine: its folder, mounts, processes, cgroups, bridge,
// what the library of CNI noted, and links to its logs. Others may run beside it.
func traces(t *testing.T, dir string) []string {
	t.Helper()
	var left []string
	name := filepath.Base(dir)
	for _, pattern := range []string{dir, "/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name, "/sys/class/net/" + name} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, found...)
	}
	texts := []string{"/proc/self/mountinfo"}
	for _, pattern := range []string{"/proc/[0-9]*/cmdline", "/proc/[0-9]*/cgroup", "/var/lib/cni/results/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, found...)
	}
	for _, path := range texts {
		if filepath.Base(path) == "cgroup" {
			// One that has ended and waits for its parent, the init of this machine, has none.
			if line, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline")); err != nil || len(line) == 0 {
				continue
			}
		}
		if content, err := os.ReadFile(path); err == nil && strings.Contains(string(content), name) {
			left = append(left, path)
		}
	}
	links, err := filepath.Glob("/var/log/containers/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.Contains(to, name) {
			left = append(left, link)
		}
	}
	return left
}
