package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const nobody = 65534

func TestAFileIsBelievedOfRootAlone(t *testing.T) {
	asRoot(t)
	for _, tt := range []struct {
		name  string
		spoil func(path string) error
		want  string // of the error of OpenOwned; empty for none
		open  bool   // Open does
	}{
		{"of root", func(string) error { return nil }, "", true},
		{"that all may read", func(path string) error { return os.Chmod(path, 0o444) }, "", true},
		{"of another owner", func(path string) error { return os.Chown(path, nobody, 0) }, "does not belong to root", true},
		{"that a group may write", func(path string) error { return os.Chmod(path, 0o620) }, "may be written by others than root (mode -rw--w----)", true},
		{"that all may write", func(path string) error { return os.Chmod(path, 0o602) }, "may be written by others than root", true},
		{"that is a link to one of root", func(path string) error {
			return errors.Join(os.Rename(path, path+".target"), os.Symlink(path+".target", path))
		}, "", true},
		{"that is a link to one of another owner", func(path string) error {
			return errors.Join(os.Rename(path, path+".target"), os.Chown(path+".target", nobody, 0), os.Symlink(path+".target", path))
		}, "does not belong to root", true},
		{"that is a folder", func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, "not a regular file", false},
		{"that is a pipe", func(path string) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) }, "not a regular file", false},
		{"that is a device", func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/dev/zero", path)) }, "not a regular file", false},
		{"that is not there", os.Remove, "no such file", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			must(t, os.WriteFile(path, []byte("text"), 0o600))
			must(t, tt.spoil(path))
			text, err := ReadOwned(path, 4)
			switch {
			case tt.want == "" && (err != nil || string(text) != "text"):
				t.Errorf("%q, %v", text, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path)):
				t.Errorf("got %v, want %q", err, tt.want)
			}
			owner := strings.Contains(tt.want, "root")
			if errors.Is(err, ErrNotOwned) != owner || (owner && !strings.Contains(err.Error(), "must belong to root and be writable by nobody else")) {
				t.Errorf("got %v", err)
			}
			if errors.Is(err, fs.ErrNotExist) != (tt.name == "that is not there") {
				t.Errorf("got %v", err)
			}
			f, info, err := Open(path)
			if (err == nil) != tt.open || (err == nil && info.Size() != 4) {
				t.Errorf("Open: %v", err)
			}
			if err == nil {
				f.Close()
			}
		})
	}
}

func TestNoMoreIsReadThanTheLimit(t *testing.T) {
	asRoot(t)
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte("12345"), 0o600))
	if text, err := ReadOwned(path, 5); err != nil || string(text) != "12345" {
		t.Errorf("at it: %q, %v", text, err)
	}
	if _, err := ReadOwned(path, 4); err == nil || !strings.Contains(err.Error(), "more than 4 bytes") {
		t.Errorf("above it: %v", err)
	}
}
