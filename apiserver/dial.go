package apiserver

import (
	"net"
	"time"
)

const (
	// dialTimeout bounds the making of a connection; client-go bounds the TLS handshake, by 10 s.
	dialTimeout = 10 * time.Second
	// A connection is dead when for so long nothing of what was sent was acknowledged. On one
	// where nothing is said, such as that of a watch, the kernel asks, so that this holds for
	// it too; left alone the kernel takes 15 minutes to find out, or for ever.
	deadAfter = 15 * time.Second
	askAfter  = 10 * time.Second
	askEvery  = 5 * time.Second
)

func defaultDialer() *net.Dialer { return newDialer(askAfter, askEvery, deadAfter) }

func newDialer(askAfter, askEvery, deadAfter time.Duration) *net.Dialer {
	return &net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: askAfter, Interval: askEvery, Count: max(1, int(deadAfter/askEvery))},
		Control:         endAfter(deadAfter),
	}
}
