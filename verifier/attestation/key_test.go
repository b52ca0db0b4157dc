package attestation

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
)

func TestAnAlgorithmIsKnownByAllItsSpellings(t *testing.T) {
	tests := []struct{ key, written, want string }{
		{"rsa-2048", "rsa-pss-2048-sha256", "rsa-pss-2048-sha256"},
		{"rsa-2048", "RSA-PSS-2048-SHA256", "rsa-pss-2048-sha256"},
		{"rsa-2048", "RSA_PSS_2048_SHA256", "rsa-pss-2048-sha256"},
		{"rsa-2048", "RSA_SIGN_PSS_2048_SHA256", "rsa-pss-2048-sha256"},
		{"rsa-3072", "RSA_PSS_3072_SHA256", "rsa-pss-3072-sha256"},
		{"rsa-4096", "RSA_PSS_4096_SHA256", "rsa-pss-4096-sha256"},
		{"rsa-4096", "RSA_SIGN_PSS_4096_SHA512", "rsa-pss-4096-sha512"},
		{"rsa-2048", "RSA_SIGN_PKCS1_2048_SHA256", "rsa-sign-pkcs1-2048-sha256"},
		{"rsa-3072", "rsa-sign-pkcs1-3072-sha256", "rsa-sign-pkcs1-3072-sha256"},
		{"rsa-4096", "RSA_SIGN_PKCS1_4096_SHA256", "rsa-sign-pkcs1-4096-sha256"},
		{"rsa-4096", "RSA_SIGN_PKCS1_4096_SHA512", "rsa-sign-pkcs1-4096-sha512"},
		{"ecdsa-p256", "ECDSA_P256_SHA256", "ecdsa-p256-sha256"},
		{"ecdsa-p256", "EC_SIGN_P256_SHA256", "ecdsa-p256-sha256"},
		{"ecdsa-p384", "ec-sign-p384-sha384", "ecdsa-p384-sha384"},
		{"ecdsa-p521", "Ecdsa-P521-Sha512", "ecdsa-p521-sha512"},
		{"ed25519", "Ed25519", "ed25519"},
		{"rsa-2048", "", "rsa-sign-pkcs1-2048-sha256"},
		{"rsa-3072", "", "rsa-sign-pkcs1-3072-sha256"},
		{"rsa-4096", "", "rsa-sign-pkcs1-4096-sha256"},
		{"ecdsa-p256", "", "ecdsa-p256-sha256"},
		{"ecdsa-p384", "", "ecdsa-p384-sha384"},
		{"ecdsa-p521", "", "ecdsa-p521-sha512"},
		{"ed25519", "", "ed25519"},
	}
	for _, tt := range tests {
		key, err := ParsePKIXKey("", testdata(t, tt.key+".pem"), tt.written)
		if err != nil {
			t.Errorf("%s with %q: %v", tt.key, tt.written, err)
		} else if key.Algorithm() != tt.want {
			t.Errorf("%s with %q: %s, want %s", tt.key, tt.written, key.Algorithm(), tt.want)
		}
	}
}

func TestAKeyMustFitItsAlgorithm(t *testing.T) {
	for _, v := range vectors() {
		for _, a := range algorithms() {
			key, err := ParsePKIXKey("", testdata(t, v.key+".pem"), a.name)
			if err == nil && key.algorithm.key != a.key || err != nil && !strings.Contains(err.Error(), "algorithm "+a.name+" wants "+a.key) {
				t.Errorf("%s with %s: %v", v.key, a.name, err)
			}
		}
	}
	tests := []struct{ name, key, algorithm, says string }{
		{"a smaller key", "rsa-2048", "rsa-pss-4096-sha256", "key is RSA 2048, algorithm rsa-pss-4096-sha256 wants RSA 4096"},
		{"a larger key", "rsa-4096", "RSA_PSS_2048_SHA256", "key is RSA 4096, algorithm rsa-pss-2048-sha256 wants RSA 2048"},
		{"another curve", "ecdsa-p256", "ecdsa-p384-sha384", "key is ECDSA P-256, algorithm ecdsa-p384-sha384 wants ECDSA P-384"},
		{"another hash", "ecdsa-p256", "ecdsa-p256-sha384", "unknown signature algorithm"},
		{"SHA-1", "rsa-2048", "rsa-sign-pkcs1-2048-sha1", "unknown signature algorithm"},
		{"a name without size", "rsa-2048", "rsa-sign-pkcs1-sha256", "unknown signature algorithm"},
		{"a space", "ed25519", " ed25519", "unknown signature algorithm"},
		{"the enum's zero value", "rsa-2048", "SIGNATURE_ALGORITHM_UNSPECIFIED", "unknown signature algorithm"},
		{"a key too small for any", "bad.rsa-1024", "", "key is RSA 1024, which no algorithm wants"},
		{"a curve too small for any", "bad.ecdsa-p224", "", "key is ECDSA P-224, which no algorithm wants"},
		{"an exponent of 3", "bad.rsa-2048-exponent-3", "", "public exponent 3"},
		{"a key for key agreement", "bad.x25519", "", "which no algorithm wants"},
		{"a curve of Bitcoin", "bad.ecdsa-secp256k1", "", "parsing public key"},
		{"a key bound to PSS", "bad.rsa-pss", "", "parsing public key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key, err := ParsePKIXKey("", testdata(t, tt.key+".pem"), tt.algorithm)
			if err == nil || key != nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, %v; want %q", key, err, tt.says)
			}
		})
	}
}

