package policy

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
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
	written := len(spec.PublicKeys)
	if spec.PublicKeyData != "" {
		written++
	}
	if written > MaxKeys {
		a.Malformed = fmt.Sprintf("%s has %d keys, at most %d are allowed", obj.ID(), written, MaxKeys)
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
		a.keys[key.ID] = append(a.keys[key.ID], key)
		a.distinct = append(a.distinct, key.Distinct())
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

// index makes an authority that a policy names one whose signatures are verified.
func (c *compiler) index(a *Authority) {
	for id := range a.keys {
		if !slices.Contains(c.snapshot.byKey[id], a) {
			c.snapshot.byKey[id] = append(c.snapshot.byKey[id], a)
		}
	}
}

// reportShared tells of authorities of a namespace with a key in common: notes are not
// signed, so that an attestation of the one is one of the other.
func (c *compiler) reportShared(obj *crds.Object, a *Authority, owners map[string]string) {
	for _, key := range a.distinct {
		at := obj.Namespace + " " + key
		if other, shared := owners[at]; shared && other != a.Name {
			c.report(*obj, false, "it has a key in common with AttestationAuthority "+obj.Namespace+"/"+other+": they share attestations")
		} else {
			owners[at] = a.Name
		}
	}
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
