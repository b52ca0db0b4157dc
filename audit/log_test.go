package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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

// contractKeys are the keys of a record, in their order.
var contractKeys = strings.Fields("v seq time node gate result reason enforcement admitted namespace pod uid container static image " +
	"digests candidates revision evidenceAgeSeconds checks message durationMicros repeated prev")

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// clock is the time of a test.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time           { return c.now }
func (c *clock) pass(d time.Duration)     { c.now = c.now.Add(d) }
func options(path string) Options         { return Options{Path: path, Node: "n1", Now: (&clock{noon}).Now} }
func open(t *testing.T, path string) *Log { t.Helper(); return openWith(t, options(path)) }

func openWith(t *testing.T, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// appended are so many records that differ, in the log.
func appended(t *testing.T, l *Log, n int) {
	t.Helper()
	for range n {
		r := record()
		r.UID = fmt.Sprint("u", l.head.seq) // those that are the same may be counted
		if err := l.Append(r); err != nil {
			t.Fatal(err)
		}
	}
}

// record is allowed, so that it is written whatever was before.
func record() *Record {
	return &Record{Time: noon, Gate: "node", Result: verifier.Allowed, Reason: verifier.Attested, Admitted: true, UID: "u", Image: "registry.example.com/cart:1"}
}

// refusal is of a pod.
func refusal(uid string) *Record {
	return &Record{Time: noon, Gate: "node", Result: verifier.Denied, Reason: verifier.NotAttested, UID: uid, Image: "registry.example.com/miner:1"}
}

// allOf reads the whole records of a log, and holds them to their chain.
func allOf(t *testing.T, path string) []Record {
	t.Helper()
	files, err := Files(path)
	if err != nil {
		t.Fatal(err)
	}
	report, err := Verify(files)
	if err != nil || report.Broken != nil {
		t.Fatalf("%+v %+v, %v", report, report.Broken, err)
	}
	var all []Record
	for _, f := range files {
		for _, line := range lines(t, f) {
			var r Record
			if line == "" {
				continue
			}
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			all = append(all, r)
		}
	}
	return all
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
	for _, part := range []string{`{"v":1,"seq":1,"time":"2026-11-21T12:00:00Z"`, `"result":"allowed","reason":"Attested"`, `"digests":[]`, `"checks":[]`, `"prev":"` + noPrev + `"}`} {
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
	whole := `{"v":1,"seq":41,"prev":"` + noPrev + `"}` + "\n"
	long := `{"v":1,"seq":42,"x":"` + strings.Repeat("x", maxLine-200) + `","prev":"` + hashOf([]byte(whole[:len(whole)-1])) + `"}` + "\n"
	unchained := `{"v":1,"seq":41}` + "\n"
	tests := []struct {
		name, before string
		kept         string // of what was there, in whatever file
		next         uint64
		said         string
		broken       bool
	}{
		{name: "a new one", next: 1},
		{name: "after a whole record", before: whole, kept: whole, next: 42},
		{name: "after a torn record", before: whole + `{"v":1,"se`, kept: whole, next: 43, said: "10 bytes of it are cut"},
		{name: "after zeros that a power failure left", before: whole + strings.Repeat("\x00", 2*maxTail), kept: whole, next: 43, said: "2097152 bytes of it are cut"},
		{name: "after nothing but a torn record", before: `{"v":1,"se`, next: 2, said: "10 bytes of it are cut"},
		{name: "after nothing but zeros", before: strings.Repeat("\x00", 100), next: 2, said: "100 bytes of it are cut"},
		{name: "after a long record", before: whole + long, kept: whole + long, next: 43},
		{name: "with a new chain after a line that is no record", before: whole + "nonsense\n", kept: whole + "nonsense\n", next: 43, said: "a new one begins", broken: true},
		{name: "with a new chain after records that have none", before: unchained, kept: unchained, next: 43, said: "a new one begins", broken: true},
		{name: "with a new chain after nothing but nonsense", before: "nonsense\n", next: 3, said: "a new one begins"},
		{name: "with a new chain after an end without lines", before: whole + strings.Repeat("x", maxTail+1), kept: whole, next: 43, said: "a new one begins", broken: true},
		{name: "with a new chain after a number that is too high", before: whole + `{"v":1,"seq":18446744073709551615,"prev":"` + noPrev + `"}` + "\n", kept: whole, next: 43, said: "a new one begins", broken: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.log")
			if err := os.WriteFile(path, []byte(tt.before), 0o600); err != nil {
				t.Fatal(err)
			}
			l := open(t, path)
			r := record()
			if err := l.Append(r); err != nil {
				t.Fatal(err)
			}
			if r.Seq != tt.next {
				t.Errorf("number %d, want %d", r.Seq, tt.next)
			}
			files, err := Files(path)
			if err != nil {
				t.Fatal(err)
			}
			var all string
			for _, f := range files {
				data, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				all += string(data)
			}
			after, found := strings.CutPrefix(all, tt.kept)
			if !found {
				t.Fatalf("what was whole was changed: %.300s", all)
			}
			if tt.said != "" && (!strings.Contains(after, tt.said) || !strings.Contains(after, `"gate":"audit"`) || !strings.Contains(after, `"node":"n1"`)) {
				t.Errorf("%q is not said: %.1000s", tt.said, after)
			}
			if n := strings.Count(after, "\n"); n != 1 && tt.said == "" {
				t.Errorf("%d lines were written: %s", n, after)
			}
			report, err := Verify(files)
			if err != nil || (report.Broken != nil) != tt.broken {
				t.Errorf("broken %+v, %v", report.Broken, err)
			}
			// Once more: the new chain is one that can be gone on with.
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			again := open(t, path)
			appended(t, again, 1)
			if again.head.seq != tt.next+1 {
				t.Errorf("goes on with %d, want %d", again.head.seq, tt.next+1)
			}
			if report, err = Verify([]string{path}, Head{Hash: again.head.hash}); len(files) > 1 && (err != nil || !report.Proven) {
				t.Errorf("the new chain cannot be proven by itself: %+v %+v, %v", report, report.Broken, err)
			}
		})
	}
}

func TestAFileThatIsNoLogIsNotTouched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	text := strings.Repeat("x", maxTail+1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(options(path)); err == nil || !strings.Contains(err.Error(), "not an audit log") {
		t.Errorf("got %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != text {
		t.Errorf("it was changed: %v", err)
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
	if _, err := Open(options(filepath.Join(t.TempDir(), "no", "folder"))); err == nil {
		t.Error("a log in no folder was opened")
	}
	if _, err := Open(options(t.TempDir())); err == nil {
		t.Error("a folder was opened as a log")
	}
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	full := open(t, "/dev/full")
	if err := full.Append(record()); err == nil || full.Problem() == "" {
		t.Errorf("a record was written to a full device: %q", full.Problem())
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
	if err := l.Append(record()); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("a record was taken after the log was closed: %v", err)
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
	l := open(t, path)
	for range 2 {
		r := record()
		r.Digests = slices.Repeat([]image.Digest{image.SHA256([]byte("x"))}, 100_000)
		if err := l.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	if again := open(t, path); again.head.seq != 2 {
		t.Errorf("goes on after %d, want after 2", again.head.seq)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 20<<10 {
		t.Errorf("two records take %v bytes (%v)", info.Size(), err)
	}
}

func TestNoRecordIsLongerThanVerifyReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	hostile := strings.Repeat("\x01", maxLine)
	for _, r := range []*Record{
		{Namespace: hostile}, {Pod: hostile}, {UID: hostile}, {Container: hostile}, {Image: hostile}, {Message: hostile},
		{Candidates: slices.Repeat([]string{strings.Repeat("<", 2000)}, 500)}, {Checks: []verifier.Check{{Detail: hostile}}, Message: hostile},
	} {
		r.Result, r.Admitted = verifier.Allowed, true
		if err := l.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range lines(t, path) {
		if len(line) > maxLine {
			t.Errorf("%d bytes", len(line))
		}
	}
	if all := allOf(t, path); len(all) != 8 {
		t.Errorf("%d records", len(all))
	}
}

func TestALogOnADeviceIsNotAnErrorAndNotRotated(t *testing.T) {
	o := options(os.DevNull)
	o.MaxBytes = 1000
	l := openWith(t, o)
	appended(t, l, 10)
	if err := l.sync(); err != nil || l.head.seq != 10 || l.regular {
		t.Errorf("%v, at %d", err, l.head.seq)
	}
	if info, err := os.Lstat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Fatal("the device was rotated")
	}
}

func TestTheHeadIsToldAndWrittenToTheJournal(t *testing.T) {
	var journal bytes.Buffer
	var told head
	c := &clock{noon}
	o := Options{Path: filepath.Join(t.TempDir(), "audit.log"), Now: c.Now, Log: slog.New(slog.NewTextHandler(&journal, nil)), OnHead: func(seq uint64, hash string) { told = head{seq, hash} }}
	l := openWith(t, o)
	appended(t, l, 3)
	if seq, hash := l.Head(); seq != 3 || told != (head{seq, hash}) || hash != hashOf([]byte(lines(t, o.Path)[2])) {
		t.Errorf("head %d %s, told %+v", seq, hash, told)
	}
	heads := func() int { return strings.Count(journal.String(), `msg="audit head" seq=`) }
	for i, want := range []int{0, 1, 1} { // nothing yet, after a minute, nothing new
		l.tick()
		if heads() != want {
			t.Errorf("%d: %d entries, want %d: %s", i, heads(), want, &journal)
		}
		c.pass(time.Minute)
	}
	appended(t, l, 1)
	if err := l.Close(); err != nil || heads() != 2 || !strings.Contains(journal.String(), "seq=4 hash="+l.head.hash) {
		t.Errorf("at the end %v: %s", err, &journal)
	}
}
