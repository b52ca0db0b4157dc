package attestation

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/horkos/horkos/verifier/image"
)

// vector is a signature that openssl made over testdata/payload.json (testdata/make.sh).
type vector struct{ algorithm, key, signature string }

func vectors() []vector {
	list := []vector{
		{"rsa-pss-2048-sha256", "rsa-2048", "rsa-pss-2048-sha256.maximum-salt"},
		{"rsa-pss-2048-sha256", "rsa-2048", "rsa-pss-2048-sha256.no-salt"},
	}
	for _, a := range algorithms() {
		list = append(list, vector{a.name, keyFile(a), a.name})
	}
	return list
}

// keyFile is the name of the file of a key for an algorithm.
func keyFile(a algorithm) string {
	return strings.NewReplacer("RSA ", "rsa-", "ECDSA P-", "ecdsa-p", "Ed", "ed").Replace(a.key)
}

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (v vector) load(t *testing.T) (*Key, *Envelope) {
	t.Helper()
	key, err := ParsePKIXKey("release", testdata(t, v.key+".pem"), v.algorithm)
	if err != nil {
		t.Fatal(err)
	}
	return key, &Envelope{Format: PKIX, KeyID: "release", Payload: testdata(t, "payload.json"), Signature: testdata(t, v.signature+".sig")}
}

// wantFailure asserts a failure of a kind, and no statement.
func wantFailure(t *testing.T, what string, got Outcome, kind FailureKind) {
	t.Helper()
	if got.Failure == nil || got.Failure.Kind != kind || got.Failure.Detail == "" || got.Statement != nil {
		t.Errorf("%s: got %+v (%v), want a %s and no statement", what, got.Statement, got.Failure, kind)
	}
}

