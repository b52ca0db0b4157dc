package objects

import (
	"os"
	"path/filepath"
	"testing"
)

const nobody = 65534

// newOwnedBench is a bench whose folder belongs to root; files written to it do as well.
func newOwnedBench(t *testing.T) *bench {
	if os.Geteuid() != 0 {
		t.Skip("needs root: files of other owners are made")
	}
	b := newBench(t)
	b.owned = true
	return b
}

func TestFilesThatOthersMayHaveWritten(t *testing.T) {
	for name, tt := range map[string]struct{ taint, mend func(b *bench) error }{
		"a file of another owner": {
			func(b *bench) error { return os.Chown(b.path("a.yaml"), nobody, 0) },
			func(b *bench) error { return os.Chown(b.path("a.yaml"), 0, 0) },
		},
		"a file that a group may write": {
			func(b *bench) error { return os.Chmod(b.path("a.yaml"), 0o664) },
			func(b *bench) error { return os.Chmod(b.path("a.yaml"), 0o644) },
		},
		"a file that all may write": {
			func(b *bench) error { return os.Chmod(b.path("a.yaml"), 0o646) },
			func(b *bench) error { return os.Chmod(b.path("a.yaml"), 0o644) },
		},
		"a link to a file of another owner": {
			func(b *bench) error {
				target := filepath.Join(b.dir, "..", "target")
				if err := os.Rename(b.path("a.yaml"), target); err != nil {
					return err
				}
				if err := os.Chown(target, nobody, 0); err != nil {
					return err
				}
				return os.Symlink(target, b.path("a.yaml"))
			},
			func(b *bench) error { return os.Chown(filepath.Join(b.dir, "..", "target"), 0, 0) },
		},
		"a folder of another owner": {
			func(b *bench) error { return os.Chown(b.dir, nobody, 0) },
			func(b *bench) error { return os.Chown(b.dir, 0, 0) },
		},
		"a folder that all may write": {
			func(b *bench) error { return os.Chmod(b.dir, 0o777) },
			func(b *bench) error { return os.Chmod(b.dir, 0o755) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newOwnedBench(t)
			b.write("a.yaml", enforcing)
			b.open()

			b.write("b.yaml", elsewhere)
			b.must(tt.taint(b))
			b.wants("later they leave the last set", b.settled(), isPolicyProd, "stale")
			if _, err := b.tryOpen(); err == nil {
				t.Error("at the start they are no error")
			}
			b.must(tt.mend(b))
			b.wants("mended", b.settled(), isPolicyProd, isPolicyTest)
			b.open()
		})
	}
}

func TestAStateFolderThatOthersMayWriteIsRefused(t *testing.T) {
	b := newOwnedBench(t)
	b.must(os.Mkdir(b.state, 0o700))
	b.must(os.Chown(b.state, nobody, 0))
	if _, err := b.tryOpen(); err == nil {
		t.Error("no error")
	}
}

func TestAKeptCopyOfAnotherOwnerIsNotBelieved(t *testing.T) {
	b := newOwnedBench(t)
	b.write("a.yaml", auditing)
	b.open()
	b.must(os.Chown(filepath.Join(b.state, keptName), nobody, 0))
	b.remove("a.yaml")
	b.wants("after a restart", b.open(), "fault of policy-folder.json in every namespace")
}

func TestTheStateFolderIsMadeForItsOwnerAlone(t *testing.T) {
	b := newBench(t)
	b.open()
	info, err := os.Stat(b.state)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}
