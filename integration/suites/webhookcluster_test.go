package suites

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/horkos/horkos/integration/harness"
)

const (
	podWebhook      = `admission webhook "kritis-validation-hook.grafeas.io" denied the request: `
	workloadWebhook = `admission webhook "kritis-validation-hook-deployments.grafeas.io" denied the request: `
)

// reviewedCluster is a whole cluster whose API server asks the webhook, two replicas in
// pods behind their Service, of the image and the manifests that users get.
type reviewedCluster struct {
	*followed
	c          *harness.Cluster
	good, evil harness.Pushed // attested in namespace market, and not
	auditLog   string         // of the API server
}

func reviewCluster(t *testing.T) *reviewedCluster {
	t.Helper()
	harness.RequireCluster(t)
	dir := t.TempDir()
	f := &reviewedCluster{auditLog: filepath.Join(dir, "audit.log")}
	rules := filepath.Join(dir, "audit.yaml")
	if err := os.WriteFile(rules, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- {level: Metadata, resources: [{resources: [pods]}]}\n- {level: None}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.followed, f.c, f.good, f.evil = wholeCluster(t, "--audit-policy-file="+rules, "--audit-log-path="+f.auditLog)
	if _, err := f.registry.PushLayout(nodeImage+":VERSION", filepath.Dir(f.run.Program("image/oci-layout"))); err != nil {
		t.Fatal(err, "; run make image")
	}
	f.kubectl("", "apply", "--server-side", "--force-conflicts", "-k", "daemonset/")
	f.kubectl("", "-n", "horkos-system", "patch", "daemonset", "horkos-node", "-p", `{"spec":{"template":{"spec":{"nodeSelector":{"horkos.dev/gate":"daemonset"}}}}}`)
	began := time.Now()
	manifests := f.kubectl("", "kustomize", "daemonset/webhook")
	const flag = "        - --log-format=json\n"
	if strings.Count(manifests, flag) != 1 {
		t.Fatal("the manifests have other flags")
	}
	f.kubectl(strings.Replace(manifests, flag, flag+"        - --tls-lifetime=1m\n", 1), "apply", "--server-side", "-f", "-")
	f.rollout()
	t.Logf("the webhook's two replicas are ready %v after they were applied", time.Since(began).Round(time.Millisecond))
	return f
}

// part runs a subtest.
func (f *reviewedCluster) part(name string, test func(f *reviewedCluster)) {
	f.sub(name, func(_ *testing.T, x *fixture) {
		part, cluster := *f, *f.followed
		cluster.fixture = x
		part.followed = &cluster
		ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
		defer cancel()
		x.ctx = ctx
		test(&part)
	})
}

// rollout waits until all replicas of the webhook are ready, and those of before gone.
func (f *reviewedCluster) rollout() {
	f.Helper()
	if out, err := f.tryKubectl("", "-n", "horkos-system", "rollout", "status", "deployment/horkos-webhook", "--timeout=55s"); err != nil {
		logs, _ := f.tryKubectl("", "-n", "horkos-system", "logs", "-l", "app.kubernetes.io/name=horkos-webhook", "--tail=20", "--prefix")
		f.Fatal(out, err, "\n", logs)
	}
}

// says runs kubectl and wants just that said.
func (f *reviewedCluster) says(want, stdin string, args ...string) {
	f.Helper()
	out, err := f.tryKubectl(stdin, args...)
	if err != nil || strings.TrimSpace(out) != want {
		f.Errorf("kubectl %s says %q, want %q; %v", strings.Join(args, " "), out, want, err)
	}
}

// denies runs kubectl, which must fail and say something that begins like that.
func (f *reviewedCluster) denies(want, stdin string, args ...string) {
	f.Helper()
	_, says, err := f.plane.KubectlAs(f.ctx, f.plane.AdminKubeconfig, stdin, args...)
	if err == nil || !strings.HasPrefix(says, want) {
		f.Errorf("kubectl %s says %q, %v; want %q", strings.Join(args, " "), says, err, want)
	}
}

// notAttested is what both gates say of an image.
func notAttested(image string) string { return "image " + image + " is not attested" }

// TestAClusterWithItsWebhook: what Kritis' users know, what went past Kritis, and what
// happens when the webhook is replaced, renewed, killed and away.
func TestAClusterWithItsWebhook(t *testing.T) {
	f := reviewCluster(t)
	for _, p := range []struct {
		name string
		test func(*reviewedCluster)
	}{
		{"the transcripts that users of Kritis know hold", (*reviewedCluster).transcripts},
		{"every workload kind is reviewed when it is made and when it changes", (*reviewedCluster).everyKind},
		{"nothing that went past Kritis goes past it", (*reviewedCluster).bypasses},
		{"what is only reported is said where it should be", (*reviewedCluster).reports},
		{"a dry run leaves nothing", (*reviewedCluster).dryRun},
		{"of a static pod the mirror passes, and its node decides", (*reviewedCluster).mirror},
		{"no review is lost while replicas are replaced and the certificate is renewed", (*reviewedCluster).replaced},
		{"killed replicas let nothing through", (*reviewedCluster).killed},
		{"while it is away pods are refused, and what deletes and scales goes on", (*reviewedCluster).away},
		{"docs/emergency.md leads past both gates", (*reviewedCluster).emergency},
		{"what was admitted is refused by the node when its key is gone", (*reviewedCluster).keyGone},
	} {
		f.part(p.name, p.test)
	}
}

func (f *reviewedCluster) transcripts() {
	alpine := f.push("registry.example.com/acs/alpine:3.11", harness.Image{Seed: "alpine"})
	files := make(map[string]string)
	authority, policy, ok := strings.Cut(strings.TrimPrefix(kritisPolicies(f.release), "---\n"), "---\n")
	if !ok {
		f.Fatal("want two manifests")
	}
	for name, text := range map[string]string{"AttestationAuthority.yaml": authority, "GenericAttestationPolicy.yaml": policy, "kritis-admission-allowlist-acs.yaml": acsAllowlist} {
		files[name] = filepath.Join(f.TempDir(), name)
		if err := os.WriteFile(files[name], []byte(text), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	f.says("attestationauthority.kritis.grafeas.io/demo-aa created\ngenericattestationpolicy.kritis.grafeas.io/demo-gap created", "",
		"apply", "-f", files["AttestationAuthority.yaml"], "-f", files["GenericAttestationPolicy.yaml"])
	const denied = "error: failed to create deployment: " + workloadWebhook
	f.soonDenies(denied+notAttested("alpine:3.11"), "create", "deployment", "test-denied", "--image=alpine:3.11")
	f.denies(denied+notAttested(alpine.ByDigest()), "", "create", "deployment", "test-allow", "--image="+alpine.ByDigest())

	f.apply(f.attestedWith("4a2ef103-5aa3-4220-89ec-kms-key-id", alpine.Repository, alpine.Digest))
	f.eventually("what is attested is created", func() error {
		out, err := f.tryKubectl("", "create", "deployment", "test-allow", "--image="+alpine.ByDigest())
		if err == nil && strings.TrimSpace(out) != "deployment.apps/test-allow created" {
			f.Errorf("kubectl says %q", out)
		}
		return err
	})
	f.kubectl("", "rollout", "status", "deployment/test-allow", "--timeout=30s") // and its pod runs
	f.says("admissionallowlist.kritis.grafeas.io/allow-acs-images created", "", "apply", "-f", files["kritis-admission-allowlist-acs.yaml"])
	f.eventually("what is on the list is created", func() error {
		_, err := f.tryKubectl("", "create", "deployment", "test-list", "--image=registry-vpc.cn-hangzhou.aliyuncs.com/acs/pause:3.2", "--dry-run=server")
		return err
	})
	for _, namespace := range []string{"kube-system", "default"} {
		f.eventually("an event of the denial in "+namespace, func() error {
			out, err := f.tryKubectl("", "-n", namespace, "get", "events", "--field-selector=reason=FailedKritisAdmission", "-o", "jsonpath={.items[*].message}")
			if err == nil && !strings.Contains(out, notAttested("alpine:3.11")) {
				err = fmt.Errorf("the events say %q", out)
			}
			return err
		})
	}
}

const acsAllowlist = `apiVersion: kritis.grafeas.io/v1beta1
kind: AdmissionAllowlist
metadata: {name: allow-acs-images}
spec: {patterns: [{namePattern: "registry*.*.aliyuncs.com/acs/*"}]}
`

// soonDenies is denies when what was applied before is in force.
func (f *reviewedCluster) soonDenies(want string, args ...string) {
	f.Helper()
	f.eventually(strings.Join(args, " ")+" is denied", func() error {
		_, says, err := f.plane.Kubectl(f.ctx, append(slices.Clone(args), "--dry-run=server")...)
		if err == nil {
			return errors.New("it is not")
		}
		if !strings.HasPrefix(says, want) {
			return fmt.Errorf("kubectl says %q, want %q", says, want)
		}
		return nil
	})
	f.denies(want, "", args...)
}

// soonDenied waits until what is not attested is denied in a namespace, by dry runs.
func (f *reviewedCluster) soonDenied(namespace string) {
	f.Helper()
	f.eventually("the policy of "+namespace+" is in force", func() error {
		if _, _, err := f.plane.Kubectl(f.ctx, "-n", namespace, "run", "pod", "--image="+f.evil.ByDigest(), "--dry-run=server"); err == nil {
			return errNotYet
		}
		return nil
	})
}

// templates are where the kinds that make pods have their template.
var templates = map[string]struct{ path, version string }{
	"Deployment":            {"/apis/apps/v1/namespaces/market/deployments", "apps/v1"},
	"ReplicaSet":            {"/apis/apps/v1/namespaces/market/replicasets", "apps/v1"},
	"StatefulSet":           {"/apis/apps/v1/namespaces/market/statefulsets", "apps/v1"},
	"DaemonSet":             {"/apis/apps/v1/namespaces/market/daemonsets", "apps/v1"},
	"Job":                   {"/apis/batch/v1/namespaces/market/jobs", "batch/v1"},
	"CronJob":               {"/apis/batch/v1/namespaces/market/cronjobs", "batch/v1"},
	"ReplicationController": {"/api/v1/namespaces/market/replicationcontrollers", "v1"},
	"Pod":                   {"/api/v1/namespaces/market/pods", "v1"},
}

// workload is an object of a kind around the spec of a pod. It makes no pods.
func workload(kind, name string, pod harness.Object) harness.Object {
	labels := harness.Object{"app": name}
	template := harness.Object{"metadata": harness.Object{"labels": labels}, "spec": pod}
	selector := harness.Object{"matchLabels": labels}
	spec := harness.Object{"replicas": 0, "selector": selector, "template": template}
	switch kind {
	case "Pod":
		spec = pod
	case "StatefulSet":
		spec["serviceName"] = name
	case "DaemonSet":
		delete(spec, "replicas")
		pod["nodeSelector"] = harness.Object{"no": "node"}
	case "Job":
		pod["restartPolicy"] = "Never"
		spec = harness.Object{"template": template, "suspend": true}
	case "CronJob":
		pod["restartPolicy"] = "Never"
		spec = harness.Object{"schedule": "0 0 30 2 *", "jobTemplate": harness.Object{"spec": harness.Object{"template": template}}}
	case "ReplicationController":
		spec["selector"] = labels
	}
	return harness.Object{"apiVersion": templates[kind].version, "kind": kind, "metadata": harness.Object{"name": name}, "spec": spec}
}

// podWith is the spec of a pod with an image in one of its places, and the other in the others.
func podWith(place, image, other string) harness.Object {
	pod := harness.Object{"containers": []any{harness.Object{"name": "main", "image": other}}}
	switch place {
	case "containers":
		pod["containers"] = []any{harness.Object{"name": "first", "image": other}, harness.Object{"name": "main", "image": image}}
	case "initContainers":
		pod["initContainers"] = []any{harness.Object{"name": "init", "image": image}}
	case "image volumes":
		pod["volumes"] = []any{harness.Object{"name": "v", "image": harness.Object{"reference": image}}}
	}
	return pod
}

func (f *reviewedCluster) everyKind() {
	good, evil := f.good.ByDigest(), f.evil.ByDigest()
	admin := f.plane.Admin
	for kind, at := range templates {
		webhook := workloadWebhook
		if kind == "Pod" {
			webhook = podWebhook
		}
		for _, place := range []string{"containers", "initContainers", "image volumes"} {
			_, err := admin.Create(f.ctx, at.path+"?dryRun=All", workload(kind, "evil", podWith(place, evil, good)))
			if err == nil || !strings.Contains(err.Error(), webhook+notAttested(evil)) {
				f.Errorf("%s with %s in its %s: %v", kind, evil, place, err)
			}
			if _, err := admin.Create(f.ctx, at.path+"?dryRun=All", workload(kind, "good", podWith(place, good, good))); err != nil {
				f.Errorf("%s with %s in its %s: %v", kind, good, place, err)
			}
		}
		name := "changed-" + strings.ToLower(kind)
		if _, err := admin.Create(f.ctx, at.path, workload(kind, name, podWith("containers", good, good))); err != nil {
			f.Errorf("%s: %v", kind, err)
			continue
		}
		f.changes(kind, at.path+"/"+name, webhook)
		if _, err := admin.Delete(f.ctx, at.path+"/"+name+"?propagationPolicy=Background"); err != nil {
			f.Error(err)
		}
	}
}

// changes changes an object, by a merge patch as kubectl does.
func (f *reviewedCluster) changes(kind, path, webhook string) {
	f.Helper()
	admin := f.plane.Admin
	images := func(image string) harness.Object {
		pod := harness.Object{"containers": []any{harness.Object{"name": "first", "image": f.good.ByDigest()}, harness.Object{"name": "main", "image": image}}}
		spec := harness.Object{"template": harness.Object{"spec": pod}}
		switch kind {
		case "Pod":
			spec = pod
		case "CronJob":
			spec = harness.Object{"jobTemplate": harness.Object{"spec": spec}}
		}
		return harness.Object{"spec": spec}
	}
	if kind == "Pod" {
		f.denies("error: failed to patch image update to pod template: "+webhook+notAttested(f.evil.ByDigest()), "", "-n", market, "set", "image", "pod/changed-pod", "main="+f.evil.ByDigest())
	} else if _, err := admin.Merge(f.ctx, path, images(f.evil.ByDigest())); err == nil || (kind != "Job" && !strings.Contains(err.Error(), webhook+notAttested(f.evil.ByDigest()))) {
		f.Errorf("%s changed to another image: %v", kind, err)
	}
	// (The template of a Job does not change, which the API server sees to itself.)
	if _, err := admin.Merge(f.ctx, path, harness.Object{"metadata": harness.Object{"labels": harness.Object{"changed": "yes"}}}); err != nil {
		f.Errorf("%s with another label: %v", kind, err)
	}
}

func (f *reviewedCluster) bypasses() {
	good, evil := f.good.ByDigest(), f.evil.ByDigest()
	admin := f.plane.Admin
	f.kubectl("", "-n", market, "create", "deployment", "web", "--image="+good)
	f.kubectl("", "-n", market, "rollout", "status", "deployment/web", "--timeout=30s")
	f.denies("error: failed to patch image update to pod template: "+workloadWebhook+notAttested(evil), "", "-n", market, "set", "image", "deployment/web", "*="+evil)

	// An owner of the same name and images vouches for nothing.
	var sets struct{ Items []harness.Object }
	f.decode(f.kubectl("", "-n", market, "get", "replicasets", "-l", "app=web", "-o", "json"), &sets)
	if len(sets.Items) != 1 {
		f.Fatalf("%d ReplicaSets of the Deployment", len(sets.Items))
	}
	owner := sets.Items[0]
	forged := workload("Pod", "forged", podWith("containers", evil, good))
	forged["metadata"] = harness.Object{"name": "forged", "labels": harness.Field(owner, "spec", "selector", "matchLabels"), "ownerReferences": []any{harness.Object{
		"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": harness.Field(owner, "metadata", "name"), "uid": harness.Field(owner, "metadata", "uid"), "controller": true}}}
	if _, err := admin.Create(f.ctx, templates["Pod"].path, forged); err == nil || !strings.Contains(err.Error(), podWebhook+notAttested(evil)) {
		f.Errorf("a pod with a forged owner: %v", err)
	}
	forged["metadata"].(harness.Object)["annotations"] = harness.Object{"kubernetes.io/config.mirror": "x", "kubernetes.io/config.source": "file"}
	delete(forged["metadata"].(harness.Object), "ownerReferences")
	forged["spec"].(harness.Object)["nodeName"] = harness.NodeName
	if _, err := admin.Create(f.ctx, templates["Pod"].path, forged); err == nil || !strings.Contains(err.Error(), podWebhook+notAttested(evil)) {
		f.Errorf("a pod that only says it is a static one: %v", err)
	}

	// What was made before there was a policy can be scaled, and makes no pod.
	f.kubectl("", "create", "namespace", "late")
	if _, err := admin.Create(f.ctx, "/apis/apps/v1/namespaces/late/replicasets", workload("ReplicaSet", "old", podWith("containers", evil, evil))); err != nil {
		f.Fatal(err)
	}
	f.apply(authority("late", "release", f.release) + policy("late", "release", "release"))
	f.soonDenies("Error from server: "+podWebhook+notAttested(evil), "-n", "late", "run", "pod", "--image="+evil)
	f.says("replicaset.apps/old scaled", "", "-n", "late", "scale", "replicaset/old", "--replicas=2")
	f.eventually("the ReplicaSet is told why it gets no pod", func() error {
		out, err := f.tryKubectl("", "-n", "late", "get", "events", "--field-selector=reason=FailedCreate", "-o", "jsonpath={.items[*].message}")
		if err == nil && !strings.Contains(out, podWebhook+notAttested(evil)) {
			err = fmt.Errorf("the events say %q", out)
		}
		return err
	})
	if pods := f.kubectl("", "-n", "late", "get", "pods", "-o", "name"); pods != "" {
		f.Errorf("there are pods: %s", pods)
	}
	f.says("replicaset.apps/old scaled", "", "-n", "late", "scale", "replicaset/old", "--replicas=0") // or it tries on

	// kubectl debug.
	pod := strings.TrimSpace(f.kubectl("", "-n", market, "get", "pods", "-l", "app=web", "-o", "name"))
	f.denies("Error from server: "+podWebhook+notAttested(evil), "", "-n", market, "debug", pod, "--image="+evil, "--container=dbg-evil")
	f.kubectl("", "-n", market, "debug", pod, "--image="+good, "--container=dbg-good")
	f.eventually("the attested ephemeral container runs", func() error {
		out, err := f.tryKubectl("", "-n", market, "get", pod, "-o", "jsonpath={.status.ephemeralContainerStatuses[*].name}:{.status.ephemeralContainerStatuses[*].state.running.startedAt}")
		if name, started, _ := strings.Cut(out, ":"); err == nil && (name != "dbg-good" || started == "") {
			err = fmt.Errorf("%q", out)
		}
		return err
	})

	// A large object is compared, too: nothing it weighs turns an update into a refusal.
	large := workload("Deployment", "large", podWith("containers", good, good))
	env := make([]any, 8000)
	for i := range env {
		env[i] = harness.Object{"name": fmt.Sprintf("NAME_%d", i), "value": strings.Repeat("x", 64)}
	}
	harness.Field(large, "spec", "template", "spec", "containers").([]any)[0].(harness.Object)["env"] = env
	if _, err := admin.Create(f.ctx, templates["Deployment"].path, large); err != nil {
		f.Fatal(err)
	}
	f.says("deployment.apps/large scaled", "", "-n", market, "scale", "deployment/large", "--replicas=0")
	f.changes("Deployment", templates["Deployment"].path+"/large", workloadWebhook)
	f.kubectl("", "-n", market, "delete", "deployment", "--all")
}

func (f *reviewedCluster) decode(text string, into any) {
	f.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		f.Fatal(err)
	}
}

const reporting = `---
apiVersion: kritis.grafeas.io/v1beta1
kind: GenericAttestationPolicy
metadata: {name: release, namespace: %s}
spec: {enforcement: %s, attestationAuthorityNames: [release]}
`

// reports: a policy that warns is heard by who runs kubectl, one that audits in the audit log
// of the API server only.
func (f *reviewedCluster) reports() {
	for namespace, enforcement := range map[string]string{"warned": "Warn", "audited": "Audit"} {
		f.kubectl("", "create", "namespace", namespace)
		f.apply(authority(namespace, "release", f.release) + fmt.Sprintf(reporting, namespace, enforcement))
	}
	run := func(namespace string) (string, error) {
		return f.tryKubectl("", "-n", namespace, "run", "pod", "--image="+f.evil.ByDigest(), "--dry-run=server")
	}
	f.eventually("who runs kubectl is warned", func() error {
		out, err := run("warned")
		if err == nil && !(strings.Contains(out, "Warning: ") && strings.Contains(out, "(Warn) would deny") && strings.Contains(out, "NotAttested")) {
			err = fmt.Errorf("kubectl says %q", out)
		}
		return err
	})
	f.eventually("the audit log says what would be denied", func() error {
		out, err := run("audited")
		if err != nil || strings.Contains(out, "Warning") {
			f.Fatalf("kubectl says %q, %v", out, err)
		}
		content, err := os.ReadFile(f.auditLog)
		if err == nil && !bytes.Contains(content, []byte(`"kritis-validation-hook.grafeas.io/audit-1":"`)) {
			err = errors.New("it does not")
		}
		return err
	})
}

func (f *reviewedCluster) dryRun() {
	const namespace = "dry" // of which nothing was told yet
	f.kubectl("", "create", "namespace", namespace)
	f.apply(authority(namespace, "release", f.release) + policy(namespace, "release", "release"))
	f.soonDenied(namespace)
	events := func() int {
		return strings.Count(f.kubectl("", "-n", namespace, "get", "events", "--field-selector=reason=FailedKritisAdmission", "-o", "name"), "\n")
	}
	decisions := func() (all int) {
		for _, pod := range f.replicas() {
			text := f.kubectl("", "get", "--raw", "/api/v1/namespaces/horkos-system/pods/"+pod.name+":8080/proxy/metrics")
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, "horkos_decisions_total{") {
					n := 0
					if _, err := fmt.Sscan(line[strings.LastIndex(line, " "):], &n); err != nil {
						f.Fatal(err)
					}
					all += n
				}
			}
		}
		return all
	}
	before, decided := events(), decisions()
	for range 5 {
		f.denies("error: failed to create deployment: "+workloadWebhook, "", "-n", namespace, "create", "deployment", "dry", "--image="+f.evil.ByDigest(), "--dry-run=server")
	}
	f.denies("error: failed to create deployment: "+workloadWebhook, "", "-n", namespace, "create", "deployment", "wet", "--image="+f.evil.ByDigest())
	f.eventually("the event of what was no dry run", func() error {
		if events() == before {
			return errNotYet
		}
		return nil
	})
	if n := decisions() - decided; n != 1 {
		f.Errorf("%d decisions are counted, want that of the one that was no dry run", n)
	}
	if out := f.kubectl("", "-n", namespace, "get", "events", "--field-selector=reason=FailedKritisAdmission", "-o", "jsonpath={.items[*].involvedObject.name}"); out != "wet" {
		f.Errorf("the events are of %q, want only that of what was no dry run", out)
	}
}

