package containerd

import (
	"context"
	"fmt"
	"testing"
	"time"
)

func TestAnnouncements(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	a := newAnnouncements()
	if !a.wait(ended) {
		t.Error("nothing was noted, and it was waited for")
	}
	for _, name := range []string{"a", "b", "a"} {
		if err := a.add(name); err != nil {
			t.Fatal(err)
		}
	}
	if !a.waits("a") || !a.waits("b") || a.waits("c") || a.waits("") {
		t.Error("what waits is not told")
	}
	for _, want := range []string{"a", "b"} {
		name, ok := a.next()
		if name != want || !ok {
			t.Fatalf("%q, %v; want %q", name, ok, want)
		}
		if !a.waits(name) || a.wait(ended) {
			t.Errorf("%s is in hand, and not waited for", name)
		}
		a.finished()
		if a.waits(name) {
			t.Errorf("%s waits although it is done with", name)
		}
	}
	if _, ok := a.next(); ok {
		t.Error("a name that was noted twice is there twice")
	}

	t.Run("a name that comes again while it is in hand is looked at again", func(t *testing.T) {
		_ = a.add("a")
		a.next()
		_ = a.add("a")
		a.finished()
		if name, ok := a.next(); name != "a" || !ok {
			t.Errorf("%q, %v", name, ok)
		}
		a.finished()
	})
	t.Run("what comes while one waits is not waited for", func(t *testing.T) {
		_ = a.add("a")
		done := make(chan bool)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		go func() { done <- a.wait(ctx) }()
		for i := 0; ; i++ {
			_ = a.add(fmt.Sprint(i)) // without end
			a.next()
			a.finished()
			select {
			case ok := <-done:
				if !ok {
					t.Error("it was waited for in vain")
				}
				return
			default:
			}
		}
	})
	t.Run("as many as are kept, and one more", func(t *testing.T) {
		a := newAnnouncements()
		for i := range maxAnnounced {
			if err := a.add(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.add("one more"); err == nil {
			t.Error("one more was kept")
		}
		a.clear()
		if !a.wait(ended) || a.add("one more") != nil {
			t.Error("it is not empty after it was cleared")
		}
	})
}
