package breakglass

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/audit"
	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
	"github.com/horkos/horkos/webhook/admission"
)

const revoked = "sha256:b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2"

// deciding is the verifier of a cluster that denies by default, and where one digest is revoked.
type deciding struct{ snap *policy.Snapshot }

func (d deciding) Verify(_ context.Context, req *verifier.Request) (verifier.Decision, error) {
	return (&verifier.Decider{}).Decide(req, d.snap, evidence.NewMemory()), nil
}

// door is the webhook's gate with the judge, real but for who has rights.
type door struct {
	t       *testing.T
	handler http.Handler
	path    string
	records *audit.Log
	events  []admission.Event
	created int
}

func (d *door) Tell(e admission.Event) { d.events = append(d.events, e) }

func newDoor(t *testing.T, may ...string) *door {
	t.Helper()
	objects, err := crds.Decode([]byte("apiVersion: horkos.dev/v1alpha1\nkind: ImageRevocation\nmetadata: {name: cve}\nspec: {digests: ["+revoked+"], reason: CVE-2026-0001}\n"), "cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return noon }
	d := &door{t: t, path: filepath.Join(t.TempDir(), "audit.log")}
	if d.records, err = audit.Open(audit.Options{Path: d.path, Node: "webhook-1", Now: now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.records.Close() })
	r := &rights{may: make(map[string]bool)}
	for _, name := range may {
		r.may[name] = true
	}
	d.handler = admission.New(admission.Options{
		Verifier: deciding{policy.Compile(crds.Set{Origin: crds.Cluster, Objects: objects})}, Events: d,
		Shell:      gate.Shell{Records: d.records, Log: slog.New(slog.DiscardHandler), Now: now},
		Breakglass: NewJudge(fixedKey{}, r, now).Judge,
	})
	return d
}

// create asks for a pod in namespace shop, with the annotation, and gives the message of a denial.
func (d *door) create(user, annotation string, images ...string) (message string, allowed bool) {
	d.t.Helper()
	return d.review("CREATE", user, d.podOf(annotation, images...), nil)
}

// podOf is a pod with an annotation; empty: without it.
func (d *door) podOf(annotation string, images ...string) map[string]any {
	d.created++
	annotations := make(map[string]string)
	if annotation != "" {
		annotations[Annotation] = annotation
	}
	var containers []map[string]string
	for _, name := range images {
		containers = append(containers, map[string]string{"name": "c", "image": name})
	}
	return map[string]any{"apiVersion": "v1", "kind": "Pod", "spec": map[string]any{"containers": containers},
		"metadata": map[string]any{"name": "cart", "uid": fmt.Sprint(d.created), "annotations": annotations}}
}

func (d *door) review(operation, user string, object, old map[string]any) (message string, allowed bool) {
	d.t.Helper()
	body, err := json.Marshal(map[string]any{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": map[string]any{
		"uid": "u-1", "operation": operation, "namespace": "shop", "name": "cart", "userInfo": map[string]any{"username": user},
		"kind": map[string]string{"version": "v1", "kind": "Pod"}, "resource": map[string]string{"version": "v1", "resource": "pods"},
		"object": object, "oldObject": old,
	}})
	if err != nil {
		d.t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/?timeout=10s", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, r)
	var answer struct {
		Response struct {
			Allowed bool
			Status  struct{ Message string }
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK {
		d.t.Fatalf("HTTP %d: %s, %v", w.Code, w.Body, err)
	}
	return answer.Response.Status.Message, answer.Response.Allowed
}

// written are the lines of the audit log.
func (d *door) written() []string {
	d.t.Helper()
	data, err := os.ReadFile(d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	return strings.Split(strings.Trim(string(data), "\n\x00"), "\n")
}

func TestTheRecordAndTheEventSayWhoBrokeTheGlassAndWhy(t *testing.T) {
	for name, tt := range map[string]struct{ user, annotation, want string }{
		"by right":   {"alice", "INC-7: roll back", "by alice: INC-7: roll back; without it: NoPolicy"},
		"by a token": {"system:serviceaccount:kube-system:job-controller", minted(t, aToken()), "by system:serviceaccount:kube-system:job-controller: token until 2026-11-21T12:30:00Z: INC-7; without it: NoPolicy"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t, "alice")
			if message, ok := d.create(tt.user, tt.annotation, cart); !ok {
				t.Fatal(message)
			}
			lines := d.written()
			var r audit.Record
			if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
				t.Fatal(err)
			}
			if r.Reason != verifier.Breakglass || !r.Admitted || r.Result != verifier.Allowed || r.Message != "image "+cart+" is let through by breakglass: "+tt.want ||
				len(r.Checks) != 1 || r.Checks[0].Detail != tt.want {
				t.Errorf("record %+v", r)
			}
			who, _, _ := strings.Cut(tt.want, ";")
			if len(d.events) != 1 || d.events[0].Reason != admission.BreakglassAdmission || d.events[0].User != tt.user ||
				!strings.HasPrefix(d.events[0].Message, "breakglass "+who+". Without it: image "+cart+" is refused: ") {
				t.Errorf("events %+v", d.events)
			}
			if all := fmt.Sprint(lines, d.events); strings.Contains(all, aTokenText(t)) {
				t.Errorf("the token is told: %s", all)
			}
		})
	}
}

func aTokenText(t *testing.T) string { return strings.TrimPrefix(minted(t, aToken()), prefix) }

func TestWhoIsRefusedBreakglassIsToldInTheMessageAndTheRecord(t *testing.T) {
	d := newDoor(t, "alice")
	const asked = "; breakglass was asked for and refused: "
	for user, want := range map[string]string{
		"bob":                      asked + "user bob may not breakglass clusterattestationpolicies.horkos.dev; ask who may, or for a token: horkos breakglass. Add a policy",
		"system:serviceaccount:a:": asked + "user system:serviceaccount:a: is a service account and needs a token: horkos breakglass. Add a policy",
	} {
		message, ok := d.create(user, "INC-7", cart)
		lines := d.written()
		if ok || !strings.Contains(message, want) || !strings.Contains(lines[len(lines)-1], want) {
			t.Errorf("%s: %q, recorded %s", user, message, lines[len(lines)-1])
		}
	}
	elsewhere := aToken()
	elsewhere.Namespace = "payments"
	text := minted(t, elsewhere)
	message, ok := d.create("system:serviceaccount:kube-system:replicaset-controller", text, cart)
	if ok || !strings.Contains(message, "the token is for namespace payments") {
		t.Errorf("message %q", message)
	}
	if all := message + fmt.Sprint(d.written(), d.events); strings.Contains(all, strings.TrimPrefix(text, prefix)) {
		t.Errorf("the token is told: %s", all)
	}
	if message, _ := d.create("bob", "false", cart); strings.Contains(message, "breakglass") {
		t.Errorf("nobody asked: %q", message)
	}
}

func TestARevokedImageIsNotLetThroughByBreakglassNorWhatComesWithIt(t *testing.T) {
	token := aToken()
	token.Images = []string{cart, revoked}
	d := newDoor(t, "alice")
	bad := "registry.example.com/shop/cart@" + revoked
	for name, annotation := range map[string]string{"by right": "INC-7", "by a token": minted(t, token)} {
		for _, images := range [][]string{{bad}, {cart, bad}, {bad, cart}} {
			message, ok := d.create("alice", annotation, images...)
			if ok || !strings.Contains(message, "breakglass was asked for and refused: user alice cannot let through what is revoked: image "+bad) {
				t.Errorf("%s, %q: %t, %q", name, images, ok, message)
			}
		}
		if message, ok := d.create("alice", annotation, cart); !ok {
			t.Errorf("%s, nothing revoked: %s", name, message)
		}
	}
	if message, ok := d.create("alice", "INC-7", cart, "Not/A/Name"); ok || !strings.Contains(message, "user alice cannot let through what may be revoked (ImageUnbound): image Not/A/Name") {
		t.Errorf("%t, %q", ok, message)
	}
}

func TestNobodysRightIsBorrowedByTheAuthorOfAPod(t *testing.T) {
	d := newDoor(t, "alice")
	const other = "registry.example.com/shop/cart:1"
	for name, tt := range map[string]struct {
		was, is string
		want    bool
	}{
		"a reason that was there before":           {"true", "true", false},
		"a token that does not count, from before": {prefix + "x", prefix + "x", false},
		"a reason that comes with the image":       {"", "INC-7", true},
		"another reason in place of the author's":  {"true", "INC-7", true},
		"a token that was there before":            {minted(t, aToken()), minted(t, aToken()), true},
	} {
		message, ok := d.review("UPDATE", "alice", d.podOf(tt.is, cart), d.podOf(tt.was, other))
		if ok != tt.want || (!ok && !strings.Contains(message, "user alice did not write the annotation in this request")) {
			t.Errorf("%s: %t, %q", name, ok, message)
		}
	}
	if _, ok := d.review("UPDATE", "alice", d.podOf("INC-7", cart), nil); ok {
		t.Error("a reason of which nobody knows whether it was there before")
	}
}

func TestBreakglassThatCannotBeRecordedIsADenial(t *testing.T) {
	d := newDoor(t, "alice")
	if err := d.records.Close(); err != nil {
		t.Fatal(err)
	}
	if message, ok := d.create("alice", "INC-7", cart); ok || !strings.Contains(message, "could not be recorded") {
		t.Errorf("%t, %q", ok, message)
	}
}
