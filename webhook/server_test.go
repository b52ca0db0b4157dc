package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// shown is a certificate that a test chooses.
type shown struct {
	certificate atomic.Pointer[tls.Certificate]
	problem     atomic.Pointer[string]
}

func (s *shown) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := s.certificate.Load(); c != nil {
		return c, nil
	}
	return nil, errors.New("none")
}

func (s *shown) Problems() []string {
	if p := s.problem.Load(); p != nil {
		return []string{*p}
	}
	return nil
}

// house is a Server that runs on the loopback interface.
type house struct {
	*testing.T
	*Server
	address, health string
	certificates    *shown
	authority       *pair
	registry        *prometheus.Registry
	end             context.CancelFunc
	ended           chan struct{}
	err             error // once it has ended
}

// echo answers with what it is sent.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })

func newHouse(t *testing.T, handler http.Handler, options ...func(*ServerOptions)) *house {
	t.Helper()
	h := &house{T: t, certificates: &shown{}, ended: make(chan struct{})}
	now := time.Now()
	var err error
	if h.authority, err = newAuthority(now.Add(-time.Hour), now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	h.show(h.authority)
	registry := prometheus.NewRegistry()
	h.registry = registry
	o := ServerOptions{Handler: handler, Certificates: h.certificates, Metrics: NewMetrics(registry), Gatherer: registry, Log: quiet(), ShutdownTimeout: 10 * time.Second}
	for _, option := range options {
		option(&o)
	}
	h.Server = NewServer(o)
	reviews, health := listen(t), listen(t)
	h.address, h.health = reviews.Addr().String(), health.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	h.end = cancel
	go func() {
		defer close(h.ended)
		h.err = h.Server.Run(ctx, reviews, health)
	}()
	t.Cleanup(func() {
		cancel()
		<-h.ended
	})
	return h
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// show shows another certificate of an authority.
func (h *house) show(of *pair) {
	h.Helper()
	p, err := of.serve([]string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}, time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
	if err != nil {
		h.Fatal(err)
	}
	h.certificates.certificate.Store(p.tls())
}

func (h *house) roots(of ...*pair) *tls.Config {
	roots := x509.NewCertPool()
	for _, p := range of {
		roots.AddCert(p.certificate)
	}
	return &tls.Config{RootCAs: roots}
}

// client is one that trusts the house's authority.
func (h *house) client(change ...func(*http.Transport)) *http.Client {
	transport := &http.Transport{TLSClientConfig: h.roots(h.authority), ForceAttemptHTTP2: true}
	for _, c := range change {
		c(transport)
	}
	h.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func http1(t *http.Transport) {
	t.ForceAttemptHTTP2, t.TLSNextProto = false, map[string]func(string, *tls.Conn) http.RoundTripper{}
}

// post sends a body and gives the status and the text of the answer.
func post(c *http.Client, address, body string) (int, string, error) {
	response, err := c.Post("https://"+address+"/x?timeout=10s", "application/json", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

func (h *house) get(path string) (int, string) {
	h.Helper()
	response, err := http.Get("http://" + h.health + path)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text)
}

// valueOf is a metric, by its name and the value of its label, if it has one.
func valueOf(t *testing.T, from prometheus.Gatherer, name, label string) int {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (len(m.GetLabel()) == 0 || m.GetLabel()[0].GetValue() == label) {
				return int(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			}
		}
	}
	t.Fatalf("no metric %s of %q", name, label)
	return 0
}

func (h *house) refused(cause string) int {
	return valueOf(h.T, h.registry, "horkos_webhook_refused_total", cause)
}

func (h *house) open() int { return valueOf(h.T, h.registry, "horkos_webhook_connections", "") }

func TestBothVersionsOfHTTPAreServedAndNoOldTLS(t *testing.T) {
	h := newHouse(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	for want, client := range map[string]*http.Client{"HTTP/2.0": h.client(), "HTTP/1.1": h.client(http1)} {
		if status, text, err := post(client, h.address, "{}"); err != nil || status != 200 || text != want {
			t.Errorf("%s: %d %q %v", want, status, text, err)
		}
	}
	for version, fits := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		config := h.roots(h.authority)
		config.MinVersion, config.MaxVersion = version, version
		c, err := tls.Dial("tcp", h.address, config)
		if (err == nil) != fits {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			c.Close()
		}
	}
}

func TestReadyIsSyncedAndACertificateIsShown(t *testing.T) {
	var syncing atomic.Bool
	h := newHouse(t, echo, func(o *ServerOptions) {
		o.Ready = func() []string {
			if syncing.Load() {
				return []string{"policies are not synced"}
			}
			return nil
		}
	})
	want := func(status int, part string) {
		t.Helper()
		if got, text := h.get("/readyz"); got != status || !strings.Contains(text, part) {
			t.Errorf("%d %q, want %d %q", got, text, status, part)
		}
	}
	want(200, "ok")
	syncing.Store(true)
	want(503, "policies are not synced")
	problem := "no certificate"
	h.certificates.problem.Store(&problem)
	want(503, "no certificate\npolicies are not synced")
	if status, text := h.get("/healthz"); status != 200 || text != "ok\n" {
		t.Errorf("%d %q", status, text)
	}
	if _, text := h.get("/metrics"); !strings.Contains(text, `horkos_webhook_refused_total{cause="memory"} 0`) {
		t.Errorf("metrics: %s", text)
	}
	for _, path := range []string{"/debug/pprof/", "/"} {
		if status, _ := h.get(path); status != 404 {
			t.Errorf("%s: %d", path, status)
		}
	}
}

func TestAPanicIsCaughtAndCountedAndNothingOfItsAnswerIsSent(t *testing.T) {
	var log bytes.Buffer
	h := newHouse(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"response":{"allowed":true}}`)
		if text, _ := io.ReadAll(r.Body); len(text) > 2 {
			panic("a secret of the request")
		}
	}), func(o *ServerOptions) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	c := h.client()
	for i := range 3 {
		if status, text, err := post(c, h.address, "panic"); err != nil || status != 500 || strings.Contains(text, "allowed") {
			t.Errorf("%d %q %v", status, text, err)
		}
		if n := valueOf(t, h.registry, "horkos_webhook_panics_total", ""); n != i+1 {
			t.Errorf("%v panics", n)
		}
	}
	if status, text, _ := post(c, h.address, "{}"); status != 200 || !strings.Contains(text, "allowed") {
		t.Errorf("afterwards %d %q", status, text)
	}
	h.end()
	<-h.ended
	if strings.Contains(log.String(), "secret") || !strings.Contains(log.String(), "server_test.go") {
		t.Errorf("log: %s", &log)
	}
}

func TestNoHandshakeFailsWhenTheCertificateChanges(t *testing.T) {
	h := newHouse(t, echo)
	later, err := newAuthority(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var done atomic.Int64
	serials := sync.Map{}
	shaken := make(chan struct{})
	for i := range 8 {
		clients.Go(func() {
			c := h.client(func(tr *http.Transport) {
				tr.TLSClientConfig = h.roots(h.authority, later)
				tr.DisableKeepAlives = i%4 != 0 // most shake hands each time
				if i%2 == 0 {
					http1(tr)
				}
				tr.TLSClientConfig.VerifyConnection = func(s tls.ConnectionState) error {
					serials.Store(s.PeerCertificates[0].SerialNumber.String(), true)
					select {
					case shaken <- struct{}{}:
					case <-ctx.Done():
					}
					return nil
				}
			})
			for ctx.Err() == nil {
				if status, text, err := post(c, h.address, "{}"); err != nil || status != 200 || text != "{}" {
					t.Errorf("%d %q %v", status, text, err)
					return
				}
				done.Add(1)
			}
		})
	}
	for i := range 20 {
		for range 20 { // the first of them may be of the certificate before
			select {
			case <-shaken:
			case <-time.After(20 * time.Second):
				t.Fatal("the clients are stuck")
			}
		}
		h.show([]*pair{h.authority, later}[i%2])
	}
	stop()
	clients.Wait()
	n := 0
	serials.Range(func(any, any) bool { n++; return true })
	t.Logf("%d requests, %d certificates seen", done.Load(), n)
	if n < 15 {
		t.Errorf("%d certificates were seen", n)
	}
}

// TestNothingIsLostWhenTheServerIsToldToEnd has clients of both versions send without a pause
// while one of two servers is told to end. New connections go to the other once
// the first is seen not to be ready, as endpoints do.
func TestNothingIsLostWhenTheServerIsToldToEnd(t *testing.T) {
	delay := func(o *ServerOptions) { o.ShutdownDelay = 1200 * time.Millisecond }
	first, second := newHouse(t, echo, delay), newHouse(t, echo)
	second.show(first.authority)
	var at atomic.Pointer[string]
	at.Store(&first.address)
	var lost, done, tail atomic.Int64
	answered := make(chan struct{})
	var clients sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for i := range 12 {
		clients.Go(func() {
			c := first.client(func(tr *http.Transport) {
				tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, network, *at.Load())
				}
				if i%2 == 0 {
					http1(tr)
				}
			})
			for n := 0; ctx.Err() == nil; n++ {
				body := fmt.Sprintf("%d-%d", i, n)
				status, text, err := post(c, "127.0.0.1", body)
				if err != nil || status != 200 || text != body {
					t.Errorf("%d %q %v", status, text, err)
					lost.Add(1)
				}
				done.Add(1)
				select {
				case answered <- struct{}{}: // if that is waited for
				default:
				}
				if *at.Load() == second.address {
					tail.Add(1)
				}
			}
		})
	}
	await := func(n int) {
		for range n {
			<-answered
		}
	}
	await(200)
	first.end()
	for began := time.Now(); ; {
		if status, text := first.get("/readyz"); status == 503 && strings.Contains(text, "told to end") {
			t.Logf("not ready after %v", time.Since(began))
			break
		}
		if time.Since(began) > 300*time.Millisecond {
			t.Fatal("it is still ready")
		}
	}
	await(50) // it goes on
	select {
	case <-first.ended:
		t.Error("it has ended at once")
	default:
	}
	at.Store(&second.address)
	<-first.ended
	await(100)
	stop()
	clients.Wait()
	if first.err != nil {
		t.Errorf("it ends with %v", first.err)
	}
	t.Logf("%d requests, %d since the endpoints left, %d lost", done.Load(), tail.Load(), lost.Load())
	if _, err := net.Dial("tcp", first.health); err == nil {
		t.Error("health is still served")
	}
}

func TestWhatIsInFlightIsAnsweredAndNoLongerThanTheLimit(t *testing.T) {
	for _, long := range []bool{false, true} {
		t.Run(fmt.Sprintf("for ever %v", long), func(t *testing.T) {
			reached, release := make(chan struct{}), make(chan struct{})
			h := newHouse(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(reached)
				<-release
				echo(w, r)
			}), func(o *ServerOptions) {
				if long {
					o.ShutdownTimeout = 500 * time.Millisecond
				}
			})
			answered := make(chan error, 1)
			go func() {
				status, text, err := post(h.client(), h.address, "late")
				if err == nil && (status != 200 || text != "late") {
					err = fmt.Errorf("%d %q", status, text)
				}
				answered <- err
			}()
			<-reached
			h.end()
			if long {
				if err := <-answered; err == nil {
					t.Error("it was answered")
				}
				<-h.ended
				if h.err == nil {
					t.Error("it ends without a word")
				}
				close(release)
				return
			}
			close(release)
			if err := <-answered; err != nil {
				t.Error(err)
			}
			if <-h.ended; h.err != nil {
				t.Error(h.err)
			}
		})
	}
}

func TestMoreRequestsThanTheLimitAreRefusedAtOnce(t *testing.T) {
	release := make(chan struct{})
	reached := make(chan struct{}, 100)
	h := newHouse(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached <- struct{}{}
		<-release
		echo(w, r)
	}), func(o *ServerOptions) { o.Limits = Limits{Requests: 20, RequestsAddress: 8} })
	var waiting sync.WaitGroup
	from := func(address string, n int) {
		c := h.client(func(tr *http.Transport) {
			tr.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext
		})
		for range n {
			waiting.Go(func() {
				if status, _, err := post(c, h.address, "{}"); err != nil || status != 200 {
					t.Errorf("one that was taken: %d %v", status, err)
				}
			})
		}
		for range n {
			<-reached
		}
	}
	over := func(address string) {
		t.Helper()
		c := h.client(http1, func(tr *http.Transport) {
			tr.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext
		})
		response, err := c.Post("https://"+h.address, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != 429 || response.Header.Get("Retry-After") != "1" {
			t.Errorf("%d %v", response.StatusCode, response.Header)
		}
	}
	from("127.0.0.2", 8)
	over("127.0.0.2") // of this address
	from("127.0.0.3", 6)
	over("127.0.0.3") // it leaves six to others
	from("127.0.0.4", 3)
	over("127.0.0.4")
	from("127.0.0.5", 1) // there is room for one who comes when three have taken what they could
	if n := h.refused(causeRequests); n != 3 {
		t.Errorf("%d refused", n)
	}
	close(release)
	waiting.Wait()
	if status, _, err := post(h.client(), h.address, "{}"); err != nil || status != 200 {
		t.Errorf("afterwards %d %v", status, err)
	}
}

func TestBodiesAreBoundedEachAndTogether(t *testing.T) {
	release := make(chan struct{})
	reached := make(chan struct{}, 100)
	h := newHouse(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			reached <- struct{}{}
			<-release
		}
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	}), func(o *ServerOptions) { o.Limits = Limits{Body: 64 << 10, Small: 1, Bytes: 600 << 10} })
	for _, change := range [][]func(*http.Transport){nil, {http1}} {
		c := h.client(change...)
		for name, body := range map[string]func(int) io.Reader{
			"announced":     func(n int) io.Reader { return bytes.NewReader(make([]byte, n)) },
			"not announced": func(n int) io.Reader { return io.MultiReader(bytes.NewReader(make([]byte, n))) },
		} {
			for n, want := range map[int]int{0: 200, 1: 200, 4 << 10: 200, 4<<10 + 1: 200, 64 << 10: 200, 64<<10 + 1: 413, 10 << 20: 413} {
				response, err := c.Post("https://"+h.address+"/", "application/json", body(n))
				if err != nil {
					if n < 1<<20 { // of a large one the end may be refused by a closed connection
						t.Errorf("%s %d: %v", name, n, err)
					}
					continue
				}
				text, _ := io.ReadAll(response.Body)
				response.Body.Close()
				if response.StatusCode != want || (want == 200 && string(text) != fmt.Sprint(n)) {
					t.Errorf("%s %d: %d %s", name, n, response.StatusCode, text)
				}
			}
		}
	}
	if n := inUse(h.bounded.bytes); n != 0 {
		t.Fatalf("%d bytes are counted when nothing is held", n)
	}
	c := h.client()
	var waiting sync.WaitGroup
	for range 4 { // while one is read, it takes half as much again
		failed := make(chan error, 1)
		waiting.Go(func() {
			response, err := c.Post("https://"+h.address+"/held", "", bytes.NewReader(make([]byte, 64<<10)))
			if err == nil && response.StatusCode != 200 {
				err = errors.New(response.Status)
			}
			if err != nil {
				failed <- err
				return
			}
			response.Body.Close()
		})
		select {
		case <-reached:
		case err := <-failed:
			t.Fatal(err)
		}
	}
	if status, text, err := post(c, h.address, strings.Repeat("x", 60<<10)); err != nil || status != 429 {
		t.Errorf("%d %q %v", status, text, err)
	}
	if status, text, err := post(c, h.address, "small"); err != nil || status != 200 {
		t.Errorf("a small one: %d %q %v", status, text, err)
	}
	close(release)
	waiting.Wait()
	if h.refused(causeMemory) != 1 || h.refused(causeTooLarge) == 0 {
		t.Errorf("%d, %d", h.refused(causeMemory), h.refused(causeTooLarge))
	}
}

// TestUsualReviewsFindRoomWhateverOthersHold: whoever sends most of a large body, and then no
// more, holds it until that is cut off.
func TestUsualReviewsFindRoomWhateverOthersHold(t *testing.T) {
	h := newHouse(t, echo, func(o *ServerOptions) { o.Limits = Limits{Body: 1 << 20, Bytes: 5 << 20} })
	part := make([]byte, 1<<20-1)
	for held := range int64(2) {
		c, err := tls.Dial("tcp", h.address, h.roots(h.authority))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 1<<20)
		if _, err := c.Write(part); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return inUse(h.bounded.bytes) >= (held+1)*(1<<20-64<<10) })
	}
	c := h.client()
	if status, _, err := post(c, h.address, strings.Repeat("x", 700<<10)); err != nil || status != http.StatusTooManyRequests {
		t.Errorf("one that is large: %d %v", status, err)
	}
	if status, text, err := post(c, h.address, strings.Repeat("x", 60<<10)); err != nil || status != http.StatusOK || len(text) != 60<<10 {
		t.Errorf("a usual one: %d %d %v", status, len(text), err)
	}
}

// TestClientsEndIdleConnections: API servers do after 90 s. A server that does may be sent a
// review that is lost.
func TestClientsEndIdleConnections(t *testing.T) {
	if idle := DefaultLimits().Idle; idle <= http.DefaultTransport.(*http.Transport).IdleConnTimeout {
		t.Errorf("the server ends them after %s", idle)
	}
}

func TestALargeHeaderIsRefused(t *testing.T) {
	h := newHouse(t, echo)
	for name, c := range map[string]*http.Client{"HTTP/2.0": h.client(), "HTTP/1.1": h.client(http1)} {
		request, _ := http.NewRequest(http.MethodPost, "https://"+h.address, strings.NewReader("{}"))
		request.Header.Set("X", strings.Repeat("x", 100<<10))
		response, err := c.Do(request)
		if err == nil {
			response.Body.Close()
			if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("%s: %d", name, response.StatusCode)
			}
		}
		if status, _, err := post(c, h.address, "{}"); err != nil || status != 200 {
			t.Errorf("%s: afterwards %d %v", name, status, err)
		}
	}
}

func TestTheHandlerIsToldHowLongTheClientWaits(t *testing.T) {
	h := newHouse(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		deadline, ok := r.Context().Deadline()
		fmt.Fprint(w, ok, " ", time.Until(deadline).Round(time.Second))
	}))
	c := h.client()
	for query, want := range map[string]string{"": "true 30s", "?timeout=7s": "true 7s", "?timeout=1h": "true 30s", "?timeout=-1s": "true 30s", "?timeout=x": "true 30s", "?timeout=0s": "true 30s"} {
		response, err := c.Post("https://"+h.address+"/"+query, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if string(text) != want {
			t.Errorf("%s: %s", query, text)
		}
	}
}

// TestThoseWhoDribbleAreCutOffAndOthersAreServed has clients that shake no hands, send half a
// header, or half a body.
func TestThoseWhoDribbleAreCutOffAndOthersAreServed(t *testing.T) {
	h := newHouse(t, echo, func(o *ServerOptions) {
		o.Limits = Limits{Handshake: 400 * time.Millisecond, Read: 600 * time.Millisecond, Idle: 800 * time.Millisecond}
	})
	var slow []net.Conn
	for i := range 60 {
		var c net.Conn
		var err error
		switch i % 4 {
		case 0: // nothing at all
			c, err = net.Dial("tcp", h.address)
		default:
			c, err = tls.Dial("tcp", h.address, h.roots(h.authority))
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		switch i % 4 {
		case 1:
			fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\n")
		case 2:
			fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nhalf")
		} // 3: no request
		slow = append(slow, c)
	}
	stop := make(chan struct{})
	var dribbling sync.WaitGroup
	dribbling.Go(func() { // and they go on
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				for i, c := range slow {
					if i%4 == 1 || i%4 == 2 {
						_, _ = c.Write([]byte("x"))
					}
				}
			}
		}
	})
	client := h.client(http1)
	began, served := time.Now(), 0
	for i, c := range slow {
		if status, _, err := post(client, h.address, "{}"); err != nil || status != 200 {
			t.Errorf("one who is quick: %d %v", status, err)
		}
		served++
		_ = c.SetReadDeadline(began.Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("client %d is not cut off", i)
		}
	}
	close(stop)
	dribbling.Wait()
	t.Logf("all cut off after %v, %d others served", time.Since(began).Round(time.Millisecond), served)
	if time.Since(began) > 3*time.Second {
		t.Error("that is long")
	}
}

func TestTenThousandConnectionsAreBoundedAndOthersAreServed(t *testing.T) {
	h := newHouse(t, echo, func(o *ServerOptions) { o.Limits = Limits{Connections: 600, ConnectionsAddress: 300} })
	flood := func(address string, n int) (open []net.Conn) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: 10 * time.Second}
		for range n {
			c, err := dialer.Dial("tcp", h.address)
			if err != nil {
				continue // a reset while it is shaken hands with
			}
			t.Cleanup(func() { c.Close() })
			open = append(open, c)
		}
		return open
	}
	began := time.Now()
	all := flood("127.0.0.2", 10_000)
	eventually(t, func() bool { return h.refused(causeConnections) >= 9700 })
	if n := h.refused(causeConnections); n != 9700 {
		t.Errorf("%d are refused, want 9700", n)
	}
	if n := h.open(); n != 300 {
		t.Errorf("%v are open, want 300", n)
	}
	if status, _, err := post(h.client(), h.address, "{}"); err != nil || status != 200 {
		t.Errorf("another address: %d %v", status, err)
	}
	t.Logf("%d connections in %v", len(all), time.Since(began).Round(time.Millisecond))
	flood("127.0.0.3", 300)
	eventually(t, func() bool { return h.refused(causeConnections) >= 9700+150 })
	if n := h.open(); n < 449 || n > 451 { // with the one that was served
		t.Errorf("%v are open, want 450: as many are left as the second has", n)
	}
	for _, c := range all {
		c.Close()
	}
	eventually(t, func() bool { return h.open() < 250 })
}

func inUse(s *shares) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// eventually looks until something is so.
func eventually(t *testing.T, so func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(20 * time.Second); !so(); <-tick.C {
		if time.Now().After(limit) {
			t.Fatal("it does not come to be")
		}
	}
}

func TestClientsAreToldToLeaveBeforeTheirConnectionsEnd(t *testing.T) {
	for version, change := range map[string][]func(*http.Transport){"HTTP/2.0": nil, "HTTP/1.1": {http1}} {
		t.Run(version, func(t *testing.T) {
			h := newHouse(t, echo, func(o *ServerOptions) { o.ShutdownDelay = 800 * time.Millisecond })
			c := h.client(change...)
			asked := make(map[bool]int) // by whether on a connection that was there
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { asked[i.Reused]++ }})
			ask := func() {
				request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+h.address, strings.NewReader("{}"))
				if err != nil {
					t.Fatal(err)
				}
				response, err := c.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
			ask()
			h.end()
			began := time.Now()
			for asked[false] < 2 { // it connects anew, and finds the server there
				ask()
			}
			if at := time.Since(began); at < 500*time.Millisecond || asked[true] == 0 {
				t.Errorf("told after %v, and %d answers", at, asked[true])
			}
		})
	}
}

func TestGivenFilesAreReadAgainWhenTheyChange(t *testing.T) {
	dir := t.TempDir()
	certificate, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	if _, err := NewFiles(certificate, key, NewMetrics(prometheus.NewRegistry()), quiet()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no files: %v", err)
	}
	now := time.Now()
	authority, err := newAuthority(now, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	write := func(certificateToo bool) *pair {
		p, err := authority.serve([]string{"x"}, nil, now, now.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		c, k, err := p.encode()
		if err != nil {
			t.Fatal(err)
		}
		if certificateToo {
			if err := os.WriteFile(certificate, append(c, encodeCertificates(authority.certificate)...), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(key, k, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := write(true)
	registry := prometheus.NewRegistry()
	f, err := NewFiles(certificate, key, NewMetrics(registry), quiet())
	if err != nil {
		t.Fatal(err)
	}
	shows := func(step string, p *pair, failing int) {
		t.Helper()
		c, err := f.GetCertificate(nil)
		if err != nil || !c.Leaf.Equal(p.certificate) || len(c.Certificate) != 2 || valueOf(t, registry, "horkos_webhook_certificate_failing", "") != failing {
			t.Errorf("%s: %v", step, err)
		}
	}
	shows("at first", first, 0)
	second := write(true)
	shows("before a look", first, 0)
	f.look()
	shows("after a change", second, 0)
	write(false)
	f.look()
	shows("a key that does not fit", second, 1)
	third := write(true)
	f.look()
	shows("both", third, 0)
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	f.look()
	shows("no key", third, 1)
}
