package attestation

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
	"time"
)

// verifyJWT verifies a JSON Web Signature in compact form, and reads the claims only if
// that is good. The header decides nothing: the key fixes the algorithm.
func verifyJWT(key *Key, env *Envelope) Outcome {
	if key.public == nil {
		return failed(BadSignature, "the key is not one for JWTs")
	}
	if len(env.Payload) > 0 {
		return failed(BadSignature, "there is a payload beside the JWT")
	}
	token, err := splitJWT(env.Signature)
	if err != nil {
		return failed(BadSignature, err.Error())
	}
	header, err := decodeHeader(token.header)
	if err != nil {
		return failed(BadSignature, err.Error())
	}
	if want := key.algorithm.jws(); header.algorithm != want {
		return failed(BadSignature, fmt.Sprintf("JWT with alg %.20q: the key signs by %s", header.algorithm, want))
	}
	if header.keyID != env.KeyID {
		return failed(BadSignature, fmt.Sprintf("JWT with kid %.80q, filed under another", header.keyID))
	}
	if !key.verifiesJWS(token.input, token.signature) {
		return failed(BadSignature, "it does not verify under the key by "+header.algorithm)
	}
	statement, err := decodeClaims(token.claims)
	if err != nil {
		return failed(BadPayload, err.Error())
	}
	return verified(statement)
}

// JWTKeyID gives the key id that a JWT's header names, for the KeyID of its envelope.
// Nothing is verified.
func JWTKeyID(compact []byte) (string, error) {
	token, err := splitJWT(compact)
	if err != nil {
		return "", fmt.Errorf("reading JWT: %w", err)
	}
	header, err := decodeHeader(token.header)
	if err != nil {
		return "", fmt.Errorf("reading JWT: %w", err)
	}
	return header.keyID, nil
}

// jwt is a compact JWS in its parts, decoded; input is what is signed.
type jwt struct{ header, claims, signature, input []byte }

func splitJWT(compact []byte) (*jwt, error) {
	if len(compact) > MaxJWTBytes {
		return nil, fmt.Errorf("JWT of %d bytes: at most %d are read", len(compact), MaxJWTBytes)
	}
	if dots := bytes.Count(compact, []byte(".")); dots != 2 {
		return nil, fmt.Errorf("not a JWT in compact form: %d parts, want 3", dots+1)
	}
	parts := bytes.Split(compact, []byte("."))
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = decodeBase64URL(part); err != nil {
			return nil, fmt.Errorf("part %d of the JWT: %w", i+1, err)
		}
	}
	input := compact[:len(parts[0])+len(".")+len(parts[1])]
	return &jwt{header: decoded[0], claims: decoded[1], signature: decoded[2], input: input}, nil
}

// decodeBase64URL decodes base64url of one spelling (RFC 7515, section 2). The package's
// decoder passes over line ends.
func decodeBase64URL(text []byte) ([]byte, error) {
	if len(text) == 0 {
		return nil, errors.New("empty")
	}
	if bytes.ContainsAny(text, "\r\n") {
		return nil, errors.New("with line ends")
	}
	data := make([]byte, base64.RawURLEncoding.DecodedLen(len(text)))
	n, err := base64.RawURLEncoding.Strict().Decode(data, text)
	if err != nil {
		return nil, fmt.Errorf("not base64url: %w", err)
	}
	return data[:n], nil
}

// jwtHeader is what counts of a JWT's header.
type jwtHeader struct{ algorithm, keyID string }

// decodeHeader reads a JOSE header (RFC 7515, section 4). Members it does not know are
// passed over as told there, but not those that bring a key of the sender's choice, which
// nobody who knows the key needs, nor crit, as no extension is understood, nor b64, which
// would make the payload another (RFC 7797).
func decodeHeader(data []byte) (jwtHeader, error) {
	var members map[string]any
	if err := decodeStrict(data, &members); err != nil {
		return jwtHeader{}, fmt.Errorf("header of the JWT: %w", err)
	}
	for _, name := range []string{"crit", "b64", "jwk", "jku", "x5c", "x5u"} {
		if _, there := members[name]; there {
			return jwtHeader{}, fmt.Errorf("header of the JWT with %s, which is not accepted", name)
		}
	}
	if members["typ"] != "JWT" {
		return jwtHeader{}, errors.New(`header of the JWT without "typ": "JWT"`)
	}
	algorithm, _ := members["alg"].(string)
	keyID, _ := members["kid"].(string)
	if algorithm == "" || keyID == "" {
		return jwtHeader{}, errors.New("header of the JWT without alg or kid")
	}
	return jwtHeader{algorithm: algorithm, keyID: keyID}, nil
}

