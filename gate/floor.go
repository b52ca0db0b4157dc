package gate

import (
	"bufio"
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// MaxFloorBytes bounds a floor file.
const MaxFloorBytes = 4 << 20

// Floor is the set of digests that a node's owner pinned so that the node can boot. It
// matches index, manifest or config digests of the content that runs, never a name.
type Floor struct {
	// pins has the namespaces a digest is limited to; none means every namespace.
	pins map[image.Digest][]string
}

// ParseFloor reads a floor file: a digest a line, sha256:<64 hex> [namespace=NS[,NS...]],
// and comments after #. An error names the line.
func ParseFloor(data []byte) (*Floor, error) {
	if len(data) > MaxFloorBytes {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(data), MaxFloorBytes)
	}
	f := &Floor{pins: make(map[image.Digest][]string)}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		digest, err := image.ParseDigest(fields[0])
		if err == nil && !strings.HasPrefix(fields[0], "sha256:") {
			err = fmt.Errorf("want sha256:<64 hex>, not %.80q", fields[0])
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		var namespaces []string
		for _, option := range fields[1:] {
			list, ok := strings.CutPrefix(option, "namespace=")
			if !ok || list == "" || slices.Contains(strings.Split(list, ","), "") {
				return nil, fmt.Errorf("line %d: want namespace=NS[,NS...], not %.80q", n, option)
			}
			namespaces = append(namespaces, strings.Split(list, ",")...)
		}
		if have, again := f.pins[digest]; again {
			// The union of two lines: one without a limit stands for every namespace.
			if len(have) == 0 || len(namespaces) == 0 {
				namespaces = nil
			} else {
				namespaces = append(slices.Clone(have), namespaces...)
			}
		}
		f.pins[digest] = namespaces
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("split into lines: %w", err)
	}
	return f, nil
}

// Len is the number of digests on the floor.
func (f *Floor) Len() int {
	if f == nil {
		return 0
	}
	return len(f.pins)
}

// Has tells whether one of the digests is on the floor for a namespace.
func (f *Floor) Has(namespace string, digests []image.Digest) bool {
	if f == nil {
		return false
	}
	for _, d := range digests {
		if namespaces, ok := f.pins[d]; ok && (len(namespaces) == 0 || slices.Contains(namespaces, namespace)) {
			return true
		}
	}
	return false
}

// lift admits the images that are on the floor: whatever policies, their absence and the
// cluster's revocations say, but never against the folder's own revocations, the size
// limits or a failed binding.
func (f *Floor) lift(namespace string, dec verifier.Decision) verifier.Decision {
	if f.Len() == 0 {
		return dec
	}
	images := slices.Clone(dec.Images)
	for i := range images {
		img := &images[i]
		if img.Result == verifier.Allowed || !liftable(img) || !f.Has(namespace, img.Image.Digests) {
			continue
		}
		img.Checks = append(slices.Clone(img.Checks), verifier.Check{Result: verifier.Allowed, Reason: verifier.Floor,
			Detail: "pinned by the node's owner; without the floor: " + string(img.Reason)})
		img.Result, img.Reason = verifier.Allowed, verifier.Floor
	}
	dec.Images = images
	dec.Conclude()
	return dec
}

func liftable(d *verifier.ImageDecision) bool {
	if d.FolderRevoked || d.Image.Unbound != "" {
		return false
	}
	switch d.Reason {
	case verifier.ImageUnbound, verifier.SpecTooLarge, verifier.AuditFailed, verifier.DeadlineExceeded, verifier.Internal:
		return false
	}
	return true
}
