package node

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// openOwned opens a regular file that belongs to root and that nobody else may write: the
// daemon believes what it says. A pipe of that name does not make it wait.
func openOwned(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = owned(path, info)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func owned(path string, info os.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case !ok || st.Uid != 0:
		return fmt.Errorf("%s does not belong to root", path)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s may be written by others than root (mode %v)", path, info.Mode().Perm())
	}
	return nil
}

func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	return data, nil
}
