package suites

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/horkos/horkos/integration/harness"
)

const (
	nodeGates = "/apis/horkos.dev/v1alpha1/nodegates"
	ours      = "/api/v1/namespaces/horkos-system"
)

// caller asks the API server as one user, and looks at refusals too.
type caller struct {
	t      *testing.T
	server string
	client *http.Client
}

func newCaller(t *testing.T, config *rest.Config) *caller {
	t.Helper()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return &caller{t, config.Host, client}
}

// ask returns the status of an answer, its text, and the object in it.
func (c *caller) ask(method, path string, body harness.Object) (int, string, harness.Object) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			c.t.Fatal(err)
		}
	}
	contentType := "application/json"
	if method == "APPLY" {
		method, contentType, path = http.MethodPatch, "application/apply-patch+yaml", path+"?force=true&fieldManager=horkos-node"
	} else if method == http.MethodPatch {
		contentType = "application/merge-patch+json"
	}
	request, err := http.NewRequestWithContext(ctx, method, c.server+path, bytes.NewReader(content))
	if err != nil {
		c.t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	response, err := c.client.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	var object harness.Object
	if err := json.Unmarshal(answer, &object); err != nil {
		c.t.Fatalf("%s %s: %s: %v", method, path, answer, err)
	}
	return response.StatusCode, string(answer), object
}

