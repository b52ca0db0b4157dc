package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/audit"
	"github.com/horkos/horkos/verifier"
)

// auditLog is a log of small files, none of which is removed: a reader may be slow.
func auditLog(t *testing.T) (path string, l *audit.Log) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "audit.log")
	l, err := audit.Open(audit.Options{Path: path, Node: "n1", MaxBytes: 4 << 10, MaxFiles: 50})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return path, l
}

// logDecision appends a decision about the n-th container.
func logDecision(t *testing.T, l *audit.Log, n int, result verifier.Result) {
	t.Helper()
	r := &audit.Record{Time: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), Gate: "node", Result: result, Reason: verifier.NotAttested, Admitted: result == verifier.Allowed,
		Namespace: "shop", Pod: fmt.Sprint("cart-", n), UID: fmt.Sprint(n), Container: "cart", Image: "registry.example.com/shop/cart:1", Message: "by authority release (no attestation found)"}
	if err := l.Append(r); err != nil {
		t.Fatal(err)
	}
}

func TestAuditVerifySaysWhatTheLogIsWorth(t *testing.T) {
	path, l := auditLog(t)
	for n := range 12 {
		logDecision(t, l, n, verifier.Allowed)
	}
	_, hash := l.Head()
	logDecision(t, l, 12, verifier.Allowed)
	_, last := l.Head()
	files, err := audit.Files(path)
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v", files, err)
	}
	verify := append([]string{"audit", "verify"}, files...)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "consistent, not proven: give --heads"},
		{[]string{"--head", last}, "intact: proven up to record 13, the last, by 1 head\none head proves nothing"},
		{[]string{"--head", hash}, "intact: proven up to record 12 by 1 head; 1 record after it"},
		{[]string{"--head", hash, "-o", "json"}, `"proven": true`},
		{[]string{"--head", "12 " + hash, "--head", last}, "intact: proven up to record 13, the last, by 2 heads\n"},
	} {
		if got := program(append(verify, tt.args...)...); got.code != 0 || !strings.Contains(got.out, tt.want) {
			t.Errorf("%v: %+v, want %q", tt.args, got, tt.want)
		}
	}
	if got := program("audit", "verify", path); got.code != 1 || !strings.Contains(got.out, "give all files of the log, or they were taken away") {
		t.Errorf("%+v", got)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"v":1`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if got := program(verify...); got.code != 0 || !strings.Contains(got.out, "the last line is torn: 6 bytes") {
		t.Errorf("%+v", got)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], []byte(strings.Replace(string(data), "cart-1", "cart-9", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "broken at " + files[0] + ":2, record 2: it was changed"
	if got := program(verify...); got.code != 1 || !strings.Contains(got.out, want) {
		t.Errorf("%+v, want %q", got, want)
	}
	got := program(append(verify, "-o", "json")...)
	var p proof
	if err := json.Unmarshal([]byte(got.out), &p); err != nil || got.code != 1 || p.Intact || p.Proven || p.Broken == nil || p.Broken.Seq != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, args := range [][]string{{path + ".no"}, {path, "--head", "x"}, {}} {
		if got := program(append([]string{"audit", "verify"}, args...)...); got.code != 2 || got.errors == "" {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

func TestAuditTailPrintsALineARecordThatIsWhole(t *testing.T) {
	path, l := auditLog(t)
	for n := range 10 {
		result := verifier.Allowed
		if n%5 == 0 {
			result = verifier.Denied
		}
		logDecision(t, l, n, result)
	}
	hostile := &audit.Record{Result: verifier.Denied, Reason: "R\x1b[2J", Namespace: "\x1b]0;x\a", Pod: strings.Repeat("p\n", 200), Image: strings.Repeat("é\u202e", 300), Message: "a\r\nb"}
	if err := l.Append(hostile); err != nil {
		t.Fatal(err)
	}
	got := program("audit", "tail", path)
	lines := strings.Split(strings.TrimSuffix(got.out, "\n"), "\n")
	if got.code != 0 || len(lines) != 11 {
		t.Fatalf("%d lines: %+v", len(lines), got)
	}
	for _, line := range lines {
		if strings.ContainsAny(line, "\x1b\a\r\u202e") {
			t.Errorf("%q", line)
		}
	}
	if want := "2026-11-21 12:00:00 refused  denied/NotAttested shop/cart-0/cart registry.example.com/shop/cart:1 by authority release (no attestation found)"; lines[0] != want {
		t.Errorf("got  %s\nwant %s", lines[0], want)
	}
	if n := strings.Count(lines[10], "p?"); n != 200 {
		t.Errorf("%d of 200 letters of a name", n)
	}
	for _, tt := range []struct {
		args  []string
		lines int
	}{{[]string{"-n", "3"}, 3}, {[]string{"--denied"}, 3}, {[]string{"-n", "0"}, 0}, {[]string{"-n", "100", "-o", "json"}, 11}} {
		got := program(append([]string{"audit", "tail", path}, tt.args...)...)
		if n := strings.Count(got.out, "\n"); got.code != 0 || n != tt.lines {
			t.Errorf("%v: %d lines, %+v", tt.args, n, got)
		}
	}
	for _, args := range [][]string{{path + ".no"}, {path, "-n", "-1"}, {path, "-o", "xml"}} {
		if got := program(append([]string{"audit", "tail"}, args...)...); got.code != 2 || got.errors == "" {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

func TestAuditTailFollowsOverRotationsAndEndsWithTheContext(t *testing.T) {
	path, l := auditLog(t)
	logDecision(t, l, 0, verifier.Allowed)
	logDecision(t, l, 1, verifier.Allowed)
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		follower := &tail{path: path, n: 1, out: w, errs: io.Discard, patience: time.Millisecond}
		done <- follower.follow(ctx)
		w.Close()
	}()
	in := bufio.NewScanner(r)
	for n := 1; n < 40; n++ {
		if n > 1 && n%10 == 2 { // several files at once
			for m := n; m < n+10; m++ {
				logDecision(t, l, m, verifier.Allowed)
			}
		}
		if !in.Scan() || !strings.Contains(in.Text(), fmt.Sprintf("shop/cart-%d/cart ", n)) {
			t.Fatalf("line %d: %s", n, in.Text())
		}
	}
	cancel()
	for in.Scan() {
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// writerFunc is a writer of one function.
type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

// TestAuditTailMissesNothingThatIsRotatedWhileItPrints rotates the log at each line printed.
func TestAuditTailMissesNothingThatIsRotatedWhileItPrints(t *testing.T) {
	path, l := auditLog(t)
	logged := 0
	more := func() {
		for range 4 {
			logDecision(t, l, logged, verifier.Allowed)
			logged++
		}
	}
	more()
	var printed strings.Builder
	follower := &tail{path: path, n: 1, errs: io.Discard}
	follower.out = writerFunc(func(p []byte) (int, error) {
		if logged < 60 {
			more()
		}
		return printed.Write(p)
	})
	if err := follower.print(); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		if err := follower.catchUp(); err != nil {
			t.Fatal(err)
		}
	}
	follower.file.Close()
	lines := strings.Split(strings.TrimSpace(printed.String()), "\n")
	for i, line := range lines {
		if !strings.Contains(line, fmt.Sprintf("shop/cart-%d/cart ", 3+i)) {
			t.Fatalf("line %d: %s", i, line)
		}
	}
	if len(lines) != logged-3 {
		t.Errorf("%d lines of %d records", len(lines), logged)
	}
}

// TestAuditVerifyTakesTheHeadsAsTheyWereShipped is with a daemon that logs as text and as JSON.
func TestAuditVerifyTakesTheHeadsAsTheyWereShipped(t *testing.T) {
	for format, handler := range map[string]func(io.Writer) slog.Handler{
		"text": func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
		"json": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
	} {
		t.Run(format, func(t *testing.T) {
			dir := t.TempDir()
			path, shipped := filepath.Join(dir, "audit.log"), filepath.Join(dir, "journal")
			var journal bytes.Buffer
			log := slog.New(handler(&journal))
			for range 3 {
				l, err := audit.Open(audit.Options{Path: path, MaxBytes: 4 << 10, MaxFiles: 3, Log: log})
				if err != nil {
					t.Fatal(err)
				}
				for n := range 15 {
					logDecision(t, l, n, verifier.Allowed)
				}
				log.Warn("refused", "message", "pod=\"audit head\"")
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(shipped, journal.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			files, err := audit.Files(path)
			if err != nil {
				t.Fatal(err)
			}
			verify := append([]string{"audit", "verify", "-o", "json"}, files...)
			var p proof
			got := program(append(verify, "--heads", shipped)...)
			if err := json.Unmarshal([]byte(got.out), &p); err != nil || got.code != 0 || !p.Proven || p.Heads < 3 || p.Older == 0 || p.Following != 0 {
				t.Errorf("%+v, %v", got, err)
			}
			if again := fed(journal.String(), append(verify, "--heads", "-")...); again.code != 0 || again.out != got.out {
				t.Errorf("from standard input: %+v", again)
			}
			other := strings.Repeat("a", 64)
			if got := fed(journal.String()+fmt.Sprintln(p.Last-1, other), append(verify, "--heads", "-")...); got.code != 1 || !strings.Contains(got.out, other) {
				t.Errorf("with one that is not in it: %+v", got)
			}
			for _, none := range []string{"", "nonsense", "-- No entries --"} {
				if got := fed(none, append(verify, "--heads", "-")...); got.code != 2 || got.errors == "" {
					t.Errorf("%q: %+v", none, got)
				}
			}
			if got := program(append(verify, "--heads", shipped+".no")...); got.code != 2 {
				t.Errorf("%+v", got)
			}
		})
	}
}
