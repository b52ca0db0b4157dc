package node

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/horkos/horkos/state"
)

const year = 365 * 24 * time.Hour

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// machine is a node's two clocks, its state folder and its log.
type machine struct {
	*testing.T
	dir string
	out bytes.Buffer

	mu   sync.Mutex
	wall time.Time
	mono time.Duration
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	asRoot(t)
	dir := filepath.Join(t.TempDir(), "state")
	m := &machine{T: t, dir: dir, wall: noon, mono: time.Hour}
	m.must(os.Mkdir(dir, 0o700))
	return m
}

func (m *machine) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// start is the daemon starting as the owner of its state folder.
func (m *machine) start() *clock {
	c := m.open()
	c.begin()
	return c
}

// open is the daemon starting, with another one still there.
func (m *machine) open() *clock {
	return openClock(m.dir, slog.New(slog.NewTextHandler(&m.out, nil)), func() time.Time {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.wall
	}, func() time.Duration {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.mono
	})
}

// passes lets time pass, and sets the wall clock as well.
func (m *machine) passes(d, jump time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mono += d
	m.wall = m.wall.Add(d).Add(jump)
}

// said gives what was logged since it was asked last.
func (m *machine) said() string {
	text := m.out.String()
	m.out.Reset()
	return text
}

func (m *machine) recorded() time.Time {
	m.Helper()
	at, err := state.RecordedTime(m.dir)
	m.must(err)
	return at
}

func (m *machine) is(c *clock, want time.Time) {
	m.Helper()
	if got := c.Now(); !got.Equal(want) {
		m.Errorf("it is %v, want %v", got, want)
	}
}

func TestTimeNeitherGoesBackNorStandsStill(t *testing.T) {
	for name, jumps := range map[string][]time.Duration{
		"a clock that is right":          {0, 0, 0},
		"back by a nanosecond":           {-1},
		"back by hours":                  {-3 * time.Hour, 0, 0},
		"back by years":                  {-30 * year, 0},
		"back by centuries":              {-290 * year, -290 * year, 0},
		"forward by hours":               {3 * time.Hour, 0},
		"forward by years":               {30 * year, 0},
		"forward and back":               {30 * year, -30 * year, 0, 0},
		"back and forward":               {-year, year, 0},
		"back, and forward by less":      {-3 * time.Hour, time.Hour, 0},
		"a clock that stands still":      {-time.Second, -time.Second, -time.Second},
		"a clock that runs half as fast": {-time.Second / 2, -time.Second / 2, -time.Second / 2},
	} {
		for _, restarting := range []bool{false, true} {
			m := newMachine(t)
			c := m.start()
			last := c.Now()
			for _, jump := range jumps {
				m.passes(time.Second, jump)
				if restarting {
					c.record() // the daemon stops, and the node with it
					m.mono = 0
					c = m.start()
					m.passes(time.Second, 0)
				}
				now := c.Now()
				if passed := now.Sub(last); passed < time.Second {
					t.Errorf("%s, restarting %v: %v passed after a jump of %v", name, restarting, passed, jump)
				}
				if m.wall.After(now) {
					t.Errorf("%s, restarting %v: it is %v, and the wall clock is ahead at %v", name, restarting, now, m.wall)
				}
				last = now
			}
		}
	}
}

func TestTheHighestTimeLastsOverARestart(t *testing.T) {
	m := newMachine(t)
	c := m.start()
	m.is(c, noon)
	m.passes(time.Second, 10*year)
	future := m.wall
	m.is(c, future)
	c.record()
	m.passes(time.Second, -10*year)
	m.mono = 0 // the node was booted
	c = m.start()
	m.is(c, future)
	m.passes(time.Minute, 0)
	m.is(c, future.Add(time.Minute))
	c.record()
	m.is(m.start(), future.Add(time.Minute))
	if at := m.recorded(); !at.Equal(future.Add(time.Minute)) {
		t.Errorf("%v is recorded", at)
	}
}

