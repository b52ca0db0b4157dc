package objects

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/state"
)

// keptName is the file of the state folder that keeps the last good content of the policy
// folder, sealed. Its seal has the version: where nobody can read it, it says so by being
// there, and is never moved aside to become a folder of which nothing was kept.
const keptName = "policy-folder.json"

const keptVersion = 1

type keptBody struct {
	// Absent: the folder held no policy any more when this was written.
	Absent bool       `json:"absent,omitempty"`
	Files  []keptFile `json:"files"`
}

type keptFile struct {
	Name    string       `json:"name"`
	Objects []keptObject `json:"objects"`
}

type keptObject struct {
	Source string          `json:"source"`
	Raw    json.RawMessage `json:"raw"`
}

// writeKept replaces the kept copy, so that either the old or the new one is there whatever
// happens. One that says the same already is left: on a full disk it is all there is.
func writeKept(dir string, h held, absent bool) error {
	text, err := encodeKept(h, absent)
	if err != nil {
		return err
	}
	if before, _, err := readFile(filepath.Join(dir, keptName), maxKeptBytes, false); err == nil && bytes.Equal(before, text) {
		return nil
	}
	return state.Replace(dir, keptName, text)
}

func encodeKept(h held, absent bool) ([]byte, error) {
	body := keptBody{Absent: absent, Files: []keptFile{}}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		file := keptFile{Name: name, Objects: []keptObject{}}
		for _, o := range h[name].objects {
			file.Objects = append(file.Objects, keptObject{o.Source, o.Raw})
		}
		body.Files = append(body.Files, file)
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // Raw stays what it is
	if err := enc.Encode(body); err != nil {
		return nil, err
	}
	sealed := state.Seal(keptVersion, text.Bytes())
	if len(sealed) > maxKeptBytes {
		return nil, fmt.Errorf("%d bytes are more than may be kept", len(sealed))
	}
	return sealed, nil
}

// readKept reads the kept copy; os.ErrNotExist is in the chain of the error when there is none.
func readKept(dir string, owned bool) (h held, absent bool, err error) {
	f, _, err := openRegular(filepath.Join(dir, keptName), owned)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	text, err := state.ReadAtMost(f, maxKeptBytes)
	if err != nil {
		return nil, false, err
	}
	return decodeKept(text)
}

func decodeKept(text []byte) (h held, absent bool, err error) {
	sealed, err := state.Unseal(text, keptVersion)
	if err != nil {
		return nil, false, err
	}
	var body keptBody
	if err := strictly(sealed, &body); err != nil {
		return nil, false, err
	}
	h = make(held, len(body.Files))
	for _, file := range body.Files {
		objects := make([]crds.Object, 0, len(file.Objects))
		for _, o := range file.Objects {
			decoded, err := crds.Decode(o.Raw, o.Source)
			if err != nil {
				return nil, false, err
			}
			objects = append(objects, decoded...)
		}
		h[file.Name] = heldFile{objects: objects}
	}
	return h, body.Absent, nil
}

func strictly(text []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows")
	}
	return nil
}
