package attestation

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/horkos/horkos/verifier/image"
)

// When gpg made keys and messages, unless a test says otherwise.
var (
	pgpMadeAt   = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	pgpSignedAt = time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
)

func loadPGPKey(t testing.TB, name string) *Key {
	t.Helper()
	key, err := ParsePGPKey("", testdata(t, filepath.Join("pgp", name)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return key
}

func message(data []byte) *Envelope { return &Envelope{Format: PGP, Signature: data} }

func loadMessage(t testing.TB, name string) *Envelope {
	t.Helper()
	return message(testdata(t, filepath.Join("pgp", name+".msg")))
}

// saidByPGP is what the payload and a signature made with gpg's defaults say.
func saidByPGP() Statement {
	return Statement{
		Identity:  image.Identity{Repository: "registry.example.com/team/app", Digest: digest},
		Timestamp: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		Expires:   time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC),
		SignedAt:  pgpSignedAt,
		KeyFrom:   pgpMadeAt,
	}
}

// pgpVector is a message that verifies under a key.
type pgpVector struct {
	key, message string
	but          func(*Statement) // where it does not say saidByPGP
}

func pgpVectors() []pgpVector {
	end := time.Date(2025, 7, 1, 0, 0, 0, 0, time.UTC)
	at := func(signed time.Time) func(*Statement) {
		return func(s *Statement) { s.SignedAt, s.KeyUntil = signed, end }
	}
	return []pgpVector{
		{"rsa", "rsa", nil},
		{"rsa-4096", "rsa-4096", nil},
		{"ecdsa-p256", "ecdsa-p256", nil},
		{"ecdsa-p384", "ecdsa-p384", nil},
		{"ecdsa-p521", "ecdsa-p521", nil},
		{"ed25519", "ed25519", nil},
		{"rsa", "sha384", nil},
		{"rsa", "sha512", nil},
		{"ed25519", "ed25519.none", nil},
		{"ed25519", "ed25519.zip", nil},
		{"ed25519", "ed25519.zlib", nil},
		{"ed25519", "ed25519.bzip2", nil},
		{"ed25519", "ed25519.armored", nil},
		{"ed25519", "ed25519.comment", nil},
		{"ed25519", "ed25519.base64", nil},
		{"ed25519", "ed25519.base64-of-armor", nil},
		{"ed25519", "ed25519.text", nil},
		{"ed25519", "ed25519.text-lines", nil},
		{"rsa", "rsa.text-lines", nil},
		{"rsa", "two", nil},
		{"ed25519", "two", nil},
		{"ed25519", "notation", nil},
		{"ed25519", "expires", func(s *Statement) { s.Expires = pgpSignedAt.Add(30 * 24 * time.Hour) }},
		{"subkeys", "subkey", nil},
		{"subkeys", "subkey-ecdsa", func(s *Statement) { s.KeyFrom = pgpMadeAt.Add(24 * time.Hour) }},
		{"expired", "expired.before", at(time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC))},
		{"expired", "expired.last", at(time.Date(2025, 6, 30, 23, 59, 59, 0, time.UTC))},
		{"expired-subkey", "expired-subkey.before", func(s *Statement) {
			s.SignedAt, s.KeyFrom, s.KeyUntil = time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC), time.Date(2025, 2, 1, 0, 0, 0, 0, time.UTC), end
		}},
		{"revoked-subkey", "revoked-subkey.primary", nil},
		{"revoked-uid", "revoked-uid", nil},
		{"certified", "certified", nil},
	}
}

func (v pgpVector) load(t testing.TB) (*Key, *Envelope, Statement) {
	t.Helper()
	want := saidByPGP()
	if v.but != nil {
		v.but(&want)
	}
	return loadPGPKey(t, v.key+".asc"), loadMessage(t, v.message), want
}

func TestWhatGPGSignedVerifies(t *testing.T) {
	for _, v := range pgpVectors() {
		t.Run(v.message+" by "+v.key, func(t *testing.T) {
			key, env, want := v.load(t)
			if got := Verify(key, env); got.Failure != nil || *got.Statement != want {
				t.Errorf("got %+v, %v\nwant %+v", got.Statement, got.Failure, want)
			}
		})
	}
}

