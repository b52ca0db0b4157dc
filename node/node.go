package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/horkos/horkos/audit"
	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/objects"
	"github.com/horkos/horkos/plugin"
	"github.com/horkos/horkos/plugin/containerd"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
	source "github.com/horkos/horkos/verifier/source/objects"
)

// folderSource is the name under which the attestations of the policy folder are asked for.
const folderSource = "folder"

// Node is the daemon of one node.
type Node struct {
	config  Config
	log     *slog.Logger
	metrics *prometheus.Registry

	decider  verifier.Decider
	memory   *evidence.Memory
	snapshot atomic.Pointer[policy.Snapshot]
	prefetch *prefetch
	floor    *floorFile
	shell    *gate.Shell
	client   *containerd.Client
	index    *containerd.Index
	plugin   *plugin.Plugin
	service  *service
	swept    chan struct{} // told when there is something to sweep

	mu    sync.Mutex
	stale string // why the policies in force are not the newest
	away  string // why the plugin is kept away from the runtime, as last reported
}

// Run runs the daemon until the context ends. It returns an error when it cannot start
// or a part of it fails for good; a runtime that is not there yet is waited for.
func Run(ctx context.Context, config Config, version string, log *slog.Logger) error {
	lock, err := ownState(config.StateDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	n := &Node{config: config, log: log, metrics: prometheus.NewRegistry(), memory: evidence.NewMemory(), swept: make(chan struct{}, 1)}
	n.decider = verifier.Decider{Default: config.defaultAction(), Sources: []evidence.Question{{Source: folderSource}}}
	if n.floor, err = openFloor(config.Floor, log); err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("ask for the node's name: %w", err)
	}
	records, err := audit.Open(config.AuditLog, name)
	if err != nil {
		return err
	}
	folder, first, err := objects.OpenFolder(objects.FolderOptions{Dir: config.PolicyDir, StateDir: config.StateDir, Owned: true, Log: log})
	if err != nil {
		return err
	}
	metrics := gate.NewMetrics(n.metrics, version)
	n.shell = &gate.Shell{Gate: plugin.GateName, Node: name, Mode: gate.Mode(config.Enforcement), Floor: n.floor.Floor,
		Records: records, Metrics: metrics, Log: log, Now: time.Now}
	n.prefetch = newPrefetch(n.memory, n.snapshot.Load)
	n.take(first)

	if n.client, err = containerd.Dial(config.ContainerdAddress, config.ContainerdNamespace); err != nil {
		return err
	}
	defer n.client.Close()
	n.index = containerd.NewIndex(n.client, containerd.Options{Log: log, OnChange: n.reported, Prefer: n.spokenFor})
	n.plugin = plugin.New(plugin.Options{
		Socket: config.NRISocket, Binder: n.index, Decide: n.decide, Wanter: n.prefetch, Shell: n.shell,
		MaxSpecBytes: config.MaxSpecBytes, MaxSyncBytes: config.MaxSyncBytes,
		Before: n.mayRegister, Explain: n.explain, Changed: func(plugin.State) { n.service.Changed() },
		Now: time.Now, Log: log,
	})
	n.service = newService(n.problems, func() bool { return n.plugin.State().Synchronized }, n.probe)

	group, ctx := errgroup.WithContext(ctx)
	if config.HealthAddress != "" {
		listener, err := listenHealth(config.HealthAddress)
		if err != nil {
			return err
		}
		group.Go(func() error { return serveHealth(ctx, listener, n.problems, n.metrics) })
	}
	group.Go(func() error { return records.Run(ctx) })
	group.Go(func() error { return n.floor.Run(ctx) })
	group.Go(func() error { return folder.Run(ctx, n.take) })
	group.Go(func() error { return n.prefetch.Run(ctx) })
	group.Go(func() error { return n.index.Run(ctx) })
	group.Go(func() error { return n.sweepOnChange(ctx) })
	group.Go(func() error {
		if err := n.start(ctx); err != nil {
			return err
		}
		return n.plugin.Run(ctx)
	})
	group.Go(func() error { return n.service.Run(ctx) })
	if err := group.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// take puts the objects of the folder in force.
func (n *Node) take(set crds.Set) {
	attestations, ignored := source.Records(set.Objects)
	snap := policy.Compile(set)
	n.report(ignored, snap.Findings())
	n.memory.Replace(folderSource, attestations)
	n.snapshot.Store(snap)
	n.shell.Metrics.InForce(snap.Revision())
	n.mu.Lock()
	n.stale = set.Stale
	n.mu.Unlock()
	n.log.Info("policies are in force", "revision", snap.Revision(), "objects", len(set.Objects), "stale", set.Stale)
	select {
	case n.swept <- struct{}{}:
	default:
	}
	if n.service != nil {
		n.service.Changed()
	}
}

// maxReported bounds what one change of the folder writes to the log.
const maxReported = 20

func (n *Node) report(ignored []source.Ignored, findings []policy.Finding) {
	for _, i := range ignored[:min(len(ignored), maxReported)] {
		n.log.Warn("an attestation is ignored", "object", i.Object, "source", i.Source, "problem", i.Message)
	}
	for _, f := range findings[:min(len(findings), maxReported)] {
		n.log.Warn("the policies have a problem", "object", f.Object, "source", f.Source, "problem", f.Message, "ignored", f.Ignored)
	}
	if more := max(len(ignored)-maxReported, 0) + max(len(findings)-maxReported, 0); more > 0 {
		n.log.Warn("there are more problems; horkos verify --policy FOLDER lists all", "more", more)
	}
}

// sweepOnChange verifies signatures ahead whenever policies or attestations have changed.
func (n *Node) sweepOnChange(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.swept:
			n.sweep(n.running(ctx))
		}
	}
}

