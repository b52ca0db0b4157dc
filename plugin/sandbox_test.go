package plugin

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"

	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/verifier"
)

const otherDigest = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

func TestASandboxRunsWhatIsOnTheFloorOrNothing(t *testing.T) {
	unbound := pauseImage(pauseDigest)
	unbound.Unbound = "its process is not the image's"
	revoked := func(req *verifier.Request) verifier.Decision {
		dec := verifier.Refuse(req, verifier.Denied, verifier.ImageRevoked, "")
		dec.Images[0].FolderRevoked = true
		return dec
	}
	byBinding := func(req *verifier.Request) verifier.Decision {
		if why := req.Images[0].Unbound; why != "" {
			return verifier.Refuse(req, verifier.Unresolved, verifier.ImageUnbound, why)
		}
		return allowAll(req)
	}
	tests := []struct {
		name    string
		image   verifier.Image
		decide  Decide
		floor   string
		mode    gate.Mode
		refusal string // part of it; empty is none
	}{
		{"on the floor", pauseImage(pauseDigest), refuseAll, pauseDigest, gate.Enforce, ""},
		{"on the floor of its namespace", pauseImage(pauseDigest), refuseAll, pauseDigest + " namespace=shop", gate.Enforce, ""},
		{"on the floor of another namespace", pauseImage(pauseDigest), refuseAll, pauseDigest + " namespace=blog", gate.Enforce, "not on the floor"},
		{"attested is not enough", pauseImage(otherDigest), allowAll, pauseDigest, gate.Enforce, "not on the floor"},
		{"not tied down", unbound, byBinding, pauseDigest, gate.Enforce, "its process is not the image's"},
		{"revoked by the folder", pauseImage(pauseDigest), revoked, pauseDigest, gate.Enforce, "is refused"},
		{"a floor that was emptied vouches for nothing", pauseImage(pauseDigest), allowAll, "", gate.Enforce, "not on the floor"},
		{"an auditing gate only reports", pauseImage(otherDigest), refuseAll, pauseDigest, gate.Audit, ""},
		{"an auditing gate needs no floor", pauseImage(otherDigest), refuseAll, "", gate.Audit, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			node := &fakeNode{sandbox: tt.image, decide: func(req *verifier.Request) verifier.Decision {
				if req.Images[0].Written == "pause" {
					return tt.decide(req)
				}
				return allowAll(req)
			}}
			p := node.plugin(t, func(o *Options) { o.Shell.Floor, o.Shell.Mode = floorOf(t, tt.floor), tt.mode })
			pod := &api.PodSandbox{Id: "sandbox", Namespace: "shop"}
			check(t, "the sandbox", p.RunPodSandbox(t.Context(), pod), tt.refusal)
			if tt.refusal != "" && p.budget.total != 0 {
				t.Errorf("the refused sandbox is in the budget: %d bytes", p.budget.total)
			}
			// Whether or not the event was seen, no container is created in a bad one.
			fresh := node.plugin(t, func(o *Options) { o.Shell.Floor, o.Shell.Mode = floorOf(t, tt.floor), tt.mode })
			check(t, "a container in it", fresh.ValidateContainerAdjustment(t.Context(), createOf("app:1")), tt.refusal)
		})
	}
}

func check(t *testing.T, what string, err error, refusal string) {
	t.Helper()
	switch {
	case refusal == "" && err != nil:
		t.Errorf("%s is refused: %v", what, err)
	case refusal != "" && (err == nil || !strings.Contains(err.Error(), refusal)):
		t.Errorf("%s: %v, want a refusal that says %q", what, err, refusal)
	}
}

func TestAContainerInASandboxThatCannotBeJudgedYetIsTriedAgain(t *testing.T) {
	image := pauseImage(pauseDigest)
	image.Unbound = "not in the index yet"
	node := &fakeNode{sandbox: image, decide: func(req *verifier.Request) verifier.Decision {
		return verifier.Refuse(req, verifier.Unresolved, verifier.ImageUnbound, req.Images[0].Unbound)
	}}
	p := node.plugin(t, func(o *Options) { o.Shell.Floor = floorOf(t, pauseDigest) })
	err := p.ValidateContainerAdjustment(t.Context(), createOf("app:1"))
	check(t, "the container", err, "its sandbox is refused: not in the index yet. It is tried again")
	if last := node.records[len(node.records)-1]; last.Container != "app" || last.Result != verifier.Unresolved {
		t.Errorf("the record is %+v", last)
	}
}

