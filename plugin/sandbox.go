package plugin

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"

	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// pauses remembers which sandboxes run a pause image that the floor vouches for. The
// event about a sandbox comes after its pause process started, and is lost while the
// plugin is away; what counts is that no container is created in a bad sandbox.
type pauses struct {
	mu      sync.Mutex
	good    map[string]bool
	pending []*api.PodSandbox // found when synchronising, to be judged in the background
	wake    chan struct{}
}

func newPauses() *pauses {
	return &pauses{good: make(map[string]bool), wake: make(chan struct{}, 1)}
}

func (s *pauses) reset(pods []*api.PodSandbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.good = make(map[string]bool)
	s.pending = pods
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *pauses) isGood(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.good[id]
}

func (s *pauses) set(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.good[id] = true
}

func (s *pauses) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.good, id)
}

// next takes one sandbox that waits to be judged.
func (s *pauses) next() (*api.PodSandbox, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) == 0 {
		return nil, false
	}
	pod := s.pending[0]
	s.pending = s.pending[1:]
	return pod, true
}

// judgeSandboxes judges the sandboxes found when synchronising, until the context ends:
// a bad one is reported at once, and no container is created in it.
func (p *Plugin) judgeSandboxes(ctx context.Context) {
	for ctx.Err() == nil {
		if pod, ok := p.pauses.next(); ok {
			p.judge(ctx, pod)
			continue
		}
		select {
		case <-ctx.Done():
		case <-p.pauses.wake:
		}
	}
}

// judge judges one of them. Whether it panics or refuses, creates in the sandbox are refused.
func (p *Plugin) judge(ctx context.Context, pod *api.PodSandbox) {
	ctx, cancel := context.WithTimeout(ctx, p.deadline())
	defer cancel()
	var err error
	defer p.recovered(subject(pod), p.sandboxRequest(pod), &err)
	p.refusedPause(ctx, pod)
}

// RunPodSandbox refuses a sandbox that is too large for the runtime to tell plugins of,
// or whose pause image is not on the floor: any pod's pull can point the pause image's
// tag at other content. Its pause process has run for milliseconds by then.
//
// A refused sandbox leaves the budget at once. Some few of them containerd fails to take
// back, and after its restart it tells of them, not ready: the budget has them from then on.
func (p *Plugin) RunPodSandbox(ctx context.Context, pod *api.PodSandbox) (err error) {
	ctx, cancel := context.WithTimeout(ctx, p.deadline())
	defer cancel()
	who := subject(pod)
	defer func() {
		if err != nil {
			p.budget.drop(pod.GetId())
		}
	}()
	req := p.sandboxRequest(pod)
	defer p.recovered(who, req, &err)

	refusal, over := p.budget.add(pod.GetId(), "pod", pod.GetNamespace(), pod.SizeVT())
	if refusal != "" {
		dec := verifier.Refuse(req, verifier.Denied, verifier.SpecTooLarge, refusal)
		return errorOf(p.Shell.Conclude(who, req, dec, time.Now()))
	}
	if over {
		p.reportOver(pod.GetNamespace())
	}
	if pause := p.refusedPause(ctx, pod); pause != nil {
		return errorOf(*pause)
	}
	return nil
}

// sandboxRequest is a request about a sandbox of which no image is known.
func (p *Plugin) sandboxRequest(pod *api.PodSandbox) *verifier.Request {
	return &verifier.Request{Namespace: pod.GetNamespace(), Time: p.Now(), Images: []verifier.Image{{Written: "of the pod"}}}
}

// RemovePodSandbox forgets a sandbox.
func (p *Plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.budget.drop(pod.GetId())
	p.pauses.drop(pod.GetId())
	return nil
}

// refusedPause gives the verdict on a sandbox's pause image where it is refused, and nil
// where it is not. Only a yes is remembered: a sandbox does not change what it runs.
func (p *Plugin) refusedPause(ctx context.Context, pod *api.PodSandbox) *gate.Verdict {
	if p.Shell.Floor == nil || p.Shell.Mode == gate.Audit && p.Shell.Floor().Len() == 0 {
		return nil // an auditing gate may have no floor; an enforcing one whose floor was emptied starts nothing
	}
	if p.pauses.isGood(pod.GetId()) {
		return nil
	}
	started := time.Now()
	img := p.Binder.BindSandbox(ctx, pod.GetId())
	req := &verifier.Request{Namespace: pod.GetNamespace(), Time: p.Now(), Images: []verifier.Image{img}}
	dec := p.Decide(req)
	if img.Unbound == "" && !dec.Images[0].FolderRevoked {
		// Only the floor vouches for what a sandbox runs; policies are for containers.
		dec = verifier.Refuse(req, verifier.Denied, verifier.NotAttested, "the sandbox's pause image "+string(slices.Concat(img.Digests, []image.Digest{"of an unknown digest"})[0])+
			" is not on the floor of this node; its pause process had started by then, and no container starts beside it")
	}
	v := p.Shell.Conclude(subject(pod), req, dec, started)
	if v.Admit {
		p.pauses.set(pod.GetId())
		return nil
	}
	return &v
}
