package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// PushLayout stores the image of an OCI layout, as `make image` makes one, under ref, and
// returns its digest.
func (g *Registry) PushLayout(ref, dir string) (string, error) {
	repository, tag, err := splitTag(ref)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return "", fmt.Errorf("push %s: %w", ref, err)
	}
	var layout v1.IndexManifest
	if err := json.Unmarshal(text, &layout); err != nil {
		return "", fmt.Errorf("push %s: %w", ref, err)
	}
	if len(layout.Manifests) != 1 {
		return "", fmt.Errorf("push %s: %s holds %d images, want one", ref, dir, len(layout.Manifests))
	}
	digest, err := g.pushFrom(dir, repository, tag, layout.Manifests[0])
	if err != nil {
		return "", fmt.Errorf("push %s: %w", ref, err)
	}
	return digest, nil
}

// pushFrom pushes what a layout has, what it needs first.
func (g *Registry) pushFrom(dir, repository, tag string, what v1.Descriptor) (string, error) {
	content, err := os.ReadFile(filepath.Join(dir, "blobs", what.Digest.Algorithm, what.Digest.Hex))
	if err != nil {
		return "", err
	}
	var needs struct {
		Manifests []v1.Descriptor
		Config    *v1.Descriptor
		Layers    []v1.Descriptor
	}
	switch what.MediaType {
	case types.OCIImageIndex, types.OCIManifestSchema1:
		if err := json.Unmarshal(content, &needs); err != nil {
			return "", err
		}
	default:
		return g.PushBlob(repository, content)
	}
	all := append(needs.Manifests, needs.Layers...)
	if needs.Config != nil {
		all = append(all, *needs.Config)
	}
	var errs []error
	for _, need := range all {
		_, err := g.pushFrom(dir, repository, "", need)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	return g.PushManifest(repository, tag, string(what.MediaType), content)
}
