package suites

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/flowcontrol"
	"sigs.k8s.io/yaml"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/integration/harness"
	"github.com/horkos/horkos/objects"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/cases"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	policies "github.com/horkos/horkos/verifier/policy"
	"github.com/horkos/horkos/verifier/source/cluster"
)

// tabled is an API server to which the objects of cases are applied, and read back from as
// a node reads them.
type tabled struct {
	ctx     context.Context
	clients apiserver.Clients
	plurals map[string]schema.GroupVersionResource // by kind
	webhook *asked
}

// TestEveryCaseOfTheTableIsDecidedFromObjectsOfAClusterAsItSays: what a case has in its
// folder is in a cluster, attestations too, and the answer is the same: that of a node, and
// that of a webhook, where names as written are enough to decide. What the API server refuses
// to store cannot be decided by.
func TestEveryCaseOfTheTableIsDecidedFromObjectsOfAClusterAsItSays(t *testing.T) {
	harness.RequireCluster(t)
	t.Setenv("KUBE_FEATURE_WatchListClient", "false") // a list that is streamed takes half a second
	run := harness.New(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	plane, err := run.StartControlPlane(ctx, harness.ControlPlaneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Who deletes namespaces would be deleting still when the next case makes them again.
	if err := plane.ControllerManager.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"apply", "-k", "crds/manifests"}, {"apply", "-f", "daemonset/namespace.yaml", "-f", "daemonset/webhook/rbac.yaml"},
		{"wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"}} {
		if _, _, err := plane.Kubectl(ctx, args...); err != nil {
			t.Fatal(err)
		}
	}
	config, err := apiserver.Config(plane.AdminKubeconfig, "test")
	if err != nil {
		t.Fatal(err)
	}
	config.RateLimiter = flowcontrol.NewFakeAlwaysRateLimiter()
	clients, err := apiserver.Connect(config)
	if err != nil {
		t.Fatal(err)
	}
	defer clients.Close()
	kubeconfig, err := plane.WriteKubeconfig("webhook", "system:serviceaccount:horkos-system:horkos-webhook", "system:serviceaccounts", "system:authenticated")
	if err != nil {
		t.Fatal(err)
	}
	w := &tabled{ctx, clients, make(map[string]schema.GroupVersionResource), newAsked(t, kubeconfig)}
	list, err := clients.Objects.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list.Items {
		text := func(path ...string) string { s, _, _ := unstructured.NestedString(d.Object, path...); return s }
		versions, _, _ := unstructured.NestedSlice(d.Object, "spec", "versions")
		w.plurals[text("spec", "names", "kind")] = schema.GroupVersionResource{Group: text("spec", "group"),
			Version: versions[0].(map[string]any)["name"].(string), Resource: text("spec", "names", "plural")}
	}
	w.plurals[crds.KindNamespace] = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}

	table, err := cases.Load("../../verifier/testdata/cases", nil)
	if err != nil {
		t.Fatal(err)
	}
	ran, refused := 0, 0
	for _, c := range table {
		if len(c.Cluster) > 0 || !c.Request.At.IsZero() {
			continue // of two origins, or of a time that is not now
		}
		t.Run(c.Name, func(t *testing.T) {
			switch why := w.decide(t, c); {
			case errors.Is(why, errStored):
				refused++ // that each is malformed is for TestCRDs
				t.Logf("not stored: %v", why)
			case why != nil:
				t.Logf("not for a cluster: %v", why)
			default:
				ran++
			}
		})
	}
	t.Logf("%d cases ran, of %d the API server refused the objects", ran, refused)
	if ran < 200 {
		t.Errorf("%d cases ran, want 200 at least", ran)
	}
	w.webhook.told(t, ran, 200)
}

// errStored is in the chain of the error about what the API server does not store.
var errStored = errors.New("the API server refuses it")

// decide applies the objects of a case and decides by what a node would have of them, and
// asks a webhook. The error says why the case cannot be of a cluster.
func (w *tabled) decide(t *testing.T, c cases.Case) error {
	at := time.Now()
	manifests, err := c.Manifests(at)
	if err != nil {
		t.Fatal(err)
	}
	defer w.empty(t)
	declared := make(map[string]bool) // namespaces
	for _, text := range strings.Split("\n"+string(manifests), "\n---") {
		o := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict([]byte(text), &o.Object); err != nil {
			return errors.New("an object does not parse, or has a field twice")
		}
		if len(o.Object) == 0 {
			continue
		}
		resource, known := w.plurals[o.GetKind()]
		if !known || resource.GroupVersion().String() != o.GetAPIVersion() {
			return errors.New("kind " + o.GetKind() + " is not of a cluster")
		}
		if err := w.create(resource, o); err != nil {
			return err
		}
		if o.GetKind() == crds.KindNamespace {
			if declared[o.GetName()] {
				return errors.New("two objects have one name")
			}
			declared[o.GetName()] = true
		}
	}
	ask := func() {}
	if why := w.notForAWebhook(c, manifests, declared); why != "" {
		w.webhook.left[why]++
	} else {
		ask = w.webhook.start(t, &c)
	}
	defer ask() // it starts meanwhile
	w.node(t, c, at, declared)
	return nil
}

// notForAWebhook says why a case cannot be asked of a webhook.
func (w *tabled) notForAWebhook(c cases.Case, manifests []byte, declared map[string]bool) string {
	if why := c.OnlyOnANode(manifests); why != "" {
		return why
	}
	if ns := c.Request.Namespace; !declared[ns] && bytes.Contains(manifests, []byte("namespaceSelector")) {
		if _, err := w.clients.Metadata.Resource(w.plurals[crds.KindNamespace]).Get(w.ctx, ns, metav1.GetOptions{}); err == nil {
			return "a namespace that nothing is known of"
		}
	}
	return ""
}

