// Command image writes the image of Horkos as an OCI layout: an index of one manifest an
// architecture, each of one layer with the two static programs and nothing else. Equal
// programs, version, revision and time give equal bytes, whenever and wherever it runs.
//
// There are no CA certificates in it, no user database, no shell: the API server's
// authority comes with the token of a pod, and a source of evidence can be given a file
// (caFile).
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// What the image is, and what the Dockerfile must say too.
const (
	user        = "65532:65532" // nobody's; the node's DaemonSet asks for root itself
	entrypoint  = "/horkos"
	title       = "Horkos"
	description = "Keeps images that nobody you trust has attested off Kubernetes nodes"
	source      = "https://github.com/horkos/horkos"
	licenses    = "Apache-2.0"
)

// programs are the files of the image, in the order of its layer.
var programs = []string{"horkos", "horkos-node"}

// platforms are the architectures of the index, in its order.
var platforms = []struct {
	architecture string
	machine      elf.Machine
}{{"amd64", elf.EM_X86_64}, {"arm64", elf.EM_AARCH64}}

func main() {
	o := options{}
	var seconds string
	flag.StringVar(&o.programs, "programs", "", "the `FOLDER` with a folder of programs for each architecture")
	flag.StringVar(&o.out, "out", "", "the `FOLDER` of the layout; replaced if it is there")
	flag.StringVar(&o.version, "version", "", "the `VERSION` of the programs")
	flag.StringVar(&o.revision, "revision", "", "the `COMMIT` they are built of")
	flag.StringVar(&seconds, "time", "", "the time written into the image, in Unix `SECONDS`")
	flag.Parse()
	digest, err := run(o, seconds)
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "image: %s holds %s %s; to push it: skopeo copy --all oci:%s docker://REGISTRY/horkos:TAG\n", o.out, title, o.version, o.out)
	fmt.Println(digest)
}

// options say what an image is made of.
type options struct {
	programs string // folder: amd64/horkos, ...
	out      string
	version  string
	revision string
	created  time.Time
}

func run(o options, seconds string) (string, error) {
	epoch, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil || epoch < 0 {
		return "", fmt.Errorf("-time: want Unix seconds, not %q", seconds)
	}
	o.created = time.Unix(epoch, 0).UTC()
	for _, f := range []struct{ name, value string }{{"programs", o.programs}, {"out", o.out}, {"version", o.version}} {
		if f.value == "" {
			return "", fmt.Errorf("-%s is not given", f.name)
		}
	}
	return writeLayout(o)
}

// writeLayout writes the layout and returns the digest of the index. What is at o.out already is
// replaced only by a whole layout.
func writeLayout(o options) (string, error) {
	parent := filepath.Dir(filepath.Clean(o.out))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", fmt.Errorf("write the layout: %w", err)
	}
	dir, err := os.MkdirTemp(parent, ".image-")
	if err != nil {
		return "", fmt.Errorf("write the layout: %w", err)
	}
	defer os.RemoveAll(dir)
	index, err := layout(dir).index(o)
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", fmt.Errorf("write the layout: %w", err)
	}
	if err := os.RemoveAll(o.out); err != nil {
		return "", fmt.Errorf("replace the layout: %w", err)
	}
	if err := os.Rename(dir, o.out); err != nil {
		return "", fmt.Errorf("replace the layout: %w", err)
	}
	return index.Digest.String(), nil
}

// layout is the folder of an OCI layout.
type layout string

// index writes the whole layout, and describes its index.
func (l layout) index(o options) (v1.Descriptor, error) {
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Annotations: labels(o)}
	for _, p := range platforms {
		manifest, err := l.manifest(o, p.architecture, p.machine)
		if err != nil {
			return v1.Descriptor{}, fmt.Errorf("make the image for %s: %w", p.architecture, err)
		}
		index.Manifests = append(index.Manifests, manifest)
	}
	described, err := l.object(types.OCIImageIndex, index)
	if err != nil {
		return v1.Descriptor{}, err
	}
	entry := described
	entry.Annotations = map[string]string{"org.opencontainers.image.ref.name": o.version}
	content, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{entry}})
	if err != nil {
		return v1.Descriptor{}, err
	}
	if err := l.file("index.json", content); err != nil {
		return v1.Descriptor{}, err
	}
	return described, l.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
}

