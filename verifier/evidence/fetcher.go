package evidence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// maxFetches bounds the fetches under way at once, over all sources.
const maxFetches = 20

// Bounds of what is kept of one answer: attestations, and bytes as the store counts them.
const (
	maxKept      = 256
	maxKeptBytes = 1 << 20
)

// ErrUnusable is in the chain of an error of a source that answered, with what cannot be
// used as an answer to this question. Of other questions that says nothing.
var ErrUnusable = errors.New("the answer cannot be used")

// Outcomes of a fetch, as FetcherOptions.Observe is told of them.
const (
	OutcomeOK      = "ok"
	OutcomeEmpty   = "empty"
	OutcomeFailed  = "failed"
	OutcomeTimeout = "timeout"
)

// Source is asked for all that it holds about the identity of a question. An empty answer
// is an answer: only an error says that it is not known.
type Source interface {
	Fetch(context.Context, Question) ([]Attestation, error)
}

// Asked is a source with how it is asked.
type Asked struct {
	Name    string
	Locator string
	Terms   Terms
	Timeout time.Duration // of one fetch
	Source  Source
}

// FetcherOptions are what a Fetcher works with.
type FetcherOptions struct {
	Store   *Store
	Sources []Asked
	// Revision is that of the policies in force, and Applies whether a key of theirs bears an id:
	// what it could have signed is kept before anything else.
	Revision func() string
	Applies  func(keyID string) bool
	// Settle verifies the signatures of what is known of the answer to a question under the
	// policies of a namespace; empty for those of all.
	Settle func(ctx context.Context, namespace string, q Question) error
	// Observe is told of each fetch: ok, empty, failed or timeout; nil when nobody wants to know.
	Observe func(source, outcome string, took time.Duration)
	Log     *slog.Logger
}

// Fetcher has questions answered: it asks sources for what is not known or not fresh, and
// has signatures verified before a decision asks for them. A question is asked once
// however many want it.
type Fetcher struct {
	options FetcherOptions
	settle  *lane
	fetch   map[string]*lane // by source

	mu    sync.Mutex
	later map[Question]string // what was wanted too early to be asked again, with the namespace
	share map[string]int      // how many of later are of a namespace
}

// NewFetcher returns a Fetcher that answers nothing before Run.
func NewFetcher(o FetcherOptions) *Fetcher {
	f := &Fetcher{options: o, fetch: make(map[string]*lane), later: make(map[Question]string), share: make(map[string]int)}
	f.settle = newLane(1, f.verify, func(Question) bool { return true })
	for _, s := range o.Sources {
		o.Store.memory.Asked(s.Name, s.Locator, s.Terms)
		f.fetch[s.Name] = newLane(max(2, maxFetches/len(o.Sources)), f.ask(s), f.due)
	}
	return f
}

func (f *Fetcher) due(q Question) bool { return f.options.Store.memory.Due(q, f.options.Revision()) }

// Due tells whether a sweep could find anything that is not fresh any more.
func (f *Fetcher) Due() bool { return f.options.Store.memory.anyDue(f.options.Revision()) }

// Want has questions answered soon, for a namespace that waits for them; empty for the
// node itself. It does not wait.
func (f *Fetcher) Want(namespace string, questions []Question) {
	for _, q := range questions {
		f.want(namespace, q)
	}
}

// want gives what there is to wait for: nothing more than two flights.
func (f *Fetcher) want(namespace string, q Question) (flights [2]*flight, ok bool) {
	flights[0] = f.settle.want(namespace, task{q, namespace})
	ok = flights[0] != nil
	source := f.fetch[q.Source]
	switch {
	case source == nil:
	case f.due(q):
		flights[1] = source.want(namespace, task{Question: q})
		ok = ok && flights[1] != nil
	default:
		f.postpone(namespace, q)
	}
	return flights, ok
}

// postpone has a question asked as soon as it may be asked again, unless it was answered
// with something.
func (f *Fetcher) postpone(namespace string, q Question) {
	if known := f.options.Store.memory.Lookup(q); known.State == Fresh && len(known.Attestations) > 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, there := f.later[q]; !there && len(f.later) < maxWaiting && f.share[namespace] < maxShare {
		f.later[q] = namespace
		f.share[namespace]++
	}
}

// ErrBusy: more questions wait than there is room for.
var ErrBusy = errors.New("too many questions wait to be answered")

// Ask has questions answered for a namespace, empty for all of them, and waits until they
// are, or failed. The error is that of the context, or ErrBusy.
func (f *Fetcher) Ask(ctx context.Context, namespace string, questions []Question) error {
	var all []*flight
	for _, q := range questions {
		flights, ok := f.want(namespace, q)
		if !ok {
			return ErrBusy
		}
		all = append(all, flights[:]...)
	}
	return wait(ctx, all)
}

// Settle has the signatures of what is known verified and waits until they are; no
// source is asked. The error is that of the context, or ErrBusy.
func (f *Fetcher) Settle(ctx context.Context, questions []Question) error {
	var all []*flight
	for _, q := range questions {
		one := f.settle.want("", task{Question: q})
		if one == nil {
			return ErrBusy
		}
		all = append(all, one)
	}
	return wait(ctx, all)
}

func wait(ctx context.Context, flights []*flight) error {
	for _, one := range flights {
		if one == nil {
			continue
		}
		select {
		case <-one.done:
		case <-ctx.Done():
			return fmt.Errorf("wait for evidence: %w", ctx.Err())
		}
	}
	return nil
}

