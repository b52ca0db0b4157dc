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
// +kubebuilder:pruning:PreserveUnknownFields
type ImageAttestationSpec struct {
	// Attestations holds 1 to 32 entries.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Attestations []Attestation `json:"attestations"`
}

// Attestation is one signed attestation in the shape of a Grafeas occurrence: exactly
// one of its last three fields is set.
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule=`(has(self.attestation) ? 1 : 0) + (has(self.pgpSignedAttestation) ? 1 : 0) + (has(self.genericSignedAttestation) ? 1 : 0) == 1`,message=`want exactly one of attestation, pgpSignedAttestation and genericSignedAttestation`
type Attestation struct {
	// ResourceURI is repository@digest; https:// before it is accepted.
	// +kubebuilder:validation:MaxLength=520
	ResourceURI string `json:"resourceUri"`
	// NoteName is the note it was made for, such as projects/p/notes/release; not signed.
	// +kubebuilder:validation:MaxLength=512
	NoteName string `json:"noteName,omitempty"`
	// Expires is RFC 3339; not signed, so it can only shorten.
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.size() == 0 || (self.matches('^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{1,2}:[0-9]{2}:[0-9]{2}([.,][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$') && timestamp(self) > timestamp('0001-01-01T00:00:00Z'))`,message=`want a time of RFC 3339 such as "2026-01-31T00:00:00Z", in quotes, or leave the field out`
	Expires string `json:"expires,omitempty"`

	// Attestation is by a PKIX key: a payload with signatures, or JWTs.
	Attestation *SignedPayload `json:"attestation,omitempty"`
	// PGPSignedAttestation is by an OpenPGP key.
	PGPSignedAttestation *PGPSignedAttestation `json:"pgpSignedAttestation,omitempty"`
	// GenericSignedAttestation is the older shape of a payload with signatures.
	GenericSignedAttestation *GenericSignedAttestation `json:"genericSignedAttestation,omitempty"`
}

// SignedPayload is the shape of Grafeas v1. Binary fields are base64.
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule=`(has(self.signatures) && self.signatures.size() > 0) || (has(self.jwts) && self.jwts.size() > 0)`,message=`it is not signed: want signatures or jwts`
// +kubebuilder:validation:XValidation:rule=`!has(self.serializedPayload) || self.serializedPayload.matches('^[A-Za-z0-9+/=\r\n]*$')`,message=`want base64`,fieldPath=`.serializedPayload`
type SignedPayload struct {
	// SerializedPayload is what is signed, in base64.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=100000
	SerializedPayload []byte `json:"serializedPayload,omitempty"`
	// Signatures are raw signatures of the payload.
	// +kubebuilder:validation:MaxItems=16
	Signatures []Signature `json:"signatures,omitempty"`
	// JWTs carry the payload themselves.
	// +kubebuilder:validation:MaxItems=16
	JWTs []JWT `json:"jwts,omitempty"`
}

// Signature is a raw signature over the payload beside it.
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule=`!has(self.signature) || self.signature.matches('^[A-Za-z0-9+/=\r\n]*$')`,message=`want base64`,fieldPath=`.signature`
type Signature struct {
	// Signature is base64.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=4096
	Signature []byte `json:"signature"`
	// PublicKeyID is the id of the key that signed.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	PublicKeyID string `json:"publicKeyId"`
}

// JWT is a compact JWS that carries its own payload.
// +kubebuilder:pruning:PreserveUnknownFields
type JWT struct {
	// CompactJWT is header, claims and signature, each base64url, joined by dots.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	CompactJWT string `json:"compactJwt"`
}

// PGPSignedAttestation is Grafeas v1beta1's attached PGP message.
// +kubebuilder:pruning:PreserveUnknownFields
type PGPSignedAttestation struct {
	// Signature is the message: in armor, or base64.
	// +optional
	// +kubebuilder:validation:MaxLength=262144
	Signature string `json:"signature"`
	// PGPKeyID is the fingerprint of the key that signed.
	// +kubebuilder:validation:MaxLength=512
	PGPKeyID string `json:"pgpKeyId,omitempty"`
	// ContentType is SIMPLE_SIGNING_JSON.
	// +kubebuilder:validation:MaxLength=253
	ContentType string `json:"contentType,omitempty"`
}

// GenericSignedAttestation is Grafeas v1beta1's payload with raw signatures.
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule=`has(self.signatures) && self.signatures.size() > 0`,message=`it is not signed: want signatures`
// +kubebuilder:validation:XValidation:rule=`!has(self.serializedPayload) || self.serializedPayload.matches('^[A-Za-z0-9+/=\r\n]*$')`,message=`want base64`,fieldPath=`.serializedPayload`
type GenericSignedAttestation struct {
	// ContentType is SIMPLE_SIGNING_JSON.
	// +kubebuilder:validation:MaxLength=253
	ContentType string `json:"contentType,omitempty"`
	// SerializedPayload is what is signed, in base64.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=100000
	SerializedPayload []byte `json:"serializedPayload"`
	// Signatures are raw signatures of the payload.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	Signatures []Signature `json:"signatures"`
}

// ImageRevocationSpec withdraws 1 to 256 index, manifest or config digests (cluster-scoped).
// +kubebuilder:pruning:PreserveUnknownFields
type ImageRevocationSpec struct {
	// Digests are sha256: or sha512: and the hex of an index, a manifest or a config.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=135
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('^(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$')`,message=`want sha256: and 64 hexadecimal digits in lower case`
	Digests []string `json:"digests"`
	// Reason is told when the image is refused.
	// +kubebuilder:validation:MaxLength=4096
	Reason string `json:"reason,omitempty"`
}
