package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxRetired bounds the older files that wait for the disk.
const maxRetired = 8

// room sees to it that there is a file, and room in it for n bytes and for a record of what
// is removed for the next.
func (l *Log) room(n int) error {
	if l.file != nil && l.regular && l.size > 0 && l.size+int64(n)+l.margin > l.o.MaxBytes {
		if err := l.setAside(); err != nil {
			return fmt.Errorf("rotate the log: %w", err)
		}
	}
	if l.file == nil {
		return l.start()
	}
	return nil
}

// setAside gives the current file its name among the older ones and removes the oldest of
// them, before a new file needs their space. A machine that stops between any two steps
// leaves a log whose newest file, wherever it is, ends the chain.
func (l *Log) setAside() error {
	if why, size := l.disturbed(); why != "" {
		return l.abandon(why, size)
	}
	if err := l.rename(l.first); err != nil {
		return err
	}
	l.older = append(l.older, l.first)
	if l.head.hash != noPrev { // else a new chain begins, and Open removes what is too much
		l.prune()
	}
	l.retire()
	l.announce()
	return nil
}

// rename gives the current file its name among the older ones.
func (l *Log) rename(first uint64) error {
	name := olderName(l.o.Path, first)
	if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is in the way: move it elsewhere", name)
	}
	return os.Rename(l.o.Path, name)
}

// retire leaves the current file to be synced and closed.
func (l *Log) retire() {
	if len(l.retired) >= maxRetired { // nobody syncs, or the disk does not keep up
		if err := finish(l.retired[0]); err != nil {
			l.unsynced = err
		}
		l.retired = l.retired[1:]
	}
	l.retired, l.file, l.moved = append(l.retired, l.file), nil, true
}

// prune removes the files over the bound, after a record says so: a log that begins later
// than that was cut by somebody else. If the record cannot be written now it is owed, for
// on a full disk only the removal makes room for it.
func (l *Log) prune() {
	gone, kept := l.surplus()
	if len(gone) == 0 {
		return
	}
	if upTo := kept[0] - 1; l.older[0] != kept[0] && upTo > l.removed {
		l.removed = upTo
		said := fmt.Sprintf(removedNote, upTo)
		if _, err := l.append(l.note(said)); err != nil {
			l.notes = append(l.notes, said)
		}
	}
	for _, first := range gone {
		if err := os.Remove(olderName(l.o.Path, first)); err != nil && !errors.Is(err, os.ErrNotExist) {
			l.o.Log.Error("an old file of the audit log cannot be removed", "error", err)
		}
	}
	l.older, l.moved = kept, true
}

// surplus are the files over the bound, and those that stay. The oldest go first, but before
// them those without a decision after which the chain was broken: else a log whose end is
// damaged again and again would lose its records to files that say so.
func (l *Log) surplus() (gone, kept []uint64) {
	kept = slices.Clone(l.older)
	for len(kept) > l.o.MaxFiles {
		i := max(slices.IndexFunc(kept, l.worthless), 0)
		gone, kept = append(gone, kept[i]), slices.Delete(kept, i, i+1)
	}
	return gone, kept
}

// worthless tells whether an older file has no decision, and no record that is chained to its last.
func (l *Log) worthless(first uint64) bool {
	next := l.o.Path
	if i := slices.Index(l.older, first) + 1; i < len(l.older) {
		next = olderName(l.o.Path, l.older[i])
	}
	if after, err := firstLinkOf(next); err != nil || after.prev != noPrev {
		return false
	}
	f, err := os.Open(olderName(l.o.Path, first))
	if err != nil {
		return false
	}
	defer f.Close()
	decided := false
	err = eachLine(f, func(line []byte) bool {
		r, err := parse(line)
		decided = err == nil && r.decision
		return !decided
	})
	return err == nil && !decided
}

// start begins a new current file.
func (l *Log) start() error {
	f, err := l.create(l.o.Path)
	if err != nil {
		return err
	}
	l.begin(f, 0)
	return nil
}

// begin goes on with a file of a size.
func (l *Log) begin(f file, size int64) {
	l.file, l.size, l.first, l.base, l.torn, l.moved = f, size, 0, l.head, false, true
	if err := l.reserve(f, l.o.MaxBytes); err != nil {
		l.unreserved.Do(func() {
			l.o.Log.Warn("no space is reserved for the audit log: when the disk is full, nothing is allowed", "path", l.o.Path, "error", err)
		})
	}
}

// createFile makes a file that is not there, or takes an empty one that is.
func createFile(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_RDWR|openNoFollow, 0o600)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > 0 {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("something else is at %s: move it elsewhere", path))
	}
	return f, nil
}

func olderName(path string, first uint64) string { return path + "." + strconv.FormatUint(first, 10) }

// olderFiles gives the first numbers of the older files of a log, in their order, and all
// numbers that are taken by a name, be it of a file of another origin.
func olderFiles(path string) (own []uint64, taken map[uint64]bool, err error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, nil, err
	}
	taken = make(map[uint64]bool)
	for _, e := range entries {
		text, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		first, err := strconv.ParseUint(text, 10, 62)
		if !ok || err != nil || text != strconv.FormatUint(first, 10) {
			continue
		}
		taken[first] = true
		if !e.Type().IsRegular() {
			continue
		}
		if is, err := firstSeqOf(olderName(path, first)); err != nil {
			return nil, nil, err
		} else if is == first {
			own = append(own, first)
		}
	}
	slices.Sort(own)
	return own, taken, nil
}

// firstSeqOf is the number of the first record of a file; 0 where there is none.
func firstSeqOf(path string) (uint64, error) {
	first, err := firstLinkOf(path)
	return first.seq, err
}

func firstLinkOf(path string) (link, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return link{}, nil
	}
	if err != nil {
		return link{}, err
	}
	defer f.Close()
	return firstLink(f)
}

// Files are the files of a log, the oldest first and the current one last, if it is there.
func Files(path string) ([]string, error) {
	own, _, err := olderFiles(path)
	if err != nil {
		return nil, fmt.Errorf("look for the files of the audit log: %w", err)
	}
	var all []string
	for _, first := range own {
		all = append(all, olderName(path, first))
	}
	if _, err := os.Stat(path); err == nil {
		all = append(all, path)
	}
	return all, nil
}