func TestWhatOpensslSignedVerifies(t *testing.T) {
	want := Statement{
		Identity: image.Identity{
			Repository: "registry.example.com/team/app",
			Digest:     "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		},
		Timestamp: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		Expires:   time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	for _, v := range vectors() {
		t.Run(v.signature, func(t *testing.T) {
			key, env := v.load(t)
			if got := Verify(key, env); got.Failure != nil || *got.Statement != want {
				t.Errorf("got %+v, %v; want %+v", got.Statement, got.Failure, want)
			}
		})
	}
}

func TestAChangedSignatureDoesNotVerify(t *testing.T) {
	for _, v := range vectors() {
		t.Run(v.signature, func(t *testing.T) {
			key, env := v.load(t)
			good := env.Signature
			try := func(what string, signature []byte) {
				t.Helper()
				changed := *env
				changed.Signature = signature
				wantFailure(t, what, Verify(key, &changed), BadSignature)
			}
			for i := range good {
				flipped := bytes.Clone(good)
				flipped[i] ^= 1 << (i % 8)
				try(fmt.Sprintf("a bit of byte %d flipped", i), flipped)
			}
			for _, n := range []int{0, 1, len(good) / 2, len(good) - 1} {
				try(fmt.Sprintf("cut to %d bytes", n), good[:n])
			}
			try("none", nil)
			try("a zero byte behind", append(bytes.Clone(good), 0))
			try("a zero byte before", append([]byte{0}, good...))
			try("written twice", append(bytes.Clone(good), good...))
			try("all zero", make([]byte, len(good)))
		})
	}
}

func TestAChangedPayloadDoesNotVerify(t *testing.T) {
	for _, v := range vectors() {
		t.Run(v.signature, func(t *testing.T) {
			key, env := v.load(t)
			good := env.Payload
			try := func(what string, payload []byte) {
				t.Helper()
				changed := *env
				changed.Payload = payload
				wantFailure(t, what, Verify(key, &changed), BadSignature)
			}
			for i := 0; i < len(good); i += 11 {
				flipped := bytes.Clone(good)
				flipped[i] ^= 1 << (i % 8)
				try(fmt.Sprintf("a bit of byte %d flipped", i), flipped)
			}
			try("none", nil)
			try("cut", good[:len(good)-1])
			try("a newline behind", append(bytes.Clone(good), '\n'))
			try("another image", bytes.Replace(good, []byte("team/app"), []byte("team/apq"), 1))
			try("another order", []byte(`{"optional":{},`+string(good[1:])))
		})
	}
}

func TestAnotherKeyDoesNotVerify(t *testing.T) {
	for _, v := range vectors() {
		t.Run(v.signature, func(t *testing.T) {
			key, env := v.load(t)
			other, err := ParsePKIXKey(key.ID, testdata(t, v.key+".other.pem"), v.algorithm)
			if err != nil {
				t.Fatal(err)
			}
			wantFailure(t, "another key of the same id", Verify(other, env), BadSignature)
			for _, a := range algorithms() {
				if a.key != key.algorithm.key || a.name == v.algorithm {
					continue
				}
				again, err := ParsePKIXKey(key.ID, testdata(t, v.key+".pem"), a.name)
				if err != nil {
					t.Fatal(err)
				}
				wantFailure(t, "the same key by "+a.name, Verify(again, env), BadSignature)
			}
		})
	}
}

// TestTheSignatureOfOneAttestationIsNoneOfAnother: both are good, by one key.
func TestTheSignatureOfOneAttestationIsNoneOfAnother(t *testing.T) {
	ecdsaKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, private := range map[string]crypto.Signer{"Ed25519": ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), "ECDSA": ecdsaKey, "RSA": rsaKey} {
		var key *Key
		var envelopes []Envelope
		for _, repository := range []string{"registry.example.com/team/app", "registry.example.com/team/evil"} {
			payload, err := NewPayload(image.Identity{Repository: repository, Digest: digest}, time.Unix(1767225600, 0), time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			signature, signer, err := Sign(private, "", payload)
			if err != nil {
				t.Fatal(err)
			}
			key = signer
			envelopes = append(envelopes, NewEnvelope(PKIX, key.ID, payload, signature))
		}
		for i, j := range []int{1, 0} {
			if got := Verify(key, &envelopes[i]); got.Failure != nil {
				t.Errorf("%s: %v", name, got.Failure)
			}
			swapped := NewEnvelope(PKIX, key.ID, envelopes[i].Payload, envelopes[j].Signature)
			wantFailure(t, name, Verify(key, &swapped), BadSignature)
		}
	}
}

// One signature in several encodings would be no forgery, but two readers could differ.
func TestAnECDSASignatureHasOneEncoding(t *testing.T) {
	key, env := vector{"ecdsa-p256-sha256", "ecdsa-p256", "ecdsa-p256-sha256"}.load(t)
	good := env.Signature
	if good[0] != 0x30 || int(good[1]) != len(good)-2 || good[2] != 0x02 {
		t.Fatalf("not the DER this test knows: %x", good)
	}
	grow := func(by byte, body ...byte) []byte { return append([]byte{0x30, good[1] + by}, body...) }
	tests := []struct {
		name      string
		signature []byte
	}{
		{"the length in long form", append([]byte{0x30, 0x81, good[1]}, good[2:]...)},
		{"an indefinite length", append(append([]byte{0x30, 0x80}, good[2:]...), 0, 0)},
		{"a NULL inside the sequence", grow(2, append(bytes.Clone(good[2:]), 0x05, 0x00)...)},
		{"a NULL behind the sequence", append(bytes.Clone(good), 0x05, 0x00)},
		{"an integer with a needless zero", grow(1, append([]byte{0x02, good[3] + 1, 0}, good[4:]...)...)},
		{"r and s side by side", bytes.Repeat([]byte{1}, 64)},
		{"r and s zero", []byte{0x30, 6, 2, 1, 0, 2, 1, 0}},
	}
	for _, tt := range tests {
		changed := *env
		changed.Signature = tt.signature
		wantFailure(t, tt.name, Verify(key, &changed), BadSignature)
	}
}

func TestTheKeyIDOfAnEnvelopePlaysNoPart(t *testing.T) {
	key, env := vector{"ed25519", "ed25519", "ed25519"}.load(t)
	env.KeyID = "another"
	if got := Verify(key, env); got.Failure != nil {
		t.Error(got.Failure)
	}
}

func TestWhatCannotBeVerifiedFails(t *testing.T) {
	key, env := vector{"ed25519", "ed25519", "ed25519"}.load(t)
	wantFailure(t, "no key", Verify(nil, env), BadSignature)
	wantFailure(t, "an empty key", Verify(&Key{}, env), BadSignature)
	wantFailure(t, "no envelope", Verify(key, nil), BadSignature)
	wantFailure(t, "an empty envelope", Verify(key, &Envelope{}), BadSignature)
	env.Format = "pkix"
	wantFailure(t, "an unknown format", Verify(key, env), BadSignature)
}

// signed makes an envelope with a good signature over anything.
func signed(t *testing.T, payload []byte) (*Key, *Envelope) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := newKey("", public, "")
	if err != nil {
		t.Fatal(err)
	}
	return key, &Envelope{Format: PKIX, Payload: payload, Signature: ed25519.Sign(private, payload)}
}

func TestThePayloadHasALimit(t *testing.T) {
	payload := testdata(t, "payload.json")
	filled := append(bytes.Clone(payload), bytes.Repeat([]byte(" "), MaxPayloadBytes-len(payload))...)
	if got := Verify(signed(t, filled)); got.Failure != nil {
		t.Errorf("at the limit: %v", got.Failure)
	}
	wantFailure(t, "above the limit", Verify(signed(t, append(filled, ' '))), BadSignature)
}

func TestAGoodSignatureOverSomethingElseIsABadPayload(t *testing.T) {
	for _, payload := range []string{"", "{}", "hello", `{"critical":null}`} {
		wantFailure(t, payload, Verify(signed(t, []byte(payload))), BadPayload)
	}
}

func TestAFailureQuotesLittleAndNothingUnprintable(t *testing.T) {
	for _, payload := range []string{
		`{"` + strings.Repeat("x", MaxPayloadBytes/2) + `":1}`,
		`{"` + strings.Repeat("é", 1000) + `":1}`,
		`{"\u001b[2J\n\u202e\u0000":1}`,
		strings.Replace(good, "team/app", strings.Repeat("é", 200), 1),
	} {
		got := Verify(signed(t, []byte(payload)))
		wantFailure(t, payload[:10], got, BadPayload)
		detail := got.Failure.Detail
		if len(detail) > maxDetailBytes || !utf8.ValidString(detail) || strings.ContainsFunc(detail, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("detail of %d bytes: %q", len(detail), detail)
		}
	}
}
