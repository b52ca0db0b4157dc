package attestation

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Types of packets (RFC 9580, section 5).
const (
	tagSessionKey       = 1
	tagSignature        = 2
	tagSymmetricKey     = 3
	tagOnePass          = 4
	tagSecretKey        = 5
	tagPublicKey        = 6
	tagSecretSubkey     = 7
	tagCompressed       = 8
	tagEncrypted        = 9
	tagMarker           = 10
	tagLiteral          = 11
	tagTrust            = 12
	tagUserID           = 13
	tagPublicSubkey     = 14
	tagUserAttribute    = 17
	tagEncryptedChecked = 18
	tagEncryptedAEAD    = 20
	tagPadding          = 21

	firstUncriticalTag = 40 // from here on unknown ones may be passed over
)

// Labels of armor (RFC 9580, section 6.2).
const (
	labelMessage    = "MESSAGE"
	labelPublicKey  = "PUBLIC KEY BLOCK"
	labelPrivateKey = "PRIVATE KEY BLOCK"
	labelSignature  = "SIGNATURE"
	labelCleartext  = "SIGNED MESSAGE"
)

var (
	armorBegin  = []byte("-----BEGIN PGP ")
	armorDashes = []byte("-----")
)

// pgpPacket is one packet, without its header.
type pgpPacket struct {
	tag  uint8
	body []byte
}

// readPackets reads packets in binary, in armor under a label, or as base64 of either, to
// the last byte.
func readPackets(data []byte, label string, limit int) ([]pgpPacket, error) {
	if len(data) > limit {
		return nil, fmt.Errorf("%d bytes: at most %d are read", len(data), limit)
	}
	binary, err := unwrap(data, label)
	if errors.Is(err, errNotPGP) {
		decoded, notBase64 := decodeBase64(data)
		if notBase64 != nil {
			return nil, err
		}
		binary, err = unwrap(decoded, label)
	}
	if err != nil {
		return nil, err
	}
	return splitPackets(binary)
}

var errNotPGP = errors.New("neither OpenPGP, with or without armor, nor base64 of it")

// unwrap takes off the armor, if there is one.
func unwrap(data []byte, label string) ([]byte, error) {
	if text := bytes.TrimSpace(data); bytes.HasPrefix(text, armorBegin) {
		return dearmor(text, label)
	}
	if len(data) > 0 && data[0]&0x80 != 0 { // as every packet begins
		return data, nil
	}
	return nil, errNotPGP
}

// dearmor decodes one block and nothing else. The checksum at its end is not looked at
// (RFC 9580, section 6.1): what it would find the signature finds.
func dearmor(text []byte, label string) ([]byte, error) {
	first, rest, _ := bytes.Cut(text[len(armorBegin):], []byte("\n"))
	written, closed := bytes.CutSuffix(bytes.TrimRight(first, " \t\r"), armorDashes)
	if !closed {
		return nil, errors.New("malformed armor")
	}
	if string(written) != label {
		return nil, wrongLabel(string(written), label)
	}
	body, ended := bytes.CutSuffix(rest, []byte("\n-----END PGP "+label+"-----"))
	if !ended || bytes.Contains(body, armorDashes) {
		return nil, errors.New("the armor is cut short, or something follows it")
	}
	for headers := true; headers; { // they end with an empty line
		line, after, found := bytes.Cut(body, []byte("\n"))
		headers = len(bytes.TrimSpace(line)) > 0
		if !found || headers && !bytes.Contains(line, []byte(":")) {
			return nil, errors.New("malformed headers of the armor")
		}
		body = after
	}
	body = bytes.TrimRight(body, " \t\r\n")
	if sum := bytes.LastIndex(body, []byte("\n=")); sum >= 0 && len(body)-sum == len("\n=AAAA") {
		body = body[:sum]
	}
	data, err := decodeBase64(body)
	if err != nil {
		return nil, fmt.Errorf("in the armor: %w", err)
	}
	return data, nil
}

// wrongLabel says what the armor is of, to those who took another for it.
func wrongLabel(written, want string) error {
	switch written {
	case labelCleartext:
		return errors.New("a message signed in clear text (gpg --clearsign): the signature has to be attached (gpg --sign)")
	case labelSignature:
		return errDetached
	case labelPrivateKey:
		return errors.New("this is a private key: remove it and consider it leaked")
	}
	return fmt.Errorf("armor of a PGP %.40q: want PGP %s", written, want)
}

// decodeBase64 decodes standard base64 of one spelling, with white space anywhere.
func decodeBase64(text []byte) ([]byte, error) {
	text = bytes.Join(bytes.Fields(text), nil)
	data := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(data, text)
	if err != nil {
		return nil, fmt.Errorf("not base64: %w", err)
	}
	return data[:n], nil
}

// splitPackets cuts packets apart, to the last byte.
func splitPackets(data []byte) ([]pgpPacket, error) {
	var packets []pgpPacket
	reader := packet.NewOpaqueReader(bytes.NewReader(data))
	for {
		p, err := reader.Next()
		if err == io.EOF {
			return packets, nil
		}
		if err != nil {
			return nil, fmt.Errorf("packet %d: %w", len(packets)+1, err)
		}
		if len(packets) == maxPGPPackets {
			return nil, fmt.Errorf("over %d packets", maxPGPPackets)
		}
		packets = append(packets, pgpPacket{tag: p.Tag, body: p.Contents})
	}
}

// parsePacket has the library read a packet, which must use all of it: the library passes
// over what is left.
func parsePacket[P packet.Packet](p pgpPacket) (P, error) {
	var none P
	framed := make([]byte, 6, 6+len(p.body))
	framed[0], framed[1] = 0xc0|p.tag, 0xff // the header with a length of four bytes (RFC 9580, section 4.2.1)
	binary.BigEndian.PutUint32(framed[2:], uint32(len(p.body)))
	rest := bytes.NewReader(append(framed, p.body...))
	read, err := packet.Read(rest)
	if err != nil {
		return none, err
	}
	if rest.Len() > 0 {
		return none, fmt.Errorf("%d bytes too many in a packet", rest.Len())
	}
	typed, ok := read.(P)
	if !ok {
		return none, fmt.Errorf("a packet of type %d", p.tag)
	}
	return typed, nil
}

// parseSignature reads a signature packet of an algorithm that counts here. The library
// would also read those of others, in code that nothing here has a use for.
func parseSignature(p pgpPacket) (*packet.Signature, error) {
	if len(p.body) < 4 {
		return nil, errors.New("cut short")
	}
	if err := signs(packet.PublicKeyAlgorithm(p.body[2])); err != nil {
		return nil, err
	}
	return parsePacket[*packet.Signature](p)
}

// signs tells the algorithms that count.
func signs(a packet.PublicKeyAlgorithm) error {
	switch a {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly, packet.PubKeyAlgoECDSA, packet.PubKeyAlgoEdDSA, packet.PubKeyAlgoEd25519:
		return nil
	case packet.PubKeyAlgoDSA:
		return errors.New("DSA, which is not accepted")
	}
	return fmt.Errorf("public-key algorithm %d does not sign here: want RSA, ECDSA or Ed25519", a)
}