func TestMessagesAreReadInAllTheirSpellings(t *testing.T) {
	key := loadPGPKey(t, "ed25519.asc")
	binary := testdata(t, "pgp/ed25519.none.msg")
	armored := string(testdata(t, "pgp/ed25519.armored.msg"))
	tests := []struct{ name, message string }{
		{"base64 in one line", base64.StdEncoding.EncodeToString(binary)},
		{"base64 in lines that end with CR LF", strings.ReplaceAll(string(testdata(t, "pgp/ed25519.base64.msg")), "\n", "\r\n")},
		{"base64 of the armor in one line", base64.StdEncoding.EncodeToString([]byte(armored))},
		{"armor whose lines end with CR LF", strings.ReplaceAll(armored, "\n", "\r\n")},
		{"armor with white space around it", "\n  " + armored + " \n\n"},
		{"armor without its checksum", removeLine(armored, "=")},
		{"armor with headers", strings.Replace(armored, "-----\n\n", "-----\nVersion: x\nComment: a: b\n\n", 1)},
	}
	for _, tt := range tests {
		if got := Verify(key, message([]byte(tt.message))); got.Failure != nil || *got.Statement != saidByPGP() {
			t.Errorf("%s: %v", tt.name, got.Failure)
		}
	}
}

func removeLine(text, prefix string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return strings.HasPrefix(l, prefix) }), "\n")
}

// packetsOf gives the packets of an uncompressed message.
func packetsOf(t testing.TB, name string) []pgpPacket {
	t.Helper()
	packets, err := readPackets(testdata(t, filepath.Join("pgp", name)), labelMessage, MaxPGPMessageBytes)
	if err != nil {
		t.Fatal(err)
	}
	return packets
}

