package audit

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/horkos/horkos/verifier"
)

// small are options under which a file takes a few records.
func small(path string) Options {
	o := options(path)
	o.MaxBytes, o.MaxFiles = 4<<10, 4
	return o
}

// rotated is a log of several files that begins with record 1, closed, and its head.
func rotated(t *testing.T) (path string, files []string, last head) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "audit.log")
	l := openWith(t, small(path))
	for len(l.older) < 3 {
		appended(t, l, 1)
	}
	appended(t, l, 4)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := Files(path)
	if err != nil || len(files) != 4 {
		t.Fatalf("files %v, %v", files, err)
	}
	return path, files, l.head
}

func TestTheChainGoesOnOverRotationAndRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	hashes := make(map[uint64]string)
	for range 5 {
		o := small(path)
		o.OnHead = func(seq uint64, hash string) { hashes[seq] = hash }
		l := openWith(t, o)
		for range 17 {
			appended(t, l, 1)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	all := allOf(t, path)
	last := all[len(all)-1].Seq
	if last < 85 {
		t.Errorf("ends with %d", last)
	}
	for _, r := range all {
		if before := hashes[r.Seq-1]; before != "" && r.Prev != before {
			t.Errorf("record %d: prev %s, want %s", r.Seq, r.Prev, before)
		}
	}
	files, err := Files(path)
	if err != nil || len(files) != 5 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > 4<<10 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Size(), info.Mode())
		}
		if first := lines(t, f)[0]; f != path && !strings.HasPrefix(first, fmt.Sprintf(`{"v":1,"seq":%s,`, filepath.Ext(f)[1:])) {
			t.Errorf("%s begins with %.40s", f, first)
		}
	}
	slices.Reverse(files)
	at := last - 5
	for hashes[at] == "" { // of what the log says before a record nobody is told
		at--
	}
	report, err := Verify(files, Head{Hash: hashes[at]})
	if err != nil || !report.Proven || report.Following != last-at || report.Begins || report.Last != last || report.Head != hashes[last] {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestAStopBetweenTwoStepsOfRotationLeavesALogThatGoesOn makes the folder as each step leaves it.
func TestAStopBetweenTwoStepsOfRotationLeavesALogThatGoesOn(t *testing.T) {
	steps := map[string]func(t *testing.T, path string){
		"the file has its new name": func(t *testing.T, path string) {},
		"the new file is there": func(t *testing.T, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"the new file holds half a record": func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(`{"v":1,"seq`), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"the new file holds zeros": func(t *testing.T, path string) {
			if err := os.WriteFile(path, make([]byte, 5000), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			path, _, last := rotated(t)
			line := lines(t, path)[0]
			l, err := parse([]byte(line))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path, olderName(path, l.seq)); err != nil {
				t.Fatal(err)
			}
			step(t, path)
			again := openWith(t, small(path))
			appended(t, again, 1)
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
			files, err := Files(path)
			if err != nil || len(files) != 5 {
				t.Fatalf("files %v, %v", files, err)
			}
			if report, err := Verify(files, Head{Hash: last.hash}); err != nil || !report.Proven || report.Broken != nil || report.Following == 0 {
				t.Errorf("%+v %+v, %v", report, report.Broken, err)
			}
		})
	}
}

func TestTooManyFilesAreRemovedAtStart(t *testing.T) {
	path, _, last := rotated(t)
	o := small(path)
	o.MaxFiles = 1
	openWith(t, o)
	files, err := Files(path)
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, %v", files, err)
	}
	if report, err := Verify(files, Head{Hash: last.hash}); err != nil || !report.Proven || report.Begins {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestForeignFilesBesideTheLogAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	foreign := map[string]string{"audit.log.1": "of logrotate\n", "audit.log.2.gz": "x", "audit.log.007": "x", "audit.log.bak": "x", "other.log.3": "x",
		"audit.log.9": `{"v":1,"seq":8,"prev":"` + noPrev + `"}` + "\n"}
	for name, text := range foreign {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "audit.log.4"), 0o700); err != nil {
		t.Fatal(err)
	}
	l := openWith(t, small(path))
	appended(t, l, 200)
	for name, text := range foreign {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != text {
			t.Errorf("%s: %v", name, err)
		}
	}
	if files, err := Files(path); err != nil || len(files) != 5 {
		t.Errorf("files %v, %v", files, err)
	}
	allOf(t, path)
}

