package policy

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/kritis"
	"github.com/horkos/horkos/verifier/attestation"
)

// compileAuthority reads the keys of both shapes. A key that cannot be used is
// reported, and the others still verify; an authority without any usable key is malformed.
func (c *compiler) compileAuthority(obj *crds.Object) *Authority {
	a := &Authority{Name: obj.Name, keys: make(map[string][]*attestation.Key)}
	if m := obj.Malformed(); m != "" {
		a.Malformed = m
		c.report(*obj, false, m)
		return a
	}
	spec, ok := obj.Spec.(*kritis.AttestationAuthoritySpec)
	if !ok {
		a.Malformed = obj.ID() + " has no spec"
		c.report(*obj, false, a.Malformed)
		return a
	}
	a.Note = normalNote(spec.NoteReference)
	if len(spec.PublicKeys) > MaxKeys {
		a.Malformed = fmt.Sprintf("%s has %d keys, at most %d are allowed", obj.ID(), len(spec.PublicKeys), MaxKeys)
		c.report(*obj, false, a.Malformed)
		return a
	}
	var unusable []string
	use := func(field string, key *attestation.Key, err error) {
		if err != nil {
			text := field + ": " + err.Error()
			unusable = append(unusable, text)
			c.report(*obj, false, text)
			return
		}
		if len(a.keys[key.ID]) == 0 {
			c.snapshot.byKey[key.ID] = append(c.snapshot.byKey[key.ID], a)
		}
		a.keys[key.ID] = append(a.keys[key.ID], key)
	}
	for i, k := range spec.PublicKeys {
		key, err := listedKey(k)
		use(fmt.Sprintf("spec.publicKeys[%d]", i), key, err)
	}
	if spec.PublicKeyData != "" {
		key, err := olderKey(spec)
		use("spec.publicKeyData", key, err)
	}
	if len(a.keys) == 0 {
		a.Malformed = obj.ID() + " has no key"
		if len(unusable) > 0 {
			a.Malformed = obj.ID() + " has no usable key: " + strings.Join(unusable, "; ")
		}
		c.report(*obj, false, a.Malformed)
	}
	return a
}

// listedKey reads one key of the newer shape.
func listedKey(k kritis.PublicKey) (*attestation.Key, error) {
	if k.ValidFrom != "" || k.ValidUntil != "" {
		return nil, fmt.Errorf("this version of horkos cannot judge validFrom and validUntil")
	}
	switch k.KeyType {
	case "PGP":
		return nil, errPGP
	case "PKIX":
	default:
		return nil, fmt.Errorf("keyType: want PGP or PKIX, not %q", k.KeyType)
	}
	if k.ASCIIArmoredPGPPublicKey != "" || k.PKIXPublicKey == nil {
		return nil, fmt.Errorf("a key of keyType PKIX has pkixPublicKey, and only that")
	}
	return attestation.ParsePKIXKey(k.KeyID, []byte(k.PKIXPublicKey.PublicKeyPEM), k.PKIXPublicKey.SignatureAlgorithm)
}

// olderKey reads publicKeyData: base64 of a PGP key in armor or of a PEM public key.
// Alibaba Cloud's KMS keys are of the latter sort and bear publicKeyId.
func olderKey(spec *kritis.AttestationAuthoritySpec) (*attestation.Key, error) {
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(spec.PublicKeyData), ""))
	if err != nil {
		return nil, fmt.Errorf("not base64: %w", err)
	}
	if bytes.Contains(data, []byte("BEGIN PGP")) {
		return nil, errPGP
	}
	return attestation.ParsePKIXKey(spec.PublicKeyID, data, "")
}

var errPGP = fmt.Errorf("this version of horkos cannot verify PGP signatures")

var noteVersion = regexp.MustCompile(`^v1(alpha1|beta1)?/`)

// normalNote drops the API version that old documents write before projects/, and a
// slash at the end.
func normalNote(note string) string {
	return strings.TrimSuffix(noteVersion.ReplaceAllString(note, ""), "/")
}
