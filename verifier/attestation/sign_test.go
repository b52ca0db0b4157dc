package attestation

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io"
	"strings"
	"testing"
)

// signers are new keys of each type. RSA 2048 stands for all sizes: larger ones take long to make.
func signers(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	must := func(signer crypto.Signer, err error) crypto.Signer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return signer
	}
	_, ed, err := ed25519.GenerateKey(nil)
	p256, err256 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, err384 := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, err521 := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	rsa2048, errRSA := rsa.GenerateKey(rand.Reader, 2048)
	return map[string]crypto.Signer{
		"RSA 2048": must(rsa2048, errRSA), "ECDSA P-256": must(p256, err256), "ECDSA P-384": must(p384, err384),
		"ECDSA P-521": must(p521, err521), "Ed25519": must(ed, err),
	}
}

func TestWhatIsSignedVerifiesUnderThePublicKey(t *testing.T) {
	keys := signers(t)
	for _, a := range algorithms() {
		signer, ok := keys[a.key]
		if !ok {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			signature, key, err := Sign(signer, strings.ToUpper(a.name), []byte(good))
			if err != nil {
				t.Fatal(err)
			}
			spki, err := x509.MarshalPKIXPublicKey(signer.Public())
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := ParsePKIXKey("", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}), a.name)
			if err != nil {
				t.Fatal(err)
			}
			if parsed.ID != key.ID || parsed.Fingerprint() != key.Fingerprint() {
				t.Errorf("signed as %s, parsed as %s", key.ID, parsed.ID)
			}
			if got := Verify(parsed, &Envelope{Format: PKIX, Payload: []byte(good), Signature: signature}); got.Failure != nil {
				t.Error(got.Failure)
			}
		})
	}
}

func TestWhatWouldNotVerifyIsNotSigned(t *testing.T) {
	ed := signers(t)["Ed25519"]
	if _, _, err := Sign(ed, "ecdsa-p256-sha256", []byte(good)); err == nil {
		t.Error("a key that does not fit its algorithm signed")
	}
	if _, _, err := Sign(ed, "", []byte(`{}`)); err == nil {
		t.Error("a payload that says nothing was signed")
	}
	if _, _, err := Sign(broken{ed}, "", []byte(good)); err == nil {
		t.Error("a signer that signs something else went unnoticed")
	}
}

// broken signs something else than it is asked to, as a misconfigured key service would.
type broken struct{ crypto.Signer }

func (b broken) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return b.Signer.Sign(random, append(digest, 0), opts)
}

func TestPrivateKeysAreReadInTheirUsualForms(t *testing.T) {
	keys := signers(t)
	block := func(kind string, der []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	for name, signer := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(signer)
		forms := map[string][]byte{"PKCS#8": block("PRIVATE KEY", der, err)}
		switch key := signer.(type) {
		case *rsa.PrivateKey:
			forms["PKCS#1"] = block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key), nil)
		case *ecdsa.PrivateKey:
			der, err := x509.MarshalECPrivateKey(key)
			forms["SEC 1"] = block("EC PRIVATE KEY", der, err)
			forms["SEC 1 behind its parameters"] = append(block("EC PARAMETERS", []byte{5, 0}, nil), forms["SEC 1"]...)
		}
		for form, data := range forms {
			got, err := ParsePKIXPrivateKey(data)
			if err != nil {
				t.Errorf("%s as %s: %v", name, form, err)
				continue
			}
			if public, ok := got.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(signer.Public()) {
				t.Errorf("%s as %s: another key", name, form)
			}
		}
	}
}

func TestWhatIsNoPrivateKeyIsRefused(t *testing.T) {
	der, err := x509.MarshalPKCS8PrivateKey(signers(t)["Ed25519"])
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	key := block("PRIVATE KEY", der)
	tests := []struct {
		name string
		data []byte
		says string
	}{
		{"nothing", nil, "PEM"},
		{"a public key", testdata(t, "ed25519.pem"), "want PRIVATE KEY"},
		{"an encrypted key", block("ENCRYPTED PRIVATE KEY", der), "decrypt it first: openssl pkey -in KEY"},
		{"a key encrypted in the older way", bytes.Replace(block("EC PRIVATE KEY", der), []byte("-----\n"), []byte("-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n"), 1), "decrypt it first: openssl pkey -in KEY"},
		{"two keys", append(key, key...), "more than one"},
		{"parameters alone", block("EC PARAMETERS", der), "PEM"},
		{"a key under another label", block("EC PRIVATE KEY", der), ""},
		{"a key that is cut", block("PRIVATE KEY", der[:len(der)-1]), ""},
	}
	for _, tt := range tests {
		signer, err := ParsePKIXPrivateKey(tt.data)
		if err == nil || signer != nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, %v; want %q", tt.name, signer, err, tt.says)
		}
	}
}
