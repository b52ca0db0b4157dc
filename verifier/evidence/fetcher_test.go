package evidence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/image"
)

// scripted is a source that does what it is told, and notes what it was asked.
type scripted struct {
	mu    sync.Mutex
	order []Question
	busy  int
	most  int // fetches under way at once, at most
	do    func(context.Context, Question) ([]Attestation, error)
}

func (s *scripted) Fetch(ctx context.Context, q Question) ([]Attestation, error) {
	s.mu.Lock()
	s.order = append(s.order, q)
	s.busy++
	s.most = max(s.most, s.busy)
	do := s.do
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.busy--
	}()
	return do(ctx, q)
}

func (s *scripted) set(do func(context.Context, Question) ([]Attestation, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.do = do
}

func (s *scripted) asked() []Question {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.order)
}

func attests(n int) func(context.Context, Question) ([]Attestation, error) {
	return func(_ context.Context, q Question) ([]Attestation, error) {
		return holding(q, n).Attestations, nil
	}
}

func hangs(ctx context.Context, _ Question) ([]Attestation, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func fails(context.Context, Question) ([]Attestation, error) { return nil, errors.New("no route") }

// fetching is a Fetcher at work in a bubble of its own time.
type fetching struct {
	*Fetcher
	memory  *Memory
	source  *scripted
	mu      sync.Mutex
	settled []Question
	panics  bool
	seen    []string
}

func (f *fetching) settledSoFar() []Question {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.settled)
}

