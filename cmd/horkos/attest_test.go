package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/verifier"
)

// pair is a private key, as a file, and its public key.
type pair struct{ file, public string }

func newPair(t *testing.T, private crypto.Signer) pair {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pair{file, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))}
}

func newECDSA(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// policyOf requires the pair's attestation; keyID and algorithm may be empty.
func (p pair) policyOf(keyID, algorithm string) string {
	return fmt.Sprintf(`apiVersion: kritis.grafeas.io/v1beta1
kind: AttestationAuthority
metadata: {name: release, namespace: shop}
spec:
  noteReference: projects/p
  publicKeys:
  - {keyType: PKIX, keyId: %q, pkixPublicKey: {publicKeyPem: %q, signatureAlgorithm: %q}}
---
apiVersion: kritis.grafeas.io/v1beta1
kind: GenericAttestationPolicy
metadata: {name: shop, namespace: shop}
spec: {attestationAuthorityNames: [release]}
`, keyID, p.public, algorithm)
}

// attested verifies what attest printed, as of a time.
func attested(t *testing.T, policy, attestation string, at time.Time) answer {
	t.Helper()
	got := program("verify", cart+"@"+digestA, "-n", "shop", "-o", "json", "--at", at.Format(time.RFC3339),
		"--policy", write1(t, "policy.yaml", policy), "--policy", write1(t, "attestation.yaml", attestation))
	return got.answers(t)[0]
}

func TestWhatIsAttestedIsAllowedWithEveryAlgorithm(t *testing.T) {
	rsaKeys := make(map[string]pair)
	for _, bits := range []int{2048, 3072, 4096} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		rsaKeys[fmt.Sprint(bits)] = newPair(t, key)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256 := newPair(t, newECDSA(t, elliptic.P256()))
	tests := []struct {
		algorithm string
		key       pair
	}{
		{"", p256},
		{"ecdsa-p256-sha256", p256},
		{"EC_SIGN_P256_SHA256", p256},
		{"ecdsa-p384-sha384", newPair(t, newECDSA(t, elliptic.P384()))},
		{"ecdsa-p521-sha512", newPair(t, newECDSA(t, elliptic.P521()))},
		{"ed25519", newPair(t, edwards)},
		{"rsa-pss-2048-sha256", rsaKeys["2048"]},
		{"rsa-pss-3072-sha256", rsaKeys["3072"]},
		{"rsa-pss-4096-sha256", rsaKeys["4096"]},
		{"rsa-pss-4096-sha512", rsaKeys["4096"]},
		{"rsa-sign-pkcs1-2048-sha256", rsaKeys["2048"]},
		{"rsa-sign-pkcs1-3072-sha256", rsaKeys["3072"]},
		{"rsa-sign-pkcs1-4096-sha256", rsaKeys["4096"]},
		{"rsa-sign-pkcs1-4096-sha512", rsaKeys["4096"]},
	}
	for _, tt := range tests {
		t.Run(tt.algorithm, func(t *testing.T) {
			made := program("attest", cart+"@"+digestA, "--pkix-key", tt.key.file, "--pkix-alg", tt.algorithm)
			if made.code != 0 || made.errors != "" {
				t.Fatalf("%+v", made)
			}
			a := attested(t, tt.key.policyOf("", tt.algorithm), made.out, time.Now())
			if a.Result != verifier.Allowed || a.Reason != verifier.Attested || string(a.Digest) != digestA {
				t.Errorf("%s %s: %s", a.Result, a.Reason, a.Message)
			}
			if len(a.Checks) != 1 || a.Checks[0].KeyID == "" || !strings.HasPrefix(a.Checks[0].Attestation, "ImageAttestation sha256-a1") || a.Checks[0].Requirement != "all of 1" {
				t.Errorf("checks %+v", a.Checks)
			}
		})
	}
	t.Run("an algorithm that does not fit the key", func(t *testing.T) {
		got := program("attest", cart+"@"+digestA, "--pkix-key", p256.file, "--pkix-alg", "ed25519")
		if got.code != exitUndecided || got.out != "" || !strings.Contains(got.errors, "key is ECDSA P-256") {
			t.Errorf("%+v", got)
		}
	})
}

func TestTheFlagsOfAttestAreInWhatItPrints(t *testing.T) {
	key := newPair(t, newECDSA(t, elliptic.P256()))
	made := program("attest", "https://"+cart+"@"+digestA, "--pkix-key", key.file, "--key-id", "key-1", "--note", "projects/p/notes/n", "--expires", "1h")
	if made.code != 0 {
		t.Fatalf("%+v", made)
	}
	for _, part := range []string{"kind: ImageAttestation", "name: sha256-" + digestA[len("sha256:"):], "noteName: projects/p/notes/n", "publicKeyId: key-1", "resourceUri: " + cart + "@" + digestA} {
		if !strings.Contains(made.out, part) {
			t.Errorf("%q is not in\n%s", part, made.out)
		}
	}
	private, err := os.ReadFile(key.file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(made.out, strings.Split(string(private), "\n")[1]) {
		t.Error("the private key is in it")
	}
	tests := []struct {
		name   string
		policy string
		in     time.Duration
		want   verifier.Reason
	}{
		{"before it expires", key.policyOf("key-1", ""), 59 * time.Minute, verifier.Attested},
		{"after it expired", key.policyOf("key-1", ""), 61 * time.Minute, verifier.AttestationExpired},
		{"before it was signed", key.policyOf("key-1", ""), -time.Hour, verifier.SignatureInvalid},
		{"under another key id", key.policyOf("key-2", ""), 0, verifier.NotAttested},
		{"under another note", strings.Replace(key.policyOf("key-1", ""), "projects/p", "projects/q", 1), 0, verifier.NotAttested},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if a := attested(t, tt.policy, made.out, time.Now().Add(tt.in)); a.Reason != tt.want {
				t.Errorf("%s %s: %s", a.Result, a.Reason, a.Message)
			}
		})
	}
}

func TestATagBesideTheDigestIsNotAttested(t *testing.T) {
	key := newPair(t, newECDSA(t, elliptic.P256()))
	for _, name := range []string{cart + ":1@" + digestA, "https://" + cart + ":1@" + digestA} {
		made := program("attest", name, "--pkix-key", key.file)
		if made.code != 0 || made.errors != "attested is "+cart+"@"+digestA+": the tag 1 is not, it may move\n" {
			t.Fatalf("%+v", made)
		}
		if a := attested(t, key.policyOf("", ""), made.out, time.Now()); a.Result != verifier.Allowed {
			t.Errorf("%s: %s", a.Reason, a.Message)
		}
	}
}

func TestAnAttestationWithoutExpiryLasts(t *testing.T) {
	key := newPair(t, newECDSA(t, elliptic.P256()))
	made := program("attest", cart+"@"+digestA, "--pkix-key", key.file)
	if a := attested(t, key.policyOf("", ""), made.out, time.Now().AddDate(50, 0, 0)); a.Result != verifier.Allowed {
		t.Errorf("%s: %s", a.Reason, a.Message)
	}
}
