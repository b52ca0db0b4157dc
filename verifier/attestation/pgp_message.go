package attestation

import (
	"bytes"
	"compress/bzip2"
	"compress/flate"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// pgpMessage is a signed message (RFC 9580, section 10.3) in its parts; nothing is verified.
type pgpMessage struct {
	payload    []byte // the contents of the literal data
	signatures []pgpSignaturePackets
}

// pgpSignaturePackets is a signature of a message and, unless it stands in front of the
// data as in old messages, its one-pass signature packet.
type pgpSignaturePackets struct {
	onePass   *pgpPacket
	nested    bool // another one-pass signature packet follows onePass
	signature pgpPacket
}

var errDetached = errors.New("a detached signature (gpg --detach-sign): it has to be attached (gpg --sign)")

// readMessage takes a message to pieces: signatures around literal data, once compressed
// or not at all, and not one byte more. The pool is decompress's.
func readMessage(data []byte, zips *sync.Pool) (*pgpMessage, error) {
	packets, err := readPackets(data, labelMessage, MaxPGPMessageBytes)
	if err != nil {
		return nil, err
	}
	if len(packets) > 0 && packets[0].tag == tagCompressed {
		if len(packets) > 1 {
			return nil, errors.New("something follows the compressed data")
		}
		inner, err := decompress(packets[0].body, zips)
		if err != nil {
			return nil, fmt.Errorf("compressed data: %w", err)
		}
		if packets, err = splitPackets(inner); err != nil {
			return nil, fmt.Errorf("compressed data: %w", err)
		}
	}
	for _, p := range packets {
		if err := inMessage(p.tag); err != nil {
			return nil, err
		}
	}
	return arrange(packets)
}

// inMessage says why a packet has no place in a signed message.
func inMessage(tag uint8) error {
	switch tag {
	case tagOnePass, tagSignature, tagLiteral:
		return nil
	case tagSessionKey, tagSymmetricKey, tagEncrypted, tagEncryptedChecked, tagEncryptedAEAD:
		return errors.New("an encrypted message")
	case tagPublicKey, tagPublicSubkey, tagSecretKey, tagSecretSubkey:
		return errors.New("a key, not a message")
	case tagCompressed:
		return errors.New("compressed data inside the message")
	}
	return fmt.Errorf("packet of type %d in a signed message", tag)
}

// arrange finds the literal data and pairs what is around it: the first one-pass signature
// goes with the last signature.
func arrange(packets []pgpPacket) (*pgpMessage, error) {
	at := -1
	for i, p := range packets {
		if p.tag != tagLiteral {
			continue
		}
		if at >= 0 {
			return nil, errors.New("more than one literal data packet")
		}
		at = i
	}
	if at < 0 {
		if len(packets) > 0 && packets[0].tag == tagSignature {
			return nil, errDetached
		}
		return nil, errors.New("no literal data")
	}
	before, after := packets[:at], packets[at+1:]
	if len(before) == 0 {
		return nil, errors.New("not signed")
	}
	if len(before) > MaxPGPSignatures || len(after) > MaxPGPSignatures {
		return nil, fmt.Errorf("over %d signatures", MaxPGPSignatures)
	}
	payload, err := literalData(packets[at].body)
	if err != nil {
		return nil, err
	}
	m := &pgpMessage{payload: payload}
	if before[0].tag == tagSignature {
		if len(after) > 0 || !allAre(before, tagSignature) {
			return nil, errors.New("signatures before and behind the data")
		}
		for _, p := range before {
			m.signatures = append(m.signatures, pgpSignaturePackets{signature: p})
		}
		return m, nil
	}
	if len(before) != len(after) || !allAre(before, tagOnePass) || !allAre(after, tagSignature) {
		return nil, errors.New("the signatures are not those announced before the data")
	}
	for i := range before {
		m.signatures = append(m.signatures, pgpSignaturePackets{
			onePass:   &before[i],
			nested:    i < len(before)-1,
			signature: after[len(after)-1-i],
		})
	}
	return m, nil
}

func allAre(packets []pgpPacket, tag uint8) bool {
	return !slices.ContainsFunc(packets, func(p pgpPacket) bool { return p.tag != tag })
}

// literalData gives the contents of a literal data packet (RFC 9580, section 5.9). Its
// format, file name and date are not signed, and mean nothing here.
func literalData(body []byte) ([]byte, error) {
	const format, date = 1, 4
	if len(body) < format+1 {
		return nil, errors.New("literal data cut short")
	}
	switch body[0] {
	case 'b', 't', 'u':
	default:
		return nil, fmt.Errorf("literal data of format %q", body[0])
	}
	head := format + 1 + int(body[1]) + date
	if len(body) < head {
		return nil, errors.New("literal data cut short")
	}
	if n := len(body) - head; n > MaxPayloadBytes {
		return nil, fmt.Errorf("payload of %d bytes: at most %d are read", n, MaxPayloadBytes)
	}
	return body[head:], nil
}

// decompress reads a compressed data packet (RFC 9580, section 5.6) to its last byte, and no
// more out of it than a message may hold. The pool keeps readers of zip, gpg's default: to
// make one takes longer than to read a message.
func decompress(body []byte, zips *sync.Pool) ([]byte, error) {
	if len(body) == 0 {
		return nil, errors.New("cut short")
	}
	rest := bytes.NewReader(body[1:]) // an io.ByteReader, so that nothing is read ahead
	var source io.Reader
	switch body[0] {
	case 0:
		source = rest
	case 1:
		zip, ok := zips.Get().(io.Reader)
		if !ok {
			zip = flate.NewReader(rest)
		} else if err := zip.(flate.Resetter).Reset(rest, nil); err != nil {
			return nil, err
		}
		defer zips.Put(zip)
		source = zip
	case 2:
		z, err := zlib.NewReader(rest)
		if err != nil {
			return nil, err
		}
		source = z
	case 3:
		source = bzip2.NewReader(rest)
	default:
		return nil, fmt.Errorf("unknown algorithm %d", body[0])
	}
	data, err := io.ReadAll(io.LimitReader(source, MaxPGPMessageBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxPGPMessageBytes {
		return nil, fmt.Errorf("more than %d bytes", MaxPGPMessageBytes)
	}
	if rest.Len() > 0 {
		return nil, errors.New("something follows its end")
	}
	return data, nil
}
