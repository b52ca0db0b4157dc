package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

// maxTail bounds what is read of the end of a log to go on with it.
const maxTail = 4 * maxLine

// resume gives the number of the last record of a log, and cuts what follows its last
// whole line. What is not a regular file has neither.
func resume(f *os.File) (cut int, seq uint64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return 0, 0, nil
	}
	start := max(info.Size()-maxTail, 0)
	tail := make([]byte, info.Size()-start)
	if _, err := f.ReadAt(tail, start); err != nil {
		return 0, 0, fmt.Errorf("read its end: %w", err)
	}
	whole := bytes.LastIndexByte(tail, '\n') + 1
	if whole == 0 && start > 0 {
		return 0, 0, fmt.Errorf("its last %d bytes have no end of line: not an audit log", len(tail))
	}
	if cut = len(tail) - whole; cut > 0 {
		if err := f.Truncate(info.Size() - int64(cut)); err != nil {
			return 0, 0, fmt.Errorf("cut a torn record: %w", err)
		}
	}
	return cut, lastSeq(tail[:whole]), nil
}

// lastSeq is the number of the last line that is a record.
func lastSeq(lines []byte) uint64 {
	for len(lines) > 0 {
		lines = lines[:len(lines)-1]
		start := bytes.LastIndexByte(lines, '\n') + 1
		var r struct {
			Seq uint64 `json:"seq"`
		}
		if json.Unmarshal(lines[start:], &r) == nil && r.Seq > 0 {
			return r.Seq
		}
		lines = lines[:start]
	}
	return 0
}
