package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/horkos/horkos/verifier"
)

// brokenWith holds a log that is broken to why it is.
func brokenWith(t *testing.T, path, why string, heads ...Head) {
	t.Helper()
	files, err := Files(path)
	if err != nil {
		t.Fatal(err)
	}
	report, err := Verify(files, heads...)
	if err != nil || report.Proven || report.Broken == nil || !strings.Contains(report.Broken.Why, why) {
		t.Errorf("%+v %+v, %v, want %q", report, report.Broken, err, why)
	}
}

func TestARunningLogThatIsCutOrWrittenToInPlaceSaysSo(t *testing.T) {
	grow := func(path string) error {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString("x\n")
		return errors.Join(err, f.Close())
	}
	for _, tt := range []struct {
		name       string
		change     func(path string) error
		said, why  string
		writeFirst bool // before the log looks
	}{
		{"cut to nothing", func(p string) error { return os.Truncate(p, 0) }, "to 0 bytes by somebody else", "records 1 to 6 were removed", false},
		{"cut to nothing and written on", func(p string) error { return os.Truncate(p, 0) }, "bytes by somebody else", "records 1 to 6 were removed", true},
		{"cut inside a record", func(p string) error { return os.Truncate(p, 1000) }, "to 1000 bytes by somebody else", "it has no end", false},
		{"cut inside a record and written on", func(p string) error { return os.Truncate(p, 1000) }, "by somebody else", "it is not a record", true},
		{"written to", grow, "written to by somebody else", "it is not a record", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.log")
			l := open(t, path)
			appended(t, l, 6)
			if err := tt.change(path); err != nil {
				t.Fatal(err)
			}
			if tt.writeFirst {
				appended(t, l, 2)
			}
			l.tick()
			appended(t, l, 3)
			l.tick()
			text := strings.Join(lines(t, path), "\n")
			if n := strings.Count(text, tt.said); n != 1 || !strings.Contains(text, `"gate":"audit"`) {
				t.Errorf("%q is said %d times: %s", tt.said, n, text)
			}
			brokenWith(t, path, tt.why)
			seq, hash := l.Head()
			brokenWith(t, path, tt.why, Head{seq, hash})
			if l.sync() != nil || l.Problem() != "" {
				t.Error(l.Problem())
			}
		})
	}
}

func TestALogThatIsCutJustBeforeItRotatesSaysSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := openWith(t, small(path))
	for l.size+1200 < 4<<10 {
		appended(t, l, 1)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	appended(t, l, 4)
	files, err := Files(path)
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, f := range files {
		all += strings.Join(lines(t, f), "\n")
	}
	if !strings.Contains(all, "by somebody else") {
		t.Errorf("it is not said: %s", all)
	}
	brokenWith(t, path, "removed by rotation")
}

// rewritten is a log in which somebody left out a record and chained the rest again.
func rewritten(t *testing.T, path string, without int) {
	t.Helper()
	changed(t, path, func(all []string) []string {
		prev := noPrev
		var kept []string
		for i, line := range all {
			if i == without {
				continue
			}
			var r Record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			r.Seq, r.Prev = uint64(len(kept)+1), prev
			text, err := encode(&r)
			if err != nil {
				t.Fatal(err)
			}
			kept, prev = append(kept, string(text)), hashOf(text)
		}
		return kept
	})
}

func TestEachHeadThatWasTakenMustBeInTheChainAtItsPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	var taken []Head
	for range 5 {
		appended(t, l, 10)
		seq, hash := l.Head()
		taken = append(taken, Head{seq, hash})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files := []string{path}
	if r, err := Verify(files, taken...); err != nil || !r.Proven || r.Heads != 5 || r.Following != 0 {
		t.Errorf("untouched: %+v %+v, %v", r, r.Broken, err)
	}
	other := Head{50, taken[0].Hash}
	brokenWith(t, path, "its hash is not the given head 50 "+other.Hash, append(slices.Clone(taken), other)...)
	brokenWith(t, path, "the given head 51 "+noPrev+" is of a record after: it was cut", Head{51, noPrev})

	rewritten(t, path, 20)
	l = open(t, path) // and root restarts the daemon, which gives heads of the forgery away
	appended(t, l, 5)
	seq, hash := l.Head()
	newest := Head{seq, hash}
	if r, err := Verify(files, newest); err != nil || !r.Proven {
		t.Errorf("the newest alone knows nothing of what was before it: %+v, %v", r, err)
	}
	for _, heads := range [][]Head{append(slices.Clone(taken), newest), append([]Head{newest}, taken...), {taken[2], newest}} {
		brokenWith(t, path, "its hash is not the given head 30 "+taken[2].Hash, heads...)
	}
	brokenWith(t, path, "the given head "+taken[3].Hash+" is not in the log", newest, Head{Hash: taken[3].Hash})
}

func TestWhatRotationRemovesIsRecordedAndWhatSomebodyRemovesIsMissed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	var taken []Head
	o := small(path)
	o.OnHead = func(seq uint64, hash string) { taken = append(taken, Head{seq, hash}) }
	l := openWith(t, o)
	appended(t, l, 80)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	taken = taken[1:] // that of nothing
	files, err := Files(path)
	if err != nil || len(files) != 5 {
		t.Fatalf("files %v, %v", files, err)
	}
	r, err := Verify(files, taken...)
	if err != nil || !r.Proven || r.First == 1 || r.Older == 0 || r.Begins {
		t.Fatalf("%+v %+v, %v", r, r.Broken, err)
	}
	brokenWith(t, path, "all given heads are of records before the log begins", taken[0])
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	brokenWith(t, path, "removed by rotation")
	brokenWith(t, path, "removed by rotation", taken...)
	changed(t, files[1], func(l []string) []string { return l[1:] })
	brokenWith(t, path, "removed by rotation")

	// A chain that begins anew may be looked at alone, but not if a head is of the one before.
	alone := filepath.Join(t.TempDir(), "audit.log")
	line := fmt.Sprintf(`{"v":1,"seq":9,"prev":"%s"}`, noPrev)
	if err := os.WriteFile(alone, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := Verify([]string{alone}, Head{9, hashOf([]byte(line))}); err != nil || !r.Proven || !r.Begins {
		t.Errorf("%+v %+v, %v", r, r.Broken, err)
	}
	brokenWith(t, alone, "is of a record before, and no record says that it was removed", Head{9, hashOf([]byte(line))}, Head{8, noPrev})
}