// Sweep has questions answered when nothing is wanted, in their order, in place of those of the sweep before.
func (f *Fetcher) Sweep(questions []Question) {
	f.settle.setSweep(questions)
	for name, l := range f.fetch {
		var own []Question
		for _, q := range questions {
			if q.Source == name && f.due(q) {
				own = append(own, q)
			}
		}
		l.setSweep(own)
	}
}

// Run answers questions until the context ends.
func (f *Fetcher) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range f.fetch {
		for n := range l.workers {
			group.Go(func() error { return l.work(ctx, n < max(1, l.workers/2)) })
		}
	}
	group.Go(func() error { return f.settle.work(ctx, true) })
	if len(f.fetch) > 0 {
		group.Go(func() error { return f.askPostponed(ctx) })
	}
	return group.Wait()
}

// askPostponed asks what was wanted too early once it may be asked again.
func (f *Fetcher) askPostponed(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		f.mu.Lock()
		for q, namespace := range f.later {
			if f.due(q) {
				delete(f.later, q)
				if f.share[namespace]--; f.share[namespace] == 0 {
					delete(f.share, namespace)
				}
				f.fetch[q.Source].want(namespace, task{Question: q})
			}
		}
		f.mu.Unlock()
	}
}

// verify has the signatures of what is known of a question verified.
func (f *Fetcher) verify(ctx context.Context, t task) bool {
	defer func() {
		if what := recover(); what != nil {
			f.options.Log.Error("verifying the signatures about an image panicked", "image", t.Identity.String(), "panic", fmt.Sprint(what))
		}
	}()
	limited, cancel := context.WithTimeout(ctx, maxSettle)
	defer cancel()
	if err := f.options.Settle(limited, t.namespace, t.Question); err != nil && ctx.Err() == nil {
		f.options.Log.Warn("not all signatures about an image could be verified in time: it goes on when they are asked for again",
			"image", t.Identity.String(), "namespace", t.namespace, "error", err)
	}
	return true
}

// maxSettle bounds the arithmetic about one question, so that nobody's keys and
// attestations hold up those of others for long.
const maxSettle = 500 * time.Millisecond

// ask asks one source, keeps what it says, and has its signatures verified.
func (f *Fetcher) ask(s Asked) func(context.Context, task) bool {
	return func(ctx context.Context, t task) bool {
		q := t.Question
		found, err := f.fetchOne(ctx, s, q)
		if ctx.Err() != nil {
			return false // the daemon ends: that is no failure of the source
		}
		if err != nil {
			f.options.Store.Fail(q, clip(err.Error(), maxProblem))
			f.options.Log.Debug("a source failed", "source", s.Name, "image", q.Identity.String(), "error", err)
			return errors.Is(err, ErrUnusable) // whoever writes one answer does not stop the asking of others
		}
		r := f.choose(found)
		r.Question = q
		f.options.Store.Put(r)
		// Not in this lane's worker: verifying is bounded to one at a time.
		if one := f.settle.want("", task{Question: q}); one != nil {
			_ = wait(ctx, []*flight{one})
		}
		return true
	}
}

// maxProblem bounds what is kept of an error of a source, in bytes.
const maxProblem = 200

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}

// fetchOne asks a source within its time. A panic of a source is a failure of it.
func (f *Fetcher) fetchOne(ctx context.Context, s Asked, q Question) (found []Attestation, err error) {
	started := time.Now()
	limited, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	defer func() {
		if what := recover(); what != nil {
			err = fmt.Errorf("panic: %v", what)
		}
		if f.options.Observe != nil {
			f.options.Observe(s.Name, outcome(limited, found, err), time.Since(started))
		}
	}()
	return s.Source.Fetch(limited, q)
}

func outcome(ctx context.Context, found []Attestation, err error) string {
	switch {
	case err != nil && ctx.Err() != nil:
		return OutcomeTimeout
	case err != nil:
		return OutcomeFailed
	case len(found) == 0:
		return OutcomeEmpty
	}
	return OutcomeOK
}

// choose keeps so much of an answer as is looked at.
func (f *Fetcher) choose(found []Attestation) Record {
	r := Record{Read: f.options.Store.options.Now(), Revision: f.options.Revision()}
	size := 0
	for _, i := range f.order(found) {
		one := attestationSize(&found[i])
		if len(r.Attestations) == maxKept || size+one > maxKeptBytes {
			r.Clipped = true
			continue
		}
		size += one
		r.Attestations = append(r.Attestations, found[i])
	}
	return r
}

// order puts what keys of the policies could have signed first, one of each key in turn:
// whoever writes many, in his own name or in that of one key, does not crowd out others.
func (f *Fetcher) order(found []Attestation) []int {
	type place struct{ index, turn int }
	taken := make(map[string]int)
	places := make([]place, len(found))
	for i := range found {
		places[i] = place{i, math.MaxInt}
		if key, ok := f.applying(&found[i]); ok {
			places[i].turn = taken[key]
			taken[key]++
		}
	}
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(a.turn, b.turn) })
	order := make([]int, len(places))
	for i, p := range places {
		order[i] = p.index
	}
	return order
}

// applying is the first key id of an attestation that is in the policies.
func (f *Fetcher) applying(at *Attestation) (string, bool) {
	for i := range at.Envelopes {
		if id := at.Envelopes[i].KeyID; f.options.Applies(id) {
			return id, true
		}
	}
	return "", false
}
