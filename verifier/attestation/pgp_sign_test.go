package attestation

import (
	"bytes"
	"encoding/base64"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func loadSigner(t testing.TB, name, passphrase string) *PGPSigner {
	t.Helper()
	signer, err := ParsePGPPrivateKey(testdata(t, filepath.Join("pgp", name)), []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func TestWhatIsSignedByPGPVerifiesUnderThePublicKey(t *testing.T) {
	tests := []struct {
		private, passphrase, public string
		from                        time.Time
	}{
		{"rsa", "", "rsa", pgpMadeAt},
		{"ecdsa-p384", "", "ecdsa-p384", pgpMadeAt},
		{"passphrase", "correct horse", "passphrase", pgpMadeAt},
		{"subkeys", "", "subkeys", pgpMadeAt.Add(24 * time.Hour)},
		{"subkeys-only", "", "subkeys", pgpMadeAt.Add(24 * time.Hour)},
	}
	for _, tt := range tests {
		t.Run(tt.private, func(t *testing.T) {
			at := time.Date(2026, 3, 1, 12, 0, 0, 999, time.UTC)
			data, key, err := SignPGP(loadSigner(t, tt.private+".private.asc", tt.passphrase), testdata(t, "payload.json"), at)
			if err != nil {
				t.Fatal(err)
			}
			public := loadPGPKey(t, tt.public+".asc")
			if key.ID != public.ID {
				t.Errorf("signed as %s, the public key is %s", key.ID, public.ID)
			}
			want := saidByPGP()
			want.SignedAt, want.KeyFrom = at.Truncate(time.Second), tt.from
			if got := Verify(public, message(data)); got.Failure != nil || *got.Statement != want {
				t.Errorf("got %+v, %v\nwant %+v", got.Statement, got.Failure, want)
			}
			if !bytes.HasPrefix(data, []byte("-----BEGIN PGP MESSAGE-----\n")) {
				t.Errorf("%q", data)
			}
		})
	}
}

func TestWhatWouldNotVerifyIsNotSignedByPGP(t *testing.T) {
	signer, payload := loadSigner(t, "rsa.private.asc", ""), testdata(t, "payload.json")
	if _, _, err := SignPGP(signer, []byte("{}"), pgpSignedAt); err == nil {
		t.Error("a payload that says nothing was signed")
	}
	if _, _, err := SignPGP(signer, payload, pgpMadeAt.Add(-time.Second)); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("signed before the key was made: %v", err)
	}
	if _, _, err := SignPGP(signer, bytes.Repeat([]byte(" "), MaxPayloadBytes+1), pgpSignedAt); err == nil {
		t.Error("a payload above the limit was signed")
	}
}

func TestWhatIsNoPGPPrivateKeyIsRefused(t *testing.T) {
	read := func(name string) []byte { return testdata(t, filepath.Join("pgp", name)) }
	key := read("passphrase.private.asc")
	tests := []struct {
		name, passphrase string
		data             []byte
		says             string
	}{
		{"nothing", "", nil, "neither"},
		{"a public key", "", read("rsa.asc"), "PUBLIC KEY BLOCK"},
		{"a public key in binary", "", read("ed25519.gpg"), "no part that may sign"},
		{"no passphrase", "", key, "needs its passphrase"},
		{"another passphrase", "correct horse\n", key, "wrong passphrase"},
		{"a damaged key", "", []byte(base64.StdEncoding.EncodeToString([]byte{0xc5, 6, 4, 0, 0, 0, 0, 1})), "malformed private key"},
		{"nearly no key", "", []byte{0xc5, 1, 4}, "cut short"},
		{"a certificate that only certifies", "", onlyPrimary(t, "subkeys.private.asc"), "no part that may sign"},
	}
	for _, tt := range tests {
		signer, err := ParsePGPPrivateKey(tt.data, []byte(tt.passphrase))
		if err == nil || signer != nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, %v; want %q", tt.name, signer, err, tt.says)
		}
		if err != nil && strings.Contains(err.Error(), "horse") {
			t.Errorf("%s: it tells the passphrase", tt.name)
		}
	}
}

func onlyPrimary(t *testing.T, name string) []byte {
	t.Helper()
	packets, err := readPackets(testdata(t, filepath.Join("pgp", name)), labelPrivateKey, MaxPGPKeyBytes)
	if err != nil {
		t.Fatal(err)
	}
	return join(packets[:3]...)
}
