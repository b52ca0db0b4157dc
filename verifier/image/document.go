package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Media types of the documents between a digest and the config that runs (OCI image
// specification, "Media Types", and Docker's image manifest version 2, schema 2).
const (
	ociIndex       = "application/vnd.oci.image.index.v1+json"
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	ociConfig      = "application/vnd.oci.image.config.v1+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
)

func isIndexType(mediaType string) bool { return mediaType == ociIndex || mediaType == dockerIndex }
func isManifestType(mediaType string) bool {
	return mediaType == ociManifest || mediaType == dockerManifest
}
func isConfigType(mediaType string) bool { return mediaType == ociConfig || mediaType == dockerConfig }

// descriptor points to a blob. Its size is not read: the hash says more.
type descriptor struct {
	mediaType string
	digest    Digest
}

// document is an index or a manifest.
type document struct {
	isIndex bool
	entries []descriptor // of an index: the indexes and manifests it lists, each once
	config  descriptor   // of a manifest
	layers  int          // of a manifest
}

// decodeDocument reads an index or a manifest. The fields it has tell which it is; one that
// has the fields of both, or names the media type of the other, could be read as either by
// different readers, and is refused (CVE-2021-41190).
func decodeDocument(data []byte) (document, error) {
	fields, err := object(data, "mediaType", "manifests", "config", "layers", "fsLayers")
	if err != nil {
		return document{}, err
	}
	mediaType, err := text(fields["mediaType"])
	if err != nil {
		return document{}, fmt.Errorf("mediaType: %w", err)
	}
	has := func(name string) bool { return fields[name] != nil }
	switch {
	case has("fsLayers"):
		return document{}, errors.New("has fsLayers: Docker's schema 1 is not supported")
	case has("manifests") && (has("config") || has("layers")):
		return document{}, errors.New("has the fields of an index and of a manifest")
	case has("manifests"):
		if mediaType != "" && !isIndexType(mediaType) {
			return document{}, fmt.Errorf("is an index and names media type %.80q", mediaType)
		}
		return decodeIndex(fields["manifests"])
	case has("config") && has("layers"):
		if mediaType != "" && !isManifestType(mediaType) {
			return document{}, fmt.Errorf("is a manifest and names media type %.80q", mediaType)
		}
		return decodeManifest(fields["config"], fields["layers"])
	}
	return document{}, errors.New("is neither an index nor a manifest")
}

func decodeIndex(manifests json.RawMessage) (document, error) {
	doc := document{isIndex: true}
	var entries []json.RawMessage
	if err := json.Unmarshal(manifests, &entries); err != nil {
		return document{}, errors.New("manifests: not a list")
	}
	if len(entries) > MaxIndexEntries {
		return document{}, fmt.Errorf("lists %d manifests: at most %d are read", len(entries), MaxIndexEntries)
	}
	seen := make(map[descriptor]bool, len(entries))
	for i, entry := range entries {
		desc, err := decodeDescriptor(entry)
		if err != nil {
			return document{}, fmt.Errorf("manifests[%d]: %w", i, err)
		}
		followed := isIndexType(desc.mediaType) || isManifestType(desc.mediaType)
		if followed && !seen[desc] {
			seen[desc] = true
			doc.entries = append(doc.entries, desc)
		}
	}
	return doc, nil
}

func decodeManifest(config, layers json.RawMessage) (document, error) {
	desc, err := decodeDescriptor(config)
	if err != nil {
		return document{}, fmt.Errorf("config: %w", err)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(layers, &list); err != nil {
		return document{}, errors.New("layers: not a list")
	}
	return document{config: desc, layers: len(list)}, nil
}

func decodeDescriptor(data []byte) (descriptor, error) {
	fields, err := object(data, "mediaType", "digest")
	if err != nil {
		return descriptor{}, err
	}
	mediaType, err := text(fields["mediaType"])
	if err != nil {
		return descriptor{}, fmt.Errorf("mediaType: %w", err)
	}
	written, err := text(fields["digest"])
	if err != nil {
		return descriptor{}, fmt.Errorf("digest: %w", err)
	}
	digest, err := ParseDigest(written)
	return descriptor{mediaType: mediaType, digest: digest}, err
}

// config is what is read of an image config (OCI image specification, "Image Configuration").
type config struct {
	rootfsType string
	diffIDs    []Digest // an empty one stays empty
	entrypoint []string
	cmd        []string
}

func decodeConfig(data []byte) (config, error) {
	var c config
	fields, err := object(data, "rootfs", "config")
	if err != nil {
		return c, err
	}
	if rootfs := fields["rootfs"]; present(rootfs) {
		if err := c.readRootFS(rootfs); err != nil {
			return config{}, fmt.Errorf("rootfs: %w", err)
		}
	}
	if process := fields["config"]; present(process) {
		if err := c.readProcess(process); err != nil {
			return config{}, fmt.Errorf("config: %w", err)
		}
	}
	return c, nil
}

func (c *config) readRootFS(data []byte) error {
	fields, err := object(data, "type", "diff_ids")
	if err != nil {
		return err
	}
	if c.rootfsType, err = text(fields["type"]); err != nil {
		return fmt.Errorf("type: %w", err)
	}
	written, err := texts(fields["diff_ids"])
	if err != nil {
		return fmt.Errorf("diff_ids: %w", err)
	}
	for i, s := range written {
		var digest Digest
		if s != "" {
			if digest, err = ParseDigest(s); err != nil {
				return fmt.Errorf("diff_ids[%d]: %w", i, err)
			}
		}
		c.diffIDs = append(c.diffIDs, digest)
	}
	return nil
}

func (c *config) readProcess(data []byte) error {
	fields, err := object(data, "Entrypoint", "Cmd")
	if err != nil {
		return err
	}
	if c.entrypoint, err = texts(fields["Entrypoint"]); err != nil {
		return fmt.Errorf("field Entrypoint: %w", err)
	}
	if c.cmd, err = texts(fields["Cmd"]); err != nil {
		return fmt.Errorf("field Cmd: %w", err)
	}
	return nil
}

// object returns the named members of a JSON object and passes over the others. A named
// member written twice is refused, and so is one in other letter case: readers that use
// encoding/json, containerd among them, would take it for the named one.
func object(data []byte, names ...string) (map[string]json.RawMessage, error) {
	if !json.Valid(data) {
		return nil, errors.New("not valid JSON")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	members := make(map[string]json.RawMessage, len(names))
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, fmt.Errorf("reading a field name: %w", err)
		}
		key, _ := token.(string)
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, fmt.Errorf("reading field %.80q: %w", key, err)
		}
		for _, name := range names {
			if !strings.EqualFold(key, name) {
				continue
			}
			if key != name {
				return nil, fmt.Errorf("field %.80q: want %q", key, name)
			}
			if members[name] != nil {
				return nil, fmt.Errorf("field %q is written twice", name)
			}
			members[name] = value
		}
	}
	if _, err := decoder.Token(); err != nil {
		return nil, fmt.Errorf("reading the end of the object: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the object")
	}
	return members, nil
}

// present reports whether a member is there and not null, which means absent in the image
// specification's own types.
func present(value json.RawMessage) bool {
	return value != nil && string(value) != "null"
}

// text reads a string; an absent member is the empty one.
func text(value json.RawMessage) (string, error) {
	if !present(value) {
		return "", nil
	}
	var s string
	if err := json.Unmarshal(value, &s); err != nil {
		return "", errors.New("not a string")
	}
	return s, nil
}

// texts reads a list of strings; an absent member is the empty one.
func texts(value json.RawMessage) ([]string, error) {
	if !present(value) {
		return nil, nil
	}
	var list []string
	if err := json.Unmarshal(value, &list); err != nil {
		return nil, errors.New("not a list of strings")
	}
	return list, nil
}
