package webhook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/horkos/horkos/webhook/admission"
)

// Bounds of what is told by events: a tenant who is refused all the time writes no more.
const (
	eventsWaiting = 256
	eventsRate    = 5 // a second
	eventsBurst   = 25
	// eventsAgain is how long the same is not told again.
	eventsAgain    = 5 * time.Minute
	eventsKnown    = 4096
	maxEventNote   = 1024 // bytes, as the API has it
	eventsTimeout  = 10 * time.Second
	eventNamespace = "kube-system"
)

// events writes what admission tells, once for the same in five minutes.
type events struct {
	client   func() (dynamic.Interface, error)
	instance string // who reports
	waiting  chan admission.Event
	limit    flowcontrol.RateLimiter
	log      *slog.Logger
	now      func() time.Time

	told map[[sha256.Size]byte]time.Time // of the goroutine of Run
}

func newEvents(client func() (dynamic.Interface, error), instance string, log *slog.Logger, now func() time.Time) *events {
	return &events{
		client: client, instance: instance, log: log, now: now,
		waiting: make(chan admission.Event, eventsWaiting),
		limit:   flowcontrol.NewTokenBucketRateLimiter(eventsRate, eventsBurst),
		told:    make(map[[sha256.Size]byte]time.Time),
	}
}

// Tell takes an event if there is room, and never waits.
func (e *events) Tell(event admission.Event) {
	select {
	case e.waiting <- event:
	default:
	}
}

// Run writes until the context ends.
func (e *events) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event := <-e.waiting:
			if e.known(event) {
				continue
			}
			for _, namespace := range namespacesOf(event) {
				if err := e.limit.Wait(ctx); err != nil {
					return ctx.Err()
				}
				e.write(ctx, namespace, event)
			}
		}
	}
}

// known tells whether the same was told a short while ago.
func (e *events) known(event admission.Event) bool {
	key := sha256.Sum256([]byte(strings.Join([]string{string(event.Reason), event.APIVersion, event.Kind, event.Namespace, event.Name, event.Message}, "\x00")))
	now := e.now()
	if at, ok := e.told[key]; ok && now.Sub(at) < eventsAgain {
		return true
	}
	if len(e.told) >= eventsKnown {
		for key, at := range e.told {
			if now.Sub(at) >= eventsAgain {
				delete(e.told, key)
			}
		}
		if len(e.told) >= eventsKnown {
			return true // enough is told
		}
	}
	e.told[key] = now
	return false
}

// namespacesOf are those that an event is written into: kube-system, where people of
// Alibaba Cloud's add-on look for it, and the object's own.
func namespacesOf(event admission.Event) []string {
	if event.Namespace == "" || event.Namespace == eventNamespace {
		return []string{eventNamespace}
	}
	return []string{eventNamespace, event.Namespace}
}

var eventsResource = schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}

func (e *events) write(ctx context.Context, namespace string, event admission.Event) {
	client, err := e.client()
	if err != nil {
		return // it is in the log of the webhook
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %v %s", e.instance, event, event.Time))
	note := event.Message
	if len(note) > maxEventNote {
		note = strings.ToValidUTF8(note[:maxEventNote-3], "") + "..."
	}
	regarding := map[string]any{"apiVersion": event.APIVersion, "kind": event.Kind, "name": event.Name}
	if event.Namespace != "" {
		regarding["namespace"] = event.Namespace
	}
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "events.k8s.io/v1", "kind": "Event",
		"metadata":            map[string]any{"name": "horkos-webhook." + hex.EncodeToString(sum[:8]), "namespace": namespace},
		"eventTime":           event.Time.UTC().Format("2006-01-02T15:04:05.000000Z07:00"),
		"reportingController": "horkos.dev/webhook",
		"reportingInstance":   e.instance,
		"action":              "Admission",
		"reason":              string(event.Reason),
		"type":                "Warning",
		"note":                note,
		"regarding":           regarding,
	}}
	ctx, cancel := context.WithTimeout(ctx, eventsTimeout)
	defer cancel()
	if _, err := client.Resource(eventsResource).Namespace(namespace).Create(ctx, object, metav1.CreateOptions{}); err != nil {
		e.log.Debug("an event cannot be written", "namespace", namespace, "error", err)
	}
}
