package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/horkos/horkos/crds/horkos"
)

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// api is an API server that holds NodeGates, as far as they are applied.
type api struct {
	t        *testing.T
	mu       sync.Mutex // held by the test but in pass
	requests []string   // method and path
	times    []time.Time
	gates    map[string]map[string]any
	fail     func(*http.Request) (status int, body string) // 0: it answers
	down     bool
}

// RoundTrip makes it a transport: without a network, so that time can be that of a bubble.
func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests, a.times = append(a.requests, r.Method+" "+r.URL.Path), append(a.times, time.Now())
	if a.down {
		return nil, errors.New("connection refused")
	}
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/json")
	a.serve(w, r)
	return w.Result(), nil
}

func (a *api) serve(w http.ResponseWriter, r *http.Request) {
	if a.fail != nil {
		if code, body := a.fail(r); code != 0 {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
			return
		}
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/apis/horkos.dev/v1alpha1/nodegates/")
	name, status := strings.CutSuffix(rest, "/status")
	if q := r.URL.Query(); !ok || r.Method != http.MethodPatch || q.Get("fieldManager") != "horkos-node" || q.Get("force") != "true" ||
		r.Header.Get("Content-Type") != "application/apply-patch+yaml" {
		a.t.Errorf("asked %s %s, %v", r.Method, r.URL, r.Header)
	}
	if status && a.gates[name] == nil {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","reason":"NotFound","code":404,"details":{"name":%q,"group":"horkos.dev","kind":"nodegates"}}`, name)
		return
	}
	var object map[string]any
	if err := json.NewDecoder(r.Body).Decode(&object); err != nil {
		a.t.Error(err)
	}
	meta, _ := object["metadata"].(map[string]any)
	if object["apiVersion"] != "horkos.dev/v1alpha1" || object["kind"] != "NodeGate" || meta["name"] != name || len(meta) != 1 || (object["status"] != nil) != status {
		a.t.Errorf("%s: %v", r.URL.Path, object)
	}
	a.gates[name] = object
	_ = json.NewEncoder(w).Encode(object)
}

func (a *api) client() dynamic.Interface {
	a.t.Helper()
	c, err := dynamic.NewForConfigAndClient(&rest.Config{Host: "http://api", WarningHandlerWithContext: rest.NoWarnings{}}, &http.Client{Transport: a})
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// gateOf is a writer at an API server, with what it says and logs.
type gateOf struct {
	*nodeGate
	*api
	says   horkos.NodeGateStatus
	log    strings.Builder
	client dynamic.Interface

	none, noRuntime error // why there is no client, and no version of the runtime
}

// withNodeGate runs a writer for a test, in a time of its own.
func withNodeGate(t *testing.T, test func(t *testing.T, g *gateOf)) {
	synctest.Test(t, func(t *testing.T) {
		g := &gateOf{api: &api{t: t, gates: make(map[string]map[string]any)}}
		g.client = g.api.client()
		g.says = horkos.NodeGateStatus{Mode: "enforce", Version: "v1", PolicyRevision: "r1", Ready: true, StartedAt: rfc3339(time.Now())}
		g.nodeGate = newNodeGate("n1", func() (dynamic.Interface, error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			if g.none != nil {
				return nil, g.none
			}
			return g.client, nil
		}, func() horkos.NodeGateStatus {
			g.mu.Lock()
			defer g.mu.Unlock()
			s := g.says
			s.ObservedAt = rfc3339(time.Now())
			return s
		}, func(context.Context) (string, error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			if g.noRuntime != nil {
				return "", g.noRuntime
			}
			return "v2.4.2", nil
		},
			slog.New(slog.NewTextHandler(&g.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- g.Run(ctx) }()
		synctest.Wait()
		g.mu.Lock()
		test(t, g)
		g.mu.Unlock()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	})
}

// pass lets time pass, and gives what was asked meanwhile.
func (g *gateOf) pass(d time.Duration) []string {
	g.requests, g.times = nil, nil
	g.mu.Unlock()
	time.Sleep(d)
	synctest.Wait()
	g.mu.Lock()
	return g.requests
}

func (g *gateOf) status() map[string]any {
	s, _ := g.gates["n1"]["status"].(map[string]any)
	return s
}

const (
	patchMain   = "PATCH /apis/horkos.dev/v1alpha1/nodegates/n1"
	patchStatus = patchMain + "/status"
)

func TestANodeGateIsMadeWhereThereIsNone(t *testing.T) {
	withNodeGate(t, func(t *testing.T, g *gateOf) {
		if want := []string{patchStatus, patchMain, patchStatus}; !slices.Equal(g.requests, want) {
			t.Errorf("asked %v, want %v", g.requests, want)
		}
		if s := g.status(); s["mode"] != "enforce" || s["ready"] != true || s["runtimeVersion"] != "containerd://2.4.2" || s["problems"] != nil || s["syncedAt"] != nil {
			t.Errorf("status %v", s)
		}
		// Deleted, it is made again with the next beat.
		delete(g.gates, "n1")
		if g.pass(6*time.Minute + time.Second); g.status() == nil {
			t.Error("it is gone")
		}
	})
}

func TestWhileNothingChangesOnlyTheHeartbeatIsWritten(t *testing.T) {
	withNodeGate(t, func(t *testing.T, g *gateOf) {
		const hours = 100
		synced, beat := time.Now(), time.NewTicker(time.Minute)
		go func() { // as on a busy node
			for range hours*60 - 1 {
				<-beat.C
				g.mu.Lock()
				synced = synced.Add(time.Minute)
				g.says.SyncedAt = rfc3339(synced)
				g.says.Decisions = []horkos.DecisionCount{{Result: "allowed", Count: synced.Unix()}}
				g.says.AuditHead = &horkos.AuditHead{Seq: synced.Unix(), Hash: "h"}
				g.says.Problems = []string{fmt.Sprintf("it is %d s late", synced.Unix())}
				g.mu.Unlock()
				g.Changed()
			}
		}()
		g.pass(2 * time.Minute) // the first problem, and the first time
		asked := g.pass((hours - 1) * time.Hour)
		if n, want := len(asked), (hours-1)*12; n < want*9/10 || n > want*11/10 {
			t.Errorf("%d writes in %d hours, want about %d", n, hours-1, want)
		}
		var least, most = time.Hour, time.Duration(0)
		for i := range g.times[1:] {
			d := g.times[i+1].Sub(g.times[i])
			least, most = min(least, d), max(most, d)
		}
		if least < 4*time.Minute || least > 250*time.Second || most > 6*time.Minute+time.Second || most < 350*time.Second {
			t.Errorf("heartbeats after %v to %v, want 4 to 6 minutes", least, most)
		}
		if s := g.status(); s["decisions"] == nil || s["auditHead"] == nil || s["syncedAt"] == nil {
			t.Errorf("status %v", s)
		}
		g.pass(2 * time.Hour) // until the other has ended
	})
}

func TestAChangeIsWrittenWithin10SecondsAndThenAtMostEvery10(t *testing.T) {
	changes := map[string]func(*horkos.NodeGateStatus){
		"the mode":       func(s *horkos.NodeGateStatus) { s.Mode = "audit" },
		"the revision":   func(s *horkos.NodeGateStatus) { s.PolicyRevision += "x" },
		"not ready":      func(s *horkos.NodeGateStatus) { s.Ready = false },
		"a problem":      func(s *horkos.NodeGateStatus) { s.Problems = []string{"a"} },
		"synced":         func(s *horkos.NodeGateStatus) { s.SyncedAt = rfc3339(time.Now()) },
		"another start":  func(s *horkos.NodeGateStatus) { s.StartedAt = rfc3339(time.Now().Add(time.Hour)) },
		"an upgrade":     func(s *horkos.NodeGateStatus) { s.Version = "v2" },
		"an old restore": func(s *horkos.NodeGateStatus) { s.SyncedAt = rfc3339(time.Unix(1, 0)) },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			withNodeGate(t, func(t *testing.T, g *gateOf) {
				g.pass(time.Minute)
				change(&g.says)
				g.Changed()
				if asked := g.pass(nodeGateLeast); !slices.Equal(asked, []string{patchStatus}) {
					t.Errorf("asked %v", asked)
				}
				if asked := g.pass(time.Minute); len(asked) != 0 {
					t.Errorf("then asked %v", asked)
				}
			})
		})
	}
	withNodeGate(t, func(t *testing.T, g *gateOf) {
		g.pass(time.Minute)
		g.says.Ready = false // nobody tells
		if asked := g.pass(2 * nodeGateLeast); len(asked) != 1 {
			t.Errorf("what nobody told of was written %d times", len(asked))
		}
		g.pass(0)
		for i := range 1000 { // 100 s
			g.says.PolicyRevision = fmt.Sprint("r", i)
			g.Changed()
			g.mu.Unlock()
			time.Sleep(100 * time.Millisecond)
			g.mu.Lock()
		}
		if n := len(g.requests); n < 5 || n > 10 { // each within 10 s, by chance, after 10 s
			t.Errorf("%d writes in 100 s", n)
		}
		if g.pass(2 * nodeGateLeast); g.status()["policyRevision"] != "r999" {
			t.Errorf("the last is not written: %v", g.status())
		}
	})
}

func TestSyncedAtThatJumpsIsWritten(t *testing.T) {
	at := time.Now()
	plus := func(d time.Duration) string { return rfc3339(at.Add(d)) }
	for _, tt := range []struct {
		from, to string
		want     bool
	}{{"", "", false}, {"", plus(0), true}, {plus(0), "", true}, {plus(0), plus(0), false}, {plus(0), plus(10 * time.Minute), false},
		{plus(0), plus(11 * time.Minute), true}, {plus(0), plus(-time.Second), true}, {plus(0), "x", true}} {
		if got := jumped(tt.from, tt.to); got != tt.want {
			t.Errorf("%v to %v: %v", tt.from, tt.to, got)
		}
	}
}

func TestAnAPIServerThatIsAwayIsAskedEverLessOftenAndToldOnce(t *testing.T) {
	withNodeGate(t, func(t *testing.T, g *gateOf) {
		g.down = true
		g.log.Reset()
		asked := g.pass(6 * time.Hour)
		if n := len(asked); n < 60 || n > 100 {
			t.Errorf("%d tries in 6 hours, want about one in 5 minutes", n)
		}
		for i := range g.times[1:] {
			if d := g.times[i+1].Sub(g.times[i]); d < 8*time.Second || d > 6*time.Minute {
				t.Errorf("tried after %v", d)
			}
		}
		if log := g.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "level=DEBUG") {
			t.Errorf("told:\n%s", log)
		}
		g.down = false
		g.says.PolicyRevision = "r2"
		if g.pass(6*time.Minute + time.Second); g.status()["policyRevision"] != "r2" {
			t.Errorf("status %v", g.status())
		}
		if log := g.log.String(); strings.Count(log, "\n") != 2 {
			t.Errorf("told:\n%s", log)
		}
	})
}

func TestARefusalIsAWarning(t *testing.T) {
	withNodeGate(t, func(t *testing.T, g *gateOf) {
		g.log.Reset()
		g.fail = func(*http.Request) (int, string) {
			return 403, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"Forbidden","message":"not yours","code":403}`
		}
		g.pass(time.Hour)
		if log := g.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "level=WARN") || !strings.Contains(log, "not yours") {
			t.Errorf("told:\n%s", log)
		}
		g.fail = func(*http.Request) (int, string) { return 503, "" }
		g.pass(time.Hour)
		if log := g.log.String(); strings.Count(log, "\n") != 2 || strings.Count(log, "level=DEBUG") != 1 {
			t.Errorf("told:\n%s", log)
		}
	})
}

func TestAnotherAPIServerIsToldAtOnce(t *testing.T) {
	withNodeGate(t, func(t *testing.T, g *gateOf) {
		g.down = true
		g.pass(time.Hour) // long between the tries
		g.none = errors.New("no kubeconfig")
		if asked := g.pass(10 * time.Minute); len(asked) != 0 {
			t.Errorf("asked %v", asked)
		}
		g.none, g.down, g.client = nil, false, g.api.client()
		if asked := g.pass(nodeGateLeast); len(asked) != 1 {
			t.Errorf("asked %v", asked)
		}
		g.client = g.api.client()
		if asked := g.pass(nodeGateLeast); len(asked) != 1 {
			t.Errorf("asked %v of another", asked)
		}
	})
}

func TestARuntimeThatDoesNotAnswerKeepsItsVersion(t *testing.T) {
	withNodeGate(t, func(t *testing.T, g *gateOf) {
		g.noRuntime = errors.New("away")
		g.says.Ready = false
		if g.pass(time.Minute); g.status()["ready"] != false || g.status()["runtimeVersion"] != "containerd://2.4.2" {
			t.Errorf("status %v", g.status())
		}
	})
}

func TestTheProblemsOfANodeGateAreBounded(t *testing.T) {
	for n, want := range map[int]int{0: 0, 16: 16, 17: 16, 1000: 16} {
		var s horkos.NodeGateStatus
		for range n {
			s.Problems = append(s.Problems, strings.Repeat("\u00e9", 400)+"\xff")
		}
		b := boundedStatus(s)
		if len(b.Problems) != want {
			t.Errorf("%d of %d problems, want %d", len(b.Problems), n, want)
		}
		for _, p := range b.Problems {
			if len(p) > 512 || (len(p) < 500 && !strings.HasPrefix(p, "and ")) || strings.ToValidUTF8(p, "") != p {
				t.Errorf("a problem of %d bytes: %q", len(p), p)
			}
		}
		if n > 16 && !strings.HasPrefix(b.Problems[15], fmt.Sprintf("and %d more", n-15)) {
			t.Errorf("the last is %q", b.Problems[15])
		}
	}
	if b := boundedStatus(horkos.NodeGateStatus{Version: strings.Repeat("v", 129)}); len(b.Version) != 128 {
		t.Errorf("a version of %d bytes", len(b.Version))
	}
}

func TestTheHeadOfTheAuditLogIsKept(t *testing.T) {
	var k headKeeper
	if k.get() != nil {
		t.Error("there is one before there is a record")
	}
	if k.set(7, "h"); *k.get() != (horkos.AuditHead{Seq: 7, Hash: "h"}) {
		t.Errorf("it is %v", k.get())
	}
}
