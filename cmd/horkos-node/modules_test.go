package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestTheDaemonIsBuiltOfTheseModulesAndNoOthers: what runs as root on every node is
// looked at before it grows. A module that earns its place is added to the list by hand.
func TestTheDaemonIsBuiltOfTheseModulesAndNoOthers(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-tags", "grpcnotrace", "-f", "{{with .Module}}{{.Path}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(string(out))
	slices.Sort(got)
	got = slices.Compact(got)
	data, err := os.ReadFile("testdata/modules.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(string(data))
	for _, m := range got {
		if !slices.Contains(want, m) {
			t.Errorf("%s is new in the daemon: does it earn its weight?", m)
		}
	}
	for _, m := range want {
		if !slices.Contains(got, m) {
			t.Errorf("%s is in the daemon no more: take it off testdata/modules.txt", m)
		}
	}
}
