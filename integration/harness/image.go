package harness

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image describes an image to push. Equal values give equal bytes. Every image holds
// the program /pause (see the command in folder pause) and the file /seed.
type Image struct {
	// Seed is the content of /seed: another seed is another layer, config and manifest.
	Seed string

	// Of the config. Another Label or Env is another config over the same layers.
	Labels     map[string]string
	Env        []string // KEY=value
	Entrypoint []string // {"/pause"} if nil
	Cmd        []string
	User       string

	// Annotations are of the manifest: the same Image with other Annotations, in another
	// repository, is a twin: same config, other digest.
	Annotations map[string]string

	// Index pushes an image index of two manifests, for this machine's architecture and a
	// foreign one; IndexAnnotations are the index's.
	Index            bool
	IndexAnnotations map[string]string
}

// Pushed is an image in the registry.
type Pushed struct {
	Repository string // with the host, without tag
	Tag        string
	Digest     string // of what the tag names: the index if there is one, else the manifest
	Manifest   string // digest of the manifest that runs here
	Config     string // digest of its config: the image id of CRI
}

// ByTag is repository:tag.
func (p Pushed) ByTag() string { return p.Repository + ":" + p.Tag }

// ByDigest is repository@digest.
func (p Pushed) ByDigest() string { return p.Repository + "@" + p.Digest }

// ByTagAndDigest is repository:tag@digest.
func (p Pushed) ByTagAndDigest() string { return p.ByTag() + "@" + p.Digest }

// Push builds the image and stores it under ref, "registry.example.com/team/app:1".
// Pushing another image under the same tag moves the tag.
func (g *Registry) Push(ref string, image Image) (Pushed, error) {
	repository, tag, err := splitTag(ref)
	if err != nil {
		return Pushed{}, err
	}
	pushed := Pushed{Repository: repository, Tag: tag}
	if image.Index {
		tag = ""
	}
	manifest, config, err := g.pushManifest(pushed.Repository, tag, image, runtime.GOARCH)
	if err != nil {
		return Pushed{}, err
	}
	pushed.Digest, pushed.Manifest, pushed.Config = manifest.Digest.String(), manifest.Digest.String(), config
	if image.Index {
		if pushed.Digest, err = g.pushIndex(pushed, image, manifest); err != nil {
			return Pushed{}, err
		}
	}
	return pushed, nil
}

func splitTag(ref string) (repository, tag string, err error) {
	colon := strings.LastIndex(ref, ":")
	if colon < strings.LastIndex(ref, "/") || !strings.Contains(ref, "/") {
		return "", "", fmt.Errorf("push %s: a reference is host/path:tag", ref)
	}
	return ref[:colon], ref[colon+1:], nil
}

func (g *Registry) pushIndex(pushed Pushed, image Image, own v1.Descriptor) (string, error) {
	architecture := "arm64"
	if runtime.GOARCH == architecture {
		architecture = "amd64"
	}
	foreign := image
	foreign.Seed += " for " + architecture
	other, _, err := g.pushManifest(pushed.Repository, "", foreign, architecture)
	if err != nil {
		return "", err
	}
	content, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		Manifests:     []v1.Descriptor{other, own},
		Annotations:   image.IndexAnnotations,
	})
	if err != nil {
		return "", fmt.Errorf("push %s: %w", pushed.Repository, err)
	}
	return g.PushManifest(pushed.Repository, pushed.Tag, string(types.OCIImageIndex), content)
}

// pushManifest pushes one manifest with what it needs, and returns its descriptor and
// the digest of its config.
func (g *Registry) pushManifest(repository, tag string, image Image, architecture string) (v1.Descriptor, string, error) {
	fail := func(err error) (v1.Descriptor, string, error) {
		return v1.Descriptor{}, "", fmt.Errorf("push %s:%s: %w", repository, tag, err)
	}
	program, err := layer("pause", 0o755, g.pause)
	if err != nil {
		return fail(err)
	}
	seed, err := layer("seed", 0o644, []byte(image.Seed))
	if err != nil {
		return fail(err)
	}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Annotations: maps.Clone(image.Annotations)}
	config := image.config(architecture)
	for _, content := range [][]byte{program, seed} {
		descriptor, err := g.pushDescribed(repository, types.OCIUncompressedLayer, content)
		if err != nil {
			return fail(err)
		}
		manifest.Layers = append(manifest.Layers, descriptor)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, descriptor.Digest) // not compressed
	}
	content, err := json.Marshal(config)
	if err != nil {
		return fail(err)
	}
	if manifest.Config, err = g.pushDescribed(repository, types.OCIConfigJSON, content); err != nil {
		return fail(err)
	}
	if content, err = json.Marshal(manifest); err != nil {
		return fail(err)
	}
	digest, err := g.PushManifest(repository, tag, string(types.OCIManifestSchema1), content)
	if err != nil {
		return fail(err)
	}
	descriptor, err := describe(types.OCIManifestSchema1, digest, content)
	if err != nil {
		return fail(err)
	}
	descriptor.Platform = &v1.Platform{OS: "linux", Architecture: architecture}
	return descriptor, manifest.Config.Digest.String(), nil
}

func (i Image) config(architecture string) v1.ConfigFile {
	entrypoint := i.Entrypoint
	if entrypoint == nil {
		entrypoint = []string{"/pause"}
	}
	return v1.ConfigFile{
		Architecture: architecture,
		OS:           "linux",
		RootFS:       v1.RootFS{Type: "layers"},
		Config:       v1.Config{Labels: i.Labels, Env: i.Env, Entrypoint: entrypoint, Cmd: i.Cmd, User: i.User},
	}
}

func (g *Registry) pushDescribed(repository string, mediaType types.MediaType, content []byte) (v1.Descriptor, error) {
	digest, err := g.PushBlob(repository, content)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return describe(mediaType, digest, content)
}

func describe(mediaType types.MediaType, digest string, content []byte) (v1.Descriptor, error) {
	hash, err := v1.NewHash(digest)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: mediaType, Digest: hash, Size: int64(len(content))}, nil
}

// layer is a tar archive of one file, without times, so that it is always the same.
func layer(name string, mode int64, content []byte) ([]byte, error) {
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}
	if err := writer.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := writer.Write(content); err != nil {
		return nil, err
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return archive.Bytes(), nil
}
