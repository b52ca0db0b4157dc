package webhook

import (
	"context"
	"time"

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

// betterWithin is how long an image that is attested waits for what is known of it to be known
// better: an answer that is stale attests still.
const betterWithin = time.Second

// Verify decides, in verifier.Rounds. The error is that of the context.
func (w *waiting) Verify(ctx context.Context, req *verifier.Request) (verifier.Decision, error) {
	var last verifier.Decision
	decide := func() verifier.Decision {
		last = w.decider.Decide(req, w.snapshot(), w.memory)
		return last
	}
	dec, err := verifier.Rounds(decide, func(missing []evidence.Question) error {
		if last.Result != verifier.Allowed {
			return w.fetcher.Ask(ctx, req.Namespace, missing)
		}
		soon, cancel := context.WithTimeout(ctx, betterWithin)
		defer cancel()
		return w.fetcher.Ask(soon, req.Namespace, missing)
	})
	if ctx.Err() == nil {
		err = nil // too much is asked for: what is missing stays so, and refuses
	}
	return dec, err
}
