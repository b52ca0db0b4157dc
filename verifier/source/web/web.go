// Package web asks a web server for attestations that lie there as files.
//
// What is known of an image digest is at <url>/sha256-<hex>.json: its ImageAttestation,
// or several of them. 404 and 410 say that there is nothing. The attestations are signed, so
// that the server is not believed; what it can do is to hold back or to fail, and both refuse.
//
// Whatever it sends is bounded: the bytes, the time, the memory to read it, the connections.
// A proxy is taken from the environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY), as operators
// are used to. There are no cookies, and no compression. Redirects are followed to the
// same server only, since they would carry the token along.
package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
)

// Limits of what a server can do.
const (
	maxBody      = 4 << 20
	smallBody    = 64 << 10
	maxHeader    = 64 << 10
	maxRedirects = 3
	maxDrain     = 4 << 10 // of an answer that says no more than its status
	maxConns     = 20
	maxIdle      = 4
	maxIdleTime  = 30 * time.Second
)

// Options say which server is asked and how.
type Options struct {
	URL       string        // of the folder that the files are in
	Insecure  bool          // the URL may be http for other hosts than this one
	CAFile    string        // PEM: the authorities whose certificates are accepted, in place of the system's; read once
	TokenFile string        // what it holds is sent as a bearer token; read for each question
	Timeout   time.Duration // that a question has; a connection that it wanted may take twice as long, for the next
}

// Source is a server that is asked. It is safe for concurrent use.
type Source struct {
	base      *url.URL
	tokenFile string
	client    *http.Client
	timeout   time.Duration // of a connection being made
	large     chan struct{} // held while an answer is read that is not small

	life context.Context
	end  context.CancelFunc
}

// New makes a source, or tells everything that is wrong with the options. It asks nothing.
func New(o Options) (*Source, []error) {
	base, problems := parseURL(o.URL, o.Insecure)
	var roots *x509.CertPool
	if o.CAFile != "" {
		var err error
		if roots, err = readRoots(o.CAFile); err != nil {
			problems = append(problems, fmt.Errorf("caFile: %w", err))
		}
	}
	if base != nil && base.Scheme == "http" {
		if o.CAFile != "" {
			problems = append(problems, errors.New("caFile: it is for https; leave it out"))
		}
		if o.TokenFile != "" && !isLoopback(base.Hostname()) {
			problems = append(problems, errors.New("tokenFile: a token is sent by https only; write an https url, or leave the token out"))
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	s := &Source{base: base, tokenFile: o.TokenFile, timeout: 2 * o.Timeout, large: make(chan struct{}, 1)}
	s.life, s.end = context.WithCancel(context.Background())
	s.client = &http.Client{Transport: s.transport(roots), CheckRedirect: s.checkRedirect}
	return s, nil
}

// transport speaks HTTP/1 only, whose bounds are simple.
func (s *Source) transport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                  proxy,
		OnProxyConnectResponse: checkProxy,
		DialContext:            s.dial,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    s.timeout,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
		MaxConnsPerHost:        maxConns,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        maxIdleTime,
	}
}

// Locator is the URL that is asked; it has no credentials.
func (s *Source) Locator() string { return s.base.String() }

// Close ends all connections, and what is being fetched. Nothing is fetched after it.
func (s *Source) Close() error {
	s.end()
	return nil
}

// Fetch asks for all that the server holds about an image. An answer without anything
// about it is an empty one. The error names the server and what happened, in at most 200
// printable bytes, none of which the server chose.
func (s *Source) Fetch(ctx context.Context, q evidence.Question) ([]evidence.Attestation, error) {
	digest, err := image.ParseDigest(string(q.Identity.Digest))
	if err != nil {
		return nil, errors.New("the image has no digest that could be asked for")
	}
	hex, ok := strings.CutPrefix(string(digest), "sha256:")
	if !ok {
		return nil, nil // no ImageAttestation has the name of another digest
	}
	found, err := s.fetch(ctx, s.base.JoinPath("sha256-"+hex+".json"), q.Identity)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	return found, nil
}

func (s *Source) fetch(ctx context.Context, from *url.URL, id image.Identity) ([]evidence.Attestation, error) {
	request, err := s.request(ctx, from)
	if err != nil {
		return nil, err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
		return s.take(ctx, response, from.String(), id)
	case http.StatusNotFound, http.StatusGone:
		// Read to its end, the connection serves the next question.
		_, _ = io.CopyN(io.Discard, response.Body, maxDrain)
		return nil, nil
	}
	return nil, failure("it " + answered(response.StatusCode))
}

func (s *Source) request(ctx context.Context, from *url.URL) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "horkos")
	request.Header.Set("Accept", "application/json, application/yaml")
	if s.tokenFile != "" {
		token, err := readToken(s.tokenFile)
		if err != nil {
			return nil, failure("no token to send it: " + err.Error())
		}
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return request, nil
}

// take reads an answer. Those that are not small are read one at a time, since each takes
// many times its size.
func (s *Source) take(ctx context.Context, response *http.Response, from string, id image.Identity) ([]evidence.Attestation, error) {
	if coding := response.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return nil, unusable{failure("its answer is compressed, which was not asked for")}
	}
	tooLong := unusable{failure(fmt.Sprintf("its answer is over %d bytes", maxBody))}
	if response.ContentLength > maxBody {
		return nil, tooLong
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, smallBody+1))
	if err != nil {
		return nil, err
	}
	if len(body) > smallBody {
		select {
		case s.large <- struct{}{}:
			defer func() { <-s.large }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		rest, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1-int64(len(body))))
		if err != nil {
			return nil, err
		}
		body = append(body, rest...)
	}
	if len(body) > maxBody {
		return nil, tooLong
	}
	return read(body, from, id)
}

// checkRedirect keeps to the server that was configured.
func (s *Source) checkRedirect(to *http.Request, before []*http.Request) error {
	switch {
	case len(before) > maxRedirects:
		return failure(fmt.Sprintf("it redirects more than %d times", maxRedirects))
	case to.URL.Scheme != s.base.Scheme || !strings.EqualFold(to.URL.Hostname(), s.base.Hostname()) || port(to.URL) != port(s.base):
		return failure("it redirects to another server; write the url of that one if it is meant")
	case to.URL.User != nil:
		return failure("it redirects to a url with credentials")
	}
	return nil
}

// dial makes connections that end with the source. The transport goes on making one when
// the question that wanted it is over.
func (s *Source) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &conn{c, context.AfterFunc(s.life, func() { c.Close() })}, nil
}

// conn is closed with its source.
type conn struct {
	net.Conn
	forget func() bool
}

func (c *conn) Close() error {
	c.forget()
	return c.Conn.Close()
}
