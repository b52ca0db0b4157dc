package harness

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Tap stands between containerd and its NRI plugins: it passes everything on, and notes
// how long each request of containerd waited for its answer.
type Tap struct {
	Socket string // for plugins, in place of containerd's

	mu   sync.Mutex
	took map[string][]time.Duration // by method
}

// Tap makes a Tap, which serves until the run ends.
func (c *Containerd) Tap() (*Tap, error) {
	t := &Tap{Socket: filepath.Join(c.Dir, "tap.sock"), took: make(map[string][]time.Duration)}
	listener, err := net.Listen("unix", t.Socket)
	if err != nil {
		return nil, fmt.Errorf("tap NRI: %w", err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			plugin, err := listener.Accept()
			if err != nil {
				return
			}
			served.Go(func() { t.serve(plugin, c.NRISocket) })
		}
	})
	c.run.onClose(func() error {
		err := listener.Close()
		served.Wait() // both ends are gone: services are ended first
		return err
	})
	return t, nil
}

// Took are the times from request to answer since the last Took, by method.
func (t *Tap) Took() map[string][]time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	took := t.took
	t.took = make(map[string][]time.Duration)
	return took
}

// serve passes on one connection until either end closes it.
func (t *Tap) serve(plugin net.Conn, runtime string) {
	defer plugin.Close()
	containerd, err := net.Dial("unix", runtime)
	if err != nil {
		return
	}
	defer containerd.Close()
	asked := &asked{tap: t, since: make(map[uint32]question)}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(containerd, io.TeeReader(plugin, &frames{each: asked.answer}))
		containerd.Close()
	})
	_, _ = io.Copy(plugin, io.TeeReader(containerd, &frames{each: asked.request}))
	plugin.Close()
	back.Wait()
}

// asked are the requests of one connection that wait for their answer, by stream.
type asked struct {
	tap   *Tap
	mu    sync.Mutex
	since map[uint32]question
}

type question struct {
	method string
	at     time.Time
}

func (a *asked) request(stream uint32, body []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.since[stream] = question{methodOf(body), time.Now()}
}

func (a *asked) answer(stream uint32, _ []byte) {
	now := time.Now()
	a.mu.Lock()
	q, ok := a.since[stream]
	delete(a.since, stream)
	a.mu.Unlock()
	if ok {
		a.tap.mu.Lock()
		defer a.tap.mu.Unlock()
		a.tap.took[q.method] = append(a.tap.took[q.method], now.Sub(q.at))
	}
}

// methodOf reads the method of a ttrpc request, its field 2.
func methodOf(body []byte) string {
	for len(body) > 0 {
		field, kind, n := protowire.ConsumeTag(body)
		if n < 0 {
			return ""
		}
		body = body[n:]
		if field == 2 && kind == protowire.BytesType {
			method, _ := protowire.ConsumeString(body)
			return method
		}
		if n = protowire.ConsumeFieldValue(field, kind, body); n < 0 {
			return ""
		}
		body = body[n:]
	}
	return ""
}

// frames cuts one direction of a connection into the messages of ttrpc in which containerd
// asks and plugins answer: pieces of NRI's multiplexer (connection, length), of which those
// of connection 1 are a stream of messages (length, stream, type, flags).
type frames struct {
	each  func(stream uint32, body []byte)
	piece []byte // of the multiplexer, not whole yet
	calls []byte // of connection 1, not cut yet
}

func (f *frames) Write(p []byte) (int, error) {
	f.piece = append(f.piece, p...)
	for len(f.piece) >= 8 {
		size := int(binary.BigEndian.Uint32(f.piece[4:8]))
		if len(f.piece) < 8+size {
			break
		}
		if binary.BigEndian.Uint32(f.piece[:4]) == 1 {
			f.calls = append(f.calls, f.piece[8:8+size]...)
		}
		f.piece = f.piece[8+size:]
	}
	for len(f.calls) >= 10 {
		size := int(binary.BigEndian.Uint32(f.calls[:4]))
		if len(f.calls) < 10+size {
			break
		}
		f.each(binary.BigEndian.Uint32(f.calls[4:8]), f.calls[10:10+size])
		f.calls = f.calls[10+size:]
	}
	return len(p), nil
}