// join writes packets, with a length of four bytes.
func join(packets ...pgpPacket) []byte {
	var data []byte
	for _, p := range packets {
		n := len(p.body)
		data = append(data, 0xc0|p.tag, 0xff, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		data = append(data, p.body...)
	}
	return data
}

func compressed(t testing.TB, algorithm byte, data []byte) pgpPacket {
	t.Helper()
	var body bytes.Buffer
	body.WriteByte(algorithm)
	switch algorithm {
	case 0:
		body.Write(data)
	case 1:
		w, err := flate.NewWriter(&body, flate.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(data)
		w.Close()
	case 2:
		w := zlib.NewWriter(&body)
		w.Write(data)
		w.Close()
	}
	return pgpPacket{tagCompressed, body.Bytes()}
}

func TestASignatureMayStandBeforeTheData(t *testing.T) {
	parts := packetsOf(t, "ed25519.none.msg") // one-pass signature, data, signature
	if got := Verify(loadPGPKey(t, "ed25519.asc"), message(join(parts[2], parts[1]))); got.Failure != nil || *got.Statement != saidByPGP() {
		t.Error(got.Failure)
	}
}

// TestOfTwoGoodSignaturesTheOneThatLastsLongerCounts: who signs anew leaves the old one in.
func TestOfTwoGoodSignaturesTheOneThatLastsLongerCounts(t *testing.T) {
	key := loadPGPKey(t, "ed25519.asc")
	lasting := packetsOf(t, "ed25519.none.msg") // one-pass signature, data, signature
	expires := loadMessage(t, "expires")
	ends := Verify(key, expires).Statement.Expires
	if last := Verify(key, loadMessage(t, "ed25519")).Statement.Expires; !ends.Before(last) {
		t.Fatalf("the one expires at %s, the other at %s", ends, last)
	}
	short, err := readMessage(expires.Signature, new(sync.Pool))
	if err != nil {
		t.Fatal(err)
	}
	for name, signatures := range map[string][2]pgpPacket{
		"the shorter first": {short.signatures[0].signature, lasting[2]},
		"the longer first":  {lasting[2], short.signatures[0].signature},
	} {
		got := Verify(key, message(join(signatures[0], signatures[1], lasting[1])))
		if got.Failure != nil || *got.Statement != saidByPGP() {
			t.Errorf("%s: %+v, %v", name, got.Statement, got.Failure)
		}
	}
}

func TestAMessageIsSignedDataAndNothingElse(t *testing.T) {
	key := loadPGPKey(t, "ed25519.asc")
	parts := packetsOf(t, "ed25519.none.msg")
	one, literal, sig := parts[0], parts[1], parts[2]
	good := join(parts...)
	other := pgpPacket{tagLiteral, append([]byte{'b', 0, 0, 0, 0, 0}, strings.Replace(string(testdata(t, "payload.json")), "team/app", "evil/app", 1)...)}
	armored := string(testdata(t, "pgp/ed25519.armored.msg"))
	for name, data := range map[string][]byte{
		"all": good, "all, not compressed in a compressed data packet": join(compressed(t, 0, good)),
		"all in zip": join(compressed(t, 1, good)), "all in zlib": join(compressed(t, 2, good)),
	} {
		if got := Verify(key, message(data)); got.Failure != nil {
			t.Fatalf("%s: %v", name, got.Failure)
		}
	}
	tests := []struct {
		name    string
		message []byte
		says    string
	}{
		{"nothing", nil, "neither"},
		{"white space", []byte(" \n"), "neither"},
		{"words", []byte("signed, the release team"), "neither"},
		{"the payload alone", testdata(t, "payload.json"), "neither"},
		{"base64 of nothing that is OpenPGP", []byte("aGVsbG8="), "neither"},
		{"base64 of base64", []byte(base64.StdEncoding.EncodeToString([]byte(base64.StdEncoding.EncodeToString(good)))), "neither"},
		{"base64 without padding", []byte(base64.RawStdEncoding.EncodeToString(append(good, make([]byte, 4-len(good)%3)...))), "neither"},
		{"base64url", []byte(base64.URLEncoding.EncodeToString(good)), "neither"},
		{"a detached signature", testdata(t, "pgp/detached.msg"), "detached"},
		{"a detached signature in binary", testdata(t, "pgp/detached-binary.msg"), "detached"},
		{"a message in clear text", testdata(t, "pgp/cleartext.msg"), "clear text"},
		{"a message encrypted to a key", testdata(t, "pgp/encrypted.msg"), "encrypted"},
		{"a message encrypted by a password", testdata(t, "pgp/symmetric.msg"), "encrypted"},
		{"a public key", testdata(t, "pgp/ed25519.asc"), "KEY"},
		{"a public key in binary", testdata(t, "pgp/ed25519.gpg"), "key"},
		{"a private key", testdata(t, "pgp/rsa.private.asc"), "private key"},
		{"data without a signature", join(literal), "not signed"},
		{"data that gpg did not sign", testdata(t, "pgp/unsigned.msg"), "not signed"},
		{"an announced signature that does not come", join(one, literal), "announced"},
		{"a signature that was not announced", join(literal, sig), "not signed"},
		{"a signature before the data and one behind", join(sig, literal, sig), "before and behind"},
		{"an announced signature beside one before the data", join(sig, one, literal, sig), "before and behind"},
		{"a signature too many", join(one, literal, sig, sig), "announced"},
		{"an announcement too many", join(one, one, literal, sig), "announced"},
		{"no data", join(one, sig), "no literal data"},
		{"other data too, in front", join(one, other, literal, sig), "more than one"},
		{"other data too, behind", join(one, literal, other, sig), "more than one"},
		{"other data behind the message", join(one, literal, sig, other), "more than one"},
		{"two messages", join(one, literal, sig, one, literal, sig), "more than one"},
		{"other data", join(one, other, sig), "does not verify"},
		{"a marker packet", join(pgpPacket{tagMarker, []byte("PGP")}, one, literal, sig), "type 10"},
		{"padding", join(one, literal, sig, pgpPacket{tagPadding, []byte("x")}), "type 21"},
		{"an unknown packet that is not critical", join(one, literal, sig, pgpPacket{60, []byte("x")}), "type 60"},
		{"a user id", join(one, literal, sig, pgpPacket{tagUserID, []byte("x")}), "type 13"},
		{"a byte behind the message", append(bytes.Clone(good), 'x'), "packet 4"},
		{"a byte behind the signature in its packet", join(one, literal, pgpPacket{sig.tag, append(bytes.Clone(sig.body), 0)}), "too many"},
		{"a byte behind the announcement in its packet", join(pgpPacket{one.tag, append(bytes.Clone(one.body), 0)}, literal, sig), "too many"},
		{"something behind the compressed data", join(compressed(t, 1, good), sig), "follows"},
		{"something behind the end of zip", join(pgpPacket{tagCompressed, append(compressed(t, 1, good).body, 0)}), "follows"},
		{"something behind the end of zlib", join(pgpPacket{tagCompressed, append(compressed(t, 2, good).body, 0)}), "follows"},
		{"something behind the end in compressed data", join(compressed(t, 1, append(bytes.Clone(good), 'x'))), "packet 4"},
		{"compressed twice", join(compressed(t, 1, join(compressed(t, 1, good)))), "inside"},
		{"signed over compressed data", join(one, compressed(t, 1, join(literal)), sig), "inside"},
		{"an unknown compression", join(pgpPacket{tagCompressed, []byte{4}}), "unknown algorithm"},
		{"no compression at all", join(pgpPacket{tagCompressed, nil}), "cut short"},
		{"an empty announcement", join(pgpPacket{tagOnePass, nil}, literal, sig), "one-pass"},
		{"an empty signature", join(one, literal, pgpPacket{tagSignature, nil}), "cut short"},
		{"empty data", join(one, pgpPacket{tagLiteral, nil}, sig), "cut short"},
		{"data shorter than its head", join(one, pgpPacket{tagLiteral, []byte{'b', 9, 'x', 0, 0, 0, 0}}, sig), "cut short"},
		{"data of an unknown format", join(one, pgpPacket{tagLiteral, append([]byte{'m'}, literal.body[1:]...)}, sig), "format"},
		{"armor that is cut short", []byte(armored[:len(armored)-10]), "cut short"},
		{"two blocks of armor", []byte(armored + armored), "follows"},
		{"something behind the armor", []byte(armored + "x"), "follows"},
		{"something before the armor", []byte("x\n" + armored), "neither"},
		{"armor that ends as another", []byte(strings.Replace(armored, "END PGP MESSAGE", "END PGP SIGNATURE", 1)), "follows"},
		{"armor without an empty line", []byte(strings.Replace(armored, "-----\n\n", "-----\n", 1)), "headers"},
		{"armor of something else", []byte("-----BEGIN PGP THING-----\n\nAAAA\n-----END PGP THING-----"), "THING"},
		{"armor of nothing", []byte("-----BEGIN PGP MESSAGE-----\n\n\n-----END PGP MESSAGE-----"), "no literal data"},
		{"armor of no base64", []byte("-----BEGIN PGP MESSAGE-----\n\n****\n-----END PGP MESSAGE-----"), "base64"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Verify(key, message(tt.message))
			wantFailure(t, tt.name, got, BadSignature)
			if got.Failure != nil && !strings.Contains(got.Failure.Detail, tt.says) {
				t.Errorf("it says %q, want %q", got.Failure.Detail, tt.says)
			}
		})
	}
}

// What no signature covers may be changed by anybody: the data's file name, format and date,
// armor, lengths of packets, and what stands unsigned in a signature packet. It must never
// change what is said.
func TestAChangedMessageFailsOrSaysTheSame(t *testing.T) {
	for _, v := range pgpVectors() {
		t.Run(v.message+" by "+v.key, func(t *testing.T) {
			key, env, want := v.load(t)
			for i := range env.Signature {
				flipped := bytes.Clone(env.Signature)
				flipped[i] ^= 1 << (i % 8)
				if got := Verify(key, message(flipped)); got.Failure == nil && *got.Statement != want {
					t.Errorf("a bit of byte %d flipped: it says %+v", i, got.Statement)
				}
			}
			for n := range env.Signature {
				if got := Verify(key, message(env.Signature[:n])); got.Failure == nil && n < len(bytes.TrimSpace(env.Signature)) {
					t.Errorf("cut to %d bytes: it verifies", n)
				}
			}
		})
	}
}

// What a signature covers, and the numbers that are the signature, must be as they are.
func TestNoByteOfWhatIsSignedMayChange(t *testing.T) {
	for _, name := range []string{"rsa", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519"} {
		t.Run(name, func(t *testing.T) {
			key := loadPGPKey(t, name+".asc")
			parts := messageParts(t, name+".msg")
			one, literal, sig := parts[0], parts[1], parts[2]
			hashed := 6 + int(sig.body[4])<<8 + int(sig.body[5])
			unhashed := 2 + int(sig.body[hashed])<<8 + int(sig.body[hashed+1])
			try := func(p *pgpPacket, i int) {
				t.Helper()
				good := p.body
				for _, bit := range []int{i % 8, (i + 5) % 8} {
					p.body = bytes.Clone(good)
					p.body[i] ^= 1 << bit
					got := Verify(key, message(join(one, literal, sig)))
					if got.Failure == nil && (p != &one || i < len(one.body)-1) { // the last byte of which is a flag: zero or not
						t.Errorf("packet of type %d with bit %d of byte %d flipped: it verifies", p.tag, bit, i)
					}
				}
				p.body = good
			}
			for i := range one.body {
				try(&one, i)
			}
			for i := 6 + int(literal.body[1]); i < len(literal.body); i++ {
				try(&literal, i)
			}
			for i := range hashed + 2 { // with the length of what is unhashed
				try(&sig, i)
			}
			for i := hashed + unhashed; i < len(sig.body); i++ { // the tag and the numbers
				try(&sig, i)
			}
			for i := hashed + 4; i < hashed+unhashed; i++ { // the key id
				try(&sig, i)
			}
		})
	}
}

// messageParts gives the packets within a compressed message.
func messageParts(t testing.TB, name string) []pgpPacket {
	t.Helper()
	inner, err := decompress(packetsOf(t, name)[0].body, new(sync.Pool))
	if err != nil {
		t.Fatal(err)
	}
	parts, err := splitPackets(inner)
	if err != nil {
		t.Fatal(err)
	}
	return parts
}

func TestMessagesThatDoNotCountSayWhy(t *testing.T) {
	tests := []struct {
		name, key, message string
		kind               FailureKind
		says               string
	}{
		{"by another key", "rsa-other", "rsa", BadSignature, "not signed by this key"},
		{"by two others", "rsa-other", "two", BadSignature, "not signed by this key"},
		{"by a revoked key", "revoked", "revoked", RevokedKey, "is revoked"},
		{"by a revoked subkey", "revoked-subkey", "revoked-subkey", RevokedKey, "is revoked"},
		{"at the second the key expired", "expired", "expired.first", ExpiredKey, "made at 2025-07-01T00:00:00Z, its key expired at 2025-07-01T00:00:00Z"},
		{"after the key expired", "expired", "expired.after", ExpiredKey, "made at 2026-01-02T00:00:00Z, its key expired"},
		{"after the subkey expired", "expired-subkey", "expired-subkey.after", ExpiredKey, "its key expired"},
		{"by SHA-1", "rsa", "sha1", BadSignature, "hash SHA-1"},
		{"by SHA-224", "rsa", "sha224", BadSignature, "hash SHA-224"},
		{"by RIPEMD-160", "rsa", "ripemd160", BadSignature, "hash function 3"},
		{"with a critical notation", "ed25519", "critical-notation", BadSignature, "test@example.com"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Verify(loadPGPKey(t, tt.key+".asc"), loadMessage(t, tt.message))
			wantFailure(t, tt.name, got, tt.kind)
			if got.Failure != nil && !strings.Contains(got.Failure.Detail, tt.says) {
				t.Errorf("it says %q, want %q", got.Failure.Detail, tt.says)
			}
		})
	}
}

