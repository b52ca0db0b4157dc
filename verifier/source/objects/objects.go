// Package objects reads the attestations that ImageAttestation objects carry. They are
// signed: where the objects come from does not matter to whether they count.
package objects

import (
	"fmt"
	"strings"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
)

// maxSignatures bounds the signatures of one attestation, maxName the bytes of a note or a key id.
const (
	maxSignatures = 16
	maxName       = 512
)

// Ignored is an attestation that is left out, which can only tighten.
type Ignored struct {
	Object  string
	Source  string
	Message string
}

// Records gathers the attestations of all ImageAttestations among the objects, by the
// image that their resourceUri names. Several objects of one digest are merged.
func Records(objs []crds.Object) (evidence.Records, []Ignored) {
	records, others := make(evidence.Records), make(evidence.Records)
	var ignored []Ignored
	for i := range objs {
		obj := &objs[i]
		spec, ok := obj.Spec.(*horkos.ImageAttestationSpec)
		if !ok || len(obj.Problems) > 0 {
			continue // package policy reports malformed objects of every kind
		}
		digest, err := image.ParseDigest(strings.Replace(obj.Name, "-", ":", 1))
		if err != nil {
			ignored = append(ignored, Ignored{obj.ID(), obj.Source, "its name is no digest: " + err.Error()})
			continue
		}
		for n := range spec.Attestations {
			id, at, about, err := read(&spec.Attestations[n], digest)
			if err != nil {
				ignored = append(ignored, Ignored{obj.ID(), obj.Source, fmt.Sprintf("spec.attestations[%d]: %v", n, err)})
				continue
			}
			at.Origin = obj.ID() + " (" + obj.Source + ")"
			if about {
				records[id] = append(records[id], at)
			} else {
				others[id] = append(others[id], at)
			}
		}
	}
	// What speaks of another image cannot count, and is kept to say so. It comes last, where
	// it takes no room from what could.
	for id, list := range others {
		records[id] = append(records[id], list...)
	}
	return records, ignored
}

// read gives an attestation, the image it is filed under, and whether it says that it is
// about that one.
func read(a *horkos.Attestation, digest image.Digest) (id image.Identity, at evidence.Attestation, about bool, err error) {
	if len(a.NoteName) > maxName {
		return id, at, false, fmt.Errorf("noteName: over %d bytes", maxName)
	}
	at.Note = a.NoteName
	id, err = image.ParseIdentity(a.ResourceURI)
	if err != nil {
		return id, at, false, fmt.Errorf("resourceUri: %w", err)
	}
	if id.Digest != digest {
		return id, at, false, fmt.Errorf("resourceUri: it is of %s, the object of %s", id.Digest, digest)
	}
	if a.Expires != "" {
		// The zero time would read as no expiry.
		if at.Expires, err = time.Parse(time.RFC3339, a.Expires); err != nil || at.Expires.IsZero() {
			return id, at, false, fmt.Errorf("expires: %.40q is not a time of RFC 3339", a.Expires)
		}
		at.Expires = at.Expires.UTC() // an offset of 24 hours is read, and never written
	}
	about, err = envelopes(a, id, &at)
	if err != nil {
		return id, at, false, err
	}
	for i := range at.Envelopes {
		if len(at.Envelopes[i].KeyID) > maxName {
			return id, at, false, fmt.Errorf("a key id is over %d bytes", maxName)
		}
	}
	if n := len(at.Envelopes); n == 0 || n > maxSignatures {
		return id, at, false, fmt.Errorf("%d signatures, want 1 to %d", n, maxSignatures)
	}
	return id, at, about, nil
}

// envelopes gathers the signatures of an attestation, in whichever of its shapes, and
// tells whether they may be about an image.
func envelopes(a *horkos.Attestation, id image.Identity, at *evidence.Attestation) (about bool, err error) {
	switch {
	case a.Attestation != nil:
		if about, err = raw(a.Attestation.SerializedPayload, a.Attestation.Signatures, id, at); err != nil {
			return false, err
		}
		for i, jwt := range a.Attestation.JWTs {
			keyID, err := attestation.JWTKeyID([]byte(jwt.CompactJWT))
			if err != nil {
				return false, fmt.Errorf("attestation.jwts[%d]: %w", i, err)
			}
			at.Envelopes = append(at.Envelopes, attestation.NewEnvelope(attestation.JWT, keyID, nil, []byte(jwt.CompactJWT)))
			about = true
		}
		return about, nil
	case a.GenericSignedAttestation != nil:
		g := a.GenericSignedAttestation
		if !simpleSigning(g.ContentType) {
			return false, fmt.Errorf("genericSignedAttestation.contentType: %.80q is not known", g.ContentType)
		}
		return raw(g.SerializedPayload, g.Signatures, id, at)
	case a.PGPSignedAttestation != nil:
		p := a.PGPSignedAttestation
		if !simpleSigning(p.ContentType) {
			return false, fmt.Errorf("pgpSignedAttestation.contentType: %.80q is not known", p.ContentType)
		}
		return true, pgp(p, at)
	}
	return false, fmt.Errorf("nothing is signed")
}

// simpleSigning tells whether a content type of Grafeas is that of simple signing, or left open.
func simpleSigning(contentType string) bool {
	switch contentType {
	case "", "CONTENT_TYPE_UNSPECIFIED", "SIMPLE_SIGNING_JSON":
		return true
	}
	return false
}

// raw adds the signatures over a payload beside them. A payload that will never be a
// statement is left out here: thousands of them would otherwise use up what is tried in
// an authority's name.
func raw(payload []byte, signatures []horkos.Signature, id image.Identity, at *evidence.Attestation) (about bool, err error) {
	if len(signatures) == 0 {
		return false, nil
	}
	claims, err := attestation.UnverifiedIdentity(payload)
	if err != nil {
		return false, err
	}
	for _, s := range signatures {
		at.Envelopes = append(at.Envelopes, attestation.NewEnvelope(attestation.PKIX, s.PublicKeyID, payload, s.Signature))
	}
	return claims == id, nil
}

// pgp adds a signed message under the key id beside it or, where there is none, those that
// the message names.
func pgp(p *horkos.PGPSignedAttestation, at *evidence.Attestation) error {
	ids := []string{strings.ToUpper(p.PGPKeyID)}
	if p.PGPKeyID == "" {
		var err error
		if ids, err = attestation.PGPKeyIDs([]byte(p.Signature)); err != nil {
			return fmt.Errorf("pgpSignedAttestation.signature: %w", err)
		}
	}
	for _, id := range ids {
		at.Envelopes = append(at.Envelopes, attestation.NewEnvelope(attestation.PGP, id, nil, []byte(p.Signature)))
	}
	return nil
}
