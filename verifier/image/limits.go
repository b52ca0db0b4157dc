package image

// Limits of what is read. Names and content come from strangers; what is above a limit
// is an error, never cut.
const (
	// MaxReferenceBytes bounds an image reference, as written and in its normal form.
	MaxReferenceBytes = 512
	// MaxPathBytes bounds the part of a repository after the host, as registries do.
	MaxPathBytes = 255
	// MaxTagBytes bounds a tag (OCI distribution specification, "Pulling manifests").
	MaxTagBytes = 128

	// MaxManifestBytes bounds a manifest and an index.
	MaxManifestBytes = 4 << 20
	// MaxConfigBytes bounds an image config.
	MaxConfigBytes = 8 << 20
	// MaxIndexEntries bounds the descriptors that one index lists.
	MaxIndexEntries = 128
	// MaxIndexDepth is how many indexes may lie above a manifest.
	MaxIndexDepth = 2

	// MaxBlobs bounds how many blobs one Resolve asks for, found or not: an index of
	// indexes could otherwise ask for 128 times 128 manifests and their configs.
	MaxBlobs = 512
	// MaxContentBytes bounds what one Resolve reads and hashes in all.
	MaxContentBytes = 64 << 20
)
