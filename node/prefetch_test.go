package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
)

// looked is Evidence that notes which questions it was asked; it holds nothing.
type looked struct {
	*evidence.Memory
	mu    sync.Mutex
	order []evidence.Question
	told  chan struct{}
}

func (l *looked) Lookup(q evidence.Question) ([]evidence.Attestation, bool) {
	l.mu.Lock()
	l.order = append(l.order, q)
	l.mu.Unlock()
	l.told <- struct{}{}
	return nil, true
}

func (l *looked) wait(t *testing.T, n int) []evidence.Question {
	t.Helper()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	for range n {
		select {
		case <-l.told:
		case <-limit.C:
			t.Fatal("a question was not answered")
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.order)
}

func question(n int) evidence.Question {
	return evidence.Question{Source: "folder", Identity: image.Identity{Repository: "r", Digest: digest(n)}}
}

func newLooked() (*looked, *prefetch) {
	l := &looked{Memory: evidence.NewMemory(), told: make(chan struct{}, maxWaiting)}
	snap := policy.Compile()
	return l, newPrefetch(l, func() *policy.Snapshot { return snap })
}

// start runs a prefetch until the test ends.
func start(t *testing.T, p *prefetch) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

func TestWhatACreateAskedForComesBeforeTheSweep(t *testing.T) {
	l, p := newLooked()
	p.Sweep([]evidence.Question{question(1), question(2)})
	p.Want([]evidence.Question{question(3), question(3), question(4)})
	start(t, p)
	if got, want := l.wait(t, 4), []evidence.Question{question(3), question(4), question(1), question(2)}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	p.Want([]evidence.Question{question(3)})
	if got := l.wait(t, 1); got[len(got)-1] != question(3) {
		t.Error("a question that was answered could not be asked again")
	}
}

func TestASweepTakesThePlaceOfTheOneBefore(t *testing.T) {
	l, p := newLooked()
	p.Sweep([]evidence.Question{question(1), question(2)})
	p.Sweep([]evidence.Question{question(2), question(3)})
	start(t, p)
	if got, want := l.wait(t, 2), []evidence.Question{question(2), question(3)}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestQuestionsWaitUpToTheirLimit(t *testing.T) {
	_, p := newLooked()
	for n := range maxWaiting + 1 {
		p.Want([]evidence.Question{{Source: fmt.Sprint(n)}})
	}
	if len(p.queue) != maxWaiting || len(p.waiting) != maxWaiting || p.waiting[evidence.Question{Source: fmt.Sprint(maxWaiting)}] {
		t.Errorf("%d wait, want %d", len(p.queue), maxWaiting)
	}
}

func TestQuestionsAreOfEveryDigestAndSource(t *testing.T) {
	got := questions([]evidence.Question{{Source: "a"}, {Source: "b", Locator: "l"}},
		[]verifier.Candidate{{Repository: "r", Digests: []image.Digest{digest(1), digest(2)}}, {Repository: "s"}})
	want := []evidence.Question{
		{Source: "a", Identity: image.Identity{Repository: "r", Digest: digest(1)}}, {Source: "b", Locator: "l", Identity: image.Identity{Repository: "r", Digest: digest(1)}},
		{Source: "a", Identity: image.Identity{Repository: "r", Digest: digest(2)}}, {Source: "b", Locator: "l", Identity: image.Identity{Repository: "r", Digest: digest(2)}},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestAnsweredIsToldWhenAllThatWasWantedIsAnswered(t *testing.T) {
	l, p := newLooked()
	ended := make(chan struct{})
	p.Want([]evidence.Question{question(1), question(2)})
	first := p.Answered()
	select {
	case <-first:
		t.Fatal("told before anything was answered")
	default:
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { defer close(ended); _ = p.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	for _, c := range []<-chan struct{}{first, p.Answered()} { // the second with nothing to wait for
		select {
		case <-c:
		case <-time.After(10 * time.Second):
			t.Fatal("not told")
		}
	}
	if n := len(l.wait(t, 2)); n != 2 {
		t.Errorf("%d answered, want 2", n)
	}
}
