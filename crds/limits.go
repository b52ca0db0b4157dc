package crds

// Limits of what is decoded.
const (
	// MaxObjectBytes bounds one object as JSON, without what is not kept of it (see Object.Raw).
	MaxObjectBytes = 1 << 20
	// MaxDocumentBytes bounds one document, which may be a List, as it is written and as
	// JSON: a small document of YAML can stand for a large one by its aliases.
	MaxDocumentBytes = 8 << 20
	// MaxBytes bounds the data of one call of Decode, as it is written and as JSON.
	MaxBytes = 64 << 20
	// MaxObjects bounds what one call of Decode returns or drops.
	MaxObjects = 20_000
	// MaxAttestations bounds the attestations of one ImageAttestation.
	MaxAttestations = 32
	// MaxRevokedDigests bounds the digests of one ImageRevocation.
	MaxRevokedDigests = 256

	// maxDepth bounds how deep a document of YAML nests, its aliases followed. JSON is
	// bounded by its parser.
	maxDepth = 100
	// maxProblems and maxProblemText bound what is told about one object: so many problems,
	// and so many bytes of each path and message.
	maxProblems    = 32
	maxProblemText = 256
)
