package webhook

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	testSecret        = "horkos-webhook-tls"
	testConfiguration = "horkos"
)

var start = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// world is an API server that holds the Secret and a configuration, in memory, with a clock of
// its own. It takes an update only of what it holds now.
type world struct {
	t      *testing.T
	now    time.Time
	secret *unstructured.Unstructured
	hooks  *unstructured.Unstructured // nil: there is none
	rv     int

	writes   int
	refuse   error // of all writes of the Secret
	noInject error
	onCreate func() // before a Secret is really made
	bundles  []epoch
	replicas []*replica
}

// epoch is a bundle that was injected at a time.
type epoch struct {
	from   time.Time
	bundle []byte
}

// replica is a Keeper, and how wrong its clock is. One that is deaf hears of no change.
type replica struct {
	*Keeper
	skew time.Duration
	deaf bool
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: start}
	w.apply()
	return w
}

// apply applies the manifest of the configuration, which holds no bundle.
func (w *world) apply() {
	w.rv++
	w.hooks = &unstructured.Unstructured{Object: map[string]any{"webhooks": []any{
		map[string]any{"name": "pods.example.com", "clientConfig": map[string]any{}},
		map[string]any{"name": "deployments.example.com", "clientConfig": map[string]any{"caBundle": ""}},
	}}}
	w.hooks.SetName(testConfiguration)
	w.changed()
}

func (w *world) replica(options ...func(*KeeperOptions)) *replica {
	r := &replica{}
	o := KeeperOptions{Namespace: "horkos-system", Secret: testSecret, Configurations: []string{testConfiguration},
		Names: []string{"horkos-webhook.horkos-system.svc"}, Addresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		Log: quiet(), Now: func() time.Time { return w.now.Add(r.skew) }}
	for _, option := range options {
		option(&o)
	}
	r.Keeper = newKeeper(o)
	r.cluster = w
	w.replicas = append(w.replicas, r)
	w.tell(r)
	return r
}

// tell is the watch of a replica.
func (w *world) tell(r *replica) {
	list := func(s *seen, o *unstructured.Unstructured) {
		if o == nil {
			_ = s.Replace(nil, "")
			return
		}
		_ = s.Replace([]any{o.DeepCopy()}, "")
	}
	list(r.secret, w.secret)
	for _, s := range r.injected {
		list(s, w.hooks)
	}
}

func (w *world) changed() {
	for _, r := range w.replicas {
		if !r.deaf {
			w.tell(r)
		}
	}
	if w.hooks != nil {
		if now := bundlesOf(w.hooks)[0]; len(w.bundles) == 0 || !bytes.Equal(now, w.bundles[len(w.bundles)-1].bundle) {
			w.bundles = append(w.bundles, epoch{w.now, now})
		}
	}
}

// settle has all replicas that hear take steps until nothing changes; it gives their errors.
func (w *world) settle() (errs map[*replica]error) {
	w.t.Helper()
	for range 20 {
		before := w.rv
		errs = make(map[*replica]error)
		for _, r := range w.replicas {
			if !r.deaf {
				if err := r.step(w.t.Context()); err != nil {
					errs[r] = err
				}
				r.review(errs[r])
			}
		}
		if before == w.rv {
			return errs
		}
	}
	w.t.Fatal("the replicas do not come to rest: one takes back what the other does")
	return nil
}

func (w *world) Secret(context.Context) (*unstructured.Unstructured, error) {
	if w.secret == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, testSecret)
	}
	return w.secret.DeepCopy(), nil
}

func (w *world) Create(_ context.Context, object *unstructured.Unstructured, dry bool) (*unstructured.Unstructured, error) {
	if !dry && w.onCreate != nil {
		do := w.onCreate
		w.onCreate = nil
		do()
	}
	if w.secret != nil {
		return nil, apierrors.NewAlreadyExists(schema.GroupResource{Resource: "secrets"}, testSecret)
	}
	return w.put(object, dry)
}