func TestALinkToALogIsFollowedAndTheFileIsRotated(t *testing.T) {
	dir := t.TempDir()
	link, path := filepath.Join(dir, "link"), filepath.Join(dir, "audit.log")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	l := openWith(t, small(link))
	appended(t, l, 50)
	if info, err := os.Lstat(link); err != nil || info.Mode().IsRegular() {
		t.Errorf("the link is %v, %v", info.Mode(), err)
	}
	if files, err := Files(path); err != nil || len(files) != 5 {
		t.Errorf("files %v, %v", files, err)
	}
}

func TestAFileThatSomebodyTookAwayIsMissed(t *testing.T) {
	for _, how := range []string{"removed", "moved", "replaced"} {
		t.Run(how, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.log")
			l := open(t, path)
			appended(t, l, 3)
			before := l.head
			if err := os.Rename(path, path+".old"); err != nil {
				t.Fatal(err)
			}
			if how == "removed" {
				if err := os.Remove(path + ".old"); err != nil {
					t.Fatal(err)
				}
			}
			if how == "replaced" {
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l.tick()
			appended(t, l, 1)
			var first Record
			if all := lines(t, path); len(all) != 2 || json.Unmarshal([]byte(all[0]), &first) != nil {
				t.Fatalf("%q", all)
			}
			if first.Prev != before.hash || first.Gate != "audit" || !strings.Contains(first.Message, "moved or removed") {
				t.Errorf("%+v", first)
			}
			brokenWith(t, path, "no record says that records 1 to 3 were removed by rotation")
		})
	}
}

