package verifier

import (
	"fmt"

	"github.com/horkos/horkos/verifier/image"
)

// AsWritten is what a gate without a node makes of an image name: the name counts as
// bound, and the digest written, if there is one, is what is decided on. It may refuse
// what a node would admit, never the reverse, but for what only a node can see.
func AsWritten(name string) (Image, error) {
	if image.IsID(name) {
		return Image{Written: name, Unbound: "an image id names content of one node; write repository@sha256:..."}, nil
	}
	ref, err := image.Parse(name)
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", clip(name, 100), err)
	}
	img := Image{Written: name, Name: ref, Candidates: []Candidate{{Repository: ref.Repository}}}
	if ref.Digest != "" {
		img.Candidates[0].Digests = []image.Digest{ref.Digest}
		img.Digests = []image.Digest{ref.Digest}
	}
	return img, nil
}
