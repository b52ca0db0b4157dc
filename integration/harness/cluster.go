package harness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"
)

// CheckCluster says, as Check does, whether a cluster can run here.
func CheckCluster() error { return check(slices.Concat(basicTools, clusterTools)) }

// RequireCluster is Require for a test of a whole cluster.
func RequireCluster(t testing.TB) {
	t.Helper()
	require(t, CheckCluster())
}

// ClusterProgram is Program for a body that starts a cluster.
func ClusterProgram(body func(ctx context.Context, run *Run) error) error {
	return program(CheckCluster, body)
}

// ClusterOptions say what a cluster of one node is made of.
type ClusterOptions struct {
	Registry     *Registry           // nil: nothing can be pulled
	ControlPlane ControlPlaneOptions // Network is filled in
	Containerd   ContainerdOptions   // Registry and the network are filled in

	// Apply, if not nil, is called when the control plane serves: for objects that are to
	// be there before the gate and the kubelet start.
	Apply func(context.Context, *ControlPlane) error

	// Node is the gate of the node, started before the kubelet; Containerd is filled in.
	// Nil: there is none. Prepare, if not nil, is called before it starts.
	Node    *NodeOptions
	Prepare func(*Node) error

	// Follow has the gate follow the objects of the cluster, as the kubelet of its node.
	Follow bool
}

// Cluster is a cluster of one node.
type Cluster struct {
	Network      *Network
	ControlPlane *ControlPlane
	Containerd   *Containerd
	Node         *Node // nil without a gate
	Kubelet      *Kubelet

	// Identity is the folder with the kubeconfig and the certificate of the node, for
	// ControlPlane.RenewNode.
	Identity string
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
	if c.ControlPlane, err = r.newControlPlane(options.ControlPlane); err != nil {
		return nil, fmt.Errorf("prepare a control plane: %w", err)
	}
	if c.Identity, err = r.folder("i"); err != nil {
		return nil, err
	}
	kubeconfig, err := c.ControlPlane.NodeKubeconfig(c.Identity, NodeName)
	if err != nil {
		return nil, err
	}
	if err := c.startServers(ctx, r, options); err != nil {
		return nil, err
	}
	if err := c.startGate(ctx, r, options, kubeconfig); err != nil {
		return nil, err
	}
	c.Kubelet, err = r.StartKubelet(ctx, KubeletOptions{Containerd: c.Containerd, ControlPlane: c.ControlPlane, Kubeconfig: kubeconfig, Network: c.Network})
	if err != nil {
		return nil, err
	}
	return c, c.WaitReady(ctx)
}

// startServers starts the control plane and containerd, of which neither needs the other.
func (c *Cluster) startServers(ctx context.Context, r *Run, options ClusterOptions) error {
	both, started := errgroup.WithContext(ctx)
	both.Go(func() error {
		if err := c.ControlPlane.Start(started); err != nil || options.Apply == nil {
			return err
		}
		return options.Apply(started, c.ControlPlane)
	})
	both.Go(func() error {
		options.Containerd.Registry = options.Registry
		options.Containerd.Extra += c.Network.Containerd()
		var err error
		c.Containerd, err = r.StartContainerd(started, options.Containerd)
		return err
	})
	return both.Wait()
}

func (c *Cluster) startGate(ctx context.Context, r *Run, options ClusterOptions, kubeconfig string) error {
	if options.Node == nil {
		return nil
	}
	node := *options.Node
	node.Containerd = c.Containerd
	if options.Follow {
		node.Args = slices.Concat([]string{"--kubeconfig=" + kubeconfig, "--node-name=" + NodeName}, node.Args)
	}
	var err error
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
