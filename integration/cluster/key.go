package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
)

// newKey makes a key pair: the private one as a PEM file, the public one as PEM text
// without the line break at its end.
func newKey() (private []byte, public string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, "", err
	}
	of, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, "", err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: of})
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), strings.TrimSpace(string(text)), nil
}
