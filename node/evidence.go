package node

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/plugin"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/source"
	"github.com/horkos/horkos/verifier/source/cluster"
)

// evidenceDir is the folder of the state folder with what sources answered.
const evidenceDir = "evidence"

// gather makes what has questions answered. Nothing is asked before it is run.
func (n *Node) gather() error {
	sources, err := source.Build(n.config.Sources)
	if err != nil {
		return err
	}
	if n.member != nil {
		sources = append(sources, cluster.New(n.member.server))
	}
	n.sources = sources
	n.decider = verifier.Decider{Default: n.config.defaultAction(), Sources: []evidence.Question{{Source: folderSource}}}
	names := []string{folderSource}
	for _, s := range sources {
		n.decider.Sources = append(n.decider.Sources, evidence.Question{Source: s.Name, Locator: s.Locator})
		names = append(names, s.Name)
	}
	n.lookups = countLookups(n.gates, names)
	n.fetcher = evidence.NewFetcher(evidence.FetcherOptions{
		Store: n.store, Sources: sources,
		Revision: func() string { return n.snapshot.Load().Revision() },
		Applies:  func(keyID string) bool { return len(n.snapshot.Load().Authorities(keyID)) > 0 },
		Settle: func(ctx context.Context, namespace string, q evidence.Question) error {
			return verifier.Settle(ctx, n.snapshot.Load(), n.memory, namespace, q)
		},
		Observe: n.gates.Fetched,
		Log:     n.log,
	})
	return nil
}

// loadEvidence reads what sources answered before. That it cannot be read delays, and
// admits nothing: it is asked for again.
func (n *Node) loadEvidence(owner bool) {
	if err := n.store.Load(owner); err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.log.Error("the evidence on disk is not used", "error", err)
	}
}

// onNode are all images of the node.
func (n *Node) onNode() map[image.Identity]bool {
	all := make(map[image.Identity]bool)
	for _, c := range n.index.Images() {
		for _, d := range c.Digests {
			all[image.Identity{Repository: c.Repository, Digest: d}] = true
		}
	}
	return all
}

// sweepEvery is how often sources are asked about what is not fresh any more.
const sweepEvery = time.Minute

// sweepOnChange has evidence gathered and verified ahead whenever policies or attestations
// have changed, and what is not fresh any more asked for again.
func (n *Node) sweepOnChange(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	if len(n.sources) == 0 {
		tick.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.swept:
		case <-tick.C:
			if !n.fetcher.Due() { // going through all images takes memory
				continue
			}
		}
		n.sweep(n.running(ctx))
		n.soonRest()
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

// sweep has questions about all images of the node answered, those of running pods first.
func (n *Node) sweep(running []string) {
	first := questions(n.decider.Sources, n.index.Named(running))
	n.fetcher.Sweep(append(first, questions(n.decider.Sources, n.index.Images())...))
}

// reported is told of images that containerd reports.
func (n *Node) reported(candidates []verifier.Candidate) {
	n.fetcher.Want("", questions(n.decider.Sources, candidates))
}

// spokenFor tells whether any attestation is about a candidate: of many twins, those come first.
func (n *Node) spokenFor(c verifier.Candidate) bool {
	for _, q := range questions(n.decider.Sources, []verifier.Candidate{c}) {
		if len(n.memory.Lookup(q).Attestations) > 0 {
			return true
		}
	}
	return false
}

// questions are those about the identities of candidates.
func questions(sources []evidence.Question, candidates []verifier.Candidate) []evidence.Question {
	all := make([]evidence.Question, 0, len(candidates)*len(sources))
	for _, c := range candidates {
		for _, d := range c.Digests {
			for _, q := range sources {
				q.Identity.Repository, q.Identity.Digest = c.Repository, d
				all = append(all, q)
			}
		}
	}
	return all
}

// lookups is the evidence of the node, with every look counted.
type lookups struct {
	memory *evidence.Memory
	counts map[string]*[evidence.Fresh + 1]prometheus.Counter // by source and state
}

func countLookups(m *gate.Metrics, sources []string) map[string]*[evidence.Fresh + 1]prometheus.Counter {
	counts := make(map[string]*[evidence.Fresh + 1]prometheus.Counter)
	for _, source := range sources {
		counts[source] = new([evidence.Fresh + 1]prometheus.Counter)
		for state := range counts[source] {
			counts[source][state] = m.Lookups.WithLabelValues(source, evidence.State(state).String())
		}
	}
	return counts
}

// Lookup is that of the memory.
func (l lookups) Lookup(q evidence.Question) evidence.Answer {
	answer := l.memory.Lookup(q)
	if counts := l.counts[q.Source]; counts != nil {
		counts[answer.State].Inc()
	}
	return answer
}

// Outcome is that of the memory.
func (l lookups) Outcome(key *attestation.Key, env *attestation.Envelope) (attestation.Outcome, bool) {
	return l.memory.Outcome(key, env)
}

// decide answers a request by the policies and the evidence of the moment.
func (n *Node) decide(req *verifier.Request) verifier.Decision {
	return n.decider.Decide(req, n.snapshot.Load(), lookups{n.memory, n.lookups})
}
