package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Certificates gives the certificate that is shown.
type Certificates interface {
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Problems() []string // why the server is not ready; none when it is
}

// Limits bound what clients can take of a server. Of what there is at once, an address has at
// most half. What is zero is as in DefaultLimits.
type Limits struct {
	Connections        int // at once
	ConnectionsAddress int // of these, of one address
	Requests           int // at once, read or answered
	RequestsAddress    int
	Body               int   // bytes of one
	Small              int   // bytes of each that are not counted in Bytes, but bounded by Requests
	Bytes              int64 // of all bodies at once
	Header             int   // bytes

	Handshake time.Duration // of TLS, and of the header of a request
	Read      time.Duration // of a whole request
	Handling  time.Duration // of a whole request by the handler
	Idle      time.Duration // of a connection without a request
}

// DefaultLimits fit API servers of a large cluster. An object has at most 3 MiB there, and a
// review holds up to two; nearly all have less than 64 KiB. Idle is longer than the 90 s after
// which API servers give a connection up: who ends it must not be the one to whom a request may be
// on its way.
func DefaultLimits() Limits {
	return Limits{
		Connections: 1024, ConnectionsAddress: 384,
		Requests: 512, RequestsAddress: 256,
		Body: 8 << 20, Small: 64 << 10, Bytes: 24 << 20, Header: 16 << 10,
		Handshake: 5 * time.Second, Read: 10 * time.Second, Handling: 30 * time.Second, Idle: 2 * time.Minute,
	}
}

func or[T comparable](given, standard T) T {
	var zero T
	if given == zero {
		return standard
	}
	return given
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	return Limits{
		Connections: or(l.Connections, d.Connections), ConnectionsAddress: or(l.ConnectionsAddress, d.ConnectionsAddress),
		Requests: or(l.Requests, d.Requests), RequestsAddress: or(l.RequestsAddress, d.RequestsAddress),
		Body: or(l.Body, d.Body), Small: or(l.Small, d.Small), Bytes: or(l.Bytes, d.Bytes), Header: or(l.Header, d.Header),
		Handshake: or(l.Handshake, d.Handshake), Read: or(l.Read, d.Read), Handling: or(l.Handling, d.Handling), Idle: or(l.Idle, d.Idle),
	}
}

// ServerOptions are what a Server works with.
type ServerOptions struct {
	Handler      http.Handler // its context has a deadline, and bodies it is given are read
	Certificates Certificates
	Clients      *Clients        // who may ask; nil: anybody
	Ready        func() []string // why the handler is not ready; none when it is
	Limits       Limits

	ShutdownDelay   time.Duration // how long it goes on when it is told to end
	ShutdownTimeout time.Duration // how long it then waits for what is in flight; zero: a minute

	Metrics  *Metrics
	Gatherer prometheus.Gatherer // for /metrics
	Log      *slog.Logger
}

// Server serves a handler to API servers.
type Server struct {
	options ServerOptions
	bounded *bounded
	ending  atomic.Bool
}

// NewServer makes a server.
func NewServer(o ServerOptions) *Server {
	o.Limits = o.Limits.withDefaults()
	o.ShutdownTimeout = or(o.ShutdownTimeout, time.Minute)
	if o.Ready == nil {
		o.Ready = func() []string { return nil }
	}
	return &Server{options: o, bounded: &bounded{handler: o.Handler, limits: o.Limits, metrics: o.Metrics, log: o.Log,
		bytes:    newShares(o.Limits.Bytes, o.Limits.Bytes),
		requests: newShares(int64(o.Limits.Requests), int64(o.Limits.RequestsAddress))}}
}

// Run serves reviews, and health without TLS (nil: not at all), until the context ends and what
// is in flight then is answered. At the end of the context it is not ready at once, and goes on
// for ShutdownDelay, so that whoever sends requests here has heard of it before they are not
// taken any more. What the handler and the certificates need must go on until Run returns.
// Both listeners are closed.
func (s *Server) Run(ctx context.Context, reviews, health net.Listener) error {
	defer reviews.Close()
	watched := make(chan error, 1)
	serving, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	if health == nil {
		watched <- nil
	} else {
		go func() {
			err := s.serveHealth(serving, health)
			if err != nil {
				stop(err)
			}
			watched <- err
		}()
	}
	err := s.serve(ctx, serving, reviews)
	stop(nil)
	return errors.Join(err, <-watched)
}