func (f *reviewedCluster) mirror() {
	if err := f.c.Kubelet.WriteStaticPod("mirrored", fmt.Appendf(nil, staticPod, "mirrored", market, f.good.ByTag(), f.evil.ByTag())); err != nil {
		f.Fatal(err)
	}
	const name = "mirrored-" + harness.NodeName
	f.eventually("users see the pod, and why its node refuses it", func() error {
		out, err := f.tryKubectl("", "-n", market, "get", "pod", name, "-o", "jsonpath={.metadata.annotations}{.status.containerStatuses[0].state.waiting}")
		if err == nil && !(strings.Contains(out, "kubernetes.io/config.mirror") && strings.Contains(out, notAttested(f.evil.ByTag()))) {
			err = fmt.Errorf("it is %q", out)
		}
		return err
	})
	decided := false
	for _, pod := range f.replicas() {
		logs := f.kubectl("", "get", "--raw", "/api/v1/namespaces/horkos-system/pods/"+pod.name+":8080/proxy/metrics")
		decided = decided || regexp.MustCompile(`horkos_decisions_total\{enforcement="audit",gate="webhook",reason="TagNotResolved",result="unresolved"\} [1-9]`).MatchString(logs)
	}
	if !decided {
		f.Error("no replica has decided on it")
	}
	if err := f.c.Kubelet.RemoveStaticPod("mirrored"); err != nil {
		f.Fatal(err)
	}
}