func TestAnRSAKeyThatCannotBeOneIsRefused(t *testing.T) {
	odd := new(big.Int).SetBit(big.NewInt(1), 2047, 1)
	even := new(big.Int).SetBit(big.NewInt(2), 2047, 1)
	for _, public := range []*rsa.PublicKey{{N: even, E: 65537}, {N: odd, E: 65536}, {N: odd, E: 65538}, {N: odd, E: 1}, {N: odd, E: -65539}} {
		if _, err := newKey("", public, ""); err == nil {
			t.Errorf("exponent %d, lowest bit of the modulus %d: no error", public.E, public.N.Bit(0))
		}
	}
}

func TestAPEMFileHasOneBlockAndNothingElse(t *testing.T) {
	good := testdata(t, "ecdsa-p256.pem")
	other := testdata(t, "ecdsa-p256.other.pem")
	block, _ := pem.Decode(good)
	encode := func(kind string, headers map[string]string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Headers: headers, Bytes: der})
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	accepted := map[string][]byte{
		"white space around it": join([]byte("\n \t"), good, []byte("\r\n\n")),
		"lines ending in CRLF":  bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")),
		"no newline at the end": bytes.TrimSpace(good),
	}
	for name, data := range accepted {
		if _, err := ParsePKIXKey("", data, ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused := map[string][]byte{
		"nothing":                       nil,
		"no PEM":                        []byte("hello"),
		"text before the block":         join([]byte("my key\n"), good),
		"text behind the block":         join(good, []byte("my key\n")),
		"two blocks":                    join(good, other),
		"a broken block before another": join([]byte("-----BEGIN PUBLIC KEY-----\n!\n"), good),
		"a block that does not end":     good[:len(good)-30],
		"headers":                       encode("PUBLIC KEY", map[string]string{"a": "b"}, block.Bytes),
		"another label":                 encode("CERTIFICATE", nil, block.Bytes),
		"a private key's label":         encode("PRIVATE KEY", nil, block.Bytes),
		"something behind the DER":      encode("PUBLIC KEY", nil, append(bytes.Clone(block.Bytes), 0)),
		"DER that is cut":               encode("PUBLIC KEY", nil, block.Bytes[:len(block.Bytes)-1]),
		"a point off the curve":         encode("PUBLIC KEY", nil, append(bytes.Clone(block.Bytes[:len(block.Bytes)-1]), block.Bytes[len(block.Bytes)-1]^1)),
		"an empty block":                encode("PUBLIC KEY", nil, nil),
	}
	for name, data := range refused {
		if key, err := ParsePKIXKey("", data, ""); err == nil {
			t.Errorf("%s: accepted as %s", name, key.ID)
		}
	}
}

func TestAKeyFileHasALimit(t *testing.T) {
	good := testdata(t, "ed25519.pem")
	filled := append(bytes.Clone(good), bytes.Repeat([]byte("\n"), MaxKeyBytes-len(good))...)
	if _, err := ParsePKIXKey("", filled, ""); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := ParsePKIXKey("", append(filled, '\n'), ""); err == nil {
		t.Error("above the limit: no error")
	}
}

func TestAKeyWithoutAnIDIsNamedByItsHash(t *testing.T) {
	data := testdata(t, "rsa-2048.pem")
	block, _ := pem.Decode(data)
	sum := sha256.Sum256(block.Bytes)
	key, err := ParsePKIXKey("", data, "")
	if err != nil {
		t.Fatal(err)
	}
	if want := "ni:///sha-256;" + base64.RawURLEncoding.EncodeToString(sum[:]); key.ID != want {
		t.Errorf("id %s, want %s", key.ID, want)
	}
	if key.Distinct() != hex.EncodeToString(sum[:]) {
		t.Errorf("distinct %s", key.Distinct())
	}
	named, err := ParsePKIXKey("//cloudkms.googleapis.com/v1/projects/p", data, "")
	if err != nil || named.ID != "//cloudkms.googleapis.com/v1/projects/p" {
		t.Errorf("a given id: %v, %v", named, err)
	}
}

func TestKeysAreToldApartByWhatVerifies(t *testing.T) {
	parse := func(id, file, algorithm string) *Key {
		t.Helper()
		key, err := ParsePKIXKey(id, testdata(t, file), algorithm)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	key := parse("a", "rsa-2048.pem", "")
	tests := []struct {
		name                          string
		other                         *Key
		sameDistinct, sameFingerprint bool
	}{
		{"another id", parse("b", "rsa-2048.pem", "RSA_SIGN_PKCS1_2048_SHA256"), true, true},
		{"another encoding", parse("a", "rsa-2048.pkcs1.pem", ""), true, true},
		{"another algorithm", parse("a", "rsa-2048.pem", "rsa-pss-2048-sha256"), true, false},
		{"another key", parse("a", "rsa-2048.other.pem", ""), false, false},
	}
	for _, tt := range tests {
		if same := key.Distinct() == tt.other.Distinct(); same != tt.sameDistinct {
			t.Errorf("%s: same distinct value %v", tt.name, same)
		}
		if same := key.Fingerprint() == tt.other.Fingerprint(); same != tt.sameFingerprint {
			t.Errorf("%s: same fingerprint %v", tt.name, same)
		}
	}
}