// node decides by what a node would have of the objects of a case.
func (w *tabled) node(t *testing.T, c cases.Case, at time.Time, declared map[string]bool) {
	set := w.followed(t)
	// The namespaces of other objects are there too, and some are always.
	set.Objects = slices.DeleteFunc(slices.Clone(set.Objects), func(o crds.Object) bool {
		return o.Kind == crds.KindNamespace && !declared[o.Name]
	})
	req, err := c.Bound(at)
	if err != nil {
		t.Fatal(err)
	}
	asked := cluster.New(getter{w.clients})
	records := make(evidence.Records)
	for _, i := range req.Images {
		for _, candidate := range i.Candidates {
			for _, d := range candidate.Digests {
				id := image.Identity{Repository: candidate.Repository, Digest: d}
				if records[id], err = asked.Source.Fetch(w.ctx, evidence.Question{Source: asked.Name, Locator: asked.Locator, Identity: id}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	memory := evidence.NewMemory()
	memory.Replace(asked.Name, records)
	d := verifier.Decider{Default: verifier.DefaultAction(c.Request.DefaultAction == "allow"), Sources: []evidence.Question{{Source: asked.Name}}}
	dec, err := d.Verify(w.ctx, req, policies.Compile(set), memory)
	if err != nil {
		t.Fatal(err)
	}
	if dec.Result != c.Want.Result || dec.Reason != c.Want.Reason {
		t.Errorf("got %s %s, want %s %s\n%s", dec.Result, dec.Reason, c.Want.Result, c.Want.Reason, dec.Message())
	}
}

// getter is the clients as a cluster's source asks them.
type getter struct{ apiserver.Clients }

func (w *tabled) create(resource schema.GroupVersionResource, o *unstructured.Unstructured) error {
	if o.GetNamespace() == "" && namespaced[o.GetKind()] {
		o.SetNamespace("default")
	}
	if ns := o.GetNamespace(); ns != "" {
		n := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": ns}}}
		if _, err := w.clients.Objects.Resource(w.plurals[crds.KindNamespace]).Create(w.ctx, n, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return errors.Join(errStored, err)
		}
	}
	if resource.Resource == "namespaces" { // it may be there already
		options := metav1.ApplyOptions{FieldManager: "test", Force: true}
		_, err := w.clients.Objects.Resource(resource).Apply(w.ctx, o.GetName(), o, options)
		return err
	}
	_, err := w.clients.Objects.Resource(resource).Namespace(o.GetNamespace()).Create(w.ctx, o, metav1.CreateOptions{FieldValidation: metav1.FieldValidationIgnore})
	switch {
	case apierrors.IsAlreadyExists(err):
		return errors.New("two objects have one name")
	case err != nil:
		return errors.Join(errStored, err)
	}
	return nil
}

// namespaced are the kinds that are in a namespace.
var namespaced = map[string]bool{"AttestationAuthority": true, "GenericAttestationPolicy": true, "ImageSecurityPolicy": true, "VulnzSigningPolicy": true, "BuildPolicy": true}

// followed is what a node that sees the cluster for the first time has in force.
func (w *tabled) followed(t *testing.T) crds.Set {
	t.Helper()
	follower, _, err := objects.OpenCluster(objects.ClusterOptions{StateDir: t.TempDir(), Node: "n", MaximumAge: time.Hour, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second)
	defer cancel()
	done := make(chan crds.Set, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = follower.Follow(ctx, w.clients)
	}()
	_ = follower.Run(ctx, func(set crds.Set) {
		if set.Unknown == nil {
			select {
			case done <- set:
			default:
			}
			cancel()
		}
	})
	<-ended
	select {
	case set := <-done:
		return set
	default:
		t.Fatalf("the cluster was not known: %+v", follower.Status())
		return crds.Set{}
	}
}

// lasting are namespaces that nobody can delete.
var lasting = map[string]bool{"default": true, "kube-system": true, "kube-public": true, "kube-node-lease": true, "horkos-system": true}

// empty removes everything that a case has applied.
func (w *tabled) empty(t *testing.T) {
	for kind, resource := range w.plurals {
		if kind == crds.KindNamespace {
			continue
		}
		list, err := w.clients.Metadata.Resource(resource).List(w.ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list.Items {
			if err := w.clients.Metadata.Resource(resource).Namespace(o.Namespace).Delete(w.ctx, o.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.emptyNamespaces(); err != nil {
		t.Fatal(err)
	}
}

// emptyNamespaces removes the namespaces that a case has made, and what it has said of others.
func (w *tabled) emptyNamespaces() error {
	namespaces := w.clients.Objects.Resource(w.plurals[crds.KindNamespace])
	list, err := namespaces.List(w.ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, o := range list.Items {
		bare := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": o.GetName()}}}
		if lasting[o.GetName()] {
			if _, err := namespaces.Apply(w.ctx, o.GetName(), bare, metav1.ApplyOptions{FieldManager: "test", Force: true}); err != nil {
				return err
			}
			continue
		}
		if err := namespaces.Delete(w.ctx, o.GetName(), metav1.DeleteOptions{}); err != nil {
			return err
		}
		if _, err := namespaces.Update(w.ctx, bare, metav1.UpdateOptions{}, "finalize"); err != nil {
			return err
		}
	}
	return nil
}
