package policy

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/kritis"
	"github.com/horkos/horkos/verifier/attestation"
)

// writtenKey is a key as an object has it, before anything is computed.
type writtenKey struct {
	pgp           bool
	id, algorithm string
	data          []byte
}

// writtenSum tells written keys apart by all that reading them depends on.
type writtenSum [sha256.Size]byte

func (w writtenKey) sum() writtenSum {
	h := sha256.New()
	fmt.Fprintf(h, "%t %q %q ", w.pgp, w.id, w.algorithm)
	h.Write(w.data)
	return writtenSum(h.Sum(nil))
}

// parsedKey is what reading a key gave.
type parsedKey struct {
	key *attestation.Key
	err error
}

func (w writtenKey) parse() (p parsedKey) {
	if w.pgp {
		p.key, p.err = attestation.ParsePGPKey(w.id, w.data)
	} else {
		p.key, p.err = attestation.ParsePKIXKey(w.id, w.data, w.algorithm)
	}
	return p
}

// parse reads a key once, however many namespaces list it and however often the rest
// changes: it takes arithmetic.
func (c *compiler) parse(w writtenKey) (*attestation.Key, error) {
	sum := w.sum()
	p, ok := c.parsed[sum]
	if !ok {
		if p, ok = c.before[sum]; !ok {
			p = w.parse()
		}
		c.parsed[sum] = p
	}
	return p.key, p.err
}

// listedKey is one key of the newer shape.
func listedKey(k kritis.PublicKey) (writtenKey, error) {
	switch k.KeyType {
	case "PGP":
		if k.PKIXPublicKey != nil || k.ASCIIArmoredPGPPublicKey == "" {
			return writtenKey{}, errors.New("a key of keyType PGP has asciiArmoredPgpPublicKey, and only that")
		}
		return writtenKey{pgp: true, id: k.KeyID, data: []byte(k.ASCIIArmoredPGPPublicKey)}, nil
	case "PKIX":
		if k.ASCIIArmoredPGPPublicKey != "" || k.PKIXPublicKey == nil {
			return writtenKey{}, errors.New("a key of keyType PKIX has pkixPublicKey, and only that")
		}
		return writtenKey{id: k.KeyID, algorithm: k.PKIXPublicKey.SignatureAlgorithm, data: []byte(k.PKIXPublicKey.PublicKeyPEM)}, nil
	}
	return writtenKey{}, &fieldError{"keyType", fmt.Errorf("want PGP or PKIX, not %.40q", k.KeyType)}
}

// olderKey is publicKeyData: base64 of a PGP key in armor or of a PEM public key.
// Alibaba Cloud's KMS keys are of the latter sort and bear publicKeyId.
func olderKey(text, id string) (writtenKey, error) {
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return writtenKey{}, fmt.Errorf("not base64: %w", err)
	}
	return writtenKey{pgp: bytes.Contains(data, []byte("BEGIN PGP")), id: id, data: data}, nil
}

// crowdedOut are the authorities that are not read, as their namespace holds more keys than
// are: taken by name, those for whose keys the ones before leave no room. Whoever may write
// them must not slow compiling down for others.
func crowdedOut(objects []crds.Object) map[*crds.Object]bool {
	count := make(map[string]int)
	authorities := make(map[string][]*crds.Object)
	for i := range objects {
		obj := &objects[i]
		if spec, ok := specOf(obj); ok && spec.count() <= MaxKeys {
			count[obj.Namespace] += spec.count()
			authorities[obj.Namespace] = append(authorities[obj.Namespace], obj)
		}
	}
	out := make(map[*crds.Object]bool)
	for namespace, all := range authorities {
		if count[namespace] <= MaxNamespaceKeys {
			continue // most: they need not be told apart
		}
		slices.SortFunc(all, func(a, b *crds.Object) int { return cmp.Compare(a.Name, b.Name) })
		room := make(map[writtenSum]bool)
		for _, obj := range all {
			fresh := make(map[writtenSum]bool)
			spec, _ := specOf(obj)
			for _, sum := range spec.sums() {
				if !room[sum] {
					fresh[sum] = true
				}
			}
			if len(room)+len(fresh) > MaxNamespaceKeys {
				out[obj] = true
				continue
			}
			for sum := range fresh {
				room[sum] = true
			}
		}
	}
	return out
}

// sums are those of the keys that would be read.
func (s authoritySpec) sums() []writtenSum {
	var sums []writtenSum
	for _, k := range s.keys {
		if w, err := listedKey(k); err == nil {
			sums = append(sums, w.sum())
		}
	}
	if s.data != "" {
		if w, err := olderKey(s.data, s.dataID); err == nil {
			sums = append(sums, w.sum())
		}
	}
	return sums
}
