// Package audit is the node-local record of every decision: one JSON object a line, written
// before the answer is given. Each line carries the hash of the line before, over rotation
// and restart: whoever knows a later hash, from the journal or elsewhere, can prove that
// nothing up to it was changed, cut or left out. The log is bounded, and what is refused
// again and again is counted, so that nobody can push out of it what was allowed.
package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// Version is the version of the record's form.
const Version = 1

// Limits of a record. A longer line loses its checks, and if that is not enough the ends of
// its texts; of the digests, which whoever pulls twins of an image adds to, the first are kept.
const (
	maxLine       = 256 << 10
	maxDigests    = 64
	maxCandidates = 16
	maxText       = 1 << 10
)

// Record is one decision about one image of a request. The order of the fields is the
// order in the line, and every field is in it.
type Record struct {
	V           int             `json:"v"`   // set by the log
	Seq         uint64          `json:"seq"` // set by the log
	Time        time.Time       `json:"time"`
	Node        string          `json:"node"`
	Gate        string          `json:"gate"` // audit where the log speaks of itself
	Result      verifier.Result `json:"result"`
	Reason      verifier.Reason `json:"reason"`
	Enforcement string          `json:"enforcement"` // enforce or audit
	Admitted    bool            `json:"admitted"`    // whether the gate let the whole request pass

	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	UID       string `json:"uid"`
	Container string `json:"container"`
	Static    bool   `json:"static"`

	Image      string         `json:"image"` // as written
	Digests    []image.Digest `json:"digests"`
	Candidates []string       `json:"candidates"` // the repositories the content may be spoken of under
	Revision   string         `json:"revision"`

	EvidenceAgeSeconds float64          `json:"evidenceAgeSeconds"` // 0 where all evidence is in the policy folder
	Checks             []verifier.Check `json:"checks"`
	Message            string           `json:"message"`
	DurationMicros     int64            `json:"durationMicros"`
	Repeated           int              `json:"repeated"` // how many further decisions the record stands for; 0: it is one
	Prev               string           `json:"prev"`     // hash of the line before; set by the log
}

// allowed tells whether the record is about an image that was let in because it may run.
func (r *Record) allowed() bool { return r.Result == verifier.Allowed && r.Admitted }

// ownGate is the gate of what the log says about itself.
const ownGate = "audit"

// noPrev is what the first record of a chain has for the hash of a line before.
const noPrev = "0000000000000000000000000000000000000000000000000000000000000000"

// hashOf is the hash by which the next record names a line, given without its newline.
func hashOf(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// encode writes a record as its line, without the newline. Lists are never null.
func encode(r *Record) ([]byte, error) {
	whole := *r
	whole.Digests = whole.Digests[:min(len(whole.Digests), maxDigests)]
	if whole.Digests == nil {
		whole.Digests = []image.Digest{}
	}
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
	if err == nil && len(line) > maxLine {
		line, err = json.Marshal(slim(&whole))
	}
	return line, err
}

// slim is a record without its checks and with all else bounded.
func slim(r *Record) *Record {
	s := *r
	for _, text := range []*string{&s.Node, &s.Namespace, &s.Pod, &s.UID, &s.Container, &s.Image, &s.Message} {
		*text = clip(*text)
	}
	s.Digests = append([]image.Digest{}, s.Digests[:min(len(s.Digests), maxDigests)]...)
	s.Candidates = make([]string, 0, maxCandidates)
	for _, c := range r.Candidates[:min(len(r.Candidates), maxCandidates)] {
		s.Candidates = append(s.Candidates, clip(c))
	}
	s.Checks = []verifier.Check{}
	return &s
}

func clip(s string) string {
	if len(s) > maxText {
		return strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	return s
}

// maxSeq bounds the numbers that are believed, so that one written by others cannot make them
// overflow.
const maxSeq = 1 << 62

var (
	errNoRecord  = errors.New("it is not a record")
	errNoPrev    = errors.New("it has no prev: it was written before the log was chained, or by something else")
	recordHead   = fmt.Sprintf(`{"v":%d,"seq":`, Version)
	prevHead     = `,"prev":"`
	prevTail     = `"}`
	recordEnding = len(prevHead) + len(noPrev) + len(prevTail)
)

// link is what the chain needs of a record.
type link struct {
	seq      uint64
	prev     string
	decision bool   // it stands for one at least, and is not only about the log itself
	removed  uint64 // up to which record the log says here that all were removed
}

// removedNote is what the log says before it removes its oldest files.
const removedNote = "records up to %d were removed by rotation"

// removedBy is the number in a removedNote; 0 where a message is none.
func removedBy(message string) (upTo uint64) {
	if n, err := fmt.Sscanf(message, removedNote, &upTo); err != nil || n != 1 || message != fmt.Sprintf(removedNote, upTo) || upTo >= maxSeq {
		return 0
	}
	return upTo
}

// parse reads a line without its newline. Of a record that cannot be chained, it still
// gives the number beside the error.
func parse(line []byte) (link, error) {
	if len(line) > maxLine {
		return link{}, fmt.Errorf("%w: it is longer than %d bytes", errNoRecord, maxLine)
	}
	var r struct {
		V    int    `json:"v"`
		Seq  uint64 `json:"seq"`
		Prev string `json:"prev"`

		Gate     string `json:"gate"`
		Repeated int    `json:"repeated"`
		Message  string `json:"message"`
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return link{}, fmt.Errorf("%w: it is not JSON of its form", errNoRecord)
	}
	switch {
	case r.V != Version:
		return link{}, fmt.Errorf("%w: its version is %d, and %d is known here", errNoRecord, r.V, Version)
	case r.Seq == 0 || r.Seq >= maxSeq:
		return link{}, fmt.Errorf("%w: it has no number", errNoRecord)
	}
	l := link{seq: r.Seq}
	if r.Prev == "" {
		return l, errNoPrev
	}
	// What JSON leaves open, a key written twice or in other letters, a log does not.
	text := string(line)
	end := text[max(len(text)-recordEnding, 0):]
	if !strings.HasPrefix(text, fmt.Sprintf("%s%d,", recordHead, r.Seq)) || end != prevHead+r.Prev+prevTail || !isHash(r.Prev) {
		return l, fmt.Errorf("%w: its keys are not as a log writes them", errNoRecord)
	}
	l.prev, l.decision = r.Prev, r.Gate != ownGate || r.Repeated > 0
	if r.Gate == ownGate {
		l.removed = removedBy(r.Message)
	}
	return l, nil
}

// isHash tells whether a text is a SHA-256 in lower-case hex.
func isHash(s string) bool {
	return len(s) == len(noPrev) && strings.Trim(s, "0123456789abcdef") == ""
}
