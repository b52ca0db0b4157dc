package plugin

import (
	"net"
	"time"
)

// trunk is the socket under a stub. It tells what the stub does not: that the stub began
// to talk, and that the socket is gone while the stub still waits for the runtime.
type trunk struct {
	net.Conn
	used, closed mark
}

func newTrunk() *trunk { return &trunk{used: newMark(), closed: newMark()} }

// dial is the stub's dialer.
func (t *trunk) dial(path string) (net.Conn, error) {
	conn, err := net.DialTimeout("unix", path, dialTimeout)
	if err != nil {
		return nil, err
	}
	t.Conn = conn
	return t, nil
}

const dialTimeout = 5 * time.Second

// Write is that of net.Conn.
func (t *trunk) Write(b []byte) (int, error) {
	t.used.set()
	return t.Conn.Write(b)
}

// Close is that of net.Conn. The multiplexer over it closes it when it cannot be read any more.
func (t *trunk) Close() error {
	t.closed.set()
	return t.Conn.Close()
}
