package webhook

import (
	"net"
	"sync"
)

// shares counts what is in use, in all and by the address that uses it, so that no one address
// can take all there is.
type shares struct {
	all, each int // limits

	mu    sync.Mutex
	total int
	of    map[string]int
}

func newShares(all, each int) *shares { return &shares{all: all, each: each, of: make(map[string]int)} }

func (s *shares) take(address string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= s.all || s.of[address] >= s.each {
		return false
	}
	s.total++
	s.of[address]++
	return true
}

func (s *shares) give(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.of[address]--; s.of[address] == 0 {
		delete(s.of, address)
	}
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// listener gives connections up to a number. Those over it are closed at once: a client that
// is told so tries again or elsewhere, one that waits does not.
type listener struct {
	net.Listener
	open    *shares
	metrics *Metrics
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host := hostOf(c.RemoteAddr().String())
		if l.open.take(host) {
			l.metrics.connections.Inc()
			return &conn{Conn: c, release: sync.OnceFunc(func() {
				l.open.give(host)
				l.metrics.connections.Dec()
			})}, nil
		}
		l.metrics.refused.WithLabelValues(causeConnections).Inc()
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // nothing is to be kept of it
		}
		_ = c.Close()
	}
}

type conn struct {
	net.Conn
	release func()
}

func (c *conn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
