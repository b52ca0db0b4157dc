package audit

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// faulty is a file that cannot be synced, or written, while the fault says so.
type faulty struct {
	*os.File
	fault *fault
}

type fault struct{ sync, write error }

func (f *faulty) Sync() error {
	if f.fault.sync != nil {
		return f.fault.sync
	}
	return f.File.Sync()
}

func (f *faulty) Write(p []byte) (int, error) {
	if f.fault.write != nil {
		return 0, f.fault.write
	}
	return f.File.Write(p)
}

// failing is a log on a disk that fails as the fault says.
func failing(t *testing.T) (*Log, *fault) {
	t.Helper()
	f := new(fault)
	l := openWith(t, small(filepath.Join(t.TempDir(), "audit.log")))
	l.file = &faulty{l.file.(*os.File), f}
	l.create = func(path string) (file, error) {
		disk, err := createFile(path)
		if err != nil {
			return nil, err
		}
		return &faulty{disk.(*os.File), f}, nil
	}
	return l, f
}

func TestWhileTheDiskTakesNothingNothingIsRecorded(t *testing.T) {
	l, f := failing(t)
	appended(t, l, 3)
	f.sync = errors.New("input/output error")
	l.tick()
	for range 50 { // a bad disk does not push out what is there
		if err := l.Append(record()); err == nil || !strings.Contains(err.Error(), "input/output error") || !strings.Contains(l.Problem(), "input/output error") {
			t.Fatalf("%v, problem %q", err, l.Problem())
		}
		l.tick()
	}
	f.sync = nil
	l.tick()
	if p := l.Problem(); p != "" {
		t.Fatal(p)
	}
	appended(t, l, 1)
	all := allOf(t, l.o.Path)
	if len(all) != 5 || all[3].Gate != "audit" || !strings.Contains(all[3].Message, "could not be brought to the disk") {
		t.Errorf("%d records: %+v", len(all), all)
	}
	if files, err := Files(l.o.Path); err != nil || len(files) != 2 {
		t.Errorf("files %v, %v", files, err)
	}
}

func TestAFullDiskFailsAndRecovers(t *testing.T) {
	l, f := failing(t)
	appended(t, l, 3)
	f.write = syscall.ENOSPC
	if err := l.Append(record()); !errors.Is(err, syscall.ENOSPC) || l.Problem() == "" {
		t.Errorf("%v, problem %q", err, l.Problem())
	}
	if err := l.Append(refusal("u")); err == nil {
		t.Error("a refusal that was not written is taken as written")
	}
	f.write = nil
	appended(t, l, 1)
	if err := l.Append(refusal("u")); err != nil || l.Problem() != "" {
		t.Errorf("%v, problem %q", err, l.Problem())
	}
	if all := allOf(t, l.o.Path); len(all) != 5 {
		t.Errorf("%d records", len(all))
	}
}

func TestOnARealFileSystemThatIsFullOrReadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it mounts a small file system: root is needed; the faulty file stands for it")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	o := options(filepath.Join(dir, "audit.log"))
	var journal bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&journal, nil))
	l := openWith(t, o)
	if n := strings.Count(journal.String(), "no space is reserved"); n != 1 {
		t.Errorf("that no space can be reserved is said %d times", n)
	}
	filler := filepath.Join(dir, "filler")
	appended(t, l, 2)
	if err := os.WriteFile(filler, make([]byte, 128<<10), 0o600); err == nil {
		t.Fatal("the file system is not full")
	}
	var err error
	for range 20 {
		r := record()
		r.Message = strings.Repeat("m", 1000)
		if err = l.Append(r); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	appended(t, l, 1)
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err == nil {
		t.Fatal("a file system that is written to became read-only")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(o); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a log on a read-only file system: %v", err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=64k"); err != nil {
		t.Fatal(err)
	}
	appended(t, openWith(t, o), 1)
	allOf(t, o.Path)
}

func TestANewFileThatCannotBeMadeFailsAndIsTriedAgain(t *testing.T) {
	l, _ := failing(t)
	create := l.create
	l.create = func(string) (file, error) { return nil, syscall.ENOSPC }
	var err error
	for range 50 {
		r := record()
		r.UID = strings.Repeat("u", int(l.head.seq)+1)
		if err = l.Append(r); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	l.create = create
	appended(t, l, 1)
	allOf(t, l.o.Path)
}

func TestWhatCannotBeWrittenStaysCounted(t *testing.T) {
	l, f := failing(t)
	for range 3 {
		put(t, l, refusal("u"))
	}
	f.write = syscall.ENOSPC
	if err := l.flush(); err == nil {
		t.Error("flushed to a full disk")
	}
	f.write = nil
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	if all := allOf(t, l.o.Path); len(all) != 2 || all[1].Repeated != 2 {
		t.Errorf("%+v", all)
	}
}
