package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/integration/harness"
)

// idle is how long the API server is watched doing nothing, to know what it uses by itself.
const idle = 10 * time.Second

// oneNode measures what one node costs to begin, with nothing else going on.
func (s *scale) oneNode(ctx context.Context) error {
	s.say("one node, %d times", s.tries)
	before := s.used()
	if err := wait(ctx, idle); err != nil {
		return err
	}
	resting := s.since(before)
	s.fact("the API server idle: %.1f %% of a processor, %d MB resident", 100*resting.server.Seconds()/resting.wall.Seconds(), s.resident())

	var took []time.Duration
	before = s.used()
	for i := range s.tries {
		began := time.Now()
		n, err := s.newNode(fmt.Sprintf("one-%d", i))
		if err != nil {
			return err
		}
		if err := s.during(ctx, n, func() error { return s.until(ctx, "a node to have it all", n.follows) }); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	u := s.since(before)
	s.cost(fmt.Sprintf("a node begins: connects, lists %d objects and their definitions, watches", s.objects), u, resting, s.tries)
	s.fact("  from the start until it has it all: %s", spread(took))

	return nil
}

// cost prints what one of so many took, without what the API server uses by itself.
func (s *scale) cost(what string, u, resting used, times int) {
	share := func(d, rest time.Duration) string {
		d -= time.Duration(float64(rest) * u.wall.Seconds() / resting.wall.Seconds())
		return fmt.Sprintf("%.2f ms", max(d, 0).Seconds()*1000/float64(times))
	}
	s.fact("%s: %s of processors of the API server, %s of etcd; %s received, %s sent", what,
		share(u.server, resting.server), share(u.etcd, resting.etcd), kilobytes(u.received/int64(times)), kilobytes(u.sent/int64(times)))
}

// imageName is the name of the attestations of an image.
func imageName(i int) string {
	return strings.Replace(digest(fmt.Sprint("image ", i)), ":", "-", 1)
}

// during does something while a node runs.
func (s *scale) during(ctx context.Context, n *node, do func() error) error {
	running, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- n.run(running) }()
	err := do()
	end()
	if ran := <-ended; err == nil {
		err = ran
	}
	return err
}

// until waits for a condition, which is cheap.
func (s *scale) until(ctx context.Context, what string, met func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !met() {
		if err := wait(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
	}
	return nil
}

// patience is how long anything may take.
const patience = 15 * time.Minute

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// asked is what the API server was asked since it started, by verb, for what a node follows.
func (s *scale) asked(ctx context.Context) (map[string]int, error) {
	text, err := s.control.Admin.Raw(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int)
	for line := range strings.Lines(text) {
		labels, found := strings.CutPrefix(line, "apiserver_request_total{")
		if !found || !slices.ContainsFunc([]string{"kritis.grafeas.io", "notation.nirmata.io", "horkos.dev"}, func(group string) bool {
			return strings.Contains(labels, `group="`+group+`"`)
		}) {
			continue
		}
		var n float64
		if _, err := fmt.Sscan(labels[strings.LastIndex(labels, " ")+1:], &n); err != nil {
			return nil, err
		}
		counts[harness.Label(labels, "verb")+" "+harness.Label(labels, "code")] += int(n)
	}
	return counts, nil
}
