package apiserver

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// asked is a server that a daemon asks, and what it is called with.
type asked struct {
	*Server
	began chan string // the host that do was called with
	ended chan struct{}
	log   *strings.Builder
}

// run begins a Server on a kubeconfig in a folder; it ends with the context.
func run(ctx context.Context, t *testing.T, dir string, owned bool) (asked, <-chan error) {
	t.Helper()
	a := asked{began: make(chan string, 9), ended: make(chan struct{}, 9), log: &strings.Builder{}}
	a.Server = NewServer(Options{Kubeconfig: dir + "/kubeconfig", Owned: owned}, slog.New(slog.NewTextHandler(a.log, nil)))
	done := make(chan error, 1)
	go func() {
		done <- a.Run(ctx, func(ctx context.Context, c Clients) error {
			a.began <- c.base.Host
			<-ctx.Done()
			a.ended <- struct{}{}
			return ctx.Err()
		})
	}()
	return a, done
}

func (a asked) host() string {
	c, err := a.Clients()
	if err != nil {
		return ""
	}
	return c.base.Host
}

func TestADaemonWaitsForItsKubeconfig(t *testing.T) {
	w := newWorld(t, whoAmI)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		a, done := run(ctx, t, dir, false)
		if _, _, err := a.Get(ctx, "/", 100); !errors.Is(err, ErrNotConnected) {
			t.Errorf("an answer without a kubeconfig: %v", err)
		}
		time.Sleep(time.Minute)
		if _, err := a.Clients(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("why there are no clients: %v", err)
		}
		put(t, dir+"/kubeconfig", "half a")
		time.Sleep(time.Minute)
		if _, err := a.Clients(); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("why there are no clients: %v", err)
		}
		w.kubeconfig(t, dir, m{})
		began := time.Now()
		host := <-a.began
		if took := time.Since(began); host != w.Listener.Addr().String() || a.host() != host || took > 3*maxWait/2 {
			t.Errorf("connected to %s after %v", host, took)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it ends with %v", err)
		}
		if n := strings.Count(a.log.String(), "level=WARN"); n != 2 {
			t.Errorf("%d warnings, want one for each reason:\n%s", n, a.log)
		}
		if a.host() != "" {
			t.Error("there are clients after the end")
		}
	})
}

func TestWhatIsDoneEndsBeforeItBeginsUnderAnotherServer(t *testing.T) {
	first, second := newWorld(t, whoAmI), newWorld(t, whoAmI)
	dir := t.TempDir()
	first.kubeconfig(t, dir, m{})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		a, done := run(ctx, t, dir, false)
		<-a.began
		first.kubeconfig(t, dir, m{}) // the same again
		time.Sleep(time.Hour)
		if len(a.ended) > 0 {
			t.Fatal("it ended, and nothing has changed")
		}
		second.kubeconfig(t, dir, m{})
		began := time.Now()
		host := <-a.began
		if took := time.Since(began); took > rereadEvery || len(a.ended) != 1 || host != second.Listener.Addr().String() || a.host() != host {
			t.Errorf("connected to %s after %v", host, took)
		}
		<-a.ended
		second.kubeconfig(t, dir, m{"token": "another"})
		<-a.ended
		<-a.began
		// Only the authority.
		writeKubeconfig(t, dir, m{"server": second.URL, "certificate-authority-data": first.ca}, m{"token": "another"})
		<-a.ended
		<-a.began
		cancel()
		<-done
	})
}

func TestAKubeconfigThatCannotBeReadAnyMoreChangesNothing(t *testing.T) {
	w := newWorld(t, whoAmI)
	dir := t.TempDir()
	w.kubeconfig(t, dir, m{})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		a, done := run(ctx, t, dir, false)
		<-a.began
		must(t, os.Remove(dir+"/kubeconfig"))
		time.Sleep(time.Hour)
		put(t, dir+"/kubeconfig", "half a")
		time.Sleep(time.Hour)
		w.kubeconfig(t, dir, m{})
		time.Sleep(time.Hour)
		if len(a.ended) > 0 || a.host() == "" {
			t.Error("the connection has ended")
		}
		if n := strings.Count(a.log.String(), "level=WARN"); n != 2 {
			t.Errorf("%d warnings, want one for each reason:\n%s", n, a.log)
		}
		cancel()
		<-done
	})
}

func TestAKubeconfigThatOthersMayWriteEndsTheConnection(t *testing.T) {
	asRoot(t)
	w := newWorld(t, whoAmI)
	dir := t.TempDir()
	path := w.kubeconfig(t, dir, m{})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		a, done := run(ctx, t, dir, true)
		<-a.began
		must(t, os.Chmod(path, 0o666))
		<-a.ended
		time.Sleep(time.Hour)
		if len(a.began) > 0 || a.host() != "" {
			t.Error("it is believed again")
		}
		must(t, os.Chmod(path, 0o600))
		<-a.began
		cancel()
		<-done
	})
}

func TestWhatEndsByItselfEndsTheServer(t *testing.T) {
	w := newWorld(t, whoAmI)
	dir := t.TempDir()
	w.kubeconfig(t, dir, m{})
	want := errors.New("enough")
	s := NewServer(Options{Kubeconfig: dir + "/kubeconfig"}, slog.New(slog.DiscardHandler))
	if err := s.Run(t.Context(), func(context.Context, Clients) error { return want }); !errors.Is(err, want) {
		t.Errorf("it ended with %v", err)
	}
}
