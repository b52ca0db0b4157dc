package webhook

import (
	"context"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
)

const (
	fieldManager   = "horkos-webhook"
	requestTimeout = 10 * time.Second
)

var (
	secrets        = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	configurations = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}
)

// cluster is what a Keeper asks of the API server. A dry write changes nothing.
type cluster interface {
	Secret(ctx context.Context) (*unstructured.Unstructured, error)
	Create(ctx context.Context, secret *unstructured.Unstructured, dry bool) (*unstructured.Unstructured, error)
	Update(ctx context.Context, secret *unstructured.Unstructured, dry bool) (*unstructured.Unstructured, error)
	Inject(ctx context.Context, configuration string, patch []byte) error
}

// apiServer is a cluster. It asks for nothing but by name.
type apiServer struct {
	secrets        dynamic.ResourceInterface
	configurations dynamic.ResourceInterface
	name           string // of the Secret
}

func (a *apiServer) Secret(ctx context.Context) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return a.secrets.Get(ctx, a.name, metav1.GetOptions{})
}

func dryRun(dry bool) []string {
	if dry {
		return []string{metav1.DryRunAll}
	}
	return nil
}

func (a *apiServer) Create(ctx context.Context, secret *unstructured.Unstructured, dry bool) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return a.secrets.Create(ctx, secret, metav1.CreateOptions{FieldManager: fieldManager, DryRun: dryRun(dry)})
}

func (a *apiServer) Update(ctx context.Context, secret *unstructured.Unstructured, dry bool) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return a.secrets.Update(ctx, secret, metav1.UpdateOptions{FieldManager: fieldManager, DryRun: dryRun(dry)})
}

func (a *apiServer) Inject(ctx context.Context, configuration string, patch []byte) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := a.configurations.Patch(ctx, configuration, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	return err
}

// seen is one object of the API server, as a watch of it alone tells it. It is the store of a
// reflector.
type seen struct {
	changed func()

	mu     sync.Mutex
	listed bool
	object *unstructured.Unstructured // nil: there is none
}

// get is the object, nil where there is none, and whether that is known.
func (s *seen) get() (object *unstructured.Unstructured, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.object, s.listed
}

func (s *seen) set(obj any, listed bool) error {
	object, _ := obj.(*unstructured.Unstructured) // the reflector's type; no other comes
	s.mu.Lock()
	s.object, s.listed = object, s.listed || listed
	s.mu.Unlock()
	s.changed()
	return nil
}

func (s *seen) Add(obj any) error    { return s.set(obj, false) }
func (s *seen) Update(obj any) error { return s.set(obj, false) }
func (s *seen) Delete(any) error     { return s.set(nil, false) }
func (s *seen) Resync() error        { return nil }

func (s *seen) Replace(list []any, _ string) error {
	if len(list) == 0 {
		return s.set(nil, true)
	}
	return s.set(list[0], true)
}

// follow watches the one object of a name until the context ends. RBAC by that name allows
// list and watch with the field selector.
func (s *seen) follow(ctx context.Context, client dynamic.ResourceInterface, name string) {
	only := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", name).String()
	}
	lists := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			only(&options)
			return client.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			only(&options)
			return client.Watch(ctx, options)
		},
	}
	cache.NewReflectorWithOptions(lists, &unstructured.Unstructured{}, s, cache.ReflectorOptions{
		Name:            name,
		TypeDescription: name,
		Backoff:         &wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 10, Cap: 5 * time.Second},
	}).RunWithContext(ctx)
}
