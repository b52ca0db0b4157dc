package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/source/web/webtest"
)

var (
	cart  = image.Identity{Repository: "registry.example.com/shop/cart", Digest: digestOf("cart")}
	other = image.Identity{Repository: "registry.example.com/shop/cart", Digest: digestOf("other")}
	twin  = image.Identity{Repository: "registry.example.com/mirror/cart", Digest: digestOf("cart")}
)

func digestOf(s string) image.Digest { return image.SHA256([]byte(s)) }

// source makes one that asks a server, and ends with the test.
func source(t testing.TB, o Options) *Source {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	s, problems := New(o)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func ask(s *Source, id image.Identity, within time.Duration) ([]evidence.Attestation, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return s.Fetch(ctx, evidence.Question{Source: "web", Locator: s.Locator(), Identity: id})
}

// long is a deadline that a test which passes does not reach.
const long = 30 * time.Second

func TestAnAnswerIsWhatIsFiledUnderTheImage(t *testing.T) {
	webtest.NoGoroutineLeft(t)
	server := webtest.New(t)
	s := source(t, Options{URL: server.URL()})
	tests := []struct {
		name string
		does webtest.Behaviour
		want int
	}{
		{"one attestation", webtest.Forges(cart, 1), 1},
		{"as many as an object holds", webtest.Forges(cart, 32), 32},
		{"several objects", webtest.Forges(cart, 33), 33},
		{"27 times what is kept", webtest.Forges(cart, 7_000), 7_000},
		{"documents of YAML", repeated(webtest.Object(cart, 2), 3), 6},
		{"YAML", webtest.Says(yamlObject(cart)), 1},
		{"of another image", webtest.Forges(other, 1), 0},
		{"of the digest under another name", webtest.Forges(twin, 1), 0},
		{"a policy", webtest.Says([]byte("apiVersion: kritis.grafeas.io/v1beta1\nkind: GenericAttestationPolicy\nmetadata: {name: x}\nspec: {attestationAuthorityNames: [x]}\n")), 0},
		{"an object of others", webtest.Says([]byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}`)), 0},
		{"an empty list", webtest.Says([]byte(`{"apiVersion":"v1","kind":"List","items":[]}`)), 0},
		{"an object of another digest that says it is of this one", webtest.Says([]byte(strings.Replace(string(webtest.Object(cart, 1)), `"name":"sha256-`+cart.Digest.Encoded(), `"name":"sha256-`+other.Digest.Encoded(), 1))), 0},
		{"a malformed object beside a good one", webtest.Says(append(webtest.Object(cart, 1), malformedObject(cart)...)), 1},
		{"404", webtest.Status(404), 0},
		{"410", webtest.Status(410), 0},
		{"three redirects", held(server, cart, 1, webtest.RedirectsTimes(3)), 1},
		{"slowly", held(server, cart, 1, webtest.Slow(100, time.Millisecond)), 1},
		{"late", held(server, cart, 1, webtest.Late(50*time.Millisecond)), 1},
		{"a header within the limit", held(server, cart, 1, webtest.LargeHeader(maxHeader-1024)), 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server.Do(tt.does)
			found, err := ask(s, cart, long)
			if err != nil {
				t.Fatal(err)
			}
			if len(found) != tt.want {
				t.Errorf("%d attestations, want %d", len(found), tt.want)
			}
			for i := range found {
				if want := server.URL() + "/sha256-" + cart.Digest.Encoded() + ".json"; !strings.Contains(found[i].Origin, want) {
					t.Errorf("read from %q, want %s in it", found[i].Origin, want)
				}
			}
		})
	}
}

// held has the server hold attestations of an image before it does something with them.
func held(s *webtest.Server, id image.Identity, n int, b webtest.Behaviour) webtest.Behaviour {
	s.Put(id.Digest, webtest.Object(id, n))
	return b
}

func repeated(body []byte, times int) webtest.Behaviour {
	return webtest.Says([]byte(strings.Repeat("---\n"+string(body)+"\n", times)))
}

func yamlObject(id image.Identity) []byte {
	return fmt.Appendf(nil, "# by horkos attest\napiVersion: horkos.dev/v1alpha1\nkind: ImageAttestation\nmetadata:\n  name: sha256-%s\nspec:\n  attestations:\n  - resourceUri: %s\n    pgpSignedAttestation: {signature: x, pgpKeyId: AB}\n", id.Digest.Encoded(), id)
}

func malformedObject(id image.Identity) []byte {
	return []byte(strings.Replace(string(webtest.Object(id, 1)), `"spec":{`, `"spec":{"misspelt":"secret",`, 1))
}

func TestAFailureIsToldAndNothingThatTheServerChose(t *testing.T) {
	webtest.NoGoroutineLeft(t)
	server, elsewhere := webtest.New(t), webtest.New(t)
	elsewhere.Do(webtest.Forges(cart, 1))
	s := source(t, Options{URL: server.URL()})
	held(server, cart, 2, nil)
	tests := []struct {
		name string
		does webtest.Behaviour
		want string
	}{
		{"400", webtest.Status(400), "it answered 400 Bad Request"},
		{"401", webtest.Status(401), "it answered 401 Unauthorized; look at tokenFile"},
		{"403", webtest.Status(403), "it answered 403 Forbidden; look at tokenFile"},
		{"500", webtest.Status(500), "it answered 500 Internal Server Error"},
		{"503", webtest.Status(503), "it answered 503 Service Unavailable"},
		{"204", webtest.Status(204), "it answered 204 No Content"},
		{"304", webtest.Status(304), "it answered 304 Not Modified"},
		{"a status that nobody knows", webtest.NotHTTP([]byte("HTTP/1.1 599 secret\r\n\r\n")), "it answered 599"},
		{"garbage", webtest.Garbage(), "it answered garbage"},
		{"a page", webtest.Says([]byte("<html><p>secret</p></html>")), "it answered garbage"},
		{"truncated JSON", webtest.Truncated(), "it answered garbage"},
		{"no object", webtest.Says([]byte(`{"secret": 1}`)), "it answered garbage"},
		{"a key twice", webtest.Says([]byte(strings.Replace(string(webtest.Object(cart, 1)), "{", `{"kind":"secret",`, 1))), "it answered garbage"},
		{"nothing", webtest.Says(nil), "its answer is empty"},
		{"blanks", webtest.Says([]byte(" \r\n\t\n")), "its answer is empty"},
		{"a malformed object", webtest.Says(malformedObject(cart)), "its ImageAttestation is malformed"},
		{"anchors of YAML", webtest.Says([]byte("a: &secret b\n")), "YAML with &"},
		{"cut off", webtest.CutOff(), "its answer ends early"},
		{"shorter than it says", webtest.NotHTTP([]byte("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{}")), "its answer ends early"},
		{"no number as length", webtest.NotHTTP([]byte("HTTP/1.1 200 OK\r\nContent-Length: secret\r\n\r\n{}")), "its answer is not HTTP"},
		{"closed without a word", webtest.NotHTTP(nil), "its answer ends early"},
		{"not HTTP", webtest.NotHTTP([]byte("SSH-2.0-secret\r\n\r\n")), "its answer is not HTTP"},
		{"a broken chunk", webtest.NotHTTP([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nsecret\r\n")), "its answer is not HTTP"},
		{"gzip", webtest.GzipBomb(), "its answer is compressed"},
		{"endless", webtest.Endless(), "its answer is over 4194304 bytes"},
		{"10,000 attestations", webtest.Forges(cart, 10_000), "its answer is over 4194304 bytes"},
		{"10,000 times too much", webtest.Repeats(10_000), "its answer is over 4194304 bytes"},
		{"too many redirects", webtest.RedirectsTimes(4), "it redirects more than 3 times"},
		{"a redirect to another server", webtest.Redirects(elsewhere.URL() + "/x"), "it redirects to another server"},
		{"a redirect to another scheme", webtest.Redirects(strings.Replace(server.URL(), "http:", "https:", 1)), "it redirects to another server"},
		{"a redirect to another scheme that is none", webtest.Redirects("file:///etc/shadow"), "it redirects to another server"},
		{"a redirect with credentials", webtest.Redirects(strings.Replace(server.URL(), "//", "//user:secret@", 1)), "it redirects to a url with credentials"},
		{"a large header", webtest.LargeHeader(maxHeader + 1024), "over the limits"},
		{"a header without end", endlessHeader(), "over the limits"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server.Do(tt.does)
			found, err := ask(s, cart, long)
			if err == nil {
				t.Fatalf("%d attestations, want an error", len(found))
			}
			checkText(t, s, err)
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want %q", err, tt.want)
			}
		})
	}
	if n := elsewhere.Requests(); n > 0 {
		t.Errorf("the other server was asked %d times", n)
	}
}

func endlessHeader() webtest.Behaviour {
	return webtest.NotHTTP([]byte("HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Large: "+strings.Repeat("a", 1000)+"\r\n", 1000)))
}

// checkText holds an error to what is promised of its text.
func checkText(t *testing.T, s *Source, err error) {
	t.Helper()
	text := err.Error()
	switch {
	case !strings.HasPrefix(text, s.base.Host[:min(len(s.base.Host), maxHost)]):
		t.Errorf("error %q does not name the server", text)
	case len(text) > maxError:
		t.Errorf("an error of %d bytes", len(text))
	case strings.Contains(text, "secret"):
		t.Errorf("error %q quotes the server", text)
	case strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' }):
		t.Errorf("error %q is not printable", text)
	}
}

func TestADigestThatNoAttestationIsNamedAfterIsNotAskedFor(t *testing.T) {
	server := webtest.New(t)
	s := source(t, Options{URL: server.URL()})
	long512 := image.Identity{Repository: cart.Repository, Digest: image.Digest("sha512:" + strings.Repeat("a", 128))}
	if found, err := ask(s, long512, long); err != nil || len(found) > 0 {
		t.Errorf("sha512: %v, %v", found, err)
	}
	for _, digest := range []image.Digest{"", "sha256:", "sha256:../../x", "sha256:" + image.Digest(strings.Repeat("A", 64))} {
		if _, err := ask(s, image.Identity{Repository: "x", Digest: digest}, long); err == nil {
			t.Errorf("%q was asked for", digest)
		}
	}
	if n := server.Requests(); n > 0 {
		t.Errorf("%d requests", n)
	}
}

func TestADeadlineHolds(t *testing.T) {
	webtest.NoGoroutineLeft(t)
	const deadline, slack = 150 * time.Millisecond, 100 * time.Millisecond
	server := webtest.New(t)
	s := source(t, Options{URL: server.URL(), Timeout: deadline})
	silent, silentURL := silentServer(t)
	defer silent.Close()
	mute := source(t, Options{URL: silentURL, Timeout: deadline})
	held(server, cart, 32, nil)
	large := fmt.Appendf(nil, "%s%70000s", webtest.Object(cart, 1), "")
	tests := []struct {
		name string
		s    *Source
		does webtest.Behaviour
	}{
		{"a server that hangs", s, webtest.Hangs()},
		{"one that hangs halfway", s, webtest.HangsHalfway()},
		{"one that answers late", s, webtest.Late(time.Minute)},
		{"one that is slow", s, webtest.Slow(10, 20*time.Millisecond)},
		{"one that hangs before TLS", mute, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.does != nil {
				server.Do(tt.does)
			}
			checkDeadline(t, tt.s, deadline, slack)
		})
	}
	t.Run("while another large answer is read", func(t *testing.T) {
		s.large <- struct{}{}
		defer func() { <-s.large }()
		server.Do(webtest.Says(large))
		checkDeadline(t, s, deadline, slack)
	})
	t.Run("a context that has ended", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := s.Fetch(ctx, evidence.Question{Identity: cart}); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

// checkDeadline tries thrice: on a machine that is busy with other things one try may be late.
func checkDeadline(t *testing.T, s *Source, deadline, slack time.Duration) {
	t.Helper()
	var took time.Duration
	for range 3 {
		started := time.Now()
		_, err := ask(s, cart, deadline)
		took = time.Since(started)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "did not answer in time") {
			t.Fatalf("error %v", err)
		}
		checkText(t, s, err)
		if took <= deadline+slack {
			return
		}
	}
	t.Errorf("took %v, want at most %v", took, deadline+slack)
}

// silentServer accepts connections and says nothing.
func silentServer(t *testing.T) (net.Listener, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener, "https://" + listener.Addr().String()
}

func TestTheBodyHasALimit(t *testing.T) {
	server := webtest.New(t)
	s := source(t, Options{URL: server.URL()})
	for over, want := range map[int]bool{0: true, 1: false} {
		body := webtest.Object(cart, 1)
		body = append(body, strings.Repeat(" ", maxBody-len(body)+over)...)
		server.Do(webtest.Says(body))
		if found, err := ask(s, cart, long); (err == nil && len(found) == 1) != want {
			t.Errorf("%d over the limit: %d attestations, %v", over, len(found), err)
		}
		// Without a length said before.
		server.Do(func(x *webtest.Exchange) {
			x.W.(http.Flusher).Flush()
			_, _ = x.W.Write(body)
		})
		if found, err := ask(s, cart, long); (err == nil && len(found) == 1) != want {
			t.Errorf("%d over the limit, in chunks: %d attestations, %v", over, len(found), err)
		}
	}
}

func TestWhatTakesMuchMemoryToReadHasALimit(t *testing.T) {
	values := func(n int) string {
		// Three values are around those of the list.
		object := string(webtest.Object(cart, 1))
		n -= strings.Count(object, "{") + strings.Count(object, "[") + strings.Count(object, ",") + 2
		return strings.Replace(object, "{", `{"status":[0`+strings.Repeat(",0", n)+"],", 1)
	}
	comment := func(n int) string {
		return string(yamlObject(cart)) + "#" + strings.Repeat("x", n-len(yamlObject(cart))-1)
	}
	for text, want := range map[string]bool{
		values(maxValues): true, values(maxValues + 1): false,
		comment(maxYAML): true, comment(maxYAML + 1): false,
	} {
		if found, err := read([]byte(text), "x", cart); (err == nil && len(found) == 1) != want {
			t.Errorf("%.20s... of %d bytes: %d attestations, %v", text, len(text), len(found), err)
		}
	}
}

func TestConnectionsAreUsedAgainAndFew(t *testing.T) {
	webtest.NoGoroutineLeft(t)
	server := webtest.New(t)
	s := source(t, Options{URL: server.URL()})
	addresses := make(map[string]bool)
	var mu sync.Mutex
	note := func(x *webtest.Exchange) {
		mu.Lock()
		addresses[x.R.RemoteAddr] = true
		mu.Unlock()
		webtest.Honest()(x)
	}
	server.Do(note)
	server.Put(other.Digest, webtest.Object(other, 1))
	for range 10 {
		for _, id := range []image.Identity{cart, other} { // 404 and 200
			if _, err := ask(s, id, long); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(addresses) != 1 {
		t.Errorf("%d connections for questions one after the other", len(addresses))
	}
	server.Do(func(x *webtest.Exchange) { note(x) })
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if _, err := ask(s, cart, long); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestAServerThatWasGoneIsAskedAgain(t *testing.T) {
	webtest.NoGoroutineLeft(t)
	server := webtest.New(t)
	server.Put(cart.Digest, webtest.Object(cart, 1))
	s := source(t, Options{URL: server.URL()})
	for range 3 {
		if found, err := ask(s, cart, long); err != nil || len(found) != 1 {
			t.Fatalf("%d attestations, %v", len(found), err)
		}
		server.Down()
		_, err := ask(s, cart, long)
		if err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("gone: %v", err)
		}
		server.Up()
	}
	if n := server.RequestsOf(cart.Digest); n != 3 || server.Requests() != 3 {
		t.Errorf("%d requests about the image of %d, want 3", n, server.Requests())
	}
}

func TestAServerThatGoesOrGoesOnWhileItIsAsked(t *testing.T) {
	webtest.NoGoroutineLeft(t)
	server := webtest.New(t)
	server.Put(cart.Digest, webtest.Object(cart, 1))
	s := source(t, Options{URL: server.URL()})
	for name, tt := range map[string]struct {
		does webtest.Behaviour
		then func()
		want int
	}{
		"goes before it answers": {webtest.Hangs(), server.Down, 0},
		"goes halfway":           {webtest.HangsHalfway(), server.Down, 0},
		"goes on":                {webtest.Hangs(), server.Release, 1},
		"goes on halfway":        {webtest.HangsHalfway(), server.Release, 1},
		"is slow and goes":       {webtest.Slow(1, time.Minute), server.Down, 0},
		"would be late and goes": {webtest.Late(time.Hour), server.Down, 0},
		"says a little and goes": {saysLittle(), server.Down, 0},
	} {
		t.Run(name, func(t *testing.T) {
			server.Up()
			server.Hold()
			arrived := make(chan struct{})
			server.Do(func(x *webtest.Exchange) { close(arrived); tt.does(x) })
			go func() { <-arrived; tt.then() }()
			found, err := ask(s, cart, long)
			if len(found) != tt.want || (err == nil) != (tt.want > 0) {
				t.Errorf("%d attestations, %v, want %d", len(found), err, tt.want)
			}
			if err != nil {
				checkText(t, s, err)
			}
			server.Down()
		})
	}
}

// saysLittle sends a byte and no more until it is ended.
func saysLittle() webtest.Behaviour {
	hangs := webtest.Hangs()
	return func(x *webtest.Exchange) {
		_, _ = x.W.Write([]byte(" "))
		x.W.(http.Flusher).Flush()
		hangs(x)
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	webtest.NoGoroutineLeft(t)
	server := webtest.New(t)
	silent, silentURL := silentServer(t)
	defer silent.Close()
	arrived := make(chan struct{})
	hangs := webtest.Hangs()
	server.Do(func(x *webtest.Exchange) { close(arrived); hangs(x) })
	for name, url := range map[string]string{"a request": server.URL(), "a handshake": silentURL} {
		s := source(t, Options{URL: url})
		failed := make(chan error, 1)
		go func() {
			_, err := ask(s, cart, time.Hour)
			failed <- err
		}()
		if name == "a request" {
			<-arrived
		} else if c, err := silent.Accept(); err != nil {
			t.Fatal(err)
		} else {
			defer c.Close()
		}
		s.Close()
		if err := <-failed; err == nil || !strings.Contains(err.Error(), "it is not asked any more") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := ask(s, cart, long); err == nil {
			t.Errorf("%s: asked after Close", name)
		}
	}
}

func TestACertificateIsChecked(t *testing.T) {
	webtest.NoGoroutineLeft(t)
	server := webtest.NewTLS(t)
	server.Put(cart.Digest, webtest.Object(cart, 1))
	ca := file(t, string(server.CA()))
	if found, err := ask(source(t, Options{URL: server.URL(), CAFile: ca}), cart, long); err != nil || len(found) != 1 {
		t.Errorf("%d attestations, %v", len(found), err)
	}
	plain := webtest.New(t)
	for name, tt := range map[string]struct {
		o    Options
		want string
	}{
		"the system's authorities": {Options{URL: server.URL()}, "unknown authority; name that in caFile"},
		"another authority":        {Options{URL: server.URL(), CAFile: file(t, string(webtest.NewTLS(t).CA()))}, "unknown authority"},
		"another name":             {Options{URL: strings.Replace(server.URL(), "127.0.0.1", "localhost", 1), CAFile: ca}, "for another host"},
		"a server without TLS":     {Options{URL: strings.Replace(plain.URL(), "http:", "https:", 1)}, "does not speak TLS"},
	} {
		s := source(t, tt.o)
		_, err := ask(s, cart, long)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
			continue
		}
		checkText(t, s, err)
	}
}

// file is one that the daemon believes, which belongs to root.
func file(t testing.TB, content string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: files of a daemon belong to root")
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestATokenIsSentAndReadForEachQuestion(t *testing.T) {
	server := webtest.New(t)
	path := file(t, " first\n")
	s := source(t, Options{URL: server.URL(), TokenFile: path})
	for _, want := range []string{"first", "second"} {
		if want == "second" {
			if err := os.WriteFile(path, []byte("second\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ask(s, cart, long); err != nil {
			t.Fatal(err)
		}
		if got := server.Header().Get("Authorization"); got != "Bearer "+want {
			t.Errorf("sent %q", got)
		}
		if got := server.Header().Values("Accept-Encoding"); len(got) > 0 {
			t.Errorf("asked for %q", got)
		}
	}
	// The token goes along to the same server, and only there.
	server.Do(webtest.RedirectsTimes(1))
	if _, err := ask(s, cart, long); err != nil || server.Header().Get("Authorization") != "Bearer second" {
		t.Errorf("redirected with %q, %v", server.Header().Get("Authorization"), err)
	}
}

func TestATokenThatCannotBeReadIsAFailureThatDoesNotQuoteIt(t *testing.T) {
	server := webtest.New(t)
	tests := map[string]struct {
		path string
		want string
	}{
		"missing":        {filepath.Join(t.TempDir(), "x"), "no such file"},
		"a folder":       {t.TempDir(), "not a regular file"},
		"empty":          {file(t, " \n"), "is empty"},
		"two lines":      {file(t, "secret\nsecret"), "want one token"},
		"not ASCII":      {file(t, "secret\u00e9"), "want one token"},
		"over the limit": {file(t, strings.Repeat("secret--", maxToken/8)+"x"), "more than 8192 bytes"},
		"of all":         {file(t, "secret"), "may be written by others"},
		"of another":     {file(t, "secret"), "does not belong to root"},
	}
	if err := os.Chmod(tests["of all"].path, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(tests["of another"].path, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	for name, tt := range tests {
		s := source(t, Options{URL: server.URL(), TokenFile: tt.path})
		_, err := ask(s, cart, long)
		if err == nil || strings.Contains(err.Error(), "secret") || len(err.Error()) > maxError {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil || (!strings.Contains(err.Error(), tt.want) && !strings.HasSuffix(err.Error(), "...")) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	if n := server.Requests(); n > 0 {
		t.Errorf("%d requests without the token", n)
	}
	full := file(t, strings.Repeat("a", maxToken))
	if token, err := readToken(full); err != nil || len(token) != maxToken {
		t.Errorf("a token at the limit: %d bytes, %v", len(token), err)
	}
}

func TestAProxyThatRefusesIsNamedInWordsOfOurOwn(t *testing.T) {
	webtest.NoGoroutineLeft(t)
	refusing := webtest.New(t)
	refusing.Do(webtest.Status(407))
	s := source(t, Options{URL: "https://attestations.example.com"})
	base, _ := parseURL(refusing.URL(), false)
	s.client.Transport = s.transport(nil)
	transportOf(s).Proxy = fixed(base)
	_, err := ask(s, cart, long)
	if want := "attestations.example.com: the proxy before it answered 407 Proxy Authentication Required"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	refusing.Down()
	if _, err = ask(s, cart, long); err == nil || !strings.Contains(err.Error(), "the proxy before it: connection refused") {
		t.Errorf("gone: %v", err)
	}
}

func TestAURLIsHeldToWhatCanBeAsked(t *testing.T) {
	tests := []struct {
		url      string
		insecure bool
		want     string // the locator, or after ! a part of the problem
	}{
		{"https://attestations.example.com", false, "https://attestations.example.com"},
		{"https://Attestations.Example.com:8443/images/", false, "https://attestations.example.com:8443/images"},
		{"https://attestations.example.com/a//b/../c%2Fd/", false, "https://attestations.example.com/a/c%2Fd"},
		{"http://localhost:80/x", false, "http://localhost:80/x"},
		{"http://127.8.0.1", false, "http://127.8.0.1"},
		{"http://[::1]:8080", false, "http://[::1]:8080"},
		{"http://attestations.example.com", true, "http://attestations.example.com"},
		{"http://attestations.example.com", false, "!insecure: true"},
		{"http://127.0.0.1.example.com", false, "!insecure: true"},
		{"https://attestations.example.com", true, "!insecure: it is for an http url"},
		{"", false, "!say where to ask"},
		{"attestations.example.com", false, "!it is none"},
		{"https://", false, "!it is none"},
		{"https:///x", false, "!it is none"},
		{"https:x", false, "!it is none"},
		{"https://user:secret@attestations.example.com\x7f", false, "!it is none"},
		{"ftp://attestations.example.com", false, "!want https://"},
		{"file://attestations.example.com/x", false, "!want https://"},
		{"https://user:secret@attestations.example.com", false, "!it has a user"},
		{"https://@attestations.example.com", false, "!it has a user"},
		{"https://attestations.example.com?secret", false, "!without ? and #"},
		{"https://attestations.example.com?", false, "!without ? and #"},
		{"https://attestations.example.com#secret", false, "!without ? and #"},
		{"https://attestations.example.com#", false, "!without ? and #"},
		{"https://attestations.example.com:0", false, "!port"},
		{"https://attestations.example.com:65536", false, "!port"},
		{"https://attestations.example.com:", false, "!port"},
		{"https://b\u00fccher.example.com", false, "!xn--"},
		{"https://" + strings.Repeat("a", maxURL-8), false, "https://" + strings.Repeat("a", maxURL-8)},
		{"https://" + strings.Repeat("a", maxURL-7), false, "!over 512 bytes"},
	}
	for _, tt := range tests {
		s, problems := New(Options{URL: tt.url, Insecure: tt.insecure, Timeout: time.Second})
		want, bad := strings.CutPrefix(tt.want, "!")
		switch text := errors.Join(problems...); {
		case bad && (text == nil || !strings.Contains(text.Error(), want) || strings.Contains(text.Error(), "secret")):
			t.Errorf("%s: %v, want %q", tt.url, text, want)
		case !bad && text != nil:
			t.Errorf("%s: %v", tt.url, text)
		case !bad && s.Locator() != want:
			t.Errorf("%s: %s, want %s", tt.url, s.Locator(), want)
		}
	}
}

func TestAFileOfAuthoritiesIsReadAtStart(t *testing.T) {
	const url = "https://attestations.example.com"
	for name, tt := range map[string]struct {
		o    Options
		want string
	}{
		"missing":                       {Options{URL: url, CAFile: "/nowhere/ca.pem"}, "caFile: open /nowhere/ca.pem"},
		"no PEM":                        {Options{URL: url, CAFile: file(t, "x")}, "holds no certificate in PEM"},
		"over the limit":                {Options{URL: url, CAFile: file(t, strings.Repeat("x", maxCA+1))}, "more than 1048576 bytes"},
		"for http":                      {Options{URL: "http://localhost", CAFile: file(t, string(webtest.NewTLS(t).CA()))}, "caFile: it is for https"},
		"a token for http to elsewhere": {Options{URL: "http://attestations.example.com", Insecure: true, TokenFile: "x"}, "tokenFile: a token is sent by https only"},
	} {
		_, problems := New(tt.o)
		if err := errors.Join(problems...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

func TestAnErrorIsShortAndPrintableWhateverTheHost(t *testing.T) {
	s := source(t, Options{URL: "http://" + strings.Repeat("a", 300) + ".example.com:1", Insecure: true})
	err := s.explain(context.Background(), failure(strings.Repeat("long \x1b[31m\u00e9", 50)))
	checkText(t, s, err)
}
