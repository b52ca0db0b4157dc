package webhook

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// pair is a certificate and its private key: of an authority or of a server.
type pair struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// newAuthority makes an authority that holds from one moment to another. No two have the same
// subject, so that a client never tries the key of one on what another has signed.
func newAuthority(from, until time.Time) (*pair, error) {
	template, err := newTemplate("horkos-webhook authority", from, until)
	if err != nil {
		return nil, fmt.Errorf("make an authority: %w", err)
	}
	template.Subject.SerialNumber = hex.EncodeToString(template.SerialNumber.Bytes())
	template.IsCA, template.BasicConstraintsValid = true, true
	template.MaxPathLenZero = true
	template.KeyUsage = x509.KeyUsageCertSign
	p, err := sign(template, nil)
	if err != nil {
		return nil, fmt.Errorf("make an authority: %w", err)
	}
	return p, nil
}

// serve makes a certificate of a server with these names and addresses. It does not outlive
// its authority.
func (p *pair) serve(names []string, addresses []net.IP, from, until time.Time) (*pair, error) {
	if until.After(p.certificate.NotAfter) {
		until = p.certificate.NotAfter
	}
	template, err := newTemplate("horkos-webhook", from, until)
	if err != nil {
		return nil, fmt.Errorf("make a serving certificate: %w", err)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.DNSNames, template.IPAddresses = names, addresses
	made, err := sign(template, p)
	if err != nil {
		return nil, fmt.Errorf("make a serving certificate: %w", err)
	}
	return made, nil
}

func newTemplate(name string, from, until time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    from.UTC(),
		NotAfter:     until.UTC(),
	}, nil
}

// sign makes a key and its certificate, signed by the authority, or by itself where that is nil.
func sign(template *x509.Certificate, by *pair) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if by == nil {
		by = &pair{certificate: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.certificate, key.Public(), by.key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &pair{certificate, key}, nil
}

func (p *pair) same(other *pair) bool {
	return p != nil && other != nil && p.certificate.Equal(other.certificate)
}

func (p *pair) tls() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{p.certificate.Raw}, PrivateKey: p.key, Leaf: p.certificate}
}

// encode gives both in PEM.
func (p *pair) encode() (certificate, key []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a key: %w", err)
	}
	return encodeCertificates(p.certificate), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func encodeCertificates(all ...*x509.Certificate) []byte {
	var text bytes.Buffer
	for _, c := range all {
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a Buffer takes all
	}
	return text.Bytes()
}

// Of what is read back: somebody may have written anything there.
const (
	maxPEM     = 64 << 10
	maxBundled = 8 // certificates of a bundle
)

// decodeCertificates reads a bundle. What is no certificate in it makes all of it unreadable.
func decodeCertificates(text []byte) (all []*x509.Certificate, err error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("over %d bytes", maxPEM)
	}
	for len(bytes.TrimSpace(text)) > 0 {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New("not only certificates in PEM")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if all = append(all, c); len(all) > maxBundled {
			return nil, fmt.Errorf("over %d certificates", maxBundled)
		}
		text = rest
	}
	return all, nil
}

// decodeKey reads the key of a certificate.
func decodeKey(text []byte, of *x509.Certificate) (*ecdsa.PrivateKey, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("over %d bytes", maxPEM)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no private key in PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("no private key in PKCS #8") // the error could quote it
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(of.PublicKey) {
		return nil, errors.New("not the key of its certificate")
	}
	return key, nil
}

// issuerOf is the authority in a bundle that has signed the certificate, or nil.
func issuerOf(c *x509.Certificate, bundle []*x509.Certificate) *x509.Certificate {
	for _, a := range bundle {
		if a.IsCA && c.CheckSignatureFrom(a) == nil {
			return a
		}
	}
	return nil
}

// verify holds a serving certificate to what a client with the bundle would.
func verify(c *x509.Certificate, bundle []*x509.Certificate, now time.Time) error {
	roots := x509.NewCertPool()
	for _, a := range bundle {
		roots.AddCert(a)
	}
	_, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err
}

func holds(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && !now.After(c.NotAfter)
}
