package suites

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"

	"github.com/horkos/horkos/audit"
	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/plugin"
	"github.com/horkos/horkos/plugin/containerd"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
)

// nriPatience bounds what must happen at last; what must never happen is asserted at once.
const nriPatience = 15 * time.Second

// nriHost is a process that runs the adaptation package of one version of NRI
// (integration/tools/nri), in place of a runtime.
type nriHost struct {
	*testing.T
	version string // of NRI
	dir     string
	args    []string

	mu      sync.Mutex // one request at a time
	process *child
	answers *json.Decoder
	serial  int
}

// nriRequest and nriAnswer are the lines that the host reads and writes.
type nriRequest struct {
	Do         string            `json:"do"`
	Pod        *api.PodSandbox   `json:"pod,omitempty"`
	Container  *api.Container    `json:"container,omitempty"`
	Pods       []*api.PodSandbox `json:"pods,omitempty"`
	Containers []*api.Container  `json:"containers,omitempty"`
}

type nriAnswer struct {
	Error string    `json:"error"`
	Syncs []nriSync `json:"syncs"`
}

type nriSync struct {
	Pods       int    `json:"pods"`
	Containers int    `json:"containers"`
	Millis     int64  `json:"millis"`
	Error      string `json:"error"`
}

// newNRIHost starts a host that gives plugins timeout to answer, and requires the plugins named.
func newNRIHost(t *testing.T, version string, timeout time.Duration, required ...string) *nriHost {
	t.Helper()
	// The path of a socket has room for 107 bytes only.
	dir, err := os.MkdirTemp("", "nri")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &nriHost{T: t, version: version, dir: dir}
	h.args = []string{"-socket", h.socket(), "-plugin-request-timeout", timeout.String(), "-required-plugins", strings.Join(required, ",")}
	h.start()
	return h
}

func (h *nriHost) socket() string { return filepath.Join(h.dir, "s") }

// start starts the process, again if it was killed, at the same socket.
func (h *nriHost) start() {
	h.Helper()
	cmd := exec.Command(nriHostProgram(h.T, h.version), h.args...)
	h.process = startChild(h.T, "nrihost "+h.version, cmd)
	h.answers = json.NewDecoder(h.process.out)
	h.ask(nriRequest{Do: "syncs"}) // it answers when it listens
}

// nriHostProgram is the path of the host with that version of NRI.
func nriHostProgram(t *testing.T, version string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", "tools", "nrihost-"+version))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("HORKOS_INTEGRATION") == "required" {
			t.Fatalf("the real components are required: %v (run make tools)", err)
		}
		t.Skipf("%v (run make tools)", err)
	}
	return path
}

func (h *nriHost) ask(r nriRequest) nriAnswer {
	h.Helper()
	a, err := h.tryAsk(r)
	if err != nil {
		h.Fatal(err)
	}
	return a
}

// tryAsk may be called from any goroutine.
func (h *nriHost) tryAsk(r nriRequest) (nriAnswer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	watchdog := time.AfterFunc(2*nriPatience, func() { _ = h.process.cmd.Process.Kill() })
	defer watchdog.Stop()
	var a nriAnswer
	if err := json.NewEncoder(h.process.in).Encode(r); err != nil {
		return a, fmt.Errorf("ask the host to %s: %w", r.Do, err)
	}
	if err := h.answers.Decode(&a); err != nil {
		return a, fmt.Errorf("read what the host says to %s: %w", r.Do, err)
	}
	return a, nil
}

// container makes a container whose image decides what the gate's Decide does.
func (h *nriHost) container(image string) *api.Container {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.serial++
	return &api.Container{
		Id: fmt.Sprintf("container-%d", h.serial), PodSandboxId: "sandbox", Name: "app",
		Annotations: map[string]string{"io.kubernetes.cri.image-name": image},
	}
}

// create asks once, and gives why the container was refused; empty means that it was created.
func (h *nriHost) create(image string) string {
	h.Helper()
	return h.ask(createRequest(h.container(image))).Error
}

func createRequest(c *api.Container) nriRequest {
	pod := &api.PodSandbox{Id: "sandbox", Name: "pod", Namespace: "shop", Uid: "1"}
	return nriRequest{Do: "create", Pod: pod, Container: c}
}

// refuses fails the test unless a create is refused with a text that holds all the parts.
func (h *nriHost) refuses(image string, parts ...string) {
	h.Helper()
	if err := h.refused(image, parts...); err != nil {
		h.Fatal(err)
	}
}

