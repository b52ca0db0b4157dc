package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/clientcmd"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/objects"
)

// probe is the name of the policy that is changed.
const probe = "probe"

// node is what of a node talks to the API server.
type node struct {
	name    string
	clients apiserver.Clients
	cluster *objects.Cluster

	begun atomic.Int64 // Unix nanoseconds

	mu   sync.Mutex
	seen map[string]time.Time // when each content of the probe came in force
}

// newNode makes a node with a certificate of its own. It asks nothing yet.
func (s *scale) newNode(name string) (*node, error) {
	text, err := s.control.Kubeconfig("system:node:"+name, "system:nodes")
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(text)
	if err != nil {
		return nil, err
	}
	config.UserAgent, config.Dial = "horkos-node/bench", s.wire.dial
	n := &node{name: name, seen: make(map[string]time.Time)}
	if n.clients, err = apiserver.Connect(config); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.states, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	n.cluster, _, err = objects.OpenCluster(objects.ClusterOptions{
		StateDir:   dir,
		Node:       name,
		MaximumAge: objects.DefaultMaximumAge,
		Now:        time.Now,
		Log:        slog.New(slog.DiscardHandler),
	})
	return n, err
}

// run follows the cluster until the context ends.
func (n *node) run(ctx context.Context) error {
	defer n.clients.Close()
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return n.cluster.Run(ctx, n.take) })
	both.Go(func() error { return n.cluster.Follow(ctx, n.clients) })
	if err := both.Wait(); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", n.name, err)
	}
	return nil
}

// take notes when the probe came in force.
func (n *node) take(set crds.Set) {
	now := time.Now()
	if set.Unknown != nil {
		return
	}
	for _, o := range set.Objects {
		spec, ok := o.Spec.(*horkos.ClusterAttestationPolicySpec)
		if !ok || o.Name != probe || len(spec.Images) == 0 {
			continue
		}
		n.mu.Lock()
		if _, known := n.seen[spec.Images[0]]; !known {
			n.seen[spec.Images[0]] = now
		}
		n.mu.Unlock()
	}
}

// saw is when the content of the probe came in force; zero: not yet.
func (n *node) saw(content string) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.seen[content]
}

// follows tells whether all that the node watches is watched now.
func (n *node) follows() bool {
	s := n.cluster.Status()
	return s.Problem == "" && !s.Synced.IsZero()
}

var gates = schema.GroupVersionResource{Group: "horkos.dev", Version: "v1alpha1", Resource: "nodegates"}

// report applies the NodeGate of the node: what it says of itself every 5 minutes.
func (n *node) report(ctx context.Context) error {
	now := time.Now().UTC().Format(time.RFC3339)
	gate := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "horkos.dev/v1alpha1", "kind": "NodeGate", "metadata": map[string]any{"name": n.name},
		"status": map[string]any{
			"mode": "enforce", "version": "v0.1.0", "runtimeVersion": "containerd 2.4.2", "policyRevision": digest(now)[7:],
			"syncedAt": now, "ready": true, "startedAt": now, "observedAt": now,
			"decisions": []any{map[string]any{"result": "allowed", "count": int64(time.Now().Unix())}},
			"auditHead": map[string]any{"seq": int64(time.Now().UnixNano()), "hash": digest(now)[7:]},
		},
	}}
	_, err := n.clients.Objects.Resource(gates).ApplyStatus(ctx, n.name, gate, metav1.ApplyOptions{FieldManager: "horkos-node", Force: true})
	return err
}

// create makes the NodeGate, once.
func (n *node) create(ctx context.Context) error {
	gate := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "horkos.dev/v1alpha1", "kind": "NodeGate", "metadata": map[string]any{"name": n.name},
	}}
	_, err := n.clients.Objects.Resource(gates).Apply(ctx, n.name, gate, metav1.ApplyOptions{FieldManager: "horkos-node", Force: true})
	return err
}

// maxAttestation is more than an ImageAttestation has.
const maxAttestation = 2 << 20

// attested asks for the attestations of an image.
func (n *node) attested(ctx context.Context, image string) error {
	status, _, err := n.clients.Get(ctx, horkosAPI+"/imageattestations/"+image, maxAttestation)
	if err == nil && status != 200 {
		err = fmt.Errorf("asked for an ImageAttestation, the API server answers %d", status)
	}
	return err
}
