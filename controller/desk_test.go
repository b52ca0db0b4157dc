package controller

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// seen is an object as it would be watched.
func seen(t *testing.T, text, version string, generation int64) entry {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	if u.GetNamespace() == "" {
		u.SetNamespace("") // written as null
	}
	u.SetUID(types.UID(u.GetKind() + u.GetName()))
	u.SetResourceVersion(version)
	u.SetGeneration(generation)
	for _, k := range Kinds() {
		if k.Name == u.GetKind() {
			return entry{k, u}
		}
	}
	t.Fatalf("kind %s", u.GetKind())
	return entry{}
}

// with is the entry with a status, as the API server answers when it is written.
func (e entry) with(t *testing.T, s Status, version string) entry {
	t.Helper()
	fields, err := s.fields()
	if err != nil {
		t.Fatal(err)
	}
	e.object = e.object.DeepCopy()
	e.object.Object["status"] = fields
	e.object.SetResourceVersion(version)
	return e
}

const lostID = "GenericAttestationPolicy shop/p"

func lost(t *testing.T) entry {
	return seen(t, gap("attestationAuthorityNames: [release]"), "10", 1)
}

func TestNothingIsWrittenTwice(t *testing.T) {
	d := newDesk()
	e := lost(t)
	d.take([]entry{e}, start)
	if due := d.due(start); fmt.Sprint(due) != "["+lostID+"]" {
		t.Fatalf("due: %v", due)
	}
	_, want := d.pending(lostID)
	answered := e.with(t, want, "11")
	d.written(lostID, answered.object)
	for name, watched := range map[string]entry{
		"what is watched lags behind": e,
		"it has caught up":            answered,
		"somebody changed a label":    e.with(t, want, "12"),
	} {
		later := start.Add(time.Hour)
		d.take([]entry{watched}, later)
		if due := d.due(later); len(due) != 0 {
			_, want := d.pending(lostID)
			t.Errorf("%s: due %v: %+v", name, due, want)
		}
		d.written(lostID, answered.object.DeepCopy())
	}

	// A new leader finds the same.
	d = newDesk()
	d.take([]entry{answered}, start.Add(time.Hour))
	if due := d.due(start.Add(time.Hour)); len(due) != 0 {
		t.Errorf("a new leader would write %v", due)
	}
}

func TestWhatChangedIsJudgedAgain(t *testing.T) {
	d := newDesk()
	e := lost(t)
	d.take([]entry{e}, start)
	_, want := d.pending(lostID)
	if c := want.Condition(Ready); c.Status != metav1.ConditionFalse || c.Reason != AuthorityNotFound || want.ObservedGeneration != 1 || c.ObservedGeneration != 1 || !c.LastTransitionTime.Time.Equal(start) {
		t.Fatalf("%+v", want)
	}
	e = e.with(t, want, "11")
	d.written(lostID, e.object)

	a := seen(t, authority("release", publicKey(t, 1)), "12", 1)
	later := start.Add(time.Minute)
	d.take([]entry{a, e}, later)
	if due := d.due(later); len(due) != 2 {
		t.Fatalf("due %v", due)
	}
	_, want = d.pending(lostID)
	if c := want.Condition(Ready); c.Status != metav1.ConditionTrue || !c.LastTransitionTime.Time.Equal(later) {
		t.Errorf("after the authority came: %+v", want)
	}
	e = e.with(t, want, "13")

	// A new generation that is judged alike moves no time.
	e.object.SetGeneration(2)
	e.object.SetResourceVersion("14")
	d.take([]entry{a, e}, later.Add(time.Minute))
	_, want = d.pending(lostID)
	if c := want.Condition(Ready); want.ObservedGeneration != 2 || c.ObservedGeneration != 2 || !c.LastTransitionTime.Time.Equal(later) {
		t.Errorf("of another generation: %+v", want)
	}
	d.take(nil, later)
	if _, ok := d.next(); ok {
		t.Error("something is to be written of objects that are gone")
	}
}

