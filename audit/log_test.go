package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// contractKeys are the keys of a record, in their order; prev comes with the chain.
var contractKeys = strings.Fields("v seq time node gate result reason enforcement admitted namespace pod uid container static image " +
	"digests candidates revision evidenceAgeSeconds checks message durationMicros repeated")

func open(t *testing.T, path string) *Log {
	t.Helper()
	l, err := Open(path, "n1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.file.Close() })
	return l
}

func record() *Record {
	return &Record{Time: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), Gate: "node", Result: verifier.Denied, Reason: verifier.NotAttested}
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

func TestARecordHasTheKeysOfTheContractInTheirOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := open(t, path).Append(record()); err != nil {
		t.Fatal(err)
	}
	line := lines(t, path)[0]
	dec := json.NewDecoder(strings.NewReader(line))
	if _, err := dec.Token(); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := dec.Decode(&value); err != nil {
			t.Fatal(err)
		}
		if value == nil {
			t.Errorf("%s is null", key)
		}
		keys = append(keys, key.(string))
	}
	if !slices.Equal(keys, contractKeys) {
		t.Errorf("got  %v\nwant %v", keys, contractKeys)
	}
	for _, part := range []string{`{"v":1,"seq":1,"time":"2026-11-21T12:00:00Z"`, `"result":"denied","reason":"NotAttested"`, `"digests":[]`, `"checks":[]`} {
		if !strings.Contains(line, part) {
			t.Errorf("%s is not in %s", part, line)
		}
	}
}

func TestACheckHasAllItsKeys(t *testing.T) {
	text, err := json.Marshal(verifier.Check{})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"result":"denied","reason":"","layer":"","policy":"","requirement":"","authority":"","keyID":"","attestation":"","detail":""}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestTheFileIsItsOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	open(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestALogGoesOnWhereItEnded(t *testing.T) {
	whole := `{"v":1,"seq":41}` + "\n"
	tests := []struct {
		name, before string
		kept         string // of what was there
		next         uint64
		said         string
		err          string
	}{
		{"a new one", "", "", 1, "", ""},
		{"after a whole record", whole, whole, 42, "", ""},
		{"after a torn record", whole + `{"v":1,"se`, whole, 43, "10 bytes of it are cut", ""},
		{"after nothing but a torn record", `{"v":1,"se`, "", 2, "10 bytes of it are cut", ""},
		{"after a line that is no record", whole + "nonsense\n", whole + "nonsense\n", 42, "", ""},
		{"after a long whole record", whole + `{"seq":42,"x":"` + strings.Repeat("x", maxTail-20) + "\"}\n", whole + `{"seq":42,"x":"` + strings.Repeat("x", maxTail-20) + "\"}\n", 43, "", ""},
		{"not in a file that is no log", strings.Repeat("x", maxTail+1), "", 0, "", "not an audit log"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.log")
			if err := os.WriteFile(path, []byte(tt.before), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := Open(path, "n1")
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer l.file.Close()
			r := record()
			if err := l.Append(r); err != nil {
				t.Fatal(err)
			}
			if r.Seq != tt.next {
				t.Errorf("number %d, want %d", r.Seq, tt.next)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			after, found := strings.CutPrefix(string(data), tt.kept)
			if !found {
				t.Fatal("what was whole was changed")
			}
			if tt.said != "" && (!strings.Contains(after, tt.said) || !strings.Contains(after, `"gate":"audit"`) || !strings.Contains(after, `"node":"n1"`)) {
				t.Errorf("%q is not said: %s", tt.said, after)
			}
			if n := strings.Count(after, "\n"); n != 1 && tt.said == "" {
				t.Errorf("%d lines were written: %s", n, after)
			}
		})
	}
}

// tearing is a file whose writes fail when told so, after half of their bytes.
type tearing struct {
	*os.File
	fail, cannotCut bool
}

func (f *tearing) Write(p []byte) (int, error) {
	if !f.fail {
		return f.File.Write(p)
	}
	n, err := f.File.Write(p[:len(p)/2])
	return n, errors.Join(err, errors.New("no space left on device"))
}

func (f *tearing) Truncate(size int64) error {
	if f.cannotCut {
		return errors.New("input/output error")
	}
	return f.File.Truncate(size)
}

func TestATornWriteFailsAndDoesNotTouchTheOtherRecords(t *testing.T) {
	for _, cannotCut := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "audit.log")
		l := open(t, path)
		f := &tearing{File: l.file.(*os.File), cannotCut: cannotCut}
		l.file = f
		for i := range 5 {
			f.fail = i == 1 || i == 2
			if err := l.Append(record()); (err != nil) != f.fail {
				t.Fatalf("record %d: %v", i, err)
			}
		}
		var whole []uint64
		for _, line := range lines(t, path) {
			var r Record
			if json.Unmarshal([]byte(line), &r) == nil {
				whole = append(whole, r.Seq)
			} else if !cannotCut {
				t.Errorf("a torn line is left: %s", line)
			}
		}
		if !slices.Equal(whole, []uint64{1, 2, 3}) {
			t.Errorf("records %v, want those that did not fail, numbered without a gap", whole)
		}
	}
}

