package suites

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/integration/harness"
	"github.com/horkos/horkos/webhook"
)

const (
	tlsSecret     = "/api/v1/namespaces/horkos-system/secrets/horkos-webhook-tls"
	tlsUser       = "system:serviceaccount:horkos-system:horkos-webhook"
	tlsHooks      = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
	tlsConfigMaps = "/api/v1/namespaces/shop/configmaps"
)

// quickly is a schedule by which all that takes a year takes seconds.
// A slow machine has seconds for each step.
var quickly = webhook.Schedule{Authority: 18 * time.Second, Serving: 10 * time.Second, Backdate: time.Hour,
	Overlap: 2 * time.Second, Retire: 2 * time.Second, Settle: 400 * time.Millisecond}

// tlsRules are all that the certificates need.
func tlsRules(create bool) (role, clusterRole []any) {
	role = []any{harness.Object{"apiGroups": []any{""}, "resources": []any{"secrets"}, "resourceNames": []any{"horkos-webhook-tls"},
		"verbs": []any{"get", "list", "watch", "update"}}}
	if create {
		role = append(role, harness.Object{"apiGroups": []any{""}, "resources": []any{"secrets"}, "verbs": []any{"create"}})
	}
	return role, []any{harness.Object{"apiGroups": []any{"admissionregistration.k8s.io"}, "resources": []any{"validatingwebhookconfigurations"},
		"resourceNames": []any{"horkos"}, "verbs": []any{"list", "watch", "patch"}}}
}

// tower is a control plane that calls two replicas of a webhook server of this process.
type tower struct {
	*testing.T
	plane    *harness.ControlPlane
	clients  apiserver.Clients
	replicas [2]*tlsReplica
	log      *lockedBuffer
}

type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// tlsReplica is a server with its Keeper, and which certificates it has shown.
type tlsReplica struct {
	*webhook.Keeper
	listener net.Listener
	reviews  atomic.Int64
	serials  sync.Map
	panics   atomic.Bool
	busy     atomic.Int64 // how often it says so
}

func (r *tlsReplica) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c, err := r.Keeper.GetCertificate(hello)
	if err == nil {
		r.serials.Store(c.Leaf.SerialNumber.String(), true)
	}
	return c, err
}

func (r *tlsReplica) certificates() (n int) {
	r.serials.Range(func(any, any) bool { n++; return true })
	return n
}

// ServeHTTP refuses what is named bad.
func (r *tlsReplica) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.reviews.Add(1)
	if r.panics.Load() {
		panic("as a bug would")
	}
	if r.busy.Add(-1) >= 0 { // as the server does
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests at once, try again", http.StatusTooManyRequests)
		return
	}
	var review struct {
		Request struct {
			UID, Name string
		} `json:"request"`
	}
	text, err := io.ReadAll(request.Body)
	if err == nil {
		err = json.Unmarshal(text, &review)
	}
	if err != nil {
		http.Error(w, "no review", http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(harness.Object{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": harness.Object{
		"uid": review.Request.UID, "allowed": !strings.HasPrefix(review.Request.Name, "bad"), "status": harness.Object{"message": "it is bad"}}})
}

func newTower(t *testing.T) *tower {
	t.Helper()
	harness.RequireCluster(t)
	plane, err := harness.New(t).StartControlPlane(t.Context(), harness.ControlPlaneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w := &tower{T: t, plane: plane, log: &lockedBuffer{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the replicas say:\n%s", w.log)
		}
	})
	for _, name := range []string{"horkos-system", "shop"} {
		w.create("/api/v1/namespaces", harness.Object{"metadata": harness.Object{"name": name}})
	}
	w.allow(true)
	path, err := plane.WriteKubeconfig("webhook", tlsUser, "system:serviceaccounts", "system:serviceaccounts:horkos-system", "system:authenticated")
	if err != nil {
		t.Fatal(err)
	}
	config, err := apiserver.Config(path, "horkos-webhook")
	if err != nil {
		t.Fatal(err)
	}
	if w.clients, err = apiserver.Connect(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.clients.Close)
	return w
}

func (w *tower) create(path string, object harness.Object) {
	w.Helper()
	if _, err := w.plane.Admin.Create(w.Context(), path, object); err != nil {
		w.Fatal(err)
	}
}

