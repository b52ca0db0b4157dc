package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
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
	"github.com/horkos/horkos/state"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
	"github.com/horkos/horkos/verifier/source"
	attestations "github.com/horkos/horkos/verifier/source/objects"
)

// folderSource is the name under which the attestations of the policy folder are asked for.
const folderSource = "folder"

// Node is the daemon of one node.
type Node struct {
	config  Config
	log     *slog.Logger
	metrics *prometheus.Registry
	gates   *gate.Metrics

	clock    *clock
	decider  verifier.Decider
	memory   *evidence.Memory
	store    *evidence.Store
	sources  []evidence.Asked
	fetcher  *evidence.Fetcher
	lookups  map[string]*[evidence.Fresh + 1]prometheus.Counter
	snapshot atomic.Pointer[policy.Snapshot]
	records  *audit.Log
	floor    *floorFile
	shell    *gate.Shell
	client   *containerd.Client
	index    *containerd.Index
	plugin   *plugin.Plugin
	service  *service
	swept    chan struct{} // told when there is something to sweep
	worked   chan struct{} // told when much was done that is not done often
	recalled atomic.Bool   // the evidence on disk is read

	member *membership // nil where no cluster is followed

	taking   sync.Mutex // one takes at a time
	compiler policy.Compiler
	standing string // why some of what is in force is not the newest, as last reported

	mu   sync.Mutex
	sets map[crds.Origin]crds.Set // what is in force of each origin
	away string                   // why the plugin is kept away from the runtime, as last reported
}

// takeover is how long a daemon waits for the one before it to end.
const takeover = 30 * time.Second

