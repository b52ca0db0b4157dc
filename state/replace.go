package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Replace writes a file of a folder, with mode 0600, and returns when it is on disk. Either
// the old or the new one is there whatever happens, a crash of the machine too. One process
// writes a name, one call at a time.
func Replace(dir, name string, data []byte) error {
	// A fixed name leaves at most one file behind.
	temporary := filepath.Join(dir, name+".new")
	err := WriteSynced(temporary, data)
	if err == nil {
		err = os.Rename(temporary, filepath.Join(dir, name))
	}
	if err != nil {
		_ = os.Remove(temporary) // a full disk needs the room
		return err
	}
	return SyncFolder(dir)
}

// WriteSynced makes a file, with mode 0600, in the place of what was left there, and returns when
// its content is on disk; its name is when SyncFolder has returned. It is for many files at once.
func WriteSynced(path string, data []byte) (err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// SyncFolder returns when the names in a folder are on disk.
func SyncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
