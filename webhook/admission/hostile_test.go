package admission

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/horkos/horkos/verifier"
)

func newRequest(body []byte) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/validate", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return r
}

func (d *door) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w
}

// sample is a review as the API server writes it, to be spoilt.
const sample = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u1","operation":"CREATE","namespace":"shop","name":"cart",` +
	`"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},"userInfo":{"username":"alice"},` +
	`"object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"cart","namespace":"shop"},"spec":{"containers":[{"name":"c","image":"alpine:3.11"}]}},"oldObject":null,"dryRun":false}}`

func spoilt(old, with string) string {
	if !strings.Contains(sample, old) {
		panic(old)
	}
	return strings.Replace(sample, old, with, 1)
}

// unanswerable are bodies to which no review can be answered.
func unanswerable() map[string]string {
	return map[string]string{
		"nothing":             ``,
		"null":                `null`,
		"a list":              `[` + sample + `]`,
		"a text":              `"x"`,
		"several documents":   sample + sample,
		"something behind it": sample + `x`,
		"half":                sample[:len(sample)/2],
		"YAML":                "apiVersion: admission.k8s.io/v1\nkind: AdmissionReview\n",
		"no request":          `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`,
		"a null request":      `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}`,
		"a request of text":   `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":"x"}`,
		"no uid":              spoilt(`"uid":"u1",`, ``),
		"a null uid":          spoilt(`"uid":"u1"`, `"uid":null`),
		"an empty uid":        spoilt(`"uid":"u1"`, `"uid":""`),
		"a uid in a list":     spoilt(`"uid":"u1"`, `"uid":["u1"]`),
		"a uid without end":   spoilt(`"uid":"u1"`, `"uid":"`+strings.Repeat("u", 1000)+`"`),
		"the uid in capitals": spoilt(`"uid":"u1"`, `"UID":"u1"`),
		"very deep":           spoilt(`"spec":{`, `"x":`+strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)+`,"spec":{`),
		"deep and open":       strings.Repeat(`{"request":`, 100_000),
	}
}

// misread are reviews that have a uid and cannot be understood.
func misread() map[string]string {
	return map[string]string{
		"an earlier version":          spoilt("admission.k8s.io/v1", "admission.k8s.io/v1beta1"),
		"a version nobody knows":      spoilt("admission.k8s.io/v1", "admission.k8s.io/v7"),
		"no version":                  spoilt(`"apiVersion":"admission.k8s.io/v1",`, ``),
		"another kind":                spoilt(`"kind":"AdmissionReview"`, `"kind":"ConversionReview"`),
		"the kind twice":              spoilt(`"kind":"AdmissionReview"`, `"kind":"AdmissionReview","kind":"AdmissionReview"`),
		"the uid twice":               spoilt(`"uid":"u1"`, `"uid":"u1","uid":"u2"`),
		"the object twice":            spoilt(`"oldObject":null`, `"object":{"apiVersion":"v1","kind":"Pod"}`),
		"the request twice":           spoilt(`"request":`, `"request":{"uid":"u2"},"request":`),
		"the image twice":             spoilt(`"image":"alpine:3.11"`, `"image":"alpine:3.11","image":"good"`),
		"the image twice, escaped":    spoilt(`"image":"alpine:3.11"`, `"im\u0061ge":"alpine:3.11","image":"good"`),
		"containers twice":            spoilt(`"containers":`, `"containers":[],"containers":`),
		"spec twice":                  spoilt(`"spec":`, `"spec":{},"spec":`),
		"no object":                   spoilt(`"object":`, `"objects":`),
		"a null object":               spoilt(`"object":{"apiVersion":"v1","kind":"Pod",`, `"object":null,"x":{`),
		"an object of text":           spoilt(`"object":{"apiVersion":"v1","kind":"Pod",`, `"object":"Pod","x":{`),
		"an object in a list":         spoilt(`"object":{"apiVersion":"v1","kind":"Pod",`, `"object":[],"x":{`),
		"an object of another kind":   spoilt(`"object":{"apiVersion":"v1","kind":"Pod"`, `"object":{"apiVersion":"v1","kind":"PodTemplate"`),
		"an object of other version":  spoilt(`"object":{"apiVersion":"v1"`, `"object":{"apiVersion":"v2"`),
		"an object of no kind":        spoilt(`"object":{"apiVersion":"v1","kind":"Pod",`, `"object":{`),
		"a kind that is not there":    spoilt(`"kind":{"group":"","version":"v1","kind":"Pod"}`, `"kind":null`),
		"a kind of another resource":  spoilt(`"version":"v1","kind":"Pod"`, `"version":"v1","kind":"ReplicationController"`),
		"a resource nobody reviews":   spoilt(`"resource":"pods"`, `"resource":"configmaps"`),
		"another group's pods":        spoilt(`"resource":{"group":""`, `"resource":{"group":"metrics.k8s.io"`),
		"another version's pods":      spoilt(`"version":"v1","resource"`, `"version":"v2","resource"`),
		"resource of text":            spoilt(`"resource":{"group":"","version":"v1","resource":"pods"}`, `"resource":"pods"`),
		"no operation":                spoilt(`"operation":"CREATE",`, ``),
		"an operation nobody knows":   spoilt(`"CREATE"`, `"create"`),
		"no namespace":                spoilt(`"namespace":"shop","name":"cart","kind"`, `"name":"cart","kind"`),
		"a namespace of several":      spoilt(`"namespace":"shop","name":"cart","kind"`, `"namespace":["shop"],"name":"cart","kind"`),
		"a namespace that cannot be":  spoilt(`"namespace":"shop","name":"cart","kind"`, `"namespace":"shop\u0000","name":"cart","kind"`),
		"containers that are a map":   spoilt(`"containers":[{"name":"c","image":"alpine:3.11"}]`, `"containers":{"c":{"image":"good"}}`),
		"an image that is a number":   spoilt(`"image":"alpine:3.11"`, `"image":1`),
		"an image in a list":          spoilt(`"image":"alpine:3.11"`, `"image":["alpine:3.11"]`),
		"a dryRun that is a text":     spoilt(`"dryRun":false`, `"dryRun":"false"`),
		"an old object of text":       strings.Replace(spoilt(`"CREATE"`, `"UPDATE"`), `"oldObject":null`, `"oldObject":"x"`, 1),
		"an old object of other kind": strings.Replace(spoilt(`"CREATE"`, `"UPDATE"`), `"oldObject":null`, `"oldObject":{"apiVersion":"v1","kind":"Node"}`, 1),
	}
}

