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

	"github.com/horkos/horkos/verifier"
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
		"token":  {func(*Token) {}, func(t *Token) { t.Reason = "as in " + mark + "1.x" }},
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
	const until = "token until 2026-11-21T12:30:00Z: INC-7"
	another := "user " + account.Username + " needs another token, of horkos breakglass: "
	tests := []struct {
		name   string
		user   admission.User
		text   string
		denied []string
		want   string // the reason, or why not; empty: nobody asked
		asked  int
	}{
		{"a user with the right", admin, "true", []string{cart}, "true", 1},
		{"a user with the right and a reason", admin, "INC-7", []string{cart}, "INC-7", 1},
		{"a reason of a line of its own", admin, " INC-7\n", []string{cart}, "INC-7", 1},
		{"a user without it", bob, "INC-7", []string{cart}, "user bob may not breakglass clusterattestationpolicies.horkos.dev; ask who may, or for a token: horkos breakglass", 1},
		{"nobody asks", admin, "", []string{cart}, "", 0},
		{"false", admin, "False", []string{cart}, "", 0},
		{"spaces", admin, "  ", []string{cart}, "", 0},
		{"a reason that is too long", admin, strings.Repeat("r", maxText+1), []string{cart}, "user admin gave a reason that cannot be recorded: the reason is over 1024 bytes", 0},
		{"a reason of several lines", admin, "a\nb", []string{cart}, "user admin gave a reason that cannot be recorded: the reason has characters that cannot be printed", 0},
		{"a token within a reason", admin, "INC-7 " + good, []string{cart}, "user admin gave a reason that cannot be recorded: a token is in the reason: records would repeat it", 0},
		{"a token of a service account", account, good, []string{cart}, until, 0},
		{"a token after a space", account, " " + good, []string{cart}, until, 0},
		{"by the digest", account, good, []string{byDigest, cart}, until, 0},
		{"a token of anybody", bob, good, []string{cart}, until, 0},
		{"a text of a service account", account, "true", []string{cart}, "user " + account.Username + " is a service account and needs a token: horkos breakglass", 0},
		{"a text of the group of service accounts", otherName, "true", []string{cart}, "user x is a service account and needs a token: horkos breakglass", 0},
		{"a text of the controller manager", manager, "true", []string{cart}, "user system:kube-controller-manager is a service account and needs a token: horkos breakglass", 0},
		{"another image", account, good, []string{cart, "registry.example.com/shop/cart:3"}, another + "the token is not for image registry.example.com/shop/cart:3", 0},
		{"another name of the same", account, good, []string{"https://" + cart}, another + "the token is not for image https://" + cart, 0},
		{"another digest", account, good, []string{"cart@sha256:" + strings.Repeat("b1", 32)}, another + "the token is not for image cart@sha256:" + strings.Repeat("b1", 32), 0},
		{"two digests", account, good, []string{"a@sha256:" + strings.Repeat("b1", 32) + "@" + digest}, another + "the token is not for image a@sha256:" + strings.Repeat("b1", 32) + "@" + digest[:46], 0},
		{"nothing is known to be denied", account, good, nil, "user " + account.Username + " cannot let through what nobody named", 0},
		{"nothing is known to be denied, with the right", admin, "INC-7", nil, "user admin cannot let through what nobody named", 0},
		{"of another namespace", account, minted(t, elsewhere), []string{cart}, another + "the token is for namespace payments", 0},
		{"expired", account, minted(t, old), []string{cart}, another + "the token expired at 2026-11-21T10:30:00Z", 0},
		{"forged", account, good[:len(good)-2] + "AA", []string{cart}, another + "the token is not of this cluster's key", 0},
		{"of another version", account, strings.Replace(good, "v1", "v2", 1), []string{cart}, another + "the token is malformed", 0},
		{"begins like a token", account, prefix + "x", []string{cart}, another + "the token is malformed", 0},
		{"an expired token of a user without the right", bob, minted(t, old), []string{cart}, "user bob may not breakglass clusterattestationpolicies.horkos.dev, and needs another token, of horkos breakglass: the token expired at 2026-11-21T10:30:00Z", 1},
		{"an expired token of a user with it", admin, minted(t, old), []string{cart}, "with a token that does not count: the token expired at 2026-11-21T10:30:00Z", 1},
		{"a token of another version of a user with it", admin, strings.Replace(good, "v1", "v2", 1), []string{cart}, "with a token that does not count: the token is malformed", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// The right of controllers, where they have it, counts for nothing.
			r := &rights{may: map[string]bool{"admin": true, account.Username: true, "x": true, manager.Username: true}}
			j := NewJudge(fixedKey{}, r, func() time.Time { return noon })
			got := j.Judge(t.Context(), admission.Review{User: tt.user, Namespace: "shop", Wrote: true, Breakglass: tt.text, Images: []string{cart}, Denied: denied(tt.denied...)})
			want := admission.Glass{Broken: tt.want != "", Reason: tt.want, ForPods: strings.HasPrefix(tt.want, tokenUntil)}
			if strings.HasPrefix(tt.want, "user ") {
				want = admission.Glass{Refused: tt.want}
			}
			if got != want || r.asked != tt.asked {
				t.Errorf("%+v, asked %d times", got, r.asked)
			}
			if strings.Contains(fmt.Sprint(got), good[len(prefix):]) {
				t.Errorf("the token is in %+v", got)
			}
		})
	}
}

