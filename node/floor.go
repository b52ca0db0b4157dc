package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/state"
)

// floorInterval is how often the floor file is looked at.
const floorInterval = 200 * time.Millisecond

// floorFile keeps the floor of a file in force: the last good one, when it cannot be read.
type floorFile struct {
	path    string
	log     *slog.Logger
	current atomic.Pointer[gate.Floor]
	problem atomic.Pointer[string]
	read    stamp // of what is in force
	seen    stamp // of the last look
}

// stamp tells whether a file may have changed.
type stamp struct {
	inode uint64
	size  int64
	mtime time.Time
}

func stampOf(info os.FileInfo) stamp {
	s := stamp{size: info.Size(), mtime: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = st.Ino
	}
	return s
}

// openFloor reads the file; at start an unreadable one is an error. Without a path there is no floor.
func openFloor(path string, log *slog.Logger) (*floorFile, error) {
	f := &floorFile{path: path, log: log}
	if path == "" {
		return f, nil
	}
	if err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

// Floor is the one in force; nil where there is none.
func (f *floorFile) Floor() *gate.Floor { return f.current.Load() }

// Problem says why the file cannot be read now, or is empty.
func (f *floorFile) Problem() string {
	if p := f.problem.Load(); p != nil {
		return *p
	}
	return ""
}

// load puts what is in the file in force.
func (f *floorFile) load() error {
	file, _, err := state.OpenOwned(f.path)
	if err != nil {
		return fmt.Errorf("open the floor: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("read the floor: %w", err)
	}
	data, err := state.ReadAtMost(file, gate.MaxFloorBytes)
	if err != nil {
		return fmt.Errorf("read the floor: %w", err)
	}
	floor, err := gate.ParseFloor(data)
	if err != nil {
		return fmt.Errorf("read the floor %s: %w", f.path, err)
	}
	if floor.Len() == 0 && f.Floor().Len() > 0 {
		return fmt.Errorf("the floor %s has no digest any more", f.path)
	}
	f.current.Store(floor)
	f.read = stampOf(info)
	return nil
}

// look reads the file again when it changed and is not being written: when it is as it
// was at the last look.
func (f *floorFile) look() {
	if f.path == "" {
		return
	}
	info, err := os.Stat(f.path)
	if err != nil {
		f.seen = stamp{}
		f.report(fmt.Errorf("look at the floor: %w", err))
		return
	}
	now := stampOf(info)
	still := now == f.seen
	f.seen = now
	if !still || (now == f.read && f.Problem() == "") {
		return
	}
	f.report(f.load())
}

// Run reads the file again when it changed, until the context ends.
func (f *floorFile) Run(ctx context.Context) error {
	tick := time.NewTicker(floorInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			f.look()
		}
	}
}

func (f *floorFile) report(err error) {
	text := ""
	if err != nil {
		text = err.Error() + ": the last good floor stays in force"
	}
	if text == f.Problem() {
		return
	}
	f.problem.Store(&text)
	if err != nil {
		f.log.Error("the floor cannot be read; the last good one stays in force", "error", err)
		return
	}
	f.log.Info("the floor is read", "digests", f.Floor().Len())
}
