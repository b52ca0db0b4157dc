package mirror

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/horkos/horkos/apiserver"
)

func object(namespace, name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetNamespace(namespace)
	u.SetName(name)
	u.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "someone"}})
	return u
}

// TestAMirrorHoldsWhatItIsTold as a reflector tells it.
func TestAMirrorHoldsWhatItIsTold(t *testing.T) {
	changes := 0
	r := Resource{GroupVersionResource: schema.GroupVersionResource{Version: "v1", Resource: "things"}}
	m := New(apiserver.Clients{}, func() { changes++ }, nil, r)
	c := m.collections[r]
	holds := func(step string, synced bool, want string) {
		t.Helper()
		var got []string
		for _, o := range m.Objects(r) {
			got = append(got, o.GetNamespace()+"/"+o.GetName())
			if len(o.GetManagedFields()) > 0 {
				t.Errorf("%s: %s is kept with what nobody reads", step, o.GetName())
			}
		}
		if fmt.Sprint(got) != want || m.Synced(r) != synced {
			t.Errorf("%s: %v, synced %v; want %s, %v", step, got, m.Synced(r), want, synced)
		}
	}
	holds("at first", false, "[]")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Add(object("b", "x")))
	holds("an object before the list is complete", false, "[b/x]")
	must(c.Replace([]any{object("b", "y"), object("a", "z")}, "7"))
	holds("the list", true, "[a/z b/y]")
	must(c.Update(object("b", "y")))
	must(c.Delete(object("a", "z")))
	holds("after a deletion", true, "[b/y]")
	must(c.Replace(nil, "8"))
	holds("an empty list", true, "[]")
	if changes != 5 {
		t.Errorf("%d changes are told, want 5", changes)
	}
	if c.Add("no object") == nil {
		t.Error("a text is taken for an object")
	}
}