func (w *world) Update(_ context.Context, object *unstructured.Unstructured, dry bool) (*unstructured.Unstructured, error) {
	if w.secret == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, testSecret)
	}
	if object.GetResourceVersion() != w.secret.GetResourceVersion() {
		return nil, apierrors.NewConflict(schema.GroupResource{Resource: "secrets"}, testSecret, fmt.Errorf("it was changed"))
	}
	return w.put(object, dry)
}

func (w *world) put(object *unstructured.Unstructured, dry bool) (*unstructured.Unstructured, error) {
	if w.refuse != nil {
		return nil, w.refuse
	}
	object = object.DeepCopy()
	object.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: fieldManager, Time: &metav1.Time{Time: w.now}}})
	if dry {
		return object, nil
	}
	w.rv++
	w.writes++
	object.SetResourceVersion(strconv.Itoa(w.rv))
	w.secret = object
	w.changed()
	return object.DeepCopy(), nil
}

// Inject applies the two operations of JSON patch that are used.
func (w *world) Inject(_ context.Context, name string, patch []byte) error {
	if w.noInject != nil {
		return w.noInject
	}
	if w.hooks == nil || name != w.hooks.GetName() {
		return apierrors.NewNotFound(configurations.GroupResource(), name)
	}
	var operations []struct{ Op, Path, Value string }
	if err := json.Unmarshal(patch, &operations); err != nil {
		w.t.Fatal(err)
	}
	after := w.hooks.DeepCopy()
	list := after.Object["webhooks"].([]any)
	for _, o := range operations {
		var i int
		var field string
		if _, err := fmt.Sscanf(o.Path, "/webhooks/%d/%s", &i, &field); err != nil || i >= len(list) {
			return apierrors.NewInvalid(schema.GroupKind{}, name, nil)
		}
		hook := list[i].(map[string]any)
		switch {
		case o.Op == "test" && field == "name":
			if hook["name"] != o.Value {
				return apierrors.NewInvalid(schema.GroupKind{}, name, nil)
			}
		case o.Op == "add" && field == "clientConfig/caBundle":
			hook["clientConfig"].(map[string]any)["caBundle"] = o.Value
		default:
			w.t.Fatalf("a patch does %s %s", o.Op, o.Path)
		}
	}
	w.rv++
	w.hooks = after
	w.changed()
	return nil
}

// edit changes the data of the Secret by hand: nil removes a key.
func (w *world) edit(data map[string][]byte) {
	w.t.Helper()
	object := w.secret.DeepCopy()
	for key, value := range data {
		if value == nil {
			unstructured.RemoveNestedField(object.Object, "data", key)
		} else if err := unstructured.SetNestedField(object.Object, base64.StdEncoding.EncodeToString(value), "data", key); err != nil {
			w.t.Fatal(err)
		}
	}
	w.rv++
	object.SetResourceVersion(strconv.Itoa(w.rv))
	w.secret = object
	w.changed()
}

// holds is what is in the Secret, all of which must be sound.
func (w *world) holds() material {
	w.t.Helper()
	m, faults := decodeMaterial(w.data())
	if len(faults) > 0 {
		w.t.Fatalf("the Secret is not sound: %v", faults)
	}
	return m
}

func (w *world) data() map[string][]byte {
	data := make(map[string][]byte)
	fields, _, _ := unstructured.NestedStringMap(w.secret.Object, "data")
	for key, value := range fields {
		data[key], _ = base64.StdEncoding.DecodeString(value)
	}
	return data
}

// believed fails unless what every replica shows that is asked is believed by an API server that knows what
// was injected at any time within the last while.
func (w *world) believed(within time.Duration) {
	w.t.Helper()
	for i, r := range w.replicas {
		held := r.held.Load()
		if held == nil || (!r.deaf && len(r.Problems()) > 0) {
			continue // not ready
		}
		for j, e := range w.bundles {
			if j+1 < len(w.bundles) && w.bundles[j+1].from.Before(w.now.Add(-within)) {
				continue // replaced before
			}
			bundle, err := decodeCertificates(e.bundle)
			if err != nil {
				w.t.Fatal(err)
			}
			if err := verify(held.certificate, bundle, w.now); err != nil {
				w.t.Fatalf("%s: what replica %d shows is not believed with the bundle of %s: %v", w.now, i, e.from, err)
			}
		}
	}
}