func TestASuccessorWritesNothingBeforeItOwnsTheFolder(t *testing.T) {
	m := newMachine(t)
	first := m.start()
	m.must(state.AcceptTime(m.dir, m.wall))
	m.passes(time.Hour, 0)
	next := m.open()
	m.is(next, noon.Add(time.Hour))
	if at := m.recorded(); !at.Equal(noon) {
		t.Errorf("%v is recorded", at)
	}
	if _, err := state.AcceptedTime(m.dir); err != nil {
		t.Errorf("the acceptance is taken: %v", err)
	}
	m.must(os.Remove(filepath.Join(m.dir, state.AcceptTimeName)))

	m.passes(time.Second, year)
	first.record()
	m.passes(time.Second, -year)
	next.begin()
	m.is(next, noon.Add(year+time.Hour+time.Second))

	// The first one was told that the time is too late, meanwhile.
	late := m.open()
	m.is(late, noon.Add(year+time.Hour+time.Second))
	m.must(state.AcceptTime(m.dir, m.wall))
	next.look()
	late.begin()
	m.is(late, m.wall)

	put(t, filepath.Join(m.dir, state.ClockName), "damaged")
	m.said()
	m.is(m.open(), m.wall)
	if said := m.said(); said != "" {
		t.Errorf("log: %s", said)
	}
	if _, err := os.Stat(filepath.Join(m.dir, state.ClockName+".bad")); err == nil {
		t.Error("moved aside")
	}
}

func TestNobodyIsToldAnEarlierTimeThanAnother(t *testing.T) {
	m := newMachine(t)
	c := m.start()
	var told atomic.Int64
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for i := range 2_000 {
				m.passes(time.Microsecond, time.Duration(n-4)*time.Duration(i)*time.Second)
				before := told.Load()
				now := c.Now().UnixNano()
				if now < before {
					t.Errorf("%d was told, then %d", before, now)
					return
				}
				for seen := told.Load(); seen < now && !told.CompareAndSwap(seen, now); seen = told.Load() {
				}
			}
		})
	}
	all.Wait()
}

func TestATimeThatCannotBeReadIsSaidMovedAsideAndNone(t *testing.T) {
	for name, spoil := range map[string]func(path string, good []byte) error{
		"empty":        func(path string, _ []byte) error { return os.Truncate(path, 0) },
		"cut":          func(path string, good []byte) error { return os.Truncate(path, int64(len(good)/2)) },
		"a byte short": func(path string, good []byte) error { return os.Truncate(path, int64(len(good)-1)) },
		"with a bit flipped": func(path string, good []byte) error {
			good[len(good)-5] ^= 4
			return os.WriteFile(path, good, 0o600)
		},
		"foreign":            func(path string, _ []byte) error { return os.WriteFile(path, []byte("2036-01-01\n"), 0o600) },
		"of another version": func(path string, _ []byte) error { return os.WriteFile(path, state.Seal(2, []byte("{}")), 0o600) },
		"of another owner":   func(path string, _ []byte) error { return os.Chown(path, 65534, 0) },
		"a folder":           func(path string, _ []byte) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"too large":          func(path string, good []byte) error { return os.WriteFile(path, make([]byte, 1<<20), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.must(state.RecordTime(m.dir, noon.Add(year)))
			path := filepath.Join(m.dir, state.ClockName)
			good, err := os.ReadFile(path)
			m.must(err)
			m.must(spoil(path, good))
			c := m.start()
			m.is(c, noon)
			if said := m.said(); strings.Count(said, "level=ERROR") != 1 || !strings.Contains(said, "is lost") || !strings.Contains(said, "clock.bad") {
				t.Errorf("log: %s", said)
			}
			if _, err := os.Stat(path + ".bad"); err != nil {
				t.Error(err)
			}
			if at := m.recorded(); !at.Equal(noon) {
				t.Errorf("%v is recorded", at)
			}
			m.is(m.start(), noon)
			if said := m.said(); said != "" {
				t.Errorf("said again: %s", said)
			}
		})
	}
}

func TestAWallClockThatIsBehindIsSaidOnceAndStopsNothing(t *testing.T) {
	m := newMachine(t)
	c := m.start()
	m.passes(time.Second, -behindAllowed)
	c.look()
	if p := c.Problem(); p != "" || m.said() != "" {
		t.Errorf("by what is allowed: %q", p)
	}
	m.passes(time.Second, -2*time.Hour)
	for range 3 {
		c.look()
	}
	if said := m.said(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "level=ERROR") {
		t.Errorf("log: %s", said)
	}
	const want = "the wall clock (2026-11-21T09:59:57Z) is 2h0m5s behind the highest time of this node (2026-11-21T12:00:02Z), which stays in force; " +
		"if the wall clock is right: horkos policy accept-time --state-dir "
	if p := c.Problem(); p != want+m.dir {
		t.Errorf("got %q\nwant %q", p, want)
	}
	if at := m.recorded(); !at.Equal(noon.Add(2 * time.Second)) {
		t.Errorf("%v is recorded when it begins, for the operator's command to compare with", at)
	}
	m.passes(time.Second, 3*time.Hour)
	for range 3 {
		c.look()
	}
	if said := m.said(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "not behind") || c.Problem() != "" {
		t.Errorf("log: %s", said)
	}
}