// claims are a payload and some of the claims of RFC 7519, section 4.1. Those of names
// mean nothing here.
type claims struct {
	payload
	Issuer    string      `json:"iss"`
	Subject   string      `json:"sub"`
	Audience  any         `json:"aud"` // a string or several
	ID        string      `json:"jti"`
	IssuedAt  numericDate `json:"iat"`
	NotBefore numericDate `json:"nbf"`
	Expires   numericDate `json:"exp"`
}

// decodeClaims reads claims into a statement: iat is its timestamp, exp its expiry. Where
// the payload has a timestamp too it must be the same second; of two expiries the earlier
// counts.
func decodeClaims(data []byte) (Statement, error) {
	var c claims
	if err := decodeStrict(data, &c); err != nil {
		return Statement{}, fmt.Errorf("claims: %w", err)
	}
	s, err := c.statement()
	if err != nil {
		return Statement{}, err
	}
	if iat := c.IssuedAt.Time; !iat.IsZero() {
		if !s.Timestamp.IsZero() && !s.Timestamp.Equal(iat) {
			return Statement{}, errors.New("iat and the payload's timestamp are not the same")
		}
		s.Timestamp = iat
	}
	s.NotBefore = c.NotBefore.Time
	s.Expires = earliest(s.Expires, c.Expires.Time)
	return s, nil
}

// numericDate is a time in whole seconds since 1970 (RFC 7519, section 2, would allow
// fractions), from 1970 to 9999; zero when it is not there at all.
type numericDate struct{ time.Time }

// UnmarshalJSON accepts what readTimestamp does. Null is no time.
func (d *numericDate) UnmarshalJSON(data []byte) error {
	var seconds float64
	if bytes.Equal(data, []byte("null")) || json.Unmarshal(data, &seconds) != nil || math.Abs(seconds) > lastSecond {
		return fmt.Errorf("%.40q is no time in seconds since 1970", data)
	}
	t, err := readTimestamp(seconds)
	if err != nil {
		return fmt.Errorf("%.40q is no time: want whole seconds since 1970", data)
	}
	d.Time = t
	return nil
}

// jws is the name of an algorithm in a JOSE header (RFC 7518, section 3.1; RFC 8037).
func (a algorithm) jws() string {
	switch {
	case a.hash == 0:
		return "EdDSA"
	case strings.HasPrefix(a.key, "ECDSA "):
		return fmt.Sprintf("ES%d", a.hash.Size()*8)
	case a.pss:
		return fmt.Sprintf("PS%d", a.hash.Size()*8)
	}
	return fmt.Sprintf("RS%d", a.hash.Size()*8)
}

// verifiesJWS reports whether signature is this key's over input (RFC 7518, section 3): salts
// are as long as the digest, and an ECDSA signature is r and s side by side, each of the
// size of the curve.
func (k *Key) verifiesJWS(input, signature []byte) bool {
	digest := k.algorithm.digest(input)
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		if k.algorithm.pss {
			sameSalt := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
			return rsa.VerifyPSS(public, k.algorithm.hash, digest, signature, sameSalt) == nil
		}
		return rsa.VerifyPKCS1v15(public, k.algorithm.hash, digest, signature) == nil
	case *ecdsa.PublicKey:
		size := (public.Curve.Params().BitSize + 7) / 8
		if len(signature) != 2*size {
			return false
		}
		r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
		return ecdsa.Verify(public, digest, r, s)
	case ed25519.PublicKey:
		return ed25519.Verify(public, digest, signature)
	}
	return false
}
