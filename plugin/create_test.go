package plugin

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/horkos/horkos/audit"
	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/plugin/containerd"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
)

func createOf(image string) *api.ValidateContainerAdjustmentRequest {
	return &api.ValidateContainerAdjustmentRequest{
		Pod: &api.PodSandbox{Id: "sandbox", Name: "web", Namespace: "shop", Uid: "1", RuntimeHandler: "kata",
			Annotations: map[string]string{imageNameAnnotation: "a lie of the pod's author", configSourceAnnotation: "file"}},
		Container: &api.Container{Id: "container", PodSandboxId: "sandbox", Name: "app",
			Annotations: map[string]string{imageNameAnnotation: image}},
	}
}

func TestAnAllowedContainerIsAdmittedAndCounted(t *testing.T) {
	node := &fakeNode{decide: allowAll}
	p := node.plugin(t, nil)
	if err := p.ValidateContainerAdjustment(t.Context(), createOf("app:1")); err != nil {
		t.Fatal(err)
	}
	if p.budget.total == 0 {
		t.Error("the container is not in the budget")
	}
	if r := node.records; len(r) != 1 || !r[0].Admitted || r[0].Container != "app" || !r[0].Static {
		t.Errorf("the records are %+v", r)
	}
	if err := p.RemoveContainer(t.Context(), nil, createOf("").Container); err != nil || p.budget.total != 0 {
		t.Errorf("removed, the budget is %d: %v", p.budget.total, err)
	}
}

func TestARefusalSaysWhyAndWhatToDo(t *testing.T) {
	question := evidence.Question{Source: "folder"}
	node := &fakeNode{decide: func(req *verifier.Request) verifier.Decision {
		dec := refuseAll(req)
		dec.Missing = []evidence.Question{question}
		return dec
	}}
	p := node.plugin(t, nil)
	err := p.ValidateContainerAdjustment(t.Context(), createOf("app:1"))
	if err == nil {
		t.Fatal("it was admitted")
	}
	want := "image app:1 is not attested: NotAttested"
	if err.Error() != want {
		t.Errorf("the message is\n%q, want\n%q", err, want)
	}
	if p.budget.total != 0 {
		t.Errorf("what was refused is in the budget: %d bytes", p.budget.total)
	}
	if !reflect.DeepEqual(node.wanted, []evidence.Question{question}) {
		t.Errorf("wanted in the background is %v", node.wanted)
	}
}

func TestTheClaimIsWhatTheRuntimeSaysNotThePodsAuthor(t *testing.T) {
	r := createOf("app:1")
	r.Container.Image = &api.Image{Name: "not believed", Digest: "sha256:d", ConfigDigest: "sha256:c"}
	r.Container.Mounts = []*api.Mount{{Source: "/a"}, {Source: "/b"}}
	r.Adjust = &api.ContainerAdjustment{Mounts: []*api.Mount{{Source: "/of/another/plugin"}}}
	want := containerd.Claim{
		ContainerID: "container", SandboxID: "sandbox", RuntimeHandler: "kata", Requested: "app:1",
		Digest: "sha256:d", ConfigDigest: "sha256:c", Mounts: []string{"/a", "/b", "/of/another/plugin"},
	}
	if got := claim(r); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestARequestWithNothingInItIsRefused(t *testing.T) {
	p := (&fakeNode{}).plugin(t, nil)
	if err := p.ValidateContainerAdjustment(t.Context(), &api.ValidateContainerAdjustmentRequest{}); err == nil {
		t.Error("it was admitted")
	}
	if _, _, err := p.CreateContainer(t.Context(), nil, nil); err == nil {
		t.Error("it was admitted in CreateContainer")
	}
}

func TestAPanicIsADecisionLikeAnyOther(t *testing.T) {
	tests := []struct {
		name    string
		mode    gate.Mode
		records gate.Recorder // nil: the node's
		floor   func() *gate.Floor
		refused bool
	}{
		{"an enforcing gate refuses", gate.Enforce, nil, nil, true},
		{"an auditing gate admits", gate.Audit, nil, nil, false},
		{"an enforcing gate whose records panic too refuses", gate.Enforce, panickingRecords{}, nil, true},
		{"an auditing gate whose records panic too admits", gate.Audit, panickingRecords{}, nil, false},
		{"an enforcing gate whose floor panics refuses", gate.Enforce, nil, func() *gate.Floor { panic("floor") }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			node := &fakeNode{decide: func(*verifier.Request) verifier.Decision { panic("secret") }}
			p := node.plugin(t, func(o *Options) {
				o.Shell.Mode, o.Shell.Floor = tt.mode, tt.floor
				if tt.records != nil {
					o.Shell.Records = tt.records
				}
			})
			err := p.ValidateContainerAdjustment(t.Context(), createOf("app:1"))
			if (err != nil) != tt.refused {
				t.Fatalf("the answer is %v", err)
			}
			if tt.refused {
				if !strings.Contains(err.Error(), "image app:1 is refused: horkos failed") || strings.Contains(err.Error(), "secret") {
					t.Errorf("the message is %q", err)
				}
				if p.budget.total != 0 {
					t.Errorf("the budget is %d", p.budget.total)
				}
			}
			if tt.records != nil || tt.floor != nil {
				return
			}
			r := node.records
			if len(r) != 1 || r[0].Result != verifier.Unavailable || r[0].Reason != verifier.Internal || r[0].Admitted == tt.refused || r[0].Container != "app" {
				t.Errorf("the records are %+v", r)
			}
		})
	}
}

