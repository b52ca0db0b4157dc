package node

import (
	"context"
	"sync"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
)

// maxWaiting bounds the questions that wait. One that does not fit is asked again by the
// kubelet's next try.
const maxWaiting = 4096

// prefetch verifies signatures before they are asked for: of images that containerd
// reports, of all images when policies or attestations change, and of those a create
// asked for in vain, which come first.
type prefetch struct {
	evidence verifier.Evidence
	snapshot func() *policy.Snapshot

	mu      sync.Mutex
	waiting map[evidence.Question]bool
	queue   []evidence.Question
	done    map[int]chan struct{} // to be closed when that many of the queue are answered; see Answered
	taken   int
	sweep   []evidence.Question
	wake    chan struct{}
}

func newPrefetch(ev verifier.Evidence, snapshot func() *policy.Snapshot) *prefetch {
	return &prefetch{evidence: ev, snapshot: snapshot, waiting: make(map[evidence.Question]bool), done: make(map[int]chan struct{}), wake: make(chan struct{}, 1)}
}

// Want has questions answered soon. It does not wait.
func (p *prefetch) Want(questions []evidence.Question) {
	p.mu.Lock()
	for _, q := range questions {
		if p.waiting[q] || len(p.queue) >= maxWaiting {
			continue
		}
		p.waiting[q] = true
		p.queue = append(p.queue, q)
	}
	p.mu.Unlock()
	p.poke()
}

// Answered is closed when all that is wanted by now is answered.
func (p *prefetch) Answered() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.taken + len(p.queue)
	if p.done[last] == nil {
		p.done[last] = make(chan struct{})
	}
	p.poke()
	return p.done[last]
}

// Sweep has questions answered when nothing is wanted, in place of those of the sweep before.
func (p *prefetch) Sweep(questions []evidence.Question) {
	p.mu.Lock()
	p.sweep = questions
	p.mu.Unlock()
	p.poke()
}

func (p *prefetch) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *prefetch) next() (evidence.Question, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.done[p.taken]; c != nil { // the one before is answered when the next is asked for
		close(c)
		delete(p.done, p.taken)
	}
	if len(p.queue) > 0 {
		q := p.queue[0]
		p.queue = p.queue[1:]
		p.taken++
		delete(p.waiting, q)
		return q, true
	}
	if len(p.sweep) > 0 {
		q := p.sweep[0]
		p.sweep = p.sweep[1:]
		return q, true
	}
	return evidence.Question{}, false
}

// Run answers questions until the context ends.
func (p *prefetch) Run(ctx context.Context) error {
	for {
		for {
			q, ok := p.next()
			if !ok {
				break
			}
			if err := verifier.Settle(ctx, p.snapshot(), p.evidence, q); err != nil {
				return ctx.Err()
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.wake:
		}
	}
}

// questions are those about the identities of candidates.
func questions(sources []evidence.Question, candidates []verifier.Candidate) []evidence.Question {
	var all []evidence.Question
	for _, c := range candidates {
		for _, d := range c.Digests {
			for _, q := range sources {
				q.Identity.Repository, q.Identity.Digest = c.Repository, d
				all = append(all, q)
			}
		}
	}
	return all
}
