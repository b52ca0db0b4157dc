package harness

import (
	"fmt"
	"math"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
)

// The environment variables that steer tests on real components.
const (
	envIntegration = "HORKOS_INTEGRATION" // "required": a missing precondition is a failure
	envTries       = "HORKOS_TRIES"       // factor of the numbers of Tries
)

const defaultTries = 0.2

// Require skips the test, with the reason, where the real components cannot run; with
// HORKOS_INTEGRATION=required it fails it.
func Require(t testing.TB) {
	t.Helper()
	require(t, Check())
}

func require(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv(envIntegration) == "required" {
		t.Fatalf("%s=required, and the real components cannot run here: %v", envIntegration, err)
	}
	t.Skipf("the real components cannot run here: %v", err)
}

// New makes a run for the test (Require included), which is closed at the test's end. A
// failed test shows the ends of the logs. What cannot be cleaned up fails the test.
func New(t testing.TB) *Run {
	t.Helper()
	Require(t)
	run, err := NewRun()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			run.logTails(t.Log)
		}
		if err := run.Close(); err != nil {
			t.Error(err)
		}
	})
	return run
}

func (r *Run) logTails(log func(...any)) {
	r.mu.Lock()
	services := r.services
	r.mu.Unlock()
	for _, s := range services {
		log(s.LogTail())
	}
}

// Tries scales the number of times a loop of a test runs: full is the number that
// proves something, and is used with HORKOS_TRIES=1 (as continuous integration sets
// it). Unset, it is a fifth. It is never less than 1.
func Tries(t testing.TB, full int) int {
	t.Helper()
	factor := defaultTries
	if value := os.Getenv(envTries); value != "" {
		var err error
		if factor, err = strconv.ParseFloat(value, 64); err != nil || !(factor > 0) || factor > 1000 {
			t.Fatalf("%s is a factor over 0 and up to 1000, not %q", envTries, value)
		}
	}
	return max(1, int(math.Round(float64(full)*factor)))
}

// Main runs the tests of a package, for its TestMain: os.Exit(harness.Main(m)). When a
// signal ends them early, their runs are cleaned up first.
func Main(m *testing.M) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-signals
		if err := cleanOwn(); err != nil {
			fmt.Fprintln(os.Stderr, "clean up:", err)
		}
		os.Exit(130)
	}()
	return m.Run()
}
