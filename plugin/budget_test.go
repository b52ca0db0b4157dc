package plugin

import (
	"fmt"
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

func TestOnAFullNodeOnlyTheFairGetRoom(t *testing.T) {
	const limit = 10 * fairBytes
	tests := []struct {
		name   string
		own    int // what the namespace has
		others int
		bytes  int
		why    string // of the refusal; empty: it is let pass, and reported
	}{
		{"exactly a third of the sum", 4*fairBytes - 1, 8 * fairBytes, 1, ""},
		{"one byte over a third", 4 * fairBytes, 8 * fairBytes, 1, "namespace shop holds 65537"},
		{"nothing yet, and an ordinary object", 0, limit, 1, ""},
		{"nothing yet, and a fair object", 0, limit, fairBytes, ""},
		{"nothing yet, and one byte over what is fair", 0, limit, fairBytes + 1, "the container is 16385 of them: over the limit at most 16384 get in"},
		{"an ordinary object up to twice the budget", 0, 2*limit - 1, 1, ""},
		{"one byte over twice the budget", 0, 2 * limit, 1, "over 327680 nothing gets in"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, total := newTestBudget(limit, limit)
			b.reset(map[string]object{"own": {"shop", tt.own}, "others": {"kube-system", tt.others}})
			refusal, over := b.add("new", "container", "shop", tt.bytes)
			if !over || (refusal != "") != (tt.why != "") || !strings.Contains(refusal, tt.why) {
				t.Errorf("refusal %q, over %v, want %q", refusal, over, tt.why)
			}
			want := tt.own + tt.others
			if tt.why == "" {
				want += tt.bytes
			}
			if *total != want {
				t.Errorf("the total is %d, want %d", *total, want)
			}
		})
	}
}

func TestSeveralNamespacesCannotFillANodeTogether(t *testing.T) {
	b, total := newTestBudget(DefaultMaxSpecBytes, DefaultMaxSyncBytes)
	for i := range 400 {
		b.add(fmt.Sprint(i), "pod", fmt.Sprint("tenant-", i%4), 120<<10)
	}
	if *total > DefaultMaxSyncBytes {
		t.Errorf("four namespaces have %d bytes, over %d", *total, DefaultMaxSyncBytes)
	}
	if refusal, _ := b.add("honest", "container", "shop", 8<<10); refusal != "" {
		t.Errorf("an ordinary container is refused: %s", refusal)
	}
}

func TestAnObjectOnAFullNodeIsReportedOnce(t *testing.T) {
	b, _ := newTestBudget(100, 100)
	b.reset(map[string]object{"others": {"kube-system", 100}})
	for i, want := range []bool{true, false} {
		if refusal, over := b.add("a", "container", "shop", 10); refusal != "" || over != want {
			t.Errorf("time %d: %q, over %v", i, refusal, over)
		}
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
