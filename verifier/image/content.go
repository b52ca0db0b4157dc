package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Provider is where content lies: a node's content store, a registry.
type Provider interface {
	// Blob returns the whole blob of a digest, or an error that wraps ErrNotFound if there is
	// none. A blob of more than limit bytes is an error. Nothing it returns is trusted.
	Blob(ctx context.Context, digest Digest, limit int64) ([]byte, error)
}

// ErrNotFound is wrapped by the error for a blob that a Provider does not have.
var ErrNotFound = errors.New("not found")

// Manifest is one manifest that a digest leads to, and what its config says.
type Manifest struct {
	// Digests is the way to the manifest, outermost first: indexes, then the manifest itself.
	Digests []Digest
	// Config is the digest of the config: the id of the image in a runtime.
	Config Digest

	// Unusable, where not empty, says why Config does not stand for the content: artifacts
	// that are no images share configs such as {}. The fields below are then empty.
	Unusable string

	// ChainID names the unpacked root file system; empty when the image has no layers.
	ChainID Digest
	// Entrypoint and Cmd are the config's, as written.
	Entrypoint []string
	Cmd        []string
}

// Resolve follows target, the digest of an index or a manifest, to every manifest below it
// whose own blob and config the provider has, in the order of the indexes. A manifest below
// two indexes is there once for each way. Entries of an index that the provider does not
// have are passed over, as a node has one platform of many, and so are those of other media
// types; where target itself, or its config, is missing, the error wraps ErrNotFound.
//
// Each blob is checked against its digest. A blob that does not match, is malformed or
// exceeds a limit is an error that names its digest, whichever entry led there.
func Resolve(ctx context.Context, provider Provider, target Digest) ([]Manifest, error) {
	r := resolver{provider: provider, blobsLeft: MaxBlobs, bytesLeft: MaxContentBytes}
	if err := r.follow(ctx, target, nil, func(document) bool { return true }); err != nil {
		return nil, fmt.Errorf("resolving image content: %w", err)
	}
	return r.found, nil
}

// resolver is one Resolve: what it found, and what it may still spend.
type resolver struct {
	provider  Provider
	found     []Manifest
	blobsLeft int
	bytesLeft int64
}

// follow reads the index or manifest of a digest that lies below the indexes above.
// expected is what the descriptor that led here promised it to be.
func (r *resolver) follow(ctx context.Context, digest Digest, above []Digest, expected func(document) bool) error {
	data, err := r.blob(ctx, digest, MaxManifestBytes)
	if err != nil {
		return err
	}
	doc, err := decodeDocument(data)
	if err != nil {
		return fmt.Errorf("%s: %w", digest, err)
	}
	if !expected(doc) {
		return fmt.Errorf("%s: is not of the kind that the index above it says", digest)
	}
	digests := append(slices.Clone(above), digest)
	if !doc.isIndex {
		return r.manifest(ctx, digests, doc)
	}
	if len(digests) > MaxIndexDepth {
		return fmt.Errorf("%s: index below %d others: at most %d may lie above a manifest", digest, len(above), MaxIndexDepth)
	}
	for _, entry := range doc.entries {
		promised := func(child document) bool { return child.isIndex == isIndexType(entry.mediaType) }
		if err := r.follow(ctx, entry.digest, digests, promised); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

// manifest adds the manifest at the end of digests to what was found.
func (r *resolver) manifest(ctx context.Context, digests []Digest, doc document) error {
	m := Manifest{Digests: digests, Config: doc.config.digest}
	if !isConfigType(doc.config.mediaType) {
		m.Unusable = fmt.Sprintf("its config has media type %.80q, which is not an image's", doc.config.mediaType)
		r.found = append(r.found, m)
		return nil
	}
	data, err := r.blob(ctx, m.Config, MaxConfigBytes)
	if err != nil {
		return err
	}
	c, err := decodeConfig(data)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Config, err)
	}
	m.Unusable = unusable(c, doc.layers)
	if m.Unusable == "" {
		m.ChainID = chainID(c.diffIDs)
		m.Entrypoint, m.Cmd = c.entrypoint, c.cmd
	}
	r.found = append(r.found, m)
	return nil
}

// unusable says why a config does not pin down the content of a manifest with so many
// layers. Runtimes check each unpacked layer against its diff id, so that one config means
// one content, but only if there is a diff id for each.
func unusable(c config, layers int) string {
	switch {
	case c.rootfsType != "layers":
		return fmt.Sprintf("its config's rootfs has type %.80q, want \"layers\"", c.rootfsType)
	case len(c.diffIDs) != layers:
		return fmt.Sprintf("it has %d layers and its config %d diff ids", layers, len(c.diffIDs))
	case slices.Contains(c.diffIDs, ""):
		return "its config has an empty diff id"
	}
	return ""
}

// blob reads a blob within the limits, and checks that it is the one asked for.
func (r *resolver) blob(ctx context.Context, digest Digest, limit int64) ([]byte, error) {
	if _, err := ParseDigest(string(digest)); err != nil {
		return nil, err
	}
	if r.blobsLeft--; r.blobsLeft < 0 {
		return nil, fmt.Errorf("%s: more than %d blobs to read", digest, MaxBlobs)
	}
	data, err := r.provider.Blob(ctx, digest, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: reading: %w", digest, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: blob of %d bytes: at most %d are read", digest, len(data), limit)
	}
	if r.bytesLeft -= int64(len(data)); r.bytesLeft < 0 {
		return nil, fmt.Errorf("%s: more than %d bytes to read in all", digest, MaxContentBytes)
	}
	if err := digest.Verify(data); err != nil {
		return nil, fmt.Errorf("%s: %w", digest, err)
	}
	return data, nil
}

// chainID names the file system that layers with these diff ids unpack to (OCI image
// specification, "Layer ChainID").
func chainID(diffIDs []Digest) Digest {
	if len(diffIDs) == 0 {
		return ""
	}
	chain := diffIDs[0]
	for _, diffID := range diffIDs[1:] {
		chain = SHA256([]byte(chain + " " + diffID))
	}
	return chain
}
