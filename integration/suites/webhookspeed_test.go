package suites

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/integration/harness"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/image"
)

// The limits of the webhook, which docs/performance.md tells of.
const (
	reviewsLimit         = 2000 // a second
	reviewLimit          = 5 * time.Millisecond
	reviewRate           = 500      // a second, at which 99 of 100 take at most reviewLimit
	webhookResidentLimit = 80 << 20 // bytes
	webhookReadyLimit    = 2 * time.Second
)

// What fails the test: machines that do other work are slower, a change for the worse is not.
const (
	reviewsGuard         = 700
	reviewGuard          = 50 * time.Millisecond // in the quietest second
	webhookResidentGuard = 100 << 20
	webhookHostileGuard  = 236 << 20 // the manifest allows 256 MiB
	webhookReadyGuard    = 5 * time.Second
)

// webhookMemoryGoal is GOMEMLIMIT of the manifest: with it memory is collected before the
// kernel ends the process.
const webhookMemoryGoal = "160MiB"

// What is in the cluster: in each of the namespaces an authority with a key of its own and a
// policy, in most a second, and policies of the cluster about what some of the teams run.
const (
	teams           = 500
	teamsTwice      = 400
	teamsReviewed   = 40 // each with two attested images
	clusterPolicies = 1000 - teams - teamsTwice
)

// TestTheWebhookIsQuickAndSmallWithAThousandPolicies measures the real process over real TLS,
// with the one that asks beside it on the same processors.
func TestTheWebhookIsQuickAndSmallWithAThousandPolicies(t *testing.T) {
	f := review(t)
	f.end()
	pods := f.fill()
	f.readyIn("as the first of all, which makes the certificate", 3, f.anew)
	f.readyIn("as a new replica beside others", 5, f.forget)
	f.readyIn("as a container that is started again", 5, func() {})
	f.Logf("%.1f MiB are resident before the first review", float64(f.memory("VmRSS"))/(1<<20))

	asker := f.asker(pods)
	f.warmed(asker)
	seconds := func(full int) time.Duration { return time.Duration(max(harness.Tries(t, full), 3)) * time.Second }
	for _, version := range []struct {
		name string
		http *http.Client
	}{{"HTTP/1.1, as API servers do", asker.http1(16)}, {"HTTP/2", asker.http2()}} {
		asker.client = version.http
		if rate := asker.closed(version.name, 16, seconds(5)); rate < reviewsGuard {
			t.Errorf("%.0f reviews a second: it was more than %d", rate, reviewsGuard)
		}
	}
	asker.client = asker.http1(100)
	if p99 := asker.open(seconds(15)); p99 > reviewGuard {
		t.Errorf("p99 is %s in the quietest second: it was less than %s", p99, reviewGuard)
	}
	resident := f.memory("VmRSS")
	f.Logf("%.1f MiB are resident after %d reviews, %.1f at most", float64(resident)/(1<<20), asker.serial.Load(), float64(f.memory("VmHWM"))/(1<<20))
	if resident > webhookResidentLimit {
		f.Logf("limit %d MiB: missed by %.1f MiB", webhookResidentLimit>>20, float64(resident-webhookResidentLimit)/(1<<20))
	}
	if resident > webhookResidentGuard {
		t.Errorf("%d bytes are resident: it was less than %d", resident, webhookResidentGuard)
	}
	asker.hostile(seconds(5))
	most := f.memory("VmHWM")
	f.Logf("%.1f MiB were resident at most under the largest bodies; %.1f MiB after them", float64(most)/(1<<20), float64(f.memory("VmRSS"))/(1<<20))
	if most > webhookHostileGuard {
		t.Errorf("%d bytes were resident: at most %d leave room in what the manifest allows", most, webhookHostileGuard)
	}
	asker.client = asker.http1(1)
	if err := asker.ask(); err != nil {
		t.Errorf("after that: %v", err)
	}
}

