package admission

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/horkos/horkos/audit"
	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

const mirrorAnnotation = "kubernetes.io/config.mirror"

const repository = "registry.example.com/shop/cart"

// cart is an image of the shop; the first is attested in most tests, no other is.
func cart(n int) image.Identity {
	return image.Identity{Repository: repository, Digest: image.SHA256(fmt.Append(nil, n))}
}

var (
	good = cart(1).String()
	bad  = cart(2).String()
)

func signer(n int) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, fmt.Sprint("signer ", n))
	return ed25519.NewKeyFromSeed(seed)
}

// authority is the manifest of one of namespace shop.
func authority(t testing.TB, name string, key ed25519.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return fmt.Sprintf("apiVersion: kritis.grafeas.io/v1beta1\nkind: AttestationAuthority\nmetadata: {name: %s, namespace: shop}\n"+
		"spec: {publicKeys: [{keyType: PKIX, pkixPublicKey: {publicKeyPem: %q}}]}\n", name, text)
}

// gap is the manifest of a policy of namespace shop.
func gap(name, spec string) string {
	return fmt.Sprintf("apiVersion: kritis.grafeas.io/v1beta1\nkind: GenericAttestationPolicy\nmetadata: {name: %s, namespace: shop}\nspec: {%s}\n", name, spec)
}

func attest(t testing.TB, key ed25519.PrivateKey, id image.Identity) evidence.Attestation {
	t.Helper()
	return attestUntil(t, key, id, time.Time{})
}

func attestUntil(t testing.TB, key ed25519.PrivateKey, id image.Identity, expires time.Time) evidence.Attestation {
	t.Helper()
	payload, err := attestation.NewPayload(id, noon.Add(-time.Hour), expires)
	if err != nil {
		t.Fatal(err)
	}
	signature, public, err := attestation.Sign(key, "", payload)
	if err != nil {
		t.Fatal(err)
	}
	return evidence.Attestation{Origin: "test", Envelopes: []attestation.Envelope{attestation.NewEnvelope(attestation.PKIX, public.ID, payload, signature)}}
}

// world decides with the real verifier by policies and evidence.
type world struct {
	decider verifier.Decider
	snap    *policy.Snapshot
	memory  *evidence.Memory
}

func (w *world) Verify(ctx context.Context, req *verifier.Request) (verifier.Decision, error) {
	return w.decider.Verify(ctx, req, w.snap, w.memory)
}

func newWorld(t testing.TB, records evidence.Records, manifests ...string) *world {
	t.Helper()
	objects, err := crds.Decode([]byte(strings.Join(manifests, "---\n")), "cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{decider: verifier.Decider{Sources: []evidence.Question{{Source: "folder"}}}, memory: evidence.NewMemory(),
		snap: policy.Compile(crds.Set{Origin: crds.Cluster, Objects: objects})}
	for _, f := range w.snap.Findings() {
		t.Fatalf("%s: %s", f.Object, f.Message)
	}
	w.memory.Replace("folder", records)
	return w
}

// shop is a world where namespace shop wants the release authority, which attested the good image.
func shop(t testing.TB, more ...string) *world {
	records := evidence.Records{cart(1): {attest(t, signer(1), cart(1))}}
	return newWorld(t, records, append([]string{authority(t, "release", signer(1)), gap("shop", "attestationAuthorityNames: [release]")}, more...)...)
}

// verify is a Verifier that is a function.
type verify func(context.Context, *verifier.Request) (verifier.Decision, error)

func (v verify) Verify(ctx context.Context, req *verifier.Request) (verifier.Decision, error) {
	return v(ctx, req)
}

// door is a handler under test, and what it leaves behind.
type door struct {
	*Handler
	t        testing.TB
	registry *prometheus.Registry

	mu      sync.Mutex
	records []audit.Record
	full    bool
	events  []Event
	log     bytes.Buffer
}

func (d *door) Append(r *audit.Record) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return errors.New("no space left on device")
	}
	d.records = append(d.records, *r)
	return nil
}

func (d *door) Tell(e Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, e)
}

func (d *door) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.Write(b)
}

func newDoor(t testing.TB, v Verifier, change ...func(*Options)) *door {
	d := &door{t: t, registry: prometheus.NewRegistry()}
	o := Options{Verifier: v, Events: d, Shell: gate.Shell{Node: "webhook-1", Records: d, Metrics: gate.NewMetrics(d.registry, "v1"),
		Log: slog.New(slog.NewTextHandler(d, nil)), Now: func() time.Time { return noon }}}
	for _, c := range change {
		c(&o)
	}
	d.Handler = New(o)
	return d
}

// send posts a body and gives the answer of HTTP.
func (d *door) send(body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/validate?timeout=10s", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w
}

// ask posts a review and gives the answer, read by the types of the API.
func (d *door) ask(r review) *admissionv1.AdmissionResponse {
	d.t.Helper()
	return d.answered(d.send(r.json(d.t)))
}