func (l layout) manifest(o options, architecture string, machine elf.Machine) (v1.Descriptor, error) {
	archive, err := layer(filepath.Join(o.programs, architecture), machine, o.created)
	if err != nil {
		return v1.Descriptor{}, err
	}
	compressed, err := compress(archive)
	if err != nil {
		return v1.Descriptor{}, err
	}
	content, err := l.blob(types.OCILayer, compressed)
	if err != nil {
		return v1.Descriptor{}, err
	}
	diff, _, err := v1.SHA256(bytes.NewReader(archive))
	if err != nil {
		return v1.Descriptor{}, err
	}
	config, err := l.object(types.OCIConfigJSON, v1.ConfigFile{
		Architecture: architecture,
		OS:           "linux",
		Created:      v1.Time{Time: o.created},
		RootFS:       v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diff}},
		History:      []v1.History{{Created: v1.Time{Time: o.created}, CreatedBy: "make image"}},
		Config:       v1.Config{User: user, Entrypoint: []string{entrypoint}, Labels: labels(o)},
	})
	if err != nil {
		return v1.Descriptor{}, err
	}
	manifest, err := l.object(types.OCIManifestSchema1, v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config, Layers: []v1.Descriptor{content},
	})
	manifest.Platform = &v1.Platform{OS: "linux", Architecture: architecture}
	return manifest, err
}

func labels(o options) map[string]string {
	const prefix = "org.opencontainers.image."
	return map[string]string{
		prefix + "title":       title,
		prefix + "description": description,
		prefix + "source":      source,
		prefix + "licenses":    licenses,
		prefix + "version":     o.version,
		prefix + "revision":    o.revision,
		prefix + "created":     o.created.Format(time.RFC3339),
	}
}

// layer is a tar archive of the programs, of one time and owned by root, so that who runs
// them cannot write them.
func layer(dir string, machine elf.Machine, created time.Time) ([]byte, error) {
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	for _, name := range programs {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if err := checkProgram(content, machine); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content)), ModTime: created, Format: tar.FormatUSTAR}
		if err := writer.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := writer.Write(content); err != nil {
			return nil, err
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return archive.Bytes(), nil
}

// checkProgram refuses what could not run in an image that holds nothing else.
func checkProgram(content []byte, machine elf.Machine) error {
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("not a program for Linux: %w", err)
	}
	if f.Machine != machine {
		return fmt.Errorf("a program for %v, not %v", f.Machine, machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			return fmt.Errorf("not static (%v): build it with CGO_ENABLED=0", p.Type)
		}
	}
	return nil
}

func compress(content []byte) ([]byte, error) {
	var compressed bytes.Buffer
	writer, err := gzip.NewWriterLevel(&compressed, gzip.BestCompression) // writes no time and no name
	if err != nil {
		return nil, err
	}
	if _, err := writer.Write(content); err != nil {
		return nil, err
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return compressed.Bytes(), nil
}

func (l layout) object(mediaType types.MediaType, object any) (v1.Descriptor, error) {
	content, err := json.Marshal(object)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return l.blob(mediaType, content)
}

func (l layout) blob(mediaType types.MediaType, content []byte) (v1.Descriptor, error) {
	digest, size, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		return v1.Descriptor{}, err
	}
	described := v1.Descriptor{MediaType: mediaType, Digest: digest, Size: size}
	return described, l.file(filepath.Join("blobs", digest.Algorithm, digest.Hex), content)
}

func (l layout) file(name string, content []byte) error {
	path := filepath.Join(string(l), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write the layout: %w", err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return fmt.Errorf("write the layout: %w", err)
	}
	return nil
}
