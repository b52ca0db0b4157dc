package objects

import (
	"log/slog"
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