// fetch runs a test in a bubble with a Fetcher of one source named web.
func fetch(t *testing.T, terms Terms, do func(context.Context, Question) ([]Attestation, error), test func(*testing.T, *fetching)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fetching{memory: NewMemory(), source: &scripted{do: do}}
		store := NewStore(f.memory, StoreOptions{Dir: t.TempDir(), Now: time.Now, OnNode: func() map[image.Identity]bool { return nil }, Log: slog.New(slog.DiscardHandler)})
		f.Fetcher = NewFetcher(FetcherOptions{
			Store:    store,
			Sources:  []Asked{{Name: "web", Terms: terms, Timeout: 10 * time.Second, Source: f.source}},
			Revision: func() string { return "one" },
			Applies:  func(id string) bool { return strings.HasPrefix(id, "good") },
			Settle: func(_ context.Context, _ string, q Question) error {
				f.mu.Lock()
				defer f.mu.Unlock()
				if f.panics {
					panic("bug")
				}
				f.settled = append(f.settled, q)
				return nil
			},
			Observe: func(source, outcome string, took time.Duration) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.seen = append(f.seen, fmt.Sprintf("%s %s %s", source, outcome, took))
			},
			Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.Run(ctx) }()
		test(t, f)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

func TestWhatIsNotKnownIsAskedInTheBackgroundAndThenSettled(t *testing.T) {
	fetch(t, Terms{Fresh: time.Minute}, attests(1), func(t *testing.T, f *fetching) {
		f.Want("shop", []Question{about(1)})
		synctest.Wait()
		if got := f.memory.Lookup(about(1)); got.State != Fresh || len(got.Attestations) != 1 {
			t.Errorf("%+v", got)
		}
		if got := f.settledSoFar(); got[len(got)-1] != about(1) {
			t.Errorf("settled %v", got)
		}
		if !slices.Equal(f.seen, []string{"web ok 0s"}) {
			t.Errorf("seen %v", f.seen)
		}
	})
}

func TestAQuestionIsAskedOnceHoweverManyWantIt(t *testing.T) {
	release := make(chan struct{})
	fetch(t, Terms{Fresh: time.Minute}, func(context.Context, Question) ([]Attestation, error) {
		<-release
		return nil, nil
	}, func(t *testing.T, f *fetching) {
		release = make(chan struct{}) // of this bubble
		var wait sync.WaitGroup
		for n := range 50 {
			f.Want(fmt.Sprint(n), []Question{about(1)})
			wait.Go(func() {
				if err := f.Ask(t.Context(), "", []Question{about(1)}); err != nil {
					t.Error(err)
				}
			})
		}
		f.Sweep([]Question{about(1)})
		synctest.Wait()
		close(release)
		wait.Wait()
		if got := f.source.asked(); len(got) != 1 {
			t.Errorf("asked %d times", len(got))
		}
	})
}

func TestWhatIsKnownIsNotAskedAgainBeforeItsTime(t *testing.T) {
	fetch(t, Terms{Fresh: time.Minute}, attests(1), func(t *testing.T, f *fetching) {
		for range 3 {
			f.Want("shop", []Question{about(1)})
			f.Sweep([]Question{about(1)})
			synctest.Wait()
		}
		if got := f.source.asked(); len(got) != 1 {
			t.Errorf("asked %d times while it is fresh", len(got))
		}
		time.Sleep(time.Minute)
		f.Want("shop", []Question{about(1)})
		synctest.Wait()
		if got := f.source.asked(); len(got) != 2 {
			t.Errorf("asked %d times after it was fresh", len(got))
		}
	})
}

func TestWhatWasWantedTooEarlyIsAskedOnceItMayBe(t *testing.T) {
	fetch(t, Terms{Fresh: time.Hour}, attests(0), func(t *testing.T, f *fetching) {
		f.Want("shop", []Question{about(1)})
		synctest.Wait()
		f.source.set(attests(1))
		f.Want("shop", []Question{about(1)}) // the create tries again within the 5 seconds
		synctest.Wait()
		if got := f.source.asked(); len(got) != 1 {
			t.Fatalf("asked %d times", len(got))
		}
		time.Sleep(7 * time.Second)
		synctest.Wait()
		if got := f.memory.Lookup(about(1)); len(got.Attestations) != 1 {
			t.Errorf("the next try does not find it: %+v", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := f.source.asked(); len(got) != 2 {
			t.Errorf("asked %d times though nobody wants it any more", len(got))
		}
	})
}

func TestASourceThatHangsIsGivenUpAndHoldsUpNobodyElse(t *testing.T) {
	fetch(t, Terms{Fresh: time.Minute}, hangs, func(t *testing.T, f *fetching) {
		f.memory.Replace("folder", Records{})
		folder := about(1)
		folder.Source = "folder"
		for n := range 200 {
			f.Want("noisy", []Question{about(n)})
		}
		start := time.Now()
		if err := f.Ask(t.Context(), "", []Question{folder}); err != nil || time.Since(start) > 0 {
			t.Errorf("the folder was asked for %s, %v", time.Since(start), err)
		}
		f.Want("quiet", []Question{about(1000)})
		if err := f.Ask(t.Context(), "", []Question{about(1000)}); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("a quiet namespace waited %s behind a noisy one", took)
		}
		if got := f.memory.Lookup(about(1000)); got.State != Failed || !strings.Contains(got.Problem, "deadline") {
			t.Errorf("%+v", got)
		}
		f.source.mu.Lock()
		defer f.source.mu.Unlock()
		if f.source.most > maxFetches {
			t.Errorf("%d fetches at once", f.source.most)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.seen[0] != "web timeout 10s" {
			t.Errorf("seen %v", f.seen[0])
		}
	})
}

func TestASourceThatPanicsHasFailed(t *testing.T) {
	fetch(t, Terms{Fresh: time.Minute}, func(context.Context, Question) ([]Attestation, error) { panic("bug") }, func(t *testing.T, f *fetching) {
		if err := f.Ask(t.Context(), "", []Question{about(1)}); err != nil {
			t.Error(err)
		}
		if got := f.memory.Lookup(about(1)); got.State != Failed || !strings.Contains(got.Problem, "bug") {
			t.Errorf("%+v", got)
		}
	})
}

func TestWhatIsKnownIsSettledThoughItsSourceIsGone(t *testing.T) {
	fetch(t, Terms{Fresh: time.Minute}, hangs, func(t *testing.T, f *fetching) {
		f.memory.put(holding(about(1), 1), f.memory.elapsed()-time.Hour)
		start := time.Now()
		f.Want("", []Question{about(1)})
		if err := f.Settle(t.Context(), []Question{about(1)}); err != nil || time.Since(start) > 0 {
			t.Errorf("settled after %s, %v", time.Since(start), err)
		}
		if got := f.settledSoFar(); len(got) == 0 {
			t.Error("not settled")
		}
	})
}

func TestASweepOfASourceThatIsGonePauses(t *testing.T) {
	fetch(t, Terms{Fresh: time.Minute}, fails, func(t *testing.T, f *fetching) {
		var all []Question
		for n := range 5000 {
			all = append(all, about(n))
		}
		f.Sweep(all)
		time.Sleep(10 * time.Minute)
		if n := len(f.source.asked()); n < 10 || n > 400 {
			t.Errorf("asked %d times in 10 minutes", n)
		}
		f.source.set(attests(1))
		f.Want("shop", []Question{about(4999)})
		synctest.Wait()
		if f.memory.Lookup(about(4999)).State != Fresh {
			t.Error("a create waits for the sweep")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(f.source.asked()); n < 5000 {
			t.Errorf("asked %d times after it came back", n)
		}
	})
}

func TestGarbageAboutSomeImagesDoesNotStopTheSweepOfOthers(t *testing.T) {
	mixed := func(ctx context.Context, q Question) ([]Attestation, error) {
		if strings.HasPrefix(q.Identity.Repository, "r1") { // about a tenth of them, and the first
			return nil, fmt.Errorf("it answered garbage: %w", ErrUnusable)
		}
		return attests(1)(ctx, q)
	}
	fetch(t, Terms{Fresh: time.Hour}, mixed, func(t *testing.T, f *fetching) {
		all := []Question{}
		for n := 100; n < 300; n++ {
			all = append(all, about(n))
		}
		f.Sweep(all)
		synctest.Wait()
		for n := 200; n < 300; n++ {
			if f.memory.Lookup(about(n)).State != Fresh {
				t.Fatalf("image %d is not asked about", n)
			}
		}
	})
}

func TestAPanicWhileVerifyingEndsNothing(t *testing.T) {
	fetch(t, Terms{Fresh: time.Hour}, attests(1), func(t *testing.T, f *fetching) {
		f.mu.Lock()
		f.panics = true
		f.mu.Unlock()
		if err := f.Ask(t.Context(), "", []Question{about(1)}); err != nil {
			t.Error(err)
		}
		f.mu.Lock()
		f.panics = false
		f.mu.Unlock()
		if err := f.Ask(t.Context(), "", []Question{about(2)}); err != nil || len(f.settledSoFar()) == 0 {
			t.Errorf("settled %v, %v", f.settledSoFar(), err)
		}
	})
}

func TestASweepIsDueWhenAnAnswerIsNotFreshAnyMore(t *testing.T) {
	fetch(t, Terms{Fresh: time.Minute}, attests(1), func(t *testing.T, f *fetching) {
		if f.Due() {
			t.Error("due though nothing was asked")
		}
		if err := f.Ask(t.Context(), "", []Question{about(1), about(2)}); err != nil {
			t.Fatal(err)
		}
		if time.Sleep(time.Minute - 1); f.Due() {
			t.Error("due though all is fresh")
		}
		if time.Sleep(time.Nanosecond); !f.Due() {
			t.Error("not due though nothing is fresh")
		}
	})
}

func TestAskEndsWithItsContext(t *testing.T) {
	fetch(t, Terms{Fresh: time.Minute}, hangs, func(t *testing.T, f *fetching) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Ask(ctx, "", []Question{about(1)}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestOfTooMuchIsKeptWhatTheKeysOfThePoliciesCouldHaveSigned(t *testing.T) {
	flood := func(_ context.Context, q Question) ([]Attestation, error) {
		one := func(keyID, origin string, n int) Attestation {
			return Attestation{Origin: origin, Envelopes: []attestation.Envelope{attestation.NewEnvelope(attestation.PKIX, keyID, nil, fmt.Append(nil, n))}}
		}
		var all []Attestation
		for n := range 10_000 {
			all = append(all, one("good-mallory", "m", n), one("bad", "b", n))
		}
		return append(all, one("good-release", "release", 0)), nil
	}
	fetch(t, Terms{Fresh: time.Minute}, flood, func(t *testing.T, f *fetching) {
		if err := f.Ask(t.Context(), "", []Question{about(1)}); err != nil {
			t.Fatal(err)
		}
		got := f.memory.Lookup(about(1)).Attestations
		if len(got) != maxKept || !slices.ContainsFunc(got, func(a Attestation) bool { return a.Origin == "release" }) {
			t.Errorf("%d are kept, that of release is not among them", len(got))
		}
		if slices.ContainsFunc(got, func(a Attestation) bool { return a.Origin == "b" }) {
			t.Error("what no key of the policies could have signed takes room")
		}
	})
}

func TestWhatIsKeptOfAnAnswerIsBoundedInBytes(t *testing.T) {
	huge := func(_ context.Context, q Question) ([]Attestation, error) {
		var all []Attestation
		for range 200 {
			all = append(all, Attestation{Envelopes: []attestation.Envelope{attestation.NewEnvelope(attestation.PKIX, "good", make([]byte, 64<<10), nil)}})
		}
		return all, nil
	}
	fetch(t, Terms{Fresh: time.Minute}, huge, func(t *testing.T, f *fetching) {
		if err := f.Ask(t.Context(), "", []Question{about(1)}); err != nil {
			t.Fatal(err)
		}
		r, _ := f.memory.record(about(1))
		if sizeOf(&r) > maxKeptBytes+emptySize || !r.Clipped || len(r.Attestations) == 0 {
			t.Errorf("%d bytes are kept, clipped %v", sizeOf(&r), r.Clipped)
		}
	})
}

func TestQuestionsTakeTurnsBetweenNamespaces(t *testing.T) {
	var w queue
	for n := range 3 {
		w.add("a", task{Question: about(n)})
	}
	w.add("b", task{Question: about(10)})
	w.add("c", task{Question: about(20)})
	var got []string
	for {
		q, ok := w.next()
		if !ok {
			break
		}
		got = append(got, q.Identity.Repository)
	}
	if want := []string{"r0", "r10", "r20", "r1", "r2"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestQuestionsWaitUpToTheirLimits(t *testing.T) {
	var w queue
	for n := range maxShare {
		if !w.add("a", task{Question: about(n)}) {
			t.Fatalf("no room for question %d", n)
		}
	}
	if w.add("a", task{Question: about(maxShare)}) {
		t.Error("a namespace has more than its share")
	}
	for n := 0; w.len < maxWaiting; n++ {
		if !w.add(fmt.Sprint("n", n), task{Question: about(n)}) {
			t.Fatalf("no room with %d", w.len)
		}
	}
	if w.add("z", task{Question: about(0)}) {
		t.Error("one above the limit waits")
	}
	for range maxWaiting {
		w.next()
	}
	if _, ok := w.next(); ok || len(w.by) != 0 || len(w.turns) != 0 {
		t.Error("something is left")
	}
}
