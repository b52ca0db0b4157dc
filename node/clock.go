package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/horkos/horkos/state"
)

const (
	// recordEvery is how often the highest time is recorded: what a crash may lose of it.
	recordEvery = time.Minute
	// behindAllowed is how far the wall clock may be behind before that is reported.
	behindAllowed = 5 * time.Second
	// acceptWithin is how near to the wall clock an operator must have accepted it.
	acceptWithin = 10 * time.Minute
)

// clock is the time by which a node decides: the later of the wall clock and the highest
// time that this node has ever recorded. The monotonic clock carries the latter on, so that
// while the daemon runs time neither goes back nor stands still, whatever becomes of the wall
// clock. Only an operator lowers it (state.AcceptTime).
type clock struct {
	dir  string // the state folder
	log  *slog.Logger
	wall func() time.Time
	mono func() time.Duration // since any moment

	mu      sync.Mutex
	highest time.Time     // that was ever told or recorded
	at      time.Duration // of mono, at highest
	unsaved string        // why the highest time cannot be recorded

	// Of the goroutine of begin and Run.
	begun    bool
	recorded time.Time     // what is in the file
	tried    time.Duration // of mono, when it was written last
	lowered  bool          // the file holds a time that an operator gave up
	behind   bool          // it is reported that the wall clock is behind
	used     os.FileInfo   // the last acceptance that was looked at
}

// newClock is the clock of a machine. It reads what is recorded, and writes nothing before
// begin: another daemon may still own the folder.
func newClock(dir string, log *slog.Logger) *clock {
	start := time.Now()
	return openClock(dir, log, time.Now, func() time.Duration { return time.Since(start) })
}

func openClock(dir string, log *slog.Logger, wall func() time.Time, mono func() time.Duration) *clock {
	c := &clock{dir: dir, log: log, wall: wall, mono: mono}
	_ = c.read() // begin says what is wrong
	return c
}

// read takes the time that is recorded for the highest; none is recorded if it fails.
func (c *clock) read() error {
	recorded, err := state.RecordedTime(c.dir)
	c.recorded = recorded
	c.mu.Lock()
	c.highest, c.at = recorded, c.mono()
	c.mu.Unlock()
	return err
}

// begin is for the owner of the folder, before anything is decided. It reads what the daemon
// before it has recorded last. A file that cannot be believed is said, moved aside and
// none: the node would else decide nothing until somebody came.
func (c *clock) begin() {
	c.begun = true
	if err := c.read(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		path := filepath.Join(c.dir, state.ClockName)
		c.log.Error("the highest time this node has recorded is lost: from now on the wall clock is believed", "aside", path+".bad", "error", err)
		if err := os.Rename(path, path+".bad"); err != nil {
			c.log.Error("the file of the highest time cannot be moved aside", "error", err)
		}
	}
	if c.look(); !c.behind {
		c.record()
	}
}

// Now is the time. It does no I/O and is safe for concurrent use. A duration between two of
// its times is none to measure by: time may leap forward, and back when an operator says so.
func (c *clock) Now() time.Time {
	now, _ := c.now()
	return now
}

// now also tells the time of the wall clock.
func (c *clock) now() (now, wall time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, at := c.wall().Round(0).UTC(), c.mono()
	now = c.highest.Add(max(at-c.at, 0))
	if wall.After(now) {
		now = wall
	}
	c.highest, c.at = now, max(at, c.at)
	return now, wall
}

// Problem says what is wrong with the time, or is empty. The node decides all the same: a
// time that is too late admits nothing that has expired.
func (c *clock) Problem() string {
	now, wall := c.now()
	c.mu.Lock()
	unsaved := c.unsaved
	c.mu.Unlock()
	switch behind := now.Sub(wall); {
	case behind > behindAllowed:
		return fmt.Sprintf("the wall clock (%s) is %s behind the highest time of this node (%s), which stays in force; if the wall clock is right: horkos policy accept-time --state-dir %s",
			wall.Format(time.RFC3339), behind.Round(time.Second), now.Format(time.RFC3339), c.dir)
	case unsaved != "":
		return "the highest time cannot be kept over a restart: " + unsaved
	}
	return ""
}

// Run follows the clock until the context ends, and records the highest time.
func (c *clock) Run(ctx context.Context) error {
	if !c.begun {
		c.begin()
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			c.record()
			return ctx.Err()
		case <-tick.C:
			c.look()
			if c.mono()-c.tried >= recordEvery {
				c.record()
			}
		}
	}
}

// look takes what an operator has accepted, and says when the wall clock falls behind and
// when it is so no more.
func (c *clock) look() {
	c.takeAcceptance()
	now, wall := c.now()
	behind := now.Sub(wall) > behindAllowed
	switch {
	case behind && !c.behind:
		c.log.Error("the time of this node is not that of its wall clock", "problem", c.Problem())
		c.record() // what the command of an operator compares with
	case !behind && c.behind:
		c.log.Info("the wall clock is not behind the highest time of this node any more")
	}
	c.behind = behind
}

// record writes the highest time down if it is not.
func (c *clock) record() {
	c.tried = c.mono()
	now := c.Now()
	if !now.After(c.recorded) && !c.lowered {
		return
	}
	unsaved := ""
	err := state.RecordTime(c.dir, now)
	if err == nil {
		c.recorded, c.lowered = now, false
	} else {
		unsaved = err.Error()
	}
	c.mu.Lock()
	changed := unsaved != c.unsaved
	c.unsaved = unsaved
	c.mu.Unlock()
	switch {
	case changed && unsaved != "":
		c.log.Error("the highest time cannot be recorded; after a restart the time may be an earlier one", "error", unsaved)
	case changed:
		c.log.Info("the highest time is recorded again")
	}
}

// takeAcceptance looks once at what an operator has accepted, and removes it.
func (c *clock) takeAcceptance() {
	path := filepath.Join(c.dir, state.AcceptTimeName)
	info, err := os.Lstat(path)
	if err != nil || (c.used != nil && os.SameFile(info, c.used) && info.ModTime().Equal(c.used.ModTime())) {
		return
	}
	c.used = info
	if err := c.accept(); err != nil {
		c.log.Error("accepting the wall clock is ignored", "file", path, "error", err)
	}
	if err := os.Remove(path); err != nil {
		c.log.Error("a used acceptance of the wall clock cannot be removed", "file", path, "error", err)
	}
}

// accept makes the wall clock the highest time, if an operator has said so just now.
func (c *clock) accept() error {
	said, err := state.AcceptedTime(c.dir)
	if err != nil {
		return err
	}
	was, wall := c.now()
	switch {
	case said.Sub(wall).Abs() > acceptWithin:
		return fmt.Errorf("it was accepted at %s, and is %s by the wall clock: more than %s apart", said.Format(time.RFC3339), wall.Format(time.RFC3339), acceptWithin)
	case !wall.Before(was):
		return errors.New("the wall clock is not behind")
	}
	c.mu.Lock()
	c.highest, c.at = wall, c.mono()
	c.mu.Unlock()
	c.lowered = true
	c.log.Warn("an operator has accepted the wall clock: time goes back", "from", was, "to", wall)
	c.record()
	return nil
}
