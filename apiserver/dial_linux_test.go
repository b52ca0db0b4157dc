package apiserver

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cut has the kernel drop all that arrives at a connection, unacknowledged, as a network does
// that has gone: the other end is told nothing.
func cut(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	must(t, err)
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	must(t, raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
	}))
	must(t, err)
}

// TestAConnectionThatWasCutWithoutAWordIsNoticed: one on which a watch waits, and one on
// which a question is asked. The times are a fifth of those that are used,
// with which it takes 15 s.
func TestAConnectionThatWasCutWithoutAWordIsNoticed(t *testing.T) {
	for name, more := range map[string]bool{"nothing is said": false, "a question is asked": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			arrived := make(chan struct{}, 2)
			w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
				w.(http.Flusher).Flush()
				arrived <- struct{}{}
				<-r.Context().Done()
			})
			conns := make(chan net.Conn, 8)
			config := w.behind(t, func(c net.Conn) net.Conn { conns <- c; return c })
			config.Dial = newDialer(2*time.Second, time.Second, 3*time.Second).DialContext
			c, err := Connect(config)
			must(t, err)
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), long)
			defer cancel()
			failed := make(chan error, 2)
			ask := func() { _, _, err := c.Get(ctx, "/watch", 100); failed <- err }
			go ask()
			<-arrived
			began := time.Now()
			cut(t, <-conns)
			if more {
				go ask()
			}
			err = <-failed
			if took := time.Since(began); err == nil || took > 10*time.Second {
				t.Errorf("noticed after %v: %v", took, err)
			} else {
				t.Logf("noticed after %v: %v", took.Round(time.Millisecond), err)
			}
		})
	}
}

func TestAConnectionHasTheTimesThatAreSaid(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	config, _, err := (&Options{Kubeconfig: writeKubeconfig(t, t.TempDir(), m{"server": "https://127.0.0.1:1"}, m{})}).read()
	must(t, err)
	c, err := config.Dial(t.Context(), "tcp", listener.Addr().String())
	must(t, err)
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	must(t, err)
	for option, want := range map[int]int{unix.TCP_USER_TIMEOUT: 15000, unix.TCP_KEEPIDLE: 10, unix.TCP_KEEPINTVL: 5, unix.TCP_KEEPCNT: 3} {
		var got int
		must(t, raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option) }))
		if err != nil || got != want {
			t.Errorf("option %d is %d, %v, want %d", option, got, err, want)
		}
	}
}