func TestBreakglassNeverPassesWhatIsRevokedOrCouldBe(t *testing.T) {
	admin := admission.User{Username: "admin"}
	never := map[verifier.Reason]bool{
		verifier.ImageRevoked: true, // and of these nobody looked whether it is
		verifier.ImageUnbound: true, verifier.PoliciesNotSynced: true, verifier.DeadlineExceeded: true, verifier.Internal: true,
		verifier.SpecTooLarge: true, verifier.AuditFailed: true,
		verifier.Exempt: true, verifier.Floor: true, verifier.Attested: true, verifier.Emergency: true, verifier.Breakglass: true, // no refusals
		"OfALaterVersion": true,
	}
	for _, reason := range append(verifier.Reasons(), "OfALaterVersion") {
		for name, images := range map[string][]admission.Denied{
			"alone":   {{Image: cart, Reason: reason}},
			"another": {{Image: "first:1", Reason: verifier.NotAttested}, {Image: cart, Reason: reason}},
		} {
			for kind, text := range map[string]string{"a reason": "INC-7", "a token": minted(t, Token{Namespace: "shop", Images: []string{cart, "first:1"}, Reason: "INC-7", Minted: noon.Unix(), Expires: noon.Unix() + 60})} {
				r := &rights{may: map[string]bool{"admin": true}}
				got := NewJudge(fixedKey{}, r, func() time.Time { return noon }).Judge(t.Context(), admission.Review{User: admin, Namespace: "shop", Wrote: true, Breakglass: text, Denied: images})
				if got.Broken == never[reason] || (never[reason] && (got.Refused == "" || r.asked > 0)) {
					t.Errorf("%s, %s, by %s: %+v", reason, name, kind, got)
				}
				if reason == verifier.ImageRevoked && got.Refused != "user admin cannot let through what is revoked: image "+cart {
					t.Errorf("%s", got.Refused)
				}
			}
		}
	}
}

func denied(names ...string) (all []admission.Denied) {
	for _, name := range names {
		all = append(all, admission.Denied{Image: name, Reason: verifier.NotAttested})
	}
	return all
}

func TestWhatFailsIsNoRightAndItsCauseIsForTheLogAlone(t *testing.T) {
	account, admin := admission.User{Username: "system:serviceaccount:a:b"}, admission.User{Username: "admin"}
	token := minted(t, aToken())
	noKey, noAnswer := fixedKey{errors.New("no Secret at 10.0.0.1")}, &rights{err: errors.New("no answer of 10.0.0.1")}
	for name, tt := range map[string]struct {
		user admission.User
		text string
		keys Keys
		may  *rights
		want string
		log  bool
	}{
		"without a key": {account, token, noKey, &rights{}, "needs another token, of horkos breakglass: the key to check it by could not be read, try again", true},
		"without an answer": {admin, "true", fixedKey{}, noAnswer,
			"may have the right, but the API server could not be asked (try again); ask who may, or for a token: horkos breakglass", true},
		"without either": {admin, token, noKey, noAnswer, "may have the right, but the API server could not be asked (try again), and needs another token", true},
		"too late":       {admin, "true", fixedKey{}, &rights{may: map[string]bool{"admin": true}}, "(try again)", false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, end := context.WithCancel(t.Context())
			if name == "too late" {
				end()
			}
			defer end()
			got := NewJudge(tt.keys, tt.may, func() time.Time { return noon }).Judge(ctx, admission.Review{User: tt.user, Namespace: "shop", Wrote: true, Breakglass: tt.text, Denied: denied(cart)})
			if got.Broken || got.Reason != "" || !strings.Contains(got.Refused, tt.want) || strings.Contains(got.Refused, "10.0.0.1") || (tt.log && !strings.Contains(fmt.Sprint(got.Err), "10.0.0.1")) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// slowRights answer when they are let.
type slowRights struct{ asked, answer chan struct{} }

func (s *slowRights) May(ctx context.Context, _ admission.User) (bool, error) {
	s.asked <- struct{}{}
	select {
	case <-s.answer:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func TestAUserWhoAsksAllTheTimeKeepsNobodyElseFromAsking(t *testing.T) {
	slow := &slowRights{make(chan struct{}, 100), make(chan struct{})}
	j := NewJudge(fixedKey{}, slow, func() time.Time { return noon })
	ask := func(name string) admission.Glass {
		return j.Judge(t.Context(), admission.Review{User: admission.User{Username: name}, Namespace: "shop", Wrote: true, Breakglass: "true", Denied: denied(cart)})
	}
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() { ask("mallory") })
	}
	for range atOnce {
		<-slow.asked
	}
	for range 100 {
		if got := ask("mallory"); got.Broken || !strings.Contains(got.Refused, "user mallory asks too often at once (try again)") {
			t.Fatalf("%+v", got)
		}
	}
	oncall := make(chan admission.Glass, 1)
	all.Go(func() { oncall <- ask("oncall") })
	slow.answer <- struct{}{} // of those that mallory may have at once, one is answered
	<-slow.asked
	close(slow.answer)
	if got := <-oncall; !got.Broken {
		t.Errorf("%+v", got)
	}
	all.Wait()
	if len(j.waiting)+len(j.asking) > 0 {
		t.Errorf("%v wait, %d ask", j.waiting, len(j.asking))
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
	if _, err := k.Key(t.Context()); !errors.Is(err, ErrEmpty) {
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
	if _, err := k.Key(t.Context()); !errors.Is(err, ErrEmpty) {
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
	if err := k.fill(t.Context()); err != nil { // it has what it wanted
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