// changed writes a file again after a change of its lines.
func changed(t *testing.T, path string, change func(lines []string) []string) {
	t.Helper()
	text := strings.Join(change(lines(t, path)), "\n") + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// forged is a record with another content and the hashes of an untouched chain.
func forged(line string) string { return strings.Replace(line, "cart:1", "cart:2", 1) }

func TestVerifyNamesTheFirstRecordThatIsNotAsItWasWritten(t *testing.T) {
	seqOf := func(line string) uint64 {
		l, _ := parse([]byte(line))
		return l.seq
	}
	tests := []struct {
		name string
		// change damages the files of a log of four and says in which file, line and record.
		change func(t *testing.T, files []string) (file string, line int, seq uint64)
		why    string
	}{
		{"edited", func(t *testing.T, files []string) (string, int, uint64) {
			var seq uint64
			changed(t, files[1], func(l []string) []string { seq = seqOf(l[2]); l[2] = forged(l[2]); return l })
			return files[1], 3, seq
		}, "it was changed: its hash is not the prev of record"},
		{"edited, the last of a file", func(t *testing.T, files []string) (string, int, uint64) {
			var seq uint64
			var n int
			changed(t, files[1], func(l []string) []string { n = len(l); seq = seqOf(l[n-1]); l[n-1] = forged(l[n-1]); return l })
			return files[1], n, seq
		}, "it was changed"},
		{"prev edited", func(t *testing.T, files []string) (string, int, uint64) {
			var seq uint64
			changed(t, files[1], func(l []string) []string {
				seq = seqOf(l[2])
				l[2] = l[2][:len(l[2])-len(noPrev)-2] + strings.Repeat("a", 64) + `"}`
				return l
			})
			return files[1], 3, seq
		}, "one of the two was changed"},
		{"not a record", func(t *testing.T, files []string) (string, int, uint64) {
			changed(t, files[2], func(l []string) []string { l[1] = "nonsense"; return l })
			return files[2], 2, 0
		}, "it is not a record"},
		{"a key twice", func(t *testing.T, files []string) (string, int, uint64) {
			var seq uint64
			changed(t, files[2], func(l []string) []string {
				seq = seqOf(l[1])
				l[1] = strings.Replace(l[1], `"time":`, fmt.Sprintf(`"SEQ":%d,"time":`, seq+5), 1)
				return l
			})
			return files[2], 2, seq + 5
		}, "its keys are not as a log writes them"},
		{"a record removed", func(t *testing.T, files []string) (string, int, uint64) {
			var seq uint64
			changed(t, files[1], func(l []string) []string { seq = seqOf(l[3]); return slices.Delete(l, 2, 3) })
			return files[1], 3, seq
		}, "is missing"},
		{"cut in the middle", func(t *testing.T, files []string) (string, int, uint64) {
			changed(t, files[1], func(l []string) []string { return l[:2] })
			return files[2], 1, seqOf(lines(t, files[2])[0])
		}, "are missing"},
		{"torn in the middle", func(t *testing.T, files []string) (string, int, uint64) {
			if err := os.Truncate(files[1], 1500); err != nil {
				t.Fatal(err)
			}
			return files[1], len(lines(t, files[1])), 0
		}, "it has no end, and it is not in the last file"},
		{"reordered", func(t *testing.T, files []string) (string, int, uint64) {
			var seq uint64
			changed(t, files[1], func(l []string) []string { l[2], l[3] = l[3], l[2]; seq = seqOf(l[2]); return l })
			return files[1], 3, seq
		}, "is missing"},
		{"a record twice", func(t *testing.T, files []string) (string, int, uint64) {
			var seq uint64
			changed(t, files[1], func(l []string) []string { seq = seqOf(l[2]); return slices.Insert(l, 3, l[2]) })
			return files[1], 4, seq
		}, "it is repeated or out of order"},
		{"a file removed in the middle", func(t *testing.T, files []string) (string, int, uint64) {
			if err := os.Truncate(files[1], 0); err != nil {
				t.Fatal(err)
			}
			return files[2], 1, seqOf(lines(t, files[2])[0])
		}, "are missing"},
		{"replaced by a new chain", func(t *testing.T, files []string) (string, int, uint64) {
			var seq uint64
			changed(t, files[2], func(l []string) []string {
				seq = seqOf(l[0])
				l[0] = l[0][:len(l[0])-len(noPrev)-2] + noPrev + `"}`
				return l
			})
			return files[2], 1, seq
		}, "a new chain begins with it"},
		{"a line that is too long", func(t *testing.T, files []string) (string, int, uint64) {
			changed(t, files[2], func(l []string) []string { l[1] = strings.Repeat("x", 5*maxLine); return l })
			return files[2], 2, 0
		}, "it is longer than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, files, _ := rotated(t)
			file, line, seq := tt.change(t, files)
			for _, given := range [][]string{files, {files[3], files[0], files[2], files[1]}} {
				report, err := Verify(given)
				if err != nil || report.Broken == nil {
					t.Fatalf("%+v, %v", report, err)
				}
				if b := *report.Broken; b.File != file || b.Line != line || b.Seq != seq || !strings.Contains(b.Why, tt.why) {
					t.Errorf("got %+v, want %s:%d, record %d, %s", b, file, line, seq, tt.why)
				}
			}
		})
	}
}