// running are the names of the images of the containers of the node. Not to know them
// costs an order, nothing else.
func (n *Node) running(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	inventory, err := n.client.Inventory(ctx, plugin.MaxObjectBytes)
	if err != nil {
		n.log.Debug("what runs on the node is not known", "error", err)
	}
	return inventory.Images
}

// sweep has the signatures about all images of the node verified, those of running pods first.
func (n *Node) sweep(running []string) {
	first := questions(n.decider.Sources, n.index.Named(running))
	n.prefetch.Sweep(append(first, questions(n.decider.Sources, n.index.Images())...))
}

// reported is told of images that containerd reports.
func (n *Node) reported(candidates []verifier.Candidate) {
	n.prefetch.Want(questions(n.decider.Sources, candidates))
}

// spokenFor tells whether any attestation is about a candidate: of many twins, those come first.
func (n *Node) spokenFor(c verifier.Candidate) bool {
	for _, q := range questions(n.decider.Sources, []verifier.Candidate{c}) {
		if attestations, _ := n.memory.Lookup(q); len(attestations) > 0 {
			return true
		}
	}
	return false
}

func (n *Node) decide(req *verifier.Request) verifier.Decision {
	return n.decider.Decide(req, n.snapshot.Load(), n.memory)
}

// probe decides about an image that does not exist, through the whole of Decide and the
// gate's shell, without I/O and counters.
func (n *Node) probe() error {
	const digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	req := &verifier.Request{Namespace: "horkos-probe", Time: time.Now(), Images: []verifier.Image{{
		Written: "probe", Config: digest, Digests: []image.Digest{digest},
		Candidates: []verifier.Candidate{{Repository: "horkos.invalid/probe", Digests: []image.Digest{digest}}},
	}}}
	v := n.shell.Judge(req, n.decide(req))
	if v.Decision.Reason == verifier.Attested || v.Decision.Reason == verifier.Internal {
		return fmt.Errorf("the probe was %s, %s", v.Decision.Result, v.Decision.Reason)
	}
	return nil
}

// problems says why the node is not ready; none means that it gates.
func (n *Node) problems() []string {
	n.mu.Lock()
	stale, away := n.stale, n.away
	n.mu.Unlock()
	var all []string
	if stale != "" {
		all = append(all, "policies: "+stale)
	}
	if p := n.floor.Problem(); p != "" {
		all = append(all, "floor: "+p)
	}
	if !n.index.Ready() {
		all = append(all, "images: containerd's records are not followed at "+n.config.ContainerdAddress)
	}
	if s := n.plugin.State(); !s.Synchronized {
		problem := cmp.Or(away, s.Problem, "not registered with the runtime yet")
		all = append(all, "runtime: "+problem)
	}
	return all
}
