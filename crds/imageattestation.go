package crds

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/horkos/horkos/crds/horkos"
)

func checkImageAttestation(o *Object) []Problem {
	var problems []Problem
	if !isDigestName(o.Name) {
		problems = append(problems, Problem{"metadata.name", "want sha256- and 64 hexadecimal digits in lower case"})
	}
	spec := o.Spec.(*horkos.ImageAttestationSpec)
	if n := len(spec.Attestations); n < 1 || n > MaxAttestations {
		return append(problems, Problem{"spec.attestations", fmt.Sprintf("%d attestations, want 1 to %d", n, MaxAttestations)})
	}
	for i, a := range spec.Attestations {
		shapes := 0
		for _, is := range []bool{a.Attestation != nil, a.PGPSignedAttestation != nil, a.GenericSignedAttestation != nil} {
			if is {
				shapes++
			}
		}
		if shapes != 1 {
			problems = append(problems, Problem{
				fmt.Sprintf("spec.attestations[%d]", i),
				fmt.Sprintf("%d of attestation, pgpSignedAttestation and genericSignedAttestation, want exactly one", shapes),
			})
		}
	}
	return problems
}

// isDigestName tells whether a name is sha256-<64 hex>.
func isDigestName(name string) bool {
	hex, ok := strings.CutPrefix(name, "sha256-")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// badBase64 names the binary fields of an ImageAttestation's spec that are not base64;
// the decoder of JSON says only that there is one.
func badBase64(raw []byte) []Problem {
	type payload struct {
		SerializedPayload any `json:"serializedPayload"`
		Signatures        []struct {
			Signature any `json:"signature"`
		} `json:"signatures"`
	}
	var spec struct {
		Attestations []struct {
			Attestation payload `json:"attestation"`
			Generic     payload `json:"genericSignedAttestation"`
		} `json:"attestations"`
	}
	// Fields of a wrong type are told by the strict decoder; here the rest is read past them.
	_ = json.Unmarshal(raw, &spec)

	var problems []Problem
	check := func(value any, path string) {
		text, ok := value.(string)
		if !ok {
			return
		}
		if _, err := base64.StdEncoding.DecodeString(text); err != nil {
			problems = append(problems, Problem{path, "not base64"})
		}
	}
	for i, a := range spec.Attestations {
		at := fmt.Sprintf("spec.attestations[%d]", i)
		for _, shape := range []struct {
			name string
			payload
		}{{"attestation", a.Attestation}, {"genericSignedAttestation", a.Generic}} {
			check(shape.SerializedPayload, fmt.Sprintf("%s.%s.serializedPayload", at, shape.name))
			for j, s := range shape.Signatures {
				check(s.Signature, fmt.Sprintf("%s.%s.signatures[%d].signature", at, shape.name, j))
			}
		}
	}
	return problems
}
