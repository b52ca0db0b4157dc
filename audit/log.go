package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/horkos/horkos/verifier"
)

// Bounds of a log where none are given: 256 MiB together.
const (
	DefaultMaxBytes = 32 << 20
	DefaultMaxFiles = 7
)

// Options are how a log is kept.
type Options struct {
	Path     string // the current file; older ones are beside it, as PATH.<number of their first record>
	Node     string // written in the records that the log makes of itself
	MaxBytes int64  // of one file; DefaultMaxBytes where it is 0
	MaxFiles int    // how many older files are kept; DefaultMaxFiles where it is 0

	// OnHead is told the number and the hash of the last record after each, under the log's
	// lock: it must be quick and not call the log. May be nil.
	OnHead func(seq uint64, hash string)
	Log    *slog.Logger     // may be nil
	Now    func() time.Time // time.Now where it is nil
}

// head is the end of the chain: its last record.
type head struct {
	seq  uint64
	hash string
}

// Log appends records to files. It is safe for concurrent use.
type Log struct {
	o          Options
	create     func(path string) (file, error)
	reserve    func(f file, size int64) error
	unreserved sync.Once // says once that no space is reserved

	mu      sync.Mutex
	file    file   // the current file; nil between two
	regular bool   // it is a file on a disk: it is rotated, and goes on over a restart
	size    int64  // what it was left with
	margin  int64  // what is kept free of it, for a record of what is removed
	removed uint64 // up to which record a record says that all were removed
	first   uint64 // number of its first record; 0 while it has none
	base    head   // the head when it was begun
	head    head
	told    head // as last written to the journal
	older   []uint64
	retired []file // older files that are not on the disk yet
	notes   []string
	torn    bool // the file ends inside a line
	dirty   bool // something is not on the disk yet
	moved   bool // neither is the folder
	fresh   bool // the current file was begun because of a failed sync, and none succeeded since
	closed  bool

	failed   error // of the last write
	unsynced error // of the last sync

	refused, allowed tally
	unwritten        map[summary]int
	flushed          time.Time
}

// file is what a Log needs of an *os.File.
type file interface {
	Write([]byte) (int, error)
	Stat() (fs.FileInfo, error)
	Truncate(int64) error
	Sync() error
	Close() error
}