// TestAWebhookThatIsStartedAgainIsReadyWhenItKnowsThePoliciesOfNow: it has kept those of before.
func TestAWebhookThatIsStartedAgainIsReadyWhenItKnowsThePoliciesOfNow(t *testing.T) {
	f := review(t)
	f.end()
	f.kubectl(kritisPolicies(f.release), "apply", "-f", "-")
	f.kubectl("", "patch", "clusterrole", "horkos-webhook", "--type=json", `-p=[{"op":"remove","path":"/rules/0"}]`) // those of Kritis
	f.exec()
	f.eventually("it says that it may not know its policies", func() error {
		ready, says := f.says()
		if ready {
			t.Fatal("it is ready")
		}
		if !strings.Contains(says, "policies: ") || !strings.Contains(says, "kritis.grafeas.io") {
			return errors.New(says)
		}
		return nil
	})
	f.kubectl("", "apply", "-f", "daemonset/webhook/rbac.yaml")
	asker := f.asker([]teamPod{{namespace: "default", images: [2]image.Identity{{Repository: "registry.example.com/a", Digest: image.SHA256([]byte("a"))}}}})
	asker.client = asker.http1(1)
	f.eventually("it is ready", func() error {
		if ready, says := f.says(); !ready {
			return errors.New(says)
		}
		return nil
	})
	if err := asker.ask(); err == nil || strings.Contains(err.Error(), "NoPolicy") {
		t.Errorf("as soon as it is ready it says: %v", err)
	}
}

// forget has the webhook begin as a new pod.
func (f *reviewed) forget() {
	f.Helper()
	if err := os.RemoveAll(filepath.Join(f.run.Dir, "webhook")); err != nil {
		f.Fatal(err)
	}
}

// anew has the webhook begin as the first of a cluster that was just given its manifests.
func (f *reviewed) anew() {
	f.Helper()
	f.forget()
	f.kubectl("", "-n", "horkos-system", "delete", "secret", "horkos-webhook-tls", "horkos-breakglass")
	f.kubectl("", "apply", "-f", "daemonset/webhook/rbac.yaml")
	configuration, err := f.plane.Admin.Get(f.ctx, tlsHooks+"/horkos")
	if err != nil {
		f.Fatal(err)
	}
	for _, hook := range configuration["webhooks"].([]any) {
		delete(hook.(harness.Object)["clientConfig"].(harness.Object), "caBundle")
	}
	if _, err := f.plane.Admin.Replace(f.ctx, tlsHooks+"/horkos", configuration); err != nil {
		f.Fatal(err)
	}
}

// readyIn starts the webhook some times, each after what is to be done before, and tells of
// the middle of the times until it is ready. The last one runs on.
func (f *reviewed) readyIn(how string, times int, before func()) {
	f.Helper()
	var took []time.Duration
	for range times {
		f.end()
		before()
		took = append(took, f.launch())
	}
	p50 := percentile(took, 50)
	f.Logf("ready after %s %s: %v", p50, how, took)
	if p50 > webhookReadyLimit {
		f.Logf("limit %s: missed by %s", webhookReadyLimit, p50-webhookReadyLimit)
	}
	if p50 > webhookReadyGuard {
		f.Errorf("ready after %s %s: it was less than %s", p50, how, webhookReadyGuard)
	}
}

// launch starts the webhook and gives how long it took to be ready.
func (f *reviewed) launch() time.Duration {
	f.Helper()
	began := f.exec()
	for ; ; time.Sleep(5 * time.Millisecond) {
		ready, says := f.says()
		if ready {
			return time.Since(began)
		}
		if time.Since(began) > patience {
			f.Fatalf("not ready after %s: %s", patience, says)
		}
	}
}

// exec starts the webhook as the manifest does, and tells when.
func (f *reviewed) exec() time.Time {
	f.Helper()
	kubeconfig, err := f.plane.WriteKubeconfig("webhook", tlsUser, "system:serviceaccounts", "system:authenticated")
	if err != nil {
		f.Fatal(err)
	}
	out, err := os.OpenFile(f.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.Fatal(err)
	}
	defer out.Close()
	f.cmd = exec.Command(f.run.Program("horkos"), "webhook", "--kubeconfig", kubeconfig, "--address", f.address, "--health-address", f.health,
		"--tls-name", "127.0.0.1", "--state-dir", filepath.Join(f.run.Dir, "webhook"), "--default-action", "deny")
	f.cmd.Stdout, f.cmd.Stderr = out, out
	f.cmd.Env = append(os.Environ(), "GOMEMLIMIT="+webhookMemoryGoal)
	began := time.Now()
	if err := f.cmd.Start(); err != nil {
		f.Fatal(err)
	}
	return began
}

