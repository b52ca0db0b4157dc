package main

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/controller"
)

// After how many times its duration a Lease that was not renewed says that nobody leads, and
// how long that is at least: one that was given back has a duration of a second, and another
// replica takes it within five.
const (
	leaseLapses = 3
	leaseLeast  = 10 * time.Second
)

// leaseSeen is the Lease of horkos controller at a time that it was looked at.
type leaseSeen struct {
	namespace string
	at        time.Time // when it was
	forbidden bool      // it may not be read
	leader    string
	renewed   time.Time // zero: there is none, or nobody ever held it
	duration  time.Duration
}

// readLease looks at the Lease.
func readLease(ctx context.Context, clients apiserver.Clients, namespace string, now time.Time) (leaseSeen, error) {
	leases := schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
	u, err := clients.Objects.Resource(leases).Namespace(namespace).Get(ctx, controller.LeaseName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return leaseSeen{namespace: namespace, at: now}, nil
	case apierrors.IsForbidden(err):
		return leaseSeen{namespace: namespace, at: now, forbidden: true}, nil
	case err != nil:
		return leaseSeen{}, fmt.Errorf("read the Lease %s/%s: %w", namespace, controller.LeaseName, err)
	}
	return leaseOf(u, now), nil
}

// leaseOf reads a Lease. What is not there, or is no time, is as if it was never renewed.
func leaseOf(u *unstructured.Unstructured, now time.Time) leaseSeen {
	l := leaseSeen{namespace: u.GetNamespace(), at: now}
	l.leader, _, _ = unstructured.NestedString(u.Object, "spec", "holderIdentity")
	seconds, _, _ := unstructured.NestedNumberAsFloat64(u.Object, "spec", "leaseDurationSeconds") // an int32, by its kind
	l.duration = time.Duration(seconds) * time.Second
	text, _, _ := unstructured.NestedString(u.Object, "spec", "renewTime")
	if renewed, err := time.Parse(time.RFC3339, text); err == nil {
		l.renewed = renewed
	}
	return l
}

// controllerState is whether horkos controller runs.
type controllerState struct {
	Known      bool      `json:"known"` // its Lease may be read
	Running    bool      `json:"running"`
	Namespace  string    `json:"namespace"`
	Leader     string    `json:"leader"`
	RenewedAt  time.Time `json:"renewedAt,omitzero"`
	RenewedAgo int64     `json:"renewedAgeSeconds"`
}

// state is that of the time at which the Lease was looked at, so that one that cannot be read
// any more does not grow old.
func (l leaseSeen) state() controllerState {
	s := controllerState{Known: !l.forbidden, Namespace: l.namespace}
	if l.forbidden || l.renewed.IsZero() {
		return s
	}
	age := max(0, l.at.Sub(l.renewed))
	s.Running = age <= max(leaseLapses*l.duration, leaseLeast)
	s.Leader, s.RenewedAt, s.RenewedAgo = l.leader, l.renewed.UTC(), int64(age.Seconds())
	return s
}

// text tells it to people.
func (s controllerState) text() string {
	const then = ": conditions are not kept current; "
	switch {
	case !s.Known:
		return fmt.Sprintf("not known: you may not read the Lease %s in the namespace %s", controller.LeaseName, s.Namespace)
	case s.RenewedAt.IsZero():
		return fmt.Sprintf("not running (there is no Lease %s in the namespace %s)", controller.LeaseName, s.Namespace) + then + askForPods(s.Namespace)
	case !s.Running:
		return fmt.Sprintf("not running for %s (Lease %s)", span(time.Duration(s.RenewedAgo)*time.Second), controller.LeaseName) + then + askForPods(s.Namespace)
	case s.Leader == "":
		return "running, a new leader is awaited"
	}
	return "running, the leader is " + s.Leader
}

// askForPods shows the controller's.
func askForPods(namespace string) string { return "kubectl -n " + namespace + " get pods" }
