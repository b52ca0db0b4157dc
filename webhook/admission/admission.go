// Package admission is the gate at the API server: it answers AdmissionReviews about
// objects that bring images, with the verifier that every gate asks. What is written
// counts: the name as bound, the digest as what will run. It may refuse what a node would
// admit, never the reverse, but for what only a node can see.
package admission

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"sync"
	"time"

	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/verifier"
)

// GateName is the gate's name in records and metrics.
const GateName = "webhook"

// Limits of a review.
const (
	// MaxBody bounds a review where Options give no other limit: what the API server takes of a client.
	MaxBody = 3 << 20
	// MaxImages bounds the images of one object, each counted once: each is a record.
	MaxImages = 256
	// DefaultTimeout is for reviews that do not say how long the API server waits, and
	// maxTimeout is the most that it does.
	DefaultTimeout = 10 * time.Second
	maxTimeout     = 30 * time.Second
)

// Verifier decides requests. It gives up when the context ends.
type Verifier interface {
	Verify(context.Context, *verifier.Request) (verifier.Decision, error)
}

// Options are what a Handler is made of.
type Options struct {
	Verifier Verifier
	// Shell concludes decisions. Its gate is GateName and its mode follows DryRun, whatever
	// they are. Its clock is the handler's.
	Shell gate.Shell
	// Events is told what was denied, or would have been; nil: nobody is.
	Events Teller

	// DryRun lets everything through, with a warning where it would have been denied.
	DryRun bool
	// MaxBody bounds a review in bytes; MaxBody where it is 0.
	MaxBody int64

	// Breakglass is asked about a review that would be denied. It may be nil, gives up when the
	// context ends, and leaves nothing behind of a Review that is a DryRun.
	Breakglass func(context.Context, Review) Glass
}

// Handler answers AdmissionReviews of admission.k8s.io/v1.
type Handler struct {
	Options
	deciding *gate.Shell   // with the mode of the webhook
	passing  *gate.Shell   // that passes all, and records that
	reading  chan struct{} // held while a large review is read
}

// largeReview is from where on a review is read alone: what is in it takes many times its
// size for a moment.
const largeReview = 512 << 10

// New makes a Handler.
func New(o Options) *Handler {
	if o.MaxBody == 0 {
		o.MaxBody = MaxBody
	}
	o.Shell.Gate, o.Shell.Mode = GateName, gate.Enforce
	h := &Handler{Options: o, reading: make(chan struct{}, 1)}
	deciding, passing := o.Shell, o.Shell
	passing.Mode = gate.Audit
	if o.DryRun {
		deciding.Mode = gate.Audit
	}
	h.deciding, h.passing = &deciding, &passing
	return h
}

// ServeHTTP answers one review. What cannot be answered as a review, for want of a uid, is
// an error of HTTP: the API server takes it for a failed call, and its failurePolicy denies.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	body, code, err := h.body(w, r)
	if err != nil {
		http.Error(w, err.Error(), code)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout(r))
	defer cancel()
	read, err := h.alone(ctx, len(body))
	if err != nil {
		w.Header().Set("Retry-After", "1") // an API server does, as long as it has time
		http.Error(w, err.Error(), http.StatusTooManyRequests)
		return
	}
	defer read()
	req, err := decode(body)
	if req == nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer, err := json.Marshal(answer{reviewVersion, reviewKind, h.answer(ctx, started, req, err, read)})
	if err != nil {
		http.Error(w, "the answer could not be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer) // whoever asked is gone: there is nobody to tell
}

// alone waits until no other large review is read, if this one is large, and gives what is to
// be called when this one is. Only arithmetic is done until then, and nothing waited for.
func (h *Handler) alone(ctx context.Context, size int) (read func(), err error) {
	if size <= largeReview {
		return func() {}, nil
	}
	select {
	case h.reading <- struct{}{}:
		return sync.OnceFunc(func() { <-h.reading }), nil
	case <-ctx.Done():
		return nil, errors.New("too many large reviews at once, try again")
	}
}

// body reads what was sent, or says with which code it is refused.
func (h *Handler) body(w http.ResponseWriter, r *http.Request) (body []byte, code int, err error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, http.StatusMethodNotAllowed, errors.New("want POST of an AdmissionReview")
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, http.StatusUnsupportedMediaType, errors.New("want Content-Type application/json")
	}
	var b bytes.Buffer
	b.Grow(int(min(max(r.ContentLength, 0), 64<<10)) + bytes.MinRead) // what is claimed may not come
	_, err = b.ReadFrom(http.MaxBytesReader(w, r.Body, h.MaxBody))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, http.StatusRequestEntityTooLarge, errors.New("the review is larger than is read")
	case err != nil:
		return nil, http.StatusBadRequest, errors.New("the review could not be read")
	}
	return b.Bytes(), 0, nil
}

// timeout is how long a review may take: a tenth less than the API server waits, so that it
// gets an answer that says why.
func timeout(r *http.Request) time.Duration {
	d, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil || d <= 0 {
		d = DefaultTimeout
	}
	d = min(d, maxTimeout)
	return d - d/10
}
