package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// Errors of Unseal, in the chain of what it returns.
var (
	// ErrVersion is about a text of a version that is not the one asked for.
	ErrVersion = errors.New("unknown version")
	// ErrDamaged is about a text that is not what was sealed.
	ErrDamaged = errors.New("damaged")
)

// seal is the first line of a sealed text.
type seal struct {
	Version int    `json:"version"`
	Bytes   int    `json:"bytes"`  // of the body
	SHA256  string `json:"sha256"` // of the body
}

// Seal puts a line before a body by which Unseal finds out whether it is whole: version,
// length and checksum, as JSON. Versions count from 1. It guards against accidents, not against an author.
func Seal(version int, body []byte) []byte {
	header := headerOf(version, body)
	return append(append(make([]byte, 0, len(header)+len(body)), header...), body...)
}

func headerOf(version int, body []byte) []byte {
	sum := sha256.Sum256(body)
	// Numbers and hex digits: it cannot fail.
	line, _ := json.Marshal(seal{version, len(body), hex.EncodeToString(sum[:])})
	return append(line, '\n')
}

// Unseal gives the body of a sealed text of that version: exactly what Seal made, or
// ErrVersion or ErrDamaged.
func Unseal(text []byte, version int) (body []byte, err error) {
	end := bytes.IndexByte(text, '\n') + 1
	header, body := text[:end], text[end:]
	if bytes.Equal(header, headerOf(version, body)) {
		return body, nil
	}
	var s seal
	switch err := json.Unmarshal(header, &s); {
	case err != nil || s.Version < 1:
		return nil, fmt.Errorf("%w: its first line cannot be read", ErrDamaged)
	case s.Version != version:
		// How the rest is to be understood, nobody here knows.
		return nil, fmt.Errorf("%w %d, want %d", ErrVersion, s.Version, version)
	case s.Bytes != len(body):
		return nil, fmt.Errorf("%w: %d bytes, want %d", ErrDamaged, len(body), s.Bytes)
	}
	return nil, fmt.Errorf("%w: its checksum is wrong", ErrDamaged)
}
