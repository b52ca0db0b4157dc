// Package harness runs the real components a node is made of, containerd, runc, the
// kubelet and horkos-node, those of a control plane around it, and an OCI registry in this
// process, so that tests and the demo see what a node would do and not what a fake thinks
// it does.
//
// A [Run] is one temporary folder and one cgroup. Whatever is started belongs to
// it, and [Run.Close] ends all of it: processes, containers, mounts, cgroups and the
// folder. Processes die with the program that started them, and what a killed
// program left behind anyway (containers outlive containerd) the next [NewRun]
// removes.
//
// The core returns errors and works in any program; [New], [Require], [Tries] and
// [Main] are the thin layer over it for tests:
//
//	run := harness.New(t)
//	registry := run.StartRegistry(...)
//	containerd, err := run.StartContainerd(ctx, harness.ContainerdOptions{Registry: registry})
//	node, err := run.StartNode(ctx, harness.NodeOptions{Containerd: containerd, DefaultAction: "deny"})
//
// Nothing here reaches a network but the loopback interface: every registry host
// that an image reference names is served by the registry of this process, by the
// path of the repository alone.
//
// The real components are built by `make tools` into bin/tools, from the modules
// pinned under integration/tools. Contexts bound the call they are given to, never
// the life of what it starts.
package harness
