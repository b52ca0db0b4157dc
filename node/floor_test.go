package node

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/horkos/horkos/verifier/image"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the floor is a file of root's")
	}
}

func digest(n int) image.Digest { return image.SHA256(fmt.Append(nil, n)) }

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func has(f *floorFile, n int) bool { return f.Floor().Has("shop", []image.Digest{digest(n)}) }

func TestAnUnreadableFloorIsAnErrorAtStart(t *testing.T) {
	asRoot(t)
	path := file(t, "nonsense")
	if _, err := openFloor(path, quiet()); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("got %v", err)
	}
	if _, err := openFloor(path+"-gone", quiet()); err == nil {
		t.Error("a floor that is not there was opened")
	}
}

func TestNoFloorIsAskedFor(t *testing.T) {
	f, err := openFloor("", quiet())
	if err != nil {
		t.Fatal(err)
	}
	f.look()
	if f.Floor() != nil || f.Problem() != "" {
		t.Errorf("floor %v, problem %q", f.Floor(), f.Problem())
	}
}

func TestAFloorIsReadAgainWhenItStandsStill(t *testing.T) {
	asRoot(t)
	path := file(t, string(digest(1)))
	f, err := openFloor(path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if !has(f, 1) {
		t.Fatal("not read at start")
	}
	f.look()
	put(t, path, string(digest(1))+"\n"+string(digest(2)))
	f.look()
	if has(f, 2) {
		t.Error("read at the first look after it changed: it may be half written")
	}
	f.look()
	if !has(f, 1) || !has(f, 2) {
		t.Error("not read when it stood still")
	}
	// Renamed over, with the time and size of the one before.
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	put(t, path+".new", string(digest(3))+"\n"+string(digest(4)))
	if err := os.Chtimes(path+".new", info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	f.look()
	f.look()
	if has(f, 1) || !has(f, 3) {
		t.Error("a file in its place was not read")
	}
}

func TestTheLastGoodFloorStaysInForce(t *testing.T) {
	asRoot(t)
	tests := []struct {
		name    string
		spoil   func(t *testing.T, path string)
		problem string
	}{
		{"while it is gone", func(t *testing.T, path string) { os.Remove(path) }, "no such file"},
		{"while it is emptied", func(t *testing.T, path string) { put(t, path, "") }, "no digest any more"},
		{"while it has comments only", func(t *testing.T, path string) { put(t, path, "# "+string(digest(1))) }, "no digest any more"},
		{"while it cannot be understood", func(t *testing.T, path string) { put(t, path, "pause:3.10") }, "line 1"},
		{"while others may write it", func(t *testing.T, path string) {
			put(t, path, string(digest(2)))
			if err := os.Chmod(path, 0o666); err != nil {
				t.Fatal(err)
			}
		}, "may be written by others"},
		{"while it belongs to somebody else", func(t *testing.T, path string) {
			put(t, path, string(digest(2)))
			if err := os.Chown(path, 1000, 1000); err != nil {
				t.Skip(err)
			}
		}, "does not belong to root"},
		{"while it is too large", func(t *testing.T, path string) { put(t, path, strings.Repeat("#", 4<<20+1)) }, "more than 4194304 bytes"},
		{"while a pipe stands in its place", func(t *testing.T, path string) {
			os.Remove(path)
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Skip(err)
			}
		}, "not a regular file"},
		{"while a folder stands in its place", func(t *testing.T, path string) {
			os.Remove(path)
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "floor")
			put(t, path, string(digest(1)))
			f, err := openFloor(path, quiet())
			if err != nil {
				t.Fatal(err)
			}
			tt.spoil(t, path)
			for range 3 {
				f.look()
			}
			if !has(f, 1) || has(f, 2) {
				t.Error("the last good one is not in force")
			}
			if !strings.Contains(f.Problem(), tt.problem) {
				t.Errorf("problem %q, want %q", f.Problem(), tt.problem)
			}
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			put(t, path, string(digest(3)))
			f.look()
			f.look()
			if !has(f, 3) || f.Problem() != "" {
				t.Errorf("when it is back: problem %q", f.Problem())
			}
		})
	}
}