// A key file may say that it is another's key only by being it.
func TestAnotherPGPKeyDoesNotVerify(t *testing.T) {
	other := loadPGPKey(t, "ed25519-other.asc")
	parts := packetsOf(t, "ed25519.none.msg")
	wrong := func(old, new []byte, p pgpPacket) pgpPacket {
		t.Helper()
		if !bytes.Contains(p.body, old) {
			t.Fatalf("%x is not in %x", old, p.body)
		}
		return pgpPacket{p.tag, bytes.ReplaceAll(p.body, old, new)}
	}
	mine, its := loadPGPKey(t, "ed25519.asc").pgp.signers[0].public.Fingerprint, other.pgp.signers[0].public.Fingerprint
	// The message as if the other key had made it.
	got := Verify(other, message(join(wrong(mine[12:], its[12:], parts[0]), parts[1],
		wrong(mine[12:], its[12:], wrong(mine, its, parts[2])))))
	wantFailure(t, "another key's id", got, BadSignature)
	if !strings.Contains(got.Failure.Detail, "does not verify under the key") {
		t.Error(got.Failure)
	}
}

// TestAnotherPGPKeyUnderTheSameFingerprintDoesNotVerify: nothing but the signature tells.
func TestAnotherPGPKeyUnderTheSameFingerprintDoesNotVerify(t *testing.T) {
	subkeys := loadPGPKey(t, "subkeys.asc").pgp.signers
	tests := []struct {
		name  string
		other *pgpSigner
	}{
		{"rsa", loadPGPKey(t, "rsa-other.asc").pgp.signers[0]},
		{"ecdsa-p256", subkeys[len(subkeys)-1]},
		{"ed25519", loadPGPKey(t, "ed25519-other.asc").pgp.signers[0]},
	}
	for _, tt := range tests {
		key, env := loadPGPKey(t, tt.name+".asc"), loadMessage(t, tt.name)
		if got := Verify(key, env); got.Failure != nil {
			t.Fatalf("%s: %v", tt.name, got.Failure)
		}
		mine := key.pgp.signers[0].public
		if mine.PubKeyAlgo != tt.other.public.PubKeyAlgo {
			t.Fatalf("%s: the other key is of algorithm %d", tt.name, tt.other.public.PubKeyAlgo)
		}
		mine.PublicKey = tt.other.public.PublicKey
		got := Verify(key, env)
		wantFailure(t, tt.name, got, BadSignature)
		if !strings.Contains(got.Failure.Detail, "does not verify under the key") {
			t.Errorf("%s: %v", tt.name, got.Failure)
		}
	}
}

