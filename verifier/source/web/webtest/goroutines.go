package webtest

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

// NoGoroutineLeft fails a test that leaves a goroutine behind. It is called first, so that
// it looks when all that the test cleans up is done.
func NoGoroutineLeft(t testing.TB) {
	t.Helper()
	before := goroutines()
	t.Cleanup(func() {
		t.Helper()
		// What was told to end may take a moment to be gone.
		limit := time.NewTimer(5 * time.Second)
		defer limit.Stop()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			var left []string
			for id, stack := range goroutines() {
				if _, ok := before[id]; !ok {
					left = append(left, stack)
				}
			}
			if len(left) == 0 {
				return
			}
			select {
			case <-tick.C:
			case <-limit.C:
				t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
				return
			}
		}
	})
}

// goroutines are the stacks of all, by "goroutine <n>".
func goroutines() map[string]string {
	buffer := make([]byte, 1<<20)
	all := make(map[string]string)
	for stack := range strings.SplitSeq(string(buffer[:runtime.Stack(buffer, true)]), "\n\n") {
		id, _, _ := strings.Cut(stack, " [")
		all[id] = stack
	}
	return all
}
