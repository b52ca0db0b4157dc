package attestation

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA384 and crypto.SHA512
	"fmt"
	"strings"
)

// algorithm is one way to sign. A key is used with one algorithm only: a signer's choice
// in the envelope would be a stranger's.
type algorithm struct {
	name string
	key  string      // the kind of key it wants, as describe has it
	hash crypto.Hash // of the payload; none for Ed25519, which signs the payload itself
	pss  bool        // of the two paddings of RSA, PSS rather than PKCS#1 v1.5
}

// algorithms lists all there are, under the names that Kritis and Binary Authorization
// gave them. The first that wants a certain kind of key is the one for a key that comes
// without a name.
func algorithms() []algorithm {
	return []algorithm{
		{"rsa-sign-pkcs1-2048-sha256", "RSA 2048", crypto.SHA256, false},
		{"rsa-sign-pkcs1-3072-sha256", "RSA 3072", crypto.SHA256, false},
		{"rsa-sign-pkcs1-4096-sha256", "RSA 4096", crypto.SHA256, false},
		{"rsa-sign-pkcs1-4096-sha512", "RSA 4096", crypto.SHA512, false},
		{"rsa-pss-2048-sha256", "RSA 2048", crypto.SHA256, true},
		{"rsa-pss-3072-sha256", "RSA 3072", crypto.SHA256, true},
		{"rsa-pss-4096-sha256", "RSA 4096", crypto.SHA256, true},
		{"rsa-pss-4096-sha512", "RSA 4096", crypto.SHA512, true},
		{"ecdsa-p256-sha256", "ECDSA P-256", crypto.SHA256, false},
		{"ecdsa-p384-sha384", "ECDSA P-384", crypto.SHA384, false},
		{"ecdsa-p521-sha512", "ECDSA P-521", crypto.SHA512, false},
		{"ed25519", "Ed25519", 0, false},
	}
}

// algorithmFor finds the algorithm of a name, in any spelling, that fits the key, or for
// an empty name the one that goes without saying.
func algorithmFor(public crypto.PublicKey, name string) (algorithm, error) {
	kind := describe(public)
	wanted := canonicalName(name)
	for _, a := range algorithms() {
		if name == "" && a.key == kind {
			return a, nil
		}
		if name == "" || a.name != wanted {
			continue
		}
		if a.key != kind {
			return algorithm{}, fmt.Errorf("key is %s, algorithm %s wants %s", kind, a.name, a.key)
		}
		return a, nil
	}
	if name == "" {
		return algorithm{}, fmt.Errorf("key is %s, which no algorithm wants", kind)
	}
	return algorithm{}, fmt.Errorf("unknown signature algorithm %.80q: want one of %s", name, strings.Join(Algorithms(), ", "))
}

// Algorithms are the names of all signature algorithms.
func Algorithms() []string {
	var names []string
	for _, a := range algorithms() {
		names = append(names, a.name)
	}
	return names
}

// canonicalName brings the spellings in use into one: letter case is free, and Binary
// Authorization writes RSA_SIGN_PSS_2048_SHA256 for rsa-pss-2048-sha256, and both
// ECDSA_P256_SHA256 and EC_SIGN_P256_SHA256 for ecdsa-p256-sha256.
func canonicalName(name string) string {
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	if rest, found := strings.CutPrefix(name, "rsa-sign-pss-"); found {
		return "rsa-pss-" + rest
	}
	if rest, found := strings.CutPrefix(name, "ec-sign-"); found {
		return "ecdsa-" + rest
	}
	return name
}

// describe names the kind of a public key: its type and size or curve.
func describe(public crypto.PublicKey) string {
	switch public := public.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", public.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + public.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return fmt.Sprintf("of type %T", public)
}

// digest is what is signed for a payload.
func (a algorithm) digest(payload []byte) []byte {
	if a.hash == 0 {
		return payload
	}
	h := a.hash.New()
	h.Write(payload)
	return h.Sum(nil)
}
