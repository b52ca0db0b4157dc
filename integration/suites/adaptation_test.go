package suites

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"

	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/integration/harness"
	"github.com/horkos/horkos/plugin"
)

// nriTimeout is how long the hosts let a plugin take. The default is 2 s.
const nriTimeout = 600 * time.Millisecond

// TestTheGateAtTheAdaptationPackagesFailsClosed proves, without a containerd, what any
// runtime does that is built on NRI 0.12.3, as containerd 2.4.2 is, or on 0.12.5, which
// knows failure policies: as long as it requires 99-horkos, nothing is created that the
// gate did not admit.
func TestTheGateAtTheAdaptationPackagesFailsClosed(t *testing.T) {
	rows := []struct {
		name string
		test func(*nriHost)
	}{
		{"a gate that hangs admits nothing, and goes on where it was", aGateThatHangs},
		{"a gate that hangs in one decision refuses that one", aDecisionThatHangs},
		{"a gate that dies in flight admits nothing until it is back", aGateThatDiesInFlight},
		{"a gate that is killed amid creates admits none of them", aGateThatIsKilledAmidCreates},
		{"a gate that dies while idle admits nothing until it is back", aGateThatDiesWhileIdle},
		{"a gate that never connected admits nothing until it does", aGateThatNeverConnected},
		{"a neighbour that takes nearly all the time does not push the gate aside", aSlowNeighbour},
		{"a neighbour that hangs does not push the gate aside", aNeighbourThatHangs},
		{"a gate that dies while a neighbour works is missed", aGateThatDiesWhileANeighbourWorks},
		{"an auditing gate does not stand in for the enforcing one", anAuditingGate},
		{"the gate sees what a neighbour adds", aNeighbourThatAdjusts},
		{"a host that is restarted gets its gate back", aHostThatIsRestarted},
		{"a full node is synchronised at once", aFullNode},
		{"a decision that panics is a refusal, and the gate lives on", aDecisionThatPanics},
		{"a decision that comes too late is a refusal", aDecisionThatComesTooLate},
		{"the gate is asked where the host heeds its silence", theCallsThatAskTheGate},
	}
	for _, version := range []string{"0.12.3", "0.12.5"} {
		for _, row := range rows {
			t.Run(version+"/"+row.name, func(t *testing.T) {
				t.Parallel()
				row.test(newNRIHost(t, version, nriTimeout, plugin.FullName))
			})
		}
	}
}

// TestWithoutRequiredPluginsAHostCreatesWhatNoGateSaw is the control: it is the setting that refuses, not the host.
func TestWithoutRequiredPluginsAHostCreatesWhatNoGateSaw(t *testing.T) {
	for _, version := range []string{"0.12.3", "0.12.5"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			h := newNRIHost(t, version, nriTimeout)
			if refusal := h.create("unattested"); refusal != "" {
				t.Fatalf("refused: %s", refusal)
			}
			h.gate(gate.Enforce)
			h.within("the gate to refuse", func() error {
				if h.create("unattested") == "" {
					return errors.New("it did not")
				}
				return nil
			})
		})
	}
}

const missing = `required plugin "99-horkos" not present`

// admitsNothing makes the first and the next creates after a fault.
func (h *nriHost) admitsNothing(because string) {
	h.Helper()
	for _, image := range []string{"attested", "unattested", "attested"} {
		h.refuses(image, because)
	}
}

func aGateThatHangs(h *nriHost) {
	g := h.gate(gate.Enforce)
	h.gates()
	g.hang()
	h.refuses("attested", "99-horkos") // it is asked, and does not answer
	h.admitsNothing("99-horkos")
	g.goOn()
	h.gates()
	// With failure policies the host keeps a plugin that was late, and without drops it.
	want := map[string]int{"0.12.3": 2, "0.12.5": 1}[h.version]
	if got := g.synchronized(); got != want {
		h.Errorf("the gate registered %d times, want %d", got, want)
	}
}

func aDecisionThatHangs(h *nriHost) {
	g := h.gate(gate.Enforce)
	h.gates()
	h.refuses("hang", "99-horkos")
	h.gates()
	h.refuses("hang", "99-horkos")
	h.gates()
	select {
	case <-g.done:
		h.Error("the gate died of it")
	default:
	}
}

