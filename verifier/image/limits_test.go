package image

import (
	"context"
	"fmt"
	"testing"
)

func TestAManifestHasALimit(t *testing.T) {
	for size, ok := range map[int]bool{MaxManifestBytes: true, MaxManifestBytes + 1: false} {
		s := store{}
		config := s.add(`{"rootfs":{"type":"layers"}}`, 0)
		manifest := s.add(manifestOf(desc(ociConfig, config), 0), size)
		index := s.add(indexOf(desc(ociManifest, manifest)), size)
		if ok {
			if found := resolve(t, s, index); len(found) != 1 {
				t.Errorf("%d bytes: %v", size, found)
			}
			continue
		}
		refused(t, s, manifest, manifest, fmt.Sprint(MaxManifestBytes))
		refused(t, s, index, index, fmt.Sprint(MaxManifestBytes))
	}
}

func TestAConfigHasALimit(t *testing.T) {
	for size, ok := range map[int]bool{MaxConfigBytes: true, MaxConfigBytes + 1: false} {
		s := store{}
		config := s.add(`{"rootfs":{"type":"layers"}}`, size)
		manifest := s.add(manifestOf(desc(ociConfig, config), 0), 0)
		if ok {
			if found := resolve(t, s, manifest); len(found) != 1 || found[0].Unusable != "" {
				t.Errorf("%d bytes: %v", size, found)
			}
			continue
		}
		refused(t, s, manifest, config, fmt.Sprint(MaxConfigBytes))
	}
}

func TestTheProviderIsToldTheLimits(t *testing.T) {
	s := store{}
	manifest, config := s.image("a")
	asked := make(limits)
	resolve(t, recording{s, asked}, s.add(indexOf(desc(ociManifest, manifest)), 0))
	if asked[manifest] != MaxManifestBytes || asked[config] != MaxConfigBytes {
		t.Errorf("asked with %v", asked)
	}
}

type limits map[Digest]int64

// recording remembers the limit of each blob asked for.
type recording struct {
	store
	asked limits
}

func (r recording) Blob(ctx context.Context, digest Digest, limit int64) ([]byte, error) {
	r.asked[digest] = limit
	return r.store.Blob(ctx, digest, limit)
}

func TestTheEntriesOfAnIndexHaveALimit(t *testing.T) {
	for n, ok := range map[int]bool{MaxIndexEntries: true, MaxIndexEntries + 1: false} {
		s := store{}
		var entries []string
		for i := range n {
			manifest, _ := s.image(fmt.Sprint(i))
			entries = append(entries, desc(ociManifest, manifest))
		}
		index := s.add(indexOf(entries...), 0)
		if ok {
			if found := resolve(t, s, index); len(found) != n {
				t.Errorf("%d entries: found %d", n, len(found))
			}
			continue
		}
		refused(t, s, index, index, fmt.Sprint(MaxIndexEntries))
	}
}

func TestTheDepthOfIndexesHasALimit(t *testing.T) {
	s := store{}
	target, _ := s.image("a")
	mediaType := ociManifest
	for depth := 1; depth <= MaxIndexDepth; depth++ {
		target = s.add(indexOf(desc(mediaType, target)), 0)
		mediaType = ociIndex
	}
	if found := resolve(t, s, target); len(found) != 1 || len(found[0].Digests) != MaxIndexDepth+1 {
		t.Errorf("at the limit: %v", found)
	}
	innermost := resolve(t, s, target)[0].Digests[MaxIndexDepth-1]
	refused(t, s, s.add(indexOf(desc(ociIndex, target)), 0), innermost, "may lie above a manifest")
}

// A nested index costs one blob, and each manifest that is missing another.
func TestTheBlobsOfOneResolveHaveALimit(t *testing.T) {
	for blobs, ok := range map[int]bool{MaxBlobs: true, MaxBlobs + 1: false} {
		s := store{}
		var nested []string
		for left := blobs - 1; left > 0; {
			var entries []string
			for left--; left > 0 && len(entries) < MaxIndexEntries; left-- {
				entries = append(entries, desc(ociManifest, SHA256(fmt.Append(nil, left))))
			}
			nested = append(nested, desc(ociIndex, s.add(indexOf(entries...), 0)))
		}
		index := s.add(indexOf(nested...), 0)
		asked := make(limits)
		_, err := Resolve(t.Context(), recording{s, asked}, index)
		if (err == nil) != ok || len(asked) != MaxBlobs {
			t.Errorf("%d blobs: asked for %d, %v", blobs, len(asked), err)
		}
	}
}

// MaxContentBytes itself would take a race-detecting test a quarter of a minute to read.
func TestTheBytesOfOneResolveHaveALimit(t *testing.T) {
	s := store{}
	first, _ := s.image("first")
	second, _ := s.image("second")
	index := s.add(indexOf(desc(ociManifest, first), desc(ociManifest, second)), 0)
	total := 0
	for _, data := range s {
		total += len(data)
	}
	anything := func(document) bool { return true }
	for left, ok := range map[int]bool{total: true, total - 1: false} {
		r := resolver{provider: s, blobsLeft: MaxBlobs, bytesLeft: int64(left)}
		if err := r.follow(t.Context(), index, nil, anything); (err == nil) != ok {
			t.Errorf("%d bytes of content with %d allowed: %v", total, left, err)
		}
	}
}
