package audit

import (
	"os"
	"syscall"
)

// openNoFollow keeps a symbolic link that is put in the way of a new file from being written through.
const openNoFollow = syscall.O_NOFOLLOW

// keepSize is FALLOC_FL_KEEP_SIZE: the space is the file's, and the file is not longer.
const keepSize = 1

// reserveSpace has the space of the whole file set aside for it.
func reserveSpace(f file, size int64) error {
	disk, ok := f.(*os.File)
	if !ok {
		return nil
	}
	return syscall.Fallocate(int(disk.Fd()), keepSize, 0, size)
}