// says is what the webhook says of its readiness.
func (f *reviewed) says() (ready bool, text string) {
	response, err := http.Get("http://" + f.health + "/readyz")
	if err != nil {
		return false, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body) // what came of it
	return response.StatusCode == http.StatusOK, string(body)
}

// memory is a line of what the kernel says of the process's memory, in bytes.
func (f *reviewed) memory(line string) int {
	f.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.cmd.Process.Pid))
	if err != nil {
		f.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), line+":")
	kilobytes, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		f.Fatal(err)
	}
	return kilobytes << 10
}

// teamPod is a pod of a team with two images.
type teamPod struct {
	namespace string
	images    [2]image.Identity
}

// The collections that are filled.
var (
	ofNamespaces  = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	ofAuthorities = schema.GroupVersionResource{Group: "kritis.grafeas.io", Version: "v1beta1", Resource: "attestationauthorities"}
	ofPolicies    = schema.GroupVersionResource{Group: "kritis.grafeas.io", Version: "v1beta1", Resource: "genericattestationpolicies"}
	ofCluster     = schema.GroupVersionResource{Group: "horkos.dev", Version: "v1alpha1", Resource: "clusterattestationpolicies"}
	ofImages      = schema.GroupVersionResource{Group: "horkos.dev", Version: "v1alpha1", Resource: "imageattestations"}
)

// filler makes objects, as fast as the API server does.
type filler struct {
	testing.TB
	ctx    context.Context
	client dynamic.Interface
}

// fill puts a thousand policies into the cluster, and what attests the images of some pods.
func (f *reviewed) fill() []teamPod {
	f.Helper()
	config, err := apiserver.Config(f.plane.AdminKubeconfig, "test")
	if err != nil {
		f.Fatal(err)
	}
	config.QPS = -1 // no limit
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		f.Fatal(err)
	}
	began := time.Now()
	group, ctx := errgroup.WithContext(f.ctx)
	group.SetLimit(16)
	fill := &filler{f.T, ctx, client}
	pods := make([]teamPod, teamsReviewed)
	for n := range teams {
		group.Go(func() error {
			name, signers := fmt.Sprintf("team-%04d", n), []key{newKey(f)}
			if n < clusterPolicies {
				signers = append(signers, newKey(f))
			}
			errs := []error{fill.team(n, name, signers)}
			if n < teamsReviewed {
				pods[n].namespace = name
				for i := range pods[n].images {
					id := image.Identity{Repository: "registry.example.com/" + name + "/app", Digest: image.SHA256(fmt.Append(nil, name, i))}
					pods[n].images[i] = id
					errs = append(errs, fill.create(ofImages, "ImageAttestation", "", strings.Replace(string(id.Digest), ":", "-", 1), attestedBy(f, id, signers...)))
				}
			}
			return errors.Join(errs...)
		})
	}
	if err := group.Wait(); err != nil {
		f.Fatal(err)
	}
	f.Logf("the cluster was filled in %v", time.Since(began).Round(time.Millisecond))
	return pods
}

// team makes a namespace with its policies, and one of the cluster where there is a second key.
func (f *filler) team(n int, name string, keys []key) error {
	publicKeys := func(k key) []any {
		return []any{harness.Object{"keyType": "PKIX", "pkixPublicKey": harness.Object{"publicKeyPem": k.pem}}}
	}
	requires := harness.Object{"attestationAuthorityNames": []any{"release"}}
	errs := []error{
		f.create(ofNamespaces, "Namespace", "", name, harness.Object{}),
		f.create(ofAuthorities, "AttestationAuthority", name, "release", harness.Object{"publicKeys": publicKeys(keys[0])}),
		f.create(ofPolicies, "GenericAttestationPolicy", name, "release", requires),
	}
	if n < teamsTwice {
		errs = append(errs, f.create(ofPolicies, "GenericAttestationPolicy", name, "second", requires))
	}
	for _, k := range keys[1:] {
		errs = append(errs, f.create(ofCluster, "ClusterAttestationPolicy", "", name, harness.Object{
			"images":      []any{"registry.example.com/" + name + "/**"},
			"authorities": []any{harness.Object{"name": "release", "publicKeys": publicKeys(k)}}}))
	}
	return errors.Join(errs...)
}