// odd are reviews that can be understood, and have images that nobody attested.
func odd() map[string]string {
	return map[string]string{
		"as it is":                   sample,
		"null containers":            spoilt(`"containers":[{"name":"c","image":"alpine:3.11"}]`, `"containers":null`),
		"a null container":           spoilt(`{"name":"c","image":"alpine:3.11"}`, `null`),
		"a null image":               spoilt(`"image":"alpine:3.11"`, `"image":null`),
		"a null spec":                spoilt(`"spec":{"containers":[{"name":"c","image":"alpine:3.11"}]}`, `"spec":null`),
		"null metadata":              spoilt(`"metadata":{"name":"cart","namespace":"shop"}`, `"metadata":null`),
		"the image in capitals":      spoilt(`"image":"alpine:3.11"`, `"Image":"good"`),
		"an image without end":       spoilt(`alpine:3.11`, strings.Repeat("a", 1<<20)),
		"an image that is no text":   spoilt(`alpine:3.11`, `\ud800\u0007`),
		"bytes that are no text":     spoilt(`alpine:3.11`, "\xff\xfe"),
		"deep, but not too deep":     spoilt(`"spec":{`, `"x":`+strings.Repeat("[", 5_000)+strings.Repeat("]", 5_000)+`,"spec":{`),
		"fields that nobody knows":   spoilt(`"dryRun":false`, `"fieldValidation":{"a":[1,2,{}]},"dryRun":null`),
		"an update of nothing":       spoilt(`"CREATE"`, `"UPDATE"`),
		"a null user":                spoilt(`"userInfo":{"username":"alice"}`, `"userInfo":null`),
		"volumes with nothing in it": spoilt(`"containers":`, `"volumes":[null,{},{"image":null},{"image":{}}],"containers":`),
	}
}

func TestAReviewWithoutAUIDIsAnErrorOfHTTP(t *testing.T) {
	d := newDoor(t, verify(allowAll))
	for name, body := range unanswerable() {
		t.Run(name, func(t *testing.T) {
			if w := d.serve(newRequest([]byte(body))); w.Code != http.StatusBadRequest {
				t.Errorf("HTTP %d: %s", w.Code, w.Body)
			}
		})
	}
}

