package main

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

// bell rings when something is written to it.
type bell struct {
	once sync.Once
	rang chan string
}

func (b *bell) Write(p []byte) (int, error) {
	b.once.Do(func() { b.rang <- string(p) })
	return len(p), nil
}

func TestWhatTakesLongIsTold(t *testing.T) {
	b := &bell{rang: make(chan string, 1)}
	failed := errors.New("failed")
	err := telling(b, time.Millisecond, "reading", func() error {
		select {
		case said := <-b.rang:
			if !strings.HasPrefix(said, "reading ... 0 s") {
				t.Errorf("said %q", said)
			}
		case <-time.After(10 * time.Second):
			t.Error("nothing was said")
		}
		return failed
	})
	if err != failed {
		t.Error(err)
	}
}
