package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Clients are those who may ask for reviews: who shows a certificate of an authority in a file.
type Clients struct {
	file  string
	names []string // one of which the certificate must bear; none: any will do
	log   *slog.Logger
	now   func() time.Time

	roots atomic.Pointer[x509.CertPool]
	text  []byte // of the file
	told  string
}

// NewClients reads the authorities, in PEM. A client must bear one of the names, where any are
// given, as the common name or a DNS name of its certificate.
func NewClients(file string, names []string, log *slog.Logger, now func() time.Time) (*Clients, error) {
	if slices.Contains(names, "") {
		return nil, errors.New("the name of a client is empty")
	}
	c := &Clients{file: file, names: names, log: log, now: now}
	if err := c.read(); err != nil {
		return nil, fmt.Errorf("read whose clients may ask the webhook: %w", err)
	}
	return c, nil
}

// Run looks at the file every 10 seconds until the context ends. A file that cannot be used
// changes nothing. Connections that are there stay.
func (c *Clients) Run(ctx context.Context) error {
	return rereading(ctx, c.look)
}

func (c *Clients) look() {
	err := c.read()
	text := ""
	if err != nil {
		if text = err.Error(); text != c.told {
			c.log.Error("whose clients may ask the webhook cannot be read again: it stays as it was", "error", err)
		}
	}
	c.told = text
}

func (c *Clients) read() error {
	text, err := readFile(c.file)
	if err != nil {
		return err
	}
	if c.roots.Load() != nil && bytes.Equal(text, c.text) {
		return nil
	}
	all, err := decodeCertificates(text)
	if err == nil && len(all) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.file, err)
	}
	roots := x509.NewCertPool()
	for _, a := range all {
		roots.AddCert(a)
	}
	c.text = text
	c.roots.Store(roots)
	c.log.Info("clients must show a certificate", "file", c.file, "authorities", len(all), "names", strings.Join(c.names, ","))
	return nil
}

// require has a server ask for certificates, and shake hands with nobody who shows none that
// is fit. No session is resumed: who was given up is looked at again.
func (c *Clients) require(config *tls.Config) {
	config.ClientAuth, config.VerifyConnection, config.SessionTicketsDisabled = tls.RequireAnyClientCert, c.verify, true
}

func (c *Clients) verify(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the client shows no certificate")
	}
	leaf, between := s.PeerCertificates[0], x509.NewCertPool()
	for _, other := range s.PeerCertificates[1:] {
		between.AddCert(other)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: c.roots.Load(), Intermediates: between, CurrentTime: c.now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return fmt.Errorf("the client's certificate: %w", err)
	}
	if len(c.names) > 0 && !slices.ContainsFunc(append([]string{leaf.Subject.CommonName}, leaf.DNSNames...), func(name string) bool { return slices.Contains(c.names, name) }) {
		return errors.New("the client's certificate bears another name")
	}
	return nil
}