func TestAReviewThatCannotBeUnderstoodIsDenied(t *testing.T) {
	d := newDoor(t, verify(allowAll)) // so that nothing but the reading denies
	for name, body := range misread() {
		t.Run(name, func(t *testing.T) {
			before := len(d.records)
			resp := d.answered(d.serve(newRequest([]byte(body))))
			if resp.Allowed || resp.Result.Code != http.StatusBadRequest || !strings.HasPrefix(resp.Result.Message, "the review cannot be understood: ") || len(resp.Result.Message) > 900 {
				t.Errorf("%+v", resp)
			}
			if strings.Contains(name, " object") && (name[:2] == "no" || strings.Contains(name, "null")) && !strings.HasSuffix(resp.Result.Message, "there is no object") {
				t.Errorf("message %q", resp.Result.Message)
			}
			if got := d.records[before:]; len(got) != 1 || got[0].Admitted {
				t.Errorf("records %+v", got)
			}
		})
	}
	if len(d.events) > 0 {
		t.Errorf("events %+v", d.events)
	}
}

func TestAnOddReviewIsDecidedAsAnyOther(t *testing.T) {
	d := newDoor(t, shop(t))
	for name, body := range odd() {
		t.Run(name, func(t *testing.T) { wantDenied(t, d.answered(d.serve(newRequest([]byte(body))))) })
	}
}

func TestWhatIsNotAPostOfJSONIsRefused(t *testing.T) {
	d := newDoor(t, verify(allowAll))
	for name, tt := range map[string]struct {
		change func(*http.Request)
		want   int
	}{
		"GET":             {func(r *http.Request) { r.Method = http.MethodGet }, http.StatusMethodNotAllowed},
		"no content type": {func(r *http.Request) { r.Header.Del("Content-Type") }, http.StatusUnsupportedMediaType},
		"YAML":            {func(r *http.Request) { r.Header.Set("Content-Type", "application/yaml") }, http.StatusUnsupportedMediaType},
		"a broken type":   {func(r *http.Request) { r.Header.Set("Content-Type", "application/json; =") }, http.StatusUnsupportedMediaType},
		"a charset":       {func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-8") }, http.StatusOK},
		"a body that breaks off": {func(r *http.Request) {
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader(sample[:100]), brokenReader{}))
		}, http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRequest([]byte(sample))
			tt.change(r)
			if w := d.serve(r); w.Code != tt.want {
				t.Errorf("HTTP %d, want %d: %s", w.Code, tt.want, w.Body)
			}
		})
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestAReviewIsReadUpToItsBound(t *testing.T) {
	d := newDoor(t, verify(allowAll))
	for size, want := range map[int]int{MaxBody: http.StatusOK, MaxBody + 1: http.StatusRequestEntityTooLarge, 10 << 20: http.StatusRequestEntityTooLarge} {
		body := append([]byte(sample), bytes.Repeat([]byte(" "), size-len(sample))...)
		if w := d.serve(newRequest(body)); w.Code != want {
			t.Errorf("%d bytes: HTTP %d, want %d", size, w.Code, want)
		}
	}
	d = newDoor(t, verify(allowAll), func(o *Options) { o.MaxBody = 100 })
	if w := d.serve(newRequest([]byte(sample))); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("HTTP %d", w.Code)
	}
}

// large is the sample with an annotation that makes it so.
func large() []byte {
	return []byte(spoilt(`"metadata":{`, `"metadata":{"annotations":{"a":"`+strings.Repeat("x", largeReview)+`"},`))
}

func TestALargeReviewWaitsForOthersToBeReadAndForNothingElse(t *testing.T) {
	reached, release := make(chan struct{}, 10), make(chan struct{})
	d := newDoor(t, verify(func(_ context.Context, req *verifier.Request) (verifier.Decision, error) {
		reached <- struct{}{}
		<-release
		return verifier.Refuse(req, verifier.Denied, verifier.NotAttested, ""), nil
	}))
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if w := d.serve(newRequest(large())); w.Code != http.StatusOK {
				t.Errorf("HTTP %d: %s", w.Code, w.Body)
			}
		})
	}
	for range 3 { // all are decided on at once
		<-reached
	}
	close(release)
	all.Wait()

	d.reading <- struct{}{} // one is read
	w := httptest.NewRecorder()
	r := newRequest(large())
	r.URL.RawQuery = "timeout=50ms"
	if d.ServeHTTP(w, r); w.Code != http.StatusTooManyRequests {
		t.Errorf("one that cannot wait: HTTP %d: %s", w.Code, w.Body)
	}
	if w := d.serve(newRequest([]byte(sample))); w.Code != http.StatusOK {
		t.Errorf("a usual one: HTTP %d: %s", w.Code, w.Body)
	}
	<-d.reading
	for name, body := range map[string][]byte{"large": large(), "large, and nobody's": append(large(), "x"...), "large, of another kind": bytes.Replace(large(), []byte(`"Pod"`), []byte(`"Pot"`), 1)} {
		d.serve(newRequest(body))
		if len(d.reading) != 0 {
			t.Errorf("%s: no other is read after it", name)
		}
	}
}
