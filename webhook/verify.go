package webhook

import (
	"context"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
)

// asker has questions answered and waits until they are.
type asker interface {
	Ask(ctx context.Context, namespace string, questions []evidence.Question) error
}

// waiting decides as a node does, for a gate that may wait for evidence.
type waiting struct {
	decider  verifier.Decider
	snapshot func() *policy.Snapshot
	memory   *evidence.Memory
	fetcher  asker
}

// Verify decides, in verifier.Rounds. The error is that of the context.
func (w *waiting) Verify(ctx context.Context, req *verifier.Request) (verifier.Decision, error) {
	dec, err := verifier.Rounds(func() verifier.Decision { return w.decider.Decide(req, w.snapshot(), w.memory) }, func(missing []evidence.Question) error {
		return w.fetcher.Ask(ctx, req.Namespace, missing)
	})
	if ctx.Err() == nil {
		err = nil // too much is asked for: what is missing stays so, and refuses
	}
	return dec, err
}
