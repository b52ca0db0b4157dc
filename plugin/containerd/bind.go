package containerd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// patience is how long a claim waits for an index that is not current.
const patience = 300 * time.Millisecond

const notCurrent = "the index of images is not current: containerd has not answered since it or the gate started"

// Bind ties a claim to the content that will run: the first image is the container's, then
// comes one for each image volume among its mounts. What cannot be tied down has Unbound
// set. It ends with ctx, or a few seconds after a containerd that does not answer.
//
// While the index is current, one call to containerd gives the parent of the container's
// snapshot, and one that of each volume's. What the index does not have is asked for once.
func (ix *Index) Bind(ctx context.Context, claim Claim) []verifier.Image {
	if !ix.await(ctx, patience) {
		return []verifier.Image{{Written: claim.Requested, Unbound: notCurrent}}
	}
	snapshotter, err := ix.snapshotterOf(ctx, claim.RuntimeHandler, claim.SandboxID)
	if err != nil {
		return []verifier.Image{{Written: claim.Requested, Unbound: err.Error()}}
	}
	images := []verifier.Image{ix.bindContainer(ctx, snapshotter, claim)}
	return append(images, ix.bindVolumes(ctx, snapshotter, claim)...)
}

// bound is content that a claim was tied to.
type bound struct {
	config image.Digest
	points *content // leads to config
}

func (ix *Index) bindContainer(ctx context.Context, snapshotter string, claim Claim) verifier.Image {
	img := verifier.Image{Written: claim.Requested}
	b, err := ix.identify(ctx, snapshotter, claim)
	if err != nil {
		img.Unbound = err.Error()
		return img
	}
	name, named, err := ix.requested(ctx, claim.Requested, b.config)
	if err != nil {
		img.Unbound = err.Error()
		return img
	}
	img.Name = name
	ix.describe(&img, b, named)
	return img
}

// identify finds the config that the container will run.
func (ix *Index) identify(ctx context.Context, snapshotter string, claim Claim) (bound, error) {
	if claim.ContainerID == "" {
		return bound{}, errors.New("the claim has no container id")
	}
	s, err := ix.client.stat(ctx, snapshotter, claim.ContainerID)
	if errors.Is(err, errNoSnapshot) {
		ix.unlearn()
	}
	if err != nil {
		return bound{}, err
	}
	if claim.Digest == "" && claim.ConfigDigest == "" {
		return ix.identifyByParent(ctx, snapshotter, s, claim)
	}
	return ix.identifyByDigest(ctx, s, claim)
}

// identifyByDigest takes containerd's word for digest and config (2.4 and later), if the
// one leads to the other and the snapshot is of that config.
func (ix *Index) identifyByDigest(ctx context.Context, s snapshot, claim Claim) (bound, error) {
	digest, err := image.ParseDigest(claim.Digest)
	if err != nil {
		return bound{}, fmt.Errorf("the digest that containerd reports: %w", err)
	}
	config, err := image.ParseDigest(claim.ConfigDigest)
	if err != nil {
		return bound{}, fmt.Errorf("the config digest that containerd reports: %w", err)
	}
	points, err := ix.lookUp(ctx, digest, config)
	if err != nil {
		return bound{}, err
	}
	w := points.to(config)
	switch {
	case points.fault != "":
		return bound{}, fmt.Errorf("image %s: %s", digest, points.fault)
	case w == nil:
		return bound{}, fmt.Errorf("containerd reports image %s with config %s, but the one does not lead to the other: its tag may just have moved", digest, config)
	case !w.usable():
		return bound{}, fmt.Errorf("image %s does not say what runs: %s", digest, w.unusable)
	case !s.isOf(w.chain):
		return bound{}, fmt.Errorf("the container's snapshot is not of image %s: its parent is %s, want %s", digest, orNone(s.parent), orNone(w.chain))
	}
	return bound{config, points}, nil
}

// identifyByParent finds the one config whose content the snapshot has, for containerd
// before 2.4, which reports no digests.
func (ix *Index) identifyByParent(ctx context.Context, snapshotter string, s snapshot, claim Claim) (bound, error) {
	found := ix.withChain(s.parent)
	chain := s.parent
	if len(found) == 0 && s.mapping != nil {
		var err error
		if chain, err = ix.client.chainOf(ctx, snapshotter, s); err != nil {
			return bound{}, err
		}
		found = ix.withChain(chain)
	}
	if len(found) == 0 {
		// Perhaps it was pulled a moment ago.
		var err error
		if found, err = ix.requestedWithChain(ctx, claim.Requested, chain); err != nil {
			return bound{}, err
		}
	}
	switch len(found) {
	case 0:
		return bound{}, fmt.Errorf("no image on the node has the content of the container's snapshot, whose parent is %s", orNone(s.parent))
	case 1:
		return found[0], nil
	}
	return bound{}, fmt.Errorf("%d images on the node with different configs have the content of the container's snapshot, whose parent is %s: which of them runs can be told from containerd 2.4 on", len(found), orNone(s.parent))
}

