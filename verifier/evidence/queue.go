package evidence

import "slices"

// maxWaiting bounds the questions that wait, and maxShare those of one namespace, which also
// has no more than it leaves to others: tenants who ask about ever new images, under however
// many namespaces, do not take all the room. One that does not fit is asked again by the
// kubelet's next try.
const (
	maxWaiting = 4096
	maxShare   = maxWaiting / 4
)

// task is a question that waits for its answer; or, with a namespace, for the signatures of
// its answer to be verified under the policies of that.
type task struct {
	Question
	namespace string
}

// queue holds the tasks that wait, and takes one from each namespace in turn.
type queue struct {
	turns []string // the namespaces that have some, in the order of their turns
	by    map[string][]task
	len   int
}

// add tells whether there was room.
func (w *queue) add(namespace string, q task) bool {
	waiting := w.by[namespace]
	if own := len(waiting) + 1; own > maxShare || own > maxWaiting-w.len {
		return false
	}
	if len(waiting) == 0 {
		w.turns = append(w.turns, namespace)
	}
	if w.by == nil {
		w.by = make(map[string][]task)
	}
	w.by[namespace] = append(waiting, q)
	w.len++
	return true
}

func (w *queue) next() (q task, ok bool) {
	if w.len == 0 {
		return q, false
	}
	namespace := w.turns[0]
	waiting := w.by[namespace]
	q = waiting[0]
	w.turns = slices.Delete(w.turns, 0, 1)
	if len(waiting) == 1 {
		delete(w.by, namespace)
	} else {
		w.by[namespace] = waiting[1:]
		w.turns = append(w.turns, namespace)
	}
	w.len--
	return q, true
}
