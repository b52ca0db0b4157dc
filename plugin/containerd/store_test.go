package containerd

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/horkos/horkos/verifier/image"
)

// stored puts all blobs on disk as containerd keeps them, and has the fake say where.
func (f *fake) stored() {
	f.t.Helper()
	root := f.t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "blobs", "sha256"), 0o755); err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.contentRoot = root
	for d, data := range f.blobs {
		if err := os.WriteFile(f.fileOf(d), data, 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *fake) fileOf(d image.Digest) string {
	return filepath.Join(f.contentRoot, "blobs", "sha256", d.Encoded())
}

func TestAFileOfTheContentStoreCountsByItsHashAlone(t *testing.T) {
	for _, test := range []struct {
		name  string
		touch func(file string, data []byte) error // what is in place of the manifest's file
		asked int                                  // blobs that containerd is asked for
	}{
		{"all are there", func(string, []byte) error { return nil }, 0},
		{"one is gone", func(file string, _ []byte) error { return os.Remove(file) }, 1},
		{"one bit is another", func(file string, data []byte) error {
			data[len(data)/2] ^= 1
			return os.WriteFile(file, data, 0o600)
		}, 1},
		{"one is the content of another", func(file string, _ []byte) error { return os.WriteFile(file, []byte("{}"), 0o600) }, 1},
		{"one is empty", func(file string, _ []byte) error { return os.Truncate(file, 0) }, 1},
		{"one is longer", func(file string, data []byte) error { return os.Truncate(file, int64(len(data))+1) }, 1},
		{"one is over the limit", func(file string, _ []byte) error { return os.Truncate(file, image.MaxManifestBytes+1) }, 1},
		{"one is a link to what it was", func(file string, _ []byte) error {
			if err := os.Rename(file, file+".elsewhere"); err != nil {
				return err
			}
			return os.Symlink(file+".elsewhere", file)
		}, 1},
		{"one is a pipe", func(file string, _ []byte) error {
			if err := os.Remove(file); err != nil {
				return err
			}
			return syscall.Mkfifo(file, 0o600)
		}, 1},
		{"one is a folder", func(file string, _ []byte) error {
			if err := os.Remove(file); err != nil {
				return err
			}
			return os.Mkdir(file, 0o700)
		}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			app := f.simple("app", "base")
			f.pull(good, "1", app)
			f.stored()
			if err := test.touch(f.fileOf(app.manifest), append([]byte(nil), f.blobs[app.manifest]...)); err != nil {
				t.Fatal(err)
			}
			ix := f.follow(Options{})
			if !ix.named(good + ":1").offers(app.config) {
				t.Fatalf("%+v", ix.named(good+":1"))
			}
			if n := f.counted()["Content/Read"]; n != test.asked {
				t.Errorf("containerd was asked for %d blobs, want %d", n, test.asked)
			}
		})
	}
}

func TestAForgedFileIsNotBelievedWhereContainerdHasNone(t *testing.T) {
	f := newFake(t)
	app, evil := f.simple("app", "base"), f.simple("evil", "base")
	f.pull(good, "1", app)
	f.stored()
	f.dropBlob(app.manifest)
	if err := os.WriteFile(f.fileOf(app.manifest), f.blobs[evil.manifest], 0o600); err != nil {
		t.Fatal(err)
	}
	c := f.follow(Options{}).named(good + ":1")
	if c.fault == "" || len(c.ways) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestAContentStoreThatIsNotWithinReachIsAskedForItsBlobs(t *testing.T) {
	for _, root := range []string{"", "relative/path", "/nowhere/at/all"} {
		t.Run(root, func(t *testing.T) {
			f := newFake(t)
			app := f.multi("app", "base")
			f.pull(good, "1", app)
			f.contentRoot = root
			if ix := f.follow(Options{}); !ix.named(good + ":1").offers(app.config) {
				t.Errorf("%+v", ix.named(good+":1"))
			}
		})
	}
}

func TestADigestIsNoPathOutOfTheContentStore(t *testing.T) {
	f := newFake(t)
	f.stored()
	outside := filepath.Join(f.contentRoot, "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStore(t.Context(), f.dial())
	for _, d := range []image.Digest{"../outside:", "sha256:../../outside", "sha256:", "", "sha256:..", image.Digest(":" + outside)} {
		if data, err := s.file(d, 100); err == nil {
			t.Errorf("%q gave %q", d, data)
		}
	}
}

// Content that comes while the node runs is read as that of the start is; what a create
// waits for is asked of containerd, which answers or not within the create's deadline.
func TestACreateWaitsForNoFile(t *testing.T) {
	f := newFake(t)
	f.stored()
	ix := f.follow(Options{Relist: time.Hour})
	app := f.multi("app", "base")
	f.record(good+":1", app.index) // no event
	f.counted()
	if got := bindOne(t, ix, f.claimOf(good+":1", app)); got.Unbound != "" {
		t.Fatal(got.Unbound)
	}
	if n := f.counted()["Content/Read"]; n == 0 {
		t.Error("containerd was not asked")
	}
}

func TestThePinnedImagesAreThoseOfTheMoment(t *testing.T) {
	f := newFake(t)
	pause := f.multi("pause", "pause")
	f.record(pauseRef+":3.10", pause.index)
	f.pull(good, "1", f.multi("app", "base"))
	f.pin(pauseRef+":3.10", true)
	ix := f.follow(Options{})
	pinned, err := ix.Pinned()
	if err != nil || len(pinned) != 1 || pinned[0].Name != pauseRef+":3.10" || len(pinned[0].Digests) != 3 || pinned[0].Digests[0] != pause.config {
		t.Fatalf("%+v, %v", pinned, err)
	}
	none := func() bool {
		pinned, err := ix.Pinned()
		return err == nil && len(pinned) == 0
	}
	f.pin(pauseRef+":3.10", false)
	f.publish("/images/update", pauseRef+":3.10")
	eventually(t, "it is not pinned any more", none)
	f.pin(pauseRef+":3.10", true)
	f.publish("/images/update", pauseRef+":3.10")
	eventually(t, "it is pinned again", func() bool { return !none() })
	f.untag(pauseRef + ":3.10")
	eventually(t, "it is gone", none)

	f.record(pauseRef+":broken", f.malformed(pause))
	f.pin(pauseRef+":broken", true)
	f.publish("/images/create", pauseRef+":broken")
	eventually(t, "a pinned image with a fault is an error", func() bool {
		_, err := ix.Pinned()
		return err != nil
	})
}
