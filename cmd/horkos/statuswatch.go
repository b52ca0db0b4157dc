package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/controller/mirror"
)

const (
	// redraw is how long further changes are waited for before the state is printed.
	redraw = 250 * time.Millisecond
	// recheck is how often it is looked whether time alone changed the state: a gate that fell
	// silent, or a controller.
	recheck = 10 * time.Second
	// leasePatience is how long an answer about the Lease is waited for meanwhile.
	leasePatience = 5 * time.Second
)

// followed is a collection that is watched.
type followed struct {
	resource mirror.Resource
	mirror   *mirror.Mirror
	absent   atomic.Bool // the API server does not know the kind
}

// follows prepares to watch a collection. Changed is called after each change, and that a kind
// is not known any more is one; failed is told of any other failure. Neither may block.
func follows(clients apiserver.Clients, r mirror.Resource, changed func(), failed func(error)) *followed {
	f := &followed{resource: r}
	f.mirror = mirror.New(clients, func() {
		f.absent.Store(false)
		changed()
	}, func(_ mirror.Resource, err error) {
		if !apierrors.IsNotFound(err) {
			failed(fmt.Errorf("watch %s: %w", r.GroupResource(), err))
		} else if !f.absent.Swap(true) {
			changed()
		}
	}, r)
	return f
}

// follow prints the state, and prints it again whenever it changes, until the context ends. The
// Lease and the webhook are as they were seen last.
func (p *statusPrinter) follow(ctx context.Context, clients apiserver.Clients, lease leaseSeen, webhook webhookState, errs io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()

	changed := make(chan struct{}, 1)
	troubles := make(chan error, 1)
	var all []*followed
	for _, r := range statusResources() {
		f := follows(clients, r, func() {
			select {
			case changed <- struct{}{}:
			default: // it is told already
			}
		}, func(err error) {
			select {
			case troubles <- err:
			default: // one at a time is enough
			}
		})
		all = append(all, f)
		watching.Go(func() { f.mirror.Run(ctx) })
	}

	tick := time.NewTicker(recheck)
	defer tick.Stop()
	var last clusterState
	lost := false
	for printed := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case err := <-troubles:
			if ctx.Err() == nil && !lost {
				lost = true
				fmt.Fprintln(errs, printable(cannotTell(err).Error())+"; trying again: what is shown may be old")
			}
			continue
		case <-changed:
			pause(ctx, redraw)
			lost = false
		case <-tick.C:
			lease = lease.again(ctx, clients)
			webhook = webhook.again(ctx, clients, lease.namespace)
		}
		known, ok := held(all)
		if !ok {
			continue
		}
		known.lease, known.webhook = lease, webhook
		now := stateOf(known, time.Now())
		if printed && now.same(last) {
			continue
		}
		if err := p.block(now); err != nil {
			return err
		}
		printed, last = true, now
	}
}

// again looks at the Lease again. One that cannot be read now is as it was.
func (l leaseSeen) again(ctx context.Context, clients apiserver.Clients) leaseSeen {
	ctx, cancel := context.WithTimeout(ctx, leasePatience)
	defer cancel()
	now, err := readLease(ctx, clients, l.namespace, time.Now())
	if err != nil {
		return l // that the API server does not answer is told by the watches
	}
	return now
}

// held is what is known of the collections, once it is of each.
func held(all []*followed) (listing, bool) {
	known := newListing()
	for _, f := range all {
		switch {
		case f.absent.Load():
			known.absent[f.resource] = true
		case f.mirror.Synced(f.resource):
			known.objects[f.resource] = f.mirror.Objects(f.resource)
		default:
			return listing{}, false
		}
	}
	return known, true
}

// block prints a state of several: in the place of the one before on a terminal, and below
// it elsewhere.
func (p *statusPrinter) block(s clusterState) error {
	if !p.json {
		before := ""
		if isTerminal(p.out) {
			before = "\x1b[H\x1b[2J" // to the top, and clear
		}
		if _, err := fmt.Fprintf(p.out, "%s%s\n", before, s.Time.Format(time.RFC3339)); err != nil {
			return err
		}
	}
	if err := p.print(s); err != nil || p.json {
		return err
	}
	_, err := fmt.Fprintln(p.out)
	return err
}

// pause waits, unless the context ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
