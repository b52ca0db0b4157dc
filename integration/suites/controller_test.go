package suites

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/horkos/horkos/integration/harness"
)

// promptly is how long the controller may take to tell what changed.
const promptly = 2 * time.Second

// nodeGrace is how long the NodeGate of a node that is gone stays in these tests.
const nodeGrace = 2 * time.Second

// reporter is who the controller is in a cluster.
const reporter = "system:serviceaccount:horkos-system:horkos-controller"

// office is a control plane with the CRDs, and what the controller may do in it.
type office struct {
	*testing.T
	ctx        context.Context
	run        *harness.Run
	control    *harness.ControlPlane
	admin      *harness.API
	kubeconfig string // of the controller
	replicas   int
}

func newOffice(t *testing.T) *office {
	t.Helper()
	harness.RequireCluster(t)
	o := &office{T: t, run: harness.New(t)}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	o.ctx = ctx
	var err error
	if o.control, err = o.run.StartControlPlane(ctx, harness.ControlPlaneOptions{}); err != nil {
		t.Fatal(err)
	}
	o.admin = o.control.Admin
	o.kubeconfig = o.write("reporter.kubeconfig", reporter, "system:serviceaccounts", "system:serviceaccounts:horkos-system")
	for _, file := range []string{"daemonset/namespace.yaml", "daemonset/controller-rbac.yaml"} {
		o.applyFile(filepath.Join("..", "..", file))
	}
	files, err := filepath.Glob("../../crds/manifests/*_*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no CRDs: %v", err)
	}
	for _, file := range files {
		o.applyFile(file)
	}
	o.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: shop}}`)
	for _, kind := range []string{"/apis/kritis.grafeas.io/v1beta1/attestationauthorities", "/apis/horkos.dev/v1alpha1/nodegates", "/apis/notation.nirmata.io/v1alpha1/trustpolicies"} {
		o.eventually(kind+" is served", patience, func() error {
			_, err := o.admin.Get(o.ctx, kind)
			return err
		})
	}
	return o
}

// sub runs a subtest.
func (o *office) sub(name string, test func(t *testing.T, o *office)) {
	o.Run(name, func(t *testing.T) {
		before := o.T
		o.T = t
		defer func() { o.T = before }()
		test(t, o)
	})
}

func (o *office) write(name, user string, groups ...string) string {
	o.Helper()
	content, err := o.control.Kubeconfig(user, groups...)
	if err != nil {
		o.Fatal(err)
	}
	path := filepath.Join(o.run.Dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		o.Fatal(err)
	}
	return path
}

func (o *office) applyFile(path string) {
	o.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		o.Fatal(err)
	}
	o.apply(string(text))
}

// places are the collections of the kinds that tests apply; namespaced ones have a gap.
var places = map[string]string{
	"Namespace":                "/api/v1/namespaces",
	"Node":                     "/api/v1/nodes",
	"ServiceAccount":           "/api/v1/namespaces/%s/serviceaccounts",
	"ClusterRole":              "/apis/rbac.authorization.k8s.io/v1/clusterroles",
	"ClusterRoleBinding":       "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
	"Role":                     "/apis/rbac.authorization.k8s.io/v1/namespaces/%s/roles",
	"RoleBinding":              "/apis/rbac.authorization.k8s.io/v1/namespaces/%s/rolebindings",
	"CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
	"AttestationAuthority":     "/apis/kritis.grafeas.io/v1beta1/namespaces/%s/attestationauthorities",
	"GenericAttestationPolicy": "/apis/kritis.grafeas.io/v1beta1/namespaces/%s/genericattestationpolicies",
	"AdmissionAllowlist":       "/apis/kritis.grafeas.io/v1beta1/admissionallowlists",
	"ImageRevocation":          "/apis/horkos.dev/v1alpha1/imagerevocations",
	"NodeGate":                 "/apis/horkos.dev/v1alpha1/nodegates",
	"TrustPolicy":              "/apis/notation.nirmata.io/v1alpha1/trustpolicies",
}

func placeOf(kind, namespace, name string) string {
	place := places[kind]
	if strings.Contains(place, "%s") {
		place = fmt.Sprintf(place, namespace)
	}
	return place + "/" + name
}

// apply applies the documents of a text.
func (o *office) apply(text string) {
	o.Helper()
	for doc := range strings.SplitSeq(text, "\n---") {
		var object harness.Object
		if err := yaml.Unmarshal([]byte(strings.TrimPrefix(doc, "---")), &object); err != nil {
			o.Fatal(err)
		}
		if object == nil {
			continue
		}
		kind, _ := object["kind"].(string)
		name, _ := harness.Field(object, "metadata", "name").(string)
		namespace, _ := harness.Field(object, "metadata", "namespace").(string)
		if places[kind] == "" {
			o.Fatalf("no place for kind %q", kind)
		}
		if _, err := o.admin.Apply(o.ctx, placeOf(kind, namespace, name), "test", object); err != nil {
			o.Fatal(err)
		}
	}
}

func (o *office) eventually(what string, limit time.Duration, try func() error) time.Duration {
	o.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(o.ctx, limit)
	defer cancel()
	if err := harness.Poll(ctx, what, func(context.Context) error { return try() }); err != nil {
		o.Fatal(err)
	}
	return time.Since(began)
}

// condition is what an object bears: "True Accepted", and all of the condition.
func (o *office) condition(kind, namespace, name, of string) (string, harness.Object) {
	o.Helper()
	object, err := o.admin.Get(o.ctx, placeOf(kind, namespace, name))
	if err != nil {
		o.Fatal(err)
	}
	conditions, _ := harness.Field(object, "status", "conditions").([]any)
	for _, c := range conditions {
		if harness.Field(c, "type") == of {
			return fmt.Sprintf("%v %v", harness.Field(c, "status"), harness.Field(c, "reason")), c.(harness.Object)
		}
	}
	return "", nil
}

// bears waits until an object bears a condition.
func (o *office) bears(kind, namespace, name, of, want string) harness.Object {
	o.Helper()
	var all harness.Object
	took := o.eventually(fmt.Sprintf("%s %s to bear %s %s", kind, name, of, want), promptly, func() error {
		got, c := o.condition(kind, namespace, name, of)
		if got != want {
			return fmt.Errorf("%s is %q: %v", of, got, c)
		}
		all = c
		return nil
	})
	o.Logf("%s %s: %s %s after %v", kind, name, of, want, took.Round(time.Millisecond))
	return all
}

// event waits for an event about an object.
func (o *office) event(kind, namespace, name, sort, reason string) {
	o.Helper()
	if namespace == "" {
		namespace = "default"
	}
	o.eventually(fmt.Sprintf("an event %s %s about %s", sort, reason, name), promptly, func() error {
		list, err := o.admin.Get(o.ctx, "/apis/events.k8s.io/v1/namespaces/"+namespace+"/events")
		if err != nil {
			return err
		}
		items, _ := list["items"].([]any)
		for _, e := range items {
			if harness.Field(e, "regarding", "kind") == kind && harness.Field(e, "regarding", "name") == name &&
				harness.Field(e, "type") == sort && harness.Field(e, "reason") == reason && harness.Field(e, "reportingController") == "horkos.dev/controller" {
				return nil
			}
		}
		return fmt.Errorf("it is none of %d", len(items))
	})
}

// replica is a horkos controller.
type replica struct {
	cmd    *exec.Cmd
	health string
	log    string
}

// start starts a replica with a lease that is short, unless it is told otherwise.
func (o *office) start(args ...string) *replica {
	o.Helper()
	o.replicas++
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		o.Fatal(err)
	}
	r := &replica{health: free.Addr().String(), log: filepath.Join(o.run.Dir, fmt.Sprintf("controller%d.log", o.replicas))}
	if err := free.Close(); err != nil {
		o.Fatal(err)
	}
	log, err := os.Create(r.log)
	if err != nil {
		o.Fatal(err)
	}
	defer log.Close()
	// Its kubeconfig is in the run: should it outlive the test, it is found by that and ended.
	r.cmd = exec.Command(o.run.Program("horkos"), append([]string{"controller", "--kubeconfig", o.kubeconfig, "--health-address", r.health,
		"--lease-duration", "3s", "--node-grace", nodeGrace.String(), "--log-level", "debug"}, args...)...)
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		o.Fatal(err)
	}
	t := o.T
	t.Cleanup(func() {
		if r.cmd.ProcessState == nil {
			_ = r.cmd.Process.Kill()
			_ = r.cmd.Wait()
		}
		if text, err := os.ReadFile(r.log); err == nil && t.Failed() {
			t.Logf("%s:\n%s", r.log, text)
		}
	})
	return r
}

// leader is the identity of who leads, as a replica knows it.
func (o *office) leader(r *replica) (string, error) {
	ctx, cancel := context.WithTimeout(o.ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.health+"/readyz", nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", errors.New(text.String())
	}
	return strings.TrimSpace(strings.TrimPrefix(text.String(), "ok, the leader is ")), nil
}

func (o *office) ready(r *replica) {
	o.Helper()
	o.eventually("the replica to be ready", patience, func() error {
		_, err := o.leader(r)
		return err
	})
}

// status runs horkos status as the administrator.
func (o *office) status(args ...string) (code int, out string) {
	o.Helper()
	cmd := exec.CommandContext(o.ctx, o.run.Program("horkos"), append([]string{"status", "--kubeconfig", o.adminKubeconfig()}, args...)...)
	var text, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &errs
	var exited *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exited) {
		o.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), text.String() + errs.String()
}

func (o *office) adminKubeconfig() string {
	o.Helper()
	return o.write("chief.kubeconfig", "chief", "system:masters")
}

func TestTheControllerTellsWhatIsWrongWithPolicies(t *testing.T) {
	o := newOffice(t)
	release := newKey(t)
	first := o.start()
	o.ready(first)

	o.sub("a policy whose authority is missing is not ready until it is there", func(t *testing.T, o *office) {
		o.apply(policy(shop, "release", "release"))
		c := o.bears("GenericAttestationPolicy", shop, "release", "Ready", "False AuthorityNotFound")
		if text := fmt.Sprint(c["message"]); !strings.Contains(text, "AttestationAuthority shop/release does not exist") || !strings.Contains(text, "To do: ") {
			t.Errorf("message %q", text)
		}
		o.event("GenericAttestationPolicy", shop, "release", "Warning", "AuthorityNotFound")
		o.apply(authority(shop, "release", release))
		o.bears("GenericAttestationPolicy", shop, "release", "Ready", "True Accepted")
		o.bears("AttestationAuthority", shop, "release", "Ready", "True Accepted")
		o.event("GenericAttestationPolicy", shop, "release", "Normal", "Accepted")
	})
	o.sub("a key that cannot be parsed", func(t *testing.T, o *office) {
		o.apply(authority(shop, "broken", key{pem: "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}))
		o.bears("AttestationAuthority", shop, "broken", "Ready", "False KeyUnparsable")
		o.apply(policy(shop, "broken", "broken"))
		o.bears("GenericAttestationPolicy", shop, "broken", "Ready", "False AuthorityUnusable")
		o.apply(policy(shop, "broken", "release"))
		o.bears("GenericAttestationPolicy", shop, "broken", "Ready", "True Accepted")
		if _, err := o.admin.Delete(o.ctx, placeOf("AttestationAuthority", shop, "broken")); err != nil {
			t.Fatal(err)
		}
	})
	o.sub("an open host pattern is in force, and warned of", func(t *testing.T, o *office) {
		o.apply(allowlist("open", "registry*.example.com/team/*"))
		o.bears("AdmissionAllowlist", "", "open", "Warning", "True OpenHostPattern")
		o.bears("AdmissionAllowlist", "", "open", "Ready", "True Accepted")
		o.event("AdmissionAllowlist", "", "open", "Warning", "OpenHostPattern")
		o.apply(allowlist("open", "registry.example.com/team/*"))
		o.bears("AdmissionAllowlist", "", "open", "Warning", "")
	})
	o.sub("a kind that is not built", func(t *testing.T, o *office) {
		o.apply(`{apiVersion: notation.nirmata.io/v1alpha1, kind: TrustPolicy, metadata: {name: later}, spec: {version: "1.0", trustPolicies: [{name: all, registryScopes: ["*"], signatureVerification: {level: skip}}]}}`)
		o.bears("TrustPolicy", "", "later", "Ready", "False NotSupported")
		if _, err := o.admin.Delete(o.ctx, placeOf("TrustPolicy", "", "later")); err != nil {
			t.Fatal(err)
		}
	})
	o.sub("the condition is of the generation that was judged, and its time moves with its status only", func(t *testing.T, o *office) {
		before := o.bears("GenericAttestationPolicy", shop, "release", "Ready", "True Accepted")
		time.Sleep(1100 * time.Millisecond) // times of conditions are of whole seconds
		o.apply(strings.Replace(policy(shop, "release", "release"), "spec: {", "spec: {require: Any, ", 1))
		o.eventually("the new generation is judged", promptly, func() error {
			object, err := o.admin.Get(o.ctx, placeOf("GenericAttestationPolicy", shop, "release"))
			if err != nil {
				return err
			}
			_, c := o.condition("GenericAttestationPolicy", shop, "release", "Ready")
			generation := harness.Field(object, "metadata", "generation")
			if generation == before["observedGeneration"] || harness.Field(object, "status", "observedGeneration") != generation || c["observedGeneration"] != generation {
				return fmt.Errorf("generation %v, status %v", generation, object["status"])
			}
			if c["lastTransitionTime"] != before["lastTransitionTime"] {
				t.Fatalf("time moved from %v to %v", before["lastTransitionTime"], c["lastTransitionTime"])
			}
			return nil
		})
	})
	o.sub("what an author sets in the status is set right", func(t *testing.T, o *office) {
		_, err := o.admin.Merge(o.ctx, placeOf("GenericAttestationPolicy", shop, "release")+"/status", harness.Object{"status": harness.Object{"conditions": []any{
			harness.Object{"type": "Ready", "status": "False", "reason": "Forged", "message": "", "lastTransitionTime": "2020-01-01T00:00:00Z"}}}})
		if err != nil {
			t.Fatal(err)
		}
		o.bears("GenericAttestationPolicy", shop, "release", "Ready", "True Accepted")
	})
	o.sub("what it may not write for a while is written later", func(t *testing.T, o *office) {
		const binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/horkos-controller"
		if _, err := o.admin.Delete(o.ctx, binding); err != nil {
			t.Fatal(err)
		}
		as, err := o.control.Client(reporter)
		if err != nil {
			t.Fatal(err)
		}
		o.eventually("it to be forbidden", patience, func() error {
			if _, err := as.Get(o.ctx, "/apis/horkos.dev/v1alpha1/nodegates"); !harness.IsReason(err, "Forbidden") {
				return errors.Join(err, errNotYet)
			}
			return nil
		})
		o.apply(policy(shop, "later", "gone"))
		o.eventually("it to have tried", patience, func() error {
			text, err := os.ReadFile(first.log)
			if err == nil && !strings.Contains(string(text), "cannot write a status, trying again") {
				err = errNotYet
			}
			return err
		})
		if got, _ := o.condition("GenericAttestationPolicy", shop, "later", "Ready"); got != "" {
			t.Errorf("written by whom? %s", got)
		}
		o.applyFile("../../daemonset/controller-rbac.yaml")
		took := o.eventually("it to be written", patience, func() error {
			if got, _ := o.condition("GenericAttestationPolicy", shop, "later", "Ready"); got != "False AuthorityNotFound" {
				return errNotYet
			}
			return nil
		})
		t.Logf("written %v after it was allowed", took.Round(time.Millisecond))
		if _, err := o.admin.Delete(o.ctx, placeOf("GenericAttestationPolicy", shop, "later")); err != nil {
			t.Fatal(err)
		}
	})
	o.sub("the status of a cluster tells what is not ready, and why", testStatus)
	o.sub("the NodeGate of a node that is gone goes, after a grace", func(t *testing.T, o *office) {
		o.apply(`{apiVersion: v1, kind: Node, metadata: {name: node-c}}`)
		o.apply(`{apiVersion: horkos.dev/v1alpha1, kind: NodeGate, metadata: {name: node-c}}`)
		if _, err := o.admin.Delete(o.ctx, placeOf("Node", "", "node-c")); err != nil {
			t.Fatal(err)
		}
		took := o.eventually("the NodeGate to go", 10*time.Second, func() error {
			_, err := o.admin.Get(o.ctx, placeOf("NodeGate", "", "node-c"))
			if harness.IsReason(err, "NotFound") {
				return nil
			}
			return errors.Join(err, errNotYet)
		})
		if took < nodeGrace*9/10 {
			t.Errorf("it went after %v, the grace is %v", took, nodeGrace)
		}
		if _, err := o.admin.Get(o.ctx, placeOf("NodeGate", "", "node-a")); err != nil {
			t.Errorf("that of a node that is there: %v", err)
		}
	})
	o.sub("two replicas: one leads, and the other takes over when it is killed", func(t *testing.T, o *office) {
		second := o.start()
		o.ready(second)
		versions := o.versions()
		a, errA := o.leader(first)
		b, errB := o.leader(second)
		if a != b || errA != nil || errB != nil {
			t.Fatalf("they know %q (%v) and %q (%v) as the leader", a, errA, b, errB)
		}
		if err := first.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = first.cmd.Wait()
		took := o.eventually("the other to lead", 15*time.Second, func() error {
			now, err := o.leader(second)
			if err == nil && now == a {
				err = errNotYet
			}
			return err
		})
		t.Logf("the other led after %v, with a lease of 3s", took.Round(time.Millisecond))
		// What it judges first is what stands there: whatever it wrote would be for nothing.
		o.apply(policy(shop, "late", "gone"))
		o.eventually("the new leader judges", patience, func() error {
			if got, _ := o.condition("GenericAttestationPolicy", shop, "late", "Ready"); got != "False AuthorityNotFound" {
				return fmt.Errorf("it is %q", got)
			}
			return nil
		})
		now := o.versions()
		delete(now, placeOf("GenericAttestationPolicy", shop, "late"))
		if fmt.Sprint(now) != fmt.Sprint(versions) {
			t.Errorf("written though nothing changed:\n%v\n%v", versions, now)
		}
		if err := second.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := second.cmd.Wait(); err != nil {
			t.Errorf("told to end: %v", err)
		}
		lease, err := o.admin.Get(o.ctx, "/apis/coordination.k8s.io/v1/namespaces/horkos-system/leases/horkos-controller")
		if err != nil || harness.Field(lease, "spec", "holderIdentity") != "" {
			t.Errorf("the lease is not given back: %v, %v", harness.Field(lease, "spec"), err)
		}
	})
	o.sub("the end of the API server is survived by a leader that has time", func(t *testing.T, o *office) {
		patient := o.start("--lease-duration", "30s")
		o.ready(patient)
		if err := o.control.APIServer.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := o.control.APIServer.Start(o.ctx); err != nil {
			t.Fatal(err)
		}
		o.apply(policy(shop, "back", "gone"))
		took := o.eventually("it to be judged", patience, func() error {
			if got, _ := o.condition("GenericAttestationPolicy", shop, "back", "Ready"); got != "False AuthorityNotFound" {
				return errNotYet
			}
			return nil
		})
		t.Logf("judged %v after the API server was back", took.Round(time.Millisecond))
		if err := patient.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := patient.cmd.Wait(); err != nil {
			t.Errorf("told to end: %v", err)
		}
	})
	o.sub("a leader that loses its lease ends", func(t *testing.T, o *office) {
		third := o.start()
		o.ready(third)
		if err := o.control.APIServer.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = third.cmd.Wait()
		}()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("it runs on")
		}
		if err := o.control.APIServer.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if code := third.cmd.ProcessState.ExitCode(); code != 2 {
			t.Errorf("exit code %d, want 2", code)
		}
	})
}

// versions are the resource versions of the objects that bear conditions.
func (o *office) versions() map[string]string {
	o.Helper()
	all := make(map[string]string)
	for _, kind := range []string{"AttestationAuthority", "GenericAttestationPolicy", "AdmissionAllowlist"} {
		list, err := o.admin.Get(o.ctx, strings.TrimSuffix(placeOf(kind, shop, ""), "/"))
		if err != nil {
			o.Fatal(err)
		}
		items, _ := list["items"].([]any)
		for _, i := range items {
			name, _ := harness.Field(i, "metadata", "name").(string)
			all[placeOf(kind, shop, name)] = fmt.Sprint(harness.Field(i, "metadata", "resourceVersion"))
		}
	}
	if len(all) < 3 {
		o.Fatalf("only %v", all)
	}
	return all
}

func testStatus(t *testing.T, o *office) {
	now := time.Now().UTC().Format(time.RFC3339)
	gate := func(name, status string) {
		t.Helper()
		o.apply(`{apiVersion: horkos.dev/v1alpha1, kind: NodeGate, metadata: {name: ` + name + `}}`)
		var object harness.Object
		if err := yaml.Unmarshal([]byte(`{apiVersion: horkos.dev/v1alpha1, kind: NodeGate, metadata: {name: `+name+`}, status: `+status+`}`), &object); err != nil {
			t.Fatal(err)
		}
		if _, err := o.admin.Apply(o.ctx, placeOf("NodeGate", "", name)+"/status", "horkos-node", object); err != nil {
			t.Fatal(err)
		}
	}
	gated := `{mode: enforce, version: v1, ready: true, policyRevision: aaaaaaaaaaaa, syncedAt: "` + now + `", observedAt: "` + now + `", startedAt: "` + now + `"}`
	o.apply(`{apiVersion: v1, kind: Node, metadata: {name: node-a}}`)
	gate("node-a", gated)
	o.apply(revocation("one", "sha256:"+strings.Repeat("1", 64), "sha256:"+strings.Repeat("2", 64)))
	o.bears("ImageRevocation", "", "one", "Ready", "True Accepted")
	code, out := o.status()
	if last := lastLine(out); code != 0 || !strings.HasPrefix(last, "ready: 1 of 1 node ready") || !strings.HasSuffix(last, "1 revocation of 2 digests") {
		t.Errorf("all is ready: exit code %d\n%s", code, out)
	}

	watching := o.watch()
	watching.until(t, "ready: 1 of 1 node ready")
	o.apply(`{apiVersion: v1, kind: Node, metadata: {name: node-b}}`)
	watching.until(t, "not ready: 1 of 2 nodes ready, 1 ungated")
	gate("node-b", strings.Replace(strings.Replace(gated, "aaaaaaaaaaaa", "bbbbbbbbbbbb", 1), "ready: true", `ready: false, problems: ["the floor cannot be read"]`, 1))
	watching.until(t, "the floor cannot be read")
	o.apply(policy(shop, "lost", "gone"))
	watching.until(t, "AuthorityNotFound")
	watching.end(t)

	code, out = o.status()
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, want := range []string{"node-a  enforce  yes", "the floor cannot be read", "(others differ)", "GenericAttestationPolicy", "shop/lost", "AttestationAuthority shop/gone does not exist"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	t.Logf("horkos status:\n%s", out)
	code, out = o.status("-o", "json")
	var state struct {
		Ready bool `json:"ready"`
		Nodes []struct {
			Name, Revision string
			Ready          bool
			RevisionOfMost bool
		}
		Objects []struct {
			Name, Reason string
			Ready        bool
		}
	}
	if err := json.Unmarshal([]byte(out), &state); err != nil || code != 1 || state.Ready || len(state.Nodes) != 2 || !state.Nodes[0].Ready || state.Nodes[1].Ready {
		t.Errorf("exit code %d, %v: %s", code, err, out)
	}
	if i := slices.IndexFunc(state.Objects, func(s struct {
		Name, Reason string
		Ready        bool
	}) bool {
		return s.Name == "lost" && s.Reason == "AuthorityNotFound" && !s.Ready
	}); i < 0 {
		t.Errorf("objects %+v", state.Objects)
	}
	for _, path := range []string{placeOf("NodeGate", "", "node-b"), placeOf("Node", "", "node-b"), placeOf("GenericAttestationPolicy", shop, "lost")} {
		if _, err := o.admin.Delete(o.ctx, path); err != nil {
			t.Fatal(err)
		}
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// watched is a horkos status --watch.
type watched struct {
	cmd *exec.Cmd
	mu  sync.Mutex
	out bytes.Buffer
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(p)
}

func (o *office) watch() *watched {
	o.Helper()
	w := &watched{cmd: exec.CommandContext(o.ctx, o.run.Program("horkos"), "status", "--watch", "--kubeconfig", o.adminKubeconfig())}
	w.cmd.Stdout, w.cmd.Stderr = w, w
	if err := w.cmd.Start(); err != nil {
		o.Fatal(err)
	}
	return w
}

// until waits until it has printed a text since it was last waited for.
func (w *watched) until(t *testing.T, want string) {
	t.Helper()
	w.untilWithin(t, 5*time.Second, want)
}

func (w *watched) untilWithin(t *testing.T, limit time.Duration, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	err := harness.Poll(ctx, want, func(context.Context) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		text := w.out.String()
		i := strings.Index(text, want)
		if i < 0 {
			return fmt.Errorf("printed %s", text)
		}
		w.out.Next(i + len(want))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *watched) end(t *testing.T) {
	t.Helper()
	if err := w.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Wait(); err != nil {
		t.Errorf("interrupted: %v", err)
	}
}

func TestTheStatusOfAClusterTellsThatItsControllerOrAKindIsGone(t *testing.T) {
	o := newOffice(t)
	o.sub("no controller was ever there", func(t *testing.T, o *office) {
		if code, out := o.status(); code != 1 || !strings.Contains(out, "controller  not running (there is no Lease horkos-controller in the namespace horkos-system)") {
			t.Errorf("exit code %d\n%s", code, out)
		}
	})
	first := o.start()
	o.ready(first)
	o.apply(policy(shop, "release", "release") + "\n---\n" + authority(shop, "release", newKey(t)))
	o.bears("GenericAttestationPolicy", shop, "release", "Ready", "True Accepted")
	if code, out := o.status(); code != 0 || !strings.Contains(out, "controller  running, the leader is ") {
		t.Errorf("all is ready: exit code %d\n%s", code, out)
	}
	watching := o.watch()
	watching.until(t, "\nready: ")
	o.sub("who may not read the Lease is told so", testStatusOfAReader)
	o.sub("a kind that is gone, and comes back", func(t *testing.T, o *office) {
		const crd = "genericattestationpolicies.kritis.grafeas.io"
		if _, err := o.admin.Delete(o.ctx, placeOf("CustomResourceDefinition", "", crd)); err != nil {
			t.Fatal(err)
		}
		const want = "  NotServed  the API server does not know the kind: kubectl apply -k crds/manifests; nodes keep the last ones in force"
		var out string
		o.eventually("it to be told", patience, func() error {
			var code int
			if code, out = o.status(); code != 1 || !strings.Contains(out, want) {
				return fmt.Errorf("exit code %d\n%s", code, out)
			}
			return nil
		})
		if !strings.Contains(out, "AttestationAuthority  1 of 1") || !strings.Contains(lastLine(out), ", 1 kind not served, 1 of 1 object ready") {
			t.Errorf("printed\n%s", out)
		}
		t.Logf("horkos status:\n%s", out)
		watching.until(t, "1 kind not served, 1 of 1 object ready")
		o.applyFile("../../crds/manifests/kritis.grafeas.io_genericattestationpolicies.yaml")
		watching.untilWithin(t, patience, "\nready: ") // it is asked for again after up to 10 s
	})
	o.sub("a controller that is killed", func(t *testing.T, o *office) {
		if err := first.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = first.cmd.Wait()
		const want = "conditions are not kept current; kubectl -n horkos-system get pods"
		var out string
		// Of a Lease of 3 s it is known after 10.
		took := o.eventually("it to be told", 20*time.Second, func() error {
			var code int
			if code, out = o.status(); code != 1 || !strings.Contains(out, want) {
				return fmt.Errorf("exit code %d\n%s", code, out)
			}
			return nil
		})
		if !strings.Contains(out, "controller  not running for ") || !strings.HasPrefix(lastLine(out), "not ready: ") {
			t.Errorf("printed\n%s", out)
		}
		t.Logf("told %v after it was killed:\n%s", took.Round(time.Millisecond), out)
		watching.untilWithin(t, 20*time.Second, want)
		watching.end(t)
		var state struct {
			Ready      bool
			Controller struct{ Known, Running bool }
		}
		code, out := o.status("-o", "json")
		if err := json.Unmarshal([]byte(out), &state); err != nil || code != 1 || state.Ready || !state.Controller.Known || state.Controller.Running {
			t.Errorf("exit code %d, %v: %s", code, err, out)
		}
	})
}

// testStatusOfAReader is for one who may list what status tells of, and read no Lease.
func testStatusOfAReader(t *testing.T, o *office) {
	o.apply(`{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: reader}, rules: [{apiGroups: ["", kritis.grafeas.io, horkos.dev, notation.nirmata.io], resources: ["*"], verbs: [list]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: reader}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: reader}]}`)
	kubeconfig := o.write("reader.kubeconfig", "reader")
	o.eventually("it to be told", patience, func() error {
		out, err := exec.CommandContext(o.ctx, o.run.Program("horkos"), "status", "--kubeconfig", kubeconfig).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "controller  not known: you may not read the Lease") {
			return fmt.Errorf("%w: %s", errors.Join(err, errNotYet), out)
		}
		return nil
	})
}

func TestTheStatusOfNoClusterCannotBeTold(t *testing.T) {
	harness.RequireCluster(t)
	run := harness.New(t)
	control, err := run.StartControlPlane(t.Context(), harness.ControlPlaneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o := &office{T: t, ctx: t.Context(), run: run, control: control}
	if code, out := o.status(); code != 2 || !strings.Contains(out, "not installed") || !strings.Contains(out, "kubectl apply -k daemonset/") {
		t.Errorf("without CRDs: exit code %d, %s", code, out)
	}
	if err := control.APIServer.Kill(); err != nil {
		t.Fatal(err)
	}
	if code, out := o.status(); code != 2 || !strings.Contains(out, "the API server does not answer") {
		t.Errorf("without an API server: exit code %d, %s", code, out)
	}
}
