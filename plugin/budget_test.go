package plugin

import (
	"strings"
	"testing"
)

func newTestBudget(maxSpec, maxSync int) (*budget, *int) {
	total := new(int)
	return newBudget(maxSpec, maxSync, func(n int) { *total = n }), total
}

func TestAnObjectAtTheLimitIsTakenAndOneByteMoreIsNot(t *testing.T) {
	b, total := newTestBudget(100, 1000)
	if refusal, over := b.add("a", "container", "shop", 100); refusal != "" || over {
		t.Errorf("at the limit: %q, over %v", refusal, over)
	}
	refusal, _ := b.add("b", "container", "shop", 101)
	for _, part := range []string{"the container is 101 bytes", "at most 100", "enableServiceLinks: false"} {
		if !strings.Contains(refusal, part) {
			t.Errorf("the refusal %q does not say %q", refusal, part)
		}
	}
	if *total != 100 {
		t.Errorf("the total is %d, want 100", *total)
	}
}

func TestANodeAtItsBudgetIsFull(t *testing.T) {
	b, _ := newTestBudget(100, 200)
	for _, id := range []string{"a", "b"} {
		if refusal, over := b.add(id, "pod", "shop", 100); refusal != "" || over {
			t.Fatalf("up to the budget: %q, over %v", refusal, over)
		}
	}
	refusal, over := b.add("c", "pod", "shop", 1)
	if !over || !strings.Contains(refusal, "would be 201 bytes, at most 200") || !strings.Contains(refusal, "namespace shop holds 201") {
		t.Errorf("one byte more: %q, over %v", refusal, over)
	}
}

func TestOnlyANamespaceWithOverAThirdIsRefusedOnAFullNode(t *testing.T) {
	tests := []struct {
		name    string
		own     int // what the namespace has
		others  int
		bytes   int
		refused bool
	}{
		{"exactly a third is reported", 90, 200, 10, false},
		{"one byte over a third is refused", 91, 200, 10, true},
		{"a namespace without anything is reported", 0, 290, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, total := newTestBudget(1000, 250)
			b.reset(map[string]object{"own": {"shop", tt.own}, "others": {"kube-system", tt.others}})
			refusal, over := b.add("new", "container", "shop", tt.bytes)
			if !over || (refusal != "") != tt.refused {
				t.Errorf("refusal %q, over %v", refusal, over)
			}
			want := tt.own + tt.others
			if !tt.refused {
				want += tt.bytes
			}
			if *total != want {
				t.Errorf("the total is %d, want %d", *total, want)
			}
		})
	}
}

func TestWhatIsGoneIsNotCounted(t *testing.T) {
	b, total := newTestBudget(100, 1000)
	b.add("a", "container", "shop", 60)
	b.add("b", "container", "shop", 30)
	b.drop("a")
	b.drop("a")
	b.drop("never there")
	if *total != 30 || b.spaces["shop"] != 30 {
		t.Errorf("the total is %d and the namespace's %d, want 30", *total, b.spaces["shop"])
	}
	b.drop("b")
	if *total != 0 || len(b.spaces) != 0 || len(b.objects) != 0 {
		t.Errorf("something is left: %d bytes, %v, %v", *total, b.spaces, b.objects)
	}
}

func TestAnObjectThatComesAgainIsCountedOnce(t *testing.T) {
	b, total := newTestBudget(100, 1000)
	b.add("a", "container", "shop", 60)
	b.add("a", "container", "shop", 70)
	if *total != 70 || b.spaces["shop"] != 70 {
		t.Errorf("the total is %d and the namespace's %d, want 70", *total, b.spaces["shop"])
	}
}

func TestASynchronisationReplacesWhatWasCounted(t *testing.T) {
	b, total := newTestBudget(100, 1000)
	b.add("gone", "container", "shop", 60)
	b.reset(map[string]object{"a": {"shop", 10}, "b": {"shop", 20}, "c": {"blog", 5}})
	if *total != 35 || b.spaces["shop"] != 30 || b.spaces["blog"] != 5 {
		t.Errorf("the total is %d, the namespaces' %v", *total, b.spaces)
	}
}
