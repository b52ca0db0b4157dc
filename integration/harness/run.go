package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Run is a temporary folder with everything that runs in it.
type Run struct {
	// Dir is the folder: short, since the path of a unix socket holds 107 bytes, and
	// of root alone. A caller may keep its own files in it; they go with it.
	Dir string

	root string   // of the checkout, which holds bin
	lock *os.File // held while the run lives, so that another one can tell

	mu       sync.Mutex
	services []*Service
	closers  []func() error
	counts   map[string]int
	closed   bool
}

// NewRun makes the folder of a run, and removes what runs that were killed left
// behind. It needs what [Check] checks. The caller must Close it.
func NewRun() (*Run, error) {
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	if err := sweep(); err != nil {
		return nil, fmt.Errorf("remove what earlier runs left behind: %w", err)
	}
	dir, err := os.MkdirTemp(baseDir(), "hk")
	if err != nil {
		return nil, fmt.Errorf("make the folder of the run: %w", err)
	}
	lock, err := lockRun(dir)
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("lock the folder of the run: %w", err)
	}
	return &Run{Dir: dir, root: root, lock: lock, counts: make(map[string]int)}, nil
}

// Close ends everything in the run and removes every trace of it: processes and
// containers without grace, mounts, cgroups, changed kernel settings, the folder. It
// returns an error if something is left. Closing twice does nothing.
func (r *Run) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	services, closers := r.services, r.closers
	r.mu.Unlock()

	var errs []error
	for i := len(services) - 1; i >= 0; i-- {
		errs = append(errs, services[i].Kill())
	}
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i]())
	}
	errs = append(errs, clean(r.Dir), r.lock.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up %s: %w", r.Dir, err)
	}
	return nil
}

// Program runs body in a new run, for a program rather than a test: it needs containerd,
// runc and the images' program, and no more. SIGINT, SIGTERM
// and SIGHUP end the context of body; however body ends, the run is closed before
// Program returns. The errors of both are joined.
func Program(body func(ctx context.Context, run *Run) error) error {
	return program(func() error { return check(basicTools) }, body)
}

func program(check func() error, body func(ctx context.Context, run *Run) error) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := check(); err != nil {
		return err
	}
	run, err := NewRun()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	return body(ctx, run)
}

// Program is the path of a program of the project.
func (r *Run) Program(name string) string { return filepath.Join(r.root, "bin", name) }

// tool is the path of a program that make built: "kubelet", "containerd-2.2/ctr".
func (r *Run) tool(name string) string { return filepath.Join(r.root, "bin", "tools", name) }

// folder makes a folder in the run that nothing else uses, kind and a number.
func (r *Run) folder(kind string) (string, error) {
	r.mu.Lock()
	r.counts[kind]++
	n := r.counts[kind]
	r.mu.Unlock()
	dir := filepath.Join(r.Dir, kind+strconv.Itoa(n))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("make a folder for %s: %w", kind, err)
	}
	return dir, nil
}

// own makes Close end the service; one started later is ended earlier.
func (r *Run) own(s *Service) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.services = append(r.services, s)
}

func (r *Run) onClose(f func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closers = append(r.closers, f)
}

// baseDir is where runs live: the usual folder unless sockets in it would have
// paths that are too long.
func baseDir() string {
	if dir := os.TempDir(); len(dir) <= 16 {
		return dir
	}
	return "/tmp"
}

// lockRun makes the file lock in dir, locked, with the process id in it. It comes
// into being under its name only when it is locked: one that can be locked is of a
// run whose program is gone.
func lockRun(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(file, "%d\n", os.Getpid())
	if err == nil {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}
