package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/source/web/webtest"
)

var (
	cart  = image.Identity{Repository: "registry.example.com/shop/cart", Digest: image.SHA256([]byte("cart"))}
	other = image.Identity{Repository: "registry.example.com/shop/other", Digest: image.SHA256([]byte("other"))}
)

const long = 30 * time.Second

func nameOf(id image.Identity) string { return strings.Replace(string(id.Digest), ":", "-", 1) }

// missing is what an API server says of an object that is not there.
func missing(name string) string {
	return fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"imageattestations.horkos.dev \"%s\" not found",`+
		`"reason":"NotFound","details":{"name":"%s","group":"horkos.dev","kind":"imageattestations"},"code":404}`, name, name)
}

// source is one that asks a server with that handler.
func source(t testing.TB, handler http.HandlerFunc) (*Source, *httptest.Server) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, err := apiserver.Connect(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return New(c).Source.(*Source), server
}

func ask(s *Source, id image.Identity, within time.Duration) ([]evidence.Attestation, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return s.Fetch(ctx, evidence.Question{Source: Name, Locator: locator, Identity: id})
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func TestTheObjectOfTheDigestIsAskedForByItsName(t *testing.T) {
	var asked atomic.Value
	s, _ := source(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Method + " " + r.URL.String())
		_, _ = w.Write(webtest.Object(cart, 2))
	})
	found, err := ask(s, cart, long)
	if err != nil || len(found) != 2 {
		t.Fatalf("%d attestations, %v", len(found), err)
	}
	if want := "GET /apis/horkos.dev/v1alpha1/imageattestations/" + nameOf(cart); asked.Load() != want {
		t.Errorf("asked %v, want %s", asked.Load(), want)
	}
	if want := "ImageAttestation " + nameOf(cart) + " (cluster)"; found[0].Origin != want {
		t.Errorf("origin %q, want %q", found[0].Origin, want)
	}
	// Another repository has the same bytes: what is said of one is not said of the other.
	if found, err := ask(s, image.Identity{Repository: other.Repository, Digest: cart.Digest}, long); err != nil || len(found) != 0 {
		t.Errorf("of another repository: %d attestations, %v", len(found), err)
	}
	asked.Store("")
	for digest, want := range map[image.Digest]bool{"sha512:" + image.Digest(strings.Repeat("a", 128)): true, "sha256:../../../pods": false, "": false} {
		if found, err := ask(s, image.Identity{Repository: cart.Repository, Digest: digest}, long); len(found) > 0 || (err == nil) != want || asked.Load() != "" {
			t.Errorf("%s: %d attestations, %v, asked %q", digest, len(found), err, asked.Load())
		}
	}
}

func TestWhatIsAnAnswerAndWhatIsNone(t *testing.T) {
	object := string(webtest.Object(cart, 1))
	change := func(old, new string) string {
		if !strings.Contains(object, old) {
			t.Fatalf("no %s in %s", old, object)
		}
		return strings.Replace(object, old, new, 1)
	}
	const unusable, unavailable = "!", "?"
	tests := map[string]struct {
		status int
		body   string
		want   string // empty: an answer; else unusable or unavailable, and a part of the text
	}{
		"the object":                               {200, object, ""},
		"no object":                                {404, missing(nameOf(cart)), ""},
		"the kind is not there":                    {404, "404 page not found\n", unavailable + "apply the CRDs"},
		"the kind is not there, as a Status":       {404, `{"kind":"Status","reason":"NotFound","message":"the server could not find the requested resource","details":{},"code":404}`, unavailable + "apply the CRDs"},
		"another object is not there":              {404, missing(nameOf(other)), unavailable + "404"},
		"an object of another kind is not there":   {404, strings.Replace(missing(nameOf(cart)), "imageattestations\"}", "pods\"}", 1), unavailable + "404"},
		"an object of another group is not there":  {404, strings.Replace(missing(nameOf(cart)), "\"horkos.dev\"", "\"example.com\"", 1), unavailable + "404"},
		"no namespace":                             {404, strings.Replace(missing(nameOf(cart)), `"reason":"NotFound"`, `"reason":"Expired"`, 1), unavailable + "404"},
		"a 404 that says nothing":                  {404, "", unavailable + "404"},
		"a 404 without end":                        {404, strings.Repeat("x", maxBody+1), unavailable + "404"},
		"missing, with another status":             {200, missing(nameOf(cart)), unusable + "something else"},
		"gone":                                     {410, missing(nameOf(cart)), unavailable + "410 Gone"},
		"forbidden":                                {403, missing(nameOf(cart)), unavailable + "403 Forbidden; the role horkos-node"},
		"not known":                                {401, missing(nameOf(cart)), unavailable + "401 Unauthorized; it does not know the certificate"},
		"too many requests":                        {429, "", unavailable + "429"},
		"an error":                                 {500, object, unavailable + "500"},
		"no etcd":                                  {503, "", unavailable + "503"},
		"another status":                           {204, "", unavailable + "204"},
		"nothing":                                  {200, "", unusable + "garbage"},
		"a web page":                               {200, "<html>secret", unusable + "garbage"},
		"half an object":                           {200, object[:len(object)/2], unusable + "garbage"},
		"two objects":                              {200, object + object, unusable + "garbage"},
		"a list":                                   {200, `{"apiVersion":"v1","kind":"List","items":[` + object + "," + object + "]}", unusable + "something else"},
		"an object of another name":                {200, string(webtest.Object(other, 1)), unusable + "something else"},
		"an object of another kind":                {200, change("ImageAttestation", "ImageRevocation"), unusable + "something else"},
		"an object of another version":             {200, change("v1alpha1", "v2"), unusable + "something else"},
		"an object of another group":               {200, change("horkos.dev/", "example.com/"), unusable + "something else"},
		"a malformed object":                       {200, change(`"spec":{`, `"spec":{"secret":1,`), unusable + "malformed"},
		"an object with a key that is there twice": {200, change(`"spec":{`, `"kind":"ImageAttestation","spec":{`), unusable + "something else"},
		"unknown fields beside spec":               {200, change(`"spec":{`, `"status":{"x":[1]},"spec":{`), ""},
		"the largest answer":                       {200, object + strings.Repeat(" ", maxBody-len(object)), ""},
		"a larger answer":                          {200, object + strings.Repeat(" ", maxBody-len(object)+1), unusable + "is over 2097152 bytes"},
		"an answer of many values":                 {200, change(`"spec":{`, `"status":[`+strings.Repeat("1,", maxValues)+`1],"spec":{`), unusable + "values"},
		"an object over the limit of an object":    {200, change(`"resourceUri":"`, `"noteName":"`+strings.Repeat("x", crds.MaxObjectBytes)+`","resourceUri":"`), unusable},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, _ := source(t, says(tt.status, tt.body))
			found, err := ask(s, cart, long)
			if tt.want == "" {
				if want := min(tt.status/200, 1) * min(200/tt.status, 1); err != nil || len(found) != want {
					t.Errorf("%d attestations, %v, want %d", len(found), err, want)
				}
				return
			}
			if err == nil || len(found) > 0 || errors.Is(err, evidence.ErrUnusable) != (tt.want[:1] == unusable) || !strings.Contains(err.Error(), tt.want[1:]) {
				t.Fatalf("%d attestations, %v, want %s", len(found), err, tt.want)
			}
			checkText(t, err)
		})
	}
}

// checkText: an error is short, printable, and holds nothing that the server chose.
func checkText(t *testing.T, err error) {
	t.Helper()
	text := err.Error()
	if len(text) > 200 || strings.Contains(text, "secret") || strings.Trim(text, printable) != "" {
		t.Errorf("the error is %q", text)
	}
}

const printable = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 :;,.-"

func TestAServerThatIsNotReachedIsUnavailable(t *testing.T) {
	s, server := source(t, says(200, string(webtest.Object(cart, 1))))
	for range 2 {
		if found, err := ask(s, cart, long); err != nil || len(found) != 1 {
			t.Fatalf("%d attestations, %v", len(found), err)
		}
	}
	server.Close()
	_, err := ask(s, cart, long)
	if err == nil || errors.Is(err, evidence.ErrUnusable) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("gone: %v", err)
	}
	tls := httptest.NewTLSServer(says(200, ""))
	defer tls.Close()
	for url, want := range map[string]string{tls.URL: "not of the authority that this node knows", "http://api.invalid": "cannot be looked up"} {
		c, err := apiserver.Connect(&rest.Config{Host: url})
		if err != nil {
			t.Fatal(err)
		}
		_, err = ask(New(c).Source.(*Source), cart, long)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestAServerThatSaysNothingInTimeIsUnavailable(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"says nothing": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"says half": func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(`{"kind":`))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
	} {
		s, _ := source(t, handler)
		_, err := ask(s, cart, 50*time.Millisecond)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, evidence.ErrUnusable) || !strings.Contains(err.Error(), "did not answer in time") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWithoutAConnectionTheSourceIsUnavailable(t *testing.T) {
	asked := New(apiserver.NewServer(apiserver.Options{Kubeconfig: "/nowhere/secret"}, slog.New(slog.DiscardHandler)))
	if asked.Name != "cluster" || asked.Locator != "/apis/horkos.dev/v1alpha1/imageattestations" || asked.Timeout != 10*time.Second ||
		asked.Terms != (evidence.Terms{Fresh: 5 * time.Minute}) {
		t.Errorf("asked as %+v", asked)
	}
	_, err := ask(asked.Source.(*Source), cart, long)
	if err == nil || errors.Is(err, evidence.ErrUnusable) || !strings.Contains(err.Error(), "this node is not connected to it") {
		t.Fatal(err)
	}
	checkText(t, err)
}

func TestLargeAnswersAreReadOneAtATime(t *testing.T) {
	object := string(webtest.Object(cart, 1))
	object += strings.Repeat(" ", smallBody)
	var reading, most atomic.Int32
	s, _ := source(t, says(200, object))
	plain := s.server
	s.server = getter(func(ctx context.Context, path string, limit int) (int, []byte, error) {
		if limit > smallBody {
			if n := reading.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer reading.Add(-1)
		}
		return plain.Get(ctx, path, limit)
	})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if found, err := ask(s, cart, long); err != nil || len(found) != 1 {
				t.Errorf("%d attestations, %v", len(found), err)
			}
		})
	}
	all.Wait()
	if most.Load() != 1 {
		t.Errorf("%d at once", most.Load())
	}
	s.large <- struct{}{}
	if _, err := ask(s, cart, 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another is read: %v", err)
	}
}

type getter func(ctx context.Context, path string, limit int) (int, []byte, error)

func (g getter) Get(ctx context.Context, path string, limit int) (int, []byte, error) {
	return g(ctx, path, limit)
}

func FuzzNoAnswerPanicsOrIsAboutAnotherImage(f *testing.F) {
	f.Add(webtest.Object(cart, 2))
	f.Add(webtest.Object(other, 1))
	f.Add([]byte(missing(nameOf(cart))))
	f.Fuzz(func(t *testing.T, body []byte) {
		found, err := read(body, nameOf(cart), cart)
		if err != nil && (len(found) > 0 || !errors.Is(err, evidence.ErrUnusable)) {
			t.Errorf("%d attestations, %v", len(found), err)
		}
		isMissing(body, nameOf(cart))
	})
}