func TestAWallClockThatIsCenturiesBehindIsSaid(t *testing.T) {
	m := newMachine(t)
	m.must(state.RecordTime(m.dir, noon.AddDate(900, 0, 0)))
	c := m.start()
	m.is(c, noon.AddDate(900, 0, 0))
	if p := c.Problem(); !strings.Contains(p, "(2026-11-21T12:00:00Z)") || !strings.Contains(p, "(2926-11-21T12:00:00Z)") {
		t.Error(p)
	}
	m.must(state.AcceptTime(m.dir, m.wall))
	c.look()
	m.is(c, noon)
}

func TestAnOperatorLowersTheTimeOnce(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		m := newMachine(t)
		m.must(state.RecordTime(m.dir, noon.Add(year)))
		m.must(os.Chown(filepath.Join(m.dir, state.ClockName), 0, 0))
		var c *clock
		if !restarted {
			c = m.start()
			m.is(c, noon.Add(year))
		}
		m.must(state.AcceptTime(m.dir, m.wall.Add(-acceptWithin)))
		m.said()
		if restarted {
			c = m.start()
		} else {
			c.look()
		}
		m.is(c, noon)
		if said := m.said(); !strings.Contains(said, "level=WARN") || !strings.Contains(said, "an operator has accepted the wall clock") || strings.Contains(said, "ERROR") {
			t.Errorf("log: %s", said)
		}
		if at := m.recorded(); !at.Equal(noon) {
			t.Errorf("%v is recorded", at)
		}
		if _, err := os.Stat(filepath.Join(m.dir, state.AcceptTimeName)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the acceptance is left: %v", err)
		}
		m.is(m.start(), noon)
		m.passes(time.Second, -time.Hour)
		c.look()
		m.is(c, noon.Add(time.Second))
	}
}

func TestAnAcceptanceThatCannotBeBelievedLowersNothing(t *testing.T) {
	for name, spoil := range map[string]func(m *machine, path string) error{
		"of long ago": func(m *machine, _ string) error {
			return state.AcceptTime(m.dir, m.wall.Add(-acceptWithin-time.Second))
		},
		"of the future":                func(m *machine, _ string) error { return state.AcceptTime(m.dir, m.wall.Add(acceptWithin+time.Second)) },
		"of the time that is given up": func(m *machine, _ string) error { return state.AcceptTime(m.dir, m.wall.Add(year)) },
		"of another owner":             func(_ *machine, path string) error { return os.Chown(path, 65534, 0) },
		"of all":                       func(_ *machine, path string) error { return os.Chmod(path, 0o606) },
		"empty":                        func(_ *machine, path string) error { return os.Truncate(path, 0) },
		"cut":                          func(_ *machine, path string) error { return os.Truncate(path, 10) },
		"too long": func(_ *machine, path string) error {
			return os.WriteFile(path, []byte("2026-11-21T12:00:00Z\n"+strings.Repeat("\n", 100)), 0o600)
		},
		"that is a link": func(_ *machine, path string) error {
			return errors.Join(os.Remove(path), os.Symlink("/proc/self/status", path))
		},
		"that is a folder": func(_ *machine, path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"that is a pipe":   func(_ *machine, path string) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.must(state.RecordTime(m.dir, noon.Add(year)))
			c := m.start()
			m.must(state.AcceptTime(m.dir, m.wall))
			path := filepath.Join(m.dir, state.AcceptTimeName)
			m.must(spoil(m, path))
			m.said()
			for range 3 {
				c.look()
			}
			m.is(c, noon.Add(year))
			if said := m.said(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "accepting the wall clock is ignored") {
				t.Errorf("log: %s", said)
			}
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it is left: %v", err)
			}
			m.must(state.AcceptTime(m.dir, m.wall))
			c.look()
			m.is(c, noon)
		})
	}
	t.Run("while the wall clock is not behind", func(t *testing.T) {
		m := newMachine(t)
		c := m.start()
		m.must(state.AcceptTime(m.dir, m.wall))
		c.look()
		m.is(c, noon)
		if said := m.said(); !strings.Contains(said, "the wall clock is not behind") {
			t.Errorf("log: %s", said)
		}
	})
}