// withChain returns all configs that have the content of a chain ID.
func (ix *Index) withChain(chain image.Digest) []bound {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	var found []bound
	for _, run := range ix.catalog.chains[chain] {
		found = append(found, bound{run.config, run.records[0].target.content})
	}
	return found
}

// requestedWithChain looks for configs in what the pod asked for, in containerd itself.
func (ix *Index) requestedWithChain(ctx context.Context, requested string, chain image.Digest) ([]bound, error) {
	ref, err := image.Parse(requested)
	if err != nil {
		return nil, nil // an id or nonsense names no record
	}
	points, err := ix.askRecord(ctx, recordName(ref))
	if err != nil || points == nil {
		return nil, err
	}
	var found []bound
	for i := range points.ways {
		if w := &points.ways[i]; w.usable() && w.chain == chain {
			found = append(found, bound{w.config, points})
		}
	}
	return found, nil
}

// requested returns the name that the pod asked for and the content of its record, if
// there is such a record and it leads to the config that runs; else no name and nil.
func (ix *Index) requested(ctx context.Context, written string, config image.Digest) (image.Reference, *content, error) {
	ref, err := image.Parse(written)
	if err != nil {
		return image.Reference{}, nil, nil // an id or nonsense is no name
	}
	name := recordName(ref)
	ix.mu.Lock()
	points := ix.catalog.named(name)
	ix.mu.Unlock()
	if !points.offers(config) {
		if points, err = ix.askRecord(ctx, name); err != nil {
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

// askRecord asks containerd for the record of a name and returns what it leads to, or nil
// if there is none. The index is brought up to date later.
func (ix *Index) askRecord(ctx context.Context, name string) (*content, error) {
	e, found, err := ix.client.record(ctx, name)
	if err != nil || !found {
		return nil, err
	}
	if points := ix.content(e.target); points != nil && points.fault == "" {
		ix.want(wish{name: name})
		return points, nil
	}
	ix.want(wish{name: name})
	return resolve(ctx, ix.client, e.target)
}

// lookUp returns what a digest leads to, from containerd if the index does not know how it
// leads to config.
func (ix *Index) lookUp(ctx context.Context, d, config image.Digest) (*content, error) {
	if points := ix.content(d); points != nil && points.to(config) != nil {
		return points, nil
	}
	ix.want(wish{target: d})
	ix.want(wish{name: string(config)}) // CRI keeps a record under the image id
	return resolve(ctx, ix.client, d)
}

// describe fills in all that speaks for the content that was found. named is the record
// that the pod asked for, nil if it has no name.
func (ix *Index) describe(img *verifier.Image, b bound, named *content) {
	img.Config = b.config
	ix.mu.Lock()
	defer ix.mu.Unlock()
	img.Digests = []image.Digest{b.config}
	run := ix.catalog.configs[b.config]
	if run != nil {
		img.Digests = slices.Clone(run.all())
	}
	// What was asked of containerd directly is not in the index yet.
	img.Digests = appendNew(img.Digests, b.points.to(b.config).digests)
	if named != nil {
		w := named.to(b.config)
		img.Digests = appendNew(img.Digests, w.digests)
		img.Candidates = append(img.Candidates, verifier.Candidate{Repository: img.Name.Repository, Digests: slices.Clone(w.offered)})
	}
	if run != nil {
		img.Candidates = run.candidates(img.Candidates)
	}
}

// candidates adds what the records of a config offer, in the order of their names, until
// there are verifier.MaxCandidates.
func (r *running) candidates(to []verifier.Candidate) []verifier.Candidate {
	for _, rec := range r.records {
		if len(to) >= verifier.MaxCandidates {
			break
		}
		if rec.repository == "" {
			continue
		}
		offered := rec.target.to(r.config).offered
		known := func(c verifier.Candidate) bool {
			return c.Repository == rec.repository && slices.Equal(c.Digests, offered)
		}
		if !slices.ContainsFunc(to, known) {
			to = append(to, verifier.Candidate{Repository: rec.repository, Digests: slices.Clone(offered)})
		}
	}
	return to
}

func orNone(d image.Digest) string {
	if d == "" {
		return "none"
	}
	return clip(string(d))
}
