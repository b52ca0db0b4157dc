package controller

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier/policy"
)

// entry is an object as it was last seen.
type entry struct {
	kind   Kind
	object *unstructured.Unstructured
}

func (e entry) id() string {
	return crds.Object{Kind: e.kind.Name, Namespace: e.object.GetNamespace(), Name: e.object.GetName()}.ID()
}

// desk holds what was judged of the objects, and which statuses are still to be written. It
// does nothing by itself and has no clock.
type desk struct {
	entries  map[string]entry // by ID
	answers  map[string]*unstructured.Unstructured
	decoded  map[types.UID]reading
	verdicts map[string]Verdict
	todo     map[string]*task
	compiler policy.Compiler
}

// reading is a decoded object. The generation tells whether it is still the same.
type reading struct {
	generation int64
	object     crds.Object
	fault      string // why it cannot be decoded at all
}

// task is a status to be written.
type task struct {
	want  Status
	tries int
	due   time.Time
}

func newDesk() *desk {
	return &desk{answers: make(map[string]*unstructured.Unstructured), decoded: make(map[types.UID]reading), todo: make(map[string]*task)}
}

// take takes all objects there are, judges them anew if any of them was changed but in its
// status, and finds which statuses are to be written.
func (d *desk) take(all []entry, now time.Time) {
	entries := make(map[string]entry, len(all))
	for i := range all {
		all[i] = d.latest(all[i])
		entries[all[i].id()] = all[i]
	}
	d.entries = entries
	for id := range d.answers {
		if _, there := entries[id]; !there {
			delete(d.answers, id)
		}
	}
	if d.read(all) {
		d.judge(all)
	}
	todo := make(map[string]*task)
	for id, e := range entries {
		have := StatusOf(e.object)
		want := d.verdicts[id].status(have, e.object.GetGeneration(), now)
		if have.equal(want) {
			continue
		}
		if before := d.todo[id]; before != nil && before.want.equal(want) {
			todo[id] = before
		} else {
			todo[id] = &task{want: want, due: now}
		}
	}
	d.todo = todo
}

// latest is an object as it was seen or, if that is later, as the API server answered when its
// status was written: what is watched lags behind, and would have it written again.
func (d *desk) latest(e entry) entry {
	answer := d.answers[e.id()]
	if answer == nil {
		return e
	}
	older, err := resourceversion.CompareResourceVersion(e.object.GetResourceVersion(), answer.GetResourceVersion())
	if err == nil && older < 0 && answer.GetUID() == e.object.GetUID() {
		e.object = answer
		return e
	}
	delete(d.answers, e.id())
	return e
}

// read decodes what is new, and tells whether anything is new or gone.
func (d *desk) read(all []entry) bool {
	decoded := make(map[types.UID]reading, len(all))
	news := len(all) != len(d.decoded)
	for _, e := range all {
		uid, generation := e.object.GetUID(), e.object.GetGeneration()
		r, ok := d.decoded[uid]
		if !ok || r.generation != generation {
			r, news = decode(e), true
		}
		decoded[uid] = r
	}
	d.decoded = decoded
	return news || d.verdicts == nil
}

func decode(e entry) reading {
	r := reading{generation: e.object.GetGeneration()}
	text, err := e.object.MarshalJSON()
	if err == nil {
		var objects []crds.Object
		if objects, err = crds.Decode(text, string(crds.Cluster)); err == nil && len(objects) == 1 {
			r.object = objects[0]
			return r
		}
	}
	r.fault = "it cannot be read"
	if err != nil {
		r.fault += ": " + err.Error()
	}
	return r
}

func (d *desk) judge(all []entry) {
	objects := make([]crds.Object, 0, len(all))
	for _, e := range all {
		if r := d.decoded[e.object.GetUID()]; r.fault == "" {
			objects = append(objects, r.object)
		}
	}
	d.verdicts = Judge(&d.compiler, objects)
	for _, e := range all {
		if r := d.decoded[e.object.GetUID()]; r.fault != "" {
			d.verdicts[e.id()] = Verdict{Reason: Malformed, Message: tell([]note{{Malformed, r.fault}}, "correct it: until then what it governs is refused")}
		}
	}
}

// due are the objects whose status is to be written now, by ID. What was found last is first:
// somebody waits for it, also while thousands are written.
func (d *desk) due(now time.Time) (ids []string) {
	for id, t := range d.todo {
		if !t.due.After(now) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int {
		return cmp.Or(d.todo[b].due.Compare(d.todo[a].due), cmp.Compare(a, b))
	})
	return ids
}

// next is when something will be due.
func (d *desk) next() (at time.Time, ok bool) {
	for _, t := range d.todo {
		if !ok || t.due.Before(at) {
			at, ok = t.due, true
		}
	}
	return at, ok
}

// pending is an object and the status that it is to bear.
func (d *desk) pending(id string) (entry, Status) { return d.entries[id], d.todo[id].want }

// written takes the API server's answer.
func (d *desk) written(id string, answer *unstructured.Unstructured) {
	answer.SetManagedFields(nil)
	d.answers[id] = answer
	delete(d.todo, id)
}

// failed puts a status off; chance is from 0 to 1.
func (d *desk) failed(id string, now time.Time, chance float64) {
	t := d.todo[id]
	wait := lastRetry
	if t.tries < 10 {
		wait = min(lastRetry, firstRetry<<t.tries)
	}
	t.tries++
	t.due = now.Add(wait + time.Duration(chance*float64(wait)/2))
}

func (d *desk) uids() map[types.UID]bool {
	uids := make(map[types.UID]bool, len(d.decoded))
	for uid := range d.decoded {
		uids[uid] = true
	}
	return uids
}
