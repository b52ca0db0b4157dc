package attestation

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"hash"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// verifyPGP verifies an attached signature of an OpenPGP message. The literal data is the
// payload, and read only if a signature over it is good.
//
// The library reads key and signature packets and does the arithmetic. What a packet may
// be and mean is judged here: it would accept parts that no signature covers, and leaves
// times, flags, revocations and weak hashes to its callers.
func verifyPGP(key *Key, env *Envelope) Outcome {
	if key.pgp == nil {
		return failed(BadSignature, "the key is not an OpenPGP key")
	}
	m, err := readMessage(env.Signature, &key.pgp.zips)
	if err != nil {
		return failed(BadSignature, err.Error())
	}
	if len(env.Payload) > 0 && !bytes.Equal(env.Payload, m.payload) {
		return failed(BadSignature, "the payload beside the message is not the one in it")
	}
	signed, failure := key.pgp.verify(m)
	if failure != nil {
		return failed(failure.Kind, failure.Detail)
	}
	statement, err := decodePayload(m.payload)
	if err != nil {
		return failed(BadPayload, err.Error())
	}
	statement.Expires = earliest(statement.Expires, signed.expires)
	statement.SignedAt, statement.KeyFrom, statement.KeyUntil = signed.at, signed.by.from, signed.by.until
	return verified(statement)
}

// pgpSigned is what a good signature says of itself.
type pgpSigned struct {
	by          *pgpSigner
	at, expires time.Time // expires is zero when it does not
}

// verify finds among the signatures of a message a good one by this key, of several the one
// that expires last. When there is none it tells why the first by this key is not.
func (k *pgpKey) verify(m *pgpMessage) (*pgpSigned, *Failure) {
	var good *pgpSigned
	var reason *Failure
	for _, s := range m.signatures {
		sig, err := parseSignature(s.signature)
		if err != nil {
			if reason == nil && len(m.signatures) == 1 {
				reason = &Failure{BadSignature, "signature packet: " + err.Error()}
			}
			continue
		}
		signer := k.signer(sig)
		if signer == nil {
			continue
		}
		signed, failure := signer.verify(sig, s, m.payload)
		if failure == nil {
			if good == nil || !good.expires.IsZero() && (signed.expires.IsZero() || signed.expires.After(good.expires)) {
				good = signed
			}
			continue
		}
		if reason == nil || reason.Kind == BadSignature {
			reason = failure
		}
	}
	if good != nil {
		return good, nil
	}
	if reason == nil {
		reason = &Failure{BadSignature, "it is not signed by this key"}
	}
	return nil, reason
}

// signer finds the key that a signature says it is by. It may say so in two ways and where
// nothing is signed; both must be right.
func (k *pgpKey) signer(sig *packet.Signature) *pgpSigner {
	for _, s := range k.signers {
		if issuedBy(sig, s.public) {
			return s
		}
	}
	return nil
}

func issuedBy(sig *packet.Signature, public *packet.PublicKey) bool {
	return sig.CheckKeyIdOrFingerprint(public) && (sig.IssuerKeyId == nil || *sig.IssuerKeyId == public.KeyId)
}

// verify judges a signature of a message that says it is by this key.
func (s *pgpSigner) verify(sig *packet.Signature, packets pgpSignaturePackets, payload []byte) (*pgpSigned, *Failure) {
	bad := func(err error) (*pgpSigned, *Failure) { return nil, &Failure{BadSignature, err.Error()} }
	content := payload
	switch sig.SigType {
	case packet.SigTypeBinary:
	case packet.SigTypeText:
		content = canonicalText(payload)
	default:
		return bad(fmt.Errorf("signature of type %#02x: want one of a document", uint8(sig.SigType)))
	}
	if err := sound(sig, s.public); err != nil {
		return bad(err)
	}
	if packets.onePass != nil {
		if err := announces(*packets.onePass, packets.nested, sig, s.public); err != nil {
			return bad(err)
		}
	}
	// The tag is the first two bytes of the digest. The library ignores it.
	for _, verify := range []func(hash.Hash, *packet.Signature) error{packet.VerifyHashTag, s.public.VerifySignature} {
		h, err := sig.PrepareVerify()
		if err != nil {
			return bad(err)
		}
		h.Write(content)
		if err := verify(h, sig); err != nil {
			return bad(fmt.Errorf("it does not verify under the key %X", s.public.Fingerprint))
		}
	}
	at := sig.CreationTime.UTC()
	switch {
	case s.revoked:
		return nil, &Failure{RevokedKey, fmt.Sprintf("the key %X is revoked", s.public.Fingerprint)}
	case s.unfit != "":
		return bad(fmt.Errorf("the key %X may not sign: %s", s.public.Fingerprint, s.unfit))
	case at.Before(s.from):
		return bad(fmt.Errorf("made at %s, before its key", at.Format(time.RFC3339)))
	case !s.until.IsZero() && !at.Before(s.until):
		return nil, &Failure{ExpiredKey, fmt.Sprintf("made at %s, its key expired at %s", at.Format(time.RFC3339), s.until.Format(time.RFC3339))}
	}
	return &pgpSigned{by: s, at: at, expires: lifetime(sig.CreationTime, sig.SigLifetimeSecs)}, nil
}