// Run runs the daemon until the context ends. It returns an error when it cannot start
// or a part of it fails for good; a runtime that is not there yet is waited for.
func Run(ctx context.Context, config Config, version string, log *slog.Logger) error {
	n := &Node{sets: make(map[crds.Origin]crds.Set), config: config, log: log, metrics: prometheus.NewRegistry(), memory: evidence.NewMemory(), swept: make(chan struct{}, 1), worked: make(chan struct{}, 1)}
	n.gates = gate.NewMetrics(n.metrics, version)
	n.snapshot.Store(policy.Compile())
	n.clock = newClock(config.StateDir, log)
	n.store = evidence.NewStore(n.memory, evidence.StoreOptions{
		Dir: filepath.Join(config.StateDir, evidenceDir), Node: config.NodeName, Now: n.clock.Now, OnNode: n.onNode, Log: log,
	})
	var err error
	if n.client, err = containerd.Dial(config.ContainerdAddress, config.ContainerdNamespace); err != nil {
		return err
	}
	defer n.client.Close()
	n.index = containerd.NewIndex(n.client, containerd.Options{Log: log, OnChange: n.listed, OnRelist: n.soonRest, Prefer: n.spokenFor})
	n.join(version)
	if err := n.gather(); err != nil {
		return err
	}
	defer source.Close(n.sources)
	lock, err := n.own(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	return n.run(ctx)
}

// own takes the state folder, and waits for a daemon that still has it.
func (n *Node) own(ctx context.Context) (*state.Lock, error) {
	lock, err := state.Own(ctx, n.config.StateDir, takeover, func() {
		n.log.Info("another horkos-node has the state folder: waiting for it to end", "folder", n.config.StateDir, "for", takeover)
		n.loadEvidence(false)
	})
	if err != nil {
		return nil, err
	}
	// The kept copy of the policies and the clock say their versions themselves.
	aside, err := lock.Adopt(evidenceDir)
	if err != nil {
		lock.Close()
		return nil, err
	}
	if aside != "" {
		n.log.Error(aside)
	}
	return lock, nil
}

// run is what the owner of the state folder does.
func (n *Node) run(ctx context.Context) error {
	config, log, name := n.config, n.log, n.config.NodeName
	ctx, end := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	defer func() { // also where it cannot start
		end()
		_ = group.Wait()
	}()
	// To list all images takes longest, and needs nothing of what follows.
	group.Go(func() error { return n.index.Run(ctx) })
	n.clock.begin()
	var recall sync.WaitGroup // is read beside the policies
	recall.Go(func() {
		n.loadEvidence(true)
		n.recalled.Store(true)
	})
	defer recall.Wait()
	var err error
	if n.floor, err = openFloor(config.Floor, log); err != nil {
		return err
	}
	n.records, err = audit.Open(audit.Options{
		Path: config.AuditLog, Node: name, MaxBytes: int64(config.AuditMaxBytes), MaxFiles: config.AuditMaxFiles,
		OnHead: n.atHead,
		Log:    log, Now: n.clock.Now,
	})
	if err != nil {
		return err
	}
	folder, first, err := objects.OpenFolder(objects.FolderOptions{Dir: config.PolicyDir, StateDir: config.StateDir, Owned: true, Log: log})
	if err != nil {
		return err
	}
	known := []crds.Set{first}
	if n.member != nil {
		kept, err := n.recall()
		if err != nil {
			return err
		}
		known = append(known, kept)
	}
	n.shell = &gate.Shell{Gate: plugin.GateName, Node: name, Mode: gate.Mode(config.Enforcement), AuditFailure: gate.AuditFailure(config.AuditFailure),
		Floor: n.floor.Floor, Records: n.records, Metrics: n.gates, Log: log, Now: n.clock.Now}
	recall.Wait()
	n.take(known...)
	n.plugin = plugin.New(plugin.Options{
		Socket: config.NRISocket, Binder: n.index, Decide: n.decide, Wanter: n.fetcher, Shell: n.shell,
		MaxSpecBytes: config.MaxSpecBytes, MaxSyncBytes: config.MaxSyncBytes,
		Before: n.mayRegister, Explain: n.explain, Changed: func(plugin.State) { n.service.Changed(); n.member.changed() },
		Now: n.clock.Now, Log: log,
	})
	n.service = newService(n.problems, n.notices, func() bool { return n.plugin.State().Synchronized }, n.probe)

	if config.HealthAddress != "" {
		listener, err := listenHealth(config.HealthAddress)
		if err != nil {
			return err
		}
		group.Go(func() error { return serveHealth(ctx, listener, n.problems, n.notices, n.metrics) })
	}
	group.Go(func() error { return n.clock.Run(ctx) })
	group.Go(func() error { return n.records.Run(ctx) })
	group.Go(func() error { return n.store.Run(ctx) })
	group.Go(func() error { return n.floor.Run(ctx) })
	group.Go(func() error { return folder.Run(ctx, func(set crds.Set) { n.take(set) }) })
	if n.member != nil {
		group.Go(func() error { return n.follow(ctx) })
	}
	group.Go(func() error { return n.fetcher.Run(ctx) })
	group.Go(func() error { return n.sweepOnChange(ctx) })
	group.Go(func() error { return n.rest(ctx) })
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

// take puts sets in force, each in the place of the last of its origin.
func (n *Node) take(sets ...crds.Set) {
	n.taking.Lock()
	defer n.taking.Unlock()
	var ignored []attestations.Ignored
	for _, set := range sets {
		if set.Origin == crds.Folder {
			var records evidence.Records
			records, ignored = attestations.Records(set.Objects)
			n.memory.Replace(folderSource, records)
		}
	}
	var all []crds.Set
	objects, standing := 0, ""
	n.mu.Lock()
	for _, set := range sets {
		n.sets[set.Origin] = set
	}
	for _, origin := range []crds.Origin{crds.Folder, crds.Cluster} {
		if set, ok := n.sets[origin]; ok {
			all = append(all, set)
			objects += len(set.Objects)
			standing += standingOf(set)
		}
	}
	n.mu.Unlock()
	snap := n.compiler.Compile(all...)
	before := n.snapshot.Swap(snap)
	same := snap.Revision() == before.Revision() && standing == n.standing && !slices.ContainsFunc(sets, isFolder) &&
		slices.EqualFunc(snap.Findings(), before.Findings(), func(a, b policy.Finding) bool { return a.Object == b.Object && a.Message == b.Message })
	if same {
		return // namespaces come and go, and say nothing to any policy
	}
	n.standing = standing
	n.report(ignored, snap.Findings())
	n.gates.InForce(snap.Revision())
	n.log.Info("policies are in force", "revision", snap.Revision(), "objects", objects, "standing", standing)
	select {
	case n.swept <- struct{}{}:
	default:
	}
	if n.service != nil {
		n.service.Changed()
		n.member.changed()
	}
}

// standingOf says why what is in force of an origin is not the newest; empty when it is.
func standingOf(set crds.Set) string {
	text := ""
	if set.Stale != "" {
		text += string(set.Origin) + ": " + set.Stale + "\n"
	}
	if set.Unknown != nil {
		text += string(set.Origin) + ": " + set.Unknown.Message + "\n"
	}
	return text
}

func isFolder(set crds.Set) bool { return set.Origin == crds.Folder }

// atHead is told of each record of the audit log.
func (n *Node) atHead(seq uint64, hash string) {
	n.gates.AuditHead.Set(float64(seq))
	if n.member != nil {
		n.member.head.set(seq, hash)
	}
}

// maxReported bounds what one change of the folder writes to the log.
const maxReported = 20

func (n *Node) report(ignored []attestations.Ignored, findings []policy.Finding) {
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

// probe decides about an image that does not exist, through the whole of Decide and the
// gate's shell, without I/O and counters.
func (n *Node) probe() error {
	const digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	req := &verifier.Request{Namespace: "horkos-probe", Time: n.clock.Now(), Images: []verifier.Image{{
		Written: "probe", Config: digest, Digests: []image.Digest{digest},
		Candidates: []verifier.Candidate{{Repository: "horkos.invalid/probe", Digests: []image.Digest{digest}}},
	}}}
	v := n.shell.Judge(req, n.decider.Decide(req, n.snapshot.Load(), n.memory))
	if v.Decision.Reason == verifier.Attested || v.Decision.Reason == verifier.Internal {
		return fmt.Errorf("the probe was %s, %s", v.Decision.Result, v.Decision.Reason)
	}
	return nil
}

// problems says why the node is not ready; none means that it gates.
func (n *Node) problems() []string {
	n.mu.Lock()
	folder, cluster, away := n.sets[crds.Folder], n.sets[crds.Cluster], n.away
	n.mu.Unlock()
	var all []string
	if folder.Stale != "" {
		all = append(all, "policies: "+folder.Stale)
	}
	if cluster.Stale != "" {
		all = append(all, "cluster: "+cluster.Stale)
	}
	if cluster.Unknown != nil {
		all = append(all, "cluster: "+cluster.Unknown.Message)
	}
	if p := n.floor.Problem(); p != "" {
		all = append(all, "floor: "+p)
	}
	if p := n.records.Problem(); p != "" {
		all = append(all, "audit log: "+p)
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

// notices say what is wrong and does not keep the node from gating.
func (n *Node) notices() []string {
	var all []string
	if p := n.clock.Problem(); p != "" {
		all = append(all, "time: "+p)
	}
	if n.member != nil {
		if s := n.member.objects.Status(); s.Problem != "" {
			all = append(all, "cluster: "+s.Problem+n.since(s.Synced))
		}
	}
	if p := n.store.Problem(); p != "" {
		all = append(all, "evidence: "+p)
	}
	return all
}

// since says how old what is in force of the cluster is.
func (n *Node) since(synced time.Time) string {
	if synced.IsZero() {
		return ""
	}
	return fmt.Sprintf("; its policies are those of %s", synced.UTC().Format(time.RFC3339))
}