func TestKeysVerifyEnvelopesOfTheirOwnFormatOnly(t *testing.T) {
	pgp, pkix := loadPGPKey(t, "ed25519.asc"), jwtKey(t, "EdDSA")
	for _, format := range []Format{PKIX, JWT, PGP, "", "pgp"} {
		for _, name := range []string{"pgp/ed25519.msg", "jwt/EdDSA.jwt", "ed25519.sig"} {
			env := &Envelope{Format: format, KeyID: "release", Signature: testdata(t, name)}
			if format == PKIX {
				env.Payload = testdata(t, "payload.json")
			}
			if got := Verify(pgp, env); format != PGP || name != "pgp/ed25519.msg" {
				wantFailure(t, fmt.Sprintf("%s as %q under an OpenPGP key", name, format), got, BadSignature)
			}
			if got := Verify(pkix, env); format != JWT || name != "jwt/EdDSA.jwt" {
				wantFailure(t, fmt.Sprintf("%s as %q under another key", name, format), got, BadSignature)
			}
		}
	}
}

func TestAPayloadBesideAMessageIsTheOneInIt(t *testing.T) {
	key, env := loadPGPKey(t, "ed25519.asc"), loadMessage(t, "ed25519")
	env.Payload = testdata(t, "payload.json")
	if got := Verify(key, env); got.Failure != nil {
		t.Error(got.Failure)
	}
	env.Payload = bytes.Replace(env.Payload, []byte("team/app"), []byte("evil/app"), 1)
	wantFailure(t, "another payload", Verify(key, env), BadSignature)
}

