package attestation

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"testing"
)

// BenchmarkVerify compares each format with the bare operation on the same kind of key.
func BenchmarkVerify(b *testing.B) {
	envelope := func(key *Key, env *Envelope) func(*testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if out := Verify(key, env); out.Failure != nil {
					b.Fatal(out.Failure)
				}
			}
		}
	}
	digest := sha256.Sum256(testdata(b, "payload.json"))
	rsaKey := publicKey(b, "rsa-2048.pem").(*rsa.PublicKey)
	rsaSignature := testdata(b, "rsa-sign-pkcs1-2048-sha256.sig")
	b.Run("RSA 2048/bare", func(b *testing.B) {
		for b.Loop() {
			if err := rsa.VerifyPKCS1v15(rsaKey, crypto.SHA256, digest[:], rsaSignature); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("RSA 2048/PKIX", envelope(pkixVector(b, vector{"rsa-sign-pkcs1-2048-sha256", "rsa-2048", "rsa-sign-pkcs1-2048-sha256"})))
	b.Run("RSA 2048/JWT", envelope(jwtKey(b, "RS256"), token(testdata(b, "jwt/RS256.jwt"))))
	b.Run("RSA 2048/PGP", envelope(loadPGPKey(b, "rsa.asc"), loadMessage(b, "rsa")))
	b.Run("RSA 2048/PGP, not compressed", envelope(loadPGPKey(b, "rsa.asc"), message(join(messageParts(b, "rsa.msg")...))))

	edKey := publicKey(b, "ed25519.pem").(ed25519.PublicKey)
	edSignature, payload := testdata(b, "ed25519.sig"), testdata(b, "payload.json")
	b.Run("Ed25519/bare", func(b *testing.B) {
		for b.Loop() {
			if !ed25519.Verify(edKey, payload, edSignature) {
				b.Fatal("it does not verify")
			}
		}
	})
	b.Run("Ed25519/PKIX", envelope(pkixVector(b, vector{"ed25519", "ed25519", "ed25519"})))
	b.Run("Ed25519/JWT", envelope(jwtKey(b, "EdDSA"), token(testdata(b, "jwt/EdDSA.jwt"))))
	b.Run("Ed25519/PGP", envelope(loadPGPKey(b, "ed25519.asc"), loadMessage(b, "ed25519")))
	b.Run("Ed25519/PGP, not compressed", envelope(loadPGPKey(b, "ed25519.asc"), loadMessage(b, "ed25519.none")))
}

func publicKey(b *testing.B, name string) crypto.PublicKey {
	b.Helper()
	block, _ := pem.Decode(testdata(b, name))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		b.Fatal(err)
	}
	return key
}

func pkixVector(b *testing.B, v vector) (*Key, *Envelope) {
	b.Helper()
	key, err := ParsePKIXKey("release", testdata(b, v.key+".pem"), v.algorithm)
	if err != nil {
		b.Fatal(err)
	}
	return key, &Envelope{Format: PKIX, Payload: testdata(b, "payload.json"), Signature: testdata(b, v.signature+".sig")}
}
