package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/horkos/horkos/gate"
)

// floorInterval is how often the floor file is looked at.
const floorInterval = time.Second

// floorFile keeps the floor of a file in force: the last good one, when it cannot be read.
type floorFile struct {
	path    string
	log     *slog.Logger
	current atomic.Pointer[gate.Floor]
	problem atomic.Pointer[string]
	stamp   stamp
}

// stamp tells whether a file may have changed.
type stamp struct {
	size  int64
	mtime time.Time
}

// openFloor reads the file; at start an unreadable one is an error. Without a path there is no floor.
func openFloor(path string, log *slog.Logger) (*floorFile, error) {
	f := &floorFile{path: path, log: log}
	if path == "" {
		return f, nil
	}
	if err := f.read(); err != nil {
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

func (f *floorFile) read() error {
	file, err := openOwned(f.path)
	if err != nil {
		return fmt.Errorf("open the floor: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("read the floor: %w", err)
	}
	data, err := readAtMost(file, 4<<20)
	if err != nil {
		return fmt.Errorf("read the floor: %w", err)
	}
	floor, err := gate.ParseFloor(data)
	if err != nil {
		return fmt.Errorf("read the floor %s: %w", f.path, err)
	}
	f.current.Store(floor)
	f.stamp = stamp{info.Size(), info.ModTime()}
	return nil
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
		}
		if f.path == "" {
			continue
		}
		info, err := os.Stat(f.path)
		if err == nil && f.stamp == (stamp{info.Size(), info.ModTime()}) && f.Problem() == "" {
			continue
		}
		if err == nil {
			err = f.read()
		}
		f.report(err)
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
