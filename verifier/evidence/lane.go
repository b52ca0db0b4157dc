package evidence

import (
	"context"
	"sync"
	"time"
)

// A sweep pauses after a question failed, twice as long after each in a row: a source that
// is gone is not asked about every image of the node without end.
const (
	minPause = time.Second
	maxPause = 30 * time.Second
)

// lane answers questions of one kind with workers of its own, so that a source that hangs
// holds up nobody else. What is wanted comes before the sweep, and at most half of the
// workers sweep.
type lane struct {
	workers int
	// answer answers one; false is a failure that others may have in common.
	answer func(context.Context, task) bool
	// due tells whether a question of the sweep is worth answering.
	due func(Question) bool

	mu      sync.Mutex
	wanted  queue
	flights map[task]*flight // of those that wait and those under way
	sweep   []Question
	failed  int       // questions of the sweep in a row
	resume  time.Time // when the sweep goes on
	wake    chan struct{}
}

// flight is one question on its way to its answer. Done is closed at its end.
type flight struct {
	done   chan struct{}
	wanted bool            // some gate asked, not only the sweep
	begun  bool            // it waits no more
	by     map[string]bool // the namespaces in whose turns it waits
}

func newLane(workers int, answer func(context.Context, task) bool, due func(Question) bool) *lane {
	return &lane{workers: workers, answer: answer, due: due, flights: make(map[task]*flight), wake: make(chan struct{}, workers)}
}

// want has a task done in the name of a namespace, together with those who asked before;
// nil when there is no room for it.
func (l *lane) want(namespace string, q task) *flight {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.flights[q]
	if f != nil && (f.begun || f.by[namespace]) {
		return f
	}
	// Of one that waits among another's many, this namespace's turn may come before.
	if !l.wanted.add(namespace, q) {
		return f
	}
	if f == nil {
		f = &flight{done: make(chan struct{}), wanted: true, by: make(map[string]bool)}
		l.flights[q] = f
	}
	f.by[namespace] = true
	l.poke()
	return f
}

// setSweep has questions answered when nothing is wanted, in place of those of the sweep before.
func (l *lane) setSweep(questions []Question) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep = questions
	for range l.workers {
		l.poke()
	}
}

func (l *lane) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// next gives the question to answer now. Where a sweep pauses, wait says for how long.
func (l *lane) next(sweeps bool) (q task, f *flight, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for q, ok := l.wanted.next(); ok; q, ok = l.wanted.next() {
		// It may have had its turn by another namespace.
		if f := l.flights[q]; f != nil && !f.begun {
			f.begun = true
			return q, f, 0
		}
	}
	if !sweeps {
		return q, nil, 0
	}
	if wait = time.Until(l.resume); wait > 0 && len(l.sweep) > 0 {
		return q, nil, wait
	}
	for len(l.sweep) > 0 {
		q, l.sweep = task{Question: l.sweep[0]}, l.sweep[1:]
		if l.flights[q] == nil && l.due(q.Question) {
			f = &flight{done: make(chan struct{}), begun: true}
			l.flights[q] = f
			return q, f, 0
		}
	}
	l.sweep = nil
	return q, nil, 0
}

func (l *lane) end(q task, f *flight, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.flights, q)
	close(f.done)
	switch {
	case ok:
		l.failed, l.resume = 0, time.Time{}
	case !f.wanted:
		l.resume = time.Now().Add(min(minPause<<min(l.failed, 10), maxPause))
		l.failed++
	}
}

// work answers questions until the context ends.
func (l *lane) work(ctx context.Context, sweeps bool) error {
	for {
		q, f, wait := l.next(sweeps)
		if f != nil {
			ok := l.answer(ctx, q)
			l.end(q, f, ok)
			if ctx.Err() == nil {
				continue
			}
		}
		if err := l.sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// sleep waits until there may be something to do.
func (l *lane) sleep(ctx context.Context, wait time.Duration) error {
	var again <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		again = timer.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.wake:
	case <-again:
	}
	return nil
}
