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
	// fairBytes is more than ordinary pods and containers are, which have 1 to 8 KiB.
	fairBytes = 16 << 10
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

// add counts an object, or says why it must not come onto the node. With over, an object
// that was not there before lifts the node over its budget by no fault of its own or of
// its namespace: to be reported.
//
// On a node over its budget no namespace gets more than a third, and nobody gets large
// objects in, so that several namespaces cannot fill it together either. What is left are
// ordinary objects, up to twice the budget.
func (b *budget) add(id, what, namespace string, bytes int) (refusal string, over bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bytes > b.maxSpec {
		return fmt.Sprintf("the %s is %d bytes, at most %d are allowed: it would endanger the runtime's synchronisation with its plugins; "+
			"enableServiceLinks: false makes it smaller where the namespace has many services", what, bytes, b.maxSpec), false
	}
	_, known := b.objects[id]
	b.dropLocked(id)
	total, space := b.total+bytes, b.spaces[namespace]+bytes
	if total > b.maxSync {
		if why := b.unfair(what, namespace, total, space, bytes); why != "" {
			return fmt.Sprintf("the pods and containers of the node would be %d bytes, at most %d are allowed, %s; "+
				"enableServiceLinks: false makes containers smaller", total, b.maxSync, why), true
		}
	}
	b.objects[id] = object{namespace, bytes}
	b.total, b.spaces[namespace] = total, space
	b.changed(total)
	return "", total > b.maxSync && !known
}

// unfair says why an object gets no room on a node over its budget.
func (b *budget) unfair(what, namespace string, total, space, bytes int) string {
	switch {
	case space*3 > total:
		return fmt.Sprintf("and namespace %s holds %d of them", namespace, space)
	case bytes > fairBytes:
		return fmt.Sprintf("and the %s is %d of them: over the limit at most %d get in", what, bytes, fairBytes)
	case total > 2*b.maxSync:
		return fmt.Sprintf("and over %d nothing gets in", 2*b.maxSync)
	}
	return ""
}
