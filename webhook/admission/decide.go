package admission

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/verifier"
)

// matter is what a review comes to: what is asked of whom.
type matter struct {
	Review
	req    *verifier.Request
	mirror bool // a node tells of a static pod, which it has decided on and runs

	brokenBy string // who let it through by breakglass, and why
	forPods  bool   // by what lets through the pods that come of it, too
}

// answer answers a review; unread is what is wrong with its envelope, and read is called when
// its objects are. Whatever panics is a denial.
func (h *Handler) answer(ctx context.Context, started time.Time, r *request, unread error, read func()) (resp response) {
	m := &matter{Review: reviewOf(r)}
	defer func() {
		if what := recover(); what != nil {
			h.panicked(m, what)
			resp = h.failed(m)
		}
	}()
	if unread != nil {
		read()
		return h.misread(m, started, unread)
	}
	ours, err := h.understand(m, r)
	r.Object, r.OldObject = nil, nil
	read()
	switch {
	case err != nil:
		return h.misread(m, started, err)
	case !ours:
		return response{UID: m.UID, Allowed: true}
	}
	dec := h.ask(ctx, m)
	dec, broken := h.breakglass(ctx, m, dec)
	return h.told(m, broken, h.conclude(m, dec, started))
}

// reviewOf is what the envelope says.
func reviewOf(r *request) Review {
	return Review{UID: r.UID, Operation: r.Operation, Resource: r.Resource, SubResource: r.SubResource, Kind: r.Kind,
		Namespace: r.Namespace, Name: r.Name, DryRun: r.DryRun}
}

// understand reads the objects of a review, and tells whether there is anything to decide.
func (h *Handler) understand(m *matter, r *request) (ours bool, err error) {
	kind, at, err := m.about()
	if err != nil || at == nil {
		return false, err
	}
	if m.User, err = r.user(); err != nil {
		return false, err
	}
	if !label(m.Namespace) {
		return false, fmt.Errorf("%.80q cannot be the name of a namespace", m.Namespace)
	}
	o, all, err := read(kind, at, r.Object)
	if err == nil {
		err = o.in(m.Namespace)
	}
	if err != nil {
		return false, err
	}
	m.Wrote = true
	if m.Operation == "UPDATE" {
		var same bool
		if same, m.Wrote, err = o.since(kind, at, m.Namespace, &all, r.OldObject); err != nil || same {
			return false, err
		}
	}
	m.take(o, all.once())
	m.req = &verifier.Request{Namespace: m.Namespace, Time: h.Shell.Now(), Once: true, Images: asWritten(m.Images)}
	return true, nil
}

// about gives the kind that the review is about, and where it has its pod; nowhere where the
// request brings no image.
func (r *Review) about() (Kind, place, error) {
	switch r.Operation {
	case "DELETE", "CONNECT":
		return Kind{}, nil, nil
	case "CREATE", "UPDATE":
	default:
		return Kind{}, nil, fmt.Errorf("operation %.80q is not known", r.Operation)
	}
	kind, at, ok := workload(r.Resource)
	switch {
	case !ok:
		return kind, nil, fmt.Errorf("%.160q is not reviewed here: take it out of the rules of the webhook", r.Resource)
	case r.Kind == kind:
		return kind, at, nil
	case r.SubResource != "" && r.SubResource != "ephemeralcontainers":
		return kind, nil, nil // a scale, a binding, an eviction: only an object of the workload's own kind can bring images
	}
	return kind, nil, fmt.Errorf("it is about a %.80q of %.80q: want %s of %s", r.Kind.Kind, r.Kind.APIVersion(), kind.Kind, kind.APIVersion())
}

// take adds what the object says.
func (m *matter) take(o *object, images []string) {
	if m.Name == "" {
		m.Name = o.Metadata.Name
	}
	if m.Name == "" {
		m.Name = o.Metadata.GenerateName
	}
	m.ObjectUID, m.Breakglass, m.Images = o.Metadata.UID, o.Metadata.Annotations.Breakglass, images
	m.mirror = m.isMirror(o)
}

// isMirror tells whether a node tells of a static pod of its own. By anybody else, or about
// another node, the annotation means nothing.
func (m *matter) isMirror(o *object) bool {
	node, isNode := strings.CutPrefix(m.User.Username, "system:node:")
	return o.Metadata.Annotations.Mirror != nil && isNode && node != "" && node == o.Spec.NodeName && slices.Contains(m.User.Groups, "system:nodes") &&
		m.Kind.Kind == "Pod" && m.SubResource == ""
}

