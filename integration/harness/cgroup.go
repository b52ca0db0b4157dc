package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// cgroupRoots are the places where cgroup hierarchies are mounted: one with version
// 2, one a controller with version 1.
func cgroupRoots() ([]string, error) {
	mounts, err := readMounts()
	if err != nil {
		return nil, err
	}
	var roots []string
	for _, m := range mounts {
		if m.kind == "cgroup" || m.kind == "cgroup2" {
			roots = append(roots, m.path)
		}
	}
	return roots, nil
}

// makeCgroup makes the cgroup, a path below the root, in every hierarchy.
func makeCgroup(name string) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		passControllers(root, name)
	}
	return nil
}

// passControllers makes the controllers of a version 2 hierarchy available in the
// cgroup, as far as the kernel allows; what needs one that is missing says so itself.
func passControllers(root, name string) {
	dir := root
	for part := range strings.SplitSeq(name, "/") {
		controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if err != nil {
			return // version 1
		}
		for controller := range strings.FieldsSeq(string(controllers)) {
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
		}
		dir = filepath.Join(dir, part)
	}
}

// removeCgroups removes the cgroup with those below it from every hierarchy.
func removeCgroups(name string) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		var dirs []string
		err := filepath.WalkDir(filepath.Join(root, name), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // one that has just gone is no loss
		})
		if err != nil {
			return err
		}
		for _, dir := range slices.Backward(dirs) {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove cgroup: %w", err)
			}
		}
	}
	return nil
}
