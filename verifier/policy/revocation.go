package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/verifier/image"
)

// compileRevocation reads an ImageRevocation. A revocation left out would open: of one with
// anything wrong with it every text counts that reads as a digest.
func (c *compiler) compileRevocation(o *origin, obj *crds.Object) {
	clean := len(obj.Problems) == 0
	if !clean {
		c.reportMalformed(*obj, false)
	}
	spec, ok := obj.Spec.(*horkos.ImageRevocationSpec)
	if !ok {
		return
	}
	revoke := func(d image.Digest) {
		if have, ok := c.snapshot.revoked[d]; ok && have.Origin == crds.Folder {
			return
		}
		c.snapshot.revoked[d] = Revocation{Origin: o.name, Object: obj.ID(), Reason: spec.Reason}
	}
	for i, text := range spec.Digests {
		d, err := image.ParseDigest(text)
		if err != nil {
			c.report(*obj, false, fmt.Sprintf("spec.digests[%d]", i), err.Error())
			clean = false
			continue
		}
		revoke(d)
	}
	if !clean {
		for _, d := range digestsIn(obj.Raw) {
			revoke(d)
		}
	}
}

// digestsIn finds the digests in the spec of an object, wherever they stand and in any letter
// case. Of a key that is there twice both values count.
func digestsIn(object []byte) (all []image.Digest) {
	var raw struct {
		Spec json.RawMessage `json:"spec"`
	}
	if json.Unmarshal(object, &raw) != nil {
		return nil
	}
	texts := json.NewDecoder(bytes.NewReader(raw.Spec))
	for {
		token, err := texts.Token()
		if err != nil {
			return all
		}
		if text, ok := token.(string); ok {
			if d, err := image.ParseDigest(strings.ToLower(strings.TrimSpace(text))); err == nil {
				all = append(all, d)
			}
		}
	}
}