func TestAHeadProvesWhatTheChainAloneCannot(t *testing.T) {
	_, files, last := rotated(t)
	current := files[3]
	if report, err := Verify(files, Head{Hash: last.hash}); err != nil || !report.Proven || !report.Begins || report.Following != 0 || report.Last != last.seq {
		t.Errorf("untouched: %+v, %v", report, err)
	}
	if _, err := Verify(files, Head{Hash: "abc"}); err == nil {
		t.Error("a head that is no hash was taken")
	}
	original, err := os.ReadFile(current)
	if err != nil {
		t.Fatal(err)
	}
	changed(t, current, func(l []string) []string { return l[:len(l)-1] })
	if report, err := Verify(files); err != nil || report.Broken != nil || report.Proven {
		t.Errorf("cut at the end, without a head: %+v, %v", report, err)
	}
	if report, err := Verify(files, Head{Hash: last.hash}); err != nil || report.Broken == nil || report.Proven {
		t.Errorf("cut at the end, with its head: %+v, %v", report, err)
	}
	if err := os.WriteFile(current, original, 0o600); err != nil {
		t.Fatal(err)
	}
	changed(t, current, func(l []string) []string { l[len(l)-1] = forged(l[len(l)-1]); return l })
	if report, err := Verify(files, Head{Hash: last.hash}); err != nil || report.Broken == nil {
		t.Errorf("the last edited, with its head: %+v, %v", report, err)
	}
	// All records forged and chained again: consistent, and another log.
	var head string
	for _, f := range files {
		changed(t, f, func(all []string) []string {
			for i, line := range all {
				var r Record
				if err := json.Unmarshal([]byte(line), &r); err != nil {
					t.Fatal(err)
				}
				r.Image, r.Result = "forged", verifier.Allowed
				if head != "" {
					r.Prev = head
				}
				text, err := encode(&r)
				if err != nil {
					t.Fatal(err)
				}
				all[i], head = string(text), hashOf(text)
			}
			return all
		})
	}
	if report, err := Verify(files); err != nil || report.Broken != nil {
		t.Errorf("rewritten, without a head: %+v, %v", report, err)
	}
	if report, err := Verify(files, Head{Hash: last.hash}); err != nil || report.Broken == nil {
		t.Errorf("rewritten, with the head: %+v, %v", report, err)
	}
}

func TestVerifyOfWhatIsMissingOrEmpty(t *testing.T) {
	path, files, last := rotated(t)
	if report, err := Verify(files[1:], Head{Hash: last.hash}); err != nil || report.Broken == nil || report.Proven || report.First == 1 {
		t.Errorf("the oldest missing: %+v, %v", report, err)
	}
	if _, err := Verify(append(files, path+".no")); err == nil {
		t.Error("a file that is not there was verified")
	}
	if _, err := Verify([]string{t.TempDir()}); err == nil {
		t.Error("a folder was verified")
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if report, err := Verify([]string{empty}); err != nil || report.Records != 0 || report.Broken != nil {
		t.Errorf("%+v, %v", report, err)
	}
	if report, err := Verify([]string{empty}, Head{Hash: last.hash}); err != nil || report.Broken == nil {
		t.Errorf("%+v, %v", report, err)
	}
	if report, err := Verify(append([]string{empty}, files...), Head{Hash: last.hash}); err != nil || !report.Proven {
		t.Errorf("with an empty file: %+v, %v", report, err)
	}
}

func FuzzParse(f *testing.F) {
	line, err := encode(&Record{V: Version, Seq: 7, Prev: noPrev})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(line), "", "{}", `{"v":1,"seq":1}`, `{"v":1,"seq":01,"prev":"` + noPrev + `"}`, `{"v":1,"seq":5,"SEQ":6,"prev":"` + noPrev + `"}`, `[]`, "\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		l, err := parse(line)
		if err != nil {
			return
		}
		if !json.Valid(line) || l.seq == 0 || !isHash(l.prev) || len(line) > maxLine {
			t.Errorf("%+v of %q", l, line)
		}
		// Every reader of JSON must read the same chain in it.
		var any map[string]json.RawMessage
		if err := json.Unmarshal(line, &any); err != nil || string(any["seq"]) != fmt.Sprint(l.seq) || string(any["prev"]) != `"`+l.prev+`"` {
			t.Errorf("%+v of %q", l, line)
		}
	})
}
