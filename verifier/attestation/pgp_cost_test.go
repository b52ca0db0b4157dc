package attestation

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// strangeRSA is a key with a modulus of so many bits and so many user ids, each with a
// signature that is nearly one: finding that out takes the arithmetic.
func strangeRSA(bits int, exponent uint32, userIDs int) []pgpPacket {
	modulus := bytes.Repeat([]byte{0xff}, bits/8)
	body := binary.BigEndian.AppendUint16([]byte{4, 0x60, 0, 0, 0, 1}, uint16(bits))
	body = append(body, modulus...)
	e := bytes.TrimLeft(binary.BigEndian.AppendUint32(nil, exponent), "\x00")
	body = binary.BigEndian.AppendUint16(body, uint16(8*len(e)-leadingZeros(e[0])))
	body = append(body, e...)
	framed := append(binary.BigEndian.AppendUint16([]byte{0x99}, uint16(len(body))), body...)
	fingerprint := sha1.Sum(framed)
	hashed := append([]byte{5, 2, 0x60, 0, 0, 2, 2, 27, 2, 22, 33, 4}, fingerprint[:]...) // when, for signing, by whom
	sig := append([]byte{4, 0x13, 1, 8, 0, byte(len(hashed))}, hashed...)
	sig = append(sig, 0, 0, 0xab, 0xcd)
	sig = binary.BigEndian.AppendUint16(sig, uint16(bits-1))
	sig = append(append(sig, 0x7f), modulus[:len(modulus)-1]...)
	packets := []pgpPacket{{tagPublicKey, body}}
	for n := range userIDs {
		packets = append(packets, pgpPacket{tagUserID, fmt.Append(nil, n)}, pgpPacket{tagSignature, sig})
	}
	return packets
}

func leadingZeros(b byte) (n int) {
	for ; b&0x80 == 0; b <<= 1 {
		n++
	}
	return n
}

func TestAnRSAKeyThatIsSlowToVerifyIsRefused(t *testing.T) {
	tests := []struct {
		bits     int
		exponent uint32
		says     string
	}{
		{4096, 65537, "does not verify"}, // as far as that
		{4104, 65537, "RSA key of 4104 bits: want 2048 to 4096"},
		{8192, 65537, "RSA key of 8192 bits: want 2048 to 4096"},
		{2048, 1<<17 - 1, "does not verify"},
		{2048, 1<<17 + 1, "RSA key with public exponent 131073: want at most 131071"},
		{2048, 0xfffffd, "RSA key with public exponent 16777213: want at most 131071"},
		{2048, 3, "public exponent 3"},
	}
	for _, tt := range tests {
		_, err := ParsePGPKey("", join(strangeRSA(tt.bits, tt.exponent, 1)...))
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%d bits, exponent %d: %v, want %q", tt.bits, tt.exponent, err, tt.says)
		}
	}
}

func TestAKeyHasAtMostSixteenUserIDs(t *testing.T) {
	p := keyPackets(t, "ed25519.asc")
	ids := func(n int) []pgpPacket {
		packets := p[:1:1]
		for range n {
			packets = append(packets, p[1], p[2])
		}
		return packets
	}
	if _, err := ParsePGPKey("", join(ids(maxPGPUserIDs)...)); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := ParsePGPKey("", join(ids(maxPGPUserIDs+1)...)); err == nil || !strings.Contains(err.Error(), "over 16 user ids") {
		t.Errorf("above the limit: %v", err)
	}
}

// TestABadSignatureOfAKeyOverItselfEndsIt: the next user id is not tried.
func TestABadSignatureOfAKeyOverItselfEndsIt(t *testing.T) {
	p := keyPackets(t, "ed25519.asc")
	changed := bytes.Clone(p[2].body)
	changed[len(changed)-1] ^= 1
	_, err := ParsePGPKey("", join(p[0], p[1], pgpPacket{tagSignature, changed}, p[1], p[2]))
	if err == nil || !strings.Contains(err.Error(), "does not verify") {
		t.Errorf("accepted: %v", err)
	}
}

