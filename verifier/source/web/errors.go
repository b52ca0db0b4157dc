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
	"syscall"

	"github.com/horkos/horkos/verifier/evidence"
)

// maxError bounds an error of Fetch, in bytes, and maxHost the host in it.
const (
	maxError = 200
	maxHost  = 80
)

// failure is what happened, in words of this package.
type failure string

func (f failure) Error() string { return string(f) }

// unusable is a failure of one answer, and not of the server.
type unusable struct{ failure }

func (u unusable) Unwrap() error { return u.failure }

// Is tells package evidence so.
func (u unusable) Is(target error) bool { return target == evidence.ErrUnusable }

// explained is an error of Fetch. Its text holds nothing that the server chose, which the
// errors of net/http do.
type explained struct {
	text  string
	cause error // of the context, or evidence.ErrUnusable; else nil
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.cause }

func (s *Source) explain(ctx context.Context, err error) error {
	e := &explained{}
	var what string
	switch cause := ctx.Err(); {
	case errors.As(err, new(failure)):
		what = happened(err)
		if errors.Is(err, evidence.ErrUnusable) {
			e.cause = evidence.ErrUnusable
		}
	case cause != nil:
		e.cause = cause
		what = "nobody waits for its answer any more"
		if errors.Is(cause, context.DeadlineExceeded) {
			what = "it did not answer in time"
		}
	case s.life.Err() != nil:
		what = "it is not asked any more"
	default:
		what = happened(err)
	}
	host := s.base.Host
	if len(host) > maxHost {
		host = host[:maxHost] + "..."
	}
	e.text = printable(host + ": " + what)
	return e
}

// happened names what went wrong.
func happened(err error) string {
	var (
		own       failure
		op        *net.OpError
		name      *net.DNSError
		errno     syscall.Errno
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		timeout   net.Error
	)
	through := ""
	if errors.As(err, &op) && op.Op == "proxyconnect" {
		through = "the proxy before it: "
	}
	switch {
	case errors.As(err, &own):
		return string(own)
	case errors.As(err, &name) && name.IsNotFound:
		return through + "no such host"
	case errors.As(err, &name):
		return through + "its name cannot be looked up"
	case errors.As(err, &errno):
		return through + errno.Error()
	case errors.As(err, &authority):
		return through + "its certificate is of an unknown authority; name that in caFile if it is the right one"
	case errors.As(err, &host):
		return through + "its certificate is for another host"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return through + "its certificate has expired or is not valid yet"
	case errors.As(err, &invalid), errors.As(err, &verify):
		return through + "its certificate is not valid"
	case op != nil && op.Op == "remote error":
		return through + "it refused the TLS connection"
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return through + "it does not speak TLS"
	case errors.As(err, &timeout) && timeout.Timeout():
		return through + "it did not answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return through + "its answer ends early"
	}
	return through + "its answer is not HTTP, or over the limits"
}

// answered tells a status in words of the standard, not of the server.
func answered(status int) string {
	text := fmt.Sprintf("answered %d %s", status, http.StatusText(status))
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		text += "; look at tokenFile"
	}
	return text
}

// printable is text as it can stand in a message, whatever is in it.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, s)
	if len(s) > maxError {
		return s[:maxError-3] + "..."
	}
	return s
}

// proxy is that of the environment. Its own error would quote it, credentials and all.
func proxy(r *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(r)
	if err != nil {
		return nil, failure("the proxy in the environment is not a url")
	}
	return u, nil
}

// checkProxy names the status with which a proxy refuses to connect.
func checkProxy(_ context.Context, _ *url.URL, _ *http.Request, response *http.Response) error {
	if response.StatusCode != http.StatusOK {
		return failure("the proxy before it " + answered(response.StatusCode))
	}
	return nil
}
