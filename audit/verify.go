package audit

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Report is what Verify found.
type Report struct {
	Files   []string // in the order of the chain
	Records uint64   // whole and in the chain
	First   uint64   // number of the first record; 0 where there is none
	Last    uint64
	Head    string // hash of the last record

	Begins    bool   // the first record is the first of its chain
	Proven    bool   // a given head is in the chain: all records up to it are as when it was taken
	Heads     int    // given heads that are in the chain
	Older     int    // given heads of records that were removed by rotation
	Following uint64 // records after the last given head, of which nothing is proven

	Torn   int64 // bytes of the last line, where it has no end
	Broken *Break
}

// Break is the first place where the chain does not hold.
type Break struct {
	File string
	Line int
	Seq  uint64 // of the record, where it has one
	Why  string
}

// Verify holds the files of a log to their chain, in the order of their first records,
// whatever order they are given in, and to the heads that were taken of it, from a place that
// whoever may write the log cannot change. Each must be in the chain at its place, or of a
// record that was removed by rotation. Without heads, what was changed together with all that
// follows it is not found; with the newest alone, what was so changed before it was taken.
//
// A log begins with the first record of a chain, or after those that its newest record of a
// removal names. An error means that a file could not be read.
func Verify(files []string, heads ...Head) (Report, error) {
	for _, h := range heads {
		if !isHash(h.Hash) || h.Seq >= maxSeq {
			return Report{}, fmt.Errorf("the head %q: %w", h.Hash, errNoHead)
		}
	}
	sorted, err := inOrder(files)
	if err != nil {
		return Report{}, err
	}
	v := verification{Report: Report{Files: sorted}, heads: headsOf(heads)}
	in := reader{files: sorted}
	defer in.close()
	for v.Broken == nil {
		e, err := in.next()
		if errors.Is(err, io.EOF) {
			v.end()
			break
		}
		if err == nil {
			err = v.take(e, &in)
		}
		if err != nil {
			return v.Report, err
		}
	}
	return v.Report, nil
}

// inOrder sorts files by the numbers of their first records, or by what their names say of
// them. A file that says neither is the last: it is the current one.
func inOrder(files []string) ([]string, error) {
	type numbered struct {
		path  string
		first uint64
	}
	var all []numbered
	for _, path := range files {
		first, err := firstSeqOf(path)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		if first == 0 {
			first, err = strconv.ParseUint(strings.TrimPrefix(filepath.Ext(path), "."), 10, 62)
			if err != nil {
				first = maxSeq
			}
		}
		all = append(all, numbered{path, first})
	}
	slices.SortStableFunc(all, func(a, b numbered) int { return cmp.Compare(a.first, b.first) })
	sorted := make([]string, len(all))
	for i, f := range all {
		sorted[i] = f.path
	}
	return sorted, nil
}

// verification is a Verify under way.
type verification struct {
	Report
	heads   knownHeads
	start   entry  // the first record
	last    entry  // the record before
	removed uint64 // what the newest record of a removal says
}

// take holds the next line to the record before.
func (v *verification) take(e entry, in *reader) error {
	if e.torn && in.atEnd() {
		v.Torn = int64(len(e.text)) + e.more
		return nil
	}
	l, err := parse(e.text)
	switch {
	case e.torn:
		err = errors.New("it has no end, and it is not in the last file")
	case e.more > 0:
		err = fmt.Errorf("%w: it is longer than %d bytes", errNoRecord, maxLine)
	}
	e.seq = l.seq
	if err != nil {
		v.breakAt(e, err.Error())
		return nil
	}
	hash := hashOf(e.text)
	e.text = nil // good until the next line is read
	if v.Records > 0 {
		if why := v.outOfOrder(l); why != "" {
			v.breakAt(e, why)
			return nil
		}
		if l.prev != v.Head {
			return v.mismatch(e, hash, in)
		}
	} else {
		v.First, v.Begins, v.start = l.seq, l.prev == noPrev, e
	}
	if other := v.heads.against(l.seq, hash); other != "" {
		v.breakAt(e, fmt.Sprintf("its hash is not the given head %d %s: it or one before it was changed, and what follows was chained again", l.seq, other))
		return nil
	}
	v.Records++
	v.Last, v.Head, v.last = l.seq, hash, e
	if v.Heads > 0 {
		v.Following++
	}
	if l.removed > 0 {
		v.removed = l.removed
	}
	if n := v.heads.met(l.seq, hash); n > 0 {
		v.Heads, v.Following = v.Heads+n, 0
	}
	return nil
}

func (v *verification) breakAt(e entry, why string) {
	v.Broken = &Break{File: e.file, Line: e.line, Seq: e.seq, Why: why}
}

