package policy

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/kritis"
)

// compileAuthority reads an AttestationAuthority, in either shape; not its keys if its
// namespace has no room for them.
func (c *compiler) compileAuthority(obj *crds.Object, crowdedOut bool) *Authority {
	spec, ok := specOf(obj)
	if !ok {
		m := obj.Malformed()
		a := &Authority{Name: obj.Name, Malformed: cmp.Or(m, obj.ID()+" has no spec")}
		if m != "" {
			c.reportMalformed(*obj, false)
		} else {
			c.report(*obj, false, "", a.Malformed)
		}
		return a
	}
	if crowdedOut {
		a := &Authority{Name: obj.Name, Malformed: fmt.Sprintf("namespace %s holds more than %d keys: %s is not read, as the authorities before it by name leave no room: remove keys that are no longer used",
			obj.Namespace, MaxNamespaceKeys, obj.ID())}
		c.report(*obj, false, "", a.Malformed)
		return a
	}
	return c.readAuthority(obj, "spec.", obj.Name, spec)
}

// specOf is what an AttestationAuthority says, if it is one that can be understood.
func specOf(obj *crds.Object) (authoritySpec, bool) {
	spec, ok := obj.Spec.(*kritis.AttestationAuthoritySpec)
	if !ok || !isAuthority(obj) || len(obj.Problems) > 0 {
		return authoritySpec{}, false
	}
	return authoritySpec{
		note: spec.NoteReference, keys: spec.PublicKeys, data: spec.PublicKeyData, dataID: spec.PublicKeyID, acceptExpired: spec.AcceptExpiredKeys}, true
}

func isAuthority(obj *crds.Object) bool {
	return obj.Kind == kritis.KindAttestationAuthority && !obj.UnknownKind
}

// authoritySpec is what an authority is made of, wherever it is written.
type authoritySpec struct {
	note          string
	keys          []kritis.PublicKey
	data, dataID  string // the older shape
	acceptExpired *bool
}

// count is how many keys are written.
func (s authoritySpec) count() int {
	if s.data != "" {
		return len(s.keys) + 1
	}
	return len(s.keys)
}

// readAuthority reads the keys of an authority. A key that cannot be used is reported,
// and the others still verify; an authority without any usable key is malformed.
func (c *compiler) readAuthority(obj *crds.Object, at, name string, spec authoritySpec) *Authority {
	a := &Authority{Name: name, Note: normalNote(spec.note), keys: make(map[string][]*Key), AcceptExpiredKeys: spec.acceptExpired == nil || *spec.acceptExpired}
	if written := spec.count(); written > MaxKeys {
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
		key, err := c.readListed(k)
		use(fmt.Sprintf("publicKeys[%d]", i), key, err)
	}
	if spec.data != "" {
		key, err := c.readOlder(spec.data, spec.dataID)
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

// readListed reads one key of the newer shape, and when it may be used.
func (c *compiler) readListed(k kritis.PublicKey) (*Key, error) {
	written, err := listedKey(k)
	if err != nil {
		return nil, err
	}
	key := &Key{}
	if key.Key, err = c.parse(written); err != nil {
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

// readOlder reads a key of the older shape.
func (c *compiler) readOlder(text, id string) (*Key, error) {
	written, err := olderKey(text, id)
	if err != nil {
		return nil, err
	}
	key := &Key{}
	if key.Key, err = c.parse(written); err != nil {
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