func TestALogThatCannotBeWrittenFails(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "no", "folder"), "n1"); err == nil {
		t.Error("a log in no folder was opened")
	}
	if _, err := Open(t.TempDir(), "n1"); err == nil {
		t.Error("a folder was opened as a log")
	}
	full, err := Open("/dev/full", "n1")
	if err != nil {
		t.Skipf("no /dev/full here: %v", err)
	}
	defer full.file.Close()
	if err := full.Append(record()); err == nil {
		t.Error("a record was written to a full device")
	}
}

func TestARecordThatIsTooLongLosesItsChecksOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	r := record()
	r.Message = "kept"
	r.Checks = []verifier.Check{{Detail: strings.Repeat("x", maxLine)}}
	if err := l.Append(r); err != nil {
		t.Fatal(err)
	}
	line := lines(t, path)[0]
	if len(line) > maxLine || !strings.Contains(line, `"checks":[]`) || !strings.Contains(line, `"message":"kept"`) {
		t.Errorf("%d bytes: %.300s", len(line), line)
	}
	if len(r.Checks) != 1 {
		t.Error("the caller's record was changed")
	}
}

func TestRunSyncsAndClosesAndNothingIsWrittenAfter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	if err := l.Append(record()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if l.dirty {
		t.Error("not synced")
	}
	if err := l.Append(record()); err == nil {
		t.Error("a record was taken after the log was closed")
	}
}

func TestRecordsOfManyAtOnceAreWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 50 {
				if err := l.Append(record()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	for i, line := range lines(t, path) {
		var r Record
		if err := json.NewDecoder(bytes.NewReader([]byte(line))).Decode(&r); err != nil || r.Seq != uint64(i+1) {
			t.Fatalf("line %d: seq %d, %v", i+1, r.Seq, err)
		}
	}
}

func TestARecordOfAnImageWithManyTwinsStaysSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := Open(path, "node")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r := Record{Digests: slices.Repeat([]image.Digest{image.SHA256([]byte("x"))}, 100_000)}
		if err := l.Append(&r); err != nil {
			t.Fatal(err)
		}
	}
	again, err := Open(path, "node")
	if err != nil {
		t.Fatal(err)
	}
	if again.seq != 2 {
		t.Errorf("goes on after %d, want after 2", again.seq)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 20<<10 {
		t.Errorf("two records take %v bytes (%v)", info.Size(), err)
	}
}

func TestALogOnADeviceIsNotAnError(t *testing.T) {
	l, err := Open(os.DevNull, "node")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Append(&Record{}); err != nil {
		t.Fatal(err)
	}
	if err := l.sync(); err != nil {
		t.Error(err)
	}
}