// asWritten is what the verifier is asked about images.
func asWritten(names []string) []verifier.Image {
	if len(names) > MaxImages {
		return []verifier.Image{{Written: "of the object", Unbound: fmt.Sprintf("it names %d images, at most %d are decided on", len(names), MaxImages)}}
	}
	var all []verifier.Image
	for _, name := range names {
		img, err := verifier.AsWritten(name)
		if err != nil {
			img = verifier.Image{Written: name, Unbound: cause(err)}
		}
		all = append(all, img)
	}
	return all
}

// cause is an error without what stands before it: the message names the image already.
func cause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return clip(err.Error(), 200)
		}
		err = inner
	}
}

// ask has the verifier decide. Its errors, its panics and its time running out never allow.
func (h *Handler) ask(ctx context.Context, m *matter) (dec verifier.Decision) {
	failed := verifier.Refuse(m.req, verifier.Unavailable, verifier.Internal, "horkos failed: see the log of its webhook")
	defer func() {
		if what := recover(); what != nil {
			h.panicked(m, what)
			dec = failed
		}
	}()
	ctx, cancel := shortened(ctx)
	defer cancel()
	dec, err := h.Verifier.Verify(ctx, m.req)
	switch {
	case ctx.Err() != nil && (err != nil || dec.Result == verifier.Allowed):
		return verifier.Refuse(m.req, verifier.Unresolved, verifier.DeadlineExceeded, "the decision did not come in time")
	case err != nil:
		h.Shell.Log.Error("the verifier failed", "namespace", m.Namespace, "object", m.title(), "error", err)
		return failed
	case len(dec.Images) != max(len(m.req.Images), 1):
		h.Shell.Log.Error("the verifier did not decide on every image", "namespace", m.Namespace, "object", m.title())
		return failed
	}
	return dec
}

// shortened leaves a fifth of the time for what follows a decision.
func shortened(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-time.Until(end)/5))
}

// conclude records and counts a decision. Of a request that is a dry run nothing comes, so
// that the webhook may say it has no side effects then: no record, no count and no event.
func (h *Handler) conclude(m *matter, dec verifier.Decision, started time.Time) gate.Verdict {
	shell := h.deciding
	if m.mirror {
		shell = h.passing
	}
	if m.DryRun {
		return shell.Judge(m.req, dec)
	}
	return shell.Conclude(m.subject(), m.req, dec, started)
}

func (m *matter) subject() gate.Subject {
	return gate.Subject{Namespace: clip(m.Namespace, maxName), Pod: m.title(), UID: clip(m.ObjectUID, maxName), Static: m.mirror}
}

const maxName = 253 // bytes of a name that are repeated

// title is the name of a pod, and Kind/name of what is none.
func (m *matter) title() string {
	if m.Kind.Kind == "Pod" && m.Kind.Group == "" {
		return clip(m.Name, maxName)
	}
	return clip(m.Kind.Kind+"/"+m.Name, maxName)
}

// misread refuses a review that cannot be understood. It is recorded as an image that could
// not be tied down: nobody knows which one it is. No event tells of it, since its object may
// be none.
func (h *Handler) misread(m *matter, started time.Time, why error) response {
	text := clip(printable(why.Error()), 300)
	m.req = &verifier.Request{Namespace: clip(m.Namespace, maxName), Time: h.Shell.Now(), Once: true,
		Images: []verifier.Image{{Written: "of the review", Unbound: text}}}
	v := h.conclude(m, verifier.Refuse(m.req, verifier.Unresolved, verifier.ImageUnbound, text), started)
	text = "the review cannot be understood: " + text
	if v.Admit {
		return response{UID: m.UID, Allowed: true, Warnings: []string{clip("dry run: would be denied: "+text, maxWarning)}}
	}
	return response{UID: m.UID, Status: failure(http.StatusBadRequest, text, v.Decision.Result, v.Decision.Reason)}
}

func (h *Handler) panicked(m *matter, what any) {
	h.Shell.Log.Error("a review made the gate panic", "namespace", clip(m.Namespace, maxName), "object", m.title(),
		"panic", fmt.Sprint(what), "stack", string(debug.Stack()))
}

// failed answers where the gate itself panicked: nothing can be recorded then.
func (h *Handler) failed(m *matter) response {
	const text = "horkos failed: see the log of its webhook"
	if h.DryRun {
		return response{UID: m.UID, Allowed: true, Warnings: []string{"dry run: " + text}}
	}
	return response{UID: m.UID, Status: failure(http.StatusInternalServerError, text, verifier.Unavailable, verifier.Internal)}
}
