package node

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/dynamic"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/objects"
	"github.com/horkos/horkos/verifier"
)

// membership is what a node has to do with the cluster that it follows.
type membership struct {
	server  *apiserver.Server
	objects *objects.Cluster
	gate    *nodeGate
	head    headKeeper // of the audit log
}

// join prepares to follow the cluster that the configuration names, and asks nothing yet.
func (n *Node) join(version string) {
	if !n.config.cluster() {
		return
	}
	m := &membership{server: apiserver.NewServer(apiserver.Options{Kubeconfig: n.config.Kubeconfig, Program: "horkos-node", Owned: true}, n.log)}
	started := n.clock.Now()
	m.gate = newNodeGate(n.config.NodeName, func() (dynamic.Interface, error) {
		clients, err := m.server.Clients()
		return clients.Objects, err
	}, func() horkos.NodeGateStatus { return n.gateStatus(version, started) }, n.client.Version, n.log)
	n.member = m
}

// recall gives what is in force of the cluster by its kept copy.
func (n *Node) recall() (crds.Set, error) {
	synced := n.gates.Synced.WithLabelValues(string(crds.Cluster)) // 0 is a value, too
	tell := func(at time.Time) { synced.Set(float64(at.Unix())) }
	cluster, set, err := objects.OpenCluster(objects.ClusterOptions{
		StateDir: n.config.StateDir, Owned: true, Node: n.config.NodeName, MaximumAge: n.config.policyAge(),
		OnSynced: tell, Now: n.clock.Now, Log: n.log,
	})
	if err != nil {
		return set, err
	}
	if at := cluster.Status().Synced; !at.IsZero() {
		tell(at)
	}
	n.member.objects = cluster
	return set, nil
}

// follow keeps to the cluster until the context ends.
func (n *Node) follow(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.member.objects.Run(ctx, func(set crds.Set) { n.take(set) }) })
	group.Go(func() error { return n.member.server.Run(ctx, n.member.objects.Follow) })
	group.Go(func() error { return n.member.gate.Run(ctx) })
	return group.Wait()
}

// changed has the NodeGate looked at soon.
func (m *membership) changed() {
	if m != nil {
		m.gate.Changed()
	}
}

// gateStatus is what the NodeGate tells.
func (n *Node) gateStatus(version string, started time.Time) horkos.NodeGateStatus {
	problems := n.problems()
	s := horkos.NodeGateStatus{
		Mode: n.config.Enforcement, Version: version,
		PolicyRevision: n.snapshot.Load().Revision(),
		Ready:          len(problems) == 0, Problems: append(problems, n.notices()...),
		StartedAt: written(started), ObservedAt: written(n.clock.Now()),
		AuditHead: n.member.head.get(),
	}
	if at := n.member.objects.Status().Synced; !at.IsZero() {
		s.SyncedAt = written(at)
	}
	for result := verifier.Denied; result <= verifier.Allowed; result++ {
		if count := n.gates.Count(result); count > 0 {
			s.Decisions = append(s.Decisions, horkos.DecisionCount{Result: result.String(), Count: count})
		}
	}
	return s
}

// written is a time as objects bear it.
func written(at time.Time) string { return at.UTC().Format(time.RFC3339) }
