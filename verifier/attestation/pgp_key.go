package attestation

import (
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// pgpKey is an OpenPGP key: those of its keys that can sign at all, the primary first.
type pgpKey struct {
	signers []*pgpSigner
	zips    sync.Pool // decompress's
}

// pgpSigner is a primary key or a subkey.
type pgpSigner struct {
	public      *packet.PublicKey
	from, until time.Time // until is zero when it has no end
	revoked     bool
	unfit       string // why it may not sign documents; empty when it may
	effort      int    // of a primary key: what verifying its words has cost
}

// ParsePGPKey reads an OpenPGP public key: one primary key with its subkeys (RFC 9580,
// section 10.1), in armor, in binary, or base64 of either. The id, if one is given, must be
// the fingerprint of the primary key in any letter case: 40 hex digits of a version 4 key,
// 64 of a version 6 one. The key's ID is the fingerprint in upper case.
//
// Keys are RSA of 2048 to 4096 bits, ECDSA on a curve of NIST, and Ed25519, old style and
// new. The primary key needs a signature of its own over a user id or over itself, and a
// subkey that is to sign one of the primary key that says so and one of the subkey that
// agrees; all by SHA-256, SHA-384 or SHA-512. Of several the latest counts. Where user ids
// say different things of the key, the tightest holds.
//
// Reading a key takes a bounded time, whoever wrote it: what is signed over a user id is
// verified only where it could loosen what is known of the key, there are at most 16 user
// ids, and the subkeys that sign have a budget.
//
// A revocation counts whoever made it and for whatever reason, verified or not: he who
// lists the key chose to list it with that. A key that is revoked, or expired, is returned
// all the same; Verify says so.
func ParsePGPKey(id string, data []byte) (*Key, error) {
	packets, err := readPackets(data, labelPublicKey, MaxPGPKeyBytes)
	if err != nil {
		return nil, fmt.Errorf("parsing OpenPGP key: %w", err)
	}
	key, err := newPGPKey(packets)
	if err != nil {
		return nil, fmt.Errorf("parsing OpenPGP key: %w", err)
	}
	if id != "" && !strings.EqualFold(id, key.ID) {
		return nil, fmt.Errorf("the OpenPGP key has the fingerprint %s, not the id %.80q", key.ID, id)
	}
	return key, nil
}

func newPGPKey(packets []pgpPacket) (*Key, error) {
	pgp, err := readPGPKey(packets)
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("%X", pgp.signers[0].public.Fingerprint)
	return &Key{
		ID:          id,
		algorithm:   algorithm{name: "pgp"},
		pgp:         pgp,
		distinct:    id,
		fingerprint: sumPackets(packets),
	}, nil
}

func sumPackets(packets []pgpPacket) [32]byte {
	h := sha256.New()
	h.Write([]byte(string(PGP) + "\x00"))
	for _, p := range packets {
		h.Write(binary.BigEndian.AppendUint32([]byte{p.tag}, uint32(len(p.body))))
		h.Write(p.body)
	}
	return [32]byte(h.Sum(nil))
}

// ids are what Key.KeyIDs tells.
func (k *pgpKey) ids() []string {
	var ids []string
	for i, s := range k.signers {
		if i == 0 || s.unfit == "" {
			ids = append(ids, fmt.Sprintf("%X", s.public.Fingerprint), s.public.KeyIdString())
		}
	}
	return ids
}

// revoked is what Key.Revoked tells.
func (k *pgpKey) revoked() bool {
	some := false
	for _, s := range k.signers {
		if s.unfit == "" && !s.revoked {
			return false
		}
		some = some || s.revoked
	}
	return some
}

// until is what Key.Until tells.
func (k *pgpKey) until() time.Time {
	var last time.Time
	for _, s := range k.signers {
		switch {
		case s.unfit != "" || s.revoked:
		case s.until.IsZero():
			return time.Time{}
		case s.until.After(last):
			last = s.until
		}
	}
	return last
}

// pgpComponent is the primary key, a user id or a subkey, and the signatures behind it.
type pgpComponent struct {
	pgpPacket
	signatures []pgpPacket
}

// readPGPKey judges a key by its parts.
func readPGPKey(packets []pgpPacket) (*pgpKey, error) {
	parts, err := componentsOf(packets)
	if err != nil {
		return nil, err
	}
	primary, err := parsePublicKey(parts[0].pgpPacket)
	if err != nil {
		return nil, fmt.Errorf("primary key: %w", err)
	}
	first := &pgpSigner{public: primary, from: primary.CreationTime.UTC()}
	key := &pgpKey{signers: []*pgpSigner{first}}
	if err := first.describe(parts); err != nil {
		return nil, fmt.Errorf("primary key %X: %w", primary.Fingerprint, err)
	}
	for _, part := range parts[1:] {
		if part.tag != tagPublicSubkey {
			continue
		}
		public, err := parsePublicKey(part.pgpPacket)
		if err != nil {
			continue // it only encrypts, or signs in a way that does not count
		}
		key.signers = append(key.signers, first.subkey(public, part))
		if first.effort > maxPGPEffort {
			return nil, errors.New("its subkeys that sign take too long to verify: leave out those no longer used")
		}
	}
	return key, nil
}

// componentsOf puts packets in order, the primary key first.
func componentsOf(packets []pgpPacket) ([]pgpComponent, error) {
	var parts []pgpComponent
	subkeys, userIDs := 0, 0
	for _, p := range packets {
		switch p.tag {
		case tagSecretKey, tagSecretSubkey:
			return nil, errors.New("this is a private key: remove it and consider it leaked")
		case tagPublicKey:
			if len(parts) > 0 {
				return nil, errors.New("more than one key")
			}
		case tagPublicSubkey:
			if subkeys++; subkeys > maxPGPSubkeys {
				return nil, fmt.Errorf("over %d subkeys", maxPGPSubkeys)
			}
		case tagUserID:
			if userIDs++; userIDs > maxPGPUserIDs {
				return nil, fmt.Errorf("over %d user ids", maxPGPUserIDs)
			}
		case tagUserAttribute, tagSignature:
		case tagMarker, tagTrust, tagPadding:
			continue
		default:
			if p.tag < firstUncriticalTag {
				return nil, fmt.Errorf("packet of type %d in a key", p.tag)
			}
			continue
		}
		if len(parts) == 0 && p.tag != tagPublicKey {
			return nil, errors.New("it does not begin with a primary key")
		}
		if p.tag == tagSignature {
			last := &parts[len(parts)-1]
			last.signatures = append(last.signatures, p)
		} else {
			parts = append(parts, pgpComponent{pgpPacket: p})
		}
	}
	if len(parts) == 0 {
		return nil, errors.New("no key")
	}
	return parts, nil
}

// parsePublicKey reads a primary key or subkey that could sign.
func parsePublicKey(p pgpPacket) (*packet.PublicKey, error) {
	const version, algorithm = 0, 5 // where they are (RFC 9580, section 5.5.2)
	if len(p.body) <= algorithm {
		return nil, errors.New("cut short")
	}
	if v := p.body[version]; v != 4 && v != 6 {
		return nil, fmt.Errorf("key of version %d: want 4 or 6", v)
	}
	if err := signs(packet.PublicKeyAlgorithm(p.body[algorithm])); err != nil {
		return nil, err
	}
	public, err := parsePacket[*packet.PublicKey](p)
	if err != nil {
		return nil, err
	}
	return public, strong(public)
}

func strong(public *packet.PublicKey) error {
	switch key := public.PublicKey.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < minRSABits || n > maxRSABits {
			return fmt.Errorf("RSA key of %d bits: want %d to %d", n, minRSABits, maxRSABits)
		}
		if key.E > maxRSAExponent {
			return fmt.Errorf("RSA key with public exponent %d: want at most %d", key.E, maxRSAExponent)
		}
		return checkRSA(key)
	default:
		curve, err := public.Curve()
		if err != nil {
			return err
		}
		switch curve {
		case packet.CurveNistP256, packet.CurveNistP384, packet.CurveNistP521, packet.Curve25519:
			return nil
		}
		return fmt.Errorf("key on the curve %s: want one of NIST, or Ed25519", curve)
	}
}

