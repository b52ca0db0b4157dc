package cases

import (
	"bytes"
	"slices"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// OnlyOnANode says why a case cannot be asked of a gate that sees nothing but names as they
// are written, over the manifests that the case decides by; empty where it can.
func (c *Case) OnlyOnANode(manifests []byte) string {
	for _, i := range c.Request.Images {
		switch {
		case i.Unbound != "":
			return "a name that could not be bound"
		case len(i.Twins) > 0:
			return "other records of the same content"
		case image.IsID(i.Name):
			return "an image by id"
		case i.ConfigDigest != "" && bytes.Contains(manifests, []byte(i.ConfigDigest)) && c.Want.Reason == verifier.ImageRevoked:
			return "the config that runs is revoked"
		}
		written, err := image.Parse(i.Name)
		if err != nil {
			continue
		}
		var bound []image.Digest
		if written.Digest != "" {
			bound = []image.Digest{written.Digest}
		}
		// An exemption and the default action do not look at digests.
		if !slices.Equal(i.Digests, bound) && !slices.Contains([]verifier.Reason{verifier.Exempt, verifier.NoPolicy}, c.Want.Reason) {
			return "what is bound is not what is written"
		}
	}
	return ""
}
