package node

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
)

// askedOf is a source that tells what it is asked, and holds nothing.
type askedOf chan image.Identity

func (a askedOf) Fetch(_ context.Context, q evidence.Question) ([]evidence.Attestation, error) {
	a <- q.Identity
	return nil, nil
}

// Images are listed while the evidence on disk is read: what is in it must not be asked for.
func TestWhatIsListedBeforeTheEvidenceIsReadIsNotAskedFor(t *testing.T) {
	asked := make(askedOf, 8)
	question := evidence.Question{Source: "s", Locator: "here"}
	n := &Node{memory: evidence.NewMemory()}
	n.decider.Sources = []evidence.Question{question}
	n.store = evidence.NewStore(n.memory, evidence.StoreOptions{Dir: t.TempDir(), Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	n.fetcher = evidence.NewFetcher(evidence.FetcherOptions{
		Store: n.store, Sources: []evidence.Asked{{Name: question.Source, Locator: question.Locator, Timeout: time.Minute, Source: asked}},
		Revision: func() string { return "" }, Applies: func(string) bool { return false },
		Settle: func(context.Context, string, evidence.Question) error { return nil },
		Log:    slog.New(slog.DiscardHandler),
	})
	early, late := verifier.Candidate{Repository: "early", Digests: []image.Digest{"d"}}, verifier.Candidate{Repository: "late", Digests: []image.Digest{"d"}}
	n.listed([]verifier.Candidate{early})
	n.recalled.Store(true)
	n.listed([]verifier.Candidate{late})

	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.fetcher.Run(ctx) }()
	if first := <-asked; first.Repository != "late" {
		t.Errorf("%s was asked for", first)
	}
	end()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if len(asked) != 0 {
		t.Errorf("%s was asked for", <-asked)
	}
}
