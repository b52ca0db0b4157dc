// Package horkos has the objects of group horkos.dev/v1alpha1.
//
// The types hold what is written in a manifest; what it means, and whether it is
// valid beyond its shape, is the business of package policy.
package horkos

// GroupVersion is the API group and version of every type of this package.
const GroupVersion = "horkos.dev/v1alpha1"

// Kinds of this group.
const (
	KindImageAttestation         = "ImageAttestation"
	KindImageRevocation          = "ImageRevocation"
	KindClusterAttestationPolicy = "ClusterAttestationPolicy"
	KindNodeGate                 = "NodeGate"
)

// ImageAttestationSpec carries the attestations of one image digest (cluster-scoped;
// the object's name is sha256-<hex>).
type ImageAttestationSpec struct {
	// Attestations holds 1 to 32 entries.
	Attestations []Attestation `json:"attestations"`
}

// Attestation is one signed attestation in the shape of a Grafeas occurrence: exactly
// one of its last three fields is set.
type Attestation struct {
	// ResourceURI is repository@digest; https:// before it is accepted.
	ResourceURI string `json:"resourceUri"`
	NoteName    string `json:"noteName,omitempty"`
	// Expires is RFC 3339; not signed, so it can only shorten.
	Expires string `json:"expires,omitempty"`

	Attestation              *SignedPayload            `json:"attestation,omitempty"`
	PGPSignedAttestation     *PGPSignedAttestation     `json:"pgpSignedAttestation,omitempty"`
	GenericSignedAttestation *GenericSignedAttestation `json:"genericSignedAttestation,omitempty"`
}

// SignedPayload is the shape of Grafeas v1. Binary fields are base64.
type SignedPayload struct {
	SerializedPayload []byte      `json:"serializedPayload,omitempty"`
	Signatures        []Signature `json:"signatures,omitempty"`
	JWTs              []JWT       `json:"jwts,omitempty"`
}

// Signature is a raw signature over the payload beside it.
type Signature struct {
	Signature   []byte `json:"signature"`
	PublicKeyID string `json:"publicKeyId"`
}

// JWT is a compact JWS that carries its own payload.
type JWT struct {
	CompactJWT string `json:"compactJwt"`
}

// PGPSignedAttestation is Grafeas v1beta1's attached PGP message.
type PGPSignedAttestation struct {
	Signature   string `json:"signature"`
	PGPKeyID    string `json:"pgpKeyId,omitempty"`
	ContentType string `json:"contentType,omitempty"`
}

// GenericSignedAttestation is Grafeas v1beta1's payload with raw signatures.
type GenericSignedAttestation struct {
	ContentType       string      `json:"contentType,omitempty"`
	SerializedPayload []byte      `json:"serializedPayload"`
	Signatures        []Signature `json:"signatures"`
}

// ImageRevocationSpec withdraws 1 to 256 index, manifest or config digests (cluster-scoped).
type ImageRevocationSpec struct {
	Digests []string `json:"digests"`
	Reason  string   `json:"reason,omitempty"`
}