// servingPod is a pod of the webhook.
type servingPod struct{ name, address, container string }

func (f *reviewedCluster) replicas() (all []servingPod) {
	f.Helper()
	var pods struct{ Items []harness.Object }
	f.decode(f.kubectl("", "-n", "horkos-system", "get", "pods", "-l", "app.kubernetes.io/name=horkos-webhook", "-o", "json"), &pods)
	for _, p := range pods.Items {
		if harness.Field(p, "metadata", "deletionTimestamp") != nil {
			continue
		}
		r := servingPod{name: fmt.Sprint(harness.Field(p, "metadata", "name")), address: fmt.Sprint(harness.Field(p, "status", "podIP"))}
		if statuses, _ := harness.Field(p, "status", "containerStatuses").([]any); len(statuses) == 1 {
			_, r.container, _ = strings.Cut(fmt.Sprint(harness.Field(statuses[0], "containerID")), "://")
		}
		all = append(all, r)
	}
	return all
}

// certificate is the serial number of what a replica shows.
func (r servingPod) certificate(ctx context.Context) (string, error) {
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // to look at it, whoever signed it
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(r.address, "8443"))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}

// load makes pods, without leaving any, until it is ended.
type load struct {
	end          func()
	passed       atomic.Int64 // attested ones that passed
	denied       atomic.Int64 // others that were denied
	mu           sync.Mutex
	failed, open []string // what of the attested did not pass, and of the others was not refused
	failures     int
}