// Open opens a log and goes on with its chain. It creates files readable by their owner
// alone. A last line without an end, which a machine that stopped may leave, is cut; a chain
// that cannot be gone on with is followed by a new one. Either is said in a record of gate
// audit. A device or a pipe is neither rotated nor read.
func Open(o Options) (*Log, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxFiles == 0 {
		o.MaxFiles = DefaultMaxFiles
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	now, total := o.Now(), o.MaxBytes*int64(o.MaxFiles+1)
	l := &Log{
		o: o, create: createFile, reserve: reserveSpace, head: head{hash: noPrev}, flushed: now,
		refused: tally{newBucket(total/4, now), make(map[tallyKey]*repeats)}, allowed: tally{newBucket(total/2, now), make(map[tallyKey]*repeats)},
		unwritten: make(map[summary]int),
	}
	longest := l.note(fmt.Sprintf(removedNote, uint64(maxSeq)))
	longest.V, longest.Seq, longest.Time, longest.Prev = Version, maxSeq, time.Unix(0, 999_999_999).UTC(), noPrev
	line, err := encode(longest)
	if err != nil {
		return nil, fmt.Errorf("open the audit log %s: %w", o.Path, err)
	}
	l.margin = int64(len(line) + 1)
	if err := l.resume(); err != nil {
		if l.file != nil {
			l.file.Close()
		}
		return nil, fmt.Errorf("open the audit log %s: %w", o.Path, err)
	}
	// A log that cannot be written now may be later: until then nothing is allowed.
	err = l.locked(func() error { defer l.prune(); return l.writeNotes() })
	if err != nil {
		o.Log.Error("the audit log cannot be written", "error", err)
	}
	l.publish()
	return l, nil
}

// Append takes one record before the answer is given. When it returns without an error the
// record is with the kernel, by one write(2), or is counted and will be within a minute; Run
// brings it to the disk. What cannot be written is counted, and told when the log can be
// written again: refusals, and of what is allowed that with reason AuditFailed, by which a
// gate says that it let it pass nevertheless.
func (l *Log) Append(r *Record) error {
	err := l.locked(func() error {
		defer l.publish()
		return l.take(r)
	})
	if err != nil {
		l.miss(r)
		return fmt.Errorf("write an audit record: %w", err)
	}
	return nil
}

// usable says why nothing can be written.
func (l *Log) usable() error {
	if l.closed {
		return errors.New("the log is closed")
	}
	return l.unsynced
}

// note makes a record of the log about itself.
func (l *Log) note(message string) *Record {
	return &Record{Time: l.o.Now().UTC(), Node: l.o.Node, Gate: ownGate, Result: verifier.Unavailable, Reason: verifier.AuditFailed, Message: message}
}

// write writes a record, after what the log has to say itself, and gives the length of its line.
func (l *Log) write(r *Record) (int, error) {
	if err := l.writeNotes(); err != nil {
		return 0, err
	}
	return l.put(r)
}

func (l *Log) writeNotes() error {
	for len(l.notes) > 0 {
		if _, err := l.put(l.note(l.notes[0])); err != nil {
			return err
		}
		l.notes = l.notes[1:]
	}
	return nil
}

// put makes room for a record and writes it.
func (l *Log) put(r *Record) (n int, err error) {
	defer func() { l.failed = err }()
	line, err := l.chain(r)
	if err != nil {
		return 0, err
	}
	if err := l.room(len(line) + 1); err != nil {
		return 0, err
	}
	if r.Seq != l.head.seq+1 { // what was said of the removal came before it
		return l.append(r)
	}
	return l.writeLine(r, line)
}

// chain makes the line that follows the last.
func (l *Log) chain(r *Record) ([]byte, error) {
	r.V, r.Seq, r.Prev = Version, l.head.seq+1, l.head.hash
	return encode(r)
}

// append chains a record and writes it to the current file, whether there is room or not.
func (l *Log) append(r *Record) (int, error) {
	if l.file == nil {
		return 0, errors.New("there is no current file")
	}
	line, err := l.chain(r)
	if err != nil {
		return 0, err
	}
	return l.writeLine(r, line)
}

func (l *Log) writeLine(r *Record, line []byte) (int, error) {
	hash := hashOf(line)
	line = append(line, '\n')
	if l.torn {
		line = append([]byte{'\n'}, line...)
	}
	if n, err := l.file.Write(line); err != nil {
		if n > 0 && l.cut(n) != nil {
			l.torn, l.size = true, l.size+int64(n)
		}
		return 0, err
	}
	if l.first == 0 {
		l.first = r.Seq
	}
	l.head, l.size, l.dirty, l.torn = head{r.Seq, hash}, l.size+int64(len(line)), true, false
	return len(line), nil
}

// cut takes back the n bytes that were written of a record.
func (l *Log) cut(n int) error {
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	return l.file.Truncate(info.Size() - int64(n))
}

// Head is the number and the hash of the last record.
func (l *Log) Head() (seq uint64, hash string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head.seq, l.head.hash
}

// Problem says why the log does not take records, or did not take the last; empty when all is well.
func (l *Log) Problem() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, err := range []error{l.unsynced, l.failed} {
		if err != nil {
			return err.Error()
		}
	}
	return ""
}

func (l *Log) publish() {
	if l.o.OnHead != nil {
		l.o.OnHead(l.head.seq, l.head.hash)
	}
}

// announce writes the head to the journal, where whoever may write the log cannot change it.
func (l *Log) announce() {
	if l.head != l.told {
		l.o.Log.Info(headMessage, "seq", l.head.seq, "hash", l.head.hash)
		l.told = l.head
	}
}

// Run brings what was appended to the disk once a second, and what was counted to the log
// once a minute. It ends with the context, after which the log is closed.
func (l *Log) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.tick()
		case <-ctx.Done():
			return l.Close()
		}
	}
}

// tick does what is due.
func (l *Log) tick() {
	l.watch()
	if now := l.o.Now(); now.Sub(l.flushed) >= time.Minute || now.Before(l.flushed) {
		l.flushed = now
		if err := l.flush(); err != nil {
			l.o.Log.Error("what was counted could not be written to the audit log", "error", err)
		}
		l.mu.Lock()
		l.publish()
		l.announce()
		l.mu.Unlock()
	}
	l.sync()
}

// Close writes what was counted, brings all to the disk and closes the log: it takes no
// record any more. It must not be called while Run runs, which calls it.
func (l *Log) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return nil
	}
	err := l.flush()
	l.mu.Lock()
	l.closed = true
	l.publish()
	l.announce()
	l.mu.Unlock()
	err = errors.Join(err, l.sync())
	if l.file != nil {
		err = errors.Join(err, l.file.Close())
	}
	if err != nil {
		return fmt.Errorf("close the audit log: %w", err)
	}
	return nil
}
