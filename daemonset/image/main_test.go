package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

var commitTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// program is the header of an ELF file for a machine, with segments of the types.
func program(machine elf.Machine, seed string, segments ...elf.ProgType) []byte {
	var b bytes.Buffer
	header := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(len(segments)), Shentsize: 64}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	_ = binary.Write(&b, binary.LittleEndian, header)
	for _, s := range segments {
		_ = binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(s)})
	}
	b.WriteString(seed)
	return b.Bytes()
}

// build puts programs for both platforms in a new folder, with the time on their files.
func build(t *testing.T, at time.Time) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range platforms {
		for _, name := range programs {
			write(t, filepath.Join(dir, p.architecture, name), program(p.machine, name, elf.PT_LOAD), at)
		}
	}
	write(t, filepath.Join(dir, "amd64", "something-else"), []byte("not to be in the image"), at)
	return dir
}

func write(t *testing.T, path string, content []byte, at time.Time) {
	t.Helper()
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o700), os.Chtimes(path, at, at))
	if err != nil {
		t.Fatal(err)
	}
}

func image(t *testing.T, programs string) (dir, digest string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "a", "folder", "image")
	digest, err := writeLayout(options{programs: programs, out: dir, version: "v1.2.3", revision: "0123abc", created: commitTime})
	if err != nil {
		t.Fatal(err)
	}
	return dir, digest
}

// made is the image of one architecture.
type made struct {
	config  v1.ConfigFile
	archive []byte // its layer
}

// read reads a blob, whose content must be as it is described, and an object from it
// unless that is nil.
func read(t *testing.T, dir string, d v1.Descriptor, object any) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "blobs", d.Digest.Algorithm, d.Digest.Hex))
	if err != nil {
		t.Fatal(err)
	}
	if digest, size, err := v1.SHA256(bytes.NewReader(content)); err != nil || digest != d.Digest || size != d.Size {
		t.Errorf("%s of %d bytes is described as %s of %d bytes, %v", digest, size, d.Digest, d.Size, err)
	}
	if object != nil {
		if err := json.Unmarshal(content, object); err != nil {
			t.Fatal(err)
		}
	}
	return content
}

// images are those of the layout, by architecture.
func images(t *testing.T, dir, digest string) map[string]made {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var outer, index v1.IndexManifest
	if err := json.Unmarshal(content, &outer); err != nil {
		t.Fatal(err)
	}
	if len(outer.Manifests) != 1 || outer.Manifests[0].Digest.String() != digest {
		t.Fatalf("the layout is of %v, want %s alone", outer.Manifests, digest)
	}
	read(t, dir, outer.Manifests[0], &index)
	all := make(map[string]made)
	for _, d := range index.Manifests {
		var manifest v1.Manifest
		read(t, dir, d, &manifest)
		var m made
		read(t, dir, manifest.Config, &m.config)
		if d.Platform == nil || d.Platform.OS != "linux" || d.Platform.Architecture != m.config.Architecture || len(manifest.Layers) != 1 {
			t.Fatalf("%v, %s/%s, %d layers", d.Platform, m.config.OS, m.config.Architecture, len(manifest.Layers))
		}
		compressed, err := gzip.NewReader(bytes.NewReader(read(t, dir, manifest.Layers[0], nil)))
		if err != nil {
			t.Fatal(err)
		}
		if m.archive, err = io.ReadAll(compressed); err != nil {
			t.Fatal(err)
		}
		diff, _, err := v1.SHA256(bytes.NewReader(m.archive))
		if err != nil || !slices.Equal(m.config.RootFS.DiffIDs, []v1.Hash{diff}) {
			t.Errorf("the config has the layers %v, want %v, %v", m.config.RootFS.DiffIDs, diff, err)
		}
		all[m.config.Architecture] = m
	}
	return all
}

func TestTheSameProgramsMakeTheSameImageAnywhereAndAnyTime(t *testing.T) {
	_, first := image(t, build(t, time.Unix(1, 0)))
	dir, again := image(t, build(t, time.Now()))
	if first != again {
		t.Errorf("%s, then %s", first, again)
	}
	// In place of itself, with a file in it that is none of the layout's.
	programs := build(t, time.Now())
	write(t, filepath.Join(dir, "blobs", "stray"), nil, time.Now())
	once, err := writeLayout(options{programs: programs, out: dir, version: "v1.2.3", revision: "0123abc", created: commitTime})
	if err != nil || once != first {
		t.Errorf("%s, %v; want %s", once, err, first)
	}
	if _, err := os.Stat(filepath.Join(dir, "blobs", "stray")); err == nil {
		t.Error("what was in the folder is in the layout")
	}
	write(t, filepath.Join(programs, "arm64", "horkos"), program(elf.EM_AARCH64, "another", elf.PT_LOAD), time.Now())
	if _, other := image(t, programs); other == first {
		t.Error("another program makes the same image")
	}
}