func (f *filler) create(at schema.GroupVersionResource, kind, namespace, name string, spec harness.Object) error {
	object := &unstructured.Unstructured{Object: harness.Object{"spec": spec}}
	object.SetAPIVersion(at.GroupVersion().String())
	object.SetKind(kind)
	object.SetName(name)
	_, err := f.client.Resource(at).Namespace(namespace).Create(f.ctx, object, metav1.CreateOptions{})
	return err
}

// attestedBy is the spec of an ImageAttestation by several keys.
func attestedBy(t testing.TB, id image.Identity, by ...key) harness.Object {
	var all []any
	for _, k := range by {
		payload, err := attestation.NewPayload(id, time.Now(), time.Time{})
		if err != nil {
			t.Error(err)
		}
		signature, public, err := attestation.Sign(k.private, "", payload)
		if err != nil {
			t.Error(err)
		}
		all = append(all, harness.Object{"resourceUri": id.String(), "attestation": harness.Object{
			"serializedPayload": base64.StdEncoding.EncodeToString(payload),
			"signatures":        []any{harness.Object{"signature": base64.StdEncoding.EncodeToString(signature), "publicKeyId": public.ID}}}})
	}
	return harness.Object{"attestations": all}
}

// asker asks the webhook as an API server does, and believes whom the API server believes.
type asker struct {
	*testing.T
	ctx    context.Context
	url    string
	roots  *x509.CertPool
	client *http.Client

	reviews [][]byte
	serial  atomic.Int64 // of the pods, which all differ
}

func (f *reviewed) asker(pods []teamPod) *asker {
	f.Helper()
	configuration, err := f.plane.Admin.Get(f.ctx, tlsHooks+"/horkos")
	if err != nil {
		f.Fatal(err)
	}
	hooks, _ := configuration["webhooks"].([]any)
	bundle, err := base64.StdEncoding.DecodeString(fmt.Sprint(harness.Field(hooks[0].(harness.Object), "clientConfig", "caBundle")))
	if err != nil {
		f.Fatal(err)
	}
	c := &asker{T: f.T, ctx: f.ctx, url: "https://" + f.address + "/?timeout=10s", roots: x509.NewCertPool()}
	if !c.roots.AppendCertsFromPEM(bundle) {
		f.Fatalf("the API server is given no bundle: %q", bundle)
	}
	for _, p := range pods {
		c.reviews = append(c.reviews, p.review(f))
	}
	f.Logf("a review has %d bytes", len(c.reviews[0]))
	return c
}

// http1 is a client of HTTP/1.1, which API servers speak to webhooks, with so many connections.
func (c *asker) http1(connections int) *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.roots}, MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections,
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	c.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// http2 is a client of HTTP/2, with one connection.
func (c *asker) http2() *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.roots}, ForceAttemptHTTP2: true}
	c.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// serialMark is where the number of a pod goes: in its name and its uid.
const serialMark = "SERIAL"

