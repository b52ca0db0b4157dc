package containerd

import (
	"context"
	"fmt"
	"sync"
)

// announcements are the names in image events that are still to be looked at, first come,
// first served. They are noted as soon as an event arrives, so that whoever relies on the
// index knows what it lacks.
type announcements struct {
	wake chan struct{} // has something when names were added

	mu       sync.Mutex
	queue    []string
	queued   map[string]struct{}
	inHand   string
	added    uint64
	done     uint64
	progress chan struct{} // closed, and made anew, when a name is done with
}

// maxAnnounced bounds the names that wait. With more, the index starts over.
const maxAnnounced = 1 << 16

func newAnnouncements() *announcements {
	return &announcements{wake: make(chan struct{}, 1), queued: map[string]struct{}{}, progress: make(chan struct{})}
}

// add notes a name. One that waits already is not noted twice: it is asked for later than
// now in any case.
func (a *announcements) add(name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, waits := a.queued[name]; waits {
		return nil
	}
	if len(a.queue) >= maxAnnounced {
		return fmt.Errorf("more than %d image events wait", maxAnnounced)
	}
	a.queue = append(a.queue, name)
	a.queued[name] = struct{}{}
	a.added++
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return nil
}

// next takes a name in hand; false means that none waits.
func (a *announcements) next() (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) == 0 {
		return "", false
	}
	a.inHand = a.queue[0]
	a.queue = a.queue[1:]
	delete(a.queued, a.inHand)
	return a.inHand, true
}

// finished says that the name in hand is in the index.
func (a *announcements) finished() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inHand = ""
	a.done++
	a.advance()
}

// clear forgets all: everything is listed anew.
func (a *announcements) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queue, a.inHand = nil, ""
	clear(a.queued)
	a.done = a.added
	a.advance()
}

func (a *announcements) advance() {
	close(a.progress)
	a.progress = make(chan struct{})
}

// waits reports whether a name waits or is in hand.
func (a *announcements) waits(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, waits := a.queued[name]
	return waits || a.inHand == name && name != ""
}

// wait waits until all that is noted now is done with; false means that ctx ended before.
// What comes meanwhile is not waited for, or a stream of events could hold it forever.
func (a *announcements) wait(ctx context.Context) bool {
	a.mu.Lock()
	until := a.added
	for a.done < until {
		progress := a.progress
		a.mu.Unlock()
		select {
		case <-progress:
		case <-ctx.Done():
			return false
		}
		a.mu.Lock()
	}
	a.mu.Unlock()
	return true
}