type panickingRecords struct{}

func (panickingRecords) Append(*audit.Record) error { panic("records") }

func TestAPanicIsCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	node := &fakeNode{decide: func(*verifier.Request) verifier.Decision { panic("secret") }}
	p := node.plugin(t, func(o *Options) { o.Shell.Metrics = gate.NewMetrics(registry, "v1") })
	_ = p.ValidateContainerAdjustment(t.Context(), createOf("app:1"))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "horkos_decisions_total" && strings.Contains(f.String(), "Internal") && len(f.GetMetric()) == 1 {
			return
		}
	}
	t.Errorf("it is not among the metrics: %v", families)
}

func TestTheFirstAnswerIsThatOfTheLastWordAndOnlyARefusalIsRecorded(t *testing.T) {
	tests := []struct {
		name    string
		decide  Decide
		refusal string
	}{
		{"an admission", allowAll, ""},
		{"a refusal", refuseAll, "image app:1 is not attested: NotAttested"},
		{"a panic", func(*verifier.Request) verifier.Decision { panic("x") }, "horkos failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			node := &fakeNode{decide: tt.decide}
			p := node.plugin(t, nil)
			r := createOf("app:1")
			adjust, updates, err := p.CreateContainer(t.Context(), r.Pod, r.Container)
			check(t, "the container", err, tt.refusal)
			if adjust != nil || updates != nil {
				t.Errorf("it adjusts: %v, %v", adjust, updates)
			}
			if tt.refusal != "" {
				if n := node.records; len(n) != 1 || n[0].Admitted || p.budget.total != 0 {
					t.Errorf("refused with %d bytes left in the budget, and the records %+v", p.budget.total, n)
				}
				return
			}
			if len(node.records) != 0 {
				t.Errorf("recorded before the last word: %+v", node.records)
			}
			if err := p.ValidateContainerAdjustment(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if n := node.records; len(n) != 1 || !n[0].Admitted || p.budget.total != r.Container.SizeVT() {
				t.Errorf("admitted with %d bytes in the budget, and the records %+v", p.budget.total, n)
			}
		})
	}
}

func TestARefusalOfTheFirstAnswerHasWhatWasMissingGathered(t *testing.T) {
	question := evidence.Question{Source: "folder"}
	node := &fakeNode{decide: func(req *verifier.Request) verifier.Decision {
		dec := refuseAll(req)
		dec.Missing = []evidence.Question{question}
		return dec
	}}
	r := createOf("app:1")
	if _, _, err := node.plugin(t, nil).CreateContainer(t.Context(), r.Pod, r.Container); err == nil {
		t.Error("it was admitted")
	}
	if !reflect.DeepEqual(node.wanted, []evidence.Question{question}) {
		t.Errorf("wanted in the background is %v", node.wanted)
	}
}

