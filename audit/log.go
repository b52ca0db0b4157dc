package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// maxLine bounds a record; a longer one loses its checks and keeps everything else.
const maxLine = 256 << 10

// Log appends records to a file. It is safe for concurrent use.
type Log struct {
	mu    sync.Mutex
	file  *os.File
	seq   uint64
	dirty bool
}

// Open opens the file for appending and creates it, readable by its owner alone.
func Open(path string) (*Log, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	return &Log{file: f}, nil
}

// Append writes one record with one write(2). When it returns without an error the
// record is with the kernel; Sync brings it to the disk.
func (l *Log) Append(r *Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.V, r.Seq = Version, l.seq+1
	line, err := json.Marshal(r)
	if err == nil && len(line) > maxLine {
		short := *r
		short.Checks = nil
		line, err = json.Marshal(&short)
	}
	if err != nil {
		return fmt.Errorf("write an audit record: %w", err)
	}
	n, err := l.file.Write(append(line, '\n'))
	if err != nil {
		if n > 0 {
			// A torn line would join the next one; end it, so that only this record is lost.
			_, _ = l.file.Write([]byte{'\n'})
		}
		return fmt.Errorf("write an audit record: %w", err)
	}
	l.seq, l.dirty = r.Seq, true
	return nil
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
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("sync the audit log: %w", err)
	}
	return nil
}
