package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/horkos/horkos/crds/horkos"
)

const (
	// nodeGateLeast is the least time between two writes, and in what time a change is written, at
	// a time of chance: 5,000 nodes write some 500 a second, and only while all of them change.
	nodeGateLeast = 10 * time.Second
	// nodeGateBeat is how often a NodeGate is written while nothing changes, give or take a
	// fifth: whoever reads it sees by observedAt that the node still says so.
	nodeGateBeat = 5 * time.Minute
	// nodeGateTimeout bounds one write.
	nodeGateTimeout = 10 * time.Second
)

// Bounds of what a NodeGate tells, as its CRD has them.
const (
	maxNodeProblems = 16
	maxNodeProblem  = 512 // bytes
	maxNodeVersion  = 128
)

// nodeGateManager owns the fields of a NodeGate.
const nodeGateManager = "horkos-node"

var nodeGates = schema.GroupVersionResource{Group: "horkos.dev", Version: "v1alpha1", Resource: "nodegates"}

// headKeeper keeps the head of the audit log, for who is told of each and for who asks.
type headKeeper struct {
	head atomic.Pointer[horkos.AuditHead]
}

func (k *headKeeper) set(seq uint64, hash string) {
	k.head.Store(&horkos.AuditHead{Seq: int64(seq), Hash: hash})
}

// get gives nothing before there is a record.
func (k *headKeeper) get() *horkos.AuditHead { return k.head.Load() }

// nodeGate writes the NodeGate of this node: when what it says changes, at most every 10 s,
// and else every 5 minutes. That it cannot be written changes nothing on the node.
type nodeGate struct {
	name    string // of the node
	objects func() (dynamic.Interface, error)
	status  func() horkos.NodeGateStatus
	runtime func(context.Context) (string, error) // containerd's version
	log     *slog.Logger

	changed chan struct{}

	// Of the goroutine of Run.
	client  dynamic.Interface // that was written by
	written horkos.NodeGateStatus
	version string        // the runtime's, as last known
	failing string        // how writing fails, as last told
	next    time.Time     // nothing is written before
	beat    time.Time     // it is written then, changed or not
	due     time.Time     // when a change is written; zero: there is none
	pause   time.Duration // after the next failure
}

// newNodeGate makes the writer. Objects gives the client of the moment, or says why there is
// none. Status says how things stand, ObservedAt included, and does not wait. Runtime asks
// containerd for its version, which is filled in.
func newNodeGate(name string, objects func() (dynamic.Interface, error), status func() horkos.NodeGateStatus, runtime func(context.Context) (string, error), log *slog.Logger) *nodeGate {
	return &nodeGate{name: name, objects: objects, status: status, runtime: runtime, log: log, changed: make(chan struct{}, 1)}
}

// Changed has it looked soon whether there is something to write. It does not wait. What
// nobody tells of is found within 10 s.
func (g *nodeGate) Changed() {
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// Run writes until the context ends.
func (g *nodeGate) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-g.changed:
		}
		g.look(ctx)
		now := time.Now()
		wait := g.next.Sub(now)
		if !g.due.IsZero() {
			wait = max(wait, g.due.Sub(now))
		}
		if wait <= 0 {
			wait = min(nodeGateLeast, g.beat.Sub(now))
		}
		timer.Reset(max(wait, time.Second))
	}
}

// look writes if there is something to write and it may be written.
func (g *nodeGate) look(ctx context.Context) {
	objects, err := g.objects()
	now := time.Now()
	switch {
	case err != nil:
		// There is nobody to spare. That there is one again is seen at the next look.
		g.tell(err)
		g.next, g.beat = now.Add(nodeGateLeast), now
		return
	case objects != g.client: // another API server, or the same anew
		g.client, g.next, g.beat, g.pause = objects, now, now, nodeGateLeast
	}
	status := boundedStatus(g.status())
	if now.Before(g.next) || (now.Before(g.beat) && !differs(&g.written, &status)) {
		return
	}
	if now.Before(g.beat) && g.due.IsZero() { // what changes on one node changes on many
		g.due = now.Add(rand.N(nodeGateLeast))
	}
	if now.Before(g.due) {
		return
	}
	g.due = time.Time{}
	err = g.write(ctx, status)
	if ctx.Err() != nil {
		return
	}
	g.tell(err)
	if now = time.Now(); err == nil {
		g.next, g.beat, g.pause = now.Add(nodeGateLeast), now.Add(spread(nodeGateBeat)), nodeGateLeast
		return
	}
	g.next, g.beat = now.Add(spread(g.pause)), now
	g.pause = min(2*g.pause, nodeGateBeat)
}

