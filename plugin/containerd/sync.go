package containerd

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

const (
	// settle is when everything is listed a second time. A subscription is not confirmed:
	// containerd may list before it has subscribed us, and what happened between is in
	// neither. The second list finds it.
	settle = time.Second

	minBackoff = 20 * time.Millisecond
	maxBackoff = time.Second

	// renewPause is between two contents that are resolved again because something arrived:
	// strangers' indexes can list hundreds of blobs, and one small pull can outdate many.
	renewPause = 50 * time.Millisecond

	// resolvers is how many targets are resolved at once when all is listed and containerd
	// is asked for their blobs.
	resolvers = 8
)

// Run keeps the index current until ctx ends, whose error it returns. It subscribes to
// containerd's image events before it lists the records; when the stream of events breaks,
// as it does when containerd restarts, it starts over.
func (ix *Index) Run(ctx context.Context) error {
	backoff := minBackoff
	last := "" // one trouble is logged once, however often it is met
	for {
		began := time.Now()
		err := ix.follow(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("keep the image index: %w", ctx.Err())
		}
		if err.Error() != last {
			last = err.Error()
			ix.log.Warn("the image index is not current", "err", err)
		}
		if time.Since(began) > maxBackoff {
			backoff = minBackoff
		}
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// follow is one stream of events, from the first list until the stream breaks.
func (ix *Index) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer ix.shut()

	stream, err := ix.client.events.Subscribe(ctx, &eventsapi.SubscribeRequest{
		Filters: []string{fmt.Sprintf("topic~=%q,namespace==%q", "^/images/", ix.client.namespace)},
	}, grpc.WaitForReady(true))
	if err != nil {
		cancel()
		return fmt.Errorf("subscribe to image events: %w", err)
	}
	ix.events.clear()
	broken := make(chan error, 1)
	var receiver sync.WaitGroup
	receiver.Go(func() { broken <- ix.receive(stream) })
	defer receiver.Wait()
	defer cancel()

	settings, err := ix.client.Settings(ctx)
	if err != nil {
		return err
	}
	dirs, err := volumeDirs(settings.StateDir)
	if err != nil {
		return err
	}
	ix.store = newStore(ctx, ix.client)
	if err := ix.list(ctx); err != nil {
		return err
	}
	ix.mu.Lock()
	ix.settings, ix.volumeDirs, ix.snapshotter = settings, dirs, ""
	ix.mu.Unlock()
	ix.open()
	return ix.keep(ctx, broken)
}

// keep keeps the index current until the stream of events is broken. Names in events come
// before all else, and what is only looked at again comes last.
func (ix *Index) keep(ctx context.Context, broken <-chan error) error {
	again := time.NewTimer(settle)
	defer again.Stop()
	var rested time.Time // from when on content may be resolved again
	for {
		if name, ok := ix.events.next(); ok {
			if err := ix.refresh(ctx, name); err != nil {
				return err // and the name stays in hand until all is listed anew
			}
			ix.events.finished()
			continue
		}
		var renew <-chan time.Time
		if ix.anyOutdated() {
			renew = time.After(time.Until(rested))
		}
		var err error
		select {
		case err = <-broken:
			return fmt.Errorf("follow image events: %w", err)
		case <-ix.events.wake:
		case w := <-ix.wanted:
			err = ix.fulfil(ctx, w)
		case <-again.C:
			err = ix.list(ctx)
			again.Reset(ix.relist)
			ix.onRelist()
		case <-renew:
			err = ix.renew(ctx)
			rested = time.Now().Add(renewPause)
		}
		if err != nil {
			return err
		}
	}
}

// receive notes the names in the events until the stream breaks. It never waits for those
// who look at them: what is not received yet nobody knows to be missing.
func (ix *Index) receive(stream eventsapi.Events_SubscribeClient) error {
	for {
		envelope, err := stream.Recv()
		if err != nil {
			return err
		}
		if envelope.GetNamespace() != ix.client.namespace {
			continue
		}
		name, err := nameIn(envelope.GetEvent().GetValue())
		if err != nil {
			return err
		}
		if err := ix.events.add(name); err != nil {
			return err
		}
	}
}

// nameIn returns the name in an image event. What happened to it is asked of the image
// service, which says what is true now.
func nameIn(event []byte) (string, error) {
	// Create, update and delete events have the name in field 1; what else they have is
	// passed over. The generated types would cost two modules.
	for len(event) > 0 {
		field, kind, n := protowire.ConsumeTag(event)
		if n < 0 {
			return "", fmt.Errorf("decode an image event: %w", protowire.ParseError(n))
		}
		event = event[n:]
		if field == 1 && kind == protowire.BytesType {
			name, n := protowire.ConsumeString(event)
			if n < 0 {
				return "", fmt.Errorf("decode an image event: %w", protowire.ParseError(n))
			}
			return strings.Clone(name), nil
		}
		if n = protowire.ConsumeFieldValue(field, kind, event); n < 0 {
			return "", fmt.Errorf("decode an image event: %w", protowire.ParseError(n))
		}
		event = event[n:]
	}
	return "", errors.New("an image event names no image")
}

// list brings the catalog in line with all records.
func (ix *Index) list(ctx context.Context) error {
	entries, err := ix.client.list(ctx)
	if err != nil {
		return err
	}
	read, err := ix.resolveAll(ctx, entries)
	if err != nil {
		return err
	}
	there := make(map[string]struct{}, len(entries))
	var news []*record
	ix.mu.Lock()
	for _, e := range entries {
		there[e.name] = struct{}{}
		points := read[e.target]
		news = append(news, ix.catalog.replace(points)...)
		if r := ix.catalog.put(e.name, points); r != nil {
			news = append(news, r)
		}
		ix.catalog.pin(e)
	}
	for name := range ix.catalog.records {
		if _, ok := there[name]; !ok {
			ix.catalog.remove(name)
		}
	}
	ix.mu.Unlock()
	ix.tell(news)
	return nil
}

// resolveAll returns what all targets of records lead to. What is known is not read again
// here; if it had a fault, it is later.
func (ix *Index) resolveAll(ctx context.Context, entries []entry) (map[image.Digest]*content, error) {
	all := make(map[image.Digest]*content, len(entries))
	var unknown []image.Digest
	ix.mu.Lock()
	for _, e := range entries {
		if _, seen := all[e.target]; seen {
			continue
		}
		known := ix.catalog.content(e.target)
		all[e.target] = known
		if known == nil {
			unknown = append(unknown, e.target)
		} else if known.fault != "" {
			ix.catalog.outdate(e.target)
		}
	}
	ix.mu.Unlock()
	todo := make(chan image.Digest, len(unknown))
	for _, d := range unknown {
		todo <- d
	}
	close(todo)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range min(ix.store.workers(), len(unknown)) {
		workers.Go(func() {
			for d := range todo {
				points, err := resolve(ctx, ix.store, d)
				if err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				all[d] = points
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return all, nil
}

// refresh brings the catalog in line with the record of one name.
func (ix *Index) refresh(ctx context.Context, name string) error {
	e, found, err := ix.client.record(ctx, name)
	if err != nil {
		return err
	}
	if !found {
		ix.mu.Lock()
		ix.catalog.remove(name)
		ix.mu.Unlock()
		return nil
	}
	points := ix.content(e.target)
	if points == nil {
		if points, err = resolve(ctx, ix.store, e.target); err != nil {
			return err
		}
	}
	ix.mu.Lock()
	r := ix.catalog.put(name, points)
	ix.catalog.pin(e)
	ix.catalog.outdate(e.target) // what was not all there may be there now
	ix.mu.Unlock()
	if r != nil {
		ix.tell([]*record{r})
	}
	return nil
}

// fulfil looks again at what a claim named and the index did not have.
func (ix *Index) fulfil(ctx context.Context, w wish) error {
	if w.name != "" {
		return ix.refresh(ctx, w.name)
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if c := ix.catalog; c.targets[w.target] != nil && time.Since(c.tried[w.target]) >= ix.retry {
		c.tried[w.target] = time.Now()
		ix.catalog.outdate(w.target)
	}
	return nil
}

func (ix *Index) anyOutdated() bool {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return len(ix.catalog.outdated) > 0
}

// renew resolves one content again that lists something that has arrived.
func (ix *Index) renew(ctx context.Context) error {
	ix.mu.Lock()
	d, ok := ix.catalog.takeOutdated()
	ix.mu.Unlock()
	if !ok {
		return nil
	}
	return ix.reread(ctx, d)
}

// reread resolves a target anew, for all records that point to it.
func (ix *Index) reread(ctx context.Context, d image.Digest) error {
	points, err := resolve(ctx, ix.store, d)
	if err != nil {
		return err
	}
	ix.mu.Lock()
	if known := ix.catalog.content(d); known != nil && reflect.DeepEqual(known, points) {
		points = known
	}
	news := ix.catalog.replace(points)
	ix.mu.Unlock()
	ix.tell(news)
	return nil
}

// tell reports new records. A record is only changed under the lock, and by this goroutine.
func (ix *Index) tell(news []*record) {
	type offer struct { // what different records offer alike
		repository string
		points     *content
	}
	var told []verifier.Candidate
	seen := map[offer]struct{}{}
	for _, r := range news {
		key := offer{r.repository(), r.target.content}
		if _, ok := seen[key]; !ok {
			seen[key] = struct{}{}
			told = append(told, r.candidates()...)
		}
	}
	if len(told) > 0 {
		ix.onChange(told)
	}
}
