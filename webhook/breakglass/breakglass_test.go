package breakglass

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/horkos/horkos/webhook/admission"
)

var (
	noon   = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	key    = []byte("0123456789abcdef0123456789abcdef")
	digest = "sha256:" + strings.Repeat("a1", 32)
	cart   = "registry.example.com/shop/cart:2"
)

func aToken() Token {
	return Token{Namespace: "shop", Images: []string{cart, digest}, Reason: "INC-7", Minted: noon.Unix(), Expires: noon.Add(30 * time.Minute).Unix()}
}

func minted(t testing.TB, token Token) string {
	t.Helper()
	text, err := Mint(key, token)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// signed is a payload under the key, whatever it says.
func signed(key []byte, payload string) string {
	text := prefix + encoding.EncodeToString([]byte(payload))
	return text + "." + encoding.EncodeToString(sign(key, text))
}

func TestATokenSaysWhatWasMinted(t *testing.T) {
	text := minted(t, aToken())
	for _, at := range []time.Duration{-maxSkew, 0, 30*time.Minute - time.Second} {
		if got, err := Verify(key, text, noon.Add(at)); err != nil || !reflect.DeepEqual(got, aToken()) {
			t.Errorf("after %s: %+v, %v", at, got, err)
		}
	}
	for _, at := range []time.Duration{-maxSkew - time.Second, 30 * time.Minute, 1000 * time.Hour} {
		if got, err := Verify(key, text, noon.Add(at)); err == nil || got.Namespace != "" {
			t.Errorf("after %s: %+v, %v", at, got, err)
		}
	}
}

func TestATokenThatWasChangedDoesNotCount(t *testing.T) {
	text := minted(t, aToken())
	for i := range len(text) {
		for _, c := range []byte("A\n.=0") {
			if text[i] == c {
				continue
			}
			if _, err := Verify(key, text[:i]+string(c)+text[i+1:], noon); err == nil {
				t.Errorf("with %q at %d it counts", c, i)
			}
			if _, err := Verify(key, text[:i]+string(c)+text[i:], noon); err == nil {
				t.Errorf("with %q before %d it counts", c, i)
			}
		}
		if _, err := Verify(key, text[:i], noon); err == nil {
			t.Errorf("cut at %d it counts", i)
		}
	}
	for name, other := range map[string][]byte{"another key": []byte("1123456789abcdef0123456789abcdef"), "no key": nil, "half a key": key[:16]} {
		if _, err := Verify(other, text, noon); err == nil {
			t.Errorf("with %s it counts", name)
		}
	}
	if _, err := Mint(nil, aToken()); err == nil {
		t.Error("a token was minted without a key")
	}
}

func TestWhatIsSignedIsStillReadStrictly(t *testing.T) {
	const good = `{"namespace":"shop","images":["a:1"],"reason":"r","minted":1795262400,"expires":1795264200}`
	at := time.Unix(1795262400, 0)
	if _, err := Verify(key, signed(key, good), at); err != nil {
		t.Fatal(err)
	}
	for name, payload := range map[string]string{
		"nothing":                  "",
		"null":                     "null",
		"a list":                   "[]",
		"an unknown field":         strings.Replace(good, `{`, `{"x":1,`, 1),
		"a field twice":            strings.Replace(good, `{`, `{"namespace":"kube-system",`, 1),
		"another case":             strings.Replace(good, "namespace", "Namespace", 1),
		"a space":                  " " + good,
		"more after it":            good + "{}",
		"no namespace":             strings.Replace(good, "shop", "", 1),
		"a namespace that is none": strings.Replace(good, "shop", "*", 1),
		"no image":                 strings.Replace(good, `"a:1"`, "", 1),
		"an image that is none":    strings.Replace(good, "a:1", "*", 1),
		"no reason":                strings.Replace(good, `"r"`, `" "`, 1),
		"two hours":                strings.Replace(good, "1795264200", "1795269600", 1),
		"an hour and a second":     strings.Replace(good, "1795264200", "1795266001", 1),
		"no time":                  strings.Replace(good, "1795264200", "1795262400", 1),
		"a time that flows over":   strings.Replace(good, "1795264200", "9223372036854775807", 1),
		"a time before all":        strings.Replace(good, "1795262400", "-9223372036854775808", 1),
	} {
		if got, err := Verify(key, signed(key, payload), at); err == nil || got.Namespace != "" && got.Reason == "r" && strings.Contains(name, "hour") {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestTheLimitsOfATokenHold(t *testing.T) {
	images := func(n int) []string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf("registry.example.com/%s:%d", strings.Repeat("a", 230), i))
		}
		return all
	}
	for name, change := range map[string]struct {
		below, above func(*Token)
	}{
		"images": {func(t *Token) { t.Images = images(MaxImages) }, func(t *Token) { t.Images = images(MaxImages + 1) }},
		"reason": {func(t *Token) { t.Reason = strings.Repeat("r", MaxReason) }, func(t *Token) { t.Reason = strings.Repeat("r", MaxReason+1) }},
		"time":   {func(t *Token) { t.Expires = t.Minted + 3600 }, func(t *Token) { t.Expires = t.Minted + 3601 }},
		"once":   {func(*Token) {}, func(t *Token) { t.Images = []string{cart, cart} }},
		"print":  {func(t *Token) { t.Reason = "für" }, func(t *Token) { t.Reason = "a\nb" }},
		"utf-8":  {func(*Token) {}, func(t *Token) { t.Reason = "\xff" }},
	} {
		token := aToken()
		change.below(&token)
		text, err := Mint(key, token)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if _, err := Verify(key, text, noon); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		change.above(&token)
		if _, err := Mint(key, token); err == nil {
			t.Errorf("%s: one above the limit is minted", name)
		}
	}
	if _, err := Verify(key, signed(key, strings.Repeat(" ", maxToken)), noon); !errors.Is(err, errMalformed) {
		t.Errorf("too long: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(minted(f, aToken()), "")
	f.Add(prefix+".", `{"namespace":"shop"}`)
	f.Fuzz(func(t *testing.T, text, payload string) {
		if got, err := Verify([]byte("another key, of thirty-two bytes"), text, noon); err == nil {
			t.Fatalf("without the key: %+v", got)
		}
		got, err := Verify(key, signed(key, payload), noon)
		if err != nil {
			return
		}
		if again, err := Mint(key, got); err != nil || again != signed(key, payload) {
			t.Fatalf("%q, %v", again, err)
		}
	})
}

// rights are those of users by name.
type rights struct {
	may   map[string]bool
	err   error
	asked int
}

func (r *rights) May(ctx context.Context, u admission.User) (bool, error) {
	r.asked++
	return r.may[u.Username] || r.err != nil, r.err
}

type fixedKey struct{ err error }

func (k fixedKey) Key(context.Context) ([]byte, error) { return key, k.err }

func TestWhoMayBreakTheGlass(t *testing.T) {
	admin, bob := admission.User{Username: "admin"}, admission.User{Username: "bob"}
	account := admission.User{Username: "system:serviceaccount:kube-system:replicaset-controller", Groups: []string{"system:serviceaccounts"}}
	otherName := admission.User{Username: "x", Groups: []string{"system:serviceaccounts"}}
	manager := admission.User{Username: "system:kube-controller-manager"}
	good := minted(t, aToken())
	elsewhere := aToken()
	elsewhere.Namespace = "payments"
	old := aToken()
	old.Minted, old.Expires = old.Minted-7200, old.Expires-7200
	byDigest := "registry.example.com/shop/cart@" + digest
	tests := []struct {
		name   string
		user   admission.User
		text   string
		denied []string
		want   string // the reason; empty: no
		asked  int
	}{
		{"a user with the right", admin, "true", []string{cart}, "true", 1},
		{"a user with the right and a reason", admin, "INC-7", []string{cart}, "INC-7", 1},
		{"a user without it", bob, "INC-7", []string{cart}, "", 1},
		{"nobody asks", admin, "", []string{cart}, "", 0},
		{"false", admin, "False", []string{cart}, "", 0},
		{"spaces", admin, "  ", []string{cart}, "", 0},
		{"a reason that is too long", admin, strings.Repeat("r", maxText+1), []string{cart}, "", 0},
		{"a reason of several lines", admin, "a\nb", []string{cart}, "", 0},
		{"a token of a service account", account, good, []string{cart}, "token until 2026-11-21T12:30:00Z: INC-7", 0},
		{"by the digest", account, good, []string{byDigest, cart}, "token until 2026-11-21T12:30:00Z: INC-7", 0},
		{"a token of anybody", bob, good, []string{cart}, "token until 2026-11-21T12:30:00Z: INC-7", 0},
		{"a text of a service account", account, "true", []string{cart}, "", 0},
		{"a text of the group of service accounts", otherName, "true", []string{cart}, "", 0},
		{"a text of the controller manager", manager, "true", []string{cart}, "", 0},
		{"another image", account, good, []string{cart, "registry.example.com/shop/cart:3"}, "", 0},
		{"another name of the same", account, good, []string{"https://" + cart}, "", 0},
		{"another digest", account, good, []string{"registry.example.com/shop/cart@sha256:" + strings.Repeat("b1", 32)}, "", 0},
		{"two digests", account, good, []string{"a@sha256:" + strings.Repeat("b1", 32) + "@" + digest}, "", 0},
		{"nothing is known to be denied", account, good, nil, "", 0},
		{"of another namespace", account, minted(t, elsewhere), []string{cart}, "", 0},
		{"expired", account, minted(t, old), []string{cart}, "", 0},
		{"forged", account, good[:len(good)-2] + "AA", []string{cart}, "", 0},
		{"of another version", account, strings.Replace(good, "v1", "v2", 1), []string{cart}, "", 0},
		{"begins like a token", account, prefix + "x", []string{cart}, "", 0},
		{"an expired token of a user without the right", bob, minted(t, old), []string{cart}, "", 1},
		{"an expired token of a user with it", admin, minted(t, old), []string{cart}, "with a token that does not count: the token expired at 2026-11-21T10:30:00Z", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// The right of controllers, where they have it, counts for nothing.
			r := &rights{may: map[string]bool{"admin": true, account.Username: true, "x": true, manager.Username: true}}
			j := NewJudge(fixedKey{}, r, func() time.Time { return noon })
			reason, ok, err := j.Judge(t.Context(), admission.Review{User: tt.user, Namespace: "shop", Breakglass: tt.text, Images: []string{cart}, Denied: tt.denied})
			if reason != tt.want || ok != (tt.want != "") || r.asked != tt.asked || (ok && err != nil) {
				t.Errorf("%q, %t, %v, asked %d times", reason, ok, err, r.asked)
			}
			if err != nil && strings.Contains(err.Error(), good[len(prefix):]) {
				t.Errorf("the token is in %v", err)
			}
		})
	}
}

func TestWhatFailsIsNoRight(t *testing.T) {
	account := admission.User{Username: "system:serviceaccount:a:b"}
	review := admission.Review{User: account, Namespace: "shop", Breakglass: minted(t, aToken()), Denied: []string{cart}}
	now := func() time.Time { return noon }
	if reason, ok, err := NewJudge(fixedKey{errors.New("no Secret")}, &rights{}, now).Judge(t.Context(), review); ok || err == nil || reason != "" {
		t.Errorf("without a key: %q, %t, %v", reason, ok, err)
	}
	review.User, review.Breakglass = admission.User{Username: "admin"}, "true"
	if reason, ok, err := NewJudge(fixedKey{}, &rights{err: errors.New("no answer")}, now).Judge(t.Context(), review); ok || err == nil || reason != "" {
		t.Errorf("without an answer: %q, %t, %v", reason, ok, err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if reason, ok, err := NewJudge(fixedKey{}, &rights{may: map[string]bool{"admin": true}}, now).Judge(ended, review); ok || err == nil || reason != "" {
		t.Errorf("too late: %q, %t, %v", reason, ok, err)
	}
}

// served is a client of an API server that is one handler.
func served(t *testing.T, handler http.HandlerFunc) func() (dynamic.Interface, error) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	client, err := dynamic.NewForConfig(&rest.Config{Host: server.URL, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	return func() (dynamic.Interface, error) { return client, nil }
}

func TestTheAPIServerIsAskedForTheRight(t *testing.T) {
	user := admission.User{Username: "alice", UID: "7", Groups: []string{"oncall"}, Extra: map[string][]string{"scopes": {"a", "b"}}}
	var asked map[string]any
	answer := func(code int, status string) func() (dynamic.Interface, error) {
		return served(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost || r.URL.Path != "/apis/authorization.k8s.io/v1/subjectaccessreviews" {
				t.Errorf("%s %s", r.Method, r.URL)
			}
			if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
				t.Error(err)
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			fmt.Fprintf(w, `{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","spec":{}%s}`, status)
		})
	}
	for _, tt := range []struct {
		name   string
		code   int
		status string
		may    bool
		fails  bool
	}{
		{"allowed", 201, `,"status":{"allowed":true}`, true, false},
		{"not allowed", 201, `,"status":{"allowed":false}`, false, false},
		{"allowed and denied", 201, `,"status":{"allowed":true,"denied":true}`, false, false},
		{"not known", 201, `,"status":{"allowed":false,"evaluationError":"x"}`, false, true},
		{"no status", 201, ``, false, true},
		{"a status of another type", 201, `,"status":{"allowed":"true"}`, false, true},
		{"denied of another type", 201, `,"status":{"allowed":true,"denied":"false"}`, false, true},
		{"forbidden", 403, `,"status":{"allowed":true}`, false, true},
		{"failed", 500, `,"status":{"allowed":true}`, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			may, err := (&AccessReviews{answer(tt.code, tt.status)}).May(t.Context(), user)
			if may != tt.may || (err != nil) != tt.fails {
				t.Errorf("%t, %v", may, err)
			}
			want := map[string]any{"user": "alice", "uid": "7", "groups": []any{"oncall"}, "extra": map[string]any{"scopes": []any{"a", "b"}},
				"resourceAttributes": map[string]any{"verb": "breakglass", "group": "horkos.dev", "version": "v1alpha1", "resource": "clusterattestationpolicies"}}
			if !reflect.DeepEqual(asked["spec"], want) {
				t.Errorf("asked %v", asked["spec"])
			}
		})
	}
	if may, err := (&AccessReviews{func() (dynamic.Interface, error) { t.Error("asked"); return nil, nil }}).May(t.Context(), admission.User{}); may || err == nil {
		t.Error("nobody has the right")
	}
	if may, err := (&AccessReviews{func() (dynamic.Interface, error) { return nil, errors.New("not yet") }}).May(t.Context(), user); may || err == nil {
		t.Error("the right was given without the API server")
	}
	stuck := served(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the end of the call is seen only then
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if may, err := (&AccessReviews{stuck}).May(ctx, user); may || err == nil {
		t.Error("no answer in time gives the right")
	}
}

// secretServer is an API server with one Secret.
type secretServer struct {
	mu      sync.Mutex
	version int
	kind    string
	data    map[string]string
	reads   int
	writes  int
	between func() // called once, before the next write
}

func (s *secretServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path != "/api/v1/namespaces/horkos-system/secrets/horkos-breakglass" || s.kind == "" {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
		return
	}
	switch r.Method {
	case http.MethodGet:
		s.reads++
	case http.MethodPut:
		if s.between != nil {
			s.between()
			s.between = nil
		}
		var o struct {
			Metadata struct{ ResourceVersion string }
			Data     map[string]string
		}
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil || o.Metadata.ResourceVersion != fmt.Sprint(s.version) {
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Conflict","code":409}`)
			return
		}
		s.writes++
		s.version++
		s.data = o.Data
	}
	json.NewEncoder(w).Encode(map[string]any{"apiVersion": "v1", "kind": "Secret", "type": s.kind, "data": s.data,
		"metadata": map[string]any{"name": SecretName, "namespace": "horkos-system", "resourceVersion": fmt.Sprint(s.version)}})
}

func encoded(b []byte) map[string]string {
	return map[string]string{"key": base64.StdEncoding.EncodeToString(b)}
}

func TestAnEmptySecretIsFilledOnce(t *testing.T) {
	s := &secretServer{kind: SecretType, version: 1}
	clock := noon
	k := NewKeeper(served(t, s.ServeHTTP), "horkos-system", slog.New(slog.DiscardHandler), func() time.Time { return clock })
	if _, err := k.Key(t.Context()); !errors.Is(err, errEmpty) {
		t.Errorf("before it is filled: %v", err)
	}
	for range 3 {
		if err := k.fill(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	first, err := k.Key(t.Context())
	if err != nil || len(first) != KeySize || s.writes != 1 {
		t.Fatalf("%d bytes, %v, %d writes", len(first), err, s.writes)
	}
	before := s.reads
	if again, err := k.Key(t.Context()); err != nil || string(again) != string(first) || s.reads != before {
		t.Errorf("%v, read %d times", err, s.reads-before)
	}
	s.data = nil // all tokens are given up
	clock = clock.Add(keptFor)
	if _, err := k.Key(t.Context()); !errors.Is(err, errEmpty) {
		t.Errorf("an old key is used: %v", err)
	}
	if err := k.fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if second, err := k.Key(t.Context()); err != nil || string(second) == string(first) {
		t.Errorf("the same key was made again, %v", err)
	}
}

func TestAnotherReplicasKeyIsLeftAlone(t *testing.T) {
	s := &secretServer{kind: SecretType, version: 1}
	s.between = func() { s.version, s.data = 2, encoded(key) }
	k := NewKeeper(served(t, s.ServeHTTP), "horkos-system", slog.New(slog.DiscardHandler), func() time.Time { return noon })
	if err := k.fill(t.Context()); err == nil || !strings.Contains(err.Error(), "another replica was first") {
		t.Errorf("%v", err)
	}
	if err := k.fill(t.Context()); err != nil {
		t.Error(err)
	}
	if got, err := k.Key(t.Context()); err != nil || string(got) != string(key) || s.writes != 0 {
		t.Errorf("%q, %v, %d writes", got, err, s.writes)
	}
}

func TestASecretThatIsNotOursIsLeftAlone(t *testing.T) {
	short := "c2hvcnQga2V5"
	for name, s := range map[string]*secretServer{
		"there is none":      {},
		"of another type":    {kind: "Opaque"},
		"another type's key": {kind: "Opaque", data: encoded(key)},
		"a short key":        {kind: SecretType, data: map[string]string{"key": short}},
		"not base64":         {kind: SecretType, data: map[string]string{"key": "*"}},
		"another entry":      {kind: SecretType, data: map[string]string{"x": short}},
	} {
		t.Run(name, func(t *testing.T) {
			k := NewKeeper(served(t, s.ServeHTTP), "horkos-system", slog.New(slog.DiscardHandler), func() time.Time { return noon })
			if err := k.fill(t.Context()); err == nil || s.writes != 0 || strings.Contains(err.Error(), short) {
				t.Errorf("%v, %d writes", err, s.writes)
			}
			if got, err := k.Key(t.Context()); err == nil || got != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestTheKeeperEndsWithItsContext(t *testing.T) {
	s := &secretServer{kind: SecretType, version: 1}
	k := NewKeeper(served(t, s.ServeHTTP), "horkos-system", slog.New(slog.DiscardHandler), time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
