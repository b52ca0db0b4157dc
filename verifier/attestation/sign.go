package attestation

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// ParsePKIXPrivateKey reads an unencrypted private key in PEM: PRIVATE KEY (PKCS#8),
// EC PRIVATE KEY (SEC 1; the EC PARAMETERS that openssl writes before it are passed over)
// or RSA PRIVATE KEY (PKCS#1). Its errors never quote the key.
func ParsePKIXPrivateKey(data []byte) (crypto.Signer, error) {
	signer, err := parsePrivate(data)
	if err != nil {
		return nil, fmt.Errorf("parsing private key: %w", err)
	}
	return signer, nil
}

func parsePrivate(data []byte) (crypto.Signer, error) {
	if first, rest := pem.Decode(data); first != nil && first.Type == "EC PARAMETERS" {
		data = rest
	}
	// As openssl writes them now, and as it did.
	if first, _ := pem.Decode(data); first != nil && (first.Type == "ENCRYPTED PRIVATE KEY" || first.Headers["DEK-Info"] != "") {
		return nil, errors.New("it is encrypted; decrypt it first: openssl pkey -in KEY")
	}
	block, err := onlyBlock(data)
	if err != nil {
		return nil, err
	}
	switch block.Type {
	case "PRIVATE KEY":
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("a key of type %T cannot sign", key)
		}
		return signer, nil
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	return nil, fmt.Errorf("PEM block %.80q: want PRIVATE KEY", block.Type)
}

// Sign signs a payload, and returns with the raw signature the key that verifies it, under
// the id that ParsePKIXKey gives to a key without one. The algorithm is named or inferred
// as there. What Verify would not accept is an error: no signature leaves on a payload that
// means nothing.
func Sign(signer crypto.Signer, algorithm string, payload []byte) ([]byte, *Key, error) {
	key, err := newKey("", signer.Public(), algorithm)
	if err != nil {
		return nil, nil, fmt.Errorf("signing: %w", err)
	}
	var opts crypto.SignerOpts = key.algorithm.hash
	if key.algorithm.pss {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: key.algorithm.hash}
	}
	signature, err := signer.Sign(rand.Reader, key.algorithm.digest(payload), opts)
	if err != nil {
		return nil, nil, fmt.Errorf("signing by %s: %w", key.algorithm.name, err)
	}
	outcome := Verify(key, &Envelope{Format: PKIX, Payload: payload, Signature: signature})
	if outcome.Failure != nil {
		return nil, nil, fmt.Errorf("checking the signature made: %w", outcome.Failure)
	}
	return signature, key, nil
}
