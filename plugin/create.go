package plugin

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/containerd/nri/pkg/api"

	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/plugin/containerd"
	"github.com/horkos/horkos/verifier"
)

// ValidateContainerAdjustment has the last word on a container: an error refuses it, and
// its text is what the kubelet shows. It is the one event for which a runtime takes a
// plugin that hangs, dies or was never there for a no, so nothing is decided elsewhere.
func (p *Plugin) ValidateContainerAdjustment(ctx context.Context, r *api.ValidateContainerAdjustmentRequest) (err error) {
	ctx, cancel := context.WithTimeout(ctx, p.deadline())
	defer cancel()
	who := subject(r.GetPod())
	who.Container = r.GetContainer().GetName()
	defer func() {
		if err != nil {
			p.budget.drop(r.GetContainer().GetId())
		}
	}()
	defer p.recovered(who, &err)

	started := p.Now()
	req, dec := p.decideCreate(ctx, r, started)
	v := p.Shell.Conclude(who, req, dec, started)
	if len(dec.Missing) > 0 {
		p.Wanter.Want(dec.Missing)
	}
	if !v.Admit {
		return errors.New(v.Message)
	}
	return nil
}

func subject(pod *api.PodSandbox) gate.Subject {
	source := pod.GetAnnotations()[configSourceAnnotation]
	return gate.Subject{
		Namespace: pod.GetNamespace(), Pod: pod.GetName(), UID: pod.GetUid(),
		Static: source == "file" || source == "http",
	}
}

// recovered turns a panic into a refusal.
func (p *Plugin) recovered(who gate.Subject, err *error) {
	if what := recover(); what != nil {
		p.Log.Error("a request made the gate panic", "namespace", who.Namespace, "pod", who.Pod, "container", who.Container,
			"panic", fmt.Sprint(what), "stack", string(debug.Stack()))
		*err = fmt.Errorf("horkos failed: %s: see its log on the node", verifier.Internal)
	}
}

func (p *Plugin) decideCreate(ctx context.Context, r *api.ValidateContainerAdjustmentRequest, now time.Time) (*verifier.Request, verifier.Decision) {
	pod, ctr := r.GetPod(), r.GetContainer()
	claim := claim(r)
	req := &verifier.Request{Namespace: pod.GetNamespace(), Time: now, Images: []verifier.Image{{Written: claim.Requested}}}

	bytes := ctr.SizeVT() + r.GetAdjust().SizeVT()
	refusal, over := p.budget.add(ctr.GetId(), "container", pod.GetNamespace(), bytes)
	if refusal != "" {
		return req, verifier.Refuse(req, verifier.Denied, verifier.SpecTooLarge, refusal)
	}
	if over {
		p.reportOver(pod.GetNamespace())
	}
	if pause := p.refusedPause(ctx, pod); pause != nil {
		why := pause.Decision.Images[0]
		return req, verifier.Refuse(req, why.Result, why.Reason, "its sandbox is refused: "+why.Detail)
	}
	req.Images = p.Binder.Bind(ctx, claim)
	if ctx.Err() != nil {
		return req, verifier.Refuse(req, verifier.Unresolved, verifier.DeadlineExceeded, "the node did not tell in time which image it is")
	}
	dec := p.Decide(req)
	if dec.Result == verifier.Allowed && ctx.Err() != nil {
		// The runtime may have stopped waiting, and the record is to say what it made of it.
		return req, verifier.Refuse(req, verifier.Unresolved, verifier.DeadlineExceeded, "the decision came too late")
	}
	return req, dec
}

func (p *Plugin) reportOver(namespace string) {
	p.Log.Warn("the pods and containers of the node are over --max-sync-bytes, by no fault of one namespace: "+
		"the runtime may not be able to synchronise its plugins", "namespace", namespace)
}

// claim gathers what NRI says about the image, and every mount the container will have,
// those of other plugins included.
func claim(r *api.ValidateContainerAdjustmentRequest) containerd.Claim {
	ctr := r.GetContainer()
	c := containerd.Claim{
		ContainerID:    ctr.GetId(),
		SandboxID:      ctr.GetPodSandboxId(),
		RuntimeHandler: r.GetPod().GetRuntimeHandler(),
		Requested:      ctr.GetAnnotations()[imageNameAnnotation],
		Digest:         ctr.GetImage().GetDigest(),
		ConfigDigest:   ctr.GetImage().GetConfigDigest(),
	}
	for _, m := range ctr.GetMounts() {
		c.Mounts = append(c.Mounts, m.GetSource())
	}
	for _, m := range r.GetAdjust().GetMounts() {
		c.Mounts = append(c.Mounts, m.GetSource())
	}
	return c
}

// StopContainer and the events after it keep the budget true. A container that is asked
// to stop may run on for its grace period, so only one that has stopped is dropped here.
func (p *Plugin) StopContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) ([]*api.ContainerUpdate, error) {
	if c.GetState() == api.ContainerState_CONTAINER_STOPPED {
		p.budget.drop(c.GetId())
	}
	return nil, nil
}

// RemoveContainer forgets a container.
func (p *Plugin) RemoveContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.budget.drop(c.GetId())
	return nil
}
