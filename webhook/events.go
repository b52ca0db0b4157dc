package webhook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/horkos/horkos/webhook/admission"
)

// Bounds of what is told by events. Who is refused all the time, under ever other names,
// takes nobody else's share.
const (
	eventsWaiting = 256
	eventsRate    = 5 // a second
	eventsBurst   = 25
	// eventsAgain is how long the same is not told again.
	eventsAgain = 5 * time.Minute
	// A namespace has eventsShare at once, and one more every eventsRefill.
	eventsShare      = 10
	eventsRefill     = 10 * time.Second
	eventsNamespaces = 4096
	maxEventNote     = 1024 // bytes, as the API has it
	eventsTimeout    = 10 * time.Second
	eventsLast       = 5 * time.Second // for what waits when the webhook ends
	eventNamespace   = "kube-system"
)

// events writes what admission tells, once for the same in five minutes.
type events struct {
	client     func() (dynamic.Interface, error)
	instance   string // who reports
	waiting    chan admission.Event
	exceptions chan admission.Event // of breakglass and emergencies: no refusals crowd these out
	limit      flowcontrol.RateLimiter
	metrics    *Metrics
	log        *slog.Logger
	now        func() time.Time

	mu     sync.Mutex
	shares map[string]*eventShare // by namespace
	walked time.Time              // when those that are quiet were last looked for
}

// eventShare is what a namespace has told, and may tell.
type eventShare struct {
	left, exceptions float64 // of refusals, and of what is exceptional
	at               time.Time
	told             map[[sha256.Size]byte]time.Time
}

func newEvents(client func() (dynamic.Interface, error), instance string, metrics *Metrics, log *slog.Logger, now func() time.Time) *events {
	return &events{
		client: client, instance: instance, metrics: metrics, log: log, now: now,
		waiting:    make(chan admission.Event, eventsWaiting),
		exceptions: make(chan admission.Event, eventsWaiting),
		limit:      flowcontrol.NewTokenBucketRateLimiter(eventsRate, eventsBurst),
		shares:     make(map[string]*eventShare),
	}
}

// Tell takes an event if there is room, and never waits.
func (e *events) Tell(event admission.Event) {
	tell, dropped := e.may(event)
	queue := e.waiting
	if exceptional(event) {
		queue = e.exceptions
	}
	if tell {
		select {
		case queue <- event:
		default:
			dropped = true
		}
	}
	if dropped {
		e.metrics.events.WithLabelValues("dropped").Inc()
	}
}

// exceptional tells whether something passed that would else have been refused.
func exceptional(event admission.Event) bool {
	return event.Reason == admission.BreakglassAdmission || event.Reason == admission.EmergencyAdmission
}

// may tells whether an event is to be told, and else whether that is for want of room.
func (e *events) may(event admission.Event) (tell, dropped bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	exception := exceptional(event)
	share := e.share(event.Namespace, now)
	if share == nil {
		return exception, !exception
	}
	key := eventKey(event)
	if at, ok := share.told[key]; ok && now.Sub(at) < eventsAgain {
		return false, false
	}
	left := &share.left
	if exception { // a token may have spread
		left = &share.exceptions
	}
	if *left < 1 {
		return false, true
	}
	*left--
	for key, at := range share.told {
		if now.Sub(at) >= eventsAgain {
			delete(share.told, key)
		}
	}
	if len(share.told) < eventsWaiting {
		share.told[key] = now
	}
	return true, false
}

// share is that of a namespace; nil where there are too many namespaces.
func (e *events) share(namespace string, now time.Time) *eventShare {
	s := e.shares[namespace]
	if s == nil {
		if len(e.shares) >= eventsNamespaces && now.Sub(e.walked) >= time.Second {
			e.walked = now
			for name, s := range e.shares {
				if now.Sub(s.at) >= eventsAgain {
					delete(e.shares, name)
				}
			}
		}
		if len(e.shares) >= eventsNamespaces {
			return nil
		}
		s = &eventShare{left: eventsShare, exceptions: eventsShare, at: now, told: make(map[[sha256.Size]byte]time.Time)}
		e.shares[namespace] = s
	}
	more := max(0, float64(now.Sub(s.at))/float64(eventsRefill))
	s.left, s.exceptions, s.at = min(eventsShare, s.left+more), min(eventsShare, s.exceptions+more), now
	return s
}

// eventKey is equal for what is the same to who reads it.
func eventKey(event admission.Event) [sha256.Size]byte {
	return sha256.Sum256([]byte(strings.Join([]string{string(event.Reason), event.APIVersion, event.Kind, event.Namespace, event.Name, event.Message}, "\x00")))
}

// Run writes until the context ends, and then what waits, for at most eventsLast.
func (e *events) Run(ctx context.Context) error {
	writing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		select {
		case <-time.After(eventsLast):
			cancel()
		case <-writing.Done():
		}
	})()
	for {
		select { // what waits goes before the end
		case event := <-e.exceptions:
			e.tell(writing, event)
			continue
		case event := <-e.waiting:
			e.tell(writing, event)
			continue
		default:
		}
		select {
		case event := <-e.exceptions:
			e.tell(writing, event)
		case event := <-e.waiting:
			e.tell(writing, event)
		case <-ctx.Done():
			return nil
		}
	}
}

func (e *events) tell(ctx context.Context, event admission.Event) {
	for _, namespace := range namespacesOf(event) {
		if err := e.limit.Wait(ctx); err != nil {
			e.metrics.events.WithLabelValues("dropped").Inc()
			return
		}
		e.write(ctx, namespace, event)
	}
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
		e.metrics.events.WithLabelValues("failed").Inc()
		return // it is in the log of the webhook
	}
	ctx, cancel := context.WithTimeout(ctx, eventsTimeout)
	defer cancel()
	_, err = client.Resource(eventsResource).Namespace(namespace).Create(ctx, eventObject(e.instance, namespace, event), metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err):
	case err != nil:
		e.metrics.events.WithLabelValues("failed").Inc()
		e.log.Debug("an event cannot be written", "namespace", namespace, "error", err)
	default:
		e.metrics.events.WithLabelValues("written").Inc()
	}
}

// eventObject is an event as it is written.
func eventObject(instance, namespace string, event admission.Event) *unstructured.Unstructured {
	// Of two replicas that tell the same, one does.
	sum := sha256.Sum256(fmt.Appendf(nil, "%x %s", eventKey(event), event.Time.UTC().Truncate(eventsAgain)))
	note := event.Message
	if len(note) > maxEventNote {
		note = strings.ToValidUTF8(note[:maxEventNote-3], "") + "..."
	}
	regarding := map[string]any{"apiVersion": event.APIVersion, "kind": event.Kind, "name": event.Name}
	if event.UID != "" { // by which kubectl describe looks for it
		regarding["uid"] = event.UID
	}
	if event.Namespace != "" {
		regarding["namespace"] = event.Namespace
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "events.k8s.io/v1", "kind": "Event",
		"metadata":            map[string]any{"name": "horkos-webhook." + hex.EncodeToString(sum[:8]), "namespace": namespace},
		"eventTime":           event.Time.UTC().Format("2006-01-02T15:04:05.000000Z07:00"),
		"reportingController": "horkos.dev/webhook",
		"reportingInstance":   instance,
		"action":              "Admission",
		"reason":              string(event.Reason),
		"type":                "Warning",
		"note":                note,
		"regarding":           regarding,
	}}
}