// refused creates once, and fails the test if that succeeds. The error is that the refusal does not say a part.
func (h *nriHost) refused(image string, parts ...string) error {
	h.Helper()
	refusal := h.create(image)
	if refusal == "" {
		h.Fatalf("the container of image %q was created", image)
	}
	for _, part := range parts {
		if !strings.Contains(refusal, part) {
			return fmt.Errorf("image %q was refused with %q, which does not say %q", image, refusal, part)
		}
	}
	return nil
}

// byTheGate is what a refusal of the gate itself says. NRI up to 0.12.3 asks it as a
// validator alone, and names it; from 0.12.4 on it is asked in CreateContainer first, and
// only what it says itself is told.
func (h *nriHost) byTheGate(parts ...string) []string {
	if h.version == "0.12.3" {
		parts = append(parts, `validator "99-horkos" rejected`)
	}
	return parts
}

// gates waits until the gate admits attested images and refuses others, which are not
// admitted meanwhile either.
func (h *nriHost) gates() {
	h.Helper()
	h.within("the gate to decide", func() error {
		if err := h.refused("unattested"); err != nil {
			return err
		}
		if refusal := h.create("attested"); refusal != "" {
			return errors.New(refusal)
		}
		return h.refused("unattested", h.byTheGate("is not attested")...)
	})
}

// within tries until there is no error, and fails the test if that takes too long.
func (h *nriHost) within(what string, try func() error) {
	h.Helper()
	deadline := time.Now().Add(nriPatience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			h.Fatalf("wait for %s: %v", what, err)
		}
		<-tick.C
	}
}

// noticed waits until the host knows that it lost the gate, which it says in its log alone.
func (h *nriHost) noticed() {
	h.Helper()
	h.within("the host to notice that the gate is gone", func() error {
		if !strings.Contains(h.process.log(), `connection to plugin \"99-horkos\" closed`) {
			return errors.New("it did not")
		}
		return nil
	})
}

// neighbour registers another plugin, in this process, with the host. It returns when
// the host asks it: create is what it does when a container is created.
func (h *nriHost) neighbour(index, name string, create createFunc) {
	h.Helper()
	n := &neighbour{create: create, asked: make(chan struct{}, 1)}
	st, err := stub.New(n, stub.WithPluginIdx(index), stub.WithPluginName(name), stub.WithSocketPath(h.socket()), stub.WithLogger(quiet{}))
	if err != nil {
		h.Fatal(err)
	}
	if err := st.Start(context.Background()); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(st.Stop)
	h.within("the neighbour to be asked", func() error {
		h.create("probe")
		select {
		case <-n.asked:
			return nil
		default:
			return errors.New("it was not")
		}
	})
}

type createFunc func(context.Context) *api.ContainerAdjustment

// neighbour is a plugin with CreateContainer. Containers of the image "probe" are only
// to find out whether it is registered.
type neighbour struct {
	create createFunc
	asked  chan struct{}
}

func (n *neighbour) CreateContainer(ctx context.Context, _ *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	if c.GetAnnotations()["io.kubernetes.cri.image-name"] == "probe" {
		select {
		case n.asked <- struct{}{}:
		default:
		}
		return nil, nil, nil
	}
	return n.create(ctx), nil, nil
}

// quiet is a log that nobody reads.
type quiet struct{}

func (quiet) Debugf(context.Context, string, ...any) {}
func (quiet) Infof(context.Context, string, ...any)  {}
func (quiet) Warnf(context.Context, string, ...any)  {}
func (quiet) Errorf(context.Context, string, ...any) {}

// gateProcess is our plugin in a process of its own, so that it can be stopped and killed.
type gateProcess struct {
	*child
	mu     sync.Mutex
	events []gateEvent
}

// gateEvent is a line that the process writes: a change of its state, or a claim that it was to bind.
type gateEvent struct {
	State *plugin.State
	Claim *containerd.Claim
}

// gateSettings is what the process is told, in the variable envGate.
type gateSettings struct {
	Socket       string
	Mode         gate.Mode
	MaxSpecBytes int
}

const envGate = "HORKOS_TEST_GATE"

// gate starts a gate that connects to the host, now or when the host is there.
func (h *nriHost) gate(mode gate.Mode) *gateProcess {
	h.Helper()
	settings, err := json.Marshal(gateSettings{Socket: h.socket(), Mode: mode, MaxSpecBytes: 16 << 10})
	if err != nil {
		h.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		h.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestGateProcess$")
	cmd.Env = append(os.Environ(), envGate+"="+string(settings))
	g := &gateProcess{child: startChild(h.T, "gate", cmd)}
	go g.read()
	return g
}

func (g *gateProcess) read() {
	lines := bufio.NewScanner(g.out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e gateEvent
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue // what the test framework says at the end
		}
		g.mu.Lock()
		g.events = append(g.events, e)
		g.mu.Unlock()
	}
}

