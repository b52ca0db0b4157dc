package containerd

import (
	"context"

	"github.com/horkos/horkos/verifier/image"
)

// binding is what one Bind asks of the index, and of containerd where the index does not
// have it: nothing twice, and no more than maxReads blobs.
type binding struct {
	*Index
	left     int // blobs that may still be read
	records  map[string]answer
	contents map[image.Digest]*content // read by this binding
}

// answer is what containerd said about the record of a name.
type answer struct {
	points *content // what it leads to
	found  bool
}

func (ix *Index) newBinding() *binding {
	return &binding{Index: ix, left: maxReads, records: map[string]answer{}, contents: map[image.Digest]*content{}}
}

// recordAskedFor reads from containerd what the record of what a pod asked for leads to:
// that of the name, or the one that CRI keeps under an image id. False means that there is
// none, or that nothing was asked for that could have one.
func (b *binding) recordAskedFor(ctx context.Context, requested string) (*content, bool, error) {
	if ref, err := image.Parse(requested); err == nil {
		return b.record(ctx, recordName(ref))
	}
	for _, id := range []string{requested, "sha256:" + requested} {
		if _, err := image.ParseDigest(id); err == nil {
			return b.record(ctx, id)
		}
	}
	return nil, false, nil
}

// record asks containerd for the record of a name and returns what it leads to; false
// means that there is none. The index is brought up to date later.
func (b *binding) record(ctx context.Context, name string) (*content, bool, error) {
	if a, known := b.records[name]; known {
		return a.points, a.found, nil
	}
	e, found, err := b.client.record(ctx, name)
	if err != nil {
		return nil, false, err
	}
	a := answer{found: found}
	if found {
		if known := b.named(name); known == nil || known.digest != e.target {
			b.want(wish{name: name})
		}
		if a.points, err = b.target(ctx, e.target); err != nil {
			return nil, false, err
		}
	}
	b.records[name] = a
	return a.points, a.found, nil
}

// target returns what the target of a record leads to. What the index knows of it is taken
// although more may arrive: the manifest that containerd chooses is there before the record.
func (b *binding) target(ctx context.Context, d image.Digest) (*content, error) {
	if points := b.contents[d]; points != nil {
		return points, nil
	}
	points := b.content(d)
	if points == nil {
		return b.read(ctx, d)
	}
	if points.doubtful() || len(points.ways) == 0 {
		b.want(wish{target: d})
	}
	return points, nil
}

// lookUp returns what a digest leads to, from containerd if the index does not know how it
// leads to config. What is known to have a fault is not read while the node waits.
func (b *binding) lookUp(ctx context.Context, d, config image.Digest) (*content, error) {
	points := b.content(d)
	switch {
	case points == nil:
		b.want(wish{name: string(config)}) // CRI keeps a record under the image id
	case points.fault == "" && points.to(config) != nil:
		return points, nil
	default:
		b.want(wish{target: d})
		if points.fault != "" || len(points.absent) == 0 {
			return points, nil
		}
	}
	return b.read(ctx, d)
}

// read resolves a digest within what this binding may still read.
func (b *binding) read(ctx context.Context, d image.Digest) (*content, error) {
	if points := b.contents[d]; points != nil {
		return points, nil
	}
	points, err := resolveWithin(ctx, b.client, d, &b.left)
	if err != nil {
		return nil, err
	}
	b.contents[d] = points
	return points, nil
}
