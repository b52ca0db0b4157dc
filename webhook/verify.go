package webhook

import (
	"context"
	"slices"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
)

// maxRounds bounds how often what is missing is asked for: each answer can only make known
// what further questions are about.
const maxRounds = 4

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

// Verify decides, asks for what is missing, and decides again, while that tells anything
// new, and twice at least: what is answered first may be verified when it is asked for again.
// The error is that of the context.
func (w *waiting) Verify(ctx context.Context, req *verifier.Request) (verifier.Decision, error) {
	dec := w.decider.Decide(req, w.snapshot(), w.memory)
	for round := 1; round < maxRounds && len(dec.Missing) > 0; round++ {
		// What cannot be asked for, because too much is, stays missing and refuses.
		if err := w.fetcher.Ask(ctx, req.Namespace, dec.Missing); ctx.Err() != nil {
			return dec, ctx.Err()
		} else if err != nil {
			return dec, nil
		}
		before := dec.Missing
		dec = w.decider.Decide(req, w.snapshot(), w.memory)
		if round > 1 && slices.Equal(before, dec.Missing) {
			break
		}
	}
	return dec, nil
}
