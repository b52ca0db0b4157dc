package plugin

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/horkos/horkos/audit"
	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/plugin/containerd"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
)

// fakeNode is all that a Plugin asks. Its zero value binds nothing and refuses everything.
type fakeNode struct {
	decide  func(*verifier.Request) verifier.Decision
	bind    func(context.Context, containerd.Claim) []verifier.Image
	sandbox verifier.Image

	mu      sync.Mutex
	claims  []containerd.Claim
	records []audit.Record
	wanted  []evidence.Question
	states  chan State
}

func (f *fakeNode) Bind(ctx context.Context, c containerd.Claim) []verifier.Image {
	f.mu.Lock()
	f.claims = append(f.claims, c)
	f.mu.Unlock()
	if f.bind != nil {
		return f.bind(ctx, c)
	}
	return []verifier.Image{{Written: c.Requested}}
}

func (f *fakeNode) BindSandbox(context.Context, string) verifier.Image { return f.sandbox }

func (f *fakeNode) Append(r *audit.Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records = append(f.records, *r)
	return nil
}

func (f *fakeNode) Want(_ string, q []evidence.Question) { f.wanted = append(f.wanted, q...) }

// plugin makes a Plugin at the node; change is optional.
func (f *fakeNode) plugin(t *testing.T, change func(*Options)) *Plugin {
	t.Helper()
	if f.decide == nil {
		f.decide = refuseAll
	}
	f.states = make(chan State, 64)
	log := slog.New(slog.DiscardHandler)
	o := Options{
		Binder: f, Decide: f.decide, Wanter: f,
		Shell:        &gate.Shell{Gate: GateName, Node: "node", Mode: gate.Enforce, Records: f, Log: log, Now: time.Now},
		MaxSpecBytes: DefaultMaxSpecBytes, MaxSyncBytes: DefaultMaxSyncBytes,
		Before:  func(context.Context) error { return nil },
		Changed: func(s State) { f.states <- s },
		Now:     time.Now, Log: log,
	}
	if change != nil {
		change(&o)
	}
	return New(o)
}

func refuseAll(req *verifier.Request) verifier.Decision {
	return verifier.Refuse(req, verifier.Denied, verifier.NotAttested, "")
}

func allowAll(req *verifier.Request) verifier.Decision {
	return verifier.Refuse(req, verifier.Allowed, verifier.Attested, "")
}

const pauseDigest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func floorOf(t *testing.T, lines string) func() *gate.Floor {
	t.Helper()
	f, err := gate.ParseFloor([]byte(lines))
	if err != nil {
		t.Fatal(err)
	}
	return func() *gate.Floor { return f }
}

func pauseImage(digest string) verifier.Image {
	return verifier.Image{Written: "pause", Digests: []image.Digest{image.Digest(digest)}}
}

type failingRecords struct{}

func (failingRecords) Append(*audit.Record) error { return errors.New("the disk is full") }
