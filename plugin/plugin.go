package plugin

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"

	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/plugin/containerd"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
)

// Binder ties what NRI claims to the content that runs.
type Binder interface {
	// Bind gives the container's image and then one image an image volume; what cannot
	// be tied down says so in Unbound.
	Bind(context.Context, containerd.Claim) []verifier.Image
	// BindSandbox gives the image that the sandbox's own process runs.
	BindSandbox(ctx context.Context, id string) verifier.Image
}

// Decide answers a request by the policies and the evidence of the moment, without waiting.
type Decide func(*verifier.Request) verifier.Decision

// Wanter gathers in the background what a decision about a namespace's images missed; it
// does not wait.
type Wanter interface {
	Want(namespace string, questions []evidence.Question)
}

// Options are what a Plugin is made of.
type Options struct {
	Socket string // NRI's
	Binder Binder
	Decide Decide
	Wanter Wanter
	Shell  *gate.Shell

	MaxSpecBytes int
	MaxSyncBytes int

	// Before is asked before each registration; an error keeps the plugin away, and is
	// what its state says.
	Before func(context.Context) error
	// Explain tells what is on the node, where the runtime failed to synchronise the plugin;
	// it may be nil. It is called between connections, and what it says becomes part of the state.
	Explain func() string
	// Changed is told when the state changed.
	Changed func(State)

	Now func() time.Time
	Log *slog.Logger
}

// State is how things stand with the runtime.
type State struct {
	Connected    bool
	Synchronized bool
	Problem      string // why it is not synchronised
}

// Plugin is the gate at the runtime. Run owns all its goroutines.
type Plugin struct {
	Options
	budget *budget
	pauses *pauses
	held   string // why the runtime did not synchronise the last connection; Run's

	mu      sync.Mutex
	state   State
	timeout time.Duration // the runtime's for a request
}

// New makes a Plugin; Run connects it.
func New(o Options) *Plugin {
	p := &Plugin{Options: o, timeout: stub.DefaultRequestTimeout}
	p.budget = newBudget(o.MaxSpecBytes, o.MaxSyncBytes, func(total int) {
		if m := o.Shell.Metrics; m != nil {
			m.SyncBytes.Set(float64(total))
		}
	})
	p.pauses = newPauses()
	return p
}

// Backoff of the connection to the runtime. The first tries are quick: while the plugin
// is away the node creates nothing. Each try to synchronise stalls the node's creates.
const (
	firstPause = 50 * time.Millisecond
	maxPause   = 5 * time.Second
	// syncTimeout is how long the runtime may take from the registration until it synchronised.
	syncTimeout = 15 * time.Second
	// stable is how long the plugin must have been synchronised for the next pause to be short again.
	stable = 10 * time.Second
)

// nextPause is the pause after a connection: the last one was pause, and the plugin was
// synchronised for that long.
func nextPause(pause, synchronized time.Duration) time.Duration {
	if synchronized > stable {
		return firstPause
	}
	return min(max(2*pause, firstPause), maxPause)
}

// Run keeps the plugin registered with the runtime until the context ends. It returns
// when all that it started has ended.
func (p *Plugin) Run(ctx context.Context) error {
	var judging sync.WaitGroup
	defer judging.Wait()
	judging.Go(func() { p.judgeSandboxes(ctx) })

	var pause time.Duration
	for ctx.Err() == nil {
		synchronized, err := p.serve(ctx)
		if ctx.Err() != nil {
			break
		}
		p.set(State{Problem: err.Error()})
		pause = nextPause(pause, synchronized)
		p.Log.Debug("not registered with the runtime", "error", err, "retry", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	p.set(State{Problem: "stopping"})
	return ctx.Err()
}

// serve registers once, and returns when the connection is gone: for how long the plugin
// was synchronised, and why it is not any more.
func (p *Plugin) serve(ctx context.Context) (synchronized time.Duration, err error) {
	if err := p.Before(ctx); err != nil {
		return 0, err
	}
	c, err := newConnection(p)
	if err != nil {
		return 0, err
	}
	return c.run(ctx)
}

// name is the gate's name without its index.
func (p *Plugin) name() string {
	if p.Shell.Mode == gate.Audit {
		return AuditName
	}
	return Name
}

func (p *Plugin) setTimeout(d time.Duration) {
	if d <= 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timeout = d
}

// deadline is a quarter of the runtime's: an answer that says why comes before the
// runtime stops waiting for one.
func (p *Plugin) deadline() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.timeout / 4
}

func (p *Plugin) set(s State) {
	p.mu.Lock()
	changed := p.state != s
	p.state = s
	p.mu.Unlock()
	if m := p.Shell.Metrics; m != nil {
		m.Connected.Set(number(s.Connected))
		m.Synchronized.Set(number(s.Synchronized))
	}
	if changed {
		p.Changed(s)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// State is how things stand now.
func (p *Plugin) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// take makes what a runtime says is there all that there is.
func (p *Plugin) take(pods []*api.PodSandbox, containers []*api.Container) {
	objects := make(map[string]object, len(pods)+len(containers))
	spaces := make(map[string]string, len(pods))
	for _, pod := range pods {
		objects[pod.GetId()] = object{pod.GetNamespace(), pod.SizeVT()}
		spaces[pod.GetId()] = pod.GetNamespace()
	}
	for _, c := range containers {
		objects[c.GetId()] = object{spaces[c.GetPodSandboxId()], c.SizeVT()}
	}
	p.budget.reset(objects)
	p.pauses.reset(pods)
}
