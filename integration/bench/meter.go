package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// wire counts what goes over the connections of nodes, TLS included.
type wire struct{ received, sent atomic.Int64 }

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &counted{conn, w}, nil
}

type counted struct {
	net.Conn
	wire *wire
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.wire.received.Add(int64(n))
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.wire.sent.Add(int64(n))
	return n, err
}

// used is what was used up to a moment, or between two.
type used struct {
	wall                time.Duration // since the start
	server, etcd, bench time.Duration // of processors
	received, sent      int64         // bytes, by nodes
	life                int           // process id of the API server
}

func (s *scale) used() used {
	u := used{wall: time.Since(s.began), received: s.wire.received.Load(), sent: s.wire.sent.Load(), life: s.control.APIServer.PID()}
	u.server, u.etcd = processor(s.control.APIServer.PID()), processor(s.control.Etcd.PID())
	var self unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &self) == nil {
		u.bench = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	}
	return u
}

// since is what was used since an earlier moment. An API server that was started in between
// has used all it has since then.
func (s *scale) since(before used) used {
	now := s.used()
	if now.life != before.life {
		before.server = 0
	}
	return used{
		wall: now.wall - before.wall, server: now.server - before.server, etcd: now.etcd - before.etcd, bench: now.bench - before.bench,
		received: now.received - before.received, sent: now.sent - before.sent,
	}
}

// processor is the time of processors that a process has used (proc(5), /proc/pid/stat).
func processor(id int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int
	for _, field := range fields[11:13] { // utime and stime
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// resident is the resident memory of the API server, in MB.
func (s *scale) resident() int {
	n, err := s.control.APIServer.Resident()
	if err != nil {
		return 0
	}
	return n >> 20
}

// peak is the most memory that the API server had resident, VmHWM of proc(5), in MB.
func (s *scale) peak() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.control.APIServer.PID()))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	var kib int
	if _, err := fmt.Sscan(after, &kib); err != nil {
		return 0
	}
	return kib >> 10
}

// spread of some durations.
func spread(all []time.Duration) string {
	if len(all) == 0 {
		return "none"
	}
	slices.Sort(all)
	at := func(share float64) time.Duration {
		return all[min(len(all)-1, int(math.Ceil(share*float64(len(all))))-1)].Round(time.Millisecond)
	}
	return fmt.Sprintf("p50 %v, p90 %v, p99 %v, last %v", at(0.5), at(0.9), at(0.99), at(1))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func kilobytes(n int64) string { return fmt.Sprintf("%.1f kB", float64(n)/1000) }
