package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/controller/mirror"
)

const (
	// redraw is how long further changes are waited for before the state is printed.
	redraw = 250 * time.Millisecond
	// recheck is how often it is looked whether time alone changed the state: a gate that fell silent.
	recheck = time.Minute
)

// follow prints the state, and prints it again whenever it changes, until the context ends.
func (p *statusPrinter) follow(ctx context.Context, clients apiserver.Clients, errs io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()

	changed := make(chan struct{}, 1)
	troubles := make(chan error, 1)
	m := mirror.New(clients, func() {
		select {
		case changed <- struct{}{}:
		default: // it is told already
		}
	}, func(r mirror.Resource, err error) {
		select {
		case troubles <- fmt.Errorf("watch %s: %w", r.GroupResource(), err):
		default: // one at a time is enough
		}
	}, statusResources()...)
	watching.Go(func() { m.Run(ctx) })

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
		}
		all, ok := held(m)
		if !ok {
			continue
		}
		now := stateOf(all, time.Now())
		if printed && now.same(last) {
			continue
		}
		if err := p.block(now); err != nil {
			return err
		}
		printed, last = true, now
	}
}

// held is what a mirror holds, once it holds everything.
func held(m *mirror.Mirror) (listing, bool) {
	all := make(listing)
	for _, r := range statusResources() {
		if !m.Synced(r) {
			return nil, false
		}
		all[r] = m.Objects(r)
	}
	return all, true
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
