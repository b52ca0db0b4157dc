package plugin

import (
	"fmt"
	"sync"
)

// Limits of what a runtime may have to send when a plugin synchronises: NRI sends all
// pods and containers of the node, splits the message badly, and up to 0.12.5 panics or
// gives up when objects are large. So nothing gets on the node that could not be sent.
const (
	DefaultMaxSpecBytes = 128 << 10
	DefaultMaxSyncBytes = 3584 << 10
	// MaxObjectBytes is the largest object on a node with which it is safe to register.
	MaxObjectBytes = 512 << 10
)

// budget sums what a Synchronize would carry. It is safe for concurrent use.
type budget struct {
	maxSpec, maxSync int
	changed          func(total int)

	mu      sync.Mutex
	objects map[string]object // pods and containers, by id
	total   int
	spaces  map[string]int // by namespace
}

type object struct {
	namespace string
	bytes     int
}

func newBudget(maxSpec, maxSync int, changed func(int)) *budget {
	return &budget{maxSpec: maxSpec, maxSync: maxSync, changed: changed, objects: make(map[string]object), spaces: make(map[string]int)}
}

// reset makes the budget hold just these objects.
func (b *budget) reset(objects map[string]object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.objects, b.total, b.spaces = objects, 0, make(map[string]int)
	for _, o := range objects {
		b.total += o.bytes
		b.spaces[o.namespace] += o.bytes
	}
	b.changed(b.total)
}

// drop forgets an object.
func (b *budget) drop(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropLocked(id)
	b.changed(b.total)
}

func (b *budget) dropLocked(id string) {
	o, ok := b.objects[id]
	if !ok {
		return
	}
	delete(b.objects, id)
	b.total -= o.bytes
	if b.spaces[o.namespace] -= o.bytes; b.spaces[o.namespace] <= 0 {
		delete(b.spaces, o.namespace)
	}
}

// add counts an object, or says why it must not come onto the node. With over, the node
// is over its budget all the same, by no fault of this namespace: to be reported.
func (b *budget) add(id, what, namespace string, bytes int) (refusal string, over bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bytes > b.maxSpec {
		return fmt.Sprintf("the %s is %d bytes, at most %d are allowed: it would endanger the runtime's synchronisation with its plugins; "+
			"enableServiceLinks: false makes it smaller where the namespace has many services", what, bytes, b.maxSpec), false
	}
	b.dropLocked(id)
	total, space := b.total+bytes, b.spaces[namespace]+bytes
	if over = total > b.maxSync; over && space*3 > total {
		return fmt.Sprintf("the pods and containers of the node would be %d bytes, at most %d are allowed, and namespace %s holds %d of them; "+
			"enableServiceLinks: false makes containers smaller", total, b.maxSync, namespace, space), over
	}
	b.objects[id] = object{namespace, bytes}
	b.total, b.spaces[namespace] = total, space
	b.changed(total)
	return "", over
}
