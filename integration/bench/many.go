package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/horkos/horkos/integration/harness"
)

// manyNodes measures what all nodes together cost.
func (s *scale) manyNodes(ctx context.Context) error {
	if s.nodes == 0 {
		return nil
	}
	s.say("%d nodes, begun within %v", s.nodes, s.over)
	var nodes []*node
	for i := range s.nodes {
		n, err := s.newNode(fmt.Sprintf("node-%04d", i))
		if err != nil {
			return err
		}
		nodes = append(nodes, n)
	}
	resident := s.resident()
	running, end := context.WithCancel(ctx)
	var all errgroup.Group
	before := s.used()
	for _, n := range nodes {
		all.Go(func() error {
			if err := wait(running, rand.N(s.over+1)); err != nil {
				return nil
			}
			n.begun.Store(time.Now().UnixNano())
			return n.run(running)
		})
	}
	err := func() error {
		back, err := s.allFollow(ctx, nodes, func(n *node) time.Time { return time.Unix(0, n.begun.Load()) })
		if err != nil {
			return err
		}
		u := s.since(before)
		s.fact("from its start until a node has it all: %s", spread(back))
		s.total("  for that", u)
		s.fact("the API server has %d MB resident, %d before; at most %d", s.resident(), resident, s.peak())
		for _, step := range []func(context.Context, []*node) error{s.quiet, s.change, s.load, s.restart, s.change} {
			if err := step(ctx, nodes); err != nil {
				return err
			}
		}
		return nil
	}()
	end()
	if ran := all.Wait(); err == nil {
		err = ran
	}
	return err
}

// allFollow waits until every node has it all, and gives when, since a moment of the node's.
func (s *scale) allFollow(ctx context.Context, nodes []*node, since func(*node) time.Time) ([]time.Duration, error) {
	var took []time.Duration
	waiting := slices.Clone(nodes)
	err := s.until(ctx, "all nodes to have it all", func() bool {
		waiting = slices.DeleteFunc(waiting, func(n *node) bool {
			if n.follows() {
				took = append(took, time.Since(since(n)))
				return true
			}
			return false
		})
		return len(waiting) == 0
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %d do not; %s: %s", err, len(waiting), waiting[0].name, waiting[0].cluster.Status().Problem)
	}
	return took, nil
}

// quiet lets a minute pass in which nothing changes.
func (s *scale) quiet(ctx context.Context, _ []*node) error {
	before := s.used()
	if err := wait(ctx, time.Minute); err != nil {
		return err
	}
	s.total("a minute in which nothing changes", s.since(before))
	s.fact("  the API server has %d MB resident after it", s.resident())
	return nil
}

// change changes a policy some times, and looks when it is in force.
func (s *scale) change(ctx context.Context, nodes []*node) error {
	const changes = 5
	var took, lasts []time.Duration
	before := s.used()
	for i := range changes {
		content := fmt.Sprintf("registry.example.com/%d-%d/**", time.Now().UnixNano(), i)
		began := time.Now()
		if _, err := s.control.Admin.Merge(ctx, horkosAPI+"/clusterattestationpolicies/"+probe,
			harness.Object{"spec": harness.Object{"images": []any{content}}}); err != nil {
			return err
		}
		if err := s.until(ctx, "a change to be in force on all nodes", func() bool {
			return !slices.ContainsFunc(nodes, func(n *node) bool { return n.saw(content).IsZero() })
		}); err != nil {
			return err
		}
		var last time.Duration
		for _, n := range nodes {
			d := n.saw(content).Sub(began)
			took, last = append(took, d), max(last, d)
		}
		lasts = append(lasts, last)
		if err := wait(ctx, time.Second); err != nil { // what follows a change, such as writing copies
			return err
		}
	}
	u := s.since(before)
	s.fact("a policy changed, until it is in force on a node: %s; the last of all: p50 %v", spread(took), lasts[len(lasts)/2].Round(time.Millisecond))
	u.wall, u.server, u.etcd, u.bench, u.received, u.sent = u.wall/changes, u.server/changes, u.etcd/changes, u.bench/changes, u.received/changes, u.sent/changes
	s.total("  for one change", u)
	return nil
}

// load has every node ask for attestations and say how it is, at once, each at the rate it
// is held to.
func (s *scale) load(ctx context.Context, nodes []*node) error {
	each := func(what string, times int, do func(ctx context.Context, n *node, i int) error) error {
		before := s.used()
		group, ctx := errgroup.WithContext(ctx)
		for at, n := range nodes {
			group.Go(func() error {
				for i := range times {
					if err := do(ctx, n, at+i); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		u := s.since(before)
		s.total(fmt.Sprintf("%d %s", times*len(nodes), what), u)
		s.fact("  which is %.0f a second, and %.2f ms of processors of the API server for each",
			float64(times*len(nodes))/u.wall.Seconds(), u.server.Seconds()*1000/float64(times*len(nodes)))
		return nil
	}
	if err := each("NodeGates made", 1, func(ctx context.Context, n *node, _ int) error { return n.create(ctx) }); err != nil {
		return err
	}
	if err := each("NodeGates applied", 2, func(ctx context.Context, n *node, _ int) error { return n.report(ctx) }); err != nil {
		return err
	}
	return each("GETs of ImageAttestations", 10, func(ctx context.Context, n *node, i int) error {
		return n.attested(ctx, imageName(i%s.images()))
	})
}

// restart kills the API server, and looks how the nodes come back to the next one.
func (s *scale) restart(ctx context.Context, nodes []*node) error {
	s.say("the API server is killed, and started again after 5 s")
	if err := s.control.APIServer.Kill(); err != nil {
		return err
	}
	if err := wait(ctx, 5*time.Second); err != nil {
		return err
	}
	before, began := s.used(), time.Now()
	patient, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.control.APIServer.Start(patient); err != nil {
		return err
	}
	ready := time.Since(began)
	back, err := s.allFollow(ctx, nodes, func(*node) time.Time { return began })
	if err != nil {
		return err
	}
	u := s.since(before)
	s.fact("it says that it is ready %v after its start; a node follows again after: %s", ready.Round(time.Millisecond), spread(back))
	s.fact("  nodes back, by second: %s", histogram(back))
	s.total("  from its start until all are back", u)
	s.fact("  it has %d MB resident, at most %d", s.resident(), s.peak())
	asked, err := s.asked(ctx)
	if err != nil {
		return err
	}
	var texts []string
	for _, what := range slices.Sorted(maps.Keys(asked)) {
		texts = append(texts, fmt.Sprintf("%s: %d", what, asked[what]))
	}
	s.fact("  what it was asked about objects of ours: %s", strings.Join(texts, ", "))
	return nil
}

// histogram counts durations by their whole seconds.
func histogram(all []time.Duration) string {
	counts := make(map[int]int)
	for _, d := range all {
		counts[int(d.Seconds())]++
	}
	var texts []string
	for _, second := range slices.Sorted(maps.Keys(counts)) {
		texts = append(texts, fmt.Sprintf("%d: %d", second, counts[second]))
	}
	return strings.Join(texts, ", ")
}

// total prints what something took in all.
func (s *scale) total(what string, u used) {
	s.fact("%s: %s; processors: API server %s, etcd %s, the nodes in this process %s; %s received, %s sent", what,
		seconds(u.wall), seconds(u.server), seconds(u.etcd), seconds(u.bench), kilobytes(u.received), kilobytes(u.sent))
}
