package containerd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"

	"github.com/horkos/horkos/verifier/image"
)

// The labels in which containerd keeps the mapping of a user namespace with a snapshot.
const (
	uidLabel = "containerd.io/snapshot/uidmapping"
	gidLabel = "containerd.io/snapshot/gidmapping"
)

// ordinary reports whether a snapshotter unpacks layers itself and checks their diff ids.
// With others (lazy ones, EROFS, pulling in the guest) a chain ID says nothing sure.
func ordinary(snapshotter string) bool {
	return slices.Contains([]string{"overlayfs", "native", "btrfs", "zfs", "devmapper"}, snapshotter)
}

// snapshot is the root file system of a container, or the content of an image volume.
type snapshot struct {
	parent image.Digest
	// mapping is that of the user namespace; nil when there is none.
	mapping *idMapping
}

// errNoSnapshot says that the snapshotter does not know the key.
var errNoSnapshot = errors.New("there is no such snapshot")

// stat asks a snapshotter for a snapshot.
func (c *Client) stat(ctx context.Context, snapshotter, key string) (snapshot, error) {
	if !ordinary(snapshotter) {
		return snapshot{}, fmt.Errorf("snapshotter %q is not known to check what it unpacks against the image", clip(snapshotter))
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := c.snapshots.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: snapshotter, Key: key})
	if isNotFound(err) {
		return snapshot{}, fmt.Errorf("snapshot %q in snapshotter %s: %w", clip(key), snapshotter, errNoSnapshot)
	}
	if err != nil {
		return snapshot{}, fmt.Errorf("stat snapshot %q in snapshotter %s: %w", clip(key), snapshotter, err)
	}
	info := r.GetInfo()
	if info.GetName() != key {
		return snapshot{}, fmt.Errorf("containerd was asked for snapshot %q and answered with %q", clip(key), clip(info.GetName()))
	}
	mapping, err := parseMapping(info.GetLabels()[uidLabel], info.GetLabels()[gidLabel])
	if err != nil {
		return snapshot{}, fmt.Errorf("snapshot %q: %w", clip(key), err)
	}
	return snapshot{parent: image.Digest(info.GetParent()), mapping: mapping}, nil
}

// isOf reports whether the snapshot has the content of a chain ID. Where the snapshotter
// cannot map ids itself, containerd makes a copy with other owners of files, and names it
// by a hash over chain ID and mapping: nobody can make another chain ID fit that name.
func (s snapshot) isOf(chain image.Digest) bool {
	return s.parent == chain || s.mapping != nil && s.parent == s.mapping.remapped(chain)
}

// chainOf returns the chain ID of what a snapshot has, where it is not known what that
// should be. In general the parent of a parent says nothing, for it is every image's base;
// that of a copy with other owners is taken because the copy's name proves it.
func (c *Client) chainOf(ctx context.Context, snapshotter string, s snapshot) (image.Digest, error) {
	if s.mapping == nil || s.parent == "" {
		return s.parent, nil
	}
	above, err := c.stat(ctx, snapshotter, string(s.parent))
	if err != nil {
		return "", err
	}
	if s.isOf(above.parent) {
		return above.parent, nil
	}
	return s.parent, nil
}

// idMapping is how a user namespace maps ids, in containerd's JSON form.
type idMapping struct {
	UIDs []idRange `json:"UidMap"`
	GIDs []idRange `json:"GidMap"`
}

type idRange struct {
	ContainerID uint32 `json:"containerID"`
	HostID      uint32 `json:"hostID"`
	Size        uint32 `json:"size"`
}

// remapped is the name that containerd gives to the copy of a chain ID with mapped owners.
func (m *idMapping) remapped(chain image.Digest) image.Digest {
	key, err := json.Marshal(struct {
		Parent image.Digest
		IDMap  *idMapping
	}{chain, m})
	if err != nil {
		return ""
	}
	return image.SHA256(key)
}

// parseMapping reads the labels of a snapshot; without them there is no mapping.
func parseMapping(uids, gids string) (*idMapping, error) {
	if uids == "" && gids == "" {
		return nil, nil
	}
	var m idMapping
	var err error
	if m.UIDs, err = parseRanges(uids); err != nil {
		return nil, fmt.Errorf("label %s: %w", uidLabel, err)
	}
	if m.GIDs, err = parseRanges(gids); err != nil {
		return nil, fmt.Errorf("label %s: %w", gidLabel, err)
	}
	return &m, nil
}

// parseRanges reads container:host:size, separated by commas, and sorts them as containerd
// does before it hashes them.
func parseRanges(s string) ([]idRange, error) {
	if s == "" {
		return nil, nil
	}
	var ranges []idRange
	for part := range strings.SplitSeq(s, ",") {
		numbers := strings.Split(part, ":")
		if len(numbers) != 3 {
			return nil, fmt.Errorf("%q is not container:host:size", clip(part))
		}
		var parsed [3]uint32
		for i, n := range numbers {
			v, err := strconv.ParseUint(n, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("%q is not container:host:size", clip(part))
			}
			parsed[i] = uint32(v)
		}
		ranges = append(ranges, idRange{parsed[0], parsed[1], parsed[2]})
	}
	slices.SortStableFunc(ranges, func(a, b idRange) int { return cmp.Compare(a.ContainerID, b.ContainerID) })
	return ranges, nil
}
