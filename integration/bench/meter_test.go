package main

import (
	"os"
	"testing"
	"time"
)

func TestDurationsAreToldByTheirShares(t *testing.T) {
	var all []time.Duration
	for i := range 100 {
		all = append(all, time.Duration(100-i)*time.Second)
	}
	if got, want := spread(all), "p50 50s, p90 1m30s, p99 1m39s, last 1m40s"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := spread(all[:1]), "p50 1s, p90 1s, p99 1s, last 1s"; got != want {
		t.Errorf("of one: %s, want %s", got, want)
	}
	if got, want := histogram([]time.Duration{2500 * time.Millisecond, 900 * time.Millisecond, 2 * time.Second}), "0: 1, 2: 2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestTheTimeOfProcessorsOfAProcessIsRead(t *testing.T) {
	began := processor(os.Getpid())
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
	}
	if got := processor(os.Getpid()) - began; got < 10*time.Millisecond || got > 10*time.Second {
		t.Errorf("a loop of 200 ms used %v", got)
	}
	if got := processor(0); got != 0 {
		t.Errorf("no process used %v", got)
	}
}