// TestWhatAKeyBindsHasABudget: a subkey that signs takes two verifications, and those of the
// large curves of NIST take thirty times as long as one of Ed25519.
func TestWhatAKeyBindsHasABudget(t *testing.T) {
	tests := []struct {
		name    string
		config  packet.Config
		subkeys int
		fits    bool
	}{
		{"Ed25519", packet.Config{Algorithm: packet.PubKeyAlgoEd25519}, maxPGPSubkeys - 1, true}, // one encrypts
		{"P-521", packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP521}, 1, true},
		{"P-521 with more", packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP521}, 2, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.Time = func() time.Time { return pgpMadeAt }
			entity, err := openpgp.NewEntity("a test", "", "", &tt.config)
			if err != nil {
				t.Fatal(err)
			}
			for range tt.subkeys {
				if err := entity.AddSigningSubkey(&tt.config); err != nil {
					t.Fatal(err)
				}
			}
			var public bytes.Buffer
			if err := entity.Serialize(&public); err != nil {
				t.Fatal(err)
			}
			key, err := ParsePGPKey("", public.Bytes())
			switch {
			case tt.fits && err != nil:
				t.Error(err)
			case tt.fits && len(key.KeyIDs()) != 2*(1+tt.subkeys):
				t.Errorf("of %d subkeys that sign it has %v", tt.subkeys, key.KeyIDs())
			case !tt.fits && (err == nil || !strings.Contains(err.Error(), "subkeys that sign take too long to verify")):
				t.Errorf("it is read: %v", err)
			}
		})
	}
}

// TestAStrangersKeyIsReadInBoundedTime: as large as keys may be, in each way that takes time.
func TestAStrangersKeyIsReadInBoundedTime(t *testing.T) {
	many := strangeRSA(4096, 1<<17-1, maxPGPUserIDs)
	certified := strangeRSA(4096, 1<<17-1, 1)
	for len(join(certified...)) < MaxPGPKeyBytes-700 {
		certified = append(certified, certified[2])
	}
	small := keyPackets(t, "ed25519.asc")
	for len(small) < maxPGPPackets-1 {
		small = append(small, pgpPacket{tagSignature, []byte{4, 0x13, 22, 8, 0, 0, 0, 0, 0, 0}})
	}
	for name, packets := range map[string][]pgpPacket{"user ids": many, "signatures of one": certified, "small packets": small} {
		data := join(packets...)
		started := time.Now()
		const keys = 64
		for range keys {
			ParsePGPKey("", data)
		}
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("%s: an authority of %d keys took %s", name, keys, took)
		} else {
			t.Logf("%s: %s a key of %d bytes", name, took/keys, len(data))
		}
	}
}

// TestAForgedUserIDCannotSayThatAKeyMaySign: it says more than the good one before it.
func TestAForgedUserIDCannotSayThatAKeyMaySign(t *testing.T) {
	config := &packet.Config{Algorithm: packet.PubKeyAlgoEd25519, Time: func() time.Time { return pgpMadeAt }}
	entity, err := openpgp.NewEntity("a test", "", "", config)
	if err != nil {
		t.Fatal(err)
	}
	packetsOf := func() []pgpPacket {
		var public bytes.Buffer
		if err := entity.Serialize(&public); err != nil {
			t.Fatal(err)
		}
		packets, err := splitPackets(public.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return packets
	}
	forged := packetsOf()[1:3]
	forged[1].body[len(forged[1].body)-1] ^= 1
	for _, identity := range entity.Identities {
		identity.SelfSignature.FlagsValid = false
		if err := identity.SelfSignature.SignUserId(identity.UserId.Id, entity.PrimaryKey, entity.PrivateKey, config); err != nil {
			t.Fatal(err)
		}
	}
	silent := packetsOf()[:3]
	key, err := ParsePGPKey("", join(silent...))
	if err != nil || key.pgp.signers[0].unfit == "" {
		t.Fatalf("a key without flags: %v", err)
	}
	if _, err := ParsePGPKey("", join(append(silent, forged...)...)); err == nil || !strings.Contains(err.Error(), "does not verify") {
		t.Errorf("accepted: %v", err)
	}
}