// effort is about how many times as long as one of Ed25519 a signature by a key takes to
// verify.
func effort(public *packet.PublicKey) int {
	if key, ok := public.PublicKey.(*rsa.PublicKey); ok {
		if key.N.BitLen() > 3072 {
			return 3
		}
		return 1
	}
	switch curve, _ := public.Curve(); curve {
	case packet.CurveNistP384:
		return 8
	case packet.CurveNistP521:
		return 24
	}
	return 1
}

// describe finds what the primary key says of itself, in its own signatures over itself
// and over its user ids. Only what could loosen is verified: that there is such a signature
// at all, and that the key may sign. The rest can only tighten, and counts as a revocation
// does. One that is bad ends it.
func (s *pgpSigner) describe(parts []pgpComponent) error {
	reason := errors.New("it has not signed itself, or any user id")
	described, maySign, mayNot := false, false, false
	for i, part := range parts {
		for _, sig := range part.signatures {
			kind, err := signatureType(sig.body)
			if err != nil {
				return err
			}
			if kind == packet.SigTypeKeyRevocation || kind == packet.SigTypeSubkeyRevocation && part.tag != tagPublicSubkey {
				s.revoked = true
			}
		}
		if i > 0 && part.tag != tagUserID {
			continue
		}
		sig, err := s.selfSignature(part)
		if err != nil {
			reason = err
		}
		if sig == nil {
			continue
		}
		may := sig.FlagsValid && sig.FlagSign
		if !described || may && !maySign {
			if err := s.verifySelf(part, sig); err != nil {
				return err
			}
		}
		described, maySign = true, maySign || may
		mayNot = mayNot || sig.FlagsValid && !sig.FlagSign
		s.narrow(s.public, sig)
	}
	if !described {
		return reason
	}
	if !maySign || mayNot {
		s.unfit = "its flags do not include signing"
	}
	return nil
}

