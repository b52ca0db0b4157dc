package objects

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestLoad(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", enforcing)
	b.must(os.Chmod(b.path("a.yaml"), 0o666)) // whoever owns them
	b.write("b.txt", elsewhere)
	b.must(os.Mkdir(b.path("broken"), 0o755))
	b.write("broken/c.yaml", broken)
	b.write("broken/d.yaml", authority)
	b.must(syscall.Mkfifo(b.path("pipe"), 0o644))
	for _, tt := range []struct {
		name  string
		paths []string
		want  []string
	}{
		{"nothing", nil, nil},
		{"a folder", []string{b.dir}, []string{isPolicyProd}},
		{"a file of any name", []string{b.path("b.txt")}, []string{isPolicyTest}},
		{"standard input", []string{"-"}, []string{isRevocation}},
		{"all of them", []string{b.dir, "-", b.path("b.txt")}, []string{isPolicyProd, isPolicyTest, isRevocation}},
		{"one thing twice", []string{b.dir, b.path("a.yaml"), b.dir + "/", "-", "-"}, []string{isPolicyProd, isRevocation}},
		{"a broken file", []string{b.path("broken")}, []string{isAuthority, "fault of c.yaml in every namespace"}},
		{"a pipe", []string{b.path("pipe")}, []string{"fault of pipe in every namespace"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, err := load(strings.NewReader(revoking), tt.paths)
			if err != nil {
				t.Fatal(err)
			}
			b.wants(tt.name, set, tt.want...)
		})
	}
}

func TestLoadingAPathThatDoesNotExistIsAnError(t *testing.T) {
	if _, err := Load(t.TempDir() + "/nowhere"); err == nil {
		t.Error("no error")
	}
}
