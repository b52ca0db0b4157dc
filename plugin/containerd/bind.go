package containerd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// patience is how long a claim waits for an index that is not current.
const patience = 300 * time.Millisecond

const (
	notCurrent  = "the index of images is not current: containerd has not answered since it or the gate started"
	notCaughtUp = "the index of images has not caught up with what containerd reports"
)

// maxReads bounds the blobs that one Bind reads: calls are serialised for the whole node,
// and a stranger's index can list hundreds.
const maxReads = 64

// Bind ties a claim to the content that will run: the first image is the container's, then
// comes one for each image volume among its mounts. What cannot be tied down has Unbound
// set. It ends with ctx, or a few seconds after a containerd that does not answer.
//
// While the index is current, one call to containerd gives the parent of the container's
// snapshot, and one that of each volume's; a claim without digests (containerd before 2.4)
// costs one more, for the record of what the pod asked for. What the index does not have
// is asked for once, by reading at most maxReads blobs.
func (ix *Index) Bind(ctx context.Context, claim Claim) []verifier.Image {
	if !ix.await(ctx, patience) {
		return []verifier.Image{{Written: claim.Requested, Unbound: notCurrent}}
	}
	snapshotter, err := ix.snapshotterOf(ctx, claim.RuntimeHandler, claim.SandboxID)
	if err != nil {
		return []verifier.Image{{Written: claim.Requested, Unbound: err.Error()}}
	}
	b := ix.newBinding()
	images := []verifier.Image{b.bindContainer(ctx, snapshotter, claim)}
	return append(images, b.bindVolumes(ctx, snapshotter, claim)...)
}

// bound is content that a claim was tied to.
type bound struct {
	config image.Digest
	points *content // leads to config
	// reported is what containerd named instead of points, where that has a fault; else nil.
	reported *content
}

func (b *binding) bindContainer(ctx context.Context, snapshotter string, claim Claim) verifier.Image {
	img := verifier.Image{Written: claim.Requested}
	found, err := b.identify(ctx, snapshotter, claim)
	if err != nil {
		img.Unbound = err.Error()
		return img
	}
	name, named, err := b.requested(ctx, claim, found.config)
	if err != nil {
		img.Unbound = err.Error()
		return img
	}
	img.Name = name
	b.describe(&img, found, named)
	return img
}

// identify finds the config that the container will run.
func (b *binding) identify(ctx context.Context, snapshotter string, claim Claim) (bound, error) {
	if claim.ContainerID == "" {
		return bound{}, errors.New("the claim has no container id")
	}
	s, err := b.client.stat(ctx, snapshotter, claim.ContainerID)
	if errors.Is(err, errNoSnapshot) {
		b.unlearn()
	}
	if err != nil {
		return bound{}, err
	}
	if claim.withoutDigests() {
		return b.identifyByParent(ctx, snapshotter, s, claim)
	}
	return b.identifyByDigest(ctx, s, claim)
}

// identifyByDigest takes containerd's word for digest and config (2.4 and later), if the
// one leads to the other and the snapshot is of that config.
func (b *binding) identifyByDigest(ctx context.Context, s snapshot, claim Claim) (bound, error) {
	digest, err := image.ParseDigest(claim.Digest)
	if err != nil {
		return bound{}, fmt.Errorf("the digest that containerd reports: %w", err)
	}
	config, err := image.ParseDigest(claim.ConfigDigest)
	if err != nil {
		return bound{}, fmt.Errorf("the config digest that containerd reports: %w", err)
	}
	points, err := b.lookUp(ctx, digest, config)
	if err != nil {
		return bound{}, err
	}
	found := bound{config: config, points: points}
	w := points.to(config)
	switch {
	case points.fault != "":
		err = fmt.Errorf("image %s: %s", digest, points.fault)
	case w == nil:
		return bound{}, fmt.Errorf("containerd reports image %s with config %s, but the one does not lead to the other: its tag may just have moved", digest, config)
	case !w.usable():
		err = fmt.Errorf("image %s does not say what runs: %s", digest, w.unusable)
	}
	if err != nil {
		if found, err = b.beside(ctx, claim.Requested, found, err); err != nil {
			return bound{}, err
		}
	}
	if chain := found.points.to(config).chain; !s.isOf(chain) {
		return bound{}, fmt.Errorf("the container's snapshot is not of image %s: its parent is %s, want %s", found.points.digest, orNone(s.parent), orNone(chain))
	}
	return found, nil
}

