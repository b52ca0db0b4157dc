package objects

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/state"
)

// Load reads files and folders of manifests once; "-" is standard input. Whoever owns
// them, they are believed, and nothing is kept. What cannot be read as objects is a Fault of
// every namespace in the set; the error is for a path that does not exist.
func Load(paths ...string) (crds.Set, error) { return load(os.Stdin, paths) }

func load(stdin io.Reader, paths []string) (crds.Set, error) {
	l := loader{contents: make(map[string]content), left: newBudget()}
	for _, path := range paths {
		if path == "-" {
			l.stream(stdin)
			continue
		}
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return crds.Set{}, fmt.Errorf("read policies: %w", err)
		case err == nil && info.IsDir():
			l.folder(path)
		default:
			l.file(path)
		}
	}
	return held{}.next(l.contents, time.Time{}).set(func(path string) string { return path }), nil
}

// loader gathers contents by path, so that a file named twice is read once.
type loader struct {
	contents map[string]content
	left     budget
}

func (l *loader) folder(dir string) {
	stamps, err := list(dir, false)
	if err != nil {
		l.add(dir, content{fault: err.Error()})
		return
	}
	for _, name := range slices.Sorted(maps.Keys(stamps)) {
		l.file(filepath.Join(dir, name))
	}
}

func (l *loader) file(path string) {
	path = filepath.Clean(path)
	if _, ok := l.contents[path]; ok {
		return
	}
	data, _, err := readFile(path, max(l.left.bytes, 0), false)
	if err != nil {
		l.add(path, content{fault: err.Error()})
		return
	}
	l.add(path, decode(data, path, l.left))
}

func (l *loader) stream(r io.Reader) {
	const name = "standard input"
	if _, ok := l.contents[name]; ok {
		return
	}
	data, err := state.ReadAtMost(r, max(l.left.bytes, 0))
	if err != nil {
		l.add(name, content{fault: err.Error()})
		return
	}
	l.add(name, decode(data, name, l.left))
}

func (l *loader) add(path string, c content) {
	l.contents[path] = c
	l.left = l.left.plus(-1, c)
}
