package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/source/objects"
)

// Bounds of what it takes to read an answer, beyond its size: a byte of YAML or an opening
// bracket of JSON can take more than a hundred in memory.
const (
	maxYAML   = 256 << 10
	maxValues = 128 << 10
)

// read gives the attestations of an answer that are filed under an image. Other objects,
// those of other images, and entries that cannot be used are passed over. An answer that
// is not made of objects is an error, and so is one whose only object of the digest is malformed.
func read(body []byte, from string, id image.Identity) ([]evidence.Attestation, error) {
	if err := affordable(body); err != nil {
		return nil, err
	}
	objs, err := crds.Decode(body, from)
	if err != nil {
		// The decoder's words quote the answer.
		return nil, unusable{failure("it answered garbage: not an ImageAttestation, in JSON or YAML")}
	}
	records, _ := objects.Records(objs)
	found := records[id]
	if len(found) == 0 && malformed(objs, id.Digest) {
		return nil, unusable{failure("its ImageAttestation is malformed: horkos policy check says how")}
	}
	return found, nil
}

// affordable tells whether an answer can be read in little memory.
func affordable(body []byte) error {
	start := bytes.TrimLeft(body, " \t\r\n")
	if len(start) == 0 {
		return unusable{failure("its answer is empty; where nothing is known, 404 is the answer")}
	}
	if start[0] == '{' && json.Valid(start) {
		values := 0
		for _, c := range []string{"{", "[", ","} {
			values += bytes.Count(start, []byte(c))
		}
		if values > maxValues {
			return unusable{failure(fmt.Sprintf("its answer has over %d values", maxValues))}
		}
		return nil
	}
	if len(body) > maxYAML {
		return unusable{failure(fmt.Sprintf("it answered garbage: not JSON, and over the %d bytes that YAML may have", maxYAML))}
	}
	if bytes.IndexByte(body, '&') >= 0 {
		return unusable{failure("its answer is YAML with &, whose anchors are not followed here; write JSON")}
	}
	return nil
}

// malformed tells whether there is an ImageAttestation of a digest that nothing can be read from.
func malformed(objs []crds.Object, digest image.Digest) bool {
	name := strings.Replace(string(digest), ":", "-", 1)
	for i := range objs {
		_, ok := objs[i].Spec.(*horkos.ImageAttestationSpec)
		if ok && objs[i].Name == name && len(objs[i].Problems) > 0 {
			return true
		}
	}
	return false
}
