package evidence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/horkos/horkos/state"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/image"
)

// stored is a store over a folder, with its memory. Its clock stands at testTime.
func stored(t testing.TB, dir string, now time.Time) *Store {
	t.Helper()
	m := NewMemory()
	m.Asked("web", "", Terms{Fresh: time.Minute, Stale: time.Hour})
	return NewStore(m, StoreOptions{Dir: dir, Node: "n1", Now: func() time.Time { return now },
		OnNode: func() map[image.Identity]bool { return nil }, Log: slog.New(slog.DiscardHandler)})
}

// reopened is a store that read what another left in the folder.
func reopened(t testing.TB, dir string, now time.Time) *Store {
	t.Helper()
	s := stored(t, dir, now)
	if err := s.Load(true); err != nil {
		t.Fatal(err)
	}
	return s
}

func knows(s *Store, n int) bool { return len(s.memory.Lookup(about(n)).Attestations) > 0 }

func files(t testing.TB, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestWhatASourceAnsweredLastsWithItsAge(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "evidence")
	s := stored(t, dir, testTime)
	r := holding(about(1), 2)
	r.Attestations[0].Note, r.Attestations[0].Expires, r.Attestations[1].Origin = "projects/p/notes/n", testTime.Add(time.Hour), "o2"
	s.Put(*r)
	s.Put(*holding(about(2), 0))
	s.Fail(about(3), "no route")
	s.flush()
	for _, tt := range []struct {
		later time.Duration
		want  State
	}{{0, Fresh}, {30 * time.Second, Fresh}, {2 * time.Minute, Stale}, {2 * time.Hour, Expired}, {-time.Second, Expired}, {-1000 * time.Hour, Expired}} {
		again := reopened(t, dir, testTime.Add(tt.later))
		got := again.memory.Lookup(about(1))
		if got.State != tt.want {
			t.Errorf("read %s later it is %s, want %s", tt.later, got.State, tt.want)
		}
		if age := got.Age; tt.later >= 0 && (age < tt.later || age > tt.later+5*time.Second) {
			t.Errorf("read %s later its age is %s", tt.later, age)
		}
		if tt.want >= Stale && (fmt.Sprint(got.Attestations) != fmt.Sprint(r.Attestations)) {
			t.Errorf("got  %v\nwant %v", got.Attestations, r.Attestations)
		}
		for _, n := range []int{2, 3} {
			if again.memory.Lookup(about(n)).State != Unasked {
				t.Errorf("question %d, which brought nothing, lasts", n)
			}
		}
	}
}

func TestANewAnswerTakesThePlaceOfTheOneBeforeOnDisk(t *testing.T) {
	dir := t.TempDir()
	s := stored(t, dir, testTime)
	for n := range 5 {
		s.Put(*holding(about(1), n+1))
		s.flush()
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("%d files", len(got))
	}
	if got := reopened(t, dir, testTime).memory.Lookup(about(1)); len(got.Attestations) != 5 {
		t.Errorf("%d attestations", len(got.Attestations))
	}
	s.Put(*holding(about(1), 0)) // withdrawn
	s.flush()
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("what was withdrawn is still in %v", got)
	}
}

func TestOfTwoAnswersToAQuestionTheNewerCounts(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	for n, where := range []string{dir, other} {
		s := stored(t, where, testTime.Add(time.Duration(n)*time.Second))
		s.Put(*holding(about(1), n+1))
		s.flush()
	}
	for _, file := range files(t, other) {
		if err := os.Rename(file, filepath.Join(dir, filepath.Base(file))); err != nil {
			t.Fatal(err)
		}
	}
	if got := reopened(t, dir, testTime.Add(time.Minute)).memory.Lookup(about(1)); len(got.Attestations) != 2 {
		t.Errorf("%d attestations", len(got.Attestations))
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("%d files are left", len(got))
	}
}

// Every answer is whole or gone, whatever became of its file.
func TestABrokenFileIsRemovedAndAskedForAgain(t *testing.T) {
	dir := t.TempDir()
	s := stored(t, dir, testTime)
	big := Record{Question: about(1)}
	for n := range 40 {
		big.Attestations = append(big.Attestations, Attestation{Origin: "o", Envelopes: []attestation.Envelope{
			attestation.NewEnvelope(attestation.PKIX, "key", make([]byte, 1000), fmt.Append(nil, n))}})
	}
	s.Put(big)
	s.Put(*holding(about(2), 1))
	s.flush()
	var name string
	var whole []byte
	for _, file := range files(t, dir) {
		if text, err := os.ReadFile(file); err == nil && len(text) > len(whole) {
			name, whole = file, text
		}
	}
	broken := map[string][]byte{"empty": {}, "longer": append(append([]byte{}, whole...), 'x'), "foreign": []byte("foreign")}
	for cut := 4096; cut < len(whole); cut += 4096 {
		broken["cut at "+strconv.Itoa(cut)] = whole[:cut]
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		flipped := append([]byte{}, whole...)
		at := random.IntN(len(flipped))
		flipped[at] ^= 1 << random.IntN(8)
		broken["flipped at "+strconv.Itoa(at)] = flipped
	}
	if len(broken) < 150 {
		t.Fatalf("only %d ways to break it", len(broken))
	}
	for how, text := range broken {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		again := reopened(t, dir, testTime)
		if knows(again, 1) || !knows(again, 2) {
			t.Errorf("%s: the broken one is believed, or the whole one is lost", how)
		}
		if _, err := os.Stat(name); err == nil {
			t.Errorf("%s: it is still there", how)
		}
	}
}

