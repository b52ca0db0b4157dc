package web

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/horkos/horkos/verifier/source/web/webtest"
)

// FuzzRead reads arbitrary answers. What comes out is about the digest that was asked for and
// has signatures, or there is an error of the promised shape.
func FuzzRead(f *testing.F) {
	f.Add(webtest.Object(cart, 1))
	f.Add(webtest.Object(cart, 33))
	f.Add(webtest.Object(twin, 1))
	f.Add(webtest.Object(other, 2))
	f.Add(yamlObject(cart))
	f.Add(malformedObject(cart))
	f.Add([]byte("\ufeff---\n...\n"))
	f.Add([]byte("{}{}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		found, err := read(body, "https://attestations.example.com/x", cart)
		if err != nil {
			if text, ok := err.(unusable); !ok || len(text.failure) > maxError-maxHost-5 || printable(string(text.failure)) != string(text.failure) {
				t.Errorf("error %q", err)
			}
			if len(found) > 0 {
				t.Error("attestations beside an error")
			}
		}
		for i := range found {
			if n := len(found[i].Envelopes); n == 0 || n > 16 || !strings.Contains(found[i].Origin, cart.Digest.Encoded()) {
				t.Errorf("%d envelopes from %s", n, found[i].Origin)
			}
		}
	})
}

func transportOf(s *Source) *http.Transport { return s.client.Transport.(*http.Transport) }

func fixed(u *url.URL) func(*http.Request) (*url.URL, error) {
	return func(*http.Request) (*url.URL, error) { return u, nil }
}
