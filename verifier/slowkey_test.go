package verifier_test

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
)

// slowKey is an OpenPGP key, one of many, of the largest modulus and exponent that are read,
// with a signature over its user id that only the arithmetic shows to be none.
func slowKey(n int) string {
	modulus := bytes.Repeat([]byte{0xff}, 512)
	body := append([]byte{4, 0x60, 0, 0, 0, 1, 0x10, 0}, modulus...)
	body = append(body, 0, 17, 1, 0xff, 0xff)
	framed := append(binary.BigEndian.AppendUint16([]byte{0x99}, uint16(len(body))), body...)
	fingerprint := sha1.Sum(framed)
	hashed := append([]byte{5, 2, 0x60, 0, 0, 2, 2, 27, 2, 22, 33, 4}, fingerprint[:]...)
	sig := append([]byte{4, 0x13, 1, 8, 0, byte(len(hashed))}, hashed...)
	sig = append(sig, 0, 0, 0xab, 0xcd, 0x0f, 0xff, 0x7f)
	sig = append(sig, modulus[:511]...)
	var key []byte
	for _, p := range []struct {
		tag  byte
		body []byte
	}{{6, body}, {13, fmt.Append(nil, n)}, {2, sig}} {
		key = binary.BigEndian.AppendUint32(append(key, 0xc0|p.tag, 0xff), uint32(len(p.body)))
		key = append(key, p.body...)
	}
	return base64.StdEncoding.EncodeToString(key)
}

// slowAuthorities are the manifests of authorities with so many of them.
func slowAuthorities(keys int) string {
	var b strings.Builder
	for n := range keys {
		if n%64 == 0 {
			fmt.Fprintf(&b, "---\napiVersion: kritis.grafeas.io/v1beta1\nkind: AttestationAuthority\nmetadata: {name: slow%d, namespace: shop}\nspec:\n  publicKeys:\n", n)
		}
		fmt.Fprintf(&b, "  - {keyType: PGP, asciiArmoredPgpPublicKey: %s}\n", slowKey(n))
	}
	return b.String()
}
