package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestAMachineRunsItsUnitsAndBootsAgain(t *testing.T) {
	RequireSystemd(t)
	run := New(t)
	m := newMachine(t, run)
	for boot := range 2 {
		began := time.Now()
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		waitActive(t, m, "multi-user.target")
		t.Logf("boot %d took %v", boot+1, time.Since(began).Round(time.Millisecond))
		if name, err := m.Exec(t.Context(), "cat", "/proc/1/comm"); err != nil || name != "systemd\n" {
			t.Errorf("process 1 is %q, %v; want systemd", name, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := Poll(ctx, "the journal to have what the unit wrote", func(ctx context.Context) error {
			journal, err := m.Journal(ctx, "sleeper.service")
			if err == nil && !strings.Contains(journal, "good morning") {
				err = fmt.Errorf("it says %q", journal)
			}
			return err
		})
		cancel()
		if err != nil {
			t.Error(err)
		}
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNothingIsLeftOfAMachine(t *testing.T) {
	Require(t)
	RequireSystemd(t)
	before := sysctls(t)
	run, err := NewRun()
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, run)
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(errors.Join(err, run.Close()))
	}
	waitActive(t, m, "sleeper.service")
	pid, err := m.ServicePID("sleeper.service")
	if err != nil {
		t.Error(err)
	}
	if err := run.Close(); err != nil {
		t.Error(err)
	}
	wantNothingLeft(t, run.Dir)
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
		t.Errorf("process %d of the machine is left", pid)
	}
	if after := sysctls(t); after != before {
		t.Errorf("the machine changed the kernel's settings: %s, before %s", after, before)
	}
}

func newMachine(t *testing.T, run *Run) *Machine {
	t.Helper()
	m, err := run.NewMachine()
	if err != nil {
		t.Fatal(err)
	}
	unit := "[Service]\nExecStart=/bin/sh -c 'echo good morning >&2; exec sleep 600'\n"
	if err := errors.Join(m.WriteFile("etc/systemd/system/sleeper.service", unit), m.Enable("sleeper.service")); err != nil {
		t.Fatal(err)
	}
	return m
}

func waitActive(t *testing.T, m *Machine, unit string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	if err := Poll(ctx, unit, func(ctx context.Context) error {
		values, err := m.Show(ctx, unit, "ActiveState")
		if err == nil && values["ActiveState"] != "active" {
			err = errors.New(values["ActiveState"])
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// sysctls are settings that a systemd which owns its machine raises when it starts.
func sysctls(t *testing.T) string {
	t.Helper()
	var all string
	for _, name := range []string{"fs/file-max", "fs/nr_open", "net/unix/max_dgram_qlen"} {
		value, err := os.ReadFile("/proc/sys/" + name)
		if err != nil {
			t.Fatal(err)
		}
		all += name + "=" + string(value)
	}
	return all
}
