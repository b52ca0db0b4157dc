package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// service tells the service manager how things stand: READY once the node is gated,
// STATUS on every change, and the watchdog as long as a decision can be made.
type service struct {
	problems func() []string
	notices  func() []string // what is wrong and does not keep the node from gating
	gated    func() bool     // the runtime asks the gate
	probe    func() error
	changed  chan struct{}
}

func newService(problems, notices func() []string, gated func() bool, probe func() error) *service {
	return &service{problems: problems, notices: notices, gated: gated, probe: probe, changed: make(chan struct{}, 1)}
}

// Changed has the state told again soon. It does not wait.
func (s *service) Changed() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Run tells the service manager until the context ends. Without one it does nothing but wait.
func (s *service) Run(ctx context.Context) error {
	watch, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read the watchdog's interval: %w", err)
	}
	beat := 10 * time.Second
	if watch > 0 {
		beat = watch / 3
	}
	tick := time.NewTicker(beat)
	defer tick.Stop()
	ready := false
	for {
		state := "STATUS=" + strings.Join(append([]string{"gating"}, s.notices()...), "; ")
		if problems := s.problems(); len(problems) > 0 {
			state = "STATUS=not ready: " + strings.ReplaceAll(strings.Join(problems, "; "), "\n", " ")
		}
		// What else is wrong, policies that are kept for want of newer ones, say, must not
		// hold back the kubelet, which waits for READY: the gate decides.
		if !ready && s.gated() {
			state = daemon.SdNotifyReady + "\n" + state
			ready = true
		}
		s.notify(state)
		select {
		case <-ctx.Done():
			s.notify(daemon.SdNotifyStopping)
			return ctx.Err()
		case <-s.changed:
		case <-tick.C:
			// Also while the runtime is away: a gate that can decide is alive.
			if watch > 0 && s.probe() == nil {
				s.notify(daemon.SdNotifyWatchdog)
			}
		}
	}
}

// notify tells, and does not mind when nobody listens.
func (s *service) notify(state string) { _, _ = daemon.SdNotify(false, state) }
