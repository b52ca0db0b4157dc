package evidence

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// answered is a lane whose answers are noted in their order, at work in a bubble.
type answered struct {
	*lane
	mu    sync.Mutex
	order []Question
}

func (a *answered) soFar() []Question {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.order)
}

// works runs a test with a lane. Start starts its workers.
func works(t *testing.T, workers int, each func(context.Context, task) bool, test func(t *testing.T, a *answered, start func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := &answered{}
		a.lane = newLane(workers, func(ctx context.Context, q task) bool {
			a.mu.Lock()
			a.order = append(a.order, q.Question)
			a.mu.Unlock()
			return each(ctx, q)
		}, func(Question) bool { return true })
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		test(t, a, func() {
			for n := range workers {
				wait.Go(func() {
					if err := a.work(ctx, n < max(1, workers/2)); !errors.Is(err, context.Canceled) {
						t.Errorf("ended with %v", err)
					}
				})
			}
		})
		cancel()
		wait.Wait()
	})
}

func atOnce(context.Context, task) bool { return true }

func TestWhatACreateAskedForComesBeforeTheSweep(t *testing.T) {
	works(t, 1, atOnce, func(t *testing.T, a *answered, start func()) {
		a.setSweep([]Question{about(1), about(2)})
		for _, n := range []int{3, 3, 4} {
			a.want("shop", task{Question: about(n)})
		}
		start()
		synctest.Wait()
		if got, want := a.soFar(), []Question{about(3), about(4), about(1), about(2)}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		a.want("shop", task{Question: about(3)})
		synctest.Wait()
		if got := a.soFar(); len(got) != 5 || got[4] != about(3) {
			t.Error("a question that was answered could not be asked again")
		}
	})
}

func TestASweepTakesThePlaceOfTheOneBefore(t *testing.T) {
	works(t, 1, atOnce, func(t *testing.T, a *answered, start func()) {
		a.setSweep([]Question{about(1), about(2)})
		a.setSweep([]Question{about(2), about(3)})
		start()
		synctest.Wait()
		if got, want := a.soFar(), []Question{about(2), about(3)}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestASweepLeavesWorkersForWhatIsWanted(t *testing.T) {
	slow := func(ctx context.Context, q task) bool {
		if q.Identity.Repository == "r100" {
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Second):
		}
		return true
	}
	works(t, 4, slow, func(t *testing.T, a *answered, start func()) {
		a.setSweep([]Question{about(1), about(2), about(3), about(4)})
		start()
		synctest.Wait()
		if got := a.soFar(); len(got) != 2 {
			t.Errorf("%d workers sweep", len(got))
		}
		f := a.want("shop", task{Question: about(100)})
		synctest.Wait()
		select {
		case <-f.done:
		default:
			t.Error("what is wanted waits for the sweep")
		}
	})
}

func TestTheSameQuestionOfTwoNamespacesIsTwoTasks(t *testing.T) {
	works(t, 1, atOnce, func(t *testing.T, a *answered, start func()) {
		one, two := a.want("a", task{about(1), "a"}), a.want("b", task{about(1), "b"})
		if one == two || a.want("a", task{about(1), "a"}) != one {
			t.Error("flights are mixed up")
		}
		start()
		synctest.Wait()
		if got := a.soFar(); len(got) != 2 {
			t.Errorf("answered %v", got)
		}
	})
}

func TestAskSaysWhenTooManyQuestionsWait(t *testing.T) {
	fetch(t, Terms{Fresh: time.Minute}, hangs, func(t *testing.T, f *fetching) {
		var many []Question
		for n := range 2 * maxShare {
			many = append(many, about(n))
		}
		if err := f.Ask(t.Context(), "", many); !errors.Is(err, ErrBusy) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAQuestionThatManyOthersAreBeforeComesInItsOwnNamespacesTurn(t *testing.T) {
	l := newLane(1, nil, func(Question) bool { return true })
	for n := range 1000 {
		l.want("evil", task{Question: about(n)})
	}
	shared := task{Question: about(5000)}
	first := l.want("evil", shared)
	if again := l.want("shop", shared); again != first {
		t.Error("it is asked twice")
	}
	for turn := 1; ; turn++ {
		q, f, _ := l.next(false)
		if q == shared {
			if turn > 2 || f != first {
				t.Errorf("its turn is number %d", turn)
			}
			l.end(q, f, true)
			break
		}
		l.end(q, f, true)
	}
	for q, f, _ := l.next(false); f != nil; q, f, _ = l.next(false) {
		if q == shared {
			t.Fatal("it is answered twice")
		}
		l.end(q, f, true)
	}
}

func TestHoweverManyNamespacesAskThereIsRoomForAnother(t *testing.T) {
	var w queue
	for n := range 8 {
		for i := range 2 * maxShare {
			w.add(fmt.Sprint("evil-", n), task{Question: about(i)})
		}
	}
	if !w.add("shop", task{Question: about(1)}) {
		t.Errorf("of %d places none is left", maxWaiting)
	}
}
