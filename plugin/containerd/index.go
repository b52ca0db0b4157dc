package containerd

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// Options are the settings of an Index; the zero value is valid.
type Options struct {
	// Relist is how often all records are listed again although no event said so;
	// zero means every 10 minutes.
	Relist time.Duration
	// OnChange is told what newly appeared, and at the start all there is. It runs on the
	// goroutine that keeps the index and must not block. nil: nobody is told.
	OnChange func([]verifier.Candidate)
	// OnRelist is told when all records were listed again. It runs where OnChange does and
	// must not block. nil: nobody is told.
	OnRelist func()
	// Prefer tells a candidate that evidence is held about: of more candidates than are
	// offered, such come first. It is called while the node waits, at worst for each image
	// record there is, and must neither block nor keep what it is given. nil prefers none.
	Prefer func(verifier.Candidate) bool
	// Log is told of trouble with containerd; nil: slog.Default().
	Log *slog.Logger
}

// Index knows containerd's image records and what they lead to, and binds claims with
// that. Run keeps it current. Safe for concurrent use.
type Index struct {
	client   *Client
	relist   time.Duration
	onChange func([]verifier.Candidate)
	onRelist func()
	prefer   func(verifier.Candidate) bool
	log      *slog.Logger
	retry    time.Duration
	events   *announcements
	// wanted carries to Run what a claim named and the index did not have.
	wanted chan wish

	mu       sync.Mutex
	catalog  *catalog
	ready    chan struct{} // closed while the index is current
	store    *store        // Run's
	settings Settings
	// volumeDirs are the spellings of the folder of image volumes, containerd's own first.
	volumeDirs []string
	// snapshotter is containerd's default one, learned from a sandbox; "" until then.
	snapshotter string
}

// wish is what to look at again: the record of a name, or content that was incomplete.
type wish struct {
	name   string
	target image.Digest
}

// maxWishes bounds what Run is asked for. One more is dropped: it is asked for again with
// the next claim, or found when all records are listed again.
const maxWishes = 256

// retryFaulty is how often at most claims have content with a fault looked at again.
const retryFaulty = 5 * time.Second

// NewIndex makes an index of what the client's containerd has. It is empty and not ready
// until Run has filled it.
func NewIndex(client *Client, o Options) *Index {
	ix := &Index{
		client:   client,
		relist:   o.Relist,
		onChange: o.OnChange,
		onRelist: o.OnRelist,
		prefer:   o.Prefer,
		log:      o.Log,
		retry:    retryFaulty,
		events:   newAnnouncements(),
		wanted:   make(chan wish, maxWishes),
		catalog:  newCatalog(),
		ready:    make(chan struct{}),
	}
	if ix.relist <= 0 {
		ix.relist = 10 * time.Minute
	}
	if ix.onChange == nil {
		ix.onChange = func([]verifier.Candidate) {}
	}
	if ix.onRelist == nil {
		ix.onRelist = func() {}
	}
	if ix.log == nil {
		ix.log = slog.Default()
	}
	return ix
}

// Ready reports whether the index is current: everything was listed, and the events since
// then have been followed without a break.
func (ix *Index) Ready() bool {
	select {
	case <-ix.readiness():
		return true
	default:
		return false
	}
}

// Wait waits until the index is current; false means that ctx ended before.
func (ix *Index) Wait(ctx context.Context) bool {
	select {
	case <-ix.readiness():
		return true
	case <-ctx.Done():
		return false
	}
}

// Images returns every name on the node with the digests it leads to, for gathering
// evidence ahead. Records that are no names are left out.
func (ix *Index) Images() []verifier.Candidate {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	out := make([]verifier.Candidate, 0, len(ix.catalog.records))
	for _, r := range ix.catalog.records {
		out = append(out, r.candidates()...)
	}
	return out
}

func (ix *Index) readiness() chan struct{} {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return ix.ready
}

// open declares the index current.
func (ix *Index) open() {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	select {
	case <-ix.ready:
	default:
		close(ix.ready)
	}
}

// shut declares that the index may be out of date.
func (ix *Index) shut() {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	select {
	case <-ix.ready:
		ix.ready = make(chan struct{})
	default:
	}
}

// await waits until the index is current, for no longer than patience: after a restart
// that is a moment, and waiting for it is quicker than a refusal and a retry.
func (ix *Index) await(ctx context.Context, patience time.Duration) bool {
	ready := ix.readiness()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-ready:
		return true
	default:
	}
	select {
	case <-ready:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// caughtUp waits until all that containerd has reported so far is in the index, for no
// longer than patience.
func (ix *Index) caughtUp(ctx context.Context, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return ix.events.wait(ctx) && ix.Ready()
}

// settled returns what is known of the record of a name; nil if nothing is, or if an event
// about it waits to be looked at.
func (ix *Index) settled(name string) *content {
	if ix.events.waits(name) {
		return nil
	}
	return ix.named(name)
}

// named returns what is known of the record of a name, or nil.
func (ix *Index) named(name string) *content {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return ix.catalog.named(name)
}

// content returns what is known of the target of a record, or nil.
func (ix *Index) content(d image.Digest) *content {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return ix.catalog.content(d)
}

// want asks Run to look at something again, and does not wait for it.
func (ix *Index) want(w wish) {
	select {
	case ix.wanted <- w:
	default:
	}
}
