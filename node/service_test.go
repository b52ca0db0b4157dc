package node

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// manager is a service manager that hears what a service says.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return &manager{t, conn}
}

// hears waits for a message with a part in it, and gives all up to it.
func (m *manager) hears(part string) []string {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
	var all []string
	for {
		b := make([]byte, 4096)
		n, err := m.conn.Read(b)
		if err != nil {
			m.t.Fatalf("%q was not said: %v; heard %q", part, err, all)
		}
		all = append(all, string(b[:n]))
		if strings.Contains(all[len(all)-1], part) {
			return all
		}
	}
}

func (m *manager) run(s *service) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			m.t.Errorf("Run ended with %v", err)
		}
	}
}

func never() bool { return false }

func none() []string { return nil }

func TestReadyIsSaidOnceAndTheStatusWheneverItChanges(t *testing.T) {
	m := newManager(t)
	var problem atomic.Pointer[string]
	set := func(text string) { problem.Store(&text) }
	set("runtime:\nnot registered")
	s := newService(func() []string {
		if p := *problem.Load(); p != "" {
			return []string{p}
		}
		return nil
	}, func() []string { return []string{"time: the clock is behind"} }, func() bool { return !strings.HasPrefix(*problem.Load(), "runtime") }, func() error { return nil })
	stop := m.run(s)
	defer stop()
	if heard := m.hears("not ready"); heard[0] != "STATUS=not ready: runtime: not registered" {
		t.Errorf("heard %q", heard)
	}
	set("policies: gone") // the gate decides by the last good ones
	s.Changed()
	m.hears("READY=1\nSTATUS=not ready: policies: gone")
	set("")
	s.Changed()
	for _, text := range m.hears("STATUS=gating; time: the clock is behind") {
		if strings.Contains(text, "READY=1") {
			t.Error("READY was said again")
		}
	}
}

func TestAGateWithOldPoliciesIsReadyForTheServiceManager(t *testing.T) {
	m := newManager(t)
	stop := m.run(newService(func() []string { return []string{"policies: the folder is gone"} }, none, func() bool { return true }, func() error { return nil }))
	defer stop()
	m.hears("READY=1\nSTATUS=not ready: policies: the folder is gone")
}

func TestTheWatchdogIsFedWhileADecisionCanBeMadeAlsoWhenNotReady(t *testing.T) {
	m := newManager(t)
	t.Setenv("WATCHDOG_USEC", "30000")
	s := newService(func() []string { return []string{"runtime: away"} }, none, never, func() error { return nil })
	stop := m.run(s)
	m.hears("WATCHDOG=1")
	stop()
	m.hears("STOPPING=1")
}

func TestTheWatchdogIsNotFedByAGateThatCannotDecide(t *testing.T) {
	m := newManager(t)
	t.Setenv("WATCHDOG_USEC", "30000")
	probed := make(chan struct{}, 100)
	s := newService(func() []string { return nil }, none, never, func() error {
		probed <- struct{}{}
		return errors.New("stuck")
	})
	stop := m.run(s)
	for range 3 {
		select {
		case <-probed:
		case <-time.After(10 * time.Second):
			t.Fatal("not probed")
		}
	}
	stop()
	for _, text := range m.hears("STOPPING=1") {
		if strings.Contains(text, "WATCHDOG=1") {
			t.Error("fed")
		}
	}
}

func TestWithoutAServiceManagerNothingIsSaid(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	m := &manager{t: t}
	m.run(newService(func() []string { return nil }, none, never, func() error { return nil }))()
}
