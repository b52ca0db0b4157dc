package webhook

import (
	"net"
	"sync"
)

// shares counts what is in use, in all and by the address that uses it. No address has more than
// it leaves to others, so that two or three cannot take all; each that comes leaves half of what
// it found, and some ten together leave nothing. Against so many, only a network that lets none
// but API servers in helps.
type shares struct {
	all, each int64 // limits

	mu    sync.Mutex
	total int64
	of    map[string]int64
}

func newShares(all, each int64) *shares {
	return &shares{all: all, each: each, of: make(map[string]int64)}
}

func (s *shares) take(address string, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own := s.of[address] + n; n > 0 && (own > s.each || own > s.all-s.total-n) {
		return false
	}
	s.total += n
	s.of[address] += n
	return true
}

func (s *shares) give(address string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total -= n
	if s.of[address] -= n; s.of[address] == 0 {
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
		if l.open.take(host, 1) {
			l.metrics.connections.Inc()
			return &conn{Conn: c, release: sync.OnceFunc(func() {
				l.open.give(host, 1)
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
