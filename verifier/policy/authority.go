package policy

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/kritis"
	"github.com/horkos/horkos/verifier/attestation"
)

// compileAuthority reads an AttestationAuthority, in either shape.
func (c *compiler) compileAuthority(obj *crds.Object) *Authority {
	spec, ok := obj.Spec.(*kritis.AttestationAuthoritySpec)
	if m := obj.Malformed(); m != "" || !ok {
		a := &Authority{Name: obj.Name, Malformed: cmp.Or(m, obj.ID()+" has no spec")}
		if m != "" {
			c.reportMalformed(*obj, false)
		} else {
			c.report(*obj, false, "", a.Malformed)
		}
		return a
	}
	return c.readAuthority(obj, "spec.", obj.Name, authoritySpec{
		note: spec.NoteReference, keys: spec.PublicKeys, data: spec.PublicKeyData, dataID: spec.PublicKeyID, acceptExpired: spec.AcceptExpiredKeys})
}

// authoritySpec is what an authority is made of, wherever it is written.
type authoritySpec struct {
	note          string
	keys          []kritis.PublicKey
	data, dataID  string // the older shape
	acceptExpired *bool
}

// readAuthority reads the keys of an authority. A key that cannot be used is reported,
// and the others still verify; an authority without any usable key is malformed.
func (c *compiler) readAuthority(obj *crds.Object, at, name string, spec authoritySpec) *Authority {
	a := &Authority{Name: name, Note: normalNote(spec.note), keys: make(map[string][]*Key), AcceptExpiredKeys: spec.acceptExpired == nil || *spec.acceptExpired}
	written := len(spec.keys)
	if spec.data != "" {
		written++
	}
	if written > MaxKeys {
		a.Malformed = fmt.Sprintf("%s has %d keys, at most %d are allowed", obj.ID(), written, MaxKeys)
		c.report(*obj, false, "", a.Malformed)
		return a
	}
	var unusable []string
	use := func(field string, key *Key, err error) {
		if err != nil {
			unusable = append(unusable, at+field+": "+err.Error())
			var in *fieldError
			if errors.As(err, &in) {
				field, err = field+"."+in.field, in.err
			}
			c.report(*obj, false, at+field, err.Error())
			return
		}
		for _, id := range key.KeyIDs() {
			a.keys[id] = append(a.keys[id], key)
		}
		a.distinct = append(a.distinct, key.Distinct())
	}
	for i, k := range spec.keys {
		key, err := c.listedKey(k)
		use(fmt.Sprintf("publicKeys[%d]", i), key, err)
	}
	if spec.data != "" {
		key, err := c.olderKey(spec.data, spec.dataID)
		use("publicKeyData", key, err)
	}
	a.alike = alike(a)
	if len(a.keys) == 0 {
		a.Malformed = obj.ID() + " has no key"
		if len(unusable) == 0 {
			c.report(*obj, false, "", a.Malformed)
		} else { // each is reported
			a.Malformed = obj.ID() + " has no usable key: " + strings.Join(unusable, "; ")
		}
	}
	return a
}

// alike tells authorities apart by what they accept.
func alike(a *Authority) string {
	var keys []string
	for id, list := range a.keys {
		for _, key := range list {
			sum := key.Fingerprint()
			keys = append(keys, id+" "+string(sum[:]))
		}
	}
	slices.Sort(keys)
	return a.Note + "\n" + strings.Join(keys, "\n")
}

// index makes an authority that a policy of a namespace names one whose signatures are
// verified; with an empty namespace, one that a policy of the whole origin names.
func (c *compiler) index(a *Authority, namespace string) {
	if !c.owned[a] || namespace == "" {
		a.Namespace, c.owned[a] = namespace, true
	}
	if first := c.indexed[a.alike]; first != nil {
		if namespace == "" {
			first.Namespace = ""
		}
		return
	}
	c.indexed[a.alike] = a
	for id := range a.keys {
		c.snapshot.byKey[id] = append(c.snapshot.byKey[id], a)
	}
}