// serve serves reviews until ctx ends and what follows is over, or until serving ends.
func (s *Server) serve(ctx, serving context.Context, l net.Listener) error {
	limits := s.options.Limits
	config := &tls.Config{GetCertificate: s.options.Certificates.GetCertificate, MinVersion: tls.VersionTLS12}
	if s.options.Clients != nil {
		s.options.Clients.require(config)
	}
	server := &http.Server{
		Handler:           s.bounded,
		TLSConfig:         config,
		ReadHeaderTimeout: limits.Handshake,
		ReadTimeout:       limits.Read,
		WriteTimeout:      limits.Read + limits.Handling + 5*time.Second,
		IdleTimeout:       limits.Idle,
		MaxHeaderBytes:    limits.Header,
		ErrorLog:          slog.NewLogLogger(s.options.Log.Handler(), slog.LevelDebug), // what strangers can cause
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: min(250, limits.RequestsAddress),
			// A client that does not read or whose request is not read holds no more than this.
			MaxReceiveBufferPerConnection: 512 << 10,
			MaxReceiveBufferPerStream:     256 << 10,
			SendPingTimeout:               30 * time.Second,
			WriteByteTimeout:              limits.Read,
		},
	}
	ended := make(chan error, 1)
	go func() {
		ended <- server.ServeTLS(&listener{Listener: l, open: newShares(int64(limits.Connections), int64(limits.ConnectionsAddress)), metrics: s.options.Metrics}, "", "")
	}()
	select {
	case err := <-ended:
		_ = server.Close() // also those who are connected are to go elsewhere
		return fmt.Errorf("serve reviews: %w", err)
	case <-serving.Done():
		_ = server.Close()
		<-ended
		return nil
	case <-ctx.Done():
	}
	s.leave(serving)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.ShutdownTimeout)
	defer cancel()
	err := server.Shutdown(limit)
	if err != nil {
		_ = server.Close()
		err = fmt.Errorf("end with requests in flight: %w", err)
	}
	<-ended
	return err
}

// leave is the time in which nobody is to send new requests here any more. In its last quarter
// those who still do are told by each answer to connect anew, which leads them elsewhere; so
// no idle connection is closed just as a request is sent on it.
func (s *Server) leave(serving context.Context) {
	s.ending.Store(true)
	delay := s.options.ShutdownDelay
	s.options.Log.Info("the webhook is told to end: it is not ready any more, and goes on for a while", "delay", delay)
	for _, part := range []time.Duration{delay * 3 / 4, delay / 4} {
		wait := time.NewTimer(part)
		select {
		case <-wait.C:
		case <-serving.Done():
			wait.Stop()
			return
		}
		s.bounded.leaving.Store(true)
	}
}

// Problems are why the server is not ready; none when it is.
func (s *Server) Problems() []string {
	if s.ending.Load() {
		return []string{"it is told to end"}
	}
	return slices.Concat(s.options.Certificates.Problems(), s.options.Ready())
}

// serveHealth serves /healthz, /readyz and /metrics until the context ends.
func (s *Server) serveHealth(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if p := s.Problems(); len(p) > 0 {
			http.Error(w, strings.Join(p, "\n"), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	if s.options.Gatherer != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(s.options.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.options.Log.Handler(), slog.LevelDebug)}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = server.Shutdown(limit)
	}()
	// Apart from the metrics of reviews. The kubelet finds a place whoever else holds some.
	err := server.Serve(&listener{Listener: l, open: newShares(128, 32), metrics: NewMetrics(prometheus.NewRegistry())})
	if errors.Is(err, http.ErrServerClosed) {
		<-stopped
		return nil
	}
	return fmt.Errorf("serve health: %w", err)
}
