// Command bench measures what nodes cost the API server of their cluster: one of them by
// itself, and many at once. The nodes are those parts of horkos-node that talk to an API
// server, each with a certificate and a connection of its own, all in this process; etcd
// and the API server are the real ones. docs/performance.md has what it found.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/horkos/horkos/integration/harness"
)

func main() {
	var s scale
	flag.IntVar(&s.nodes, "nodes", 1000, "how many nodes at once; 0: only what one by itself costs")
	flag.IntVar(&s.objects, "objects", 200, "how many objects each of them follows")
	flag.DurationVar(&s.over, "over", time.Minute, "how long the beginnings of all nodes are spread over")
	flag.IntVar(&s.tries, "tries", 10, "how often what one node does is measured")
	flag.Parse()
	if err := harness.ClusterProgram(s.measure); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// scale is what is measured.
type scale struct {
	nodes, objects, tries int
	over                  time.Duration

	run     *harness.Run
	control *harness.ControlPlane
	wire    wire
	states  string // folder of the state folders
	began   time.Time
}

func (s *scale) measure(ctx context.Context, run *harness.Run) error {
	s.run, s.began, s.states = run, time.Now(), filepath.Join(run.Dir, "states")
	// In memory: the disks of so many nodes are not what is measured.
	if err := errors.Join(os.Mkdir(s.states, 0o700), unix.Mount("tmpfs", s.states, "tmpfs", 0, "mode=0700")); err != nil {
		return fmt.Errorf("make the state folders: %w", err)
	}
	s.say("starting etcd and the API server")
	var err error
	if s.control, err = run.StartControlPlane(ctx, harness.ControlPlaneOptions{}); err != nil {
		return err
	}
	if _, _, err := s.control.Kubectl(ctx, "apply", "-k", "daemonset/"); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{s.fill, s.oneNode, s.manyNodes} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// say prints what is being done, with the time since the start.
func (s *scale) say(format string, args ...any) {
	fmt.Printf("\n%5.1f s  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// fact prints what was found.
func (s *scale) fact(format string, args ...any) { fmt.Printf("         "+format+"\n", args...) }