// review is the creation of the pod, with what a cluster has filled in by then.
func (p *teamPod) review(t testing.TB) []byte {
	t.Helper()
	var containers []any
	for i, id := range p.images {
		var env []any
		for n := range 12 {
			env = append(env, harness.Object{"name": fmt.Sprint("SETTING_", n), "value": strings.Repeat("v", 24)})
		}
		containers = append(containers, harness.Object{"name": fmt.Sprint("c", i), "image": id.String(), "env": env, "imagePullPolicy": "IfNotPresent",
			"resources":     harness.Object{"limits": harness.Object{"cpu": "1", "memory": "1Gi"}, "requests": harness.Object{"cpu": "100m", "memory": "128Mi"}},
			"livenessProbe": harness.Object{"httpGet": harness.Object{"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10},
			"volumeMounts":  []any{harness.Object{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}}})
	}
	fields := harness.Object{}
	for n := range 20 {
		fields[fmt.Sprint("f:field-", n)] = harness.Object{".": harness.Object{}, "f:name": harness.Object{}}
	}
	text, err := json.Marshal(harness.Object{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": harness.Object{
		"uid": "00000000-0000-4000-8000-" + serialMark, "operation": "CREATE", "namespace": p.namespace, "name": "app-" + serialMark,
		"kind":     harness.Object{"group": "", "version": "v1", "kind": "Pod"},
		"resource": harness.Object{"group": "", "version": "v1", "resource": "pods"},
		"userInfo": harness.Object{"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": []any{"system:serviceaccounts", "system:authenticated"}},
		"options":  harness.Object{"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}, "dryRun": false, "oldObject": nil,
		"object": harness.Object{"apiVersion": "v1", "kind": "Pod",
			"metadata": harness.Object{"name": "app-" + serialMark, "generateName": "app-", "namespace": p.namespace, "uid": "10000000-0000-4000-8000-" + serialMark,
				"labels":          harness.Object{"app": "app", "pod-template-hash": "5d78c9869d"},
				"ownerReferences": []any{harness.Object{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "app-5d78c9869d", "uid": "2", "controller": true}},
				"managedFields":   []any{harness.Object{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields}}},
			"spec": harness.Object{"containers": containers, "restartPolicy": "Always", "serviceAccountName": "default", "schedulerName": "default-scheduler",
				"tolerations": []any{harness.Object{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}},
				"volumes": []any{harness.Object{"name": "token", "projected": harness.Object{"sources": []any{
					harness.Object{"serviceAccountToken": harness.Object{"expirationSeconds": 3607, "path": "token"}}}}}}},
			"status": harness.Object{"phase": "Pending", "qosClass": "Burstable"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// ask asks about the next pod, which must be let through.
func (c *asker) ask() error {
	n := c.serial.Add(1)
	return c.askWith(bytes.ReplaceAll(c.reviews[n%int64(len(c.reviews))], []byte(serialMark), fmt.Appendf(nil, "%012d", n)))
}

func (c *asker) askWith(review []byte) error {
	status, answer, err := c.send(bytes.NewReader(review))
	if err == nil && (status != http.StatusOK || !bytes.Contains(answer, []byte(`"allowed":true`))) {
		err = fmt.Errorf("%d: %s", status, answer)
	}
	return err
}

func (c *asker) send(review io.Reader) (status int, answer []byte, err error) {
	request, err := http.NewRequestWithContext(c.ctx, http.MethodPost, c.url, review)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// warmed waits until all is known that is asked about.
func (f *reviewed) warmed(c *asker) {
	f.Helper()
	c.client = c.http1(len(c.reviews))
	began := time.Now()
	var all sync.WaitGroup
	for range c.reviews {
		all.Go(func() {
			f.eventually("an image is attested", c.ask)
		})
	}
	all.Wait()
	c.client.CloseIdleConnections()
	f.Logf("all %d images are known after %v", 2*len(c.reviews), time.Since(began).Round(time.Millisecond))
}

// closed has so many ask for a while, each as soon as it is answered, and gives the reviews a second.
func (c *asker) closed(how string, askers int, d time.Duration) float64 {
	c.Helper()
	var all sync.WaitGroup
	took, began := make([][]time.Duration, askers), time.Now()
	for i := range askers {
		all.Go(func() {
			for time.Since(began) < d {
				sent := time.Now()
				if err := c.ask(); err != nil {
					c.Errorf("%s: %v", how, err)
					return
				}
				took[i] = append(took[i], time.Since(sent))
			}
		})
	}
	all.Wait()
	c.client.CloseIdleConnections()
	together := slices.Concat(took...)
	if c.Failed() {
		c.FailNow()
	}
	rate := float64(len(together)) / time.Since(began).Seconds()
	c.Logf("%s: %.0f reviews a second by %d askers: p50 %s, p99 %s", how, rate, askers, percentile(together, 50), percentile(together, 99))
	if rate < reviewsLimit {
		c.Logf("limit %d: missed by %.0f", reviewsLimit, reviewsLimit-rate)
	}
	return rate
}

// open asks reviewRate times a second, whether it is answered or not. It tells what 99 of 100
// took at most, from when each was to be sent, and gives that of the quietest second: in the
// others the machine may have done something else.
func (c *asker) open(d time.Duration) time.Duration {
	c.Helper()
	total := int(d.Seconds() * reviewRate)
	took, late := make([]time.Duration, total), make([]time.Duration, total)
	var next atomic.Int64
	var all sync.WaitGroup
	began := time.Now().Add(100 * time.Millisecond)
	for range 100 {
		all.Go(func() {
			for n := next.Add(1) - 1; n < int64(total) && !c.Failed(); n = next.Add(1) - 1 {
				due := began.Add(time.Duration(n) * time.Second / reviewRate)
				time.Sleep(time.Until(due))
				late[n] = time.Since(due)
				if err := c.ask(); err != nil {
					c.Errorf("%d a second: %v", reviewRate, err)
				}
				took[n] = time.Since(due)
			}
		})
	}
	all.Wait()
	if c.Failed() {
		c.FailNow()
	}
	c.client.CloseIdleConnections()
	p99 := percentile(took, 99)
	c.Logf("%d reviews, %d a second: p50 %s, p99 %s, at most %s, from when each was to be sent; 1 %% were sent %s late or more",
		total, reviewRate, percentile(took, 50), p99, slices.Max(took), percentile(late, 99))
	if p99 > reviewLimit {
		c.Logf("limit %s: missed by %s", reviewLimit, p99-reviewLimit)
	}
	var each []time.Duration // of each second
	for second := range slices.Chunk(took, reviewRate) {
		each = append(each, percentile(second, 99))
	}
	c.Logf("p99 of each second: the middle is %s, the quietest %s", percentile(each, 50), slices.Min(each))
	return slices.Min(each)
}

// hostile takes what one address gets: connections that hold as much as one may that is not a
// large body, and beside them the largest bodies, one after the other, for a while. What is in
// them is none of a review, or is as much as can be in one.
func (c *asker) hostile(d time.Duration) {
	c.Helper()
	const most, holding, sending = 8<<20 - 1024, 250, 64
	for range holding {
		held, err := tls.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(c.url, "https://"), "/?timeout=10s"), &tls.Config{RootCAs: c.roots})
		if err != nil {
			c.Fatal(err)
		}
		defer held.Close()
		if _, err := fmt.Fprintf(held, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", 64<<10, strings.Repeat(" ", 64<<10-1)); err != nil {
			c.Fatal(err)
		}
	}
	bodies := largest(most)
	c.client = c.http1(sending)
	var all sync.WaitGroup
	var answered, refused, cut atomic.Int64
	began := time.Now()
	for i := range sending {
		all.Go(func() {
			for time.Since(began) < d {
				switch status, _, err := c.send(bytes.NewReader(bodies[i%len(bodies)])); {
				case err != nil:
					cut.Add(1)
				case status == http.StatusOK:
					answered.Add(1)
				default:
					refused.Add(1)
				}
			}
		})
	}
	all.Wait()
	c.Logf("bodies of 8 MiB, %d at once for %v beside %d connections: %d answered, %d refused, %d cut off",
		sending, time.Since(began).Round(time.Millisecond), holding, answered.Load(), refused.Load(), cut.Load())
}

// largest are bodies of a size, some of them reviews.
func largest(size int) [][]byte {
	fill := func(begins, part, ends string) []byte {
		return slices.Concat([]byte(begins), bytes.Repeat([]byte(part), (size-len(begins)-len(ends))/len(part)), []byte(ends))
	}
	const head = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","operation":"CREATE","namespace":"team-0001","name":"a",` +
		`"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},"userInfo":{"username":"u"},` +
		`"object":{"apiVersion":"v1","kind":"Pod",`
	return [][]byte{
		fill(head+`"metadata":{"name":"a"},"spec":{"containers":[{"image":"a"}`, `,{"image":"a"}`, `]}}}}`),
		fill(head+`"metadata":{"name":"`, "a", `"}}}}`),
		fill(head+`"metadata":{"annotations":{"a":"b"`, `,"c":""`, `}}}}}`),
		fill(``, `[`, ``),
	}
}
