package attestation

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Key is a public key that may sign attestations: one for PKIX envelopes and JWTs, with the
// one algorithm it signs by, or an OpenPGP key with its subkeys. It does not change.
type Key struct {
	// ID is the name that envelopes and policies use for the key. It proves nothing: two keys
	// may bear one id, and one key two.
	ID string

	public      crypto.PublicKey // nil of an OpenPGP key
	algorithm   algorithm
	pgp         *pgpKey // nil of all others
	distinct    string
	fingerprint [32]byte
}

// ParsePKIXKey reads a public key in PEM: one block PUBLIC KEY (RFC 7468, section 13) or
// RSA PUBLIC KEY (PKCS#1), with nothing but white space around it.
//
// An empty id becomes ni:///sha-256;<SHA-256 of the SubjectPublicKeyInfo in DER, base64url
// without padding> (RFC 6920), as in Binary Authorization. The algorithm is one of those
// that Kritis and Binary Authorization name, in any letter case, or ed25519; the key's size
// or curve must be the one in the name. An empty one is inferred from the key; for RSA it is
// PKCS#1 v1.5 with SHA-256.
func ParsePKIXKey(id string, data []byte, algorithm string) (*Key, error) {
	public, err := parsePublic(data)
	if err != nil {
		return nil, fmt.Errorf("parsing public key: %w", err)
	}
	return newKey(id, public, algorithm)
}

func newKey(id string, public crypto.PublicKey, name string) (*Key, error) {
	a, err := algorithmFor(public, name)
	if err != nil {
		return nil, err
	}
	if public, ok := public.(*rsa.PublicKey); ok {
		if err := checkRSA(public); err != nil {
			return nil, err
		}
	}
	// Encoded anew, so that one key cannot count as two for the way it was written.
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encoding public key: %w", err)
	}
	sum := sha256.Sum256(spki)
	if id == "" {
		id = "ni:///sha-256;" + base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return &Key{
		ID:          id,
		public:      public,
		algorithm:   a,
		distinct:    hex.EncodeToString(sum[:]),
		fingerprint: sha256.Sum256(append([]byte(string(PKIX)+"\x00"+a.name+"\x00"), spki...)),
	}, nil
}

// checkRSA holds a key to FIPS 186-5, A.1.1: an exponent that is odd and above 2^16. An even
// modulus is none.
func checkRSA(public *rsa.PublicKey) error {
	if public.E <= 1<<16 || public.E%2 == 0 || public.N.Bit(0) == 0 {
		return fmt.Errorf("RSA key with public exponent %d: want an odd one above 65536, and an odd modulus", public.E)
	}
	return nil
}

// Algorithm is the canonical name of the key's algorithm; "pgp" of an OpenPGP key, whose
// signatures name theirs.
func (k *Key) Algorithm() string { return k.algorithm.name }

// KeyIDs are the ids under which envelopes may name the key: its ID, and of an OpenPGP key
// also the fingerprints of the subkeys that may sign, and of each the last 16 digits (the
// first of a version 6 key), which is what old programs write. All hex is in upper case.
func (k *Key) KeyIDs() []string {
	if k.pgp != nil {
		return k.pgp.ids()
	}
	return []string{k.ID}
}

// Distinct tells keys apart for counting, whatever their ids and algorithms: the SHA-256 of
// the SubjectPublicKeyInfo, in hex, or the fingerprint of an OpenPGP key's primary key.
func (k *Key) Distinct() string { return k.distinct }

// Revoked tells whether nothing counts that the key signs, as it and its subkeys that may
// sign are revoked. Only an OpenPGP key says so itself.
func (k *Key) Revoked() bool { return k.pgp != nil && k.pgp.revoked() }

// Until is when the last of an OpenPGP key's signing keys ends, by its own word; zero when
// one has no end, and for all other keys.
func (k *Key) Until() time.Time {
	if k.pgp == nil {
		return time.Time{}
	}
	return k.pgp.until()
}

// Fingerprint is a SHA-256 over all of the key that Verify looks at: format, algorithm and
// public key; all packets of an OpenPGP key. With Envelope.Sum it makes the key of a
// remembered Outcome.
func (k *Key) Fingerprint() [32]byte { return k.fingerprint }

func parsePublic(data []byte) (crypto.PublicKey, error) {
	if bytes.Contains(data, []byte("PRIVATE KEY-----")) {
		return nil, errors.New("this is a private key: remove it and consider it leaked")
	}
	block, err := onlyBlock(data)
	if err != nil {
		return nil, err
	}
	var public crypto.PublicKey
	switch block.Type {
	case "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		return nil, fmt.Errorf("PEM block %.80q: want PUBLIC KEY", block.Type)
	}
	var syntax asn1.SyntaxError
	var structure asn1.StructuralError
	if errors.As(err, &syntax) || errors.As(err, &structure) {
		return nil, fmt.Errorf("the PEM's content is not a public key: copy it again from openssl pkey -pubout (%w)", err)
	}
	return public, err
}

// onlyBlock reads a PEM file of one block. Decoders pass over what they cannot read, so
// that of two keys people and programs might see different ones: here there is one.
func onlyBlock(data []byte) (*pem.Block, error) {
	if len(data) > MaxKeyBytes {
		return nil, fmt.Errorf("%d bytes of PEM: at most %d are read", len(data), MaxKeyBytes)
	}
	begin := []byte("-----BEGIN ")
	data = bytes.TrimSpace(data)
	if !bytes.HasPrefix(data, begin) {
		return nil, errors.New("does not begin with a PEM block")
	}
	if bytes.Count(data, begin) > 1 {
		return nil, errors.New("more than one PEM block")
	}
	block, rest := pem.Decode(data)
	if block == nil {
		return nil, errors.New("malformed PEM block")
	}
	if len(block.Headers) > 0 {
		return nil, errors.New("the PEM block has headers")
	}
	if len(rest) > 0 {
		return nil, errors.New("something follows the PEM block")
	}
	return block, nil
}
