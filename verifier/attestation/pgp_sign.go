package attestation

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// PGPSigner is an OpenPGP private key, ready to sign.
type PGPSigner struct {
	key     *Key
	private []*packet.PrivateKey // those that are there and may sign
}

// ParsePGPPrivateKey reads an OpenPGP private key: one primary key with its subkeys, in
// armor, in binary, or base64 of either. The primary key's private part may be missing
// (gpg --export-secret-subkeys). The passphrase is used as it is, and may be nil when there
// is none. Its errors never quote key or passphrase.
func ParsePGPPrivateKey(data, passphrase []byte) (*PGPSigner, error) {
	packets, err := readPackets(data, labelPrivateKey, MaxPGPKeyBytes)
	if err != nil {
		return nil, fmt.Errorf("parsing OpenPGP private key: %w", err)
	}
	private, public, err := separate(packets)
	if err != nil {
		return nil, fmt.Errorf("parsing OpenPGP private key: %w", err)
	}
	key, err := newPGPKey(public)
	if err != nil {
		return nil, fmt.Errorf("parsing OpenPGP private key: %w", err)
	}
	signer := &PGPSigner{key: key}
	for _, p := range private {
		if s := key.pgp.find(p.Fingerprint); s == nil || s.unfit != "" || s.revoked || p.Dummy() {
			continue
		}
		if p.Encrypted && len(passphrase) == 0 {
			return nil, errors.New("the OpenPGP private key is encrypted: it needs its passphrase")
		}
		if err := p.Decrypt(passphrase); err != nil {
			return nil, errors.New("decrypting the OpenPGP private key: wrong passphrase, or the key is damaged")
		}
		signer.private = append(signer.private, p)
	}
	if len(signer.private) == 0 {
		return nil, fmt.Errorf("the OpenPGP private key %s has no part that may sign", key.ID)
	}
	return signer, nil
}

// separate gives the private keys among packets, and the packets of the public key.
func separate(packets []pgpPacket) ([]*packet.PrivateKey, []pgpPacket, error) {
	var private []*packet.PrivateKey
	var public []pgpPacket
	for _, p := range packets {
		publicTag := uint8(tagPublicKey)
		switch p.tag {
		case tagSecretSubkey:
			publicTag = tagPublicSubkey
		case tagSecretKey:
		default:
			public = append(public, p)
			continue
		}
		const algorithm = 5
		if len(p.body) <= algorithm {
			return nil, nil, errors.New("key packet cut short")
		}
		if signs(packet.PublicKeyAlgorithm(p.body[algorithm])) != nil {
			public = append(public, pgpPacket{publicTag, p.body[:algorithm+1]}) // which is all that is looked at
			continue
		}
		key, err := parsePacket[*packet.PrivateKey](p)
		if err != nil {
			return nil, nil, errors.New("malformed private key packet") // the library's words may quote it
		}
		var written bytes.Buffer
		if err := key.PublicKey.Serialize(&written); err != nil {
			return nil, nil, fmt.Errorf("writing its public key: %w", err)
		}
		one, err := splitPackets(written.Bytes())
		if err != nil {
			return nil, nil, fmt.Errorf("writing its public key: %w", err)
		}
		private, public = append(private, key), append(public, one...)
	}
	return private, public, nil
}

func (k *pgpKey) find(fingerprint []byte) *pgpSigner {
	for _, s := range k.signers {
		if bytes.Equal(s.public.Fingerprint, fingerprint) {
			return s
		}
	}
	return nil
}

// SignPGP signs a payload as of a time, with the newest subkey that may sign at that time
// or else the primary key, and returns the message, in armor, with the public key that
// verifies it. What Verify would not accept is an error, as in Sign.
func SignPGP(signer *PGPSigner, payload []byte, at time.Time) ([]byte, *Key, error) {
	private, err := signer.choose(at)
	if err != nil {
		return nil, nil, fmt.Errorf("signing: %w", err)
	}
	message, err := writeMessage(private, payload, at)
	if err != nil {
		return nil, nil, fmt.Errorf("signing by %X: %w", private.Fingerprint, err)
	}
	outcome := Verify(signer.key, &Envelope{Format: PGP, KeyID: signer.key.ID, Signature: message})
	if outcome.Failure != nil {
		return nil, nil, fmt.Errorf("checking the signature made: %w", outcome.Failure)
	}
	return message, signer.key, nil
}

func (s *PGPSigner) choose(at time.Time) (*packet.PrivateKey, error) {
	var chosen *packet.PrivateKey
	for _, p := range s.private {
		of := s.key.pgp.find(p.Fingerprint)
		if at.Before(of.from) || !of.until.IsZero() && !at.Before(of.until) {
			continue
		}
		if chosen == nil || !chosen.IsSubkey || p.IsSubkey && p.CreationTime.After(chosen.CreationTime) {
			chosen = p
		}
	}
	if chosen == nil {
		return nil, fmt.Errorf("the OpenPGP key %s has expired", s.key.ID)
	}
	return chosen, nil
}

// writeMessage writes a message of a one-pass signature, the payload in binary and a
// signature by SHA-512.
func writeMessage(private *packet.PrivateKey, payload []byte, at time.Time) ([]byte, error) {
	sig := &packet.Signature{
		Version:      private.Version,
		SigType:      packet.SigTypeBinary,
		PubKeyAlgo:   private.PubKeyAlgo,
		Hash:         crypto.SHA512,
		CreationTime: at,
		IssuerKeyId:  &private.KeyId,
	}
	config := &packet.Config{NonDeterministicSignaturesViaNotation: packet.BoolPointer(false)}
	h, err := sig.PrepareSign(config)
	if err != nil {
		return nil, err
	}
	h.Write(payload)
	if err := sig.Sign(h, private, config); err != nil {
		return nil, err
	}
	onePass := &packet.OnePassSignature{
		Version:    3,
		SigType:    sig.SigType,
		Hash:       sig.Hash,
		PubKeyAlgo: sig.PubKeyAlgo,
		KeyId:      private.KeyId,
		IsLast:     true,
	}
	if sig.Version == 6 {
		onePass.Version, onePass.Salt, onePass.KeyFingerprint = 6, sig.Salt(), private.Fingerprint
	}
	literal := &packet.OpaquePacket{Tag: tagLiteral, Contents: append([]byte{'b', 0, 0, 0, 0, 0}, payload...)} // no file name, no date

	var message bytes.Buffer
	out, err := armor.Encode(&message, "PGP "+labelMessage, nil)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(onePass.Serialize(out), literal.Serialize(out), sig.Serialize(out), out.Close()); err != nil {
		return nil, err
	}
	return message.Bytes(), nil
}