func TestAYesAboutASandboxIsRememberedAndANoIsNot(t *testing.T) {
	asked := 0
	node := &fakeNode{sandbox: pauseImage(otherDigest), decide: func(req *verifier.Request) verifier.Decision {
		asked++
		return refuseAll(req)
	}}
	p := node.plugin(t, func(o *Options) { o.Shell.Floor = floorOf(t, pauseDigest) })
	pod := &api.PodSandbox{Id: "sandbox"}
	for range 2 {
		if p.RunPodSandbox(t.Context(), pod) == nil {
			t.Fatal("it was let pass")
		}
	}
	node.sandbox = pauseImage(pauseDigest)
	for range 3 {
		if err := p.RunPodSandbox(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	if asked != 3 {
		t.Errorf("asked %d times, want 3: twice no, once yes", asked)
	}
	if err := p.RemovePodSandbox(t.Context(), pod); err != nil || p.pauses.isGood("sandbox") || p.budget.total != 0 {
		t.Errorf("removed, something is left: %d bytes, %v", p.budget.total, err)
	}
}

func TestAPodThatIsTooLargeIsRefusedInEveryMode(t *testing.T) {
	for _, mode := range []gate.Mode{gate.Enforce, gate.Audit} {
		pod := &api.PodSandbox{Id: "sandbox", Annotations: map[string]string{"a": strings.Repeat("a", 1000)}}
		for limit, admitted := range map[int]bool{pod.SizeVT(): true, pod.SizeVT() - 1: false} {
			p := (&fakeNode{}).plugin(t, func(o *Options) { o.MaxSpecBytes, o.Shell.Mode = limit, mode })
			if err := p.RunPodSandbox(t.Context(), pod); (err == nil) != admitted {
				t.Errorf("%s, %d bytes with a limit of %d: %v", mode, pod.SizeVT(), limit, err)
			}
		}
	}
}

func TestSandboxesFoundAtSynchronisationAreJudgedAndAPanicIsOutlived(t *testing.T) {
	judged := make(chan string, 3)
	node := &fakeNode{sandbox: pauseImage(pauseDigest), decide: func(req *verifier.Request) verifier.Decision {
		judged <- req.Namespace
		if req.Namespace == "bad" {
			panic("bad")
		}
		return refuseAll(req)
	}}
	p := node.plugin(t, func(o *Options) {
		o.Shell.Floor = floorOf(t, pauseDigest)
		o.Before = func(context.Context) error { return errors.New("not yet") }
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	p.take([]*api.PodSandbox{{Id: "1", Namespace: "bad"}, {Id: "2", Namespace: "shop"}}, nil)
	for _, want := range []string{"bad", "shop"} {
		if got := receive(t, judged); got != want {
			t.Errorf("judged %q, want %q", got, want)
		}
	}
	cancel()
	if err := receive(t, done); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if p.pauses.isGood("1") || !p.pauses.isGood("2") {
		t.Error("the wrong sandbox is good")
	}
	if r := node.records; len(r) != 2 || r[0].Reason != verifier.Internal || r[1].Reason != verifier.Floor {
		t.Errorf("the records are %+v", r)
	}
}

func TestAPanicAboutASandboxIsRecordedAndRefusedOnlyWhenEnforcing(t *testing.T) {
	for mode, admitted := range map[gate.Mode]bool{gate.Enforce: false, gate.Audit: true} {
		node := &fakeNode{sandbox: pauseImage(pauseDigest), decide: func(*verifier.Request) verifier.Decision { panic("secret") }}
		p := node.plugin(t, func(o *Options) { o.Shell.Floor, o.Shell.Mode = floorOf(t, pauseDigest), mode })
		err := p.RunPodSandbox(t.Context(), &api.PodSandbox{Id: "sandbox", Namespace: "shop", Name: "web"})
		if (err == nil) != admitted || (err != nil && !strings.Contains(err.Error(), "horkos failed")) {
			t.Errorf("%s: the answer is %v", mode, err)
		}
		if r := node.records; len(r) != 1 || r[0].Reason != verifier.Internal || r[0].Admitted != admitted || r[0].Pod != "web" {
			t.Errorf("%s: the records are %+v", mode, r)
		}
	}
}

// receive waits for what must come.
func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("it did not come")
		panic("unreachable")
	}
}
