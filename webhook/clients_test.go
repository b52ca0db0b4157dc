package webhook

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// identity is a certificate of a client, and those that come with it.
func identity(t *testing.T, by *pair, name string, usage x509.ExtKeyUsage, until time.Time, others ...*x509.Certificate) tls.Certificate {
	t.Helper()
	template, err := newTemplate(name, time.Now().Add(-time.Hour), until)
	if err != nil {
		t.Fatal(err)
	}
	template.KeyUsage, template.ExtKeyUsage, template.DNSNames = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{usage}, []string{"of." + name}
	made, err := sign(template, by)
	if err != nil {
		t.Fatal(err)
	}
	shown := *made.tls()
	for _, c := range others {
		shown.Certificate = append(shown.Certificate, c.Raw)
	}
	return shown
}

func authorityOfClients(t *testing.T) *pair {
	t.Helper()
	p, err := newAuthority(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// as is a client with a certificate.
func (h *house) as(c tls.Certificate, change ...func(*http.Transport)) *http.Client {
	return h.client(append(change, func(t *http.Transport) { t.TLSClientConfig.Certificates = []tls.Certificate{c} })...)
}

func TestOnlyClientsOfAnAuthorityAreAnswered(t *testing.T) {
	known, other := authorityOfClients(t), authorityOfClients(t)
	later := time.Now().Add(time.Hour)
	const usage = x509.ExtKeyUsageClientAuth
	template, err := newTemplate("between", time.Now().Add(-time.Hour), later)
	if err != nil {
		t.Fatal(err)
	}
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	otherBetween, err := sign(template, other)
	if err != nil {
		t.Fatal(err)
	}
	self, err := sign(template, nil)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		names    []string
		shows    *tls.Certificate
		answered bool
	}{
		{"none", nil, nil, false},
		{"of the authority", nil, ptr(identity(t, known, "api", usage, later)), true},
		{"of another authority", nil, ptr(identity(t, other, "api", usage, later)), false},
		{"of another authority, which comes with it", nil, ptr(identity(t, otherBetween, "api", usage, later, otherBetween.certificate, other.certificate)), false},
		{"of itself", nil, self.tls(), false},
		{"of a server", nil, ptr(identity(t, known, "api", x509.ExtKeyUsageServerAuth, later)), false},
		{"expired", nil, ptr(identity(t, known, "api", usage, time.Now().Add(-time.Minute))), false},
		{"with the common name", []string{"web", "api"}, ptr(identity(t, known, "api", usage, later)), true},
		{"with the DNS name", []string{"of.api"}, ptr(identity(t, known, "api", usage, later)), true},
		{"with another name", []string{"web", "of"}, ptr(identity(t, known, "api", usage, later)), false},
	}
	path := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(path, encodeCertificates(known.certificate), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		for version, change := range map[string][]func(*http.Transport){"HTTP/2.0": nil, "HTTP/1.1": {http1}} {
			t.Run(tt.name+"/"+version, func(t *testing.T) {
				clients, err := NewClients(path, tt.names, quiet(), time.Now)
				if err != nil {
					t.Fatal(err)
				}
				h := newHouse(t, echo, func(o *ServerOptions) { o.Clients = clients })
				c := h.client(change...)
				if tt.shows != nil {
					c = h.as(*tt.shows, change...)
				}
				status, text, err := post(c, h.address, "{}")
				if answered := err == nil && status == http.StatusOK && text == "{}"; answered != tt.answered || (err == nil) != tt.answered {
					t.Errorf("answered %v, want %v: %d %q %v", answered, tt.answered, status, text, err)
				}
				if status, _ := h.get("/readyz"); status != http.StatusOK {
					t.Errorf("whoever asks for health is answered %d", status)
				}
			})
		}
	}
}

func ptr[T any](v T) *T { return &v }

func TestTheAuthoritiesOfClientsAreReadAgain(t *testing.T) {
	first, second := authorityOfClients(t), authorityOfClients(t)
	path := filepath.Join(t.TempDir(), "ca.crt")
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(encodeCertificates(first.certificate))
	clients, err := NewClients(path, nil, quiet(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, echo, func(o *ServerOptions) { o.Clients = clients })
	// One that remembers sessions, which are none of a server that asks for certificates.
	remembers := func(t *http.Transport) { t.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(8) }
	one := h.as(identity(t, first, "one", x509.ExtKeyUsageClientAuth, time.Now().Add(time.Hour)), remembers)
	two := h.as(identity(t, second, "two", x509.ExtKeyUsageClientAuth, time.Now().Add(time.Hour)), remembers)
	answered := func(when string, wantOne, wantTwo bool) {
		t.Helper()
		for name, c := range map[string]struct {
			*http.Client
			want bool
		}{"one": {one, wantOne}, "two": {two, wantTwo}} {
			c.CloseIdleConnections()
			if _, _, err := post(c.Client, h.address, "{}"); (err == nil) != c.want {
				t.Errorf("%s: %s is answered with %v", when, name, err)
			}
		}
	}
	answered("at first", true, false)
	for name, text := range map[string]string{"empty": "", "no PEM": "-----", "a key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		write([]byte(text))
		clients.look()
		answered(name, true, false)
		if _, err := NewClients(path, nil, quiet(), time.Now); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: a start with it gives %v", name, err)
		}
	}
	write(encodeCertificates(first.certificate, second.certificate))
	clients.look()
	answered("both", true, true)
	write(encodeCertificates(second.certificate))
	clients.look()
	answered("the second", false, true)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	clients.look()
	answered("the file is gone", false, true)
	if _, err := NewClients(path, nil, quiet(), time.Now); err == nil {
		t.Error("a start without the file")
	}
}
