package image

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// ParseDigest reads algorithm:hex with sha256 or sha512 and lower-case hex of exactly the
// algorithm's length (OCI image specification, "Digests"). No other algorithm is accepted.
func ParseDigest(s string) (Digest, error) {
	algorithm, encoded, _ := strings.Cut(s, ":")
	size := 0
	switch algorithm {
	case "sha256":
		size = sha256.Size
	case "sha512":
		size = sha512.Size
	default:
		return "", fmt.Errorf("digest %.80q: want sha256:<hex> or sha512:<hex>", s)
	}
	if len(encoded) != 2*size || !isHex(encoded) {
		return "", fmt.Errorf("digest %.80q: %s wants %d lower-case hex digits", s, algorithm, 2*size)
	}
	return Digest(s), nil
}

// SHA256 is the sha256 digest of content.
func SHA256(content []byte) Digest {
	sum := sha256.Sum256(content)
	return Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// Encoded is the hex of the digest, without its algorithm.
func (d Digest) Encoded() string {
	_, encoded, _ := strings.Cut(string(d), ":")
	return encoded
}

// Verify is nil if content has this digest, and an error if it has another one or the
// digest itself is malformed.
func (d Digest) Verify(content []byte) error {
	if _, err := ParseDigest(string(d)); err != nil {
		return err
	}
	var actual string
	if strings.HasPrefix(string(d), "sha512:") {
		sum := sha512.Sum512(content)
		actual = hex.EncodeToString(sum[:])
	} else {
		actual = SHA256(content).Encoded()
	}
	if actual != d.Encoded() {
		return errors.New("content does not have this digest")
	}
	return nil
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}
