package objects

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// stamp tells one state of a file from another. The zero stamp is no file.
type stamp struct {
	device, inode uint64
	size          int64
	modified      time.Time
	mode          os.FileMode
	owner         uint32
	fault         string // why nothing of the above is known
}

func stampOf(info os.FileInfo) stamp {
	s := stamp{size: info.Size(), modified: info.ModTime(), mode: info.Mode()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.device, s.inode, s.owner = uint64(st.Dev), uint64(st.Ino), st.Uid
	} else {
		s.fault = "its owner cannot be told"
	}
	return s
}

var (
	// errNotOwned is in the chain of an error about a file that others than root may have written.
	errNotOwned = errors.New("must belong to root and be writable by nobody else")
	// errMoving is the error of reading a file that somebody is writing.
	errMoving = errors.New("is being written")
)

// checkOwner holds an opened file or folder to what the daemon can believe.
func checkOwner(info os.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid != 0 || info.Mode().Perm()&0o022 != 0 {
		return errNotOwned
	}
	return nil
}

// openRegular opens a regular file, and never waits for the other end of a pipe or for a device.
func openRegular(path string, owned bool) (*os.File, os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("not a regular file")
	case owned:
		err = checkOwner(info)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// readFile reads a regular file of at most limit bytes, and the stamp it had before and
// after; errMoving if the two differ.
func readFile(path string, limit int, owned bool) ([]byte, stamp, error) {
	f, before, err := openRegular(path, owned)
	if err != nil {
		return nil, stamp{}, err
	}
	defer f.Close()
	data, err := readAtMost(f, limit)
	if err != nil {
		return nil, stampOf(before), err
	}
	after, err := f.Stat()
	if err != nil {
		return nil, stamp{}, err
	}
	if stampOf(before) != stampOf(after) {
		return nil, stampOf(after), errMoving
	}
	return data, stampOf(before), nil
}

func readAtMost(r io.Reader, limit int) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(data) > limit {
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	return data, nil
}