// narrow takes in what a signature says of how long a key, and it itself, is valid.
func (s *pgpSigner) narrow(of *packet.PublicKey, sig *packet.Signature) {
	s.until = earliest(s.until, lifetime(of.CreationTime, sig.KeyLifetimeSecs))
	s.until = earliest(s.until, lifetime(sig.CreationTime, sig.SigLifetimeSecs))
}

// selfSignature gives the signature that describes the primary key, over itself or over a
// user id, not verified: nil when there is none or it is revoked.
func (s *pgpSigner) selfSignature(part pgpComponent) (*packet.Signature, error) {
	if s.withdrawn(part) {
		return nil, nil
	}
	sig := s.latest(part)
	if sig == nil {
		return nil, nil
	}
	if err := sound(sig, s.public); err != nil {
		return nil, err
	}
	return sig, nil
}

func (s *pgpSigner) verifySelf(part pgpComponent, sig *packet.Signature) error {
	s.effort += effort(s.public)
	var err error
	if part.tag == tagUserID {
		err = s.public.VerifyUserIdSignature(string(part.body), s.public, sig)
	} else {
		err = s.public.VerifyDirectKeySignature(sig)
	}
	if err != nil {
		return fmt.Errorf("its signature over itself does not verify: %w", err)
	}
	return nil
}