func TestAnAnswerOfANewGenerationIsNotJudgedByTheOld(t *testing.T) {
	d := newDesk()
	e := lost(t)
	d.take([]entry{e}, start)
	_, want := d.pending(lostID)
	newer := seen(t, gap("attestationAuthorityNames: [release], x: 1"), "12", 2).with(t, want, "12")
	d.written(lostID, newer.object)
	d.take([]entry{e}, start) // the watch has not told of it yet
	_, want = d.pending(lostID)
	if c := want.Condition(Ready); c.Reason != Malformed || c.ObservedGeneration != 2 {
		t.Errorf("%+v", want)
	}
}

func TestWhatCannotBeWrittenIsTriedAgainLater(t *testing.T) {
	d := newDesk()
	e := lost(t)
	d.take([]entry{e}, start)
	now, waits := start, []time.Duration{}
	for range 12 {
		d.failed(lostID, now, 0)
		d.take([]entry{e}, now) // looking again does not make it sooner
		next, ok := d.next()
		if !ok || len(d.due(next.Add(-1))) != 0 || len(d.due(next)) != 1 {
			t.Fatalf("next %v, %v", next, ok)
		}
		waits = append(waits, next.Sub(now))
		now = next
	}
	if waits[0] != firstRetry || waits[1] != 2*firstRetry || waits[11] != lastRetry {
		t.Errorf("waits %v", waits)
	}
	d.failed(lostID, now, 1)
	if next, _ := d.next(); next.Sub(now) != lastRetry*3/2 {
		t.Errorf("with all the jitter: %v", next.Sub(now))
	}
}

func TestWhatWasFoundLastIsWrittenFirst(t *testing.T) {
	d := newDesk()
	one, two := lost(t), seen(t, authority("release", publicKey(t, 1)), "12", 1)
	d.take([]entry{one}, start)
	later := start.Add(time.Second)
	d.take([]entry{two, one}, later) // which is judged anew
	if due := d.due(later); fmt.Sprint(due) != "[AttestationAuthority shop/release "+lostID+"]" {
		t.Errorf("due %v", due)
	}
	third := seen(t, manifest("GenericAttestationPolicy", "shop", "z", "attestationAuthorityNames: [release]"), "13", 1)
	latest := later.Add(time.Second)
	d.take([]entry{two, one, third}, latest)
	if due := d.due(latest); len(due) != 3 || due[0] != "GenericAttestationPolicy shop/z" {
		t.Errorf("due %v", due)
	}
}

func TestAnObjectThatCannotBeReadAtAllIsToldSo(t *testing.T) {
	d := newDesk()
	e := seen(t, manifest("ImageRevocation", "", "r", "digests: ['"+strings.Repeat("x", 1<<20)+"']"), "10", 1)
	e.object.SetNamespace("")
	d.take([]entry{e, lost(t)}, start)
	_, want := d.pending("ImageRevocation r")
	if c := want.Condition(Ready); c.Reason != Malformed || !strings.Contains(c.Message, "over 1048576 bytes") {
		t.Errorf("%+v", want)
	}
	if _, want := d.pending(lostID); want.Condition(Ready).Reason != AuthorityNotFound {
		t.Errorf("the other: %+v", want)
	}
}

