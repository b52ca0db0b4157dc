// Package state is the state folder of the daemon: what must last over a restart. One
// process owns it, its files are written whole, and nobody but root can have written them.
package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Version is that of the folder as a whole. What is sealed has a version of its own.
const Version = "1"

// Files of the folder that are this package's.
const (
	lockName    = "lock"    // held by the owner; its pid is in it
	versionName = "version" // Version and a newline
)

// retry is how often a process that waits for the folder tries to take it.
const retry = 50 * time.Millisecond

// Lock is the ownership of a state folder. It goes with the process, however that ends.
type Lock struct {
	dir  string
	file *os.File
}

// Own makes the folder, with mode 0700, and takes it for this process: two daemons would
// overwrite what the other keeps. While another process has it, Own tries again until
// wait is over or the context ends. waiting, which may be nil, is called once before that: the
// successor can read there what it will need, as long as it writes nothing.
func Own(ctx context.Context, dir string, wait time.Duration, waiting func()) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	if err := CheckFolder(dir); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state folder: %w", err)
	}
	if err := take(ctx, f, wait, waiting); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the state folder %s: %w", dir, err)
	}
	// For whoever finds the folder taken. Without it they are told less, on a full disk, say.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt(fmt.Appendln(nil, os.Getpid()), 0)
	}
	return &Lock{dir: dir, file: f}, nil
}

func take(ctx context.Context, f *os.File, wait time.Duration, waiting func()) error {
	over := time.NewTimer(wait)
	defer over.Stop()
	again := time.NewTicker(retry)
	defer again.Stop()
	for first := true; ; first = false {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if wait <= 0 {
			return taken(f)
		}
		if first && waiting != nil {
			waiting()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", taken(f), ctx.Err())
		case <-over.C:
			return taken(f)
		case <-again.C:
		}
	}
}

// taken names the owner, where it has written who it is.
func taken(f *os.File) error {
	text := make([]byte, 20)
	n, _ := f.ReadAt(text, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err != nil {
		return errors.New("another horkos-node uses it")
	}
	return fmt.Errorf("another horkos-node uses it (pid %d)", pid)
}

// Close gives the folder up.
func (l *Lock) Close() error { return l.file.Close() }

// Adopt makes the folder one of this Version. Where it is of another, what can be told
// apart by nothing else, files and folders of these names, is moved aside into a subfolder,
// in the place of what was moved there before; aside then says so, for the log.
//
// Names must be of what the daemon can do without. A file that says its own version
// stays: moved aside it would be one that never was, and absence is no permission.
func (l *Lock) Adopt(names ...string) (aside string, err error) {
	path := filepath.Join(l.dir, versionName)
	text, err := ReadOwned(path, 100)
	switch {
	case err == nil && strings.TrimSpace(string(text)) == Version:
		return "", nil
	case err == nil:
		aside, err = l.moveAside(strings.TrimSpace(string(text)), names)
	case !errors.Is(err, fs.ErrNotExist):
		aside, err = l.moveAside("unreadable", names)
	default:
		err = nil
	}
	if err == nil {
		err = Replace(l.dir, versionName, []byte(Version+"\n"))
	}
	if err != nil {
		return aside, fmt.Errorf("give the state folder its version: %w", err)
	}
	return aside, nil
}

func (l *Lock) moveAside(version string, names []string) (string, error) {
	aside := filepath.Join(l.dir, "aside-"+sanitised(version))
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return "", err
	}
	var moved []string
	for _, name := range names {
		from, to := filepath.Join(l.dir, name), filepath.Join(aside, name)
		if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := errors.Join(os.RemoveAll(to), os.Rename(from, to)); err != nil {
			return "", err
		}
		moved = append(moved, name)
	}
	what := "nothing of it had to be"
	if len(moved) > 0 {
		what = strings.Join(moved, ", ")
	}
	return fmt.Sprintf("the state folder is of the unknown version %.40q, not %s: moved aside into %s: %s", version, Version, aside, what), nil
}

// sanitised makes a name of what may be anything.
func sanitised(version string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case '0' <= r && r <= '9', 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', r == '.', r == '_':
			return r
		}
		return '-'
	}, version)
	if name == "" {
		return "empty"
	}
	return name[:min(len(name), 32)]
}