// withdrawn reports whether what describes the key here is revoked by the key, or by who
// knows whom. Others may revoke what they themselves said of it.
func (s *pgpSigner) withdrawn(part pgpComponent) bool {
	for _, p := range part.signatures {
		if kind, err := signatureType(p.body); err != nil || kind != packet.SigTypeCertificationRevocation {
			continue
		}
		sig, err := parseSignature(p)
		if err != nil || sig.IssuerKeyId == nil || sig.CheckKeyIdOrFingerprint(s.public) {
			return true
		}
	}
	return false
}

// latest gives the last made of the signatures over a part of the key that say they are by
// the primary key and describe that part. Whether it is good is not yet known: an older one
// does not take the place of a bad one.
func (s *pgpSigner) latest(part pgpComponent) *packet.Signature {
	var latest *packet.Signature
	for _, p := range part.signatures {
		sig, err := parseSignature(p)
		if err != nil || !describes(sig.SigType, part.tag) || !issuedBy(sig, s.public) {
			continue
		}
		if latest == nil || !sig.CreationTime.Before(latest.CreationTime) {
			latest = sig
		}
	}
	return latest
}

// describes reports whether signatures of a type are those that describe a part of a key
// (RFC 9580, section 5.2.1).
func describes(kind packet.SignatureType, tag uint8) bool {
	switch tag {
	case tagPublicKey:
		return kind == packet.SigTypeDirectSignature
	case tagPublicSubkey:
		return kind == packet.SigTypeSubkeyBinding
	}
	return kind >= packet.SigTypeGenericCert && kind <= packet.SigTypePositiveCert
}

// subkey judges a subkey. What binds the primary key binds its subkeys.
func (s *pgpSigner) subkey(public *packet.PublicKey, part pgpComponent) *pgpSigner {
	sub := &pgpSigner{public: public, from: public.CreationTime.UTC(), until: s.until, revoked: s.revoked}
	if sub.from.Before(s.from) {
		sub.from = s.from
	}
	for _, p := range part.signatures {
		if kind, err := signatureType(p.body); err != nil || kind == packet.SigTypeSubkeyRevocation {
			sub.revoked = true
		}
	}
	sig := s.latest(part)
	if sig == nil {
		sub.unfit = "the primary key has not bound it"
		return sub
	}
	sub.narrow(public, sig)
	if err := s.binds(public, sig); err != nil {
		sub.unfit = err.Error()
	}
	return sub
}

// binds judges the signature by which the primary key takes a subkey for its own, and that
// inside by which the subkey agrees (RFC 9580, section 10.1.5): without it anybody could
// pass off another's signatures as his.
func (s *pgpSigner) binds(public *packet.PublicKey, sig *packet.Signature) error {
	if err := sound(sig, s.public); err != nil {
		return fmt.Errorf("binding: %w", err)
	}
	if !sig.FlagsValid || !sig.FlagSign {
		return errors.New("its flags do not include signing")
	}
	back := sig.EmbeddedSignature
	if back == nil || back.SigType != packet.SigTypePrimaryKeyBinding {
		return errors.New("it has not signed its primary key")
	}
	if err := sound(back, public); err != nil {
		return fmt.Errorf("its signature over the primary key: %w", err)
	}
	if back.SigLifetimeSecs != nil && *back.SigLifetimeSecs != 0 {
		return errors.New("its signature over the primary key expires")
	}
	s.effort += effort(s.public) + effort(public)
	if err := s.public.VerifyKeySignature(public, sig); err != nil { // both of them
		return fmt.Errorf("binding: %w", err)
	}
	return nil
}

// signatureType reads the type of a signature packet that the library may not read, as it
// may be a revocation.
func signatureType(body []byte) (packet.SignatureType, error) {
	if len(body) < 3 {
		return 0, errors.New("signature packet cut short")
	}
	switch body[0] {
	case 2, 3: // RFC 9580, section 5.2.2
		return packet.SignatureType(body[2]), nil
	case 4, 5, 6:
		return packet.SignatureType(body[1]), nil
	}
	return 0, fmt.Errorf("signature packet of version %d", body[0])
}
