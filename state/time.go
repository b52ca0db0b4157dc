package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// Files about the time of the node.
const (
	// ClockName is the file of the highest time that the node has recorded, sealed.
	ClockName = "clock"
	// AcceptTimeName is the file by which an operator says that the wall clock is right though
	// the node has recorded a higher time: when that was said, and a newline.
	AcceptTimeName = "accept-time"
)

const (
	clockVersion = 1
	maxClock     = 4 << 10 // of the files, in bytes
	maxAccepted  = 64
)

type clockBody struct {
	Highest time.Time `json:"highest"` // as RFC3339Nano, UTC
}

// RecordTime keeps a time as the highest that the node has recorded.
func RecordTime(dir string, highest time.Time) error {
	body, err := json.Marshal(clockBody{highest.UTC()})
	if err == nil {
		err = Replace(dir, ClockName, Seal(clockVersion, append(body, '\n')))
	}
	if err != nil {
		return fmt.Errorf("record the highest time: %w", err)
	}
	return nil
}

// RecordedTime reads the highest time that the node has recorded. Folder and file must
// belong to root and be writable by nobody else; fs.ErrNotExist is in the chain of the
// error when none is recorded.
func RecordedTime(dir string) (time.Time, error) {
	highest, err := recordedTime(dir)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the highest time: %w", err)
	}
	return highest, nil
}

func recordedTime(dir string) (time.Time, error) {
	text, err := readOf(dir, ClockName, maxClock)
	if err != nil {
		return time.Time{}, err
	}
	body, err := Unseal(text, clockVersion)
	if err != nil {
		return time.Time{}, err
	}
	var c clockBody
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return time.Time{}, err
	}
	if c.Highest.IsZero() {
		return time.Time{}, errors.New("no time is in it")
	}
	return c.Highest.UTC(), nil
}

// AcceptTime has the daemon take its wall clock for the time: now is when that was said.
func AcceptTime(dir string, now time.Time) error {
	err := CheckFolder(dir)
	if err == nil {
		err = Replace(dir, AcceptTimeName, now.UTC().AppendFormat(nil, time.RFC3339+"\n"))
	}
	if err != nil {
		return fmt.Errorf("accept the wall clock: %w", err)
	}
	return nil
}

// AcceptedTime reads when AcceptTime was called last. Folder and file must belong to root
// and be writable by nobody else.
func AcceptedTime(dir string) (time.Time, error) {
	text, err := readOf(dir, AcceptTimeName, maxAccepted)
	if err != nil {
		return time.Time{}, err
	}
	return time.Parse(time.RFC3339+"\n", string(text))
}

func readOf(dir, name string, limit int) ([]byte, error) {
	if err := CheckFolder(dir); err != nil {
		return nil, err
	}
	return ReadOwned(filepath.Join(dir, name), limit)
}