func TestFilesThatAreNotOursAreLeftAloneAndLeftoversGo(t *testing.T) {
	dir := t.TempDir()
	s := stored(t, dir, testTime)
	s.Put(*holding(about(1), 1))
	s.flush()
	mine := files(t, dir)[0]
	text, err := os.ReadFile(mine)
	if err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "README")
	leftover := mine + temporarySuffix
	renamed := filepath.Join(dir, strings.Repeat("0", 64))
	for _, name := range []string{foreign, leftover, renamed} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pipe := filepath.Join(dir, strings.Repeat("1", 64))
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	reader := stored(t, dir, testTime)
	if err := reader.Load(false); err != nil || !knows(reader, 1) {
		t.Errorf("a successor that only reads: %v", err)
	}
	if len(files(t, dir)) != 5 {
		t.Error("a successor that only reads removed something")
	}
	if !knows(reopened(t, dir, testTime), 1) {
		t.Error("what was whole is lost")
	}
	got := strings.Join(files(t, dir), " ")
	if !strings.Contains(got, "README") || strings.Contains(got, temporarySuffix) || strings.Contains(got, renamed) || strings.Contains(got, pipe) {
		t.Errorf("left: %s", got)
	}
}

func TestEvidenceOfASourceThatIsNotConfiguredAnyMoreGoes(t *testing.T) {
	dir := t.TempDir()
	s := stored(t, dir, testTime)
	s.Put(*holding(about(1), 1))
	s.flush()
	bare := NewStore(NewMemory(), s.options)
	if err := bare.Load(true); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestASuccessorReadsWhatCameWhileItWaited(t *testing.T) {
	dir := t.TempDir()
	first := stored(t, dir, testTime)
	first.Put(*holding(about(1), 1))
	first.Put(*holding(about(2), 1))
	first.flush()
	second := stored(t, dir, testTime.Add(time.Second))
	if err := second.Load(false); err != nil {
		t.Fatal(err)
	}
	first.Put(*holding(about(2), 2))
	first.Put(*holding(about(3), 1))
	first.flush()
	if err := second.Load(true); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]int{1: 1, 3: 1} {
		if got := second.memory.Lookup(about(n)); len(got.Attestations) != want {
			t.Errorf("question %d: %d attestations, want %d", n, len(got.Attestations), want)
		}
	}
}

func TestADiskThatCannotBeWrittenIsToldAndLosesNothingInMemory(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "evidence")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the folder is to be
		t.Fatal(err)
	}
	s := stored(t, dir, testTime)
	s.Put(*holding(about(1), 1))
	s.flush()
	if s.Problem() == "" || !knows(s, 1) {
		t.Errorf("problem %q, known %v", s.Problem(), knows(s, 1))
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	s.flush()
	if s.Problem() != "" || !knows(reopened(t, dir, testTime), 1) {
		t.Errorf("it can be written again, and: %q", s.Problem())
	}
}

func TestAFullDiskLosesNothingThatIsOnIt(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("needs root: %v", err)
	}
	defer func() { _ = syscall.Unmount(dir, 0) }()
	s := stored(t, dir, testTime)
	n := 0
	for ; s.Problem() == ""; n++ {
		if n > 1000 {
			t.Fatal("the disk does not fill")
		}
		s.Put(*holding(about(n), 1))
		s.flush()
	}
	again := reopened(t, dir, testTime)
	for i := range n - 1 {
		if !knows(again, i) {
			t.Fatalf("answer %d of %d is lost", i, n)
		}
	}
}

func TestRunWritesWhatIsLeftWhenItEnds(t *testing.T) {
	dir := t.TempDir()
	s := stored(t, dir, testTime)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for n := range 1000 {
		s.Put(*holding(about(n), 1))
	}
	cancel()
	<-ended
	again := reopened(t, dir, testTime)
	for n := range 1000 {
		if !knows(again, n) {
			t.Fatalf("answer %d is lost", n)
		}
	}
}