func aGateThatDiesInFlight(h *nriHost) {
	g := h.gate(gate.Enforce)
	h.gates()
	h.refuses("crash", "99-horkos")
	<-g.done
	h.admitsNothing(missing)
	h.gate(gate.Enforce)
	h.gates()
}

// aGateThatIsKilledAmidCreates has the host notice the death at any moment of a create:
// also between putting the gate on the list of those that were asked, and asking it.
func aGateThatIsKilledAmidCreates(h *nriHost) {
	creates := 0
	for range harness.Tries(h.T, 200) {
		g := h.gate(gate.Enforce)
		h.gates()
		time.AfterFunc(rand.N(5*time.Millisecond), g.kill)
		for dead := false; !dead; creates++ {
			select {
			case <-g.done:
				dead = true
			default:
			}
			if h.create("unattested") == "" {
				h.Fatal("an unattested image was admitted when the gate was killed")
			}
		}
	}
	h.Logf("%d creates of unattested images, all refused", creates)
}

func aGateThatDiesWhileIdle(h *nriHost) {
	g := h.gate(gate.Enforce)
	h.gates()
	g.kill()
	h.admitsNothing("99-horkos") // the host may have noticed, or fail to ask
	h.admitsNothing(missing)
	h.gate(gate.Enforce)
	h.gates()
}

func aGateThatNeverConnected(h *nriHost) {
	h.admitsNothing(missing)
	h.gate(gate.Enforce)
	h.gates()
}

func aSlowNeighbour(h *nriHost) {
	h.gate(gate.Enforce)
	h.gates()
	asked := 0
	h.neighbour("10", "slow", func(ctx context.Context) *api.ContainerAdjustment {
		asked++
		select {
		case <-time.After(nriTimeout * 3 / 4):
		case <-ctx.Done():
		}
		return nil
	})
	h.gates()
	if asked == 0 {
		h.Error("the neighbour was not asked")
	}
}

func aNeighbourThatHangs(h *nriHost) {
	h.gate(gate.Enforce)
	h.gates()
	over := make(chan struct{})
	h.Cleanup(func() { close(over) })
	hang := func(context.Context) *api.ContainerAdjustment {
		<-over
		return nil
	}
	h.neighbour("10", "hangs", hang)
	h.refuses("unattested", h.byTheGate("is not attested")...)
	h.neighbour("10", "hangs-too", hang)
	if refusal := h.create("attested"); refusal != "" {
		h.Fatalf("the attested image was refused: %s", refusal)
	}
	h.gates()
}

func aGateThatDiesWhileANeighbourWorks(h *nriHost) {
	g := h.gate(gate.Enforce)
	h.gates()
	works, over := make(chan struct{}), make(chan struct{})
	h.neighbour("50", "works", func(context.Context) *api.ContainerAdjustment {
		close(works)
		<-over
		return nil
	})
	answer := make(chan nriAnswer, 1)
	request := createRequest(h.container("attested"))
	go func() {
		a, err := h.tryAsk(request)
		if err != nil {
			a.Error = "failed: " + err.Error()
		}
		answer <- a
	}()
	<-works
	g.kill()
	h.noticed()
	close(over)
	if a := <-answer; !strings.Contains(a.Error, "99-horkos") {
		h.Fatalf("want a refusal that names the gate, not %q", a.Error)
	}
}

func anAuditingGate(h *nriHost) {
	g := h.gate(gate.Audit)
	h.within("the auditing gate to be asked", func() error {
		h.refuses("unattested", missing)
		h.refuses("attested", missing)
		if len(g.claims("attested")) == 0 {
			return errors.New("it was not")
		}
		return nil
	})
	h.gate(gate.Enforce)
	h.gates()
}

