package controller

import (
	"context"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

var events = schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}

const (
	reportingController = "horkos.dev/controller"
	// eventsAtOnce and eventEvery bound the events of one object: so many, and one more each
	// such time.
	eventsAtOnce = 10
	eventEvery   = time.Minute
)

// allowance is how many events of each object may still be sent.
type allowance struct {
	left map[types.UID]budget
}

type budget struct {
	events int
	at     time.Time // up to which those that come with time are counted
}

// take tells whether one more event of an object may be sent.
func (a *allowance) take(uid types.UID, now time.Time) bool {
	b, ok := a.left[uid]
	if !ok {
		b = budget{eventsAtOnce, now}
	}
	if n := int(now.Sub(b.at) / eventEvery); n > 0 {
		b.events, b.at = min(b.events+n, eventsAtOnce), b.at.Add(time.Duration(n)*eventEvery)
	}
	sent := b.events > 0
	if sent {
		b.events--
	}
	if a.left == nil {
		a.left = make(map[types.UID]budget)
	}
	a.left[uid] = b
	return sent
}

// keep forgets the objects that are gone.
func (a *allowance) keep(there map[types.UID]bool) {
	for uid := range a.left {
		if !there[uid] {
			delete(a.left, uid)
		}
	}
}

// send makes an event about an object.
func send(ctx context.Context, client dynamic.Interface, identity string, about *unstructured.Unstructured, n news, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	namespace := about.GetNamespace()
	if namespace == "" {
		namespace = metav1.NamespaceDefault // where events of cluster-scoped objects are
	}
	kind := "Normal"
	if n.warning {
		kind = "Warning"
	}
	event := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion":          events.GroupVersion().String(),
		"kind":                "Event",
		"metadata":            map[string]any{"generateName": eventName(about.GetName()), "namespace": namespace},
		"eventTime":           now.UTC().Format(metav1.RFC3339Micro),
		"reportingController": reportingController,
		"reportingInstance":   identity,
		"action":              "Judge",
		"reason":              n.reason,
		"type":                kind,
		"note":                n.note,
		"regarding": map[string]any{"apiVersion": about.GetAPIVersion(), "kind": about.GetKind(), "namespace": about.GetNamespace(),
			"name": about.GetName(), "uid": string(about.GetUID()), "resourceVersion": about.GetResourceVersion()},
	}}
	if _, err := client.Resource(events).Namespace(namespace).Create(ctx, event, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("send an event: %w", err)
	}
	return nil
}

// eventName is what the name of an event about an object begins with.
func eventName(name string) string {
	return strings.TrimRight(name[:min(len(name), 50)], ".-") + "-"
}
