package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sync/errgroup"
)

// envCluster set to "required" makes a cluster that cannot run a failure.
const envCluster = "HORKOS_CLUSTER"

// clusterTools are what a cluster needs beside what Check checks.
var clusterTools = []string{"etcd", "kube-apiserver", controllerManager, scheduler, "cni/bridge", "cni/host-local", "cni/loopback"}

// CheckCluster says, as Check does, whether a cluster can run here.
func CheckCluster() error {
	if err := Check(); err != nil {
		return err
	}
	if err := checkTools(clusterTools); err != nil {
		return fmt.Errorf("for a cluster, run make cluster-tools: %w", err)
	}
	return nil
}

// RequireCluster is Require for a test of a whole cluster: what such a test needs beside
// that takes minutes to build, and HORKOS_CLUSTER=required makes its absence a failure.
func RequireCluster(t testing.TB) {
	t.Helper()
	Require(t)
	err := CheckCluster()
	if err == nil {
		return
	}
	if os.Getenv(envCluster) == "required" {
		t.Fatalf("%s=required, and no cluster can run here: %v", envCluster, err)
	}
	t.Skipf("no cluster can run here: %v", err)
}

// ClusterOptions say what a cluster of one node is made of.
type ClusterOptions struct {
	Registry     *Registry           // nil: nothing can be pulled
	ControlPlane ControlPlaneOptions // Network is filled in
	Containerd   ContainerdOptions   // Registry and the network are filled in

	// Node is the gate of the node, started before the kubelet; Containerd is filled in.
	// Nil: there is none. Prepare, if not nil, is called before it starts.
	Node    *NodeOptions
	Prepare func(*Node) error
}

// Cluster is a cluster of one node.
type Cluster struct {
	Network      *Network
	ControlPlane *ControlPlane
	Containerd   *Containerd
	Node         *Node // nil without a gate
	Kubelet      *Kubelet
}

// StartCluster starts a cluster, and waits until its node is ready and pods can be made in
// namespace default. The run ends it.
func (r *Run) StartCluster(ctx context.Context, options ClusterOptions) (*Cluster, error) {
	c := &Cluster{}
	var err error
	if c.Network, err = r.StartNetwork(); err != nil {
		return nil, err
	}
	options.ControlPlane.Network = c.Network
	// Nothing of a node needs the control plane to start but the kubelet.
	both, started := errgroup.WithContext(ctx)
	both.Go(func() error {
		var err error
		c.ControlPlane, err = r.StartControlPlane(started, options.ControlPlane)
		return err
	})
	both.Go(func() error { return c.startRuntime(started, r, options) })
	if err := both.Wait(); err != nil {
		return nil, err
	}
	c.Kubelet, err = r.StartKubelet(ctx, KubeletOptions{Containerd: c.Containerd, ControlPlane: c.ControlPlane, Network: c.Network})
	if err != nil {
		return nil, err
	}
	return c, c.WaitReady(ctx)
}

// startRuntime starts containerd and the gate.
func (c *Cluster) startRuntime(ctx context.Context, r *Run, options ClusterOptions) error {
	options.Containerd.Registry = options.Registry
	options.Containerd.Extra += c.Network.Containerd()
	var err error
	if c.Containerd, err = r.StartContainerd(ctx, options.Containerd); err != nil || options.Node == nil {
		return err
	}
	node := *options.Node
	node.Containerd = c.Containerd
	if c.Node, err = r.NewNode(node); err != nil {
		return err
	}
	if options.Prepare != nil {
		if err := options.Prepare(c.Node); err != nil {
			return err
		}
	}
	return c.Node.Start(ctx)
}

// WaitReady waits until the node is ready, pods may be scheduled on it, and namespace
// default has the service account that they need.
func (c *Cluster) WaitReady(ctx context.Context) error {
	ctx, cancel := withDefaultTimeout(ctx, startTimeout)
	defer cancel()
	err := Poll(ctx, "the cluster to be ready", func(ctx context.Context) error {
		node, err := c.ControlPlane.Admin.Get(ctx, "/api/v1/nodes/"+NodeName)
		if err != nil {
			return err
		}
		if err := schedulable(node); err != nil {
			return err
		}
		_, err = c.ControlPlane.Admin.Get(ctx, "/api/v1/namespaces/default/serviceaccounts/default")
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, c.Kubelet.LogTail())
	}
	return nil
}

func schedulable(node Object) error {
	if taints := Field(node, "spec", "taints"); taints != nil {
		return fmt.Errorf("the node has the taints %v", taints)
	}
	conditions, _ := Field(node, "status", "conditions").([]any)
	for _, condition := range conditions {
		if Field(condition, "type") == "Ready" {
			if Field(condition, "status") == "True" {
				return nil
			}
			return fmt.Errorf("the node is not ready: %v", Field(condition, "message"))
		}
	}
	return errors.New("the node has no condition yet")
}
