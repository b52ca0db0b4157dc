package containerd

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// specOf is a runtime specification with environment variables, as containerd writes it.
func specOf(t *testing.T, env ...string) string {
	t.Helper()
	spec, err := json.Marshal(object{"ociVersion": "1.2.1", "process": object{"args": []string{"/app"}, "env": env}, "annotations": object{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	return string(spec)
}

func TestInventory(t *testing.T) {
	const large = 512 << 10
	f := newFake(t)
	f.mu.Lock()
	f.pods = []*criapi.PodSandbox{
		{Id: testSandbox, Metadata: &criapi.PodSandboxMetadata{Name: "pod", Namespace: "shop"}},
		{Id: "wide", Metadata: &criapi.PodSandboxMetadata{Name: "wide", Namespace: "bank"}, Annotations: map[string]string{"a": strings.Repeat("x", large)}},
	}
	f.ended = []string{"ended"}
	f.mu.Unlock()
	f.sandbox(testSandbox, "overlayfs", pauseRef, specOf(t, strings.Repeat("x", large))) // told of as a pod
	f.sandbox("escaped", "overlayfs", good+":1", specOf(t, "A="+strings.Repeat("<", 120<<10)))
	f.sandbox("big", "overlayfs", good+":1", specOf(t, "A="+strings.Repeat("x", large)))
	f.sandbox("ended", "overlayfs", good+":2", specOf(t, "A="+strings.Repeat("x", large)))
	f.sandbox("stray", "overlayfs", "", specOf(t))
	f.mu.Lock()
	for id, sandbox := range map[string]string{"escaped": testSandbox, "big": "wide", "ended": "wide"} {
		f.containers[id].Sandbox = sandbox
		f.containers[id].Labels = map[string]string{namespaceLabel: "a lie"}
	}
	f.containers["stray"].Labels = map[string]string{namespaceLabel: "labelled"}
	f.mu.Unlock()

	inv, err := f.dial().Inventory(t.Context(), large)
	if err != nil {
		t.Fatal(err)
	}
	if len(inv.Large) != 2 || !strings.HasPrefix(inv.Large[0], "pod bank/wide") || !strings.HasPrefix(inv.Large[1], "container big ") {
		t.Errorf("large: %q", inv.Large)
	}
	if want := []string{good + ":1", good + ":2", pauseRef, ""}; !slices.Equal(inv.Images, want) {
		t.Errorf("images %q, want %q", inv.Images, want)
	}
	if got := slices.Sorted(maps.Keys(inv.Bytes)); !slices.Equal(got, []string{"bank", "labelled", "shop"}) {
		t.Errorf("namespaces %q", got)
	}
	if shop, bank := inv.Bytes["shop"], inv.Bytes["bank"]; shop < 120<<10 || shop > 130<<10 || bank < 2*large || bank > 2*large+8<<10 {
		t.Errorf("shop has %d bytes, bank %d", shop, bank)
	}
}

func TestTheSizeOfASpecificationIsNeverTooSmallAndSeldomMuchTooLarge(t *testing.T) {
	many := func(n int, v any) []any {
		list := make([]any, n)
		for i := range list {
			list[i] = v
		}
		return list
	}
	for _, test := range []struct {
		name     string
		values   []any
		least    int // what a protobuf message of these values takes
		quotient int // how much more may be estimated
	}{
		{"escaped characters", []any{strings.Repeat("<&>", 100<<10)}, 300 << 10, 1},
		{"quotes and new lines", []any{strings.Repeat("\"\n", 100<<10)}, 200 << 10, 1},
		{"control characters", []any{strings.Repeat("\x01", 100<<10)}, 100 << 10, 1},
		{"many short strings", many(60_000, "ab"), 60_000 * 4, 2},
		{"many empty strings", many(60_000, ""), 60_000 * 2, 2},
		{"many small numbers", many(60_000, 1), 60_000, 4},
		{"many large numbers", many(60_000, 1<<31), 60_000 * 5, 3},
		{"many negative numbers", many(60_000, -1), 60_000 * 10, 2},
		{"many fractions", many(60_000, 0.5), 60_000 * 8, 2},
		{"many maps", many(20_000, object{"a": "b"}), 20_000 * 8, 4},
	} {
		spec, err := json.Marshal(object{"x": test.values})
		if err != nil {
			t.Fatal(err)
		}
		if len(spec) <= smallSpec {
			t.Fatalf("%s: %d bytes are not enough to be decoded", test.name, len(spec))
		}
		if got := specSize(spec); got < test.least || got > (test.quotient+1)*test.least {
			t.Errorf("%s: %d bytes, at least %d", test.name, got, test.least)
		}
	}
}

func TestASpecificationThatCannotBeReadCountsAsLongAsItIs(t *testing.T) {
	for _, n := range []int{0, smallSpec, smallSpec + 1, 1 << 20} {
		if got := specSize([]byte(strings.Repeat("<", n))); got != n {
			t.Errorf("%d bytes are %d", n, got)
		}
	}
	if got := specSize(fmt.Appendf(nil, `{"a":%q`, strings.Repeat("x", smallSpec))); got < smallSpec {
		t.Errorf("%d bytes", got)
	}
}

func FuzzSpecSize(f *testing.F) {
	f.Add([]byte(`{"process":{"args":["<"],"env":[]}}`))
	f.Fuzz(func(t *testing.T, part []byte) {
		spec, err := json.Marshal(object{"x": string(part), "pad": strings.Repeat("x", smallSpec)})
		if err != nil {
			t.Fatal(err)
		}
		if got := specSize(spec); got < len(part)+smallSpec {
			t.Errorf("%d bytes for %d", got, len(part)+smallSpec)
		}
	})
}
