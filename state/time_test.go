package state

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 123456789, time.UTC)

func own1(t *testing.T) string {
	t.Helper()
	asRoot(t)
	dir := folder(t)
	must(t, os.Mkdir(dir, 0o700))
	return dir
}

func TestTheHighestTimeIsReadAsItWasRecorded(t *testing.T) {
	dir := own1(t)
	if _, err := RecordedTime(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	for _, want := range []time.Time{noon, noon.In(time.FixedZone("", 3600)), noon.AddDate(5000, 0, 0), noon.AddDate(-1000, 0, 0), noon.Truncate(time.Second)} {
		must(t, RecordTime(dir, want))
		if got, err := RecordedTime(dir); err != nil || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%v: got %v, %v", want, got, err)
		}
	}
	if err := RecordTime(dir, noon.AddDate(8000, 0, 0)); err == nil {
		t.Error("a time that cannot be written: no error")
	}
}

func TestARecordedTimeThatWasTouchedIsNotBelieved(t *testing.T) {
	dir := own1(t)
	must(t, RecordTime(dir, noon))
	good, err := os.ReadFile(filepath.Join(dir, ClockName))
	must(t, err)
	refused := func(name string, text []byte, want error) {
		t.Helper()
		put(t, dir, ClockName, string(text))
		if got, err := RecordedTime(dir); err == nil || errors.Is(err, fs.ErrNotExist) || (want != nil && !errors.Is(err, want)) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for at := range good {
		refused("cut", good[:at], ErrDamaged)
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[at] ^= 1 << bit
			refused("a bit flipped", bad, nil)
		}
	}
	body := good[bytes.IndexByte(good, '\n')+1:]
	refused("of another version", Seal(clockVersion+1, body), ErrVersion)
	refused("of no time", Seal(clockVersion, []byte("{}\n")), nil)
	refused("of another field", Seal(clockVersion, []byte(`{"highest":"2026-11-21T12:00:00Z","lowest":1}`)), nil)
	refused("of a time that is none", Seal(clockVersion, []byte(`{"highest":"now"}`)), nil)
	refused("of something foreign", []byte("{\"highest\":\"2026-11-21T12:00:00Z\"}\n"), ErrDamaged)
	refused("too large", Seal(clockVersion, append(bytes.Repeat([]byte(" "), maxClock), body...)), nil)
	put(t, dir, ClockName, string(good))
	must(t, os.Chown(filepath.Join(dir, ClockName), nobody, 0))
	refused("of another owner", good, ErrNotOwned)
}

func TestAnAcceptedTimeIsReadAsItWasGiven(t *testing.T) {
	dir := own1(t)
	must(t, AcceptTime(dir, noon.In(time.FixedZone("", -3600))))
	if text, err := os.ReadFile(filepath.Join(dir, AcceptTimeName)); err != nil || string(text) != "2026-11-21T12:00:00Z\n" {
		t.Errorf("%q, %v", text, err)
	}
	if got, err := AcceptedTime(dir); err != nil || !got.Equal(noon.Truncate(time.Second)) {
		t.Errorf("%v, %v", got, err)
	}
	must(t, os.Chmod(dir, 0o777))
	if err := AcceptTime(dir, noon); !errors.Is(err, ErrNotOwned) {
		t.Errorf("in a folder of all: %v", err)
	}
	if _, err := AcceptedTime(dir); !errors.Is(err, ErrNotOwned) {
		t.Errorf("in a folder of all: %v", err)
	}
	if _, err := RecordedTime(dir); !errors.Is(err, ErrNotOwned) {
		t.Errorf("in a folder of all: %v", err)
	}
}
