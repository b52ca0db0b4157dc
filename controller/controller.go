package controller

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/controller/mirror"
)

const (
	fieldManager   = "horkos-controller"
	requestTimeout = 10 * time.Second

	// Changes are looked at when none came for quiet, and settle after the first at the latest.
	quiet  = 100 * time.Millisecond
	settle = 500 * time.Millisecond
	// writing is how long statuses are written until changes are looked at again.
	writing = time.Second
	// What cannot be written is tried again after firstRetry, doubling up to lastRetry, and up
	// to half as long again, at random.
	firstRetry = 250 * time.Millisecond
	lastRetry  = time.Minute
)

// Options are what a Controller works with.
type Options struct {
	Clients  apiserver.Clients
	Identity string // who reports events
	Log      *slog.Logger
	Now      func() time.Time
	Grace    time.Duration // how long a node is gone before its NodeGate goes
}

// Controller does the leader's work. There must be one at a time in a cluster.
type Controller struct {
	Options
	kinds []Kind

	policies *mirror.Mirror // of objects that bear conditions
	nodes    *mirror.Mirror // of nodes and NodeGates
	changed  chan struct{}

	desk      *desk
	allowance allowance
	vanished  vanished

	started atomic.Bool // for Synced
}

// New makes a controller.
func New(options Options) *Controller {
	c := &Controller{Options: options, kinds: Kinds(), changed: make(chan struct{}, 1)}
	resources := make([]mirror.Resource, 0, len(c.kinds))
	for _, k := range c.kinds {
		resources = append(resources, k.Resource)
	}
	changed := func() {
		select {
		case c.changed <- struct{}{}:
		default: // it is told already
		}
	}
	c.policies = mirror.New(options.Clients, changed, nil, resources...) // client-go logs what fails
	c.nodes = mirror.New(options.Clients, nil, nil, Nodes(), gates())
	c.desk = newDesk()
	c.vanished.grace = options.Grace
	return c
}

// Run works until the context ends.
func (c *Controller) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() { c.policies.Run(ctx) })
	watching.Go(func() { c.nodes.Run(ctx) })
	c.started.Store(true)

	sweep := time.NewTicker(c.Grace / 10)
	defer sweep.Stop()
	for {
		var retry <-chan time.Time // nil: never
		if next, ok := c.desk.next(); ok {
			retry = time.After(max(0, next.Sub(c.Now())))
		}
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
			c.settled(ctx)
			c.judge()
			c.write(ctx)
		case <-retry:
			c.write(ctx)
		case <-sweep.C:
			c.sweep(ctx)
		}
	}
}

// Missing names what has not been listed yet; a controller that does not run misses nothing.
func (c *Controller) Missing() (resources []string) {
	if !c.started.Load() {
		return nil
	}
	for _, k := range c.kinds {
		if !c.policies.Synced(k.Resource) {
			resources = append(resources, k.Resource.GroupResource().String())
		}
	}
	for _, r := range []mirror.Resource{Nodes(), gates()} {
		if !c.nodes.Synced(r) {
			resources = append(resources, r.GroupResource().String())
		}
	}
	return resources
}

// settled waits until no more changes come: an apply of many files is judged once.
func (c *Controller) settled(ctx context.Context) {
	limit := time.After(settle)
	for {
		still := time.NewTimer(quiet)
		select {
		case <-c.changed:
			still.Stop()
			continue
		case <-still.C:
		case <-limit:
		case <-ctx.Done():
		}
		still.Stop()
		return
	}
}

// judge finds what is to be written. Without the list of authorities every policy would seem
// to name one that does not exist.
func (c *Controller) judge() {
	if !c.policies.Synced(c.kinds[0].Resource) {
		return
	}
	var all []entry
	for _, k := range c.kinds {
		for _, o := range c.policies.Objects(k.Resource) {
			if u, ok := o.(*unstructured.Unstructured); ok {
				all = append(all, entry{kind: k, object: u})
			}
		}
	}
	c.desk.take(all, c.Now())
	c.allowance.keep(c.desk.uids())
}

// write writes what is due, for a while.
func (c *Controller) write(ctx context.Context) {
	until := c.Now().Add(writing)
	for _, name := range c.desk.due(c.Now()) {
		if ctx.Err() != nil || c.Now().After(until) {
			return
		}
		e, want := c.desk.pending(name)
		before := StatusOf(e.object)
		answer, err := c.apply(ctx, e, want)
		if err != nil {
			if ctx.Err() == nil {
				c.Log.Warn("cannot write a status, trying again", "object", name, "error", err)
				c.desk.failed(name, c.Now(), rand.Float64())
			}
			continue
		}
		c.desk.written(name, answer)
		c.Log.Debug("wrote a status", "object", name, "ready", want.Condition(Ready).Status, "reason", want.Condition(Ready).Reason)
		for _, n := range changes(before, want) {
			c.tell(ctx, answer, n)
		}
	}
}

func (c *Controller) apply(ctx context.Context, e entry, want Status) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	status, err := want.fields()
	if err != nil {
		return nil, err
	}
	// With its UID: what is said of an object is not said of another that took its name.
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": e.kind.APIVersion,
		"kind":       e.kind.Name,
		"metadata":   map[string]any{"name": e.object.GetName(), "uid": string(e.object.GetUID())},
		"status":     status,
	}}
	resource := c.Clients.Objects.Resource(e.kind.Resource.GroupVersionResource)
	options := metav1.ApplyOptions{FieldManager: fieldManager, Force: true}
	var answer *unstructured.Unstructured
	if ns := e.object.GetNamespace(); ns != "" {
		object.SetNamespace(ns)
		answer, err = resource.Namespace(ns).ApplyStatus(ctx, e.object.GetName(), object, options)
	} else {
		answer, err = resource.ApplyStatus(ctx, e.object.GetName(), object, options)
	}
	if err != nil {
		return nil, fmt.Errorf("apply the status: %w", err)
	}
	return answer, nil
}

// tell sends an event. One that cannot be sent is not sent again: the condition stands.
func (c *Controller) tell(ctx context.Context, about *unstructured.Unstructured, n news) {
	if !c.allowance.take(about.GetUID(), c.Now()) {
		c.Log.Info("an object changes too often: no event", "kind", about.GetKind(), "namespace", about.GetNamespace(), "name", about.GetName(), "reason", n.reason)
		return
	}
	if err := send(ctx, c.Clients.Objects, c.Identity, about, n, c.Now()); err != nil && ctx.Err() == nil {
		c.Log.Warn("an event is lost", "kind", about.GetKind(), "namespace", about.GetNamespace(), "name", about.GetName(), "error", err)
	}
}

// gates are the NodeGates, of which the names are enough here.
func gates() mirror.Resource {
	r := NodeGates()
	r.MetadataOnly = true
	return r
}

// sweep removes the NodeGates of nodes that are gone.
func (c *Controller) sweep(ctx context.Context) {
	if !c.nodes.Synced(Nodes()) || !c.nodes.Synced(gates()) {
		return
	}
	for _, gate := range c.vanished.due(c.nodes.Objects(Nodes()), c.nodes.Objects(gates()), c.Now()) {
		if err := forget(ctx, c.Clients, c.Log, gate); err != nil && ctx.Err() == nil {
			c.Log.Warn("a NodeGate stays for now", "node", gate.GetName(), "error", err)
		}
	}
}
