package plugin

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/net/multiplex"
	"github.com/containerd/ttrpc"

	"github.com/horkos/horkos/gate"
)

// runtime is the other end of the socket, of which a test decides each step.
type runtime struct {
	t       *testing.T
	socket  string
	plugins chan *peer // those that registered
}

// peer is a plugin as the runtime sees it.
type peer struct {
	api.PluginService
	name string
	mux  multiplex.Mux
}

func startRuntime(t *testing.T) *runtime {
	t.Helper()
	r := &runtime{t: t, socket: filepath.Join(t.TempDir(), "s"), plugins: make(chan *peer, 16)}
	listener, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			r.serve(conn)
		}
	}()
	return r
}

func (r *runtime) serve(conn net.Conn) {
	mux := multiplex.Multiplex(conn, multiplex.WithBlockedRead()) // or it drops what comes before Listen
	r.t.Cleanup(func() { mux.Close() })
	toPlugin, err1 := mux.Open(multiplex.PluginServiceConn)
	fromPlugin, err2 := mux.Listen(multiplex.RuntimeServiceConn)
	server, err3 := ttrpc.NewServer()
	if err := errors.Join(err1, err2, err3); err != nil {
		r.t.Error(err)
		return
	}
	p := &peer{PluginService: api.NewPluginClient(ttrpc.NewClient(toPlugin)), mux: mux}
	api.RegisterRuntimeService(server, registry{p, r.plugins})
	go func() { _ = server.Serve(context.Background(), fromPlugin) }()
	mux.Unblock()
}

// registry takes registrations.
type registry struct {
	peer    *peer
	plugins chan<- *peer
}

func (r registry) RegisterPlugin(_ context.Context, req *api.RegisterPluginRequest) (*api.Empty, error) {
	r.peer.name = req.PluginIdx + "-" + req.PluginName
	r.plugins <- r.peer
	return &api.Empty{}, nil
}

func (registry) UpdateContainers(context.Context, *api.UpdateContainersRequest) (*api.UpdateContainersResponse, error) {
	return &api.UpdateContainersResponse{}, nil
}

// configure does it as containerd of that version, with a request timeout of 8 s.
func (p *peer) configure(t *testing.T, version string) (*api.ConfigureResponse, error) {
	return p.configureNRI(t, version, "v0.12.3")
}

func (p *peer) configureNRI(t *testing.T, version, nri string) (*api.ConfigureResponse, error) {
	return p.Configure(t.Context(), &api.ConfigureRequest{RuntimeName: "containerd", RuntimeVersion: version, NRIVersion: nri,
		RegistrationTimeout: 5000, RequestTimeout: 8000})
}

// start runs a plugin at the runtime; the returned function ends it, and waits for it.
func (r *runtime) start(node *fakeNode, mode gate.Mode) (p *Plugin, stop func()) {
	r.t.Helper()
	return r.startWith(node, func(o *Options) { o.Shell.Mode = mode })
}

func (r *runtime) startWith(node *fakeNode, change func(*Options)) (p *Plugin, stop func()) {
	r.t.Helper()
	p = node.plugin(r.t, func(o *Options) {
		o.Socket = r.socket
		change(o)
	})
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = func() {
		r.t.Helper()
		cancel()
		if err := receive(r.t, done); !errors.Is(err, context.Canceled) {
			r.t.Errorf("Run ended with %v", err)
		}
		noStubRuns(r.t)
	}
	return p, stop
}

// noStubRuns waits until no goroutine is left in a stub.
func noStubRuns(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var stacks strings.Builder
	for range 5000 {
		stacks.Reset()
		if err := pprof.Lookup("goroutine").WriteTo(&stacks, 1); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(stacks.String(), "nri/pkg/stub.") {
			return
		}
		<-tick.C
	}
	t.Errorf("goroutines of a stub are left:\n%s", stacks.String())
}

// becomes waits for a state.
func (f *fakeNode) becomes(t *testing.T, want func(State) bool) State {
	t.Helper()
	for {
		if s := receive(t, f.states); want(s) {
			return s
		}
	}
}

