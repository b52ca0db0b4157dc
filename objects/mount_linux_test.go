package objects

import (
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestAFolderThatIsUnmountedLeavesTheLastSet(t *testing.T) {
	b := newBench(t)
	if err := syscall.Mount("tmpfs", b.dir, "tmpfs", 0, "size=1m,mode=0755"); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err)
	}
	mounted := true
	t.Cleanup(func() {
		if mounted {
			_ = syscall.Unmount(b.dir, syscall.MNT_DETACH)
		}
	})
	b.write("a.yaml", enforcing)
	b.open()
	w := newWatch(b.dir, slog.New(slog.DiscardHandler))
	defer w.close()
	if !w.renew() {
		t.Fatal("the folder is not watched")
	}
	before := w.watched

	b.must(syscall.Unmount(b.dir, 0))
	mounted = false
	b.wants("unmounted", b.settled(), isPolicyProd, "stale")
	b.wants("unmounted, after a restart", b.open(), isPolicyProd, "stale")
	if !w.renew() || w.watched == before {
		t.Error("what is below the mount is not watched")
	}
	b.write("b.yaml", elsewhere)
	b.wants("policies below it", b.settled(), isPolicyTest)
}

// A node that restarts with a full disk is gated: what it holds is in the kept copy already,
// or the copy of before stands for it.
func TestAFullStateFolderDoesNotKeepANodeFromStarting(t *testing.T) {
	b := newBench(t)
	b.must(os.Mkdir(b.state, 0o700))
	if err := syscall.Mount("tmpfs", b.state, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(b.state, syscall.MNT_DETACH) })
	b.write("a.yaml", enforcing)
	b.open()
	filler, err := os.Create(filepath.Join(b.state, "filler"))
	b.must(err)
	for {
		if _, err := filler.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	b.must(filler.Close())
	const unwritten = "fault of policy-folder.json in none"
	b.wants("the same policies", b.open(), isPolicyProd)
	b.write("b.yaml", elsewhere)
	set := b.open()
	b.wants("another one beside them", set, isPolicyProd, isPolicyTest, unwritten)
	b.remove("a.yaml", "b.yaml")
	b.wants("none any more", b.open(), isPolicyProd, unwritten, "stale")

	b.must(os.Remove(filler.Name()))
	b.write("b.yaml", elsewhere)
	b.wants("another one, and room", b.open(), isPolicyTest)
}
