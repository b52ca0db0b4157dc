package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// Limits of a record. A longer line loses its checks and keeps everything else; of the
// digests, which whoever pulls twins of an image adds to, the first are kept.
const (
	maxLine    = 256 << 10
	maxDigests = 64
)

// Log appends records to a file. It is safe for concurrent use.
type Log struct {
	mu    sync.Mutex
	file  file
	seq   uint64
	dirty bool
	torn  bool // the file ends inside a line
}

// file is what a Log needs of an *os.File.
type file interface {
	Write([]byte) (int, error)
	Stat() (fs.FileInfo, error)
	Truncate(int64) error
	Sync() error
	Close() error
}

// Open opens the file for appending, and creates it readable by its owner alone. Records
// are numbered on from the last one in it. A last line without an end, which a machine
// that stopped may leave, is cut, and said in a record of gate audit of the named node.
func Open(path, node string) (*Log, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	l := &Log{file: f}
	cut, seq, err := resume(f)
	l.seq = seq
	if err == nil && cut > 0 {
		err = l.Append(&Record{
			Time: time.Now().UTC(), Node: node, Gate: "audit", Result: verifier.Unavailable, Reason: verifier.AuditFailed,
			Message: fmt.Sprintf("the last record was torn: %d bytes of it are cut", cut),
		})
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open the audit log %s: %w", path, err)
	}
	return l, nil
}

// Append writes one record with one write(2). When it returns without an error the
// record is with the kernel; Run brings it to the disk.
func (l *Log) Append(r *Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.V, r.Seq = Version, l.seq+1
	line, err := encode(r)
	if err != nil {
		return fmt.Errorf("write an audit record: %w", err)
	}
	if l.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := l.file.Write(line)
	if err != nil {
		if n > 0 {
			l.torn = l.cut(n) != nil || l.torn
		}
		return fmt.Errorf("write an audit record: %w", err)
	}
	l.seq, l.dirty, l.torn = r.Seq, true, false
	return nil
}

// cut takes back the n bytes that were written of a record.
func (l *Log) cut(n int) error {
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	return l.file.Truncate(info.Size() - int64(n))
}

// encode writes a record as its line. Lists are never null.
func encode(r *Record) ([]byte, error) {
	whole := *r
	if whole.Digests == nil {
		whole.Digests = []image.Digest{}
	}
	whole.Digests = whole.Digests[:min(len(whole.Digests), maxDigests)]
	if whole.Candidates == nil {
		whole.Candidates = []string{}
	}
	if whole.Checks == nil {
		whole.Checks = []verifier.Check{}
	}
	line, err := json.Marshal(&whole)
	if err == nil && len(line) > maxLine {
		whole.Checks = []verifier.Check{}
		line, err = json.Marshal(&whole)
	}
	return append(line, '\n'), err
}

// Run brings what was appended to the disk once a second, until the context ends, and closes the file.
func (l *Log) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := l.sync(); err != nil {
				return err
			}
		case <-ctx.Done():
			return errors.Join(l.sync(), l.file.Close())
		}
	}
}

func (l *Log) sync() error {
	l.mu.Lock()
	dirty := l.dirty
	l.dirty = false
	l.mu.Unlock()
	if !dirty {
		return nil
	}
	// A device or a pipe has nothing to bring to a disk.
	if err := l.file.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("sync the audit log: %w", err)
	}
	return nil
}
