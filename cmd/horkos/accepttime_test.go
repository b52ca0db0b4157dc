package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/state"
)

// timed makes a state folder of a node whose highest time is ahead of the wall clock.
func timed(t *testing.T, ahead time.Duration) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may set back the time of a node")
	}
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := state.RecordTime(dir, time.Now().Add(ahead)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTheWallClockIsAcceptedAfterAYes(t *testing.T) {
	dir := timed(t, 49*time.Hour)
	accepted := filepath.Join(dir, state.AcceptTimeName)
	args := []string{"policy", "accept-time", "--state-dir", dir}

	got := fed("yes\n", args...)
	if got.code != exitUndecided || !strings.Contains(got.errors, "--yes") {
		t.Errorf("%+v", got)
	}
	for _, text := range []string{"highest time recorded: " + time.Now().Add(49*time.Hour).UTC().Format("2006-01-02"), "wall clock: ", "is 49h0m0s behind", "expired"} {
		if !strings.Contains(got.out, text) {
			t.Errorf("%q is not in\n%s", text, got.out)
		}
	}
	for _, answer := range []string{"no\n", "\n", "y\n", "yes please\n"} {
		if got := typed(t, answer, args...); got.code != exitUndecided || !strings.Contains(got.errors, "the highest time stays in force") || !strings.Contains(got.errors, "Type yes: ") {
			t.Errorf("%q: %+v", answer, got)
		}
	}
	if _, err := os.Stat(accepted); err == nil {
		t.Fatal("accepted without a yes")
	}
	for name, run := range map[string]func() outcome{
		"at a terminal": func() outcome { return typed(t, "yes\n", args...) },
		"in a script":   func() outcome { return program(append(args, "--yes")...) },
	} {
		if got := run(); got.code != 0 || !strings.Contains(got.out, "Accepted") || strings.Contains(got.errors, "Type yes") != (name == "at a terminal") {
			t.Errorf("%s: %+v", name, got)
		}
		if at, err := state.AcceptedTime(dir); err != nil || time.Since(at) > time.Minute || time.Since(at) < 0 {
			t.Errorf("%s: accepted at %v, %v", name, at, err)
		}
		if err := os.Remove(accepted); err != nil {
			t.Error(err)
		}
	}
}

func TestWhereThereIsNothingToAcceptNothingIsAccepted(t *testing.T) {
	none := timed(t, 0)
	if err := os.Remove(filepath.Join(none, state.ClockName)); err != nil {
		t.Fatal(err)
	}
	damaged := timed(t, time.Hour)
	if err := os.Truncate(filepath.Join(damaged, state.ClockName), 20); err != nil {
		t.Fatal(err)
	}
	open := timed(t, time.Hour)
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ dir, want string }{
		"a wall clock that is right": {timed(t, -time.Second), "nothing to accept"},
		"a wall clock that is ahead": {timed(t, -time.Hour), "nothing to accept"},
		"no time recorded":           {none, "no time is recorded in"},
		"no folder":                  {filepath.Join(none, "gone"), "no time is recorded in"},
		"a damaged file":             {damaged, "damaged"},
		"a folder of all":            {open, "must belong to root"},
	} {
		got := program("policy", "accept-time", "--state-dir", tt.dir, "--yes")
		if got.code != exitUndecided || !strings.Contains(got.errors, tt.want) {
			t.Errorf("%s: %+v", name, got)
		}
		if _, err := os.Stat(filepath.Join(tt.dir, state.AcceptTimeName)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
