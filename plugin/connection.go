package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"

	"github.com/horkos/horkos/gate"
)

// connection is the plugin on one connection to the runtime, from the registration to
// the loss. The handlers of what comes after the synchronisation are the Plugin's.
type connection struct {
	*Plugin
	stub  stub.Stub
	trunk *trunk

	asked      mark // for its configuration, by the runtime or by end
	configured mark
	synced     mark
}

func newConnection(p *Plugin) (*connection, error) {
	c := &connection{Plugin: p, trunk: newTrunk(), asked: newMark(), configured: newMark(), synced: newMark()}
	var err error
	c.stub, err = stub.New(c,
		stub.WithPluginName(p.name()),
		stub.WithPluginIdx(Index),
		stub.WithSocketPath(p.Socket),
		stub.WithDialer(c.trunk.dial),
		// Runtimes that know failure policies refuse what the plugin could not answer.
		stub.WithFailurePolicy(&api.FailurePolicy{FailRequest: true, KeepConnected: true}),
		stub.WithLogger(logger{p.Log}),
	)
	if err != nil {
		return nil, fmt.Errorf("make the NRI stub: %w", err)
	}
	return c, nil
}

// run registers, and returns why when the connection is over.
func (c *connection) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failure error
	done := newMark()
	go func() {
		failure = c.stub.Run(ctx)
		done.set()
	}()
	err := c.watch(ctx, done)
	cancel()
	c.end(done)
	if err == nil {
		err = failure
	}
	if err == nil {
		err = io.EOF
	}
	return fmt.Errorf("the connection to the runtime's NRI: %w", err)
}

// watch follows the connection until it is over. It returns nil where the stub knows why.
func (c *connection) watch(ctx context.Context, done mark) error {
	limit := time.NewTimer(syncTimeout)
	defer limit.Stop()
	configured, synced := c.configured.c, c.synced.c
	for {
		select {
		case <-done.c:
			return nil
		case <-c.trunk.closed.c:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return fmt.Errorf("not synchronised by the runtime within %s: see its log", syncTimeout)
		case <-configured:
			configured = nil
			c.set(State{Connected: true, Problem: "not synchronised by the runtime yet"})
		case <-synced:
			// The stub says it is started even when the runtime gave up on synchronising it.
			configured, synced = nil, nil
			limit.Stop()
			c.set(State{Connected: true, Synchronized: true})
			c.Log.Info("registered with the runtime and synchronised", "plugin", Index+"-"+c.name())
		}
	}
}

// end waits for the stub's Run, whose context has ended. The stub (0.12.5) waits without
// end to be configured, also when the runtime is gone by then; a configuration that is
// refused ends that.
func (c *connection) end(done mark) {
	select {
	case <-done.c:
		return
	case <-c.trunk.used.c: // before, it does not wait yet
	}
	if service, ok := c.stub.(api.PluginService); ok && c.asked.set() {
		go func() { _, _ = service.Configure(context.Background(), &api.ConfigureRequest{}) }()
	}
	<-done.c
}

// Configure refuses to enforce at a runtime that cannot be made to fail closed.
func (c *connection) Configure(_ context.Context, _, runtime, version string) (api.EventMask, error) {
	if !c.asked.set() {
		return 0, errors.New("the connection is given up, or was configured")
	}
	if c.Shell.Mode == gate.Enforce {
		if err := CanEnforce(runtime, version); err != nil {
			return 0, err
		}
	}
	c.setTimeout(c.stub.RequestTimeout())
	c.configured.set()
	return 0, nil
}

// Synchronize is answered at once, or the runtime gives up on the plugin; the sandboxes
// it tells of are judged in the background.
func (c *connection) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	c.take(pods, containers)
	c.synced.set()
	return nil, nil
}

// mark is something that happens once, or not at all, and can be waited for.
type mark struct {
	c    chan struct{}
	once *sync.Once
}

func newMark() mark { return mark{c: make(chan struct{}), once: new(sync.Once)} }

// set tells whether it was the first to set it.
func (m mark) set() (first bool) {
	m.once.Do(func() {
		close(m.c)
		first = true
	})
	return first
}
