package objects

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/horkos/horkos/state"
)

// list stats the files of a folder that may hold objects, by name. Links are followed.
func list(dir string, owned bool) (map[string]stamp, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if owned {
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if err := state.CheckOwner(info); err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
	}
	stamps := make(map[string]stamp)
	for {
		entries, err := f.ReadDir(1000)
		for _, e := range entries {
			if !holdsObjects(e.Name()) {
				continue
			}
			if len(stamps) == MaxFolderFiles {
				return nil, fmt.Errorf("%s: more than %d files", dir, MaxFolderFiles)
			}
			if s, ok := statFile(filepath.Join(dir, e.Name())); ok {
				stamps[e.Name()] = s
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return stamps, nil
		case err != nil:
			return nil, err
		}
	}
}

// statFile stats a file; ok is false when it went away meanwhile.
func statFile(path string) (s stamp, ok bool) {
	info, err := os.Stat(path)
	if err == nil {
		return stampOf(info), true
	}
	if _, linkErr := os.Lstat(path); errors.Is(linkErr, fs.ErrNotExist) {
		return stamp{}, false
	}
	return stamp{fault: err.Error()}, true // a link to nothing, for one
}

// holdsObjects tells by its name whether a file is one of manifests. Hidden ones are not:
// editors, package managers and ConfigMap volumes keep their own things there.
func holdsObjects(name string) bool {
	if strings.HasPrefix(name, ".") {
		return false
	}
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}