func (f *reviewedCluster) startLoad() *load {
	l := &load{}
	ctx, cancel := context.WithCancel(f.ctx)
	var running sync.WaitGroup
	l.end = func() { cancel(); running.Wait() }
	f.Cleanup(l.end)
	for worker := range 4 {
		running.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				good := (i+worker)%2 == 0
				image := f.evil.ByDigest()
				if good {
					image = f.good.ByDigest()
				}
				_, err := f.plane.Admin.Create(ctx, templates["Pod"].path+"?dryRun=All", workload("Pod", fmt.Sprintf("load-%d-%d", worker, i), podWith("containers", image, image)))
				switch {
				case ctx.Err() != nil:
				case good && err == nil:
					l.passed.Add(1)
				case !good && err != nil && strings.Contains(err.Error(), podWebhook+notAttested(image)):
					l.denied.Add(1)
				default:
					l.note(good, err)
				}
			}
		})
	}
	return l
}

func (l *load) note(good bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	what := fmt.Sprint(time.Now().Format(time.TimeOnly), " ", err)
	if !good && err == nil {
		l.open = append(l.open, what)
	}
	if l.failures++; len(l.failed) < 5 {
		l.failed = append(l.failed, what)
	}
}

// replaced renews the authority and the certificate, as who fears for the key does, and
// meanwhile deletes the replicas in turn.
func (f *reviewedCluster) replaced() {
	before := make(map[string]bool)
	for _, r := range f.replicas() {
		serial, err := r.certificate(f.ctx)
		if err != nil {
			f.Fatal(err)
		}
		before[serial] = true
	}
	l := f.startLoad()
	began := time.Now()
	f.kubectl("", "-n", "horkos-system", "patch", "secret", "horkos-webhook-tls", "--type=json", "-p", `[{"op":"remove","path":"/data"}]`)
	for _, r := range f.replicas() {
		f.kubectl("", "-n", "horkos-system", "delete", "pod", r.name, "--timeout=60s")
		f.rollout()
	}
	f.Logf("the replicas are replaced after %v", time.Since(began).Round(time.Second))
	ctx, cancel := context.WithTimeout(f.ctx, 2*time.Minute)
	defer cancel()
	if err := harness.Poll(ctx, "both replicas to show a new certificate", func(ctx context.Context) error {
		replicas := f.replicas()
		for _, r := range replicas {
			serial, err := r.certificate(ctx)
			if err != nil {
				return err
			}
			if before[serial] {
				return fmt.Errorf("%s shows the one of before", r.name)
			}
		}
		if len(replicas) != 2 {
			return fmt.Errorf("%d replicas", len(replicas))
		}
		return nil
	}); err != nil {
		f.Error(err)
	}
	f.Logf("the certificate is another after %v", time.Since(began).Round(time.Second))
	for n, until := l.passed.Load(), time.Now().Add(10*time.Second); l.passed.Load() < n+50 && time.Now().Before(until); {
		time.Sleep(50 * time.Millisecond)
	}
	l.end()
	f.Logf("%d attested pods passed, %d others were denied, %d reviews were lost", l.passed.Load(), l.denied.Load(), l.failures)
	if l.failures > 0 {
		f.Errorf("%d reviews were lost: %q", l.failures, l.failed)
	}
	if l.passed.Load() < 200 || l.denied.Load() < 200 {
		f.Errorf("%d and %d reviews are no load", l.passed.Load(), l.denied.Load())
	}
}

