package cases

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/image"
)

// Record is an attestation to be signed. Times are relative to the time of the request.
type Record struct {
	Image string `json:"image"` // repository@digest: where the attestation is filed
	// Key is the name of a private key: keys/NAME.pem, or keys/NAME.private.asc of an OpenPGP
	// key, whose public half is keys/NAME.asc.
	Key string `json:"key"`
	// Format is PKIX, PGP or JWT; PKIX when left out. A JWT takes a key on P-256.
	Format attestation.Format `json:"format,omitempty"`
	// KeyID is the id it names; the key's own when left out.
	KeyID *string `json:"keyID,omitempty"`
	// Says is the image the payload speaks of, when that is another.
	Says string `json:"says,omitempty"`
	Note string `json:"note,omitempty"`
	// SignedAt is when the signer says it signed; an hour before the request when left out.
	SignedAt *Duration `json:"signedAt,omitempty"`
	// NoTimestamp leaves that out of the payload.
	NoTimestamp bool `json:"noTimestamp,omitempty"`
	// SignedExpiry and Expires are the expiry under the signature and beside it.
	SignedExpiry Duration `json:"signedExpiry,omitempty"`
	Expires      Duration `json:"expires,omitempty"`
	// NotBefore is the nbf of a JWT.
	NotBefore Duration `json:"notBefore,omitempty"`
	// Broken flips a bit of the signature, not of PGP.
	Broken bool `json:"broken,omitempty"`
}

// Duration is a duration in the form of time.ParseDuration.
type Duration time.Duration

// UnmarshalJSON reads a string such as -1h.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("want a duration such as -1h, not %.40s", data)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("want a duration such as -1h, not %.40q", s)
	}
	*d = Duration(v)
	return nil
}

// sign makes the ImageAttestation of a record.
func (r *Record) sign(dir string, at time.Time) (any, error) {
	filed, err := image.ParseIdentity(r.Image)
	if err != nil {
		return nil, err
	}
	signedAt := at.Add(-time.Hour)
	if r.SignedAt != nil {
		signedAt = at.Add(time.Duration(*r.SignedAt))
	}
	payload, err := r.payload(filed, at, signedAt)
	if err != nil {
		return nil, err
	}
	a := horkos.Attestation{ResourceURI: r.Image, NoteName: r.Note}
	switch r.Format {
	case "", attestation.PKIX:
		a.Attestation, err = r.signPKIX(dir, payload)
	case attestation.PGP:
		a.PGPSignedAttestation, err = r.signPGP(dir, payload, signedAt)
	case attestation.JWT:
		a.Attestation, err = r.signJWT(dir, payload)
	default:
		err = fmt.Errorf("format %q: want PKIX, PGP or JWT", r.Format)
	}
	if err != nil {
		return nil, err
	}
	if r.Expires != 0 {
		a.Expires = at.Add(time.Duration(r.Expires)).UTC().Format(time.RFC3339)
	}
	return map[string]any{
		"apiVersion": horkos.GroupVersion, "kind": horkos.KindImageAttestation,
		"metadata": map[string]string{"name": strings.Replace(string(filed.Digest), ":", "-", 1)},
		"spec":     horkos.ImageAttestationSpec{Attestations: []horkos.Attestation{a}},
	}, nil
}

// payload is what is signed. A JWT has the times among its claims.
func (r *Record) payload(says image.Identity, at, signedAt time.Time) ([]byte, error) {
	var err error
	if r.Says != "" {
		if says, err = image.ParseIdentity(r.Says); err != nil {
			return nil, err
		}
	}
	var expiry time.Time
	if r.SignedExpiry != 0 {
		expiry = at.Add(time.Duration(r.SignedExpiry))
	}
	payload, err := attestation.NewPayload(says, signedAt, expiry)
	if err != nil || (r.Format != attestation.JWT && !r.NoTimestamp) {
		return payload, err
	}
	var p struct {
		Critical  json.RawMessage `json:"critical"`
		Optional  map[string]any  `json:"optional,omitempty"`
		IssuedAt  int64           `json:"iat,omitempty"`
		NotBefore int64           `json:"nbf,omitempty"`
		Expires   int64           `json:"exp,omitempty"`
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return nil, err
	}
	delete(p.Optional, "timestamp")
	if r.Format == attestation.JWT {
		p.Optional = nil
		if !r.NoTimestamp {
			p.IssuedAt = signedAt.Unix()
		}
		if r.NotBefore != 0 {
			p.NotBefore = at.Add(time.Duration(r.NotBefore)).Unix()
		}
		if !expiry.IsZero() {
			p.Expires = expiry.Unix()
		}
	}
	return json.Marshal(p)
}

