package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// asWriter makes the test binary a daemon that writes records as fast as it can.
const asWriter = "HORKOS_TEST_AUDIT_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(asWriter); path != "" {
		if err := writeForever(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// writeForever says on standard output the head after each record, as a gate gives its answer.
func writeForever(path string) error {
	l, err := Open(Options{Path: path, MaxBytes: 4 << 10, MaxFiles: 5})
	if err != nil {
		return err
	}
	go func() { _ = l.Run(context.Background()) }()
	for n := 0; ; n++ {
		r := record()
		r.UID, r.Message = fmt.Sprint(os.Getpid(), n), strings.Repeat("m", n%400)
		if err := l.Append(r); err != nil {
			return err
		}
		if _, err := fmt.Println(l.Head()); err != nil {
			return err
		}
	}
}

func TestALogVerifiesAndGoesOnAfterEachOf200Kills(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var before uint64
	for i := range 200 {
		seq, hash := killed(t, self, path, 1+random.IntN(60))
		if seq <= before {
			t.Fatalf("kill %d: ended with %d, after %d", i, seq, before)
		}
		before = seq
		files, err := Files(path)
		if err != nil || len(files) > 6 {
			t.Fatalf("kill %d: files %v, %v", i, files, err)
		}
		// What the gate was told is recorded is there.
		report, err := Verify(files, Head{Hash: hash})
		if err != nil || report.Broken != nil || !report.Proven || report.Torn > 0 {
			t.Fatalf("kill %d: %+v %+v, %v", i, report, report.Broken, err)
		}
	}
}

// killed is a writer that is killed after so many records at least; it gives the last that it said.
func killed(t *testing.T, self, path string, records int) (seq uint64, hash string) {
	t.Helper()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asWriter+"="+path)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		if n == records {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := fmt.Sscan(lines.Text(), &seq, &hash); err != nil {
			break // the last line may be torn
		}
	}
	var status *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &status) || status.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the writer ended by itself: %v: %s", err, &said)
	}
	return seq, hash
}

// copied is a copy of the files of a log.
func copied(t *testing.T, files []string) (path string) {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "audit.log")
}

// goesOn opens a damaged log and appends to it.
func goesOn(t *testing.T, path, damage string) {
	t.Helper()
	o := small(path)
	o.MaxBytes = 64 << 10
	l, err := Open(o)
	if err != nil {
		t.Fatalf("%s: %v", damage, err)
	}
	defer l.Close()
	appended(t, l, 1)
	seq, hash := l.Head()
	files, err := Files(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(files); err != nil {
		t.Fatalf("%s: %v", damage, err)
	}
	if report, err := Verify([]string{path}, Head{Hash: hash}); err != nil || report.Last != seq && report.Broken == nil {
		t.Fatalf("%s: %+v, %v", damage, report, err)
	}
}

func TestALogTruncatedAnywhereIsSaidToBeAndGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	o := options(path)
	o.MaxBytes = 64 << 10
	l := openWith(t, o)
	for len(l.older) < 1 || l.size < 40<<10 {
		appended(t, l, 1)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := Files(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		for size := int64(0); size < info.Size(); size += 4 << 10 {
			what := fmt.Sprintf("%s at %d", filepath.Base(f), size)
			at := copied(t, files)
			cut := filepath.Join(filepath.Dir(at), filepath.Base(f))
			if err := os.Truncate(cut, size); err != nil {
				t.Fatal(err)
			}
			all := []string{filepath.Join(filepath.Dir(at), filepath.Base(files[0])), at}
			report, err := Verify(all, Head{Hash: l.head.hash})
			if err != nil || report.Broken == nil && !(i == 0 && size == 0) {
				t.Errorf("%s, with the head: %+v, %v", what, report, err)
			}
			report, err = Verify(all)
			if err != nil || size > 0 && (i == 0 && report.Broken == nil || i == 1 && report.Torn == 0) {
				t.Errorf("%s: %+v, %v", what, report, err)
			}
			goesOn(t, at, what)
		}
	}
}

func TestASingleBitFlippedIsFoundAndTheLogGoesOn(t *testing.T) {
	_, files, last := rotated(t)
	random := rand.New(rand.NewPCG(3, 4))
	for range 400 {
		at := copied(t, files)
		var all []string
		for _, f := range files {
			all = append(all, filepath.Join(filepath.Dir(at), filepath.Base(f)))
		}
		flipped := all[random.IntN(len(all))]
		data, err := os.ReadFile(flipped)
		if err != nil {
			t.Fatal(err)
		}
		bit := random.IntN(8 * len(data))
		data[bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(flipped, data, 0o600); err != nil {
			t.Fatal(err)
		}
		what := fmt.Sprintf("%s, bit %d", filepath.Base(flipped), bit)
		if report, err := Verify(all, Head{Hash: last.hash}); err != nil || report.Broken == nil {
			t.Errorf("%s: %+v, %v", what, report, err)
		}
		goesOn(t, at, what)
	}
}

func TestFilesAreGivenInTheirOrder(t *testing.T) {
	path, files, _ := rotated(t)
	if files[len(files)-1] != path || !slices.IsSortedFunc(files[:3], func(a, b string) int { return len(a) - len(b) }) {
		t.Errorf("%v", files)
	}
}