// sound judges what any signature that counts must be, whatever it signs.
func sound(sig *packet.Signature, by *packet.PublicKey) error {
	if sig.Version != by.Version { // RFC 9580, section 5.2
		return fmt.Errorf("version %d signature by a version %d key", sig.Version, by.Version)
	}
	if sig.PubKeyAlgo != by.PubKeyAlgo {
		return errors.New("signature and key are of different algorithms")
	}
	switch sig.Hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
	default:
		return fmt.Errorf("signature with the hash %v: want SHA-256, SHA-384 or SHA-512", sig.Hash)
	}
	for _, n := range sig.Notations {
		if n.IsCritical { // RFC 9580, section 5.2.3.24: what is critical must be understood
			return fmt.Errorf("signature with the unknown critical notation %.80q", n.Name)
		}
	}
	type number interface {
		Bytes() []byte
		BitLength() uint16
	}
	for _, n := range []number{sig.RSASignature, sig.ECDSASigR, sig.ECDSASigS, sig.EdDSASigR, sig.EdDSASigS} {
		if n != nil && !exact(n.Bytes(), n.BitLength()) {
			return errors.New("signature with a number of a wrong length")
		}
	}
	return nil
}

// exact reports whether a multiprecision integer is written as it must be (RFC 9580,
// section 3.2): the length counts from its highest bit.
func exact(value []byte, length uint16) bool {
	if len(value) == 0 {
		return length == 0
	}
	return value[0] != 0 && int(length) == 8*(len(value)-1)+bits.Len8(value[0])
}

// announces judges a one-pass signature packet: it repeats what the signature says.
func announces(p pgpPacket, nested bool, sig *packet.Signature, by *packet.PublicKey) error {
	one, err := parsePacket[*packet.OnePassSignature](p)
	if err != nil {
		return fmt.Errorf("one-pass signature packet: %w", err)
	}
	same := one.SigType == sig.SigType && one.Hash == sig.Hash && one.PubKeyAlgo == sig.PubKeyAlgo &&
		one.KeyId == by.KeyId && one.IsLast == !nested && (one.Version == 6) == (sig.Version == 6)
	if one.Version == 6 {
		same = same && bytes.Equal(one.Salt, sig.Salt()) && bytes.Equal(one.KeyFingerprint, by.Fingerprint)
	}
	if !same {
		return errors.New("the one-pass signature packet announces another signature")
	}
	return nil
}

// canonicalText is what a signature of a text is over (RFC 9580, section 5.2.1.2): lines end
// with CR LF.
func canonicalText(text []byte) []byte {
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
}

// lifetime is the end of what begins at a time and lasts so many seconds; 0 or none is for ever.
func lifetime(from time.Time, seconds *uint32) time.Time {
	if seconds == nil || *seconds == 0 {
		return time.Time{}
	}
	return from.Add(time.Duration(*seconds) * time.Second).UTC()
}

// earliest of two times that are never when they are zero.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// PGPKeyIDs gives the ids of the keys that an OpenPGP message says it is signed by, in the
// order of its signatures and each once, for an envelope that comes without a key id: the
// fingerprint in upper-case hex, or, when there is only that, the key id of 16 digits.
// Key.KeyIDs has both. Nothing is verified.
func PGPKeyIDs(message []byte) ([]string, error) {
	m, err := readMessage(message, new(sync.Pool))
	if err != nil {
		return nil, fmt.Errorf("reading OpenPGP message: %w", err)
	}
	var ids []string
	for _, s := range m.signatures {
		sig, err := parseSignature(s.signature)
		if err != nil {
			continue // by a program whose signatures do not count here
		}
		id := ""
		switch {
		case len(sig.IssuerFingerprint) > 0:
			id = fmt.Sprintf("%X", sig.IssuerFingerprint)
		case sig.IssuerKeyId != nil:
			id = fmt.Sprintf("%016X", *sig.IssuerKeyId)
		}
		if id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