func TestThePluginRegistersUnderANameForEachMode(t *testing.T) {
	for mode, name := range map[gate.Mode]string{gate.Enforce: "99-horkos", gate.Audit: "99-horkos-audit"} {
		t.Run(string(mode), func(t *testing.T) {
			r := startRuntime(t)
			_, stop := r.start(&fakeNode{}, mode)
			defer stop()
			if p := receive(t, r.plugins); p.name != name {
				t.Errorf("registered as %s, want %s", p.name, name)
			}
		})
	}
}

func TestThePluginIsReadyWhenItWasSynchronised(t *testing.T) {
	r, node := startRuntime(t), &fakeNode{}
	p, stop := r.start(node, gate.Enforce)
	peer := receive(t, r.plugins)
	response, err := peer.configure(t, "2.4.2")
	if err != nil {
		t.Fatal(err)
	}
	if policy := response.GetFailurePolicy(); !policy.GetFailRequest() || !policy.GetKeepConnected() {
		t.Errorf("the failure policy is %v", policy)
	}
	node.becomes(t, func(s State) bool { return s.Connected && !s.Synchronized && s.Problem != "" })
	if d := p.deadline(); d != 2*time.Second {
		t.Errorf("the deadline is %s, want a quarter of the runtime's 8 s", d)
	}

	sync := &api.SynchronizeRequest{
		Pods:       []*api.PodSandbox{{Id: "pod", Namespace: "shop"}},
		Containers: []*api.Container{{Id: "container", PodSandboxId: "pod"}},
	}
	for range 2 { // a second time changes nothing
		if _, err := peer.Synchronize(t.Context(), sync); err != nil {
			t.Fatal(err)
		}
	}
	node.becomes(t, func(s State) bool { return s == State{Connected: true, Synchronized: true} })
	if want := sync.Pods[0].SizeVT() + sync.Containers[0].SizeVT(); p.budget.total != want || p.budget.spaces["shop"] != want {
		t.Errorf("the budget is %d, want %d", p.budget.total, want)
	}
	stop()
	if s := p.State(); s.Connected || s.Synchronized {
		t.Errorf("stopped, the state is %+v", s)
	}
}

func TestAnEnforcingGateRefusesARuntimeWithoutValidators(t *testing.T) {
	r, node := startRuntime(t), &fakeNode{}
	_, stop := r.start(node, gate.Enforce)
	defer stop()
	for range 2 { // it comes back, in vain
		if _, err := receive(t, r.plugins).configure(t, "2.1.4"); err == nil {
			t.Fatal("it agreed to be configured")
		}
	}
	node.becomes(t, func(s State) bool { return !s.Connected && strings.Contains(s.Problem, ErrCannotEnforce.Error()) })
}

func TestAnAuditingGateTakesAnyRuntime(t *testing.T) {
	r := startRuntime(t)
	_, stop := r.start(&fakeNode{}, gate.Audit)
	defer stop()
	response, err := receive(t, r.plugins).configure(t, "1.7.0")
	if err != nil {
		t.Fatal(err)
	}
	if response.GetFailurePolicy().GetFailRequest() {
		t.Error("its absence is to refuse containers")
	}
}