// killed kills both replicas, one after the other, as nothing does that lets them end: what
// is lost then is refused.
func (f *reviewedCluster) killed() {
	l := f.startLoad()
	for _, r := range f.replicas() {
		if err := f.containerd.CRI.StopContainer(f.ctx, r.container, 0); err != nil {
			f.Fatal(err)
		}
		f.eventually("another container in its place", func() error {
			for _, now := range f.replicas() {
				if now.name == r.name && (now.container == r.container || now.container == "") {
					return errNotYet
				}
			}
			return nil
		})
		f.rollout()
	}
	l.end()
	f.Logf("%d attested pods passed, %d others were denied, %d were refused for want of an answer: %q", l.passed.Load(), l.denied.Load(), l.failures, l.failed)
	if l.passed.Load() < 20 || l.denied.Load() < 20 {
		f.Error("that is no load")
	}
	if len(l.open) > 0 {
		f.Errorf("%d pods were let through: %q", len(l.open), l.open)
	}
}

func (f *reviewedCluster) away() {
	good, evil := f.good.ByDigest(), f.evil.ByDigest()
	admin := f.plane.Admin
	f.kubectl("", "-n", market, "create", "deployment", "there", "--image="+good, "--replicas=1")
	f.kubectl("", "-n", market, "rollout", "status", "deployment/there", "--timeout=30s")
	pod := workload("Pod", "held", podWith("containers", good, good))
	pod["metadata"] = harness.Object{"name": "held", "finalizers": []any{"example.com/held"}}
	if _, err := admin.Create(f.ctx, templates["Pod"].path, pod); err != nil {
		f.Fatal(err)
	}
	f.kubectl("", "-n", "horkos-system", "scale", "deployment/horkos-webhook", "--replicas=0")
	f.kubectl("", "-n", "horkos-system", "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=horkos-webhook", "--timeout=50s")
	for _, image := range []string{good, evil} {
		f.eventually(image+" is refused", func() error {
			_, says, err := f.plane.Kubectl(f.ctx, "-n", market, "run", "away", "--image="+image)
			if err == nil {
				f.Fatal("it is not")
			}
			if want := `Error from server (InternalError): Internal error occurred: failed calling webhook "kritis-validation-hook.grafeas.io"`; !strings.HasPrefix(says, want) {
				return fmt.Errorf("kubectl says %q", says)
			}
			return nil
		})
	}
	f.staticPodsAreDecided(f.c, f.good, f.evil)

	// What makes nothing new goes on.
	f.says("deployment.apps/there scaled", "", "-n", market, "scale", "deployment/there", "--replicas=0")
	f.eventually("the pod of the Deployment goes", func() error {
		out, err := f.tryKubectl("", "-n", market, "get", "pods", "-l", "app=there", "-o", "name")
		if err == nil && out != "" {
			err = errors.New(out)
		}
		return err
	})
	f.says("pod/held patched", "", "-n", market, "patch", "pod", "held", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	f.kubectl("", "-n", market, "delete", "pod", "held", "--now")
	f.kubectl("", "delete", "namespace", "late", "--timeout=30s")

	// And it comes back by itself: nobody asks it about its own pods.
	f.kubectl("", "-n", "horkos-system", "scale", "deployment/horkos-webhook", "--replicas=2")
	f.rollout()
	f.kubectl("", "-n", market, "delete", "deployment", "there")
}

func (f *reviewedCluster) keyGone() {
	f.kubectl("", "-n", market, "run", "admitted", "--image="+f.good.ByDigest())
	f.kubectl("", "-n", market, "wait", "pod/admitted", "--for=condition=Ready", "--timeout=30s")
	before := f.revision()
	f.apply(authority(market, "release", newKey(f.T)))
	f.within("the node decides by the new key", func() bool { return f.revision() != before })
	var pod harness.Object
	f.decode(f.kubectl("", "-n", market, "get", "pod", "admitted", "-o", "json"), &pod)
	_, container, _ := strings.Cut(fmt.Sprint(harness.Field(harness.Field(pod, "status", "containerStatuses").([]any)[0], "containerID")), "://")
	if err := f.containerd.CRI.StopContainer(f.ctx, container, 0); err != nil {
		f.Fatal(err)
	}
	f.eventually("its next container is refused by the node", func() error {
		out, err := f.tryKubectl("", "-n", market, "get", "pod", "admitted", "-o", "jsonpath={.status.containerStatuses[0].state.waiting}")
		if err == nil && !(strings.Contains(out, "CreateContainerError") && strings.Contains(out, notAttested(f.good.ByDigest()))) {
			err = fmt.Errorf("it is %q", out)
		}
		return err
	})
	f.soonDenies("Error from server: "+podWebhook+notAttested(f.good.ByDigest()), "-n", market, "run", "again", "--image="+f.good.ByDigest())
}

// emergency does what the page says, as the people it speaks of.
func (f *reviewedCluster) emergency() {
	f.kubectl("", "create", "namespace", shop)
	f.kubectl("", "-n", shop, "wait", "--for=create", "serviceaccount/default", "--timeout=30s")
	oncall := newKey(f.T)
	f.apply(authority(shop, "release", f.release) + authority(shop, "oncall", oncall) + emergencyPolicy)
	f.kubectl("", "-n", shop, "create", "deployment", "cart", "--image="+f.good.ByDigest())
	f.kubectl("", "-n", shop, "rollout", "status", "deployment/cart", "--timeout=30s")
	f.kubectl("", "-n", shop, "create", "rolebinding", "oncall", "--clusterrole=edit", "--group=oncall")
	alice, err := f.plane.WriteKubeconfig("alice", "alice", "oncall", "system:authenticated")
	if err != nil {
		f.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(oncall.private)
	if err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "oncall.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		f.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/emergency.md")
	if err != nil {
		f.Fatal(err)
	}
	var blocks []string
	for _, part := range strings.Split(string(page), "```sh\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		blocks = append(blocks, block)
	}
	if len(blocks) != 7 || !strings.HasPrefix(blocks[0], "image=registry.example.com/shop/cart@sha256:...\n") {
		f.Fatalf("the page has %d blocks that begin with %q", len(blocks), blocks[0])
	}
	enter := func(kubeconfig, block string) string {
		f.Helper()
		shell := exec.CommandContext(f.ctx, "bash", "-euo", "pipefail", "-c", "image="+f.evil.ByDigest()+"\n"+block)
		shell.Dir = dir
		shell.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, f.plane.KubectlCache(),
			"PATH="+filepath.Dir(f.run.Program("horkos"))+":"+filepath.Dir(f.run.Program("tools/kubectl"))+":"+os.Getenv("PATH"))
		out, err := shell.CombinedOutput()
		f.Logf("%s%s", block, out)
		if err != nil {
			f.Fatal(err)
		}
		return string(out)
	}
	admin := f.plane.AdminKubeconfig
	f.soonDenies("Error from server: "+podWebhook+notAttested(f.evil.ByDigest()), "-n", shop, "run", "before", "--image="+f.evil.ByDigest())
	if _, says, err := f.plane.KubectlAs(f.ctx, alice, "", "-n", shop, "run", "before", "--image="+f.evil.ByDigest(), "--annotations=kritis.grafeas.io/breakglass=true"); err == nil || !strings.Contains(says, notAttested(f.evil.ByDigest())) {
		f.Errorf("without the right: %q, %v", says, err)
	}
	enter(admin, blocks[1])
	f.eventually("alice has the right", func() error {
		_, _, err := f.plane.KubectlAs(f.ctx, alice, "", "auth", "can-i", "breakglass", "clusterattestationpolicies.horkos.dev")
		return err
	})
	if out := enter(alice, blocks[2]); !strings.Contains(out, "pod/cart created") || !strings.Contains(out, "Warning: breakglass") {
		f.Errorf("it says %q", out)
	}
	enter(admin, blocks[3])
	f.eventually("the ReplicaSet makes a pod by the token, and its node refuses it as it does alice's", func() error {
		out, err := f.tryKubectl("", "-n", shop, "get", "pods", "-o", "jsonpath={range .items[*]}{.status.containerStatuses[0].image} {.status.containerStatuses[0].state.waiting.reason}{\"\\n\"}{end}")
		if n := strings.Count(out, " CreateContainerError"); err == nil && n != 2 {
			err = fmt.Errorf("%d of %q", n, out)
		}
		return err
	})
	enter(admin, blocks[5])
	f.kubectl("", "-n", shop, "rollout", "status", "deployment/cart", "--timeout=60s")
	f.kubectl("", "-n", shop, "wait", "pod/cart", "--for=condition=Ready", "--timeout=60s")
	out := enter(admin, blocks[6])
	for _, object := range []string{"pod/cart ", "pod/cart-"} {
		if !strings.Contains(out, object) {
			f.Errorf("no event of %s: %s", object, out)
		}
	}
	records, err := f.node.Audit()
	if err != nil {
		f.Fatal(err)
	}
	if !slices.ContainsFunc(records, func(r harness.AuditRecord) bool { return r.Namespace == shop && r.Reason == "Emergency" && r.Admitted }) {
		f.Error("the node has no record of the emergency")
	}
	enter(admin, blocks[4]) // that the webhook makes another key is for its own tests
}

const emergencyPolicy = `---
apiVersion: kritis.grafeas.io/v1beta1
kind: GenericAttestationPolicy
metadata: {name: release, namespace: shop}
spec: {attestationAuthorityNames: [release], emergencyAuthorityNames: [oncall]}
`