func TestAnAcceptanceThatCannotBeRemovedCountsOnce(t *testing.T) {
	m := newMachine(t)
	m.onDisk("")
	m.must(state.RecordTime(m.dir, noon.Add(year)))
	c := m.start()
	m.must(state.AcceptTime(m.dir, m.wall))
	m.readOnly()
	c.look()
	m.is(c, noon)
	m.passes(time.Second, -time.Hour)
	c.look()
	m.is(c, noon.Add(time.Second))
	if p := c.Problem(); !strings.Contains(p, "is 1h0m0s behind") {
		t.Error(p)
	}
	if said := m.said(); strings.Count(said, "an operator has accepted") != 1 || strings.Count(said, "cannot be removed") != 1 {
		t.Errorf("log: %s", said)
	}
}

func TestATimeThatCannotBeRecordedIsSaidAndStopsNothing(t *testing.T) {
	for name, spoil := range map[string]func(m *machine){
		"a read-only disk": func(m *machine) { m.readOnly() },
		"a full disk": func(m *machine) {
			f, err := os.Create(filepath.Join(m.dir, "fill"))
			m.must(err)
			defer f.Close()
			for err == nil {
				_, err = f.Write(make([]byte, 4096))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.onDisk("size=64k")
			c := m.start()
			spoil(m)
			m.said()
			for range 3 {
				m.passes(recordEvery, 0)
				c.record()
			}
			m.is(c, noon.Add(3*recordEvery))
			if said := m.said(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "cannot be recorded") {
				t.Errorf("log: %s", said)
			}
			if p := c.Problem(); !strings.Contains(p, "cannot be kept over a restart") {
				t.Error(p)
			}
			if at := m.recorded(); !at.Equal(noon) {
				t.Errorf("%v is recorded", at)
			}
			m.is(m.start(), noon.Add(3*recordEvery))

			m.must(syscall.Mount("", m.dir, "", syscall.MS_REMOUNT, ""))
			_ = os.Remove(filepath.Join(m.dir, "fill")) // there is one on a full disk only
			m.said()
			c.record()
			if said := m.said(); !strings.Contains(said, "recorded again") || c.Problem() != "" {
				t.Errorf("log: %s", said)
			}
			if at := m.recorded(); !at.Equal(noon.Add(3 * recordEvery)) {
				t.Errorf("%v is recorded", at)
			}
		})
	}
}

// onDisk gives the state folder a file system of its own.
func (m *machine) onDisk(options string) {
	m.Helper()
	if err := syscall.Mount("tmpfs", m.dir, "tmpfs", 0, strings.Trim(options+",mode=0700", ",")); err != nil {
		m.Skipf("needs to mount a tmpfs: %v", err)
	}
	m.Cleanup(func() { _ = syscall.Unmount(m.dir, syscall.MNT_DETACH) })
}

func (m *machine) readOnly() {
	m.Helper()
	m.must(syscall.Mount("", m.dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
}

func TestARunningClockRecordsOnceAMinuteAndAtTheEnd(t *testing.T) {
	m := newMachine(t)
	synctest.Test(t, func(t *testing.T) {
		m := &machine{T: t, dir: m.dir}
		began := time.Now()
		var back atomic.Int64
		c := openClock(m.dir, quiet(), func() time.Time { return time.Now().Add(time.Duration(-back.Load())) }, func() time.Duration { return time.Since(began) })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		recorded := func(want time.Duration) {
			t.Helper()
			synctest.Wait()
			if at := m.recorded(); !at.Equal(began.Add(want)) {
				t.Errorf("%v after the start: %v is recorded", time.Since(began), at.Sub(began))
			}
		}
		recorded(0)
		time.Sleep(59*time.Second + time.Millisecond)
		recorded(0)
		time.Sleep(time.Second)
		recorded(time.Minute)
		time.Sleep(time.Minute)
		recorded(2 * time.Minute)

		back.Store(int64(time.Hour))
		time.Sleep(time.Second)
		recorded(2*time.Minute + time.Second)
		m.must(state.AcceptTime(m.dir, time.Now().Add(-time.Hour)))
		time.Sleep(time.Second)
		recorded(2*time.Minute + 2*time.Second - time.Hour)
		m.is(c, time.Now().Add(-time.Hour))

		time.Sleep(10 * time.Second)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		recorded(2*time.Minute + 12*time.Second + time.Millisecond - time.Hour)
	})
}

func BenchmarkClockNow(b *testing.B) {
	c := newClock(b.TempDir(), quiet())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Now()
		}
	})
}
