package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const modulePath = "github.com/horkos/horkos"

// The programs under bin/tools that a run may start: what every run needs, what only tests
// of a node do, and what a cluster has.
var (
	basicTools = []string{"containerd", "containerd-shim-runc-v2", "runc", "runtime", "pause"}
	testTools  = []string{"ctr", "kubelet", "containerd-2.2/containerd", "containerd-2.2/containerd-shim-runc-v2",
		"nrihost-0.12.3", "nrihost-0.12.5"}
	clusterTools = []string{"etcd", "kube-apiserver", controllerManager, scheduler, "kubelet", "kubectl",
		"cni/bridge", "cni/host-local", "cni/loopback"}
)

// Check says whether the real components can run on this machine and with these
// rights. It returns nil, or an error that names everything that is missing.
func Check() error { return check(slices.Concat(basicTools, testTools)) }

func check(tools []string) error {
	var missing []error
	if os.Geteuid() != 0 {
		missing = append(missing, errors.New("the real components need root"))
	} else {
		missing = append(missing, checkMount(), checkCgroup())
	}
	return errors.Join(append(missing, checkTools(tools))...)
}

func checkTools(tools []string) error {
	root, err := findRoot()
	if err != nil {
		return err
	}
	var missing []string
	for _, name := range tools {
		if _, err := os.Stat(filepath.Join(root, "bin", "tools", name)); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("not built in %s: %s (run make tools)", filepath.Join(root, "bin", "tools"), strings.Join(missing, ", "))
	}
	return nil
}

func checkMount() error {
	dir, err := os.MkdirTemp("", "harness-check")
	if err != nil {
		return fmt.Errorf("check mounting: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("the real components need to mount file systems: %w", err)
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("check mounting: unmount %s: %w", dir, err)
	}
	return nil
}

func checkCgroup() error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	if len(roots) == 0 {
		return errors.New("the real components need cgroups, and none is mounted")
	}
	for _, root := range roots {
		dir, err := os.MkdirTemp(root, "harness-check")
		if err != nil {
			return fmt.Errorf("the real components need to make cgroups: %w", err)
		}
		if err := os.Remove(dir); err != nil {
			return fmt.Errorf("check cgroups: %w", err)
		}
	}
	return nil
}

// snapshotter is overlayfs where dir can hold one, and native, which copies files,
// elsewhere (in a container whose root is an overlay itself, for one).
func snapshotter(dir string) string {
	base, err := os.MkdirTemp(dir, "overlay")
	if err != nil {
		return "native"
	}
	defer os.RemoveAll(base)
	var parts []string
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		path := filepath.Join(base, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			return "native"
		}
		parts = append(parts, path)
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", parts[0], parts[1], parts[2])
	if err := unix.Mount("overlay", parts[3], "overlay", 0, options); err != nil {
		return "native"
	}
	if err := unix.Unmount(parts[3], unix.MNT_DETACH); err != nil {
		return "native"
	}
	return "overlayfs"
}

// findRoot is the folder of this module at or above the working directory, which is
// the package's folder in a test and the checkout in the demo.
func findRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the checkout: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(content), "module "+modulePath+"\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the checkout: no go.mod of %s at or above %s", modulePath, start)
		}
	}
}
