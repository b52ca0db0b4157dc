package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// NodeUnit is the name of the unit of horkos-node.
const NodeUnit = "horkos-node.service"

// InstallNode puts horkos-node in place on the machine as docs/running-on-a-node.md tells:
// the program, the unit of the checkout, the example of a configuration, a floor of the
// registry's pause image, an empty policy folder. It is enabled, and not started.
//
// Of the configuration it has no sources. Without a control plane it follows no cluster; with
// one it does, by a kubeconfig and a certificate where kubelets have theirs.
//
// The containerd is one outside the machine, whose folder the machine shares. The unit
// hides /tmp, where that folder lies: a drop-in shows it to the unit again. Of the node that
// is returned only the files and the health socket are to be used: systemd runs it.
func (m *Machine) InstallNode(c *Containerd, plane *ControlPlane) (*Node, error) {
	etc := filepath.Join(m.Root, "etc/horkos")
	n := &Node{
		Dir:       m.Root,
		PolicyDir: filepath.Join(etc, "policies"),
		StateDir:  filepath.Join(m.Root, "var/lib/horkos"),
		FloorFile: filepath.Join(etc, "floor"),
		AuditFile: filepath.Join(m.Root, "var/lib/horkos/audit.log"),
		client:    unixClient(filepath.Join(m.Root, "run/horkos/health.sock")),
	}
	if err := os.MkdirAll(n.PolicyDir, 0o755); err != nil {
		return nil, fmt.Errorf("install horkos-node: %w", err)
	}
	if err := n.WriteFloor(c.pause.Digest); err != nil {
		return nil, fmt.Errorf("install horkos-node: %w", err)
	}
	if err := m.joinCluster(plane); err != nil {
		return nil, fmt.Errorf("install horkos-node: %w", err)
	}
	unit, err := os.ReadFile(filepath.Join(c.run.root, "systemd", NodeUnit))
	if err != nil {
		return nil, fmt.Errorf("install horkos-node: %w", err)
	}
	config, err := os.ReadFile(filepath.Join(c.run.root, "docs", "node.yaml"))
	if err != nil {
		return nil, fmt.Errorf("install horkos-node: %w", err)
	}
	text, _, _ := strings.Cut(string(config), "\nsources:")
	if plane == nil {
		text = strings.Replace(text, "\nkubeconfig: "+kubeletConfig+"\n", "\nkubeconfig: \"\"\n", 1)
	}
	for name, text := range map[string]string{
		"etc/horkos/node.yaml":                                     text + "\n",
		"etc/systemd/system/" + NodeUnit:                           string(unit),
		"etc/systemd/system/" + NodeUnit + ".d/00-containerd.conf": "[Service]\nBindReadOnlyPaths=" + c.Dir + "\n",
	} {
		if err := m.WriteFile(name, text); err != nil {
			return nil, err
		}
	}
	program := filepath.Join(m.Root, "local/bin/horkos-node")
	if err := copyProgram(c.run.Program("horkos-node"), program); err != nil {
		return nil, fmt.Errorf("install horkos-node: %w", err)
	}
	m.links["containerd"], m.links["nri"] = c.Dir, filepath.Dir(c.NRISocket)
	return n, m.Enable(NodeUnit)
}

// What the example of a configuration says of the cluster: the kubeconfig of kubeadm's
// kubelets, and the node's name.
const (
	kubeletConfig = "/etc/kubernetes/kubelet.conf"
	exampleNode   = "node-1"
)

// joinCluster puts the files in place by which a kubelet reaches the API server.
func (m *Machine) joinCluster(plane *ControlPlane) error {
	if plane == nil {
		return nil
	}
	dir := filepath.Join(m.Root, "var/lib/kubelet/pki")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.MkdirAll(filepath.Join(m.Root, filepath.Dir(kubeletConfig)), 0o755)); err != nil {
		return err
	}
	path, err := plane.NodeKubeconfig(dir, exampleNode)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	content = bytes.ReplaceAll(content, []byte(m.Root), nil) // in the machine it is the root
	return errors.Join(writeAtomically(filepath.Join(m.Root, kubeletConfig), content), os.Remove(path))
}

// WriteFile writes a file of the machine, by its path below the root, in folders that are made.
func (m *Machine) WriteFile(name, text string) error {
	path := filepath.Join(m.Root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write to the machine: %w", err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write to the machine: %w", err)
	}
	return nil
}

// Enable has a unit started at boot.
func (m *Machine) Enable(unit string) error {
	if err := os.Symlink("../"+unit, filepath.Join(m.Units, "multi-user.target.wants", unit)); err != nil {
		return fmt.Errorf("enable %s: %w", unit, err)
	}
	return nil
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// DropIn puts a file of the checkout in containerd's conf.d, which its configuration
// imports. It is in force from the next start.
func (c *Containerd) DropIn(file string) error {
	text, err := os.ReadFile(filepath.Join(c.run.root, file))
	if err != nil {
		return fmt.Errorf("install a drop-in of containerd: %w", err)
	}
	if err := os.WriteFile(filepath.Join(c.Dir, "conf.d", filepath.Base(file)), text, 0o600); err != nil {
		return fmt.Errorf("install a drop-in of containerd: %w", err)
	}
	return nil
}

// ConfigDump is the configuration in effect as `containerd config dump` tells it, with
// Dir for containerd's folder.
func (c *Containerd) ConfigDump(ctx context.Context) (string, error) {
	argv, err := c.argv()
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, argv[0], append(argv[1:], "config", "dump")...).Output()
	if err != nil {
		return "", fmt.Errorf("containerd config dump: %w", err)
	}
	return strings.ReplaceAll(string(out), c.Dir, "Dir"), nil
}