// TestMain lets the test binary be a daemon that writes until it is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("HORKOS_TEST_WRITES"); dir != "" {
		writeForever(dir)
	}
	os.Exit(m.Run())
}

func writeForever(dir string) {
	m := NewMemory()
	m.Asked("web", "", Terms{Fresh: time.Minute})
	s := NewStore(m, StoreOptions{Dir: dir, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err := s.Load(true); err != nil {
		fmt.Println("load:", err)
		os.Exit(1)
	}
	for round := 1; ; round++ {
		for n := range 8 {
			s.Put(*holding(about(n), 1+(round+n)%5))
		}
		s.flush()
		fmt.Println(round)
	}
}

func TestADaemonKilledWhileItWritesLosesNothing(t *testing.T) {
	tries := 200
	if testing.Short() {
		tries = 20
	}
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(3, 4))
	wrote := 0
	for try := range tries {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "HORKOS_TEST_WRITES="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 64)
		if n, _ := out.Read(first); n == 0 || strings.HasPrefix(string(first), "load") { // the first round is on disk
			t.Fatalf("try %d: it did not write: %s", try, first)
		}
		time.Sleep(time.Duration(random.IntN(4000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		s := stored(t, dir, time.Now())
		names, _, err := s.list()
		if err != nil {
			t.Fatal(err)
		}
		if _, broken := s.read(names); len(broken) > 0 {
			t.Fatalf("try %d: %s is broken: %v", try, broken[0].name, broken[0].err)
		}
		s = reopened(t, dir, time.Now())
		for n := range 8 {
			if !knows(s, n) {
				t.Fatalf("try %d: answer %d is lost", try, n)
			}
		}
		if got := len(files(t, dir)); got != 8 {
			t.Fatalf("try %d: %d files are left", try, got)
		}
		wrote++
	}
	t.Logf("%d kills, no answer lost, none broken", wrote)
}

func FuzzRecordFile(f *testing.F) {
	_, text, err := encodeRecord(holding(about(1), 2), "n1")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := decodeRecord(nameOf(text), text)
		if err != nil {
			return
		}
		_, again, err := encodeRecord(&r, "n1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeRecord(nameOf(again), again); err != nil {
			t.Errorf("what was read and written cannot be read: %v", err)
		}
	})
}

func BenchmarkLoad10000(b *testing.B) {
	dir := b.TempDir()
	s := stored(b, dir, testTime)
	payload := []byte(strings.Repeat("p", 400))
	for n := range 10_000 {
		r := Record{Question: about(n), Attestations: []Attestation{{Origin: "https://attestations.example.com/sha256-x.json",
			Envelopes: []attestation.Envelope{attestation.NewEnvelope(attestation.PKIX, "key", payload, fmt.Append(make([]byte, 64), n))}}}}
		name, text, err := encodeRecord(&r, "n1")
		if err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	_ = s
	for b.Loop() {
		if err := stored(b, dir, testTime).Load(true); err != nil {
			b.Fatal(err)
		}
	}
}

func TestARecordThatCannotBeWrittenHoldsUpNoOther(t *testing.T) {
	dir := t.TempDir()
	s := stored(t, dir, testTime)
	s.Put(*holding(about(1), 1))
	s.flush()
	bad := holding(about(2), 1)
	bad.Attestations[0].Expires = time.Date(2030, 1, 1, 0, 0, 0, 0, time.FixedZone("", 24*60*60)) // JSON has no such offset
	s.Put(*bad)
	s.Put(*holding(about(3), 1))
	s.Put(*holding(about(1), 0)) // withdrawn
	s.flush()
	again := reopened(t, dir, testTime)
	if knows(again, 1) || !knows(again, 3) {
		t.Errorf("withdrawn: known %v; another: known %v", knows(again, 1), knows(again, 3))
	}
	if len(s.pending) != 0 {
		t.Errorf("%d are written without end", len(s.pending))
	}
}

func TestWhatIsWithdrawnGoesFromAFullDiskToo(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs root: %v", err)
	}
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	s := stored(t, dir, testTime)
	s.Put(*holding(about(1), 1))
	s.flush()
	for n := 2; s.Problem() == ""; n++ {
		s.Put(*holding(about(n), 1))
		s.flush()
	}
	s.Put(*holding(about(1), 0))
	s.flush()
	if knows(reopened(t, dir, testTime), 1) {
		t.Error("it came back")
	}
}

func TestAReadOnlyFolderIsReadAndItsTroubleTold(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("needs root: %v", err)
	}
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	s := stored(t, dir, testTime)
	s.Put(*holding(about(1), 1))
	s.flush()
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	again := reopened(t, dir, testTime)
	again.Put(*holding(about(2), 1))
	again.flush()
	if !knows(again, 1) || !knows(again, 2) || !strings.Contains(again.Problem(), "read-only") {
		t.Errorf("known %v and %v, problem %q", knows(again, 1), knows(again, 2), again.Problem())
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	again.flush()
	if !knows(reopened(t, dir, testTime), 2) || again.Problem() != "" {
		t.Errorf("it can be written again, and: %q", again.Problem())
	}
}

func TestAFileThatCannotBeRemovedIsRemovedLater(t *testing.T) {
	dir := t.TempDir()
	s := stored(t, dir, testTime)
	s.Put(*holding(about(1), 1))
	s.flush()
	s.options.Dir = "/proc/no/folder"
	s.Put(*holding(about(1), 0))
	s.flush()
	if s.Problem() == "" {
		t.Fatal("no problem")
	}
	s.options.Dir = dir
	s.flush()
	if got := files(t, dir); len(got) != 0 || s.Problem() != "" {
		t.Errorf("left: %v, problem %q", got, s.Problem())
	}
}

func TestASuccessorForgetsWhatWasWithdrawnWhileItWaited(t *testing.T) {
	dir := t.TempDir()
	first := stored(t, dir, testTime)
	first.Put(*holding(about(1), 1))
	first.flush()
	second := stored(t, dir, testTime)
	if err := second.Load(false); err != nil || !knows(second, 1) {
		t.Fatalf("not read: %v", err)
	}
	first.Put(*holding(about(1), 0))
	first.flush()
	if err := second.Load(true); err != nil {
		t.Fatal(err)
	}
	if knows(second, 1) {
		t.Error("it is still known")
	}
}

func TestNoTimeMakesWhatIsOldFresh(t *testing.T) {
	for _, read := range []time.Time{{}, time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC), time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC), testTime.AddDate(-50, 0, 0), testTime.AddDate(5000, 0, 0)} {
		dir := t.TempDir()
		s := stored(t, dir, read)
		s.Put(*holding(about(1), 1))
		s.flush()
		if got := reopened(t, dir, testTime).memory.Lookup(about(1)); got.State >= Stale {
			t.Errorf("read at %s it is %s", read, got.State)
		}
	}
}

