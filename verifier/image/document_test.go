package image

import (
	"encoding/json"
	"slices"
	"testing"
)

// What is accepted must read the same to a reader that uses encoding/json, as runtimes do:
// it folds letter case and takes the last of two.

func FuzzDocument(f *testing.F) {
	for _, seed := range []string{
		manifestOf(desc(ociConfig, aDigest), 2), indexOf(desc(ociManifest, aDigest), desc(dockerIndex, aSHA512)), `{"manifests":null}`,
		`{"manifests":[],"layers":[]}`, `{"config":{},"layers":[]}`, `{"mediaType":"` + ociIndex + `","manifests":[]}`, `{"Manifests":[],"manifests":[]}`, `null`, `[`,
	} {
		f.Add([]byte(seed))
	}
	type plainDescriptor struct {
		MediaType string `json:"mediaType"`
		Digest    Digest `json:"digest"`
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := decodeDocument(data)
		if err != nil {
			return
		}
		var plain struct {
			Config    plainDescriptor   `json:"config"`
			Layers    []json.RawMessage `json:"layers"`
			Manifests []plainDescriptor `json:"manifests"`
		}
		if err := json.Unmarshal(data, &plain); err != nil {
			t.Fatalf("encoding/json refuses it: %v", err)
		}
		if (descriptor{plain.Config.MediaType, plain.Config.Digest}) != doc.config || len(plain.Layers) != doc.layers {
			t.Errorf("encoding/json reads config %v and %d layers, not %v and %d", plain.Config, len(plain.Layers), doc.config, doc.layers)
		}
		for _, entry := range doc.entries {
			if !doc.isIndex || !slices.Contains(plain.Manifests, plainDescriptor{entry.mediaType, entry.digest}) {
				t.Errorf("encoding/json does not read entry %v", entry)
			}
		}
	})
}

func FuzzConfig(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"rootfs":{"type":"layers","diff_ids":["` + string(aDigest) + `",""]},"config":{"Entrypoint":["a"],"Cmd":null}}`,
		`{"rootfs":null,"config":null}`, `{"rootfs":{"Type":"layers"}}`, `{"config":{"Cmd":[1]}}`, `{"rootfs":{"diff_ids":[null]}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeConfig(data)
		if err != nil {
			return
		}
		var plain struct {
			RootFS struct {
				Type    string   `json:"type"`
				DiffIDs []Digest `json:"diff_ids"`
			} `json:"rootfs"`
			Config struct{ Entrypoint, Cmd []string } `json:"config"`
		}
		if err := json.Unmarshal(data, &plain); err != nil {
			t.Fatalf("encoding/json refuses it: %v", err)
		}
		same := plain.RootFS.Type == c.rootfsType && slices.Equal(plain.RootFS.DiffIDs, c.diffIDs) &&
			slices.Equal(plain.Config.Entrypoint, c.entrypoint) && slices.Equal(plain.Config.Cmd, c.cmd)
		if !same {
			t.Errorf("encoding/json reads %+v, not %+v", plain, c)
		}
	})
}