// claims are those of an image that the gate was asked to bind.
func (g *gateProcess) claims(image string) []containerd.Claim {
	g.mu.Lock()
	defer g.mu.Unlock()
	var claims []containerd.Claim
	for _, e := range g.events {
		if e.Claim != nil && e.Claim.Requested == image {
			claims = append(claims, *e.Claim)
		}
	}
	return claims
}

// synchronized counts how often the gate was registered and synchronised.
func (g *gateProcess) synchronized() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, e := range g.events {
		if e.State != nil && e.State.Synchronized {
			n++
		}
	}
	return n
}

// TestGateProcess is the body of gateProcess; in any other process it does nothing.
func TestGateProcess(t *testing.T) {
	text, ok := os.LookupEnv(envGate)
	if !ok {
		return
	}
	var settings gateSettings
	if err := json.Unmarshal([]byte(text), &settings); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin) // ends when the suite does
	}()
	var mu sync.Mutex
	tell := func(e gateEvent) {
		mu.Lock()
		defer mu.Unlock()
		_ = json.NewEncoder(os.Stdout).Encode(e)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	p := plugin.New(plugin.Options{
		Socket: settings.Socket,
		Binder: tellingBinder{tell}, Decide: decideByName, Wanter: noWanter{},
		Shell: &gate.Shell{Gate: plugin.GateName, Node: "node", Mode: settings.Mode, Records: noRecords{}, Log: log, Now: time.Now},

		MaxSpecBytes: settings.MaxSpecBytes, MaxSyncBytes: plugin.DefaultMaxSyncBytes,
		Before:  func(context.Context) error { return nil },
		Changed: func(s plugin.State) { tell(gateEvent{State: &s}) },
		Now:     time.Now, Log: log,
	})
	if err := p.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// decideByName does what the name of the image says. Only the image "attested", and
// "slow:<duration>" after that time, is allowed.
func decideByName(req *verifier.Request) verifier.Decision {
	name := req.Images[0].Written
	switch name {
	case "attested":
	case "hang":
		select {}
	case "crash":
		os.Exit(3)
	case "panic":
		panic("the image is called panic")
	default:
		text, slow := strings.CutPrefix(name, "slow:")
		d, err := time.ParseDuration(text)
		if !slow || err != nil {
			return verifier.Refuse(req, verifier.Denied, verifier.NotAttested, "")
		}
		time.Sleep(d)
	}
	return verifier.Decision{Result: verifier.Allowed, Reason: verifier.Attested,
		Images: []verifier.ImageDecision{{Image: &req.Images[0], Result: verifier.Allowed, Reason: verifier.Attested}}}
}

type tellingBinder struct{ tell func(gateEvent) }

func (b tellingBinder) Bind(_ context.Context, c containerd.Claim) []verifier.Image {
	b.tell(gateEvent{Claim: &c})
	return []verifier.Image{{Written: c.Requested}}
}

func (tellingBinder) BindSandbox(context.Context, string) verifier.Image {
	return verifier.Image{Written: "attested"}
}

type noWanter struct{}

func (noWanter) Want(string, []evidence.Question) {}

type noRecords struct{}

func (noRecords) Append(*audit.Record) error { return nil }

// child is a process that dies with this one. What it writes to standard error is shown
// when the test fails.
type child struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  io.Reader
	path string
	done chan struct{} // closed when it is gone
}

func startChild(t *testing.T, name string, cmd *exec.Cmd) *child {
	t.Helper()
	stderr, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	c := &child{t: t, cmd: cmd, path: stderr.Name(), done: make(chan struct{})}
	cmd.Stderr = stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if c.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	// Not StdoutPipe, which loses what is unread when the process ends.
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	cmd.Stdout, c.out = write, read
	started := make(chan error, 1)
	go func() {
		// Pdeathsig fires when the thread ends that started the process (prctl(2)).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(c.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		c.kill()
		read.Close()
		if t.Failed() {
			t.Logf("the log of %s:\n%s", name, c.log())
		}
	})
	return c
}

func (c *child) log() string {
	content, err := os.ReadFile(c.path)
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// kill ends the process, and returns when it is gone.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// hang stops the process where it is, and returns when it stands still (proc(5), stat).
func (c *child) hang() {
	c.t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		c.t.Fatal(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 10_000 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
		if err != nil {
			c.t.Fatal(err)
		}
		if i := strings.LastIndex(string(stat), ") "); i >= 0 && strings.HasPrefix(string(stat)[i:], ") T") {
			return
		}
		<-tick.C
	}
	c.t.Fatal("the process does not stop")
}

// goOn continues a process that hangs.
func (c *child) goOn() {
	c.t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		c.t.Fatal(err)
	}
}