func TestNoMoreIsReadThanIsKept(t *testing.T) {
	dir := t.TempDir()
	s := stored(t, dir, testTime)
	for n := range 400 {
		r := Record{Question: about(n), Read: testTime, Attestations: []Attestation{{Envelopes: []attestation.Envelope{
			attestation.NewEnvelope(attestation.PKIX, "key", make([]byte, 1000), nil)}}}}
		name, text, err := encodeRecord(&r, "n1")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.path(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again := stored(t, dir, testTime)
	again.memory.answers.most = 200_000
	if err := again.Load(true); err != nil {
		t.Fatal(err)
	}
	if got := again.memory.answers.bytes; got < 200_000 || got > 200_000+readAhead*2000 {
		t.Errorf("%d bytes are read", got)
	}
	if n := len(files(t, dir)); n > 200 {
		t.Errorf("%d files are left", n)
	}
}

func TestRecordsOfAnotherVersionAreMovedAside(t *testing.T) {
	dir := t.TempDir()
	text := state.Seal(recordVersion+1, []byte("{}"))
	if err := os.WriteFile(filepath.Join(dir, nameOf(text)), text, 0o600); err != nil {
		t.Fatal(err)
	}
	reopened(t, dir, testTime)
	if got, err := os.ReadFile(filepath.Join(dir, asideDir, nameOf(text))); err != nil || !bytes.Equal(got, text) {
		t.Errorf("not moved aside: %v", err)
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("left: %v", got)
	}
}

// What is signed counts wherever it was read; a folder copied from another node brings
// nothing that its sources could not have said.
func TestEvidenceReadOnAnotherNodeIsJudgedAsAnyOther(t *testing.T) {
	dir := t.TempDir()
	s := stored(t, dir, testTime)
	s.options.Node = "another"
	s.Put(*holding(about(1), 1))
	s.flush()
	again := reopened(t, dir, testTime.Add(30*time.Minute))
	if got := again.memory.Lookup(about(1)); got.State != Stale || len(got.Attestations) != 1 || !got.Again {
		t.Errorf("%+v", got)
	}
	text, err := os.ReadFile(files(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	body := strings.Replace(string(text[strings.IndexByte(string(text), '\n')+1:]), `"trust":"signature"`, `"trust":"channel"`, 1)
	unsigned := state.Seal(recordVersion, []byte(body))
	if _, err := decodeRecord(nameOf(unsigned), unsigned); err == nil {
		t.Error("what says to be trusted by another thing than its signatures is taken")
	}
	later := state.Seal(recordVersion+1, []byte(body))
	if _, err := decodeRecord(nameOf(later), later); !errors.Is(err, state.ErrVersion) {
		t.Errorf("of another version: %v", err)
	}
}