func TestOnlyTheLogItselfSaysWhatWasRemoved(t *testing.T) {
	note := fmt.Sprintf(removedNote, 7)
	for _, tt := range []struct {
		gate, message string
		want          uint64
	}{
		{"audit", note, 7}, {"node", note, 0}, {"audit", note + "x", 0}, {"audit", "x" + note, 0}, {"audit", fmt.Sprintf(removedNote, uint64(maxSeq)), 0},
		{"audit", strings.Replace(note, "7", "+7", 1), 0}, {"audit", strings.Replace(note, "7", "-7", 1), 0}, {"audit", "", 0},
	} {
		line, err := encode(&Record{V: Version, Seq: 9, Prev: noPrev, Gate: tt.gate, Message: tt.message})
		if err != nil {
			t.Fatal(err)
		}
		if l, err := parse(line); err != nil || l.removed != tt.want {
			t.Errorf("%s %q: %d, %v", tt.gate, tt.message, l.removed, err)
		}
	}
}

func TestRestartsWithADamagedEndDoNotPushOutDecisions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	appended(t, l, 50)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("x\n"); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := open(t, path).Close(); err != nil {
			t.Fatal(err)
		}
	}
	files, err := Files(path)
	if err != nil || len(files) != DefaultMaxFiles+1 {
		t.Fatalf("files %v, %v", files, err)
	}
	decisions := 0
	for _, f := range files {
		decisions += strings.Count(strings.Join(lines(t, f), "\n"), `"gate":"node"`)
	}
	if decisions != 50 {
		t.Errorf("%d decisions are left of 50", decisions)
	}
}

func TestWhatIsDecidedWhileTheLogCannotBeWrittenIsToldAfterwards(t *testing.T) {
	l, f := failing(t)
	appended(t, l, 1)
	f.write = errors.New("no space left on device")
	for i := range 100 {
		if err := l.Append(refusal(fmt.Sprint("p", i))); err == nil {
			t.Fatal("it is taken as written")
		}
	}
	if err := l.Append(record()); err == nil { // the gate refuses it then, and says so
		t.Fatal("it is taken as written")
	}
	passed := record()
	passed.Reason = verifier.AuditFailed
	for range 3 {
		_ = l.Append(passed)
	}
	f.write = nil
	f.sync = errors.New("input/output error")
	l.tick()
	_ = l.Append(refusal("later"))
	f.sync = nil
	l.tick()
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	told := map[string]int{}
	for _, r := range allOf(t, l.o.Path) {
		if r.Gate == "audit" && r.Repeated > 0 {
			told[fmt.Sprint(r.Result, " ", r.Reason, " ", r.Admitted)] += r.Repeated
			if !strings.Contains(r.Message, "could not be written when they were made") {
				t.Error(r.Message)
			}
		}
	}
	if want := map[string]int{"denied NotAttested false": 101, "allowed AuditFailed true": 3}; fmt.Sprint(told) != fmt.Sprint(want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

func TestHeadsAreReadAsTheyAreShipped(t *testing.T) {
	h := strings.Repeat("ab", 32)
	want := Head{7, h}
	for _, line := range []string{
		"7 " + h, "  7\t" + h + " ",
		`time=2026-11-21T12:00:00Z level=INFO msg="audit head" seq=7 hash=` + h,
		`Nov 21 12:00:00 n1 horkos-node[1]: time=2026-11-21T12:00:00Z level=INFO msg="audit head" seq=7 hash=` + h,
		`{"time":"2026-11-21T12:00:00Z","level":"INFO","msg":"audit head","seq":7,"hash":"` + h + `"}`,
		`Nov 21 12:00:00 n1 horkos-node[1]: {"level":"INFO","msg":"audit head","seq":7,"hash":"` + h + `"}`,
	} {
		if got, err := ReadHeads(strings.NewReader("-- Boot 1 --\n\n" + line + "\n" + h)); err != nil || !slices.Equal(got, []Head{want, {0, h}}) {
			t.Errorf("%s: %v, %v", line, got, err)
		}
	}
	for _, line := range []string{
		`time=x level=WARN msg=refused pod="msg=\"audit head\" seq=7 hash=` + h + `"`,
		`{"level":"WARN","msg":"refused","seq":7,"hash":"` + h + `"}`,
	} {
		if got, err := ReadHeads(strings.NewReader(line)); err != nil || len(got) > 0 {
			t.Errorf("%s: %v, %v", line, got, err)
		}
	}
	for _, line := range []string{"7", "x " + h, "0 " + h, "7 " + h[1:], "7 " + strings.ToUpper(h), "7 8 " + h, `msg="audit head" seq=7`, ` msg="audit head" seq=x hash=` + h, `{"msg":"audit head","seq":7}`, "nonsense"} {
		if got, err := ReadHeads(strings.NewReader("\n" + line)); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: %v, %v", line, got, err)
		}
	}
}
