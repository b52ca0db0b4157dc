package attestation

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

func TestAPGPKeyIsReadInAllItsSpellings(t *testing.T) {
	want := loadPGPKey(t, "ed25519.asc")
	armored := testdata(t, "pgp/ed25519.asc")
	binary := testdata(t, "pgp/ed25519.gpg")
	tests := []struct {
		name, id string
		data     []byte
	}{
		{"in binary", "", binary},
		{"in base64 of armor", "", []byte(base64.StdEncoding.EncodeToString(armored))},
		{"in base64 of binary", "", []byte(base64.StdEncoding.EncodeToString(binary))},
		{"under its id", want.ID, armored},
		{"under its id in lower case", strings.ToLower(want.ID), armored},
	}
	for _, tt := range tests {
		got, err := ParsePGPKey(tt.id, tt.data)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got.ID != want.ID || got.Distinct() != want.ID || got.Fingerprint() != want.Fingerprint() || got.Algorithm() != "pgp" {
			t.Errorf("%s: %s %s", tt.name, got.ID, got.Algorithm())
		}
	}
	if len(want.ID) != 40 || want.ID != strings.ToUpper(want.ID) {
		t.Errorf("id %s", want.ID)
	}
}

func TestWhatIsNoGoodPGPKeyIsRefused(t *testing.T) {
	read := func(name string) []byte { return testdata(t, filepath.Join("pgp", name)) }
	tests := []struct {
		name string
		id   string
		data []byte
		says string
	}{
		{"nothing", "", nil, "neither"},
		{"a PEM key", "", testdata(t, "ed25519.pem"), "neither"},
		{"a message", "", read("ed25519.msg"), "MESSAGE"},
		{"a message in binary", "", read("ed25519.none.msg"), "type 4"},
		{"a private key", "", read("rsa.private.asc"), "a private key"},
		{"two keys", "", read("bad-two-keys.asc"), "more than one key"},
		{"an RSA key of 1024 bits", "", read("bad-rsa-1024.asc"), "RSA key of 1024 bits"},
		{"a DSA key", "", read("bad-dsa.asc"), "DSA"},
		{"a key on secp256k1", "", read("bad-secp256k1.asc"), "SecP256k1"},
		{"a key on a brainpool curve", "", read("bad-brainpool.asc"), "BrainpoolP256"},
		{"a key that signed itself by SHA-1", "", read("bad-sha1.asc"), "SHA-1"},
		{"another key's id", loadPGPKey(t, "rsa.asc").ID, read("ed25519.asc"), "has the fingerprint"},
		{"its key id of 16 digits", loadPGPKey(t, "ed25519.asc").ID[24:], read("ed25519.asc"), "has the fingerprint"},
		{"something behind it", "", append(read("ed25519.gpg"), 'x'), "packet 4"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key, err := ParsePGPKey(tt.id, tt.data)
			if err == nil {
				t.Fatalf("accepted as %s", key.ID)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}

func TestAPGPKeyHasALimit(t *testing.T) {
	good := testdata(t, "pgp/ed25519.asc")
	filled := append(bytes.Clone(good), bytes.Repeat([]byte("\n"), MaxPGPKeyBytes-len(good))...)
	if _, err := ParsePGPKey("", filled); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := ParsePGPKey("", append(filled, '\n')); err == nil {
		t.Error("above the limit: no error")
	}
}

// keyPackets are the packets of subkeys.asc: the primary key, a user id and its signature,
// then thrice a subkey and its signature; the subkey that encrypts is not the first.
func keyPackets(t testing.TB, name string) []pgpPacket {
	t.Helper()
	packets, err := readPackets(testdata(t, filepath.Join("pgp", name)), labelPublicKey, MaxPGPKeyBytes)
	if err != nil {
		t.Fatal(err)
	}
	return packets
}

func TestASubkeyCountsOnlyWhenBothKeysSayso(t *testing.T) {
	p := keyPackets(t, "subkeys.asc")
	other := keyPackets(t, "expired-subkey.asc")
	primary, uid, cert, sub, binding := p[0], p[1], p[2], p[3], p[4]
	flip := func(q pgpPacket, at int) pgpPacket {
		body := bytes.Clone(q.body)
		if at < 0 {
			at += len(body)
		}
		body[at] ^= 1
		return pgpPacket{q.tag, body}
	}
	// unhashed puts other subpackets in place of those that gpg leaves unsigned: the key id
	// (10 bytes) and the signature of the subkey.
	unhashed := func(binding pgpPacket, subpackets []byte) pgpPacket {
		at := 6 + int(binding.body[4])<<8 + int(binding.body[5])
		n := int(binding.body[at])<<8 + int(binding.body[at+1])
		body := append(bytes.Clone(binding.body[:at]), byte(len(subpackets)>>8), byte(len(subpackets)))
		return pgpPacket{tagSignature, append(append(body, subpackets...), binding.body[at+2+n:]...)}
	}
	unsigned := func(binding pgpPacket) []byte {
		at := 6 + int(binding.body[4])<<8 + int(binding.body[5])
		return bytes.Clone(binding.body[at+2 : at+2+int(binding.body[at])<<8+int(binding.body[at+1])])
	}
	changed := unsigned(binding)
	changed[len(changed)-1] ^= 1
	good := []pgpPacket{primary, uid, cert, sub, binding}
	env := loadMessage(t, "subkey")
	tests := []struct {
		name    string
		packets []pgpPacket
		kind    FailureKind // of the message; empty when it is good
		says    string
	}{
		{"bound", good, "", ""},
		{"bound, among packets to pass over", []pgpPacket{primary, {tagTrust, []byte("x")}, uid, cert, {tagMarker, []byte("PGP")}, sub, binding, {60, nil}, {tagPadding, []byte("x")}}, "", ""},
		{"not bound", []pgpPacket{primary, uid, cert, sub}, BadSignature, "has not bound it"},
		{"bound by a changed signature", []pgpPacket{primary, uid, cert, sub, flip(binding, -1)}, BadSignature, "binding"},
		{"bound, and it has not agreed", []pgpPacket{primary, uid, cert, sub, unhashed(binding, unsigned(binding)[:10])}, BadSignature, "has not signed its primary key"},
		{"bound, and what it agreed to is changed", []pgpPacket{primary, uid, cert, sub, unhashed(binding, changed)}, BadSignature, "binding"},
		{"bound, and another subkey has agreed", []pgpPacket{primary, uid, cert, sub, unhashed(binding, unsigned(p[6]))}, BadSignature, "different algorithms"},
		{"bound, in other unsigned words", []pgpPacket{primary, uid, cert, sub, unhashed(binding, append([]byte{2, 27, 0}, unsigned(binding)...))}, "", ""}, // flags that mean nothing there
		{"bound by a signature over another subkey", []pgpPacket{primary, uid, cert, sub, p[6]}, BadSignature, "may not sign"},
		{"bound by another's signature", []pgpPacket{primary, uid, cert, sub, other[4]}, BadSignature, "has not bound it"},
		{"bound by a user id's signature", []pgpPacket{primary, uid, cert, sub, cert}, BadSignature, "has not bound it"},
		{"another's subkey", []pgpPacket{primary, uid, cert, other[3], other[4]}, BadSignature, "not signed by this key"},
		{"revoked, by nobody knows whom", append(good[:5:5], pgpPacket{tagSignature, []byte{4, 0x28, 22, 8}}), RevokedKey, "is revoked"},
		{"revoked by an old signature", append(good[:5:5], pgpPacket{tagSignature, []byte{3, 5, 0x28}}), RevokedKey, "is revoked"},
		{"of a revoked primary key", []pgpPacket{primary, {tagSignature, []byte{4, 0x20, 22, 8}}, uid, cert, sub, binding}, RevokedKey, "is revoked"},
		{"of a primary key that is revoked in the wrong place", append(good[:5:5], pgpPacket{tagSignature, []byte{4, 0x20, 22, 8}}), RevokedKey, "is revoked"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key, err := ParsePGPKey("", join(tt.packets...))
			if err != nil {
				t.Fatal(err)
			}
			got := Verify(key, env)
			if tt.kind == "" {
				if got.Failure != nil {
					t.Error(got.Failure)
				}
				return
			}
			wantFailure(t, tt.name, got, tt.kind)
			if got.Failure != nil && !strings.Contains(got.Failure.Detail, tt.says) {
				t.Errorf("it says %q, want %q", got.Failure.Detail, tt.says)
			}
		})
	}
}

func TestAPrimaryKeyNeedsItsOwnWord(t *testing.T) {
	p := keyPackets(t, "ed25519.asc")
	other := keyPackets(t, "ed25519-other.asc")
	changed := bytes.Clone(p[2].body)
	changed[len(changed)-1] ^= 1
	tests := []struct {
		name    string
		packets []pgpPacket
		says    string
	}{
		{"no packet", nil, "neither"},
		{"a user id first", []pgpPacket{p[1], p[0], p[2]}, "does not begin"},
		{"no signature", []pgpPacket{p[0], p[1]}, "has not signed itself"},
		{"a changed signature", []pgpPacket{p[0], p[1], {tagSignature, changed}}, "does not verify"},
		{"a changed user id", []pgpPacket{p[0], {tagUserID, []byte("mallory")}, p[2]}, "does not verify"},
		{"another's signature", []pgpPacket{p[0], p[1], other[2]}, "has not signed itself"},
		{"another key", []pgpPacket{other[0], p[1], p[2]}, "has not signed itself"},
		{"a bad signature that is later than a good one", []pgpPacket{p[0], p[1], p[2], {tagSignature, changed}}, "does not verify"},
		{"a revoked user id", []pgpPacket{p[0], p[1], p[2], {tagSignature, []byte{4, 0x30, 22, 8}}}, "has not signed itself"},
		{"a signature of an unknown version", []pgpPacket{p[0], p[1], p[2], {tagSignature, []byte{9, 0x13, 22, 8}}}, "version 9"},
		{"a signature without anything", []pgpPacket{p[0], p[1], p[2], {tagSignature, nil}}, "cut short"},
		{"an unknown critical packet", append(p[:3:3], pgpPacket{30, nil}), "type 30"},
		{"a message", append(p[:3:3], pgpPacket{tagLiteral, nil}), "type 11"},
		{"a private subkey", append(p[:3:3], pgpPacket{tagSecretSubkey, nil}), "private key"},
		{"a key cut short", []pgpPacket{{tagPublicKey, p[0].body[:20]}, p[1], p[2]}, "primary key"},
		{"a key and a byte", []pgpPacket{{tagPublicKey, append(bytes.Clone(p[0].body), 0)}, p[1], p[2]}, "too many"},
		{"a key of version 3", []pgpPacket{{tagPublicKey, append([]byte{3}, p[0].body[1:]...)}, p[1], p[2]}, "version 3"},
		{"a key that is nearly none", []pgpPacket{{tagPublicKey, []byte{4}}}, "cut short"},
		{"too many subkeys", append(p[:3:3], bytesTimes(pgpPacket{tagPublicSubkey, nil}, maxPGPSubkeys+1)...), "over 32 subkeys"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key, err := ParsePGPKey("", join(tt.packets...))
			if err == nil {
				t.Fatalf("accepted as %s", key.ID)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
	if _, err := ParsePGPKey("", join(append(p[:3:3], bytesTimes(pgpPacket{tagPublicSubkey, nil}, maxPGPSubkeys)...)...)); err != nil {
		t.Errorf("subkeys at the limit: %v", err)
	}
}

func TestAPrimaryKeyThatOnlyCertifiesMayNotSign(t *testing.T) {
	packets, err := readPackets(testdata(t, "pgp/subkeys.private.asc"), labelPrivateKey, MaxPGPKeyBytes)
	if err != nil {
		t.Fatal(err)
	}
	private, _, err := separate(packets)
	if err != nil {
		t.Fatal(err)
	}
	data, err := writeMessage(private[0], testdata(t, "payload.json"), pgpSignedAt)
	if err != nil {
		t.Fatal(err)
	}
	got := Verify(loadPGPKey(t, "subkeys.asc"), message(data))
	wantFailure(t, "certify", got, BadSignature)
	if !strings.Contains(got.Failure.Detail, "its flags do not include signing") {
		t.Error(got.Failure)
	}
}

func TestTheTightestEndOfAKeyHolds(t *testing.T) {
	seconds := func(n uint32) *uint32 { return &n }
	made := time.Unix(1000, 0)
	tests := []struct {
		name string
		sigs []*packet.Signature
		want int64 // 0 for ever
	}{
		{"none", []*packet.Signature{{CreationTime: made}}, 0},
		{"of no length", []*packet.Signature{{CreationTime: made, KeyLifetimeSecs: seconds(0), SigLifetimeSecs: seconds(0)}}, 0},
		{"the key's", []*packet.Signature{{CreationTime: made, KeyLifetimeSecs: seconds(50)}}, 150},
		{"the signature's", []*packet.Signature{{CreationTime: made, SigLifetimeSecs: seconds(50)}}, 1050},
		{"the signature's before the key's", []*packet.Signature{{CreationTime: made, KeyLifetimeSecs: seconds(2000), SigLifetimeSecs: seconds(50)}}, 1050},
		{"of two user ids", []*packet.Signature{{CreationTime: made, KeyLifetimeSecs: seconds(90)}, {CreationTime: made, KeyLifetimeSecs: seconds(50)}, {CreationTime: made}}, 150},
		{"the longest there is", []*packet.Signature{{CreationTime: made, KeyLifetimeSecs: seconds(1<<32 - 1)}}, 100 + 1<<32 - 1},
	}
	for _, tt := range tests {
		key := &packet.PublicKey{CreationTime: time.Unix(100, 0)}
		s := &pgpSigner{public: key}
		for _, sig := range tt.sigs {
			s.narrow(key, sig)
		}
		if tt.want == 0 && !s.until.IsZero() || tt.want != 0 && s.until.Unix() != tt.want {
			t.Errorf("%s: until %v", tt.name, s.until)
		}
	}
}

// For the race detector: gates and the daemon's workers share keys.
func TestAPGPKeyMayBeUsedByManyAtOnce(t *testing.T) {
	key, env := loadPGPKey(t, "rsa.asc"), loadMessage(t, "rsa")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20 {
				if got := Verify(key, env); got.Failure != nil || *got.Statement != saidByPGP() {
					t.Errorf("%+v, %v", got.Statement, got.Failure)
				}
			}
		})
	}
	all.Wait()
}

func bytesTimes(p pgpPacket, n int) []pgpPacket {
	list := make([]pgpPacket, n)
	for i := range list {
		list[i] = p
	}
	return list
}

func TestAnyByteOfAPGPKeyChangesItsFingerprint(t *testing.T) {
	p := keyPackets(t, "subkeys.asc")
	fingerprints := map[[32]byte]string{}
	for name, packets := range map[string][]pgpPacket{
		"whole": p, "without a subkey": p[:7], "revoked": append(p[:1:1], append([]pgpPacket{{tagSignature, []byte{4, 0x20, 22, 8}}}, p[1:]...)...),
	} {
		key, err := ParsePGPKey("", join(packets...))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if other, same := fingerprints[key.Fingerprint()]; same {
			t.Errorf("%s and %s are the same", name, other)
		}
		fingerprints[key.Fingerprint()] = name
		if key.Distinct() != key.ID {
			t.Errorf("%s: distinct %s", name, key.Distinct())
		}
	}
}

// libraryKey makes keys that gpg 2.2 cannot: of version 6, and Ed25519 in the new style.
func libraryKey(t *testing.T, config *packet.Config) (*Key, *PGPSigner) {
	t.Helper()
	config.Time = func() time.Time { return pgpMadeAt }
	entity, err := openpgp.NewEntity("a test", "", "", config)
	if err != nil {
		t.Fatal(err)
	}
	var public, private bytes.Buffer
	if err := entity.Serialize(&public); err != nil {
		t.Fatal(err)
	}
	if err := entity.SerializePrivate(&private, config); err != nil {
		t.Fatal(err)
	}
	key, err := ParsePGPKey("", public.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ParsePGPPrivateKey(private.Bytes(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return key, signer
}

// Its data is a shopping list in text mode: a good signature, and no statement about an image.
func TestTheSampleOfTheStandardVerifies(t *testing.T) {
	const id = "CB186C4F0609A697E4D52DFA6C722B0C1F1E27C18A56708F6525EC27BAD9ACC9"
	key, err := ParsePGPKey(strings.ToLower(id), testdata(t, "rfc9580.asc"))
	if err != nil {
		t.Fatal(err)
	}
	if ids := key.KeyIDs(); len(ids) != 2 || ids[0] != id || ids[1] != id[:16] {
		t.Errorf("key ids %v", ids)
	}
	data := testdata(t, "rfc9580.msg")
	wantFailure(t, "the sample", Verify(key, message(data)), BadPayload)
	packets, err := readPackets(data, labelMessage, MaxPGPMessageBytes)
	if err != nil {
		t.Fatal(err)
	}
	signed, failure := key.pgp.verify(&pgpMessage{payload: packets[1].body[6:], signatures: []pgpSignaturePackets{{signature: packets[2]}}})
	if want := time.Date(2022, 12, 13, 16, 8, 3, 0, time.UTC); failure != nil || !signed.at.Equal(want) {
		t.Errorf("signed %+v, %v", signed, failure)
	}
	for i := range packets[2].body {
		changed := bytes.Clone(packets[2].body)
		changed[i] ^= 1 << (i % 8)
		wantFailure(t, "a changed sample", Verify(key, message(join(packets[0], packets[1], pgpPacket{tagSignature, changed}))), BadSignature)
	}
}

func TestKeysOfTheNewStyleVerify(t *testing.T) {
	tests := []struct {
		name   string
		config packet.Config
		digits int
	}{
		{"Ed25519 of version 4", packet.Config{Algorithm: packet.PubKeyAlgoEd25519}, 40},
		{"Ed25519 of version 6", packet.Config{Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true}, 64},
		{"ECDSA of version 6", packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP256, V6Keys: true, DefaultHash: crypto.SHA256}, 64},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key, signer := libraryKey(t, &tt.config)
			if len(key.ID) != tt.digits {
				t.Errorf("id %s", key.ID)
			}
			data, signed, err := SignPGP(signer, testdata(t, "payload.json"), pgpSignedAt)
			if err != nil {
				t.Fatal(err)
			}
			if signed.ID != key.ID {
				t.Errorf("signed by %s", signed.ID)
			}
			got := Verify(key, message(data))
			if got.Failure != nil || *got.Statement != saidByPGP() {
				t.Errorf("got %+v, %v", got.Statement, got.Failure)
			}
			packets, err := readPackets(data, labelMessage, MaxPGPMessageBytes)
			if err != nil {
				t.Fatal(err)
			}
			for i := range packets {
				for k := range packets[i].body {
					good := packets[i].body
					packets[i].body = bytes.Clone(good)
					packets[i].body[k] ^= 1 << (k % 8)
					if got := Verify(key, message(join(packets...))); got.Failure == nil && *got.Statement != saidByPGP() {
						t.Errorf("packet %d, byte %d changed: %+v", i, k, got.Statement)
					}
					packets[i].body = good
				}
			}
		})
	}
}

func TestAKeyTellsWhetherItIsRevokedAndWhenItEnds(t *testing.T) {
	end := time.Date(2025, 7, 1, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		key     string
		revoked bool
		until   time.Time
	}{
		{"ed25519", false, time.Time{}},
		{"revoked", true, time.Time{}},
		{"revoked-subkey", false, time.Time{}}, // its primary key may sign
		{"revoked-uid", false, time.Time{}},
		{"expired", false, end},
		{"expired-subkey", false, end}, // its primary key may not sign
		{"subkeys", false, time.Time{}},
	}
	for _, tt := range tests {
		key := loadPGPKey(t, tt.key+".asc")
		if key.Revoked() != tt.revoked || !key.Until().Equal(tt.until) {
			t.Errorf("%s: revoked %v until %v, want %v until %v", tt.key, key.Revoked(), key.Until(), tt.revoked, tt.until)
		}
	}
	if key := jwtKey(t, "EdDSA"); key.Revoked() || !key.Until().IsZero() {
		t.Error("a key that is no OpenPGP key says when it ends")
	}
}
