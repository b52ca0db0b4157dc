package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// sync brings to the disk what is not on it. While the last one failed the log takes no record.
func (l *Log) sync() error {
	l.renew()
	l.mu.Lock()
	current, dirty, moved, retired := l.file, l.dirty, l.moved, l.retired
	l.dirty, l.moved, l.retired = false, false, nil
	l.mu.Unlock()
	var err error
	for _, f := range retired {
		err = errors.Join(err, finish(f))
	}
	if dirty && current != nil {
		err = errors.Join(err, settle(current))
	}
	if moved {
		err = errors.Join(err, syncFolder(filepath.Dir(l.o.Path)))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.synced(err)
}

// synced takes the outcome of a sync.
func (l *Log) synced(err error) error {
	if err != nil {
		err = fmt.Errorf("sync the audit log: %w", err)
		if l.unsynced == nil {
			l.o.Log.Error("the audit log is not brought to the disk: nothing is recorded until it is", "error", err)
		}
		l.dirty, l.moved = true, true
	} else if l.unsynced != nil && l.file != nil {
		l.o.Log.Info("the audit log is brought to the disk again")
	}
	if err != nil || l.file != nil {
		l.unsynced = err
	}
	if l.unsynced == nil {
		l.fresh = false
		l.publish()
	}
	return err
}

// renew begins another file after a failed sync: what the kernel could not write of the old
// one it forgets, and a second sync would not tell. A file that was begun so and could not
// be synced either is dropped, so that a bad disk does not push out the records it holds.
func (l *Log) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unsynced == nil || !l.regular || l.closed {
		return
	}
	if err := l.replace(); err != nil {
		l.failed = err
		return
	}
	l.fresh = true
	if _, err := l.put(l.note("the file before this one could not be brought to the disk: the last records in it may be missing after a power failure")); err != nil {
		l.o.Log.Error("the audit log cannot be written", "error", err)
	}
}

func (l *Log) replace() error {
	switch {
	case l.file == nil:
	case l.fresh:
		l.file.Close()
		l.file, l.head = nil, l.base
		if err := os.Remove(l.o.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	default:
		if err := l.setAside(); err != nil {
			return err
		}
	}
	return l.start()
}

// watch looks whether the current file is still where it should be and as long as it was
// left. If somebody moved, removed or cut it, what is written to it would be lost.
func (l *Log) watch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil || !l.regular || l.closed {
		return
	}
	why, size := l.disturbed()
	if why == "" {
		return
	}
	if err := l.abandon(why, size); err != nil {
		l.o.Log.Error("the current file of the audit log was "+why+", and no other can be begun", "path", l.o.Path, "error", err)
		return
	}
	if err := l.ifUsable(l.writeNotes); err != nil {
		l.o.Log.Error("the audit log cannot be written", "error", err)
	}
}

// disturbed says what somebody else did to the current file, if anything, and how long what is
// left of it is; -1 where it is not there.
func (l *Log) disturbed() (why string, size int64) {
	at, err := os.Lstat(l.o.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "moved or removed", -1
	case err != nil:
		return "", 0
	}
	info, err := l.file.Stat()
	switch {
	case err != nil:
		return "", 0
	case !os.SameFile(at, info):
		return "moved or removed", -1
	case info.Size() < l.size:
		return fmt.Sprintf("cut from %d to %d bytes", l.size, info.Size()), info.Size()
	case info.Size() > l.size:
		return "written to", info.Size()
	}
	return "", 0
}

// abandon leaves a file that somebody else changed to its place among the older ones, where
// there is something in it, so that another can be begun.
func (l *Log) abandon(why string, size int64) error {
	switch {
	case size == 0: // not to be taken again: it will be cut to its size when it is retired
		if err := os.Remove(l.o.Path); err != nil {
			return err
		}
	case size > 0:
		if err := l.keep(); err != nil {
			return err
		}
	}
	l.retire()
	l.notes = append(l.notes, fmt.Sprintf("the file with the records up to %d was %s by somebody else", l.head.seq, why))
	l.o.Log.Error("the current file of the audit log was "+why+" by somebody else", "path", l.o.Path, "seq", l.head.seq)
	return nil
}

// keep gives the current file the name of the first record that is in it now.
func (l *Log) keep() error {
	first, err := firstSeqOf(l.o.Path)
	if err != nil {
		return err
	}
	if first == 0 {
		return l.rename(max(l.first, 1))
	}
	if err := l.rename(first); err != nil {
		return err
	}
	l.older = append(l.older, first)
	slices.Sort(l.older)
	return nil
}

// settle syncs a file. A device or a pipe has nothing to bring to a disk; a file that is
// closed was synced by whoever closed it.
func settle(f file) error {
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// finish gives back what space an older file does not need, syncs and closes it.
func finish(f file) error {
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		_ = f.Truncate(info.Size()) // it only costs space
	}
	return errors.Join(settle(f), f.Close())
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return settle(f)
}
