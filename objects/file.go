package objects

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/horkos/horkos/state"
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

// errMoving is the error of reading a file that somebody is writing.
var errMoving = errors.New("is being written")

// openRegular opens a regular file, one of root's alone where owned asks for that.
func openRegular(path string, owned bool) (*os.File, os.FileInfo, error) {
	if owned {
		return state.OpenOwned(path)
	}
	return state.Open(path)
}

// readFile reads a regular file of at most limit bytes, and the stamp it had before and
// after; errMoving if the two differ.
func readFile(path string, limit int, owned bool) ([]byte, stamp, error) {
	f, before, err := openRegular(path, owned)
	if err != nil {
		return nil, stamp{}, withoutPath(err)
	}
	defer f.Close()
	data, err := state.ReadAtMost(f, limit)
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

// withoutPath is the reason alone: a fault of a file names it already.
func withoutPath(err error) error {
	if named := (*fs.PathError)(nil); errors.As(err, &named) {
		return named.Err
	}
	return err
}
