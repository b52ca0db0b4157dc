package webhook

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/dynamic"

	"github.com/horkos/horkos/webhook/admission"
)

// teller is events with a clock, of a replica by name; what it takes is in its queues.
type teller struct {
	*events
	clock    time.Time
	registry *prometheus.Registry
}

func newTeller(instance string, client dynamic.Interface) *teller {
	t := &teller{clock: start, registry: prometheus.NewRegistry()}
	t.events = newEvents(func() (dynamic.Interface, error) { return client, nil }, instance, NewMetrics(t.registry), quiet(), func() time.Time { return t.clock })
	return t
}

// dropped is how many events there was no room for.
func (t *teller) dropped() int {
	families, err := t.registry.Gather()
	if err != nil {
		return -1
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "horkos_webhook_events_total" && m.GetLabel()[0].GetValue() == "dropped" {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return -1
}

func denial(namespace, name string) admission.Event {
	return admission.Event{Reason: admission.FailedAdmission, Time: start, APIVersion: "v1", Kind: "Pod", Namespace: namespace, Name: name, Message: "image x is not attested"}
}

func TestTheSameIsToldOnceInFiveMinutes(t *testing.T) {
	e := newTeller("a", nil)
	for range 100 {
		e.Tell(denial("shop", "cart"))
	}
	if n := len(e.waiting); n != 1 || e.dropped() != 0 {
		t.Errorf("%d are told, %d dropped", n, e.dropped())
	}
	e.clock = e.clock.Add(eventsAgain - time.Second)
	e.Tell(denial("shop", "cart"))
	if n := len(e.waiting); n != 1 {
		t.Errorf("%d are told before five minutes are over", n)
	}
	e.clock = e.clock.Add(time.Second)
	e.Tell(denial("shop", "cart"))
	if n := len(e.waiting); n != 2 {
		t.Errorf("%d are told after five minutes", n)
	}
}

func TestANamespaceThatIsRefusedAllTheTimeTakesNobodyElsesEvents(t *testing.T) {
	e := newTeller("a", nil)
	for i := range 100_000 {
		e.Tell(denial("greedy", fmt.Sprint("pod-", i)))
	}
	if n := len(e.waiting); n != eventsShare || e.dropped() != 100_000-eventsShare {
		t.Errorf("%d are told, %d dropped", n, e.dropped())
	}
	e.Tell(denial("shop", "cart"))
	if n := len(e.waiting); n != eventsShare+1 {
		t.Error("the other namespace is not told of")
	}
	e.clock = e.clock.Add(3 * eventsRefill)
	for i := range 10 {
		e.Tell(denial("greedy", fmt.Sprint("late-", i)))
	}
	if n := len(e.waiting); n != eventsShare+1+3 {
		t.Errorf("%d are told, want three more", n)
	}
	if n := len(e.shares["greedy"].told); n > 2*eventsShare {
		t.Errorf("%d are remembered", n)
	}
}

func TestNoFloodOfRefusalsHidesABrokenGlass(t *testing.T) {
	e := newTeller("a", nil)
	for i := range 2 * eventsNamespaces {
		e.Tell(denial(fmt.Sprint("ns-", i/2), fmt.Sprint("pod-", i)))
	}
	if len(e.waiting) != eventsWaiting || e.dropped() == 0 || len(e.shares) > eventsNamespaces {
		t.Fatalf("%d are told, %d dropped, of %d namespaces: no flood", len(e.waiting), e.dropped(), len(e.shares))
	}
	for range eventsShare + 2 {
		e.Tell(denial("ns-1", "x"))
	}
	glass := denial("ns-1", "cart")
	glass.Reason = admission.BreakglassAdmission
	e.Tell(glass)
	if len(e.exceptions) != 1 {
		t.Error("the broken glass is not told of")
	}
	glass.Namespace = "one-too-many"
	if e.Tell(glass); len(e.exceptions) != 2 {
		t.Error("it is not told of, of a namespace for which there is no room")
	}
}

func TestATokenThatSpreadsHidesNoOtherBrokenGlass(t *testing.T) {
	e := newTeller("a", nil)
	glass := denial("greedy", "")
	glass.Reason = admission.BreakglassAdmission
	for i := range 10 * eventsWaiting {
		glass.Name = fmt.Sprint("pod-", i)
		e.Tell(glass)
	}
	glass.Namespace = "shop"
	if e.Tell(glass); len(e.exceptions) != eventsShare+1 {
		t.Errorf("%d are told, want %d of the one and that of the other", len(e.exceptions), eventsShare)
	}
}

func TestANewNamespaceIsToldOfWhenOthersWereQuiet(t *testing.T) {
	e := newTeller("a", nil)
	for i := range eventsNamespaces {
		e.may(denial(fmt.Sprint("ns-", i), "pod"))
	}
	if tell, dropped := e.may(denial("new", "pod")); tell || !dropped {
		t.Errorf("more namespaces than there is room for: %v, %v", tell, dropped)
	}
	e.clock = e.clock.Add(eventsAgain)
	if tell, _ := e.may(denial("new", "pod")); !tell {
		t.Error("it is not told of after five minutes")
	}
}

func TestTwoReplicasThatTellTheSameGiveItOneName(t *testing.T) {
	event := denial("shop", "cart")
	a := eventObject("a", "shop", event)
	event.Time = event.Time.Add(time.Minute)
	b := eventObject("b", "shop", event)
	if a.GetName() != b.GetName() || a.GetNamespace() != "shop" {
		t.Errorf("%s/%s and %s/%s", a.GetNamespace(), a.GetName(), b.GetNamespace(), b.GetName())
	}
	for what, other := range map[string]admission.Event{
		"of another object": denial("shop", "till"), "five minutes later": {Reason: event.Reason, Time: start.Add(eventsAgain), APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "cart", Message: event.Message},
	} {
		if eventObject("a", "shop", other).GetName() == a.GetName() {
			t.Errorf("one %s has the same name", what)
		}
	}
	event.UID = "u-1"
	if uid := eventObject("a", "shop", event).Object["regarding"].(map[string]any)["uid"]; uid != "u-1" {
		t.Errorf("it is regarding %v: kubectl describe looks by the uid", uid)
	}
	if n := namespacesOf(event); len(n) != 2 || n[0] != "kube-system" || n[1] != "shop" {
		t.Errorf("it is written into %q", n)
	}
}