func (v *verification) outOfOrder(l link) string {
	switch next := v.Last + 1; {
	case l.prev == noPrev:
		return fmt.Sprintf("a new chain begins with it: the one before could not be gone on with after record %d, or what followed was replaced", v.Last)
	case l.seq == next:
		return ""
	case l.seq > next+1:
		return fmt.Sprintf("it follows record %d: records %d to %d are missing", v.Last, next, l.seq-1)
	case l.seq == next+1:
		return fmt.Sprintf("it follows record %d: record %d is missing", v.Last, next)
	}
	return fmt.Sprintf("it follows record %d: it is repeated or out of order", v.Last)
}

// mismatch tells which of two records was changed: this one, where the next does not know
// it, else the one before.
func (v *verification) mismatch(e entry, hash string, in *reader) error {
	if v.heads.know(v.Last, v.Head) {
		v.breakAt(e, fmt.Sprintf("its prev is not the hash of record %d, which is the given head: it was changed", v.Last))
		return nil
	}
	next, err := in.next()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if following, bad := parse(next.text); v.heads.know(e.seq, hash) || (err == nil && bad == nil && following.prev == hash) {
		v.breakAt(v.last, fmt.Sprintf("it was changed: its hash is not the prev of record %d", e.seq))
		return nil
	}
	v.breakAt(e, fmt.Sprintf("its prev is not the hash of record %d: one of the two was changed", v.Last))
	return nil
}

// end holds the beginning of what was read, and what is missing at its end.
func (v *verification) end() {
	switch older, newer, unmet := v.heads.missing(v.First, v.removed, v.Last); {
	case v.Records == 0 && !v.heads.none():
		v.breakAt(v.last, "the log has no records, and the given head is of one")
	case v.Records > 0 && !v.Begins && v.First > v.removed+1:
		v.breakAt(v.start, fmt.Sprintf("the log begins with it, and no record says that %s removed by rotation: give all files of the log, or they were taken away", span(v.removed+1, v.First-1)))
	case older != nil:
		v.breakAt(v.start, fmt.Sprintf("the log begins with it, the given head %d %s is of a record before, and no record says that it was removed by rotation", older.Seq, older.Hash))
	case newer != nil:
		v.breakAt(v.last, fmt.Sprintf("the log ends with it, and the given head %d %s is of a record after: it was cut", newer.Seq, newer.Hash))
	case unmet != "":
		v.breakAt(v.last, fmt.Sprintf("the given head %s is not in the log: it was cut or changed after that record was written, or the record is older than the first file", unmet))
	case v.Heads == 0 && !v.heads.none():
		v.breakAt(v.start, "all given heads are of records before the log begins: they prove nothing of it")
	}
	v.Older = v.heads.olderThan(v.First)
	v.Proven = v.Heads > 0 && v.Broken == nil
}

func span(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("record %d was", from)
	}
	return fmt.Sprintf("records %d to %d were", from, to)
}

// entry is a line of a file.
type entry struct {
	file string
	line int
	text []byte // without its newline; good until the next is read
	more int64  // bytes that it is longer than any record
	torn bool   // it has no end
	seq  uint64
}

// reader reads the lines of files one after the other, with the memory of one line.
type reader struct {
	files []string
	file  *os.File
	in    *bufio.Reader
	path  string
	line  int
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
	}
}

// atEnd tells whether the file that is read is the last.
func (r *reader) atEnd() bool { return len(r.files) == 0 }

// next gives the next line; io.EOF where there is none.
func (r *reader) next() (entry, error) {
	for {
		if r.file == nil {
			if len(r.files) == 0 {
				return entry{}, io.EOF
			}
			if err := r.open(); err != nil {
				return entry{}, err
			}
		}
		e, err := r.read()
		if err == nil || !errors.Is(err, io.EOF) {
			return e, err
		}
		r.file.Close()
		r.file = nil
	}
}

func (r *reader) open() error {
	f, err := os.Open(r.files[0])
	if err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	r.path, r.files, r.file, r.line = r.files[0], r.files[1:], f, 0
	if r.in == nil {
		r.in = bufio.NewReaderSize(nil, maxLine+1)
	}
	r.in.Reset(f)
	return nil
}

func (r *reader) read() (entry, error) {
	text, err := r.in.ReadSlice('\n')
	if len(text) == 0 && errors.Is(err, io.EOF) {
		return entry{}, io.EOF
	}
	r.line++
	e := entry{file: r.path, line: r.line, text: text}
	switch {
	case err == nil:
		e.text = text[:len(text)-1]
	case errors.Is(err, io.EOF):
		e.torn = true
	case errors.Is(err, bufio.ErrBufferFull):
		e.text = nil
		e.more = int64(len(text))
		return e, r.skip(&e)
	default:
		return e, fmt.Errorf("read the audit log %s: %w", r.path, err)
	}
	return e, nil
}

// skip leaves out the rest of a line that is too long.
func (r *reader) skip(e *entry) error {
	for {
		text, err := r.in.ReadSlice('\n')
		e.more += int64(len(text))
		switch {
		case err == nil:
			return nil
		case errors.Is(err, io.EOF):
			e.torn = true
			return nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("read the audit log %s: %w", r.path, err)
		}
	}
}