// beside finds another record of a config, where the one that containerd reports is not
// usable, which is err. Containerd reports the first name of all that share a config, so
// that anybody can put a malformed manifest before an image; what runs is told by the
// config and the snapshot all the same. The record that the pod asked for comes first.
func (b *binding) beside(ctx context.Context, requested string, reported bound, err error) (bound, error) {
	config := reported.config
	if asked, _, failed := b.recordAskedFor(ctx, requested); failed == nil && asked.offers(config) {
		return bound{config: config, points: asked, reported: reported.points}, nil
	}
	if points := b.offering(config); points != nil {
		return bound{config: config, points: points, reported: reported.points}, nil
	}
	return bound{}, err
}

// identifyByParent finds the one config whose content the snapshot has, for containerd
// before 2.4, which reports no digests. Another config with the same layers and another
// command must not be overlooked because the index lags: the index has to have caught up,
// and what the pod asked for is read from containerd whatever the index says.
func (b *binding) identifyByParent(ctx context.Context, snapshotter string, s snapshot, claim Claim) (bound, error) {
	if !b.caughtUp(ctx, patience) {
		return bound{}, errors.New(notCaughtUp)
	}
	chain := s.parent
	found := b.withChain(chain)
	if len(found) == 0 && s.mapping != nil {
		var err error
		if chain, err = b.client.chainOf(ctx, snapshotter, s); err != nil {
			return bound{}, err
		}
		found = b.withChain(chain)
	}
	asked, isRecord, err := b.recordAskedFor(ctx, claim.Requested)
	if err != nil {
		return bound{}, err
	}
	for _, more := range withContent(asked, chain) {
		if !slices.ContainsFunc(found, func(f bound) bool { return f.config == more.config }) {
			found = append(found, more)
		}
	}
	switch {
	case len(found) == 0:
		return bound{}, fmt.Errorf("no image on the node has the content of the container's snapshot, whose parent is %s", orNone(s.parent))
	case len(found) > 1:
		return bound{}, fmt.Errorf("%d images on the node with different configs have the content of the container's snapshot, whose parent is %s: which of them runs can be told from containerd 2.4 on", len(found), orNone(s.parent))
	case isRecord && !asked.offers(found[0].config):
		return bound{}, errors.New("what the pod asked for is not the image that has the content of the container's snapshot: its tag may just have moved")
	case image.IsID(claim.Requested) && !isIDOf(claim.Requested, found[0].config):
		return bound{}, errors.New("the image id that the pod asked for is not that of the image that has the content of the container's snapshot")
	}
	return found[0], nil
}

// isIDOf reports whether an image id, perhaps abbreviated, is that of a config.
func isIDOf(id string, config image.Digest) bool {
	return strings.HasPrefix(string(config), id) || strings.HasPrefix(config.Encoded(), id)
}

// requested returns the name that the pod asked for and the content of its record, if
// there is such a record and it leads to the config that runs; else no name and nil.
func (b *binding) requested(ctx context.Context, claim Claim, config image.Digest) (image.Reference, *content, error) {
	ref, err := image.Parse(claim.Requested)
	if err != nil {
		return image.Reference{}, nil, nil // an id or nonsense is no name
	}
	points := b.settled(recordName(ref))
	if claim.withoutDigests() || !points.offers(config) {
		if points, _, err = b.record(ctx, recordName(ref)); err != nil {
			return image.Reference{}, nil, err
		}
	}
	if !points.offers(config) {
		return image.Reference{}, nil, nil
	}
	return ref, points, nil
}

// recordName is the name under which CRI keeps what a reference names: repo:tag@digest is
// pulled and recorded as repo@digest.
func recordName(ref image.Reference) string {
	if ref.Digest != "" {
		ref.Tag = ""
	}
	return ref.String()
}

func orNone(d image.Digest) string {
	if d == "" {
		return "none"
	}
	return clip(string(d))
}
