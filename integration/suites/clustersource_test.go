package suites

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/integration/harness"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/source/cluster"
	"github.com/horkos/horkos/verifier/source/web/webtest"
)

const (
	definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	roles       = "/apis/rbac.authorization.k8s.io/v1"
)

// clusterSource is the source `cluster` of a node of a real control plane.
type clusterSource struct {
	t     *testing.T
	ctx   context.Context
	plane *harness.ControlPlane
	dir   string // with the kubelet's files
	node  *apiserver.Server
	asked evidence.Asked
}

func newClusterSource(t *testing.T) *clusterSource {
	t.Helper()
	harness.RequireCluster(t)
	run := harness.New(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	plane, err := run.StartControlPlane(ctx, harness.ControlPlaneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := &clusterSource{t: t, ctx: ctx, plane: plane, dir: t.TempDir()}
	s.node = apiserver.NewServer(apiserver.Options{Kubeconfig: s.dir + "/kubeconfig", Program: "horkos-node", Owned: true}, slog.New(slog.DiscardHandler))
	s.asked = cluster.New(s.node)
	limited, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- s.node.Run(limited, func(ctx context.Context, _ apiserver.Clients) error { <-ctx.Done(); return ctx.Err() })
	}()
	t.Cleanup(func() {
		end()
		<-done
	})
	return s
}

func (s *clusterSource) must(_ harness.Object, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *clusterSource) fetch(id image.Identity) ([]evidence.Attestation, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.asked.Timeout)
	defer cancel()
	return s.asked.Source.Fetch(ctx, evidence.Question{Source: s.asked.Name, Locator: s.asked.Locator, Identity: id})
}

// wants waits until so many attestations are the answer.
func (s *clusterSource) wants(id image.Identity, n int) {
	s.t.Helper()
	if err := harness.Poll(s.ctx, fmt.Sprintf("%d attestations", n), func(context.Context) error {
		if found, err := s.fetch(id); err != nil || len(found) != n {
			return fmt.Errorf("%d attestations, %w", len(found), err)
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
}

// unavailable waits until the source cannot answer, and says that in the answer.
func (s *clusterSource) unavailable(id image.Identity, text string) {
	s.t.Helper()
	if err := harness.Poll(s.ctx, text, func(context.Context) error {
		found, err := s.fetch(id)
		if err == nil || len(found) > 0 || errors.Is(err, evidence.ErrUnusable) || !strings.Contains(err.Error(), text) {
			return fmt.Errorf("%d attestations, %w", len(found), err)
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
}

// define applies the CRD of ImageAttestations.
func (s *clusterSource) define() {
	s.t.Helper()
	text, err := os.ReadFile("../../crds/manifests/horkos.dev_imageattestations.yaml")
	if err != nil {
		s.t.Fatal(err)
	}
	var definition harness.Object
	if err := yaml.Unmarshal(text, &definition); err != nil {
		s.t.Fatal(err)
	}
	s.must(s.plane.Admin.Create(s.ctx, definitions, definition))
}

func (s *clusterSource) attest(id image.Identity, n int) {
	s.t.Helper()
	var object harness.Object
	if err := yaml.Unmarshal(webtest.Object(id, n), &object); err != nil {
		s.t.Fatal(err)
	}
	path := s.asked.Locator + "/" + strings.Replace(string(id.Digest), ":", "-", 1)
	s.must(s.plane.Admin.Apply(s.ctx, path, "test", object))
}

// user is who the API server says the node is.
func (s *clusterSource) user() string {
	s.t.Helper()
	clients, err := s.node.Clients()
	if err != nil {
		s.t.Fatal(err)
	}
	review := &unstructured.Unstructured{Object: harness.Object{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}}
	said, err := clients.Objects.Resource(schema.GroupVersionResource{Group: "authentication.k8s.io", Version: "v1", Resource: "selfsubjectreviews"}).
		Create(s.ctx, review, metav1.CreateOptions{})
	if err != nil {
		return err.Error() // a connection that ends since the certificate was renewed
	}
	return fmt.Sprint(harness.Field(said.Object, "status", "userInfo", "username"))
}

// TestTheSourceOfTheClusterTellsAMissingObjectFromAMissingAnswer: by the words of a real API server.
func TestTheSourceOfTheClusterTellsAMissingObjectFromAMissingAnswer(t *testing.T) {
	s := newClusterSource(t)
	cart := image.Identity{Repository: "registry.example.com/shop/cart", Digest: image.SHA256([]byte("cart"))}
	s.unavailable(cart, "not connected") // no kubeconfig yet
	if _, err := s.plane.NodeKubeconfig(s.dir, "n1"); err != nil {
		t.Fatal(err)
	}
	s.unavailable(cart, "403 Forbidden")
	s.must(s.plane.Admin.Create(s.ctx, roles+"/clusterroles", harness.Object{
		"metadata": harness.Object{"name": "test"},
		"rules":    []any{harness.Object{"apiGroups": []any{"horkos.dev"}, "resources": []any{"imageattestations"}, "verbs": []any{"get"}}},
	}))
	s.must(s.plane.Admin.Create(s.ctx, roles+"/clusterrolebindings", harness.Object{
		"metadata": harness.Object{"name": "test"},
		"roleRef":  harness.Object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "test"},
		"subjects": []any{harness.Object{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}},
	}))
	s.unavailable(cart, "404 Not Found: the kind ImageAttestation is not there")
	s.define()
	s.wants(cart, 0)
	s.attest(cart, 3)
	s.wants(cart, 3)

	// The kubelet renews its certificate: here in another name, which shows that it is used.
	if user := s.user(); user != "system:node:n1" {
		t.Errorf("the node is %s", user)
	}
	if err := s.plane.RenewNode(s.dir, "n2"); err != nil {
		t.Fatal(err)
	}
	clients, err := s.node.Clients()
	if err != nil {
		t.Fatal(err)
	}
	if err := harness.Poll(s.ctx, "the renewed certificate", func(context.Context) error {
		clients.Close() // client-go would see to that within 5 minutes
		if user := s.user(); user != "system:node:n2" {
			return fmt.Errorf("the node is %s", user)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	s.wants(cart, 3)

	if err := s.plane.APIServer.Kill(); err != nil {
		t.Fatal(err)
	}
	s.unavailable(cart, "connection refused")
	if err := s.plane.APIServer.Start(s.ctx); err != nil {
		t.Fatal(err)
	}
	s.wants(cart, 3)

	s.must(s.plane.Admin.Delete(s.ctx, definitions+"/imageattestations.horkos.dev"))
	s.unavailable(cart, "404 Not Found: the kind ImageAttestation is not there")
}
