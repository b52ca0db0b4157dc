package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxTail bounds what is read of the end of a file to go on with it, and of the beginning to
// tell whose it is.
const maxTail = 4 * maxLine

// resume opens the current file, and finds where the chain goes on: after the last whole line
// of it or, if it has none, of the newest older file.
func (l *Log) resume() error {
	f, err := os.OpenFile(l.o.Path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	l.file = f
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if l.regular = info.Mode().IsRegular(); !l.regular {
		return nil
	}
	// Rotation renames the file itself, not a link to it.
	if real, err := filepath.EvalSymlinks(l.o.Path); err == nil {
		l.o.Path = real
	}
	own, taken, err := olderFiles(l.o.Path)
	if err != nil {
		return err
	}
	l.older = own
	e, err := ending(f)
	if err != nil {
		return err
	}
	if err := l.cutTorn(f, e); err != nil {
		return err
	}
	size := e.whole
	if size == 0 && len(own) > 0 {
		if e, err = l.resumeOlder(olderName(l.o.Path, own[len(own)-1])); err != nil {
			return err
		}
	}
	if e.broken != nil {
		return l.newChain(f, size, e, taken)
	}
	l.head = head{seq: e.last.seq, hash: e.hash}
	if size == 0 && e.whole == 0 {
		l.head = head{seq: free(0, taken), hash: noPrev}
	}
	return l.continueWith(f, size, e.last.seq)
}

// continueWith goes on with the current file, whose last number is known.
func (l *Log) continueWith(f *os.File, size int64, last uint64) error {
	l.begin(f, size)
	if size == 0 {
		return nil
	}
	first, err := firstSeq(f)
	if err != nil {
		return err
	}
	l.first = first
	if first == 0 {
		l.first = max(last, 1)
	}
	return nil
}

// resumeOlder reads the end of the newest older file, and cuts what is torn of it.
func (l *Log) resumeOlder(path string) (end, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return end{}, err
	}
	defer f.Close()
	e, err := ending(f)
	if errors.Is(err, errNoLog) {
		return end{whole: 1, broken: err}, nil // its beginning is that of a log
	}
	if err == nil {
		err = l.cutTorn(f, e)
	}
	return e, err
}

func (l *Log) cutTorn(f *os.File, e end) error {
	if e.torn == 0 {
		return nil
	}
	if err := f.Truncate(e.whole); err != nil {
		return fmt.Errorf("cut a torn record: %w", err)
	}
	l.dirty = true
	l.notes = append(l.notes, fmt.Sprintf("the last record was torn: %d bytes of it are cut", e.torn))
	return nil
}

// newChain begins a chain with a number above all that are known, and in a new file, so
// that it can be proven by itself.
func (l *Log) newChain(f *os.File, size int64, e end, taken map[uint64]bool) error {
	highest := e.last.seq
	for _, first := range l.older {
		highest = max(highest, first)
	}
	seq, err := highestSeq(f)
	if err != nil {
		return err
	}
	if size == 0 && len(l.older) > 0 {
		if older, err := os.Open(olderName(l.o.Path, l.older[len(l.older)-1])); err == nil {
			in, err := highestSeq(older)
			older.Close()
			if err != nil {
				return err
			}
			seq = max(seq, in)
		}
	}
	l.head = head{seq: free(max(highest, seq), taken), hash: noPrev}
	l.notes = append(l.notes, fmt.Sprintf("the chain cannot be gone on with, and a new one begins here: after the last line of the log nothing can be proven (%v)", e.broken))
	l.o.Log.Error("the chain of the audit log cannot be gone on with: a new one begins", "path", l.o.Path, "seq", l.head.seq+1, "problem", e.broken)
	if size == 0 {
		return l.continueWith(f, size, 0)
	}
	// A file without any record takes a number for its name.
	if err := l.continueWith(f, size, l.head.seq+1); err != nil {
		return err
	}
	l.head.seq = max(l.head.seq, l.first)
	if err := l.setAside(); err != nil {
		l.o.Log.Warn("the new chain begins in the file of the old one", "error", err)
		return nil
	}
	return l.start()
}

// free gives the first number from n on after which no file is named.
func free(n uint64, taken map[uint64]bool) uint64 {
	for taken[n+1] {
		n++
	}
	return n
}

// end is how a file ends.
type end struct {
	whole, torn int64 // bytes up to its last whole line, and after it
	last        link
	hash        string
	broken      error // why the chain cannot be gone on with after that line
}

var errNoLog = errors.New("not an audit log")

// ending reads the end of a file.
func ending(f *os.File) (end, error) {
	info, err := f.Stat()
	if err != nil {
		return end{}, err
	}
	size, err := written(f, info.Size())
	if err != nil || size == 0 {
		return end{torn: info.Size()}, err
	}
	start := max(size-maxTail, 0)
	tail := make([]byte, size-start)
	if _, err := f.ReadAt(tail, start); err != nil {
		return end{}, fmt.Errorf("read its end: %w", err)
	}
	whole := bytes.LastIndexByte(tail, '\n') + 1
	if whole == 0 && start > 0 {
		if first, err := firstSeq(f); err != nil || first == 0 {
			return end{}, errors.Join(err, fmt.Errorf("its last %d bytes have no end of line: %w", len(tail), errNoLog))
		}
		return end{whole: info.Size(), broken: errors.New("its end has no lines")}, nil
	}
	e := end{whole: start + int64(whole)}
	e.torn = info.Size() - e.whole
	if whole == 0 {
		return e, nil
	}
	line := tail[:whole-1]
	line = line[bytes.LastIndexByte(line, '\n')+1:]
	e.last, e.broken = parse(line)
	e.hash = hashOf(line)
	return e, nil
}

// written gives the size of a file without the zeros that a power failure may leave at its end,
// where the file was made longer and nothing came to the disk.
func written(f *os.File, size int64) (int64, error) {
	buf := make([]byte, maxLine)
	for size > 0 {
		part := buf[:min(size, int64(len(buf)))]
		if _, err := f.ReadAt(part, size-int64(len(part))); err != nil {
			return 0, fmt.Errorf("read its end: %w", err)
		}
		rest := bytes.TrimRight(part, "\x00")
		size -= int64(len(part) - len(rest))
		if len(rest) > 0 {
			break
		}
	}
	return size, nil
}

// firstSeq is the number of the first record at the beginning of a file; 0 if there is none.
func firstSeq(f *os.File) (uint64, error) {
	first, err := firstLink(f)
	return first.seq, err
}

func firstLink(f *os.File) (first link, err error) {
	err = eachLine(io.NewSectionReader(f, 0, maxTail), func(line []byte) bool {
		first, _ = parse(line)
		return first.seq == 0
	})
	return first, err
}

// highestSeq is the highest number of a record in a file.
func highestSeq(f *os.File) (uint64, error) {
	var highest uint64
	err := eachLine(io.NewSectionReader(f, 0, maxSeq), func(line []byte) bool {
		l, _ := parse(line)
		highest = max(highest, l.seq)
		return true
	})
	return highest, err
}

// eachLine calls each with the whole lines of a file, until it gives false. Lines that are too
// long for a record are left out.
func eachLine(r io.Reader, each func(line []byte) bool) error {
	in := bufio.NewReaderSize(r, maxLine+1)
	for long := false; ; {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			long = true
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read a file of the audit log: %w", err)
		}
		if !long && !each(line[:len(line)-1]) {
			return nil
		}
		long = false
	}
}
