package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/verifier/attestation"
	source "github.com/horkos/horkos/verifier/source/objects"
)

// merging adds a new attestation to those of an ImageAttestation.
type merging struct {
	added *attestationObject
	// expired tells which of the others are taken out; nil: none.
	expired func(*crds.Object, horkos.Attestation) bool
	pruned  int
}

// into adds to the ImageAttestation in a file, or with "-" to the one on standard input, which
// is printed.
func (m *merging) into(cmd *cobra.Command, path string) error {
	err := m.write(cmd, path)
	if err == nil && m.pruned > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "taken out: %s\n", plural(m.pruned, "attestation")+" expired")
	}
	return err
}

func (m *merging) write(cmd *cobra.Command, path string) error {
	if path == "-" {
		data, err := readBounded(cmd.InOrStdin())
		if err != nil {
			return fmt.Errorf("read standard input: %w", err)
		}
		merged, err := m.merge(data)
		if err != nil {
			return fmt.Errorf("standard input: %w", err)
		}
		_, err = cmd.OutOrStdout().Write(merged)
		return err
	}
	// A link, as into another folder, stays one.
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		var text bytes.Buffer
		if err := writeYAML(&text, m.added); err != nil {
			return err
		}
		return replaceFile(path, text.Bytes(), 0o644)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	data, err := readBounded(f)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	merged, err := m.merge(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return replaceFile(path, merged, info.Mode().Perm())
}

func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, crds.MaxDocumentBytes+1))
	if err == nil && len(data) > crds.MaxDocumentBytes {
		err = fmt.Errorf("more than %d bytes", crds.MaxDocumentBytes)
	}
	return data, err
}

// merge adds an attestation to the manifest of one ImageAttestation of the same image
// digest. All else in it stays as it was written; what it makes is read again, so that
// nothing is written that a gate would not take.
func (m *merging) merge(data []byte) ([]byte, error) {
	before, err := onlyAttestation(data)
	if err != nil {
		return nil, err
	}
	if name := m.added.Metadata["name"]; before.Name != name {
		return nil, fmt.Errorf("it is %s, the attestation is of %s", before.ID(), name)
	}
	had := before.Spec.(*horkos.ImageAttestationSpec).Attestations
	keep := make([]bool, len(had))
	left := 0
	for i := range had {
		if keep[i] = m.expired == nil || !m.expired(before, had[i]); keep[i] {
			left++
		}
	}
	m.pruned = len(had) - left
	switch {
	case left < crds.MaxAttestations:
	case m.expired == nil:
		return nil, fmt.Errorf("it holds %d attestations, and no more are allowed: --prune takes out those of this key and note that have expired", left)
	default:
		return nil, fmt.Errorf("it holds %d attestations, and no more are allowed: none of this key and note has expired, take out others by hand", left)
	}
	var merged []byte
	if trimmed := bytes.TrimSpace(data); json.Valid(trimmed) {
		merged, err = appendJSON(trimmed, keep, m.added.Spec.Attestations[0])
	} else {
		merged, err = appendYAML(data, keep, m.added.Spec.Attestations[0])
	}
	if err != nil {
		return nil, err
	}
	after, err := onlyAttestation(merged)
	if err != nil {
		return nil, fmt.Errorf("with the new attestation: %w", err)
	}
	if n := len(after.Spec.(*horkos.ImageAttestationSpec).Attestations); n != left+1 {
		return nil, fmt.Errorf("with the new attestation it would hold %d instead of %d: write it as a plain manifest", n, left+1)
	}
	return merged, nil
}

// onlyAttestation reads a manifest that is one good ImageAttestation.
func onlyAttestation(data []byte) (*crds.Object, error) {
	objects, err := crds.Decode(data, "manifest")
	if err != nil {
		return nil, err
	}
	if len(objects) != 1 || objects[0].Source != "manifest" { // else it is in a List or of several documents
		return nil, errors.New("want one ImageAttestation and nothing else")
	}
	o := &objects[0]
	if o.Kind != horkos.KindImageAttestation || o.UnknownKind {
		return nil, fmt.Errorf("want an ImageAttestation, not %s", o.ID())
	}
	if m := o.Malformed(); m != "" {
		return nil, errors.New(m)
	}
	return o, nil
}

// appendJSON adds to spec.attestations of a manifest in JSON.
func appendJSON(data []byte, keep []bool, a horkos.Attestation) ([]byte, error) {
	var object, spec map[string]json.RawMessage
	var list []json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(object["spec"], &spec); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(spec["attestations"], &list); err != nil {
		return nil, err
	}
	one, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	if spec["attestations"], err = json.Marshal(append(kept(list, keep), one)); err != nil {
		return nil, err
	}
	if object["spec"], err = json.Marshal(spec); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(object, "", "  ")
	return append(text, '\n'), err
}

// appendYAML adds to spec.attestations of a manifest in YAML, comments and all.
func appendYAML(data []byte, keep []bool, a horkos.Attestation) ([]byte, error) {
	var doc, one yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	list := &doc
	for _, key := range []string{"", "spec", "attestations"} {
		if list = inner(list, key); list == nil {
			return nil, errors.New("spec.attestations is not there as a plain list")
		}
	}
	var text bytes.Buffer
	if err := writeYAML(&text, a); err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal(text.Bytes(), &one); err != nil {
		return nil, err
	}
	list.Content = append(kept(list.Content, keep), one.Content[0])
	list.Style &^= yaml.FlowStyle
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&doc), enc.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// kept are the entries of a list that stay. One of another length is not the list that was
// looked at; the count of what is written tells.
func kept[T any](list []T, keep []bool) []T {
	if len(list) != len(keep) {
		return list
	}
	var left []T
	for i := range list {
		if keep[i] {
			left = append(left, list[i])
		}
	}
	return left
}

// expiredOf tells which attestations have expired, of those that are signed by a key alone and
// bear a note.
func expiredOf(key *attestation.Key, note string, now time.Time) func(*crds.Object, horkos.Attestation) bool {
	return func(o *crds.Object, a horkos.Attestation) bool {
		one := *o
		one.Spec = &horkos.ImageAttestationSpec{Attestations: []horkos.Attestation{a}}
		records, _ := source.Records([]crds.Object{one})
		if a.NoteName != note || len(records) != 1 {
			return false
		}
		for _, list := range records {
			for i := range list[0].Envelopes {
				s := attestation.Verify(key, &list[0].Envelopes[i]).Statement
				if s == nil || !over(list[0].Expires, now) && !over(s.Expires, now) {
					return false
				}
			}
		}
		return true
	}
}

// inner is the root of a document, or the value of a key of a map.
func inner(n *yaml.Node, key string) *yaml.Node {
	if n.Kind == yaml.DocumentNode {
		return n.Content[0]
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// replaceFile writes a file whole or not at all. Until then its name is a hidden one, which
// no gate that watches the folder reads.
func replaceFile(path string, text []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".horkos-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