func TestEventsTellChangesOnly(t *testing.T) {
	status := func(ready bool, reason, warning string) Status {
		return Verdict{Ready: ready, Reason: reason, Warning: warning}.status(Status{}, 1, start)
	}
	none := Status{}
	good, warned := status(true, Accepted, ""), status(true, Accepted, KeysShared)
	missing, malformed := status(false, AuthorityNotFound, ""), status(false, Malformed, "")
	for _, tt := range []struct {
		name          string
		before, after Status
		want          string
	}{
		{"new and good", none, good, ""},
		{"new and not", none, missing, "Warning AuthorityNotFound"},
		{"broken", good, malformed, "Warning Malformed"},
		{"broken otherwise", missing, malformed, "Warning Malformed"},
		{"the same", missing, missing, ""},
		{"good again", missing, good, "Normal Accepted"},
		{"warned of", good, warned, "Warning KeysShared"},
		{"still warned of", warned, warned, ""},
		{"not warned of any more", warned, good, ""},
		{"good again and warned of", missing, warned, "Normal Accepted, Warning KeysShared"},
	} {
		var got []string
		for _, n := range changes(tt.before, tt.after) {
			kind := "Normal"
			if n.warning {
				kind = "Warning"
			}
			got = append(got, kind+" "+n.reason)
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, got, tt.want)
		}
	}
}

func TestTheEventsOfAnObjectAreBounded(t *testing.T) {
	var a allowance
	now, sent := start, 0
	for range 100 {
		if a.take("x", now) {
			sent++
		}
	}
	if sent != eventsAtOnce {
		t.Errorf("%d at once, want %d", sent, eventsAtOnce)
	}
	if !a.take("y", now) {
		t.Error("another object has none")
	}
	now = now.Add(eventEvery)
	if !a.take("x", now) || a.take("x", now) {
		t.Error("want one more after a while")
	}
	now = now.Add(1000 * eventEvery)
	for sent = 0; a.take("x", now); sent++ {
	}
	if sent != eventsAtOnce {
		t.Errorf("%d after a long time, want %d", sent, eventsAtOnce)
	}
	a.keep(map[types.UID]bool{"x": true})
	if len(a.left) != 1 {
		t.Errorf("remembered: %v", a.left)
	}
}

func TestTheNameOfAnEventIsOne(t *testing.T) {
	for name, want := range map[string]string{"a": "a-", "a.b": "a.b-", strings.Repeat("a", 49) + ".b": strings.Repeat("a", 49) + "-"} {
		if got := eventName(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestForeignConditionsAreLeftAlone(t *testing.T) {
	e := lost(t)
	v := Verdict{Ready: true, Reason: Accepted}
	s := v.status(Status{}, 1, start)
	s.Conditions = append(s.Conditions, metav1.Condition{Type: "Reviewed", Status: metav1.ConditionTrue})
	have := StatusOf(e.with(t, s, "11").object)
	if !have.equal(v.status(have, 1, start.Add(time.Hour))) {
		t.Error("it would be written again")
	}
	e.object.Object["status"] = map[string]any{"conditions": "none"}
	if s := StatusOf(e.object); len(s.Conditions) != 0 {
		t.Errorf("%+v", s)
	}
	if text, err := json.Marshal(s); err != nil || !strings.Contains(string(text), `"observedGeneration":1`) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestANodeGateGoesWhenItsNodeHasBeenGoneForTheGrace(t *testing.T) {
	named := func(names ...string) (all []metav1.Object) {
		for _, n := range names {
			all = append(all, &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: n, UID: types.UID(n)}})
		}
		return all
	}
	v := vanished{grace: Grace}
	steps := []struct {
		name  string
		after time.Duration
		nodes []metav1.Object
		want  int
	}{
		{"all are there", 0, named("a", "b"), 0},
		{"one vanishes", time.Minute, named("a"), 0},
		{"a moment before the grace", Grace - 1, named("a"), 0},
		{"it is back", 1, named("a", "b"), 0},
		{"it vanishes again", time.Hour, named("a"), 0},
		{"the grace is over", Grace, named("a"), 1},
		{"no node is known", time.Hour, nil, 0},
		{"and then one is: the grace begins anew", time.Second, named("a"), 0},
		{"and ends", Grace, named("a"), 1},
	}
	now := start
	for _, s := range steps {
		now = now.Add(s.after)
		due := v.due(s.nodes, named("a", "b"), now)
		if len(due) != s.want || (s.want == 1 && due[0].GetName() != "b") {
			t.Errorf("%s: %v", s.name, due)
		}
	}
}
