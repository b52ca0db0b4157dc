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

// maxSignatures bounds the signatures of one attestation.
const maxSignatures = 16

// Ignored is an attestation that is left out, which can only tighten.
type Ignored struct {
	Object  string
	Source  string
	Message string
}

// Records gathers the attestations of all ImageAttestations among the objects, by
// digest. Several objects of one digest are merged.
func Records(objs []crds.Object) (evidence.Records, []Ignored) {
	records := make(evidence.Records)
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
			at, err := read(&spec.Attestations[n], digest)
			if err != nil {
				ignored = append(ignored, Ignored{obj.ID(), obj.Source, fmt.Sprintf("spec.attestations[%d]: %v", n, err)})
				continue
			}
			at.Origin = obj.ID() + " (" + obj.Source + ")"
			records[digest] = append(records[digest], at)
		}
	}
	return records, ignored
}

func read(a *horkos.Attestation, digest image.Digest) (evidence.Attestation, error) {
	at := evidence.Attestation{Note: a.NoteName}
	id, err := image.ParseIdentity(a.ResourceURI)
	if err != nil {
		return at, fmt.Errorf("resourceUri: %w", err)
	}
	if id.Digest != digest {
		return at, fmt.Errorf("resourceUri: it is of %s, the object of %s", id.Digest, digest)
	}
	if a.Expires != "" {
		if at.Expires, err = time.Parse(time.RFC3339, a.Expires); err != nil {
			return at, fmt.Errorf("expires: %w", err)
		}
	}
	var payload []byte
	var signatures []horkos.Signature
	switch {
	case a.Attestation != nil && len(a.Attestation.JWTs) > 0:
		return at, fmt.Errorf("attestation.jwts: this version of horkos cannot verify JWTs")
	case a.Attestation != nil:
		payload, signatures = a.Attestation.SerializedPayload, a.Attestation.Signatures
	case a.GenericSignedAttestation != nil:
		g := a.GenericSignedAttestation
		switch g.ContentType {
		case "", "CONTENT_TYPE_UNSPECIFIED", "SIMPLE_SIGNING_JSON":
		default:
			return at, fmt.Errorf("genericSignedAttestation.contentType: %q is not known", g.ContentType)
		}
		payload, signatures = g.SerializedPayload, g.Signatures
	case a.PGPSignedAttestation != nil:
		return at, fmt.Errorf("pgpSignedAttestation: this version of horkos cannot verify PGP signatures")
	}
	if len(signatures) == 0 || len(signatures) > maxSignatures {
		return at, fmt.Errorf("%d signatures, want 1 to %d", len(signatures), maxSignatures)
	}
	for _, s := range signatures {
		at.Envelopes = append(at.Envelopes, attestation.NewEnvelope(attestation.PKIX, s.PublicKeyID, payload, s.Signature))
	}
	return at, nil
}
