package web

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/horkos/horkos/state"
)

// Limits of what the operator writes.
const (
	maxURL   = 512
	maxCA    = 1 << 20
	maxToken = 8 << 10
)

// parseURL gives the URL of a folder without a slash at its end.
func parseURL(text string, insecure bool) (*url.URL, []error) {
	if text == "" {
		return nil, []error{errors.New("url: say where to ask, such as https://attestations.example.com/images")}
	}
	if len(text) > maxURL {
		return nil, []error{fmt.Errorf("url: it is over %d bytes", maxURL)}
	}
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.Hostname() == "" {
		// Not quoted: there may be a password in it.
		return nil, []error{errors.New("url: it is none; write it as https://attestations.example.com/images")}
	}
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf("url: "+format, args...)) }
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		bad("want https://, not %.20q", u.Scheme)
	case u.Scheme == "https" && insecure:
		problems = append(problems, errors.New("insecure: it is for an http url; certificates are always checked. Leave it out, and name the server's authority in caFile"))
	case u.Scheme == "http" && !insecure && !isLoopback(u.Hostname()):
		bad("want https://; for plain http, which anybody on the way can hold back, write insecure: true as well")
	}
	if u.User != nil {
		bad("it has a user in it; put a token into a file and write tokenFile")
	}
	if u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#") {
		bad("want it without ? and #")
	}
	if p := u.Port(); p != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			bad("want a port of 1 to 65535")
		}
	}
	if strings.ContainsFunc(u.Host, func(c rune) bool { return c <= ' ' || c > '~' }) {
		bad("want a host of ASCII letters; an international name is written xn--...")
	}
	if len(problems) > 0 {
		return nil, problems
	}
	u.Host = strings.ToLower(u.Host)
	u = u.JoinPath()
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), strings.TrimRight(u.RawPath, "/")
	return u, nil
}

// isLoopback tells whether a host is this one, by how it is written.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || (ip != nil && ip.IsLoopback())
}

func port(u *url.URL) string {
	switch p := u.Port(); {
	case p != "":
		return p
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

func readRoots(path string) (*x509.CertPool, error) {
	data, err := state.ReadOwned(path, maxCA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return roots, nil
}

// readToken gives what is in a file, without blanks around it. No error quotes it.
func readToken(path string) (string, error) {
	data, err := state.ReadOwned(path, maxToken)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	switch {
	case token == "":
		return "", fmt.Errorf("%s is empty", path)
	case strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }):
		return "", fmt.Errorf("%s: want one token, of printable characters without blanks", path)
	}
	return token, nil
}
