package evidence

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unique"

	"github.com/horkos/horkos/state"
	"github.com/horkos/horkos/verifier/attestation"
)

// recordVersion is the version of the form of a record in a file.
const recordVersion = 1

// maxRecordFile bounds the file of a record: binary data takes a third more in it.
const maxRecordFile = 2*maxKeptBytes + 4096

// bySignature is the trust of records that only count by what is signed in them: whoever
// writes the disk can take them away, and not make them.
const bySignature = "signature"

type recordFile struct {
	Question     Question          `json:"question"`
	Read         time.Time         `json:"read"`
	Node         string            `json:"node"` // where it was read
	Trust        string            `json:"trust"`
	Clipped      bool              `json:"clipped,omitempty"`
	Revision     string            `json:"revision,omitempty"`
	Attestations []attestationFile `json:"attestations"`
}

type attestationFile struct {
	Note      string         `json:"note,omitempty"`
	Expires   time.Time      `json:"expires,omitzero"`
	Origin    string         `json:"origin"`
	Envelopes []envelopeFile `json:"envelopes"`
}

type envelopeFile struct {
	Format    attestation.Format `json:"format"`
	KeyID     string             `json:"keyID"`
	Payload   []byte             `json:"payload,omitempty"`
	Signature []byte             `json:"signature"`
}

// encodeRecord gives the text of a record's file and its name, which is that of its content.
func encodeRecord(r *Record, node string) (name string, text []byte, err error) {
	file := recordFile{Question: r.Question, Read: r.Read.UTC(), Node: node, Trust: bySignature, Clipped: r.Clipped, Revision: r.Revision,
		Attestations: make([]attestationFile, len(r.Attestations))}
	for i := range r.Attestations {
		at := &r.Attestations[i]
		file.Attestations[i] = attestationFile{Note: at.Note, Expires: at.Expires, Origin: at.Origin}
		for k := range at.Envelopes {
			e := &at.Envelopes[k]
			file.Attestations[i].Envelopes = append(file.Attestations[i].Envelopes, envelopeFile{e.Format, e.KeyID, e.Payload, e.Signature})
		}
	}
	body, err := json.Marshal(file)
	if err != nil {
		return "", nil, fmt.Errorf("encode the evidence about %s: %w", r.Question.Identity, err)
	}
	if text = state.Seal(recordVersion, body); len(text) > maxRecordFile {
		return "", nil, fmt.Errorf("encode the evidence about %s: %d bytes are more than are read again", r.Question.Identity, len(text))
	}
	return nameOf(text), text, nil
}

func nameOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// decodeRecord reads the file of a record, which must have the name of its content.
func decodeRecord(name string, text []byte) (Record, error) {
	if nameOf(text) != name {
		return Record{}, errors.New("its content is not that of its name")
	}
	body, err := state.Unseal(text, recordVersion)
	if err != nil {
		return Record{}, err
	}
	var file recordFile
	if err := json.Unmarshal(body, &file); err != nil {
		return Record{}, err
	}
	if file.Trust != bySignature {
		return Record{}, fmt.Errorf("it is to be trusted by %.40q", file.Trust)
	}
	r := Record{Question: file.Question, Read: file.Read, Clipped: file.Clipped, Revision: shared(file.Revision)}
	r.Question.Source, r.Question.Locator = shared(r.Question.Source), shared(r.Question.Locator)
	for _, a := range file.Attestations {
		at := Attestation{Note: shared(a.Note), Expires: a.Expires, Origin: a.Origin}
		for _, e := range a.Envelopes {
			at.Envelopes = append(at.Envelopes, attestation.NewEnvelope(attestation.Format(shared(string(e.Format))), shared(e.KeyID), e.Payload, e.Signature))
		}
		r.Attestations = append(r.Attestations, at)
	}
	if r.Read.IsZero() {
		return Record{}, errors.New("it does not say when it was read")
	}
	if len(r.Attestations) > maxKept {
		return Record{}, fmt.Errorf("it holds %d attestations, more than are kept", len(r.Attestations))
	}
	return r, nil
}

// shared is the one copy of a text that most records have alike.
func shared(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}