// allow gives the replicas exactly what they need.
func (w *tower) allow(create bool) {
	w.Helper()
	role, clusterRole := tlsRules(create)
	const group = "rbac.authorization.k8s.io/v1"
	subjects := []any{harness.Object{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": tlsUser}}
	for _, o := range []struct {
		at, kind string
		object   harness.Object
	}{
		{"/namespaces/horkos-system/roles", "Role", harness.Object{"rules": role}},
		{"/namespaces/horkos-system/rolebindings", "RoleBinding", harness.Object{"roleRef": harness.Object{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tls"}, "subjects": subjects}},
		{"/clusterroles", "ClusterRole", harness.Object{"rules": clusterRole}},
		{"/clusterrolebindings", "ClusterRoleBinding", harness.Object{"roleRef": harness.Object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tls"}, "subjects": subjects}},
	} {
		o.object["apiVersion"], o.object["kind"], o.object["metadata"] = group, o.kind, harness.Object{"name": "tls"}
		if _, err := w.plane.Admin.Apply(w.Context(), "/apis/"+group+o.at+"/tls", "test", o.object); err != nil {
			w.Fatal(err)
		}
	}
}

// configuration is the manifest: each replica is a webhook of it, at an address of its own.
func (w *tower) configuration() harness.Object {
	var hooks []any
	for i, r := range w.replicas {
		hooks = append(hooks, harness.Object{
			"name": fmt.Sprintf("replica%d.example.com", i), "sideEffects": "None", "admissionReviewVersions": []any{"v1"}, "failurePolicy": "Fail", "timeoutSeconds": 5,
			"clientConfig":      harness.Object{"url": "https://" + r.listener.Addr().String() + "/review"},
			"namespaceSelector": harness.Object{"matchLabels": harness.Object{"kubernetes.io/metadata.name": "shop"}},
			"matchConditions":   []any{harness.Object{"name": "made-by-a-test", "expression": "object.metadata.name != 'kube-root-ca.crt'"}},
			"rules":             []any{harness.Object{"apiGroups": []any{""}, "apiVersions": []any{"v1"}, "resources": []any{"configmaps"}, "operations": []any{"CREATE"}}},
		})
	}
	return harness.Object{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
		"metadata": harness.Object{"name": "horkos"}, "webhooks": hooks}
}

// start starts a replica, which ends with the test.
func (w *tower) start(i int, schedule webhook.Schedule) {
	w.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(w.log, nil)).With("replica", i)
	metrics := webhook.NewMetrics(prometheus.NewRegistry())
	r := &tlsReplica{Keeper: w.keeper(schedule, time.Now, log), listener: l}
	server := webhook.NewServer(webhook.ServerOptions{Handler: r, Certificates: r, Metrics: metrics, Log: log})
	w.replicas[i] = r
	ctx, cancel := context.WithCancel(w.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	running.Go(func() { _ = server.Run(ctx, l, nil) })
	w.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func (w *tower) keeper(schedule webhook.Schedule, now func() time.Time, log *slog.Logger) *webhook.Keeper {
	return webhook.NewKeeper(webhook.KeeperOptions{Client: w.clients.Objects, Namespace: "horkos-system", Secret: "horkos-webhook-tls",
		Configurations: []string{"horkos"}, Names: []string{"horkos-webhook.horkos-system.svc"}, Addresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		Schedule: schedule, Log: log, Now: now})
}

func (w *tower) eventually(what string, try func() error) time.Duration {
	w.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(w.Context(), 40*time.Second)
	defer cancel()
	if err := harness.Poll(ctx, what, func(context.Context) error { return try() }); err != nil {
		w.Fatal(err)
	}
	return time.Since(began)
}

func (w *tower) ready() time.Duration {
	w.Helper()
	return w.eventually("the replicas to be ready", func() error {
		for _, r := range w.replicas {
			if p := r.Problems(); len(p) > 0 {
				return fmt.Errorf("%v", p)
			}
		}
		return nil
	})
}

func (w *tower) configMap(name string) error {
	_, err := w.plane.Admin.Create(w.Context(), tlsConfigMaps, harness.Object{"metadata": harness.Object{"name": name}})
	return err
}

// bundles are the caBundles of the configuration.
func (w *tower) bundles() (all []string) {
	w.Helper()
	object, err := w.plane.Admin.Get(w.Context(), tlsHooks+"/horkos")
	if err != nil {
		w.Fatal(err)
	}
	for _, hook := range list(object, "webhooks") {
		text, _ := harness.Field(hook, "clientConfig", "caBundle").(string)
		all = append(all, text)
	}
	return all
}

// load makes objects without a pause until it is stopped, which gives how many were made. None
// may be refused.
func (w *tower) load(name string) (stop func() int64) {
	ctx, cancel := context.WithCancel(w.Context())
	var running sync.WaitGroup
	var made atomic.Int64
	for i := range 4 {
		running.Go(func() {
			for n := 0; ctx.Err() == nil && !w.Failed(); n++ {
				if err := w.configMap(fmt.Sprintf("%s-%d-%d", name, i, n)); err != nil {
					w.Errorf("after %d: %v", made.Load(), err)
				}
				made.Add(1)
			}
		})
	}
	return func() int64 {
		cancel()
		running.Wait()
		return made.Load()
	}
}

// TestTheAPIServerBelievesTheWebhookWhateverIsRenewed has a real API server call two replicas
// that make, renew and restore their certificates, with the rights they need and no more.
func TestTheAPIServerBelievesTheWebhookWhateverIsRenewed(t *testing.T) {
	began := time.Now()
	w := newTower(t)
	t.Logf("a control plane after %v", time.Since(began).Round(time.Millisecond))
	defer func() { t.Logf("all of it took %v", time.Since(began).Round(time.Millisecond)) }()

	t.Run("a replica whose clock is wrong makes nothing", func(t *testing.T) {
		wrong := w.keeper(webhook.DefaultSchedule(), func() time.Time { return time.Now().AddDate(1, 0, 0) }, slog.New(slog.NewTextHandler(w.log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = wrong.Run(ctx) })
		w.eventually("it to tell so", func() error {
			if p := strings.Join(wrong.Problems(), ""); !strings.Contains(p, "set the clock of its node right") {
				return fmt.Errorf("%q", p)
			}
			return nil
		})
		cancel()
		running.Wait()
		if _, err := w.plane.Admin.Get(t.Context(), tlsSecret); !harness.IsReason(err, "NotFound") {
			t.Errorf("a Secret: %v", err)
		}
	})

	w.start(0, quickly)
	w.start(1, quickly)
	w.create(tlsHooks, w.configuration())
	t.Logf("ready %v after the configuration was made", w.ready().Round(time.Millisecond))
	secret, err := w.plane.Admin.Get(t.Context(), tlsSecret)
	if err != nil || secret["type"] != webhook.SecretType {
		t.Fatalf("%v %v", secret["type"], err)
	}

	t.Run("both are called, and what they say counts", func(t *testing.T) {
		w.eventually("a good one to pass", func() error { return w.configMap("good") })
		if err := w.configMap("bad"); err == nil || !strings.Contains(err.Error(), "it is bad") {
			t.Errorf("a bad one: %v", err)
		}
		for i, r := range w.replicas {
			if r.reviews.Load() == 0 {
				t.Errorf("replica %d was not called", i)
			}
		}
		w.replicas[0].panics.Store(true)
		if err := w.configMap("good-again"); err == nil {
			t.Error("it passes though a replica panics")
		}
		w.replicas[0].panics.Store(false)
		w.replicas[0].busy.Store(1)
		asked := time.Now()
		if err := w.configMap("good-later"); err != nil || time.Since(asked) < time.Second {
			t.Errorf("one that is refused for want of room, and tried again: %v after %v", err, time.Since(asked))
		}
	})
	t.Run("all is renewed under load", func(t *testing.T) {
		before := [2]int{w.replicas[0].certificates(), w.replicas[1].certificates()}
		stop := w.load("renewed")
		bundles := make(map[string]bool)
		until := time.Now().Add(24 * time.Second)
		w.eventually("the bundle to have changed often", func() error {
			for _, b := range w.bundles() {
				bundles[b] = true
			}
			if time.Now().Before(until.Add(-time.Second)) {
				return fmt.Errorf("%d bundles", len(bundles))
			}
			return nil
		})
		n := stop()
		for i, r := range w.replicas {
			t.Logf("replica %d has shown %d certificates", i, r.certificates()-before[i])
			if r.certificates()-before[i] < 1 {
				t.Errorf("replica %d has shown no new one", i)
			}
		}
		t.Logf("%d objects made, %d bundles", n, len(bundles))
		if n < 100 || len(bundles) < 3 {
			t.Error("that shows nothing")
		}
	})
	t.Run("the Secret is deleted under load", func(t *testing.T) {
		w.ready()
		before, _ := w.plane.Admin.Get(t.Context(), tlsSecret)
		stop := w.load("deleted")
		if _, err := w.plane.Admin.Delete(t.Context(), tlsSecret); err != nil {
			t.Fatal(err)
		}
		took := w.eventually("another authority to sign what is shown", func() error {
			now, err := w.plane.Admin.Get(t.Context(), tlsSecret)
			if err == nil && (harness.Field(now, "data", "ca.key") == harness.Field(before, "data", "ca.key") || harness.Field(now, "data", "tls.key") == harness.Field(before, "data", "tls.key")) {
				err = errNotYet
			}
			return err
		})
		w.ready()
		t.Logf("after %v; %d objects made", took.Round(time.Millisecond), stop())
	})
	t.Run("the manifest is applied anew", func(t *testing.T) {
		for _, how := range []string{"replace", "apply"} {
			now, err := w.plane.Admin.Get(t.Context(), tlsHooks+"/horkos")
			if err != nil {
				t.Fatal(err)
			}
			manifest := w.configuration()
			if how == "replace" { // as kubectl replace: the bundle is gone
				manifest["metadata"] = now["metadata"]
				_, err = w.plane.Admin.Replace(t.Context(), tlsHooks+"/horkos", manifest)
			} else {
				_, err = w.plane.Admin.Apply(t.Context(), tlsHooks+"/horkos", "kubectl", manifest)
			}
			if err != nil {
				t.Fatal(err)
			}
			took := w.eventually("the bundle to be there", func() error {
				for _, b := range w.bundles() {
					if b == "" {
						return errNotYet
					}
				}
				return nil
			})
			passed := w.eventually("the API server to believe", func() error { return w.configMap("again-" + how) })
			t.Logf("%s: the bundle is given after %v, believed %v later", how, took.Round(time.Millisecond), passed.Round(time.Millisecond))
		}
	})
	t.Run("and when the one who applied it takes a webhook out", func(t *testing.T) {
		if _, err := w.plane.Admin.Delete(t.Context(), tlsHooks+"/horkos"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.plane.Admin.Apply(t.Context(), tlsHooks+"/horkos", "kubectl", w.configuration()); err != nil {
			t.Fatal(err)
		}
		w.eventually("the one that is made anew to be believed", func() error { return w.configMap("anew") })
		manifest := w.configuration()
		manifest["webhooks"] = manifest["webhooks"].([]any)[:1]
		if _, err := w.plane.Admin.Apply(t.Context(), tlsHooks+"/horkos", "kubectl", manifest); err != nil {
			t.Errorf("%v", err)
		}
		if n := len(w.bundles()); n != 1 {
			t.Errorf("%d webhooks", n)
		}
		if _, err := w.plane.Admin.Apply(t.Context(), tlsHooks+"/horkos", "kubectl", w.configuration()); err != nil {
			t.Fatal(err)
		}
		w.eventually("both to be believed", func() error { return w.configMap("both") })
	})
	t.Run("it may do no more than that", func(t *testing.T) {
		as, err := w.plane.Client(tlsUser)
		if err != nil {
			t.Fatal(err)
		}
		w.create("/api/v1/namespaces/horkos-system/secrets", harness.Object{"metadata": harness.Object{"name": "other"}})
		other := harness.Object{"webhooks": []any{}}
		for what, try := range map[string]func() error{
			"list secrets":     func() error { _, err := as.Get(t.Context(), "/api/v1/namespaces/horkos-system/secrets"); return err },
			"list all secrets": func() error { _, err := as.Get(t.Context(), "/api/v1/secrets"); return err },
			"another secret": func() error {
				_, err := as.Get(t.Context(), "/api/v1/namespaces/horkos-system/secrets/other")
				return err
			},
			"delete it": func() error { _, err := as.Delete(t.Context(), tlsSecret); return err },
			"a secret of shop": func() error {
				_, err := as.Create(t.Context(), "/api/v1/namespaces/shop/secrets", harness.Object{"metadata": harness.Object{"name": "x"}})
				return err
			},
			"another webhook": func() error { _, err := as.Merge(t.Context(), tlsHooks+"/other", other); return err },
			"list webhooks":   func() error { _, err := as.Get(t.Context(), tlsHooks); return err },
			"delete the hook": func() error { _, err := as.Delete(t.Context(), tlsHooks+"/horkos"); return err },
			"make another hook": func() error {
				_, err := as.Create(t.Context(), tlsHooks, harness.Object{"metadata": harness.Object{"name": "x"}})
				return err
			},
		} {
			if err := try(); !harness.IsReason(err, "Forbidden") {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
	t.Run("an empty Secret of the manifests needs no right to create", func(t *testing.T) {
		w.allow(false)
		as, err := w.plane.Client(tlsUser)
		if err != nil {
			t.Fatal(err)
		}
		empty := harness.Object{"type": webhook.SecretType, "metadata": harness.Object{"name": "horkos-webhook-tls"}}
		w.eventually("it to be forbidden", func() error {
			if _, err := as.Create(t.Context(), "/api/v1/namespaces/horkos-system/secrets?dryRun=All", harness.Object{"metadata": harness.Object{"name": "x"}}); !harness.IsReason(err, "Forbidden") {
				return errNotYet
			}
			return nil
		})
		if _, err := w.plane.Admin.Delete(t.Context(), tlsSecret); err != nil {
			t.Fatal(err)
		}
		w.eventually("it to say so", func() error {
			if !strings.Contains(w.log.String(), "or make an empty Secret of that name and of type horkos.dev/webhook-tls") {
				return errNotYet
			}
			return nil
		})
		w.create("/api/v1/namespaces/horkos-system/secrets", empty)
		w.eventually("it to be filled", func() error {
			now, err := w.plane.Admin.Get(t.Context(), tlsSecret)
			if err == nil && harness.Field(now, "data", "tls.key") == nil {
				err = errNotYet
			}
			return err
		})
		w.ready()
		if err := w.configMap("at-last"); err != nil {
			t.Error(err)
		}
	})
}
