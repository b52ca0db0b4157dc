package objects

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
)

// TestOneKnocksAtAnApiServerThatDoesNotAnswer: ten collections are asked for, and while
// nothing answers, one of them is, ever more rarely.
func TestOneKnocksAtAnApiServerThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var away atomic.Bool
		var knocks, checks, asked atomic.Int64
		away.Store(true)
		d := newDoor(func(context.Context) error { checks.Add(1); return nil })
		d.leave(false, errors.New("connection refused"))
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				for ctx.Err() == nil {
					_, err := pass(ctx, d, &patience{}, false, ignore{}, func() (int, error) {
						if away.Load() {
							knocks.Add(1)
							return 0, errors.New("connection refused")
						}
						asked.Add(1)
						return 1, nil
					})
					if err == nil {
						return
					}
				}
			})
		}
		time.Sleep(5 * time.Minute)
		if n := knocks.Load(); n < 20 || n > 70 {
			t.Errorf("%d knocks in 5 minutes, want one each 5 to 10 s", n)
		}
		away.Store(false)
		checked := checks.Load()
		time.Sleep(2*lastRetry + spread)
		if asked.Load() != 10 {
			t.Errorf("%d collections are asked for once it answers, want 10", asked.Load())
		}
		if n := checks.Load() - checked; n != 1 {
			t.Errorf("checked %d times when it answers again, want once", n)
		}
		cancel()
		all.Wait()
	})
}

func TestACollectionThatIsRefusedIsAskedForEverMoreRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, tries := newDoor(func(context.Context) error { return nil }), &patience{}
		forbidden := apierrors.NewForbidden(definitions.GroupResource(), "", errors.New("no"))
		began, n := time.Now(), 0
		for time.Since(began) < 5*time.Minute {
			_, err := pass(t.Context(), d, tries, false, ignore{}, func() (int, error) { return 0, forbidden })
			if !apierrors.IsForbidden(err) {
				t.Fatal(err)
			}
			n++
		}
		if n < 30 || n > 70 {
			t.Errorf("asked %d times in 5 minutes", n)
		}
		if d.shut {
			t.Error("a refusal of one collection keeps all waiting")
		}
	})
}

// TestAWatchThatEndsIsBegunAgainWithinASecond: as after an API server was restarted, which
// ends each watch it is asked to resume.
func TestAWatchThatEndsIsBegunAgainWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var watches atomic.Int64
		ask := asker{
			list: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
				return &metav1.PartialObjectMetadataList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}, nil
			},
			watch: func(_ context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
				if o.SendInitialEvents != nil {
					return nil, apierrors.NewBadRequest("lists are not streamed")
				}
				watches.Add(1)
				w := apiwatch.NewFakeWithOptions(apiwatch.FakeOptions{ChannelSize: 1})
				w.Error(&apierrors.NewResourceExpired("too old").ErrStatus)
				return w, nil
			},
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			keepUp(ctx, ask, ignore{}, newDoor(func(context.Context) error { return nil }), nil)
		}()
		time.Sleep(time.Minute)
		cancel()
		<-done
		if n := watches.Load(); n < 30 || n > 150 {
			t.Errorf("%d watches in a minute", n)
		}
	})
}

// ignore is a mirror that shows nothing.
type ignore struct{}

func (ignore) listed([]object, string) {}
func (ignore) changed(object)          {}
func (ignore) removed(object)          {}
func (ignore) advanced(string)         {}
func (ignore) failed(error)            {}
func (ignore) asking()                 {}
func (ignore) await(context.Context)   {}
