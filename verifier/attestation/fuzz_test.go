package attestation

import (
	"os"
	"path/filepath"
	"testing"
)

// seeds adds the contents of files under testdata.
func seeds(f *testing.F, pattern string) {
	f.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(files) == 0 {
		f.Fatalf("%s: %v, %v", pattern, files, err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
}

// Nobody forges a signature: what verifies says what the signer said.
func FuzzPGPMessage(f *testing.F) {
	seeds(f, "pgp/*.msg")
	seeds(f, "pgp/ed25519.gpg")
	// Without the armor and compression that hide the packets from the fuzzer.
	for _, name := range []string{"rsa", "ecdsa-p256", "ed25519", "subkey", "two", "expires", "notation"} {
		f.Add(join(messageParts(f, name+".msg")...))
	}
	keys := []*Key{
		loadPGPKey(f, "rsa.asc"), loadPGPKey(f, "ecdsa-p256.asc"), loadPGPKey(f, "ed25519.asc"),
		loadPGPKey(f, "subkeys.asc"), loadPGPKey(f, "expired.asc"), loadPGPKey(f, "revoked.asc"),
	}
	want := saidByPGP().Identity
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, key := range keys {
			got := Verify(key, message(data))
			if got.Failure == nil && got.Statement.Identity != want {
				t.Errorf("it says %+v", got.Statement)
			}
			if got.Failure != nil && (got.Statement != nil || got.Failure.Detail == "" || len(got.Failure.Detail) > maxDetailBytes) {
				t.Errorf("a failure of %+v: %v", got.Statement, got.Failure)
			}
		}
		ids, err := PGPKeyIDs(data)
		if err != nil && ids != nil || len(ids) > MaxPGPSignatures {
			t.Errorf("%v, %v", ids, err)
		}
	})
}

// As above, with the lengths of packets right, which the fuzzer seldom gets.
func FuzzPGPMessageParts(f *testing.F) {
	for _, name := range []string{"rsa", "ecdsa-p256", "ed25519", "ed25519.text", "subkey", "expires", "notation"} {
		parts := messageParts(f, name+".msg")
		f.Add(parts[0].body, parts[1].body, parts[2].body)
	}
	packets, err := readPackets(testdata(f, "rfc9580.msg"), labelMessage, MaxPGPMessageBytes)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packets[0].body, packets[1].body, packets[2].body)
	newStyle, err := ParsePGPKey("", testdata(f, "rfc9580.asc"))
	if err != nil {
		f.Fatal(err)
	}
	keys := []*Key{loadPGPKey(f, "rsa.asc"), loadPGPKey(f, "ecdsa-p256.asc"), loadPGPKey(f, "ed25519.asc"), loadPGPKey(f, "subkeys.asc"), newStyle}
	want := saidByPGP().Identity
	f.Fuzz(func(t *testing.T, onePass, literal, signature []byte) {
		one, data, sig := pgpPacket{tagOnePass, onePass}, pgpPacket{tagLiteral, literal}, pgpPacket{tagSignature, signature}
		for _, key := range keys {
			for _, m := range [][]byte{join(one, data, sig), join(sig, data)} {
				if got := Verify(key, message(m)); got.Failure == nil && got.Statement.Identity != want {
					t.Errorf("it says %+v", got.Statement)
				}
			}
		}
	})
}

// A key that is read can be used and read again.
func FuzzPGPKey(f *testing.F) {
	seeds(f, "pgp/*.asc")
	seeds(f, "pgp/*.gpg")
	for _, name := range []string{"rsa", "ecdsa-p256", "ed25519", "subkeys", "expired-subkey", "revoked", "revoked-subkey", "revoked-uid", "certified"} {
		f.Add(join(keyPackets(f, name+".asc")...))
	}
	messages := []*Envelope{loadMessage(f, "ed25519"), loadMessage(f, "subkey"), loadMessage(f, "rsa"), loadMessage(f, "expired.after")}
	f.Fuzz(func(t *testing.T, data []byte) {
		if signer, err := ParsePGPPrivateKey(data, nil); err == nil {
			if _, err := signer.choose(pgpSignedAt); err == nil && len(signer.private) == 0 {
				t.Error("chosen among none")
			}
		}
		key, err := ParsePGPKey("", data)
		if err != nil {
			if key != nil {
				t.Error("both a key and an error")
			}
			return
		}
		again, err := ParsePGPKey(key.ID, data)
		if err != nil || again.Fingerprint() != key.Fingerprint() || key.Distinct() != key.ID || key.KeyIDs()[0] != key.ID {
			t.Errorf("another key the second time: %v", err)
		}
		for _, env := range messages {
			if got := Verify(key, env); got.Failure == nil && got.Statement.SignedAt.Before(got.Statement.KeyFrom) {
				t.Errorf("made before its key: %+v", got.Statement)
			}
		}
	})
}

