package controller

import (
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Status is what the objects of all kinds bear.
type Status struct {
	ObservedGeneration int64              `json:"observedGeneration"`
	Conditions         []metav1.Condition `json:"conditions"`
}

// StatusOf reads the status of an object; one that cannot be read is as good as none. Of the
// conditions those that are of this package's types are kept.
func StatusOf(o *unstructured.Unstructured) Status {
	var read struct {
		Status Status `json:"status"`
	}
	text, err := json.Marshal(map[string]any{"status": o.Object["status"]})
	if err != nil || json.Unmarshal(text, &read) != nil {
		return Status{}
	}
	s := Status{ObservedGeneration: read.Status.ObservedGeneration}
	for _, kind := range []string{Ready, Warning} {
		if c := meta.FindStatusCondition(read.Status.Conditions, kind); c != nil {
			s.Conditions = append(s.Conditions, *c)
		}
	}
	return s
}

// Condition is the condition of a type, and the zero one where there is none.
func (s Status) Condition(kind string) metav1.Condition {
	if c := meta.FindStatusCondition(s.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// fields is the status as it is applied.
func (s Status) fields() (map[string]any, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("write a status: %w", err)
	}
	fields := make(map[string]any)
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("write a status: %w", err)
	}
	return fields, nil
}

// equal tells whether two statuses say the same, of the same generation.
func (s Status) equal(other Status) bool {
	if s.ObservedGeneration != other.ObservedGeneration || len(s.Conditions) != len(other.Conditions) {
		return false
	}
	for _, kind := range []string{Ready, Warning} {
		a, b := s.Condition(kind), other.Condition(kind)
		a.LastTransitionTime, b.LastTransitionTime = metav1.Time{}, metav1.Time{}
		if a != b {
			return false
		}
	}
	return true
}

// status is that of an object of a generation that bears have and is judged so now. The time
// of a condition moves with its status and with nothing else.
func (v Verdict) status(have Status, generation int64, now time.Time) Status {
	s := Status{ObservedGeneration: generation}
	add := func(kind string, is bool, reason, message string) {
		c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message,
			ObservedGeneration: generation, LastTransitionTime: metav1.NewTime(now.UTC().Truncate(time.Second))}
		if is {
			c.Status = metav1.ConditionTrue
		}
		if before := have.Condition(kind); before.Status == c.Status && !before.LastTransitionTime.IsZero() {
			c.LastTransitionTime = before.LastTransitionTime
		}
		s.Conditions = append(s.Conditions, c)
	}
	add(Ready, v.Ready, v.Reason, v.Message)
	if v.Warning != "" {
		add(Warning, true, v.Warning, v.WarningMessage)
	}
	return s
}

// news is what changed in the conditions of an object, for an event.
type news struct {
	warning bool
	reason  string
	note    string
}

// changes tells what is worth an event: that an object is not ready, or is so for another
// reason; that it is ready again; a warning that was not there.
func changes(before, after Status) []news {
	var all []news
	old, is := before.Condition(Ready), after.Condition(Ready)
	switch {
	case is.Status == metav1.ConditionFalse && (old.Status != is.Status || old.Reason != is.Reason):
		all = append(all, news{true, is.Reason, is.Message})
	case is.Status == metav1.ConditionTrue && old.Status == metav1.ConditionFalse:
		all = append(all, news{false, is.Reason, is.Message})
	}
	if old, is := before.Condition(Warning), after.Condition(Warning); is.Status == metav1.ConditionTrue && (old.Status != is.Status || old.Reason != is.Reason) {
		all = append(all, news{true, is.Reason, is.Message})
	}
	return all
}
