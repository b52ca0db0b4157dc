package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"
)

const maxAnswer = 1 << 20

var (
	errTooLarge = errors.New("the body is too large")
	errNoMemory = errors.New("too many bytes at once")
)

// bounded calls a handler with whole bodies, so many and so large as there is room for, and
// answers for it when it fails. No answer that it makes by itself is one of status 200.
type bounded struct {
	handler  http.Handler
	limits   Limits
	requests *shares
	bytes    *shares     // of all bodies, but of the beginning of each
	leaving  atomic.Bool // connections are to be given up by the clients
	metrics  *Metrics
	log      *slog.Logger
}

func (b *bounded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if b.leaving.Load() {
		w.Header().Set("Connection", "close")
	}
	host := hostOf(r.RemoteAddr)
	if !b.requests.take(host, 1) {
		b.refuse(w, http.StatusTooManyRequests, causeRequests, "too many requests at once, try again")
		return
	}
	defer b.requests.give(host, 1)
	b.metrics.requests.Inc()
	defer b.metrics.requests.Dec()

	body, err := b.read(host, r.Body, r.ContentLength)
	defer b.bytes.give(host, b.counted(cap(body)))
	switch {
	case errors.Is(err, errTooLarge):
		b.refuse(w, http.StatusRequestEntityTooLarge, causeTooLarge, fmt.Sprintf("the body is over %d bytes", b.limits.Body))
		return
	case errors.Is(err, errNoMemory):
		b.refuse(w, http.StatusTooManyRequests, causeMemory, "too many bytes at once, try again")
		return
	case err != nil:
		b.refuse(w, http.StatusBadRequest, causeUnread, "the body did not come")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), b.timeout(r))
	defer cancel()
	r = r.WithContext(ctx)
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	b.answer(w, r)
}

func (b *bounded) refuse(w http.ResponseWriter, status int, cause, text string) {
	b.metrics.refused.WithLabelValues(cause).Inc()
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1") // an API server does so, as long as it has time
	}
	http.Error(w, text, status)
}

// timeout is how long the client waits, as API servers tell by ?timeout=10s.
func (b *bounded) timeout(r *http.Request) time.Duration {
	if asked, err := time.ParseDuration(r.URL.Query().Get("timeout")); err == nil && asked > 0 {
		return min(asked, b.limits.Handling)
	}
	return b.limits.Handling
}

// read reads a body. Memory is counted as it is filled: who announces much and sends nothing
// takes nothing. The capacity of the answer is what is counted, also when there is an error.
func (b *bounded) read(host string, from io.Reader, announced int64) ([]byte, error) {
	if announced > int64(b.limits.Body) {
		return nil, errTooLarge
	}
	var body []byte
	for {
		if len(body) == cap(body) {
			size := b.grown(cap(body), announced)
			if !b.bytes.take(host, b.counted(size)) {
				return body, errNoMemory
			}
			larger := make([]byte, len(body), size)
			copy(larger, body)
			b.bytes.give(host, b.counted(cap(body)))
			body = larger
		}
		n, err := from.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case len(body) > b.limits.Body:
			return body, errTooLarge
		case err == io.EOF:
			return body, nil
		case err != nil:
			return body, err
		}
	}
}

// counted is what a body of a capacity has of Limits.Bytes. The beginning has a place of its
// own, so that no others leave no room for a usual review.
func (b *bounded) counted(capacity int) int64 { return int64(max(0, capacity-b.limits.Small)) }

// grown is the next capacity: one more than what is announced, in which the end is found. A
// usual body has its place at once.
func (b *bounded) grown(have int, announced int64) int {
	size := max(4<<10, 2*have)
	if announced >= int64(have) && announced <= max(int64(size), int64(b.limits.Small)) {
		size = int(announced) + 1
	}
	if size >= b.limits.Body {
		return b.limits.Body + 1 // not all but one byte of it first
	}
	return size
}

// answer calls the handler, and sends what it has answered when it is whole: of one that
// panics halfway, nothing is sent that could be taken for an answer.
func (b *bounded) answer(w http.ResponseWriter, r *http.Request) {
	kept := &answer{header: make(http.Header)}
	if !b.call(kept, r) {
		http.Error(w, "the request could not be handled: an error in the webhook", http.StatusInternalServerError)
		return
	}
	if kept.over {
		b.log.Error("an answer of the webhook is too large: it is refused", "path", r.URL.Path)
		http.Error(w, "the request could not be handled: its answer is too large", http.StatusInternalServerError)
		return
	}
	for name, values := range kept.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(kept.body.Len()))
	w.WriteHeader(max(kept.status, http.StatusOK))
	_, _ = w.Write(kept.body.Bytes()) // who has gone is not told
}

func (b *bounded) call(w http.ResponseWriter, r *http.Request) (done bool) {
	defer func() {
		if reason := recover(); reason != nil {
			b.metrics.panics.Inc()
			// Not what it says: that may quote the request.
			b.log.Error("a request to the webhook ended by a panic: it is refused", "path", r.URL.Path, "type", fmt.Sprintf("%T", reason), "stack", string(debug.Stack()))
		}
	}()
	b.handler.ServeHTTP(w, r)
	return true
}

// answer is a ResponseWriter that keeps what is written.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
	over   bool
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(data []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.body.Len()+len(data) > maxAnswer {
		a.over = true
		return 0, errors.New("the answer is too large")
	}
	return a.body.Write(data)
}