// As above, with the lengths of packets right.
func FuzzPGPKeyParts(f *testing.F) {
	for _, name := range []string{"subkeys", "expired-subkey", "revoked-subkey"} {
		p := keyPackets(f, name+".asc")
		f.Add(p[0].body, p[1].body, p[2].body, p[3].body, p[4].body)
	}
	for _, name := range []string{"rsa", "ecdsa-p384", "ed25519"} {
		p := keyPackets(f, name+".asc")
		f.Add(p[0].body, p[1].body, p[2].body, p[0].body, p[2].body)
	}
	packets, err := readPackets(testdata(f, "rfc9580.asc"), labelPublicKey, MaxPGPKeyBytes) // without a user id
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packets[0].body, []byte("x"), packets[1].body, packets[2].body, packets[3].body)
	env, owner := loadMessage(f, "subkey"), loadPGPKey(f, "subkeys.asc").ID
	f.Fuzz(func(t *testing.T, primary, id, certificate, subkey, binding []byte) {
		cert := pgpPacket{tagSignature, certificate}
		key, err := ParsePGPKey("", join(pgpPacket{tagPublicKey, primary}, cert, pgpPacket{tagUserID, id}, cert,
			pgpPacket{tagPublicSubkey, subkey}, pgpPacket{tagSignature, binding}))
		if err != nil {
			return
		}
		if ids := key.KeyIDs(); len(ids) > 4 || ids[0] != key.Distinct() {
			t.Errorf("ids %v", ids)
		}
		if got := Verify(key, env); got.Failure == nil && key.ID != owner {
			t.Errorf("%s passes off another's subkey as its own", key.ID)
		}
	})
}

// Nobody forges a signature here either.
func FuzzJWT(f *testing.F) {
	seeds(f, "jwt/*.jwt")
	_, other := signJWT(f, jwtHead, good)
	f.Add(other)
	f.Add([]byte("e30.e30.AA"))
	keys := []*Key{jwtKey(f, "RS256"), jwtKey(f, "PS256"), jwtKey(f, "ES256"), jwtKey(f, "EdDSA")}
	f.Fuzz(func(t *testing.T, data []byte) {
		id, err := JWTKeyID(data)
		if err != nil && id != "" {
			t.Errorf("%q, %v", id, err)
		}
		for _, key := range keys {
			got := Verify(key, &Envelope{Format: JWT, KeyID: id, Signature: data})
			if got.Failure == nil && *got.Statement != saidByJWT() {
				t.Errorf("it says %+v", got.Statement)
			}
		}
	})
}

// Header and claims behind their signature, where the fuzzer cannot get by itself.
func FuzzClaims(f *testing.F) {
	f.Add([]byte(jwtHead), testdata(f, "jwt/claims.json"))
	f.Add([]byte(`{"crit":[]}`), []byte(good))
	f.Add([]byte(jwtHead), []byte(optional(`"timestamp":1,"horkos.dev/expires":"2030-01-01T00:00:00Z"`)))
	f.Fuzz(func(t *testing.T, header, claims []byte) {
		if h, err := decodeHeader(header); err == nil && (h.algorithm == "" || h.keyID == "") {
			t.Errorf("a header of nothing: %+v", h)
		}
		s, err := decodeClaims(claims)
		if err == nil && (s.Identity.Repository == "" || s.Identity.Digest == "") {
			t.Errorf("a statement of nothing: %+v", s)
		}
	})
}