func (r *Record) signPKIX(dir string, payload []byte) (*horkos.SignedPayload, error) {
	private, err := privateKey(dir, r.Key)
	if err != nil {
		return nil, err
	}
	signature, key, err := attestation.Sign(private, "", payload)
	if err != nil {
		return nil, err
	}
	r.damage(signature)
	return &horkos.SignedPayload{SerializedPayload: payload,
		Signatures: []horkos.Signature{{Signature: signature, PublicKeyID: r.keyID(key)}}}, nil
}

func (r *Record) signPGP(dir string, payload []byte, at time.Time) (*horkos.PGPSignedAttestation, error) {
	if r.Broken {
		return nil, errors.New("a record of format PGP cannot be broken")
	}
	armored, err := os.ReadFile(filepath.Join(dir, "keys", r.Key+".private.asc"))
	if err != nil {
		return nil, err
	}
	signer, err := attestation.ParsePGPPrivateKey(armored, nil)
	if err != nil {
		return nil, err
	}
	message, key, err := attestation.SignPGP(signer, payload, at)
	if err != nil {
		return nil, err
	}
	return &horkos.PGPSignedAttestation{Signature: string(message), PGPKeyID: r.keyID(key), ContentType: "SIMPLE_SIGNING_JSON"}, nil
}

// signJWT signs by ES256 (RFC 7515, section 5.1; RFC 7518, section 3.4).
func (r *Record) signJWT(dir string, claims []byte) (*horkos.SignedPayload, error) {
	private, err := privateKey(dir, r.Key)
	if err != nil {
		return nil, err
	}
	signer, ok := private.(*ecdsa.PrivateKey)
	if !ok || signer.Curve.Params().BitSize != 256 {
		return nil, fmt.Errorf("key %s is not one on P-256", r.Key)
	}
	public, err := publicPEM(private)
	if err != nil {
		return nil, err
	}
	key, err := attestation.ParsePKIXKey("", public, "ecdsa-p256-sha256")
	if err != nil {
		return nil, err
	}
	header, err := json.Marshal(map[string]string{"alg": "ES256", "typ": "JWT", "kid": r.keyID(key)})
	if err != nil {
		return nil, err
	}
	encode := base64.RawURLEncoding.EncodeToString
	input := encode(header) + "." + encode(claims)
	digest := sha256.Sum256([]byte(input))
	x, y, err := ecdsa.Sign(rand.Reader, signer, digest[:])
	if err != nil {
		return nil, err
	}
	signature := make([]byte, 64)
	x.FillBytes(signature[:32])
	y.FillBytes(signature[32:])
	r.damage(signature)
	return &horkos.SignedPayload{JWTs: []horkos.JWT{{CompactJWT: input + "." + encode(signature)}}}, nil
}

func (r *Record) keyID(key *attestation.Key) string {
	if r.KeyID != nil {
		return *r.KeyID
	}
	return key.ID
}

func (r *Record) damage(signature []byte) {
	if r.Broken {
		signature[len(signature)-1] ^= 1
	}
}

func privateKey(dir, name string) (crypto.Signer, error) {
	text, err := os.ReadFile(filepath.Join(dir, "keys", name+".pem"))
	if err != nil {
		return nil, err
	}
	return attestation.ParsePKIXPrivateKey(text)
}

func publicPEM(private crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}
