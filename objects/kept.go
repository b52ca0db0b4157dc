package objects

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/horkos/horkos/crds"
)

// keptName is the file of the state folder that keeps the last good content of the policy
// folder: a line of JSON, keptHeader, and the body it describes.
const keptName = "policy-folder.json"

const keptVersion = 1

type keptHeader struct {
	Version int    `json:"version"`
	Bytes   int    `json:"bytes"`
	SHA256  string `json:"sha256"` // of the body
}

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

// writeKept replaces the kept copy, so that either the old or the new one is there whatever happens.
func writeKept(dir string, h held, absent bool) error {
	text, err := encodeKept(h, absent)
	if err != nil {
		return err
	}
	return replaceSynced(dir, keptName, text)
}

// replaceSynced writes a file of the state folder, with mode 0600, and returns when it is on disk.
func replaceSynced(dir, name string, text []byte) error {
	// One process writes a name: a fixed one leaves at most one file behind.
	temporary := filepath.Join(dir, name+".new")
	if err := writeSynced(temporary, text); err != nil {
		return err
	}
	if err := os.Rename(temporary, filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncFolder(dir)
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
	sum := sha256.Sum256(text.Bytes())
	header, err := json.Marshal(keptHeader{keptVersion, text.Len(), hex.EncodeToString(sum[:])})
	if err != nil {
		return nil, err
	}
	if n := len(header) + 1 + text.Len(); n > maxKeptBytes {
		return nil, fmt.Errorf("%d bytes are more than may be kept", n)
	}
	return append(append(header, '\n'), text.Bytes()...), nil
}

func writeSynced(path string, text []byte) (err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(text); err != nil {
		return err
	}
	return f.Sync()
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// readKept reads the kept copy; os.ErrNotExist is in the chain of the error when there is none.
func readKept(dir string, owned bool) (h held, absent bool, err error) {
	f, _, err := openRegular(filepath.Join(dir, keptName), owned)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	text, err := readAtMost(f, maxKeptBytes)
	if err != nil {
		return nil, false, err
	}
	return decodeKept(text)
}

func decodeKept(text []byte) (h held, absent bool, err error) {
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	var header keptHeader
	if err := strictly(first, &header); err != nil {
		return nil, false, fmt.Errorf("header: %w", err)
	}
	sum := sha256.Sum256(rest)
	switch {
	case header.Version != keptVersion:
		return nil, false, fmt.Errorf("version %d, want %d", header.Version, keptVersion)
	case header.Bytes != len(rest) || header.SHA256 != hex.EncodeToString(sum[:]):
		return nil, false, errors.New("its checksum is wrong")
	}
	var body keptBody
	if err := strictly(rest, &body); err != nil {
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
