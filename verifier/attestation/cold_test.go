package attestation

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"math"
	"testing"
	"time"
)

// BenchmarkCold tells what verifying an envelope costs in bare operations on the same kind
// of key (x-bare). The two take turns, and the fastest turn of each counts: others on the
// machine slow both down, but not all turns.
func BenchmarkCold(b *testing.B) {
	digest := sha256.Sum256(testdata(b, "payload.json"))
	rsaKey := publicKey(b, "rsa-2048.pem").(*rsa.PublicKey)
	rsaSignature := testdata(b, "rsa-sign-pkcs1-2048-sha256.sig")
	bareRSA := func() bool { return rsa.VerifyPKCS1v15(rsaKey, crypto.SHA256, digest[:], rsaSignature) == nil }
	edKey := publicKey(b, "ed25519.pem").(ed25519.PublicKey)
	edSignature, payload := testdata(b, "ed25519.sig"), testdata(b, "payload.json")
	bareEd := func() bool { return ed25519.Verify(edKey, payload, edSignature) }

	verify := func(key *Key, env *Envelope) func() bool {
		return func() bool { return Verify(key, env).Failure == nil }
	}
	for _, bm := range []struct {
		name         string
		bare, format func() bool
	}{
		{"RSA 2048/PKIX", bareRSA, verify(pkixVector(b, vector{"rsa-sign-pkcs1-2048-sha256", "rsa-2048", "rsa-sign-pkcs1-2048-sha256"}))},
		{"RSA 2048/JWT", bareRSA, verify(jwtKey(b, "RS256"), token(testdata(b, "jwt/RS256.jwt")))},
		{"RSA 2048/PGP", bareRSA, verify(loadPGPKey(b, "rsa.asc"), loadMessage(b, "rsa"))},
		{"RSA 2048/PGP, not compressed", bareRSA, verify(loadPGPKey(b, "rsa.asc"), message(join(messageParts(b, "rsa.msg")...)))},
		{"Ed25519/PKIX", bareEd, verify(pkixVector(b, vector{"ed25519", "ed25519", "ed25519"}))},
		{"Ed25519/JWT", bareEd, verify(jwtKey(b, "EdDSA"), token(testdata(b, "jwt/EdDSA.jwt")))},
		{"Ed25519/PGP", bareEd, verify(loadPGPKey(b, "ed25519.asc"), loadMessage(b, "ed25519"))},
		{"Ed25519/PGP, not compressed", bareEd, verify(loadPGPKey(b, "ed25519.asc"), loadMessage(b, "ed25519.none"))},
	} {
		b.Run(bm.name, func(b *testing.B) {
			bare, format := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
			turn := func(op func() bool) time.Duration {
				started := time.Now()
				for range 10 {
					if !op() {
						b.Fatal("it does not verify")
					}
				}
				return time.Since(started)
			}
			for b.Loop() {
				bare, format = min(bare, turn(bm.bare)), min(format, turn(bm.format))
			}
			b.ReportMetric(float64(format)/float64(bare), "x-bare")
			b.ReportMetric(0, "ns/op")
		})
	}
}
