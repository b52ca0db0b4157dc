package controller

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/horkos/horkos/apiserver"
)

// Grace is how long a node is gone before its NodeGate goes.
const Grace = 10 * time.Minute

// vanished remembers since when the nodes of NodeGates have been gone.
type vanished struct {
	grace time.Duration
	since map[types.UID]time.Time // by UID of the NodeGate
}

// due are the NodeGates whose node has been gone for the grace. Where no node is known at
// all, nothing can be said about any.
func (v *vanished) due(nodes, gates []metav1.Object, now time.Time) []metav1.Object {
	if len(nodes) == 0 {
		v.since = nil
		return nil
	}
	there := make(map[string]bool, len(nodes))
	for _, n := range nodes {
		there[n.GetName()] = true
	}
	since := make(map[types.UID]time.Time)
	var due []metav1.Object
	for _, g := range gates {
		if there[g.GetName()] {
			continue
		}
		first, ok := v.since[g.GetUID()]
		if !ok {
			first = now
		}
		since[g.GetUID()] = first
		if now.Sub(first) >= v.grace {
			due = append(due, g)
		}
	}
	v.since = since
	return due
}

// forget removes the NodeGate of a node that is gone. The API server is asked first: what was
// watched may be old.
func forget(ctx context.Context, clients apiserver.Clients, log *slog.Logger, gate metav1.Object) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	name, uid := gate.GetName(), gate.GetUID()
	nodes, err := clients.Metadata.Resource(Nodes().GroupVersionResource).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return fmt.Errorf("look for node %s: %w", name, err)
	}
	if len(nodes.Items) > 0 {
		return nil
	}
	err = clients.Objects.Resource(NodeGates().GroupVersionResource).Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete the NodeGate of node %s, which is gone: %w", name, err)
	}
	log.Info("deleted the NodeGate of a node that is gone", "node", name)
	return nil
}
