package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// ErrNotOwned is in the chain of an error about a file that others than root may have written.
var ErrNotOwned = errors.New("must belong to root and be writable by nobody else")

// CheckOwner holds an opened file or folder to what the daemon can believe.
func CheckOwner(info os.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || st.Uid != 0:
		return fmt.Errorf("does not belong to root: %w", ErrNotOwned)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("may be written by others than root (mode %v): %w", info.Mode().Perm(), ErrNotOwned)
	}
	return nil
}

// CheckFolder holds the folder at a path to what the daemon can believe.
func CheckFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s: not a folder", dir)
	}
	if err := CheckOwner(info); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// Open opens a regular file for reading, and never waits for the other end of a pipe or
// for a device. Its errors name the path.
func Open(path string) (*os.File, os.FileInfo, error) {
	return open(path, func(os.FileInfo) error { return nil })
}

// OpenOwned opens a regular file that belongs to root and that nobody else may write: the
// daemon believes what it says.
func OpenOwned(path string) (*os.File, os.FileInfo, error) { return open(path, CheckOwner) }

func open(path string, check func(os.FileInfo) error) (*os.File, os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	default:
		if wrong := check(info); wrong != nil {
			err = &fs.PathError{Op: "open", Path: path, Err: wrong}
		}
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// ReadOwned reads what OpenOwned opens; more than limit bytes are an error. Its errors name the path.
func ReadOwned(path string, limit int) ([]byte, error) {
	f, _, err := OpenOwned(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := ReadAtMost(f, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}

// ReadAtMost reads all there is; more than limit bytes are an error.
func ReadAtMost(r io.Reader, limit int) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(data) > limit {
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	return data, nil
}