func TestAMessageHasLimits(t *testing.T) {
	key := loadPGPKey(t, "ed25519.asc")
	parts := packetsOf(t, "ed25519.none.msg")
	says := func(name string, data []byte, want string) {
		t.Helper()
		got := Verify(key, message(data))
		wantFailure(t, name, got, BadSignature)
		if got.Failure != nil && !strings.Contains(got.Failure.Detail, want) {
			t.Errorf("%s: %v, want %q", name, got.Failure, want)
		}
	}
	armored := testdata(t, "pgp/ed25519.armored.msg")
	filled := append(bytes.Repeat([]byte("\n"), MaxPGPMessageBytes-len(armored)), armored...)
	if got := Verify(key, message(filled)); got.Failure != nil {
		t.Errorf("a message at the limit: %v", got.Failure)
	}
	says("a message above the limit", append([]byte("\n"), filled...), "bytes: at most")

	literal := func(n int) pgpPacket {
		return pgpPacket{tagLiteral, append([]byte{'b', 0, 0, 0, 0, 0}, make([]byte, n)...)}
	}
	says("a payload at the limit", join(parts[0], literal(MaxPayloadBytes), parts[2]), "does not verify")
	says("a payload above the limit", join(parts[0], literal(MaxPayloadBytes+1), parts[2]), "payload of 65537 bytes")

	many := func(n int) []byte {
		var packets []pgpPacket
		last := parts[0].body
		next := append(bytes.Clone(last[:len(last)-1]), 0)
		for range n - 1 {
			packets = append(packets, pgpPacket{tagOnePass, next})
		}
		packets = append(packets, parts[:2]...)
		for range n {
			packets = append(packets, parts[2])
		}
		return join(packets...)
	}
	if got := Verify(key, message(many(MaxPGPSignatures))); got.Failure != nil {
		t.Errorf("signatures at the limit: %v", got.Failure)
	}
	says("signatures above the limit", many(MaxPGPSignatures+1), "over 16 signatures")
	says("packets above the limit", bytes.Repeat([]byte{0xc0 | 60, 0}, maxPGPPackets+1), "over 1024 packets")
}