func TestTheStateSaysWhatKeepsTheRuntimeFromSynchronisingUntilItDoes(t *testing.T) {
	r, node := startRuntime(t), &fakeNode{}
	_, stop := r.startWith(node, func(o *Options) { o.Explain = func() string { return "shop 9 MB, blog 1 MB" } })
	defer stop()
	explained := func(connected bool) func(State) bool {
		return func(s State) bool {
			return s.Connected == connected && !s.Synchronized && strings.Contains(s.Problem, "not synchronised") && strings.Contains(s.Problem, "shop 9 MB")
		}
	}
	configure := func() *peer {
		p := receive(t, r.plugins)
		if _, err := p.configure(t, "2.4.2"); err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := configure()
	p.mux.Close() // as the adaptation does when it gives up
	node.becomes(t, explained(false))
	p = configure()
	node.becomes(t, explained(true))
	if _, err := p.Synchronize(t.Context(), &api.SynchronizeRequest{}); err != nil {
		t.Fatal(err)
	}
	node.becomes(t, func(s State) bool { return s == State{Connected: true, Synchronized: true} })
	p.mux.Close()
	node.becomes(t, func(s State) bool { return !s.Connected && !strings.Contains(s.Problem, "shop") })
}

func TestOnlyALongSynchronisedConnectionMakesTheNextPauseShort(t *testing.T) {
	tests := []struct {
		name                      string
		pause, synchronized, want time.Duration
	}{
		{"the first", 0, 0, firstPause},
		{"it doubles", firstPause, 0, 2 * firstPause},
		{"up to a limit", maxPause/2 + 1, 0, maxPause},
		{"and stays there", maxPause, 0, maxPause},
		{"just not long enough", maxPause, stable, maxPause},
		{"long enough", maxPause, stable + 1, firstPause},
	}
	for _, tt := range tests {
		if got := nextPause(tt.pause, tt.synchronized); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestAConnectionThatWasNotSynchronisedIsNotStable(t *testing.T) {
	for name, synchronise := range map[string]bool{"not synchronised": false, "synchronised": true} {
		t.Run(name, func(t *testing.T) {
			r, node := startRuntime(t), &fakeNode{}
			p := node.plugin(t, func(o *Options) { o.Socket = r.socket })
			type end struct {
				synchronized time.Duration
				err          error
			}
			ended := make(chan end, 1)
			go func() {
				synchronized, err := p.serve(t.Context())
				ended <- end{synchronized, err}
			}()
			peer := receive(t, r.plugins)
			if _, err := peer.configure(t, "2.4.2"); err != nil {
				t.Fatal(err)
			}
			if synchronise {
				if _, err := peer.Synchronize(t.Context(), &api.SynchronizeRequest{}); err != nil {
					t.Fatal(err)
				}
				node.becomes(t, func(s State) bool { return s.Synchronized })
			}
			peer.mux.Close()
			if e := receive(t, ended); (e.synchronized > 0) != synchronise || e.err == nil {
				t.Errorf("synchronised for %s, and ended with %v", e.synchronized, e.err)
			}
		})
	}
}

func TestThePluginComesBackWheneverTheRuntimeGoes(t *testing.T) {
	configured := func(p *peer, t *testing.T) {
		if _, err := p.configure(t, "2.4.2"); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name  string
		until func(*peer, *testing.T)
	}{
		{"after the registration", func(*peer, *testing.T) {}},
		{"after the configuration", configured},
		{"after the synchronisation", func(p *peer, t *testing.T) {
			configured(p, t)
			if _, err := p.Synchronize(t.Context(), &api.SynchronizeRequest{}); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := startRuntime(t)
			_, stop := r.start(&fakeNode{}, gate.Enforce)
			defer stop()
			for range 3 {
				p := receive(t, r.plugins)
				tt.until(p, t)
				p.mux.Close()
			}
			receive(t, r.plugins)
		})
	}
}

func TestThePluginStopsAtOnceWhateverTheRuntimeOwesIt(t *testing.T) {
	t.Run("before there is a runtime", func(t *testing.T) {
		r := &runtime{t: t, socket: filepath.Join(t.TempDir(), "none")}
		node := &fakeNode{}
		_, stop := r.start(node, gate.Enforce)
		node.becomes(t, func(s State) bool { return s.Problem != "" })
		stop()
	})
	t.Run("before it is configured", func(t *testing.T) {
		r := startRuntime(t)
		_, stop := r.start(&fakeNode{}, gate.Enforce)
		receive(t, r.plugins)
		stop()
	})
	t.Run("before it is synchronised", func(t *testing.T) {
		r := startRuntime(t)
		_, stop := r.start(&fakeNode{}, gate.Enforce)
		if _, err := receive(t, r.plugins).configure(t, "2.4.2"); err != nil {
			t.Fatal(err)
		}
		stop()
	})
}

func TestThePluginStaysAwayWhileItMayNotRegister(t *testing.T) {
	r, node := startRuntime(t), &fakeNode{}
	asked := make(chan struct{}, 16)
	may := make(chan struct{})
	p := node.plugin(t, func(o *Options) {
		o.Socket = r.socket
		o.Before = func(context.Context) error {
			asked <- struct{}{}
			select {
			case <-may:
				return nil
			default:
				return errors.New("an object is too large")
			}
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	node.becomes(t, func(s State) bool { return s == State{Problem: "an object is too large"} })
	receive(t, asked)
	receive(t, asked)
	if len(r.plugins) > 0 {
		t.Error("it registered")
	}
	close(may)
	receive(t, r.plugins)
	cancel()
	receive(t, done)
}
