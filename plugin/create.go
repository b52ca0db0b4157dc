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
// its text is what the kubelet shows. It is the one event for which every runtime takes a
// plugin that hangs, dies or was never there for a no.
func (p *Plugin) ValidateContainerAdjustment(ctx context.Context, r *api.ValidateContainerAdjustmentRequest) error {
	return p.answer(ctx, r, true)
}

// CreateContainer is asked first, by runtimes on NRI 0.12.4 and later. They put the plugin
// on the list of those that were asked, which is what required_plugins looks at, and skip
// it as a validator if they notice only then that it is gone: in a moment between the two
// nobody would be asked at all. What they ask here they put to the connection whatever
// they know of it, and heed the failure policy. Earlier ones ask a validator that is gone,
// and so refuse, but go on without an answer to this: there it would prove nothing.
//
// A refusal here is the end. What would be admitted is not recorded, and asked again.
func (p *Plugin) CreateContainer(ctx context.Context, pod *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	return nil, nil, p.answer(ctx, &api.ValidateContainerAdjustmentRequest{Pod: pod, Container: c}, false)
}

// answer says why a container is refused. An admission is recorded where it is the last word.
func (p *Plugin) answer(ctx context.Context, r *api.ValidateContainerAdjustmentRequest, last bool) (err error) {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, p.deadline())
	defer cancel()
	who := subject(r.GetPod())
	who.Container = r.GetContainer().GetName()
	claim := claim(r)
	req := &verifier.Request{Namespace: who.Namespace, Time: p.Now(), Images: []verifier.Image{{Written: claim.Requested}}}
	defer func() {
		if err != nil {
			p.budget.drop(claim.ContainerID)
		}
	}()
	defer p.recovered(who, req, &err)

	dec := p.decideCreate(ctx, r, claim, req)
	if !last && p.Shell.Judge(req, dec).Admit {
		return nil
	}
	v := p.Shell.Conclude(who, req, dec, started)
	if len(dec.Missing) > 0 {
		p.Wanter.Want(who.Namespace, dec.Missing)
	}
	return errorOf(v)
}

// errorOf is how a verdict is told to the runtime.
func errorOf(v gate.Verdict) error {
	if v.Admit {
		return nil
	}
	return errors.New(v.Message)
}

func subject(pod *api.PodSandbox) gate.Subject {
	source := pod.GetAnnotations()[configSourceAnnotation]
	return gate.Subject{
		Namespace: pod.GetNamespace(), Pod: pod.GetName(), UID: pod.GetUid(),
		Static: source == "file" || source == "http",
	}
}

// recovered makes a panic a refusal like any other: recorded, counted, and let pass by an
// auditing gate.
func (p *Plugin) recovered(who gate.Subject, req *verifier.Request, err *error) {
	what := recover()
	if what == nil {
		return
	}
	p.Log.Error("a request made the gate panic", "namespace", who.Namespace, "pod", who.Pod, "container", who.Container,
		"panic", fmt.Sprint(what), "stack", string(debug.Stack()))
	dec := verifier.Refuse(req, verifier.Unavailable, verifier.Internal, "horkos failed: see its log on the node")
	defer func() { _ = recover() }() // what panicked may be the shell
	if p.Shell.Mode != gate.Audit {
		*err = errors.New(dec.Message())
	}
	*err = errorOf(p.Shell.Conclude(who, req, dec, time.Now()))
}

// decideCreate decides about the images of a container, which it puts into the request.
func (p *Plugin) decideCreate(ctx context.Context, r *api.ValidateContainerAdjustmentRequest, claim containerd.Claim, req *verifier.Request) verifier.Decision {
	pod, ctr := r.GetPod(), r.GetContainer()
	bytes := ctr.SizeVT() + r.GetAdjust().SizeVT()
	refusal, over := p.budget.add(ctr.GetId(), "container", pod.GetNamespace(), bytes)
	if refusal != "" {
		return verifier.Refuse(req, verifier.Denied, verifier.SpecTooLarge, refusal)
	}
	if over {
		p.reportOver(pod.GetNamespace())
	}
	if pause := p.refusedPause(ctx, pod); pause != nil {
		why := pause.Decision.Images[0]
		return verifier.Refuse(req, why.Result, why.Reason, "its sandbox is refused: "+why.Detail)
	}
	req.Images = p.Binder.Bind(ctx, claim)
	if ctx.Err() != nil {
		return verifier.Refuse(req, verifier.Unresolved, verifier.DeadlineExceeded, "the node did not tell in time which image it is")
	}
	dec := p.Decide(req)
	if dec.Result == verifier.Allowed && ctx.Err() != nil {
		// The runtime may have stopped waiting, and the record is to say what it made of it.
		return verifier.Refuse(req, verifier.Unresolved, verifier.DeadlineExceeded, "the decision came too late")
	}
	return dec
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
