package objects

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/horkos/horkos/crds"
)

// Run follows the folder until the context ends, whose error it returns. It calls take,
// one call at a time, with every set that comes in force after the one of OpenFolder.
func (f *Folder) Run(ctx context.Context, take func(crds.Set)) error {
	w := newWatch(f.options.Dir, f.options.Log)
	defer w.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := time.Now()
	// soon makes the next look come soon. Further events do not move it: a file that is
	// written all the time must not keep others from being seen.
	soon := func() {
		if at := time.Now().Add(settle); at.Before(due) {
			due = at
			timer.Reset(settle)
		}
	}
	var over <-chan time.Time // when to see whether what makes the set stale is over
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.events:
			soon()
			continue
		case <-w.errors: // too many events, for one: what was missed is found by looking
			soon()
			continue
		case <-over:
			over = time.After(hurry)
			if f.awaited(time.Now()) {
				soon()
			}
			continue
		case <-timer.C:
		}
		watching := w.renew()
		now := time.Now()
		changed, moving := f.look(now)
		if changed {
			take(f.set())
		}
		over = nil
		if f.stale != "" {
			over = time.After(hurry)
		}
		wait := rescan
		switch {
		case moving:
			wait = settle
		case !watching:
			wait = hurry
		}
		due = time.Now().Add(wait)
		timer.Reset(wait)
	}
}

// watch has the kernel report changes in a folder, and notices when the folder is another.
type watch struct {
	dir     string
	log     *slog.Logger
	watcher *fsnotify.Watcher // nil where there can be none
	events  <-chan fsnotify.Event
	errors  <-chan error
	watched os.FileInfo // the folder that is watched; nil when none is
}

func newWatch(dir string, log *slog.Logger) *watch {
	w := &watch{dir: dir, log: log}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("changes of the policy folder are not reported by the kernel; it is looked at often instead", "error", err)
		return w
	}
	w.watcher, w.events, w.errors = watcher, watcher.Events, watcher.Errors
	return w
}

// renew watches what is at the folder's path now, and tells whether anything is.
func (w *watch) renew() bool {
	if w.watcher == nil {
		return false
	}
	info, err := os.Stat(w.dir)
	if err == nil && w.watched != nil && os.SameFile(info, w.watched) && len(w.watcher.WatchList()) > 0 {
		return true
	}
	if w.watched != nil {
		_ = w.watcher.Remove(w.dir) // an error says that the kernel was first
		w.watched = nil
	}
	if err != nil {
		return false
	}
	if err := w.watcher.Add(w.dir); err != nil {
		w.log.Warn("changes of the policy folder are not reported by the kernel", "error", err)
		return false
	}
	w.watched = info
	return true
}

func (w *watch) close() {
	if w.watcher != nil {
		_ = w.watcher.Close()
	}
}