// reportShared tells of authorities of a namespace with a key in common: notes are not
// signed, so that an attestation of the one is one of the other.
func (c *compiler) reportShared(obj *crds.Object, a *Authority, owners map[string]string) {
	for _, key := range a.distinct {
		at := obj.Namespace + " " + key
		if other, shared := owners[at]; shared && other != a.Name {
			c.warn(*obj, false, "", "it has a key in common with AttestationAuthority "+obj.Namespace+"/"+other+": they share attestations")
		} else {
			owners[at] = a.Name
		}
	}
}

// fieldError is about one field of a key.
type fieldError struct {
	field string
	err   error
}

func (e *fieldError) Error() string { return e.field + ": " + e.err.Error() }
func (e *fieldError) Unwrap() error { return e.err }

// listedKey reads one key of the newer shape.
func (c *compiler) listedKey(k kritis.PublicKey) (*Key, error) {
	key := &Key{}
	var err error
	switch k.KeyType {
	case "PGP":
		if k.PKIXPublicKey != nil || k.ASCIIArmoredPGPPublicKey == "" {
			return nil, errors.New("a key of keyType PGP has asciiArmoredPgpPublicKey, and only that")
		}
		key.Key, err = c.parsePGP(k.KeyID, []byte(k.ASCIIArmoredPGPPublicKey))
	case "PKIX":
		if k.ASCIIArmoredPGPPublicKey != "" || k.PKIXPublicKey == nil {
			return nil, errors.New("a key of keyType PKIX has pkixPublicKey, and only that")
		}
		key.Key, err = attestation.ParsePKIXKey(k.KeyID, []byte(k.PKIXPublicKey.PublicKeyPEM), k.PKIXPublicKey.SignatureAlgorithm)
	default:
		err = &fieldError{"keyType", fmt.Errorf("want PGP or PKIX, not %.40q", k.KeyType)}
	}
	if err != nil {
		return nil, err
	}
	for _, bound := range []struct {
		field, text string
		at          *time.Time
	}{{"validFrom", k.ValidFrom, &key.From}, {"validUntil", k.ValidUntil, &key.Until}} {
		if bound.text == "" {
			continue
		}
		if *bound.at, err = instant(bound.text); err != nil {
			return nil, &fieldError{bound.field, err}
		}
	}
	return key, nil
}

// parsedKey is what reading an OpenPGP key gave.
type parsedKey struct {
	key *attestation.Key
	err error
}

// parsePGP reads a key once, however many namespaces list it: it takes arithmetic.
func (c *compiler) parsePGP(id string, data []byte) (*attestation.Key, error) {
	written := [2][32]byte{sha256.Sum256([]byte(id)), sha256.Sum256(data)}
	parsed, ok := c.parsed[written]
	if !ok {
		parsed.key, parsed.err = attestation.ParsePGPKey(id, data)
		c.parsed[written] = parsed
	}
	return parsed.key, parsed.err
}

// olderKey reads publicKeyData: base64 of a PGP key in armor or of a PEM public key.
// Alibaba Cloud's KMS keys are of the latter sort and bear publicKeyId.
func (c *compiler) olderKey(text, id string) (*Key, error) {
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, fmt.Errorf("not base64: %w", err)
	}
	key := &Key{}
	if bytes.Contains(data, []byte("BEGIN PGP")) {
		key.Key, err = c.parsePGP(id, data)
	} else {
		key.Key, err = attestation.ParsePKIXKey(id, data, "")
	}
	if err != nil {
		return nil, err
	}
	return key, nil
}

var noteVersion = regexp.MustCompile(`^v1(alpha1|beta1)?/`)

// normalNote drops the API version that old documents write before projects/, and a
// slash at the end.
func normalNote(note string) string {
	return strings.TrimSuffix(noteVersion.ReplaceAllString(note, ""), "/")
}
