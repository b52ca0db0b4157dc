// Command runtime is runc for machines that have no libseccomp to build runc with:
// it removes the seccomp profile from a container's specification and becomes the runc
// beside it. The kubelet asks for a profile for every pod sandbox, and runc without
// libseccomp refuses to run those.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "runtime:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if i := slices.Index(args, "--bundle"); i > 0 && i+1 < len(args) {
		if err := removeSeccomp(filepath.Join(args[i+1], "config.json")); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find runc: %w", err)
	}
	runc := filepath.Join(filepath.Dir(self), "runc")
	if err := syscall.Exec(runc, append([]string{runc}, args[1:]...), os.Environ()); err != nil {
		return fmt.Errorf("become %s: %w", runc, err)
	}
	return nil
}

// removeSeccomp removes linux.seccomp (OCI runtime specification) from the file, and
// leaves every other byte of the values as it is.
func removeSeccomp(file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the specification: %w", err)
	}
	var spec, linux map[string]json.RawMessage
	if err := json.Unmarshal(content, &spec); err != nil {
		return fmt.Errorf("read the specification: %w", err)
	}
	if err := json.Unmarshal(spec["linux"], &linux); err != nil {
		return fmt.Errorf("read the specification: linux: %w", err)
	}
	if _, found := linux["seccomp"]; !found {
		return nil
	}
	delete(linux, "seccomp")
	if spec["linux"], err = json.Marshal(linux); err != nil {
		return fmt.Errorf("write the specification: %w", err)
	}
	if content, err = json.Marshal(spec); err != nil {
		return fmt.Errorf("write the specification: %w", err)
	}
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return fmt.Errorf("write the specification: %w", err)
	}
	return nil
}