// spread is a time give or take a fifth, so that nodes that began together do not go on so.
func spread(d time.Duration) time.Duration { return d*4/5 + rand.N(d*2/5) }

// differs tells whether there is more to say than that time has passed: the counts, the head
// of the log and the ordinary course of syncedAt wait for the next beat.
func differs(written, now *horkos.NodeGateStatus) bool {
	return written.Mode != now.Mode || written.Version != now.Version || written.PolicyRevision != now.PolicyRevision ||
		written.Ready != now.Ready || !slices.EqualFunc(written.Problems, now.Problems, sameProblem) ||
		written.StartedAt != now.StartedAt || jumped(written.SyncedAt, now.SyncedAt)
}

func sameProblem(a, b string) bool {
	if a == b {
		return true
	}
	words := func(s string) string {
		return strings.Map(func(c rune) rune {
			if '0' <= c && c <= '9' {
				return -1
			}
			return c
		}, s)
	}
	return words(a) == words(b)
}

// jumped tells whether syncedAt did not just go on.
func jumped(from, to string) bool {
	if from == "" || to == "" {
		return from != to
	}
	before, err1 := time.Parse(time.RFC3339, from)
	after, err2 := time.Parse(time.RFC3339, to)
	d := after.Sub(before)
	return err1 != nil || err2 != nil || d < 0 || d > 2*nodeGateBeat
}

// write applies a status: to the NodeGate that is there or, where there is none, to a new one.
func (g *nodeGate) write(ctx context.Context, status horkos.NodeGateStatus) error {
	ctx, cancel := context.WithTimeout(ctx, nodeGateTimeout)
	defer cancel()
	if version, err := g.runtime(ctx); err == nil && version != "" {
		g.version = "containerd://" + strings.TrimPrefix(version, "v")
	}
	status.RuntimeVersion = clip(g.version, maxNodeVersion)
	err := g.apply(ctx, &status, "status")
	if apierrors.IsNotFound(err) {
		if err = g.apply(ctx, nil); err == nil {
			err = g.apply(ctx, &status, "status")
		}
	}
	if err == nil {
		g.written = status
	}
	return err
}

func (g *nodeGate) apply(ctx context.Context, status *horkos.NodeGateStatus, subresource ...string) error {
	text, err := json.Marshal(struct {
		APIVersion string                 `json:"apiVersion"`
		Kind       string                 `json:"kind"`
		Metadata   map[string]string      `json:"metadata"`
		Status     *horkos.NodeGateStatus `json:"status,omitempty"`
	}{horkos.GroupVersion, horkos.KindNodeGate, map[string]string{"name": g.name}, status})
	if err != nil {
		return fmt.Errorf("write the NodeGate: %w", err)
	}
	force := true // nobody else has anything to say about this node
	_, err = g.client.Resource(nodeGates).Patch(ctx, g.name, types.ApplyPatchType, text,
		metav1.PatchOptions{FieldManager: nodeGateManager, Force: &force}, subresource...)
	return err
}

// tell says when writing fails, when it fails in another way, and when it does not any more.
// That the API server is away is ordinary; that it refuses is for somebody to put right.
func (g *nodeGate) tell(err error) {
	how := failureOf(err)
	if how == g.failing {
		return
	}
	g.failing = how
	switch {
	case how == "":
		g.log.Debug("the NodeGate is written again")
	case how == nodeGateAway:
		g.log.Debug("the NodeGate cannot be written", "error", err)
	default:
		g.log.Warn("the API server refuses the NodeGate of this node; the CRDs and roles of Horkos let it be written", "nodegate", g.name, "error", err)
	}
}

const nodeGateAway = "away"

// failureOf tells how writing fails: not, for want of an API server, or by its refusal.
func failureOf(err error) string {
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &status):
		return nodeGateAway
	}
	switch code := status.Status().Code; {
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500:
		return nodeGateAway
	default:
		return http.StatusText(int(code))
	}
}

// boundedStatus holds what is said to what a NodeGate takes: the API server would refuse all of it.
func boundedStatus(s horkos.NodeGateStatus) horkos.NodeGateStatus {
	problems := slices.Clone(s.Problems[:min(len(s.Problems), maxNodeProblems)])
	if more := len(s.Problems) - maxNodeProblems; more > 0 {
		problems[maxNodeProblems-1] = fmt.Sprintf("and %d more: /readyz of the node tells all", more+1)
	}
	for i, p := range problems {
		problems[i] = clip(p, maxNodeProblem)
	}
	s.Problems = problems
	s.Version = clip(s.Version, maxNodeVersion)
	return s
}

func clip(s string, bytes int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > bytes {
		s = strings.ToValidUTF8(s[:bytes-3], "") + "..."
	}
	return s
}
