// Package webtest is a web server of attestations for tests, which on command is slow,
// hangs, lies or breaks. It is real HTTP on a port of 127.0.0.1, so that a daemon in
// another process can be run against it.
package webtest

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/horkos/horkos/verifier/image"
)

// Server is a web server. What it was given with Put it serves, until Do says otherwise.
// It is safe for concurrent use.
type Server struct {
	t       testing.TB
	address string
	tls     *tls.Config // nil for plain HTTP
	ca      []byte

	mu       sync.Mutex
	files    map[string][]byte
	does     Behaviour
	seen     map[string]int
	last     http.Header
	released chan struct{} // closed by Release
	life     *life         // nil while it is down
}

// life is a server between Up and Down.
type life struct {
	server   *http.Server
	served   chan struct{} // closed when it accepts no more
	ended    chan struct{} // closed when it is to end
	handlers sync.WaitGroup
}

// New starts a server of plain HTTP, which ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	return start(t, nil, nil)
}

// NewTLS starts a server of HTTPS. Its certificate is for 127.0.0.1 and its own authority, CA.
func NewTLS(t testing.TB) *Server {
	t.Helper()
	config, ca, err := certificate()
	if err != nil {
		t.Fatal(err)
	}
	return start(t, config, ca)
}

func start(t testing.TB, config *tls.Config, ca []byte) *Server {
	t.Helper()
	s := &Server{t: t, address: "127.0.0.1:0", tls: config, ca: ca, files: make(map[string][]byte)}
	s.seen, s.released, s.does = make(map[string]int), make(chan struct{}), Honest()
	s.Up()
	t.Cleanup(s.Close)
	return s
}

// URL is what a source is configured with.
func (s *Server) URL() string {
	if s.tls != nil {
		return "https://" + s.address
	}
	return "http://" + s.address
}

// CA is the authority of the server's certificate, in PEM; nil for plain HTTP.
func (s *Server) CA() []byte { return s.ca }

// Put has the server hold a file about a digest, in place of the one it held.
func (s *Server) Put(digest image.Digest, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[fileName(digest)] = body
}

// Remove has the server hold nothing about a digest.
func (s *Server) Remove(digest image.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, fileName(digest))
}

func fileName(digest image.Digest) string {
	return strings.Replace(string(digest), ":", "-", 1) + ".json"
}

// Do says what is done with each request from now on. Those that wait go on waiting.
func (s *Server) Do(b Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.does = b
}

// Release lets all go on that hangs, and nothing hang that is told to until Hold.
func (s *Server) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.released:
	default:
		close(s.released)
	}
}

// Hold takes Release back for requests to come.
func (s *Server) Hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.released = make(chan struct{})
}

// Requests is how many were made, over all lives of the server.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, of := range s.seen {
		n += of
	}
	return n
}

// RequestsOf is how many were made about a digest.
func (s *Server) RequestsOf(digest image.Digest) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[fileName(digest)]
}

// Header is that of the last request.
func (s *Server) Header() http.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// Up starts the server, on the address it had before. It does nothing when it is up.
func (s *Server) Up() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life != nil {
		return
	}
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		s.t.Fatalf("start the web server: %v", err)
	}
	s.address = listener.Addr().String()
	l := &life{served: make(chan struct{}), ended: make(chan struct{})}
	l.server = &http.Server{
		Handler:   s.handler(l),
		TLSConfig: s.tls,
		ErrorLog:  log.New(io.Discard, "", 0), // of handshakes that tests make fail
	}
	s.life = l
	go func() {
		defer close(l.served)
		if s.tls != nil {
			_ = l.server.ServeTLS(listener, "", "")
		} else {
			_ = l.server.Serve(listener)
		}
	}()
}

// Down has the server go away: its connections are cut, new ones are refused, and what
// hangs ends. It returns when all of it has.
func (s *Server) Down() {
	s.mu.Lock()
	l := s.life
	s.life = nil
	if l != nil {
		close(l.ended) // no handler begins after it
	}
	s.mu.Unlock()
	if l == nil {
		return
	}
	l.server.Close()
	<-l.served
	l.handlers.Wait()
}

// Close ends the server and all that hangs.
func (s *Server) Close() { s.Down() }

func (s *Server) handler(l *life) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := path.Base(r.URL.Path)
		s.mu.Lock()
		select {
		case <-l.ended:
			s.mu.Unlock()
			return
		default:
		}
		l.handlers.Add(1)
		s.seen[name]++
		s.last = r.Header.Clone()
		does := s.does
		x := &Exchange{W: w, R: r, body: s.files[name], released: s.released, ended: l.ended}
		s.mu.Unlock()
		defer l.handlers.Done()
		does(x)
	})
}

// Exchange is a request that is being answered.
type Exchange struct {
	W http.ResponseWriter
	R *http.Request

	body            []byte
	released, ended <-chan struct{}
}

// Body is what the server holds about what is asked; nil when it holds nothing.
func (x *Exchange) Body() []byte { return x.body }

// wait waits until a channel is ready; false when the client or the server went meanwhile.
func wait[T any](x *Exchange, c <-chan T) bool {
	select {
	case <-c:
		return true
	case <-x.R.Context().Done():
	case <-x.ended:
	}
	return false
}

// Object is an ImageAttestation of an image in JSON, with n attestations whose signatures
// are garbage; a List of several when one cannot hold so many.
func Object(id image.Identity, n int) []byte {
	payload := payloadOf(id)
	var objects []string
	for first := 0; first < n; first += perObject {
		var entries []string
		for i := first; i < min(n, first+perObject); i++ {
			entries = append(entries, fmt.Sprintf(
				`{"resourceUri":%q,"attestation":{"serializedPayload":%q,"signatures":[{"signature":"AAAA","publicKeyId":"key-%d"}]}}`,
				id.String(), payload, i))
		}
		objects = append(objects, fmt.Sprintf(`{"apiVersion":"horkos.dev/v1alpha1","kind":"ImageAttestation","metadata":{"name":%q},"spec":{"attestations":[%s]}}`,
			strings.Replace(string(id.Digest), ":", "-", 1), strings.Join(entries, ",")))
	}
	if len(objects) == 1 {
		return []byte(objects[0])
	}
	return []byte(`{"apiVersion":"v1","kind":"List","items":[` + strings.Join(objects, ",") + `]}`)
}
