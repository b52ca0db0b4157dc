package containerd

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/horkos/horkos/verifier/image"
)

// content is what a digest, the target of image records, leads to on this node. It does
// not change once made.
type content struct {
	digest image.Digest
	ways   []way // one a config
	// absent are the marks of digests below this one that the node did not have: when one
	// of them arrives, this content is out of date.
	absent []mark
	// fault is why nothing may run under this digest: it is malformed, or not all there. The
	// ways that could be told all the same are not usable; a revocation follows them.
	fault string
}

// way is how a digest leads to one config.
type way struct {
	config  image.Digest
	digests []image.Digest // all that lead there, outermost first; not the config itself
	// offered are those of digests under which config stands for the content; empty means
	// that config must not run under this digest, and unusable says why.
	offered  []image.Digest
	unusable string
	chain    image.Digest // empty when the image has no layers
	args     argsSum      // of the config's entrypoint and command
}

func (w *way) usable() bool { return len(w.offered) > 0 }

// to returns the way to a config, or nil.
func (c *content) to(config image.Digest) *way {
	for i := range c.ways {
		if c.ways[i].config == config {
			return &c.ways[i]
		}
	}
	return nil
}

// offers reports whether config stands for the content. A nil content offers nothing.
func (c *content) offers(config image.Digest) bool {
	if c == nil {
		return false
	}
	w := c.to(config)
	return w != nil && w.usable()
}

// doubtful reports whether something that is no sound image may run under this digest.
func (c *content) doubtful() bool {
	return c.fault != "" || slices.ContainsFunc(c.ways, func(w way) bool { return !w.usable() })
}

// mark stands for a digest where many are kept and taking one for another only costs time.
type mark uint64

func markOf(d image.Digest) mark {
	if len(d.Encoded()) < 16 {
		return 0
	}
	n, _ := strconv.ParseUint(d.Encoded()[:16], 16, 64) // not hex: 0, as good as any
	return mark(n)
}

// argsSum stands for a command line, whatever its length.
type argsSum [sha256.Size]byte

// sumArgs sums a command line so that no two have one sum, however they are cut.
func sumArgs(parts ...[]string) argsSum {
	h := sha256.New()
	for _, part := range parts {
		for _, arg := range part {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(arg))))
			h.Write([]byte(arg))
		}
	}
	return argsSum(h.Sum(nil))
}

// resolve reads what a digest leads to. Content that is malformed or not all there is a
// content with a fault; an error means that containerd could not be asked.
func resolve(ctx context.Context, blobs image.Provider, target image.Digest) (*content, error) {
	left := 2 * image.MaxBlobs // once to the fault, and once to tell what can be told
	return resolveWithin(ctx, blobs, target, &left)
}

// resolveWithin is resolve that reads at most left blobs, and counts them off; more is an
// error that wraps errTooMany.
func resolveWithin(ctx context.Context, blobs image.Provider, target image.Digest, left *int) (*content, error) {
	r := reading{blobs: blobs, left: left}
	found, err := image.Resolve(ctx, &r, target)
	if r.failed != nil {
		return nil, fmt.Errorf("resolve %s: %w", clip(string(target)), r.failed)
	}
	resolved := &content{digest: target}
	for _, m := range found {
		resolved.add(m)
	}
	if err != nil {
		resolved.fault = err.Error()
		if err := r.salvage(ctx, resolved); err != nil {
			return nil, err
		}
	}
	resolved.absent = r.absent
	return resolved, nil
}

// salvage adds to a content with a fault the ways that are sound in themselves, as unusable.
func (r *reading) salvage(ctx context.Context, c *content) error {
	for _, d := range slices.Clone(r.read) {
		if d == c.digest {
			continue
		}
		found, _ := image.Resolve(ctx, r, d)
		switch {
		case errors.Is(r.failed, errTooMany):
			return nil
		case r.failed != nil:
			return fmt.Errorf("resolve %s: %w", clip(string(d)), r.failed)
		}
		for _, m := range found {
			m.Digests = append([]image.Digest{c.digest}, m.Digests...)
			m.Unusable = c.fault
			c.add(m)
		}
	}
	return nil
}

// add notes one more manifest.
func (c *content) add(m image.Manifest) {
	w := c.to(m.Config)
	if w == nil {
		c.ways = append(c.ways, way{config: m.Config})
		w = &c.ways[len(c.ways)-1]
	}
	w.digests = appendNew(w.digests, m.Digests)
	if m.Unusable != "" {
		w.unusable = m.Unusable
		return
	}
	if w.offered == nil && slices.Equal(w.digests, m.Digests) {
		w.offered = slices.Clip(w.digests) // as with most; shared until either grows
	} else {
		w.offered = appendNew(w.offered, m.Digests)
	}
	w.chain, w.args = m.ChainID, sumArgs(m.Entrypoint, m.Cmd)
}

func appendNew(to, from []image.Digest) []image.Digest {
	for _, d := range from {
		if !slices.Contains(to, d) {
			to = append(to, d)
		}
	}
	return to
}

// maxAbsent bounds what is remembered of the platforms that a node does not have.
const maxAbsent = 4 * image.MaxIndexEntries

// errTooMany ends a resolve that would read more blobs than it may.
var errTooMany = errors.New("too many blobs would have to be read to tell what it leads to; they are read in the background")

// reading is the content store as one resolve sees it. It remembers what was and what was
// not there, and whether containerd failed, which says nothing about the content.
type reading struct {
	blobs  image.Provider
	left   *int           // blobs that may still be asked for
	read   []image.Digest // each once
	absent []mark
	failed error
}

// Blob implements image.Provider.
func (r *reading) Blob(ctx context.Context, d image.Digest, limit int64) ([]byte, error) {
	if r.failed != nil {
		return nil, r.failed // one time-out is enough
	}
	if *r.left <= 0 {
		r.failed = errTooMany
		return nil, r.failed
	}
	*r.left--
	blob, err := r.blobs.Blob(ctx, d, limit)
	switch {
	case err == nil:
		r.read = appendNew(r.read, []image.Digest{d})
	case errors.Is(err, image.ErrNotFound):
		if m := markOf(d); len(r.absent) < maxAbsent && !slices.Contains(r.absent, m) {
			r.absent = append(r.absent, m)
		}
	case ctx.Err() != nil || isAway(err):
		r.failed = err
	}
	return blob, err // any other trouble is with this blob
}