// The bombs are as large as a message may be, and more.
func TestABombDoesNotGoOff(t *testing.T) {
	key := loadPGPKey(t, "ed25519.asc")
	zeros := make([]byte, 16<<20)
	for _, algorithm := range []byte{1, 2} {
		bomb := join(compressed(t, algorithm, zeros))
		if len(bomb) > MaxPGPMessageBytes {
			t.Fatalf("the bomb has %d bytes: nobody would open it", len(bomb))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		got := Verify(key, message(bomb))
		took := time.Since(began)
		runtime.ReadMemStats(&after)
		wantFailure(t, "a bomb", got, BadSignature)
		if !strings.Contains(got.Failure.Detail, "more than 262144 bytes") {
			t.Error(got.Failure)
		}
		if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 8<<20 || took > 5*time.Second {
			t.Errorf("algorithm %d: %d bytes and %s", algorithm, allocated, took)
		}
	}
	wantFailure(t, "1 MB of zip", Verify(key, message(join(pgpPacket{tagCompressed, make([]byte, 1<<20)}))), BadSignature)
	// Opened in full, it would hold what is one byte over the limit.
	exact := join(compressed(t, 1, zeros[:MaxPGPMessageBytes+1]))
	if got := Verify(key, message(exact)); got.Failure == nil || !strings.Contains(got.Failure.Detail, "more than") {
		t.Error(got.Failure)
	}
	if got := Verify(key, message(join(compressed(t, 1, zeros[:MaxPGPMessageBytes])))); got.Failure == nil || strings.Contains(got.Failure.Detail, "more than") {
		t.Error(got.Failure)
	}
}

func TestAGoodMessageOverSomethingElseIsABadPayload(t *testing.T) {
	signer := loadSigner(t, "rsa.private.asc", "")
	private, err := signer.choose(pgpSignedAt)
	if err != nil {
		t.Fatal(err)
	}
	for _, payload := range []string{"", "{}", "hello", `{"critical":null}`} {
		data, err := writeMessage(private, []byte(payload), pgpSignedAt)
		if err != nil {
			t.Fatal(err)
		}
		wantFailure(t, payload, Verify(signer.key, message(data)), BadPayload)
	}
}

func TestAMessageNamesItsKeys(t *testing.T) {
	rsa, ed := loadPGPKey(t, "rsa.asc"), loadPGPKey(t, "ed25519.asc")
	subkeys := loadPGPKey(t, "subkeys.asc")
	parts := packetsOf(t, "ed25519.none.msg")
	tests := []struct {
		name    string
		message []byte
		want    []string
	}{
		{"one", testdata(t, "pgp/rsa.msg"), []string{rsa.ID}},
		{"two, the last signature first", testdata(t, "pgp/two.msg"), nil},
		{"a subkey", testdata(t, "pgp/subkey.msg"), []string{fmt.Sprintf("%X", subkeys.pgp.signers[1].public.Fingerprint)}},
		{"one twice", join(parts[2], parts[2], parts[1]), []string{ed.ID}},
		{"a signature that does not count", join(pgpPacket{tagSignature, []byte{3, 0, 0, 0}}, parts[1]), nil},
	}
	for _, tt := range tests {
		got, err := PGPKeyIDs(tt.message)
		if tt.name[:3] == "two" {
			tt.want = []string{rsa.ID, ed.ID}
			slices.Sort(tt.want)
			slices.Sort(got)
		}
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}
	for _, ids := range [][]string{rsa.KeyIDs(), subkeys.KeyIDs()} {
		if len(ids)%2 != 0 || len(ids[0]) != 40 || ids[1] != ids[0][24:] {
			t.Errorf("key ids %v", ids)
		}
	}
	if len(subkeys.KeyIDs()) != 6 { // not those of the subkey that encrypts
		t.Errorf("key ids %v", subkeys.KeyIDs())
	}
	if _, err := PGPKeyIDs([]byte("x")); err == nil {
		t.Error("no message has key ids")
	}
}
