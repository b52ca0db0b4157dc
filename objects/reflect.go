package objects

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"strconv"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/horkos/horkos/apiserver"
)

// Times of asking an API server.
const (
	listTimeout = time.Minute
	// firstRetry and lastRetry bound the pauses between tries that fail; up to as much again is
	// added by chance, so that nodes that lost the same server do not return together. A watch that
	// ends is begun again after firstRetry.
	firstRetry = 500 * time.Millisecond
	lastRetry  = 5 * time.Second
	// spread is in what time the collections are asked for once the server answers again.
	spread = time.Second
)

// mirror takes what a reflector is told of one collection.
type mirror interface {
	// listed is told all there is, and of what resource version.
	listed(all []object, version string)
	// changed and removed are told of one.
	changed(object)
	removed(object)
	// advanced is told that nothing else happened up to that version.
	advanced(version string)
	// await waits before a list is asked for until it can be used.
	await(context.Context)
	// asking is told that nothing is heard until failed is told that the API server answers:
	// client-go may try for ten seconds before it says that it does not.
	asking()
	// failed is told that the API server could not be asked; nil: that it answers.
	failed(error)
}

// object is what one reads of an object of any kind.
type object interface {
	runtime.Object
	metav1.Object
}

// feed hands what a reflector of client-go stores to a mirror. Nothing is stored.
type feed struct{ mirror }

func (f feed) Add(o any) error    { return one(o, f.changed) }
func (f feed) Update(o any) error { return one(o, f.changed) }
func (f feed) Delete(o any) error { return one(o, f.removed) }
func (f feed) Resync() error      { return nil }

func (f feed) Replace(list []any, version string) error {
	all := make([]object, 0, len(list))
	for _, item := range list {
		if err := one(item, func(o object) { all = append(all, o) }); err != nil {
			return err
		}
	}
	f.listed(all, version)
	return nil
}

// UpdateResourceVersion makes feed a cache.ResourceVersionUpdater.
func (f feed) UpdateResourceVersion(version string) { f.advanced(version) }

// Transformer makes feed a cache.TransformingStore: lists that are streamed are reduced early.
func (f feed) Transformer() cache.TransformFunc {
	return func(o any) (any, error) {
		read, ok := o.(object)
		if !ok {
			return o, nil // told when it is stored
		}
		return o, reduce(read)
	}
}

func one(o any, do func(object)) error {
	read, ok := o.(object)
	if !ok {
		return errors.New("the API server sent something that is no object")
	}
	do(read)
	return nil
}

// parseVersion reads a resource version. One that is no number is older than any.
func parseVersion(version string) uint64 {
	n, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// asker lists and watches one collection.
type asker struct {
	list  func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch func(context.Context, metav1.ListOptions) (apiwatch.Interface, error)
}

func askObjects(clients apiserver.Clients, r schema.GroupVersionResource) asker {
	c := clients.Objects.Resource(r)
	return asker{
		list:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return c.List(ctx, o) },
		watch: c.Watch,
	}
}

func askMetadata(clients apiserver.Clients, r schema.GroupVersionResource) asker {
	c := clients.Metadata.Resource(r)
	return asker{
		list:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return c.List(ctx, o) },
		watch: c.Watch,
	}
}

// noWatch is what client-go gives in place of an error when a connection was closed or timed out.
var noWatch = reflect.TypeOf(apiwatch.NewEmptyWatch())

// errNotAsked is of a question that who asked gave up.
var errNotAsked = errors.New("not asked")

var errNoAnswer = errors.New("the API server did not answer")

// keepUp keeps a mirror up to date until the context ends. What is sent over restart has
// it begin anew at once, with a whole list.
func keepUp(ctx context.Context, ask asker, to mirror, through *door, restart <-chan struct{}) {
	tries := &patience{}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			if o.ResourceVersion == "0" {
				o.ResourceVersion = "" // whatever a server has at hand may be older than what is known here
			}
			to.await(ctx)
			ctx, cancel := context.WithTimeout(ctx, listTimeout)
			defer cancel()
			return pass(ctx, through, tries, true, to, func() (runtime.Object, error) { return ask.list(ctx, o) })
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			whole := o.SendInitialEvents != nil
			if whole {
				to.await(ctx)
			}
			to.asking()
			return pass(ctx, through, tries, whole, to, func() (apiwatch.Interface, error) {
				w, err := ask.watch(ctx, o)
				if err == nil && reflect.TypeOf(w) == noWatch {
					err = errNoAnswer
				}
				return w, err
			})
		},
	}
	silent := logr.Discard() // the mirror is told what goes wrong
	ctx = klog.NewContext(ctx, silent)
	backoff := wait.Backoff{Duration: firstRetry, Jitter: 1} // it does not grow: door and patience see to that
	for ctx.Err() == nil {
		run, again := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			select {
			case <-restart:
				again()
			case <-run.Done():
			}
		}()
		r := cache.NewReflectorWithOptions(lw, nil, feed{to}, cache.ReflectorOptions{Name: "horkos", Backoff: &backoff, Logger: &silent})
		r.RunWithContext(run)
		again()
		<-done
	}
}