func (d *door) answered(w *httptest.ResponseRecorder) *admissionv1.AdmissionResponse {
	d.t.Helper()
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
		d.t.Fatalf("HTTP %d %s: %s", w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	resp, err := readAnswer(w.Body.Bytes())
	if err != nil {
		d.t.Fatalf("%v: %s", err, w.Body)
	}
	return resp
}

// readAnswer holds an answer to what the API server asks of one.
func readAnswer(body []byte) (*admissionv1.AdmissionResponse, error) {
	var a admissionv1.AdmissionReview
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a); err != nil {
		return nil, err
	}
	switch {
	case a.APIVersion != "admission.k8s.io/v1" || a.Kind != "AdmissionReview" || a.Response == nil || a.Response.UID == "":
		return nil, errors.New("want an AdmissionReview of v1 with a response that has a uid")
	case !a.Response.Allowed && (a.Response.Result == nil || a.Response.Result.Message == "" || a.Response.Result.Code < 400):
		return nil, errors.New("a denial has a status with a message and a code of 400 or more")
	case len(a.Response.Warnings) > maxWarnings || len(a.Response.AuditAnnotations) > maxAnnotations+4:
		return nil, errors.New("more than is promised")
	}
	for _, w := range a.Response.Warnings {
		if len(w) > maxWarning {
			return nil, fmt.Errorf("a warning of %d bytes: %s", len(w), w)
		}
	}
	for k, v := range a.Response.AuditAnnotations {
		if len(v) > maxAnnotation || strings.Contains(k, "/") {
			return nil, fmt.Errorf("audit annotation %s of %d bytes", k, len(v))
		}
	}
	return a.Response, nil
}

// review is an AdmissionReview as a test writes it: parts of JSON.
type review map[string]any

func (r review) json(t testing.TB) []byte {
	t.Helper()
	body, err := json.Marshal(map[string]any{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": r})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// with is the review with some fields changed.
func (r review) with(changes review) review {
	all := make(review)
	for _, m := range []review{r, changes} {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

type m = map[string]any

// kinds are the workloads that are reviewed, by their resource.
var kinds = []struct {
	Resource
	kind string
	wrap func(pod m) m // the spec of an object with that pod
}{
	{Resource{"", "v1", "pods"}, "Pod", func(pod m) m { return pod }},
	{Resource{"", "v1", "replicationcontrollers"}, "ReplicationController", templated},
	{Resource{"apps", "v1", "deployments"}, "Deployment", templated},
	{Resource{"apps", "v1", "replicasets"}, "ReplicaSet", templated},
	{Resource{"apps", "v1", "statefulsets"}, "StatefulSet", templated},
	{Resource{"apps", "v1", "daemonsets"}, "DaemonSet", templated},
	{Resource{"batch", "v1", "jobs"}, "Job", templated},
	{Resource{"batch", "v1", "cronjobs"}, "CronJob", func(pod m) m { return m{"schedule": "@daily", "jobTemplate": m{"spec": templated(pod)}} }},
}

func templated(pod m) m {
	return m{"replicas": 0, "template": m{"metadata": m{"labels": m{"app": "cart"}}, "spec": pod}}
}

// anObject is an object of a kind in namespace shop.
func anObject(kind string, pod m) m {
	for _, k := range kinds {
		if k.kind == kind {
			gv := strings.TrimPrefix(k.Group+"/"+k.Version, "/")
			return m{"apiVersion": gv, "kind": kind, "metadata": m{"name": "cart", "namespace": "shop", "uid": "0b1c"}, "spec": k.wrap(pod)}
		}
	}
	panic(kind)
}

// aReview is a review of an object of a kind in namespace shop.
func aReview(operation, kind string, pod m) review {
	for _, k := range kinds {
		if k.kind == kind {
			return review{
				"uid": "705ab4f5", "operation": operation, "namespace": "shop", "name": "cart",
				"kind":     m{"group": k.Group, "version": k.Version, "kind": kind},
				"resource": m{"group": k.Group, "version": k.Version, "resource": k.Resource.Resource},
				"userInfo": m{"username": "alice", "uid": "u-1", "groups": []string{"devs"}, "extra": m{"scopes": []string{"a"}}},
				"object":   anObject(kind, pod), "oldObject": nil, "dryRun": false,
				"options": m{"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
			}
		}
	}
	panic(kind)
}

// podOf is a pod with one container an image.
func podOf(images ...string) m {
	var list []m
	for i, name := range images {
		list = append(list, m{"name": fmt.Sprint("c", i), "image": name, "imagePullPolicy": "IfNotPresent"})
	}
	return m{"containers": list}
}

func wantDenied(t *testing.T, resp *admissionv1.AdmissionResponse, parts ...string) {
	t.Helper()
	if resp.Allowed || resp.Result.Code != http.StatusForbidden {
		t.Fatalf("want it denied: %+v", resp)
	}
	if len(resp.Result.Message) > verifier.MaxMessage {
		t.Errorf("a message of %d bytes", len(resp.Result.Message))
	}
	for _, p := range parts {
		if !strings.Contains(resp.Result.Message, p) {
			t.Errorf("message %q, want %q in it", resp.Result.Message, p)
		}
	}
}

func wantAllowed(t *testing.T, resp *admissionv1.AdmissionResponse) {
	t.Helper()
	if !resp.Allowed {
		t.Fatalf("denied: %s", resp.Result.Message)
	}
}