func aNeighbourThatAdjusts(h *nriHost) {
	g := h.gate(gate.Enforce)
	h.gates()
	c := h.container("attested")
	c.Env = []string{"A=" + strings.Repeat("a", 10<<10)} // of the 16 KiB that are allowed
	if a := h.ask(createRequest(c)); a.Error != "" {
		h.Fatalf("refused without the neighbour: %s", a.Error)
	}

	var adjustment api.ContainerAdjustment
	adjustment.AddMount(&api.Mount{Source: "/added/by/neighbour", Destination: "/mnt", Type: "bind"})
	adjustment.AddEnv("B", strings.Repeat("b", 10<<10))
	h.neighbour("50", "adjusts", func(context.Context) *api.ContainerAdjustment { return &adjustment })
	h.gates()
	claims := g.claims("attested")
	if last := claims[len(claims)-1]; !slices.Contains(last.Mounts, "/added/by/neighbour") {
		h.Errorf("the gate saw the mounts %q only", last.Mounts)
	}
	c = h.container("attested")
	c.Env = []string{"A=" + strings.Repeat("a", 10<<10)}
	if a := h.ask(createRequest(c)); !strings.Contains(a.Error, "at most 16384 are allowed") {
		h.Errorf("with what the neighbour adds it is too large, and the answer is %q", a.Error)
	}
}

func aHostThatIsRestarted(h *nriHost) {
	g := h.gate(gate.Enforce)
	h.gates()
	for range 2 {
		h.process.kill()
		h.start()
		h.gates()
	}
	if got := g.synchronized(); got != 3 {
		h.Errorf("the gate registered %d times, want 3", got)
	}
}

func aFullNode(h *nriHost) {
	var pods []*api.PodSandbox
	var containers []*api.Container
	for i := range 110 {
		pods = append(pods, &api.PodSandbox{Id: fmt.Sprintf("pod-%d", i), Namespace: "shop",
			Annotations: map[string]string{"a": strings.Repeat("a", 2<<10)}})
	}
	for i := range 500 {
		containers = append(containers, &api.Container{Id: fmt.Sprintf("running-%d", i), PodSandboxId: fmt.Sprintf("pod-%d", i%110),
			Env: []string{"E=" + strings.Repeat("e", 5<<10)}})
	}
	h.ask(nriRequest{Do: "state", Pods: pods, Containers: containers})
	g := h.gate(gate.Enforce)
	h.gates()
	syncs := h.ask(nriRequest{Do: "syncs"}).Syncs
	last := syncs[len(syncs)-1]
	if last.Pods != len(pods) || last.Containers < len(containers) || last.Error != "" || g.synchronized() != 1 {
		h.Errorf("the gate registered %d times, the last time %+v", g.synchronized(), last)
	}
	h.Logf("synchronised in %d ms", last.Millis)
}

func aDecisionThatPanics(h *nriHost) {
	g := h.gate(gate.Enforce)
	h.gates()
	h.refuses("panic", h.byTheGate("horkos failed")...)
	h.gates()
	if got := g.synchronized(); got != 1 {
		h.Errorf("the gate registered %d times, want 1", got)
	}
}

func aDecisionThatComesTooLate(h *nriHost) {
	h.gate(gate.Enforce)
	h.gates()
	h.refuses("slow:"+(nriTimeout/3).String(), h.byTheGate("too late")...) // for the gate's own deadline, a quarter
	h.refuses("slow:"+(nriTimeout*3/2).String(), "99-horkos")              // for the host's
	h.gates()
}

// theCallsThatAskTheGate: in CreateContainer only where the failure policy counts there,
// as the last word everywhere.
func theCallsThatAskTheGate(h *nriHost) {
	g := h.gate(gate.Enforce)
	h.gates()
	for _, image := range []string{"slow:0s", "slow:1ns"} {
		if refusal := h.create(image); refusal != "" {
			h.Fatal(refusal)
		}
	}
	h.within("the gate to tell of the second create", func() error { // and so of all of the first
		if len(g.claims("slow:1ns")) == 0 {
			return errors.New("it did not")
		}
		return nil
	})
	want := map[string]int{"0.12.3": 1, "0.12.5": 2}[h.version]
	if got := len(g.claims("slow:0s")); got != want {
		h.Errorf("the gate was asked %d times about one container, want %d", got, want)
	}
}