// rules are what RBAC gives the caller in a namespace: "group/resource[name] verb", sorted.
func (c *caller) rules(namespace string) []string {
	c.t.Helper()
	status, text, review := c.ask(http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", harness.Object{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": harness.Object{"namespace": namespace},
	})
	if status != http.StatusCreated {
		c.t.Fatalf("%d: %s", status, text)
	}
	var all []string
	for _, rule := range list(review, "status", "resourceRules") {
		names := ""
		for _, name := range list(rule, "resourceNames") {
			names += fmt.Sprintf("[%v]", name)
		}
		for _, group := range list(rule, "apiGroups") {
			for _, resource := range list(rule, "resources") {
				for _, verb := range list(rule, "verbs") {
					all = append(all, fmt.Sprintf("%v/%v%s %v", group, resource, names, verb))
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func list(object any, path ...string) []any {
	items, _ := harness.Field(object, path...).([]any)
	return items
}

// grants spells out rules: "resource resource: verb verb", all of a group.
func grants(group string, rules ...string) []string {
	var all []string
	for _, rule := range rules {
		resources, verbs, _ := strings.Cut(rule, ": ")
		for _, resource := range strings.Fields(resources) {
			for _, verb := range strings.Fields(verbs) {
				all = append(all, group+"/"+resource+" "+verb)
			}
		}
	}
	return all
}

const (
	kritisKinds   = "attestationauthorities genericattestationpolicies imagesecuritypolicies admissionallowlists"
	notationKinds = "trustpolicies truststores"
	horkosKinds   = "clusterattestationpolicies imagerevocations"
)

func statuses(kinds string) string {
	return strings.Join(strings.Fields(kinds), "/status ") + "/status"
}

// everyone is what Kubernetes gives whoever is known to it: to ask about himself.
var everyone = slices.Concat(
	grants("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews: create"),
	grants("authentication.k8s.io", "selfsubjectreviews: create"))

// TestEveryOneOfTheClusterMayDoWhatItNeedsAndNoMore applies what users apply to a real API
// server, and asks it as a host's gate, as a pod's and as the controller.
func TestEveryOneOfTheClusterMayDoWhatItNeedsAndNoMore(t *testing.T) {
	harness.RequireCluster(t)
	began := time.Now()
	run := harness.New(t)
	plane, err := run.StartControlPlane(t.Context(), harness.ControlPlaneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	install(t, plane, "daemonset")
	room := harness.Object{"cpu": "1", "memory": "1Gi", "pods": "10"} // nothing runs on them
	for _, node := range []string{"n1", "n2"} {
		must(t)(plane.Admin.Create(t.Context(), "/api/v1/nodes", harness.Object{
			"status":   harness.Object{"capacity": room, "allocatable": room},
			"metadata": harness.Object{"name": node, "labels": harness.Object{"kubernetes.io/os": "linux"}},
		}))
	}
	pod := podOn(t, plane, "n1")
	node1 := callerAs(t, plane, "system:node:n1", "system:nodes")
	awaitGuard(t, plane, node1)
	t.Logf("ready after %v", time.Since(began).Round(time.Millisecond))

	nodeRules := slices.Concat(everyone,
		grants("kritis.grafeas.io", kritisKinds+": list watch"),
		grants("notation.nirmata.io", notationKinds+": list watch"),
		grants("horkos.dev", horkosKinds+": list watch", "imageattestations: get", "nodegates: create patch", "nodegates/status: patch"),
		grants("apiextensions.k8s.io", "customresourcedefinitions: list watch"),
		grants("", "namespaces: list watch"))
	inPod := callerWith(t, plane, "horkos-node", pod)
	for name, node := range map[string]*caller{"the kubelet's certificate": node1, "the token of a pod": inPod} {
		t.Run(name, func(t *testing.T) {
			node := &caller{t, node.server, node.client}
			node.sameRules("horkos-system", nodeRules)
			node.sameRules("default", nodeRules)
			node.reads()
			node.writesItsOwnGateOnly(plane)
		})
	}
	t.Run("a token of no node", func(t *testing.T) {
		stray := callerWith(t, plane, "horkos-node", nil)
		stray.sameRules("default", nodeRules)
		stray.refused("APPLY", nodeGates+"/n1", nodeGate("n1"), "must tell which node it is of")
		stray.refused("APPLY", nodeGates+"/n1/status", nodeGateStatus("n1"), "must tell which node it is of")
		stray.refused(http.MethodPost, nodeGates, nodeGate("n9"), "must tell which node it is of")
	})
	t.Run("a user in system:nodes who is no node", func(t *testing.T) {
		callerAs(t, plane, "mallory", "system:nodes").refused("APPLY", nodeGates+"/n1", nodeGate("n1"), "must tell which node it is of")
	})
	t.Run("a user who is named as a node and is none", func(t *testing.T) {
		callerAs(t, plane, "system:node:n1").refused("APPLY", nodeGates+"/n1", nodeGate("n1"), "cannot patch resource")
	})
	t.Run("the controller", func(t *testing.T) { controllerMay(t, plane) })
	t.Run("who may delete NodeGates by mistake", func(t *testing.T) { mistaken(t, plane, node1) })
}

// sameRules looks whether RBAC gives the caller these rules, and no others.
func (c *caller) sameRules(namespace string, want []string) {
	c.t.Helper()
	got := c.rules(namespace)
	for _, rule := range got {
		if !slices.Contains(want, rule) {
			c.t.Errorf("in %s it may %s, and need not", namespace, rule)
		}
	}
	for _, rule := range want {
		if !slices.Contains(got, rule) {
			c.t.Errorf("in %s it may not %s", namespace, rule)
		}
	}
}

// reads reads what a gate needs, and tries what it does not.
func (c *caller) reads() {
	c.t.Helper()
	for _, path := range []string{
		"/apis/kritis.grafeas.io/v1beta1/attestationauthorities", "/apis/kritis.grafeas.io/v1beta1/genericattestationpolicies",
		"/apis/kritis.grafeas.io/v1beta1/imagesecuritypolicies", "/apis/kritis.grafeas.io/v1beta1/admissionallowlists",
		"/apis/notation.nirmata.io/v1alpha1/trustpolicies", "/apis/notation.nirmata.io/v1alpha1/truststores",
		"/apis/horkos.dev/v1alpha1/clusterattestationpolicies", "/apis/horkos.dev/v1alpha1/imagerevocations",
		"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/api/v1/namespaces",
	} {
		c.does(http.MethodGet, path+"?limit=1", nil)
	}
	missing := "/apis/horkos.dev/v1alpha1/imageattestations/sha256-" + strings.Repeat("0", 64)
	if status, text, _ := c.ask(http.MethodGet, missing, nil); status != http.StatusNotFound {
		c.t.Errorf("an ImageAttestation that is not there: %d: %s", status, text)
	}
	revocation := harness.Object{"apiVersion": "horkos.dev/v1alpha1", "kind": "ImageRevocation", "metadata": harness.Object{"name": "of-a-node"},
		"spec": harness.Object{"digests": []any{"sha256:" + strings.Repeat("0", 64)}}}
	for _, tt := range []struct {
		method, path string
		body         harness.Object
	}{
		{http.MethodGet, "/api/v1/secrets", nil},
		{http.MethodGet, "/api/v1/namespaces/kube-system/secrets", nil},
		{http.MethodGet, ours + "/secrets", nil},
		{http.MethodGet, "/api/v1/pods", nil},
		{http.MethodGet, "/api/v1/configmaps", nil},
		{http.MethodGet, "/apis/horkos.dev/v1alpha1/imageattestations", nil}, // all of them
		{http.MethodGet, nodeGates, nil},
		{http.MethodPost, "/apis/horkos.dev/v1alpha1/imagerevocations", revocation},
		{"APPLY", "/apis/horkos.dev/v1alpha1/imagerevocations/of-a-node", revocation},
		{http.MethodDelete, "/apis/horkos.dev/v1alpha1/imagerevocations", nil},
		{http.MethodDelete, "/apis/kritis.grafeas.io/v1beta1/namespaces/default/genericattestationpolicies/p", nil},
		{http.MethodPatch, "/apis/kritis.grafeas.io/v1beta1/namespaces/default/genericattestationpolicies/p", harness.Object{"spec": nil}},
		{http.MethodPatch, "/apis/kritis.grafeas.io/v1beta1/namespaces/default/genericattestationpolicies/p/status", harness.Object{"status": nil}},
		{http.MethodDelete, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/imagerevocations.horkos.dev", nil},
		{http.MethodPost, ours + "/serviceaccounts/horkos-controller/token", harness.Object{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": harness.Object{}}},
	} {
		c.refused(tt.method, tt.path, tt.body, "")
	}
}

// writesItsOwnGateOnly tries to write the NodeGate of n1, whose node the caller is of, and
// that of n2.
func (c *caller) writesItsOwnGateOnly(plane *harness.ControlPlane) {
	c.t.Helper()
	c.does("APPLY", nodeGates+"/n1", nodeGate("n1"))
	c.does("APPLY", nodeGates+"/n1/status", nodeGateStatus("n1"))
	c.refused(http.MethodGet, nodeGates+"/n1", nil, "")
	kept := nodeGate("n1")
	kept["metadata"] = harness.Object{"name": "n1", "finalizers": []string{"example.com/never"}}
	c.refused("APPLY", nodeGates+"/n1", kept, "no finalizers")
	kept["metadata"] = harness.Object{"name": "n1", "annotations": harness.Object{"a": "b"}}
	c.refused("APPLY", nodeGates+"/n1", kept, "no finalizers, owners or annotations")
	made := nodeGate("")
	made["metadata"] = harness.Object{"generateName": "n1"}
	const why = "may write the NodeGate of its own name only"
	c.refused(http.MethodPost, nodeGates, made, why)
	c.refused(http.MethodPost, nodeGates, nodeGate("n2"), "node n1 "+why+", not n2")
	c.refused("APPLY", nodeGates+"/n2", nodeGate("n2"), "node n1 "+why+", not n2")
	must(c.t)(plane.Admin.Apply(c.t.Context(), nodeGates+"/n2", "test", nodeGate("n2")))
	before := must(c.t)(plane.Admin.Apply(c.t.Context(), nodeGates+"/n2/status", "test", nodeGateStatus("n2")))
	c.refused("APPLY", nodeGates+"/n2", nodeGate("n2"), why)
	c.refused("APPLY", nodeGates+"/n2/status", nodeGateStatus("n2"), why)
	c.refused(http.MethodPatch, nodeGates+"/n2", harness.Object{"metadata": harness.Object{"labels": harness.Object{"of": "n1"}}}, why)
	c.refused(http.MethodPatch, nodeGates+"/n2/status", harness.Object{"status": harness.Object{"mode": "enforce"}}, why)
	c.refused(http.MethodDelete, nodeGates+"/n2", nil, "")
	c.refused(http.MethodDelete, nodeGates+"/n1", nil, "")
	c.refused(http.MethodDelete, nodeGates, nil, "")
	c.refused(http.MethodPut, nodeGates+"/n1", nodeGate("n1"), "")
	after := must(c.t)(plane.Admin.Get(c.t.Context(), nodeGates+"/n2"))
	if was, is := harness.Field(before, "metadata", "resourceVersion"), harness.Field(after, "metadata", "resourceVersion"); was != is {
		c.t.Errorf("NodeGate n2 was changed: %v, %v", was, is)
	}
	must(c.t)(plane.Admin.Delete(c.t.Context(), nodeGates+"/n2"))
}

// controllerMay looks at what the controller may do, and not.
func controllerMay(t *testing.T, plane *harness.ControlPlane) {
	controller := callerWith(t, plane, "horkos-controller", nil)
	rules := slices.Concat(everyone,
		grants("kritis.grafeas.io", kritisKinds+": list watch", statuses(kritisKinds)+": patch"),
		grants("notation.nirmata.io", notationKinds+": list watch", statuses(notationKinds)+": patch"),
		grants("horkos.dev", horkosKinds+": list watch", statuses(horkosKinds)+": patch", "nodegates: list watch delete"),
		grants("", "nodes: list watch"),
		grants("events.k8s.io", "events: create"))
	controller.sameRules("default", rules)
	controller.sameRules("horkos-system", slices.Concat(rules,
		grants("coordination.k8s.io", "leases[horkos-controller]: get update", "leases: create")))
	controller.does(http.MethodGet, nodeGates, nil)
	controller.does(http.MethodDelete, nodeGates+"/n1", nil)
	controller.refused("APPLY", nodeGates+"/n1", nodeGate("n1"), "")
	controller.refused(http.MethodPatch, "/apis/kritis.grafeas.io/v1beta1/namespaces/default/genericattestationpolicies/p", harness.Object{"spec": nil}, "")
	controller.refused(http.MethodGet, "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", nil, "")
}

// mistaken gives all nodes every right, as a careless administrator might.
func mistaken(t *testing.T, plane *harness.ControlPlane, node *caller) {
	const bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
	must(t)(plane.Admin.Create(t.Context(), bindings, harness.Object{
		"metadata": harness.Object{"name": "careless"},
		"roleRef":  harness.Object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
		"subjects": []any{harness.Object{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}},
	}))
	for _, name := range []string{"n1", "n2"} {
		must(t)(plane.Admin.Apply(t.Context(), nodeGates+"/"+name, "test", nodeGate(name)))
	}
	node = &caller{t, node.server, node.client}
	if err := harness.Poll(t.Context(), "the binding to be in force", func(context.Context) error {
		if status, text, _ := node.ask(http.MethodGet, nodeGates, nil); status != http.StatusOK {
			return fmt.Errorf("%d: %s", status, text)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	node.refused(http.MethodDelete, nodeGates+"/n1", nil, "does not delete NodeGates")
	node.refused(http.MethodDelete, nodeGates+"/n2", nil, "own name only")
	node.refused(http.MethodDelete, nodeGates, nil, "own name only, not others")
	for _, name := range []string{"n1", "n2"} {
		must(t)(plane.Admin.Get(t.Context(), nodeGates+"/"+name))
	}
}

func nodeGate(name string) harness.Object {
	return harness.Object{"apiVersion": "horkos.dev/v1alpha1", "kind": "NodeGate", "metadata": harness.Object{"name": name}}
}

func nodeGateStatus(name string) harness.Object {
	g := nodeGate(name)
	g["status"] = harness.Object{"mode": "audit", "version": "test", "ready": false}
	return g
}

// does looks whether the API server lets the caller do something.
func (c *caller) does(method, path string, body harness.Object) {
	c.t.Helper()
	if status, text, _ := c.ask(method, path, body); status >= 300 {
		c.t.Errorf("%s %s: %d: %s", method, path, status, text)
	}
}

// refused looks whether the API server forbids the caller something, for the reason.
func (c *caller) refused(method, path string, body harness.Object, why string) {
	c.t.Helper()
	status, text, _ := c.ask(method, path, body)
	if status != http.StatusForbidden || !strings.Contains(text, why) {
		c.t.Errorf("%s %s: %d: %s; want 403: %s", method, path, status, text, why)
	}
}

// callerAs is a caller with a certificate for the user, in the groups.
func callerAs(t *testing.T, plane *harness.ControlPlane, user string, groups ...string) *caller {
	t.Helper()
	kubeconfig, err := plane.Kubeconfig(user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	return newCaller(t, config)
}

// callerWith is a caller with a token of a service account, made for the pod unless it is nil.
func callerWith(t *testing.T, plane *harness.ControlPlane, account string, pod harness.Object) *caller {
	t.Helper()
	spec := harness.Object{"expirationSeconds": 3600}
	if pod != nil {
		spec["boundObjectRef"] = harness.Object{"apiVersion": "v1", "kind": "Pod",
			"name": harness.Field(pod, "metadata", "name"), "uid": harness.Field(pod, "metadata", "uid")}
	}
	answer := must(t)(plane.Admin.Create(t.Context(), ours+"/serviceaccounts/"+account+"/token", harness.Object{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec,
	}))
	token, _ := harness.Field(answer, "status", "token").(string)
	return newCaller(t, &rest.Config{Host: plane.Server, BearerToken: token,
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(plane.Dir, "ca.crt")}})
}

// install applies a folder of manifests as users do.
func install(t *testing.T, plane *harness.ControlPlane, folder string) {
	t.Helper()
	if _, _, err := plane.Kubectl(t.Context(), "apply", "-k", folder); err != nil {
		t.Fatal(err)
	}
	if _, _, err := plane.Kubectl(t.Context(), "wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"); err != nil {
		t.Fatal(err)
	}
}

// podOn waits for the DaemonSet's pod on a node, which nothing runs.
func podOn(t *testing.T, plane *harness.ControlPlane, node string) harness.Object {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var found harness.Object
	if err := harness.Poll(ctx, "a pod on "+node, func(ctx context.Context) error {
		pods, err := plane.Admin.Get(ctx, ours+"/pods?labelSelector=app.kubernetes.io/name%3Dhorkos-node")
		if err != nil {
			return err
		}
		for _, item := range list(pods, "items") {
			if harness.Field(item, "spec", "nodeName") == node {
				found = item.(harness.Object)
				return nil
			}
		}
		return fmt.Errorf("not among %d", len(list(pods, "items")))
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

// awaitGuard waits until the API server has read the ValidatingAdmissionPolicy, and node n1
// may not write the NodeGate of another.
func awaitGuard(t *testing.T, plane *harness.ControlPlane, node *caller) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := harness.Poll(ctx, "the policy on NodeGates to be in force", func(ctx context.Context) error {
		status, text, _ := node.ask("APPLY", nodeGates+"/early", nodeGate("early"))
		if status == http.StatusForbidden && strings.Contains(text, "own name only") {
			return nil
		}
		return fmt.Errorf("%d: %s", status, text)
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := plane.Admin.Delete(t.Context(), nodeGates+"/early"); err != nil && !harness.IsReason(err, "NotFound") {
		t.Fatal(err)
	}
}

// must ends the test when what it is given failed.
func must(t *testing.T) func(harness.Object, error) harness.Object {
	return func(object harness.Object, err error) harness.Object {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return object
	}
}