// pass asks through the door, and tells the mirror what came of it. Before a whole list is
// asked for, it is checked who answers.
func pass[T any](ctx context.Context, through *door, tries *patience, whole bool, to mirror, ask func() (T, error)) (T, error) {
	var answer T
	if err := tries.wait(ctx); err != nil {
		return answer, err
	}
	leave, first, err := through.enter(ctx)
	if err != nil {
		return answer, err
	}
	if first || whole || !through.known() {
		err = through.look(ctx)
	}
	if err == nil {
		answer, err = ask()
	}
	if ctx.Err() != nil {
		leave(errNotAsked) // it was not the server that ended it
		return answer, ctx.Err()
	}
	leave(err)
	tries.told(err)
	to.failed(err)
	return answer, err
}

// patience is how long one waits before a collection is asked for again that the API server
// refused. It is of one goroutine at a time.
type patience struct{ refused int }

func (p *patience) told(err error) {
	switch {
	case err == nil:
		p.refused = 0
	case isAnswer(err):
		p.refused++
	}
}

func (p *patience) wait(ctx context.Context) error {
	if p.refused == 0 {
		return nil
	}
	return pause(ctx, retryAfter(p.refused))
}

// retryAfter is the pause after so many failures, one at least.
func retryAfter(failures int) time.Duration {
	d := min(firstRetry<<min(failures-1, 8), lastRetry)
	return d + rand.N(d)
}

// door lets one ask at a time while the API server does not answer, and that ever more
// rarely, so that a node which lost it knocks once and not once for every collection. What it
// is then is checked before the others go on where they were.
type door struct {
	check func(context.Context) error

	mu     sync.Mutex
	shut   bool
	asking bool
	seen   bool          // it was checked since it is open
	failed int           // how often it was asked in vain since it is shut
	next   time.Time     // it is not asked before, while it is shut
	opened chan struct{} // closed when something of the above is another
}

func newDoor(check func(context.Context) error) *door {
	return &door{check: check, opened: make(chan struct{})}
}

// known tells whether one knows who answers.
func (d *door) known() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen
}

// look checks who answers.
func (d *door) look(ctx context.Context) error {
	if err := d.check(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = true
	return nil
}

// enter waits until it may be asked, and tells whether it is the first time after there was
// no answer. leave is told what came of it.
func (d *door) enter(ctx context.Context) (leave func(error), first bool, err error) {
	waited := false
	for {
		d.mu.Lock()
		until := time.Until(d.next)
		if !d.shut || (!d.asking && until <= 0) {
			first := d.shut
			d.asking = d.asking || first
			d.mu.Unlock()
			if waited && !first { // others waited too
				if err := pause(ctx, rand.N(spread)); err != nil {
					return nil, false, err
				}
			}
			return func(err error) { d.leave(first, err) }, first, nil
		}
		if d.asking {
			until = lastRetry
		}
		opened := d.opened
		d.mu.Unlock()
		waited = true
		timer := time.NewTimer(until)
		select {
		case <-opened:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
	}
}

func (d *door) leave(first bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if first {
		d.asking = false
	}
	switch {
	case errors.Is(err, errNotAsked): // and nothing is known of it
	case err == nil || isAnswer(err): // whatever the server says, it is there
		d.shut, d.failed = false, 0
	case first || !d.shut:
		d.shut, d.seen = true, false
		d.failed++
		d.next = time.Now().Add(retryAfter(d.failed))
	}
	close(d.opened)
	d.opened = make(chan struct{})
}

// isAnswer tells an answer of the API server that is a refusal from none at all. One that
// it is too busy is none: all should wait.
func isAnswer(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	return !apierrors.IsTooManyRequests(err) && !apierrors.IsServiceUnavailable(err) && !apierrors.IsTimeout(err) && !apierrors.IsServerTimeout(err) && !apierrors.IsInternalError(err)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unserved tells whether an answer says that the API server does not know the resource, and
// not that it lacks an object.
func unserved(err error) bool { return err != nil && apierrors.IsNotFound(err) }
