// Package mirror keeps collections of the API server in memory, current by list and watch.
package mirror

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/pager"

	"github.com/horkos/horkos/apiserver"
)

// Resource is a collection. Where only metadata is kept, its objects are
// *metav1.PartialObjectMetadata, else *unstructured.Unstructured.
type Resource struct {
	schema.GroupVersionResource
	MetadataOnly bool
}

// Mirror holds the objects of some collections. It can be asked while it runs; the objects
// it gives must not be changed.
type Mirror struct {
	clients     apiserver.Clients
	failed      func(Resource, error)
	collections map[Resource]*collection
}

// New makes a mirror of the collections. Changed is called after each change, and failed
// whenever a list or watch ends by an error and is tried again; neither may block, and
// either may be nil.
func New(clients apiserver.Clients, changed func(), failed func(Resource, error), resources ...Resource) *Mirror {
	if changed == nil {
		changed = func() {}
	}
	if failed == nil {
		failed = func(Resource, error) {}
	}
	m := &Mirror{clients: clients, failed: failed, collections: make(map[Resource]*collection, len(resources))}
	for _, r := range resources {
		m.collections[r] = &collection{changed: changed}
	}
	return m
}

// Run lists and watches until the context ends. A kind that the cluster does not have yet is
// asked for again.
func (m *Mirror) Run(ctx context.Context) {
	var all sync.WaitGroup
	for r, c := range m.collections {
		all.Go(func() { m.reflector(r, c).RunWithContext(ctx) })
	}
	all.Wait()
}

// reflector retries with jitter, and often enough that a CRD that is applied late is found soon.
func (m *Mirror) reflector(r Resource, c *collection) *cache.Reflector {
	lists, expected := m.lists(r)
	reflector := cache.NewReflectorWithOptions(lists, expected, c, cache.ReflectorOptions{
		Name:            r.Resource,
		TypeDescription: r.String(),
		Backoff:         &wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 10, Cap: 5 * time.Second},
	})
	return reflector
}

func (m *Mirror) lists(r Resource) (cache.ListerWatcher, runtime.Object) {
	tell := func(err error) {
		if err != nil {
			m.failed(r, err)
		}
	}
	if r.MetadataOnly {
		client := m.clients.Metadata.Resource(r.GroupVersionResource)
		return &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				list, err := client.List(ctx, options)
				tell(err)
				return list, err
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				w, err := client.Watch(ctx, options)
				tell(err)
				return w, err
			},
		}, &metav1.PartialObjectMetadata{}
	}
	client := m.clients.Objects.Resource(r.GroupVersionResource)
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := client.List(ctx, options)
			tell(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			w, err := client.Watch(ctx, options)
			tell(err)
			return w, err
		},
	}, &unstructured.Unstructured{}
}

// Synced tells whether the collection was listed: before, that an object is not in it says nothing.
func (m *Mirror) Synced(r Resource) bool {
	c := m.collections[r]
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.listed
}

// Objects are those of a collection, by namespace and name.
func (m *Mirror) Objects(r Resource) []metav1.Object {
	c := m.collections[r]
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]metav1.Object, 0, len(c.objects))
	for _, o := range c.objects {
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b metav1.Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return all
}

// collection is the store of a reflector.
type collection struct {
	changed func()

	mu      sync.Mutex
	listed  bool
	objects map[cache.ObjectName]metav1.Object
}

// kept is an object without what nobody here reads and is large.
func kept(obj any) (metav1.Object, error) {
	o, ok := obj.(metav1.Object)
	if !ok {
		return nil, fmt.Errorf("%T is not an object of the API", obj)
	}
	o.SetManagedFields(nil)
	return o, nil
}

func nameOf(o metav1.Object) cache.ObjectName {
	return cache.ObjectName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// Add takes an object that was made.
func (c *collection) Add(obj any) error { return c.Update(obj) }

// Update takes an object that was changed.
func (c *collection) Update(obj any) error {
	o, err := kept(obj)
	if err != nil {
		return err
	}
	c.mu.Lock()
	if c.objects == nil {
		c.objects = make(map[cache.ObjectName]metav1.Object)
	}
	c.objects[nameOf(o)] = o
	c.mu.Unlock()
	c.changed()
	return nil
}

// Delete takes the end of an object.
func (c *collection) Delete(obj any) error {
	o, err := kept(obj)
	if err != nil {
		return err
	}
	c.mu.Lock()
	delete(c.objects, nameOf(o))
	c.mu.Unlock()
	c.changed()
	return nil
}

// Replace takes a whole list.
func (c *collection) Replace(list []any, _ string) error {
	objects := make(map[cache.ObjectName]metav1.Object, len(list))
	for _, obj := range list {
		o, err := kept(obj)
		if err != nil {
			return err
		}
		objects[nameOf(o)] = o
	}
	c.mu.Lock()
	c.listed, c.objects = true, objects
	c.mu.Unlock()
	c.changed()
	return nil
}

// Resync has nothing to do.
func (c *collection) Resync() error { return nil }

// List asks once for the objects of a collection, page by page, by namespace and name.
func List(ctx context.Context, clients apiserver.Clients, r Resource) ([]metav1.Object, error) {
	m := New(clients, nil, nil, r)
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		lists, _ := m.lists(r)
		return cache.ToListerWatcherWithContext(lists).ListWithContext(ctx, options)
	})
	c := m.collections[r]
	if err := pages.EachListItem(ctx, metav1.ListOptions{}, func(o runtime.Object) error { return c.Add(o) }); err != nil {
		return nil, err
	}
	return m.Objects(r), nil
}