func TestTheImageHoldsTheProgramsOfItsPlatformAndNothingElse(t *testing.T) {
	dir, digest := image(t, build(t, time.Now()))
	all := images(t, dir, digest)
	if got := slices.Sorted(maps.Keys(all)); !slices.Equal(got, []string{"amd64", "arm64"}) {
		t.Fatalf("the index is of %v", got)
	}
	for _, p := range platforms {
		archive := tar.NewReader(bytes.NewReader(all[p.architecture].archive))
		var names []string
		for {
			header, err := archive.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, header.Name)
			file, err := io.ReadAll(archive)
			if err != nil || !bytes.Equal(file, program(p.machine, header.Name, elf.PT_LOAD)) {
				t.Errorf("%s for %s is not the program that was built: %v", header.Name, p.architecture, err)
			}
			if header.Mode != 0o755 || header.Uid != 0 || header.Gid != 0 || !header.ModTime.Equal(commitTime) {
				t.Errorf("%s: mode %o, %d:%d, %v", header.Name, header.Mode, header.Uid, header.Gid, header.ModTime)
			}
		}
		if !slices.Equal(names, []string{"horkos", "horkos-node"}) {
			t.Errorf("the image for %s holds %q", p.architecture, names)
		}
	}
}

func TestTheImageRunsHorkosAsNobodyUnlessToldOtherwise(t *testing.T) {
	dir, digest := image(t, build(t, time.Now()))
	for architecture, made := range images(t, dir, digest) {
		file, c := made.config, made.config.Config
		if c.User != "65532:65532" || !slices.Equal(c.Entrypoint, []string{"/horkos"}) || c.Cmd != nil || c.Env != nil {
			t.Errorf("%s: user %q, entrypoint %q, cmd %q, env %q", architecture, c.User, c.Entrypoint, c.Cmd, c.Env)
		}
		if file.Architecture != architecture || file.OS != "linux" || !file.Created.Equal(commitTime) {
			t.Errorf("%s: %s/%s of %v", architecture, file.OS, file.Architecture, file.Created)
		}
		for label, want := range map[string]string{"version": "v1.2.3", "revision": "0123abc", "licenses": "Apache-2.0", "created": "2026-01-02T03:04:05Z"} {
			if got := c.Labels["org.opencontainers.image."+label]; got != want {
				t.Errorf("label %s is %q, want %q", label, got, want)
			}
		}
	}
}

func TestAProgramThatCouldNotRunIsRefusedAndTheOldLayoutStays(t *testing.T) {
	tests := []struct {
		name    string
		content []byte
		want    string
	}{
		{"linked with a loader", program(elf.EM_AARCH64, "", elf.PT_LOAD, elf.PT_INTERP), "CGO_ENABLED=0"},
		{"with shared libraries", program(elf.EM_AARCH64, "", elf.PT_LOAD, elf.PT_DYNAMIC), "CGO_ENABLED=0"},
		{"for another machine", program(elf.EM_X86_64, "", elf.PT_LOAD), "not EM_AARCH64"},
		{"no program", []byte("#!/bin/sh\n"), "not a program for Linux"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			programs := build(t, time.Now())
			dir, digest := image(t, programs)
			write(t, filepath.Join(programs, "arm64", "horkos-node"), tt.content, time.Now())
			_, err := writeLayout(options{programs: programs, out: dir, version: "v1.2.3", created: commitTime})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "arm64/horkos-node") {
				t.Errorf("got %v, want %q and the file", err, tt.want)
			}
			images(t, dir, digest)
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".image-*")); left != nil {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func TestWhatIsNotGivenIsNamed(t *testing.T) {
	tests := []struct {
		o       options
		seconds string
		want    string
	}{
		{options{programs: "p", out: "o", version: "v"}, "", "-time"},
		{options{programs: "p", out: "o", version: "v"}, "-1", "-time"},
		{options{programs: "p", out: "o"}, "1", "-version"},
		{options{programs: "p", version: "v"}, "1", "-out"},
		{options{out: "o", version: "v"}, "1", "-programs"},
	}
	for _, tt := range tests {
		if _, err := run(tt.o, tt.seconds); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.o, err, tt.want)
		}
	}
}
