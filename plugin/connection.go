package plugin

import (
	"cmp"
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
		// Runtimes that know failure policies refuse what an enforcing gate could not answer.
		stub.WithFailurePolicy(&api.FailurePolicy{FailRequest: p.Shell.Mode == gate.Enforce, KeepConnected: true}),
		stub.WithLogger(logger{p.Log}),
	)
	if err != nil {
		return nil, fmt.Errorf("make the NRI stub: %w", err)
	}
	return c, nil
}

// run registers. When the connection is over it returns for how long the plugin was
// synchronised, and why it is not any more.
func (c *connection) run(ctx context.Context) (synchronized time.Duration, err error) {
	connected, cancel := context.WithCancel(ctx)
	defer cancel()
	var failure error
	done := newMark()
	go func() {
		failure = c.stub.Run(connected)
		done.set()
	}()
	synchronized, err = c.watch(ctx, done)
	cancel()
	c.end(done)
	if errors.Is(failure, context.Canceled) {
		failure = nil // by the above, for the connection is gone
	}
	err = fmt.Errorf("the connection to the runtime's NRI: %w", cmp.Or(err, failure, io.EOF))
	if ctx.Err() == nil && c.configured.isSet() && !c.synced.isSet() {
		err = c.unsynchronized(err)
	}
	return synchronized, err
}

// unsynchronized says what a runtime had to tell that got no further than the configuration:
// of too large a node it cannot, and nobody but the node's owner can mend that.
func (c *connection) unsynchronized(err error) error {
	c.held = "not synchronised by the runtime, whose log says why"
	if c.Explain != nil {
		if what := c.Explain(); what != "" {
			c.held += "; on the node are " + what
		}
	}
	return fmt.Errorf("%s: %w", c.held, err)
}

// watch follows the connection until it is over. It returns no error where the stub knows why.
func (c *connection) watch(ctx context.Context, done mark) (synchronized time.Duration, err error) {
	limit := time.NewTimer(syncTimeout)
	defer limit.Stop()
	var since time.Time
	defer func() {
		if !since.IsZero() {
			synchronized = time.Since(since)
		}
	}()
	configured, synced := c.configured.c, c.synced.c
	for {
		select {
		case <-done.c:
			return 0, nil
		case <-c.trunk.closed.c:
			return 0, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-limit.C:
			return 0, fmt.Errorf("given up after %s", syncTimeout)
		case <-configured:
			configured = nil
			c.set(State{Connected: true, Problem: cmp.Or(c.held, "not synchronised by the runtime yet")})
		case <-synced:
			// The stub says it is started even when the runtime gave up on synchronising it.
			configured, synced = nil, nil
			limit.Stop()
			since, c.held = time.Now(), ""
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

// Configure refuses to enforce at a runtime that cannot be made to fail closed, and
// subscribes: to CreateContainer only where the answer counts there (see CreateContainer).
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
	var events api.EventMask
	events.Set(api.Event_RUN_POD_SANDBOX, api.Event_REMOVE_POD_SANDBOX, api.Event_VALIDATE_CONTAINER_ADJUSTMENT,
		api.Event_STOP_CONTAINER, api.Event_REMOVE_CONTAINER)
	if c.Shell.Mode == gate.Enforce && skipsTheDead(version, c.stub.RuntimeNRIVersion()) {
		events.Set(api.Event_CREATE_CONTAINER)
	}
	return events, nil
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

func (m mark) isSet() bool {
	select {
	case <-m.c:
		return true
	default:
		return false
	}
}

// set tells whether it was the first to set it.
func (m mark) set() (first bool) {
	m.once.Do(func() {
		close(m.c)
		first = true
	})
	return first
}
