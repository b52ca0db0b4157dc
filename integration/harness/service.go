package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	startTimeout = 30 * time.Second // of a start whose context has no deadline
	stopTimeout  = 15 * time.Second // between SIGTERM and SIGKILL
	pollInterval = 10 * time.Millisecond
)

// Service is one of the real programs: containerd, a kubelet or a horkos-node. It
// can be ended and started again, with the same files, as often as a test likes.
// Methods may be called from several goroutines, one after the other.
type Service struct {
	name  string
	log   string
	run   *Run
	argv  func() ([]string, error)    // program and arguments, asked for at each start
	env   []string                    // beside that of this process; later entries win
	probe func(context.Context) error // one look whether it serves

	mu      sync.Mutex
	process *process
}

// process is one life of a service.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process is gone
	err  error         // how it ended; to be read after done
}

// Start starts the program and waits until it serves: until the context ends, and
// for 30 s if that has no deadline. If it does not serve, or exits, the error says why and
// holds the end of its log; the program is not running then.
func (s *Service) Start(ctx context.Context) error {
	if err := s.Launch(); err != nil {
		return err
	}
	if err := s.WaitReady(ctx); err != nil {
		return errors.Join(err, s.Kill())
	}
	return nil
}

// Launch starts the program and does not wait for anything.
func (s *Service) Launch() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil && !isClosed(s.process.done) {
		return fmt.Errorf("start %s: it is running", s.name)
	}
	s.run.mu.Lock()
	closed := s.run.closed
	s.run.mu.Unlock()
	if closed {
		return fmt.Errorf("start %s: the run is closed", s.name)
	}
	argv, err := s.argv()
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = s.run.Dir
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Stdout, cmd.Stderr = log, log
	// A process group of its own keeps Ctrl-C in a terminal away from it: the program
	// that runs the harness ends it, in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if s.process, err = startProcess(cmd); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	return nil
}

// startProcess starts cmd on a thread of its own: Pdeathsig fires when the thread
// ends that started the process (prctl(2), PR_SET_PDEATHSIG).
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, <-started
}

// WaitReady waits until the program serves, as Start does, and leaves it running.
func (s *Service) WaitReady(ctx context.Context) error {
	p := s.current()
	if p == nil {
		return fmt.Errorf("wait for %s: it was never started", s.name)
	}
	ctx, cancel := withDefaultTimeout(ctx, startTimeout)
	defer cancel()
	err := Poll(ctx, s.name+" to be ready", func(ctx context.Context) error {
		if isClosed(p.done) {
			return &permanentError{fmt.Errorf("%s exited: %w", s.name, exitError(p.err))}
		}
		return s.probe(ctx)
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, s.LogTail())
	}
	return nil
}

// Ready looks once whether the program serves.
func (s *Service) Ready(ctx context.Context) error { return s.probe(ctx) }

// Stop ends the program with SIGTERM, and with SIGKILL if it does not end within
// 15 s or before the context, which is an error. What it runs lives on.
func (s *Service) Stop(ctx context.Context) error {
	p := s.current()
	if p == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", s.name, err)
	}
	ctx, cancel := withDefaultTimeout(ctx, stopTimeout)
	defer cancel()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("stop %s: %w", s.name, ctx.Err()), s.Kill())
	}
}

// Kill ends the program with SIGKILL and waits until it is gone. What it runs lives on.
func (s *Service) Kill() error {
	p := s.current()
	if p == nil {
		return nil
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", s.name, err)
	}
	<-p.done // no signal can be caught: it ends
	return nil
}

// Restart is Stop and Start.
func (s *Service) Restart(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Signal sends a signal to the program, such as SIGSTOP to make it hang.
func (s *Service) Signal(signal os.Signal) error {
	p := s.current()
	if p == nil {
		return fmt.Errorf("signal %s: it was never started", s.name)
	}
	if err := p.cmd.Process.Signal(signal); err != nil {
		return fmt.Errorf("signal %s: %w", s.name, err)
	}
	return nil
}

// PID is the process id of the latest start, and 0 before the first.
func (s *Service) PID() int {
	if p := s.current(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

// Exited is closed when the program of the latest start is gone; it is nil before the
// first start.
func (s *Service) Exited() <-chan struct{} {
	if p := s.current(); p != nil {
		return p.done
	}
	return nil
}

// ExitCode waits for the program to end by itself and returns its exit code, which
// is -1 when a signal ended it.
func (s *Service) ExitCode(ctx context.Context) (int, error) {
	p := s.current()
	if p == nil {
		return 0, fmt.Errorf("wait for %s: it was never started", s.name)
	}
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for %s to exit: %w", s.name, ctx.Err())
	}
}

// LogFile is where the output of all starts goes.
func (s *Service) LogFile() string { return s.log }

// Log is the output of all starts.
func (s *Service) Log() (string, error) {
	content, err := os.ReadFile(s.log)
	if err != nil {
		return "", fmt.Errorf("read the log of %s: %w", s.name, err)
	}
	return string(content), nil
}

// LogTail is the end of the output, for a person: at most 40 lines.
func (s *Service) LogTail() string {
	content, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	if len(lines) > 40 {
		lines = lines[len(lines)-40:]
	}
	return fmt.Sprintf("the end of the log of %s:\n%s", s.name, bytes.Join(lines, []byte("\n")))
}

func (s *Service) current() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

// permanentError ends a Poll early.
type permanentError struct{ error }

func (e *permanentError) Unwrap() error { return e.error }

// Poll calls probe, at most 100 times a second, until it returns nil or the context ends. The
// error then names what was waited for and the last answer of the probe.
func Poll(ctx context.Context, what string, probe func(context.Context) error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	var last error
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err // that the context ended says nothing
		}
		var permanent *permanentError
		if errors.As(err, &permanent) {
			return fmt.Errorf("wait for %s: %w", what, permanent.error)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (last: %w)", what, ctx.Err(), last)
		case <-ticker.C:
		}
	}
}

func withDefaultTimeout(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