func TestADecisionAfterTheDeadlineAdmitsNothing(t *testing.T) {
	late := func(ctx context.Context) { <-ctx.Done() }
	tests := []struct {
		name string
		node *fakeNode
		text string
	}{
		{"binding takes too long", &fakeNode{decide: allowAll, bind: func(ctx context.Context, c containerd.Claim) []verifier.Image {
			late(ctx)
			return []verifier.Image{{Written: c.Requested}}
		}}, "did not tell in time"},
		{"deciding takes too long", &fakeNode{decide: func(req *verifier.Request) verifier.Decision {
			time.Sleep(20 * time.Millisecond)
			return allowAll(req)
		}}, "came too late"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := tt.node.plugin(t, nil)
			p.setTimeout(40 * time.Millisecond) // of which 10 are the gate's
			err := p.ValidateContainerAdjustment(t.Context(), createOf("app:1"))
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("the answer is %v", err)
			}
			if r := tt.node.records; len(r) != 1 || r[0].Admitted || r[0].Reason != verifier.DeadlineExceeded {
				t.Errorf("the records are %+v", r)
			}
		})
	}
}

func TestWhatCannotBeRecordedIsRefused(t *testing.T) {
	node := &fakeNode{decide: allowAll}
	p := node.plugin(t, func(o *Options) { o.Shell.Records = failingRecords{} })
	if err := p.ValidateContainerAdjustment(t.Context(), createOf("app:1")); err == nil {
		t.Error("it was admitted")
	}
}

func TestAContainerIsMeasuredWithWhatOtherPluginsAdd(t *testing.T) {
	for _, mode := range []gate.Mode{gate.Enforce, gate.Audit} {
		t.Run(string(mode), func(t *testing.T) {
			r := createOf("app:1")
			r.Adjust = &api.ContainerAdjustment{Env: []*api.KeyValue{{Key: "A", Value: strings.Repeat("a", 1000)}}}
			size := r.Container.SizeVT() + r.Adjust.SizeVT()
			for limit, admitted := range map[int]bool{size: true, size - 1: false} {
				p := (&fakeNode{decide: allowAll}).plugin(t, func(o *Options) { o.MaxSpecBytes, o.Shell.Mode = limit, mode })
				err := p.ValidateContainerAdjustment(t.Context(), r)
				if (err == nil) != admitted {
					t.Errorf("%d bytes with a limit of %d: %v", size, limit, err)
				}
				if !admitted && !strings.Contains(err.Error(), "enableServiceLinks: false") {
					t.Errorf("the message does not help: %v", err)
				}
			}
		})
	}
}

func TestAnAuditingGateAdmitsWhatItWouldRefuse(t *testing.T) {
	node := &fakeNode{}
	p := node.plugin(t, func(o *Options) { o.Shell.Mode = gate.Audit })
	if err := p.ValidateContainerAdjustment(t.Context(), createOf("app:1")); err != nil {
		t.Fatal(err)
	}
	if r := node.records; len(r) != 1 || !r[0].Admitted || r[0].Result != verifier.Denied {
		t.Errorf("the records are %+v", r)
	}
}

func TestAContainerLeavesTheBudgetWhenItHasStopped(t *testing.T) {
	tests := []struct {
		state api.ContainerState
		left  bool
	}{
		{api.ContainerState_CONTAINER_RUNNING, true}, // it was only asked to stop
		{api.ContainerState_CONTAINER_STOPPED, false},
	}
	for _, tt := range tests {
		p := (&fakeNode{}).plugin(t, nil)
		p.budget.add("c", "container", "shop", 10)
		if _, err := p.StopContainer(t.Context(), nil, &api.Container{Id: "c", State: tt.state}); err != nil {
			t.Fatal(err)
		}
		if left := p.budget.total == 10; left != tt.left {
			t.Errorf("%s: the budget is %d", tt.state, p.budget.total)
		}
	}
}
