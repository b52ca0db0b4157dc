package suites

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	introspection "github.com/containerd/containerd/api/services/introspection/v1"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/horkos/horkos/integration/harness"
)

const nodeImage = "registry.example.com/horkos"

// TestTheDaemonSetAuditsANodeOfACluster applies what users apply, with the image of make
// image, to a cluster of one node. Only the host's folders are others.
func TestTheDaemonSetAuditsANodeOfACluster(t *testing.T) {
	harness.RequireCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	d := startDaemonSet(ctx, t)

	t.Log("the pod is up after", d.lasted())
	d.awaitNodeGate(ctx, "audit")
	t.Run("it has no capability and writes to one folder", func(t *testing.T) { d.confined(t) })
	t.Run("it reads the content store where containerd says that it is", func(t *testing.T) { d.readsContent(ctx, t) })

	evil := must2(d.registry.Push(miner+":1", harness.Image{Seed: "evil"}))(t)
	none := d.revision(ctx)
	d.kubectl(ctx, authority(shop, "release", newKey(t))+policy(shop, "release", "release"))
	if err := harness.Poll(ctx, "the policy to be in force on the node", func(ctx context.Context) error {
		if d.revision(ctx) == none {
			return errors.New("it is not")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	d.awaitRecord(ctx, "first", evil)

	// Sockets are made anew; a pod that had them mounted, and not their folders, would be deaf.
	if err := d.cluster.Containerd.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	d.awaitRecord(ctx, "second", evil)

	t.Run("it holds no file system of a container that is gone", func(t *testing.T) { d.letsGo(ctx, t) })
	t.Run("an update hands the node over", func(t *testing.T) { d.update(ctx, t, evil) })
	t.Run("the controller runs beside it, and nobody is forbidden what he needs", func(t *testing.T) { d.together(ctx, t) })
	t.Run("it leaves a node to the gate of the host", func(t *testing.T) { d.leaves(ctx, t) })
}

// daemonSet is a cluster of one node with the DaemonSet in it.
type daemonSet struct {
	*testing.T
	began    time.Time
	registry *harness.Registry
	cluster  *harness.Cluster
	folders  string // of the host, in place of /etc/horkos and /var/lib/horkos-audit
}

func startDaemonSet(ctx context.Context, t *testing.T) *daemonSet {
	t.Helper()
	run := harness.New(t)
	d := &daemonSet{T: t, began: time.Now(), folders: filepath.Join(run.Dir, "host")}
	var err error
	if d.registry, err = run.StartRegistry(harness.RegistryOptions{}); err != nil {
		t.Fatal(err)
	}
	pushLayout(t, d.registry, filepath.Dir(run.Program("image/oci-layout")))
	if d.cluster, err = run.StartCluster(ctx, harness.ClusterOptions{Registry: d.registry}); err != nil {
		t.Fatal(err)
	}
	manifests, _, err := d.cluster.ControlPlane.Kubectl(ctx, "kustomize", "daemonset")
	if err != nil {
		t.Fatal(err)
	}
	d.kubectl(ctx, d.moved().Replace(manifests))
	d.kubectl(ctx, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+shop+"}\n")
	d.rollout(ctx)
	return d
}

// moved gives the host's folders those of this cluster: paths, and nothing else.
func (d *daemonSet) moved() *strings.Replacer {
	c := d.cluster.Containerd
	return strings.NewReplacer(
		"/var/lib/containerd/", c.Dir+"/root/",
		"/run/containerd", c.Dir,
		"/var/run/nri", filepath.Dir(c.NRISocket),
		"/etc/horkos/policies", d.folders+"/policies",
		"/var/lib/horkos-audit", d.folders+"/state",
	)
}

func (d *daemonSet) lasted() time.Duration { return time.Since(d.began).Round(time.Millisecond) }

// kubectl applies manifests.
func (d *daemonSet) kubectl(ctx context.Context, manifests string) {
	d.Helper()
	plane := d.cluster.ControlPlane
	if _, _, err := plane.KubectlAs(ctx, plane.AdminKubeconfig, manifests, "apply", "--server-side", "-f", "-"); err != nil {
		d.Fatal(err)
	}
}

// rollout waits until the DaemonSet is as it should be on the node.
func (d *daemonSet) rollout(ctx context.Context) {
	d.Helper()
	if _, _, err := d.cluster.ControlPlane.Kubectl(ctx, "-n", "horkos-system", "rollout", "status", "daemonset/horkos-node", "--timeout=50s"); err != nil {
		d.Fatal(err, "\n", d.logs(ctx))
	}
}

// pods are those of the DaemonSet.
func (d *daemonSet) pods(ctx context.Context) []any {
	d.Helper()
	return list(must(d.T)(d.cluster.ControlPlane.Admin.Get(ctx, ours+"/pods?labelSelector=app.kubernetes.io/name%3Dhorkos-node")), "items")
}

// logs tells how the pods are, and what they log.
func (d *daemonSet) logs(ctx context.Context) string {
	var all strings.Builder
	for _, pod := range d.pods(ctx) {
		name := fmt.Sprint(harness.Field(pod, "metadata", "name"))
		said, err := d.cluster.ControlPlane.Admin.Raw(ctx, ours+"/pods/"+name+"/log?tailLines=20")
		fmt.Fprintf(&all, "%s: %v: %v\n%s%v\n", name, harness.Field(pod, "status", "phase"), harness.Field(pod, "status", "containerStatuses"), said, err)
		events, err := d.cluster.ControlPlane.Admin.Get(ctx, ours+"/events?fieldSelector=involvedObject.name%3D"+name)
		for _, event := range list(events, "items") {
			fmt.Fprintln(&all, harness.Field(event, "message"), err)
		}
	}
	return all.String()
}

// revision is that of the policies which the daemon decides by, as its metrics have it.
func (d *daemonSet) revision(ctx context.Context) string {
	d.Helper()
	address := net.JoinHostPort(fmt.Sprint(harness.Field(d.pods(ctx)[0], "status", "podIP")), "8080")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		d.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		d.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		d.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		if strings.HasPrefix(line, "horkos_policy_revision_info{") {
			return line
		}
	}
	d.Fatalf("no revision in the metrics:\n%s", content)
	return ""
}

// awaitNodeGate waits until the node says that it is ready in the mode.
func (d *daemonSet) awaitNodeGate(ctx context.Context, mode string) {
	d.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := harness.Poll(ctx, "the NodeGate", func(ctx context.Context) error {
		gate, err := d.cluster.ControlPlane.Admin.Get(ctx, nodeGates+"/"+harness.NodeName)
		if err != nil {
			return err
		}
		if harness.Field(gate, "status", "mode") != mode || harness.Field(gate, "status", "ready") != true {
			return fmt.Errorf("%v", gate["status"])
		}
		return nil
	}); err != nil {
		d.Fatal(err, "\n", d.logs(context.WithoutCancel(ctx)))
	}
	table, _, err := d.cluster.ControlPlane.Kubectl(ctx, "get", "nodegates")
	d.Log(d.lasted(), "\n"+table, err)
}

// process is the id of the daemon's process in the DaemonSet's one pod.
func (d *daemonSet) process(t *testing.T) int {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range found {
		line, err := os.ReadFile(file)
		if err == nil && bytes.HasPrefix(line, []byte("/horkos-node\x00")) && bytes.Contains(line, []byte(d.folders)) {
			id, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
	}
	t.Fatal("the daemon of the pod is not among the processes")
	return 0
}

// confined looks at the process: root without a capability, and one writable folder.
func (d *daemonSet) confined(t *testing.T) {
	proc := fmt.Sprintf("/proc/%d/", d.process(t))
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t0\t0\t0\t0", "CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
		"CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(status), want+"\n") {
			t.Errorf("%s is not in its status:\n%s", want, status)
		}
	}
	for _, m := range mounts(t, proc) {
		of := m.options["rw"]
		switch {
		case m.path == "/":
			if of {
				t.Error("its root file system is writable")
			}
		case strings.HasPrefix(m.path, d.cluster.Containerd.Dir+"/") && !strings.Contains(m.path, "/rootfs/"): // as it was itself made
			if of {
				t.Errorf("%s, of containerd, is writable", m.path)
			}
		case strings.HasPrefix(m.path, d.folders):
			if of != (m.path == d.folders+"/state") {
				t.Errorf("%s is writable: %v", m.path, of)
			}
		}
	}
}

// readsContent looks whether a blob is where the daemon looks for it, in a mount of its own.
func (d *daemonSet) readsContent(ctx context.Context, t *testing.T) {
	c := d.cluster.Containerd
	answer, err := introspection.NewIntrospectionClient(c.Conn).Plugins(ctx, &introspection.PluginsRequest{Filters: []string{"type==io.containerd.content.v1,id==content"}})
	if err != nil || len(answer.GetPlugins()) != 1 {
		t.Fatalf("%v, %v", answer, err)
	}
	root := answer.GetPlugins()[0].GetExports()["root"]
	if name, err := filepath.Rel(filepath.Join(c.Dir, "root"), root); err != nil || name != "io.containerd.content.v1.content" {
		t.Errorf("the content store is %s of containerd's root, %v", name, err)
	}
	proc := fmt.Sprintf("/proc/%d/", d.process(t))
	mounted := false
	for _, m := range mounts(t, proc) {
		if m.path == root {
			if mounted = true; m.options["rw"] {
				t.Errorf("%s is writable", m.path)
			}
		}
	}
	blob := filepath.Join(proc, "root", root, "blobs", strings.Replace(d.registry.Pause.Config, ":", "/", 1))
	if _, err := os.ReadFile(blob); err != nil || !mounted {
		t.Errorf("mounted: %v; %v", mounted, err)
	}
}

// letsGo deletes a pod that runs, whose root file system the daemon has mounted too, with
// containerd's folder.
func (d *daemonSet) letsGo(ctx context.Context, t *testing.T) {
	below := func(proc string) map[string]bool {
		paths := make(map[string]bool)
		for _, m := range mounts(t, proc) {
			if strings.HasPrefix(m.path, d.cluster.Containerd.State+"/") {
				paths[m.path] = true
			}
		}
		return paths
	}
	daemon := fmt.Sprintf("/proc/%d/", d.process(t))
	before, held := below("/proc/self/"), below(daemon)
	both := 0
	for path := range before {
		if held[path] {
			both++
		}
	}
	if both < 2 {
		t.Fatalf("the daemon has %d of the mounts of the host, and would hold none", both)
	}
	must(t)(d.cluster.ControlPlane.Admin.Delete(ctx, "/api/v1/namespaces/"+shop+"/pods/first?gracePeriodSeconds=0"))
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := harness.Poll(ctx, "the pod's mounts to be gone", func(context.Context) error {
		host, held := below("/proc/self/"), below(daemon)
		gone := 0
		for path := range before {
			switch {
			case host[path]:
			case held[path]:
				return fmt.Errorf("the daemon holds %s, which the host has unmounted", path)
			default:
				gone++
			}
		}
		if gone == 0 {
			return errors.New("the host has them all")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// together looks at all of it at work.
func (d *daemonSet) together(ctx context.Context, t *testing.T) {
	plane := d.cluster.ControlPlane
	for _, args := range [][]string{
		{"-n", "horkos-system", "rollout", "status", "deployment/horkos-controller", "--timeout=50s"},
		{"-n", shop, "wait", "genericattestationpolicy/release", "--for=condition=Ready", "--timeout=30s"},
	} {
		if _, _, err := plane.Kubectl(ctx, args...); err != nil {
			t.Error(err)
		}
	}
	for _, pod := range list(must(t)(plane.Admin.Get(ctx, ours+"/pods")), "items") {
		name := fmt.Sprint(harness.Field(pod, "metadata", "name"))
		said, err := plane.Admin.Raw(ctx, ours+"/pods/"+name+"/log")
		if err != nil || said == "" || strings.Contains(said, "forbidden") {
			t.Errorf("%s: %v\n%s", name, err, said)
		}
	}
}

// leaves labels the node as one that has a gate of its own.
func (d *daemonSet) leaves(ctx context.Context, t *testing.T) {
	if _, _, err := d.cluster.ControlPlane.Kubectl(ctx, "label", "node", harness.NodeName, "horkos.dev/gate=host"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := harness.Poll(ctx, "the pod to leave", func(ctx context.Context) error {
		if pods := d.pods(ctx); len(pods) > 0 {
			return fmt.Errorf("there are %d", len(pods))
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

type mount struct {
	path    string
	options map[string]bool
}

// mounts reads the mounts of a process (proc(5), /proc/pid/mountinfo).
func mounts(t *testing.T, proc string) []mount {
	t.Helper()
	content, err := os.ReadFile(proc + "mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var all []mount
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		m := mount{fields[4], make(map[string]bool)}
		for option := range strings.SplitSeq(fields[5], ",") {
			m.options[option] = true
		}
		all = append(all, m)
	}
	return all
}

// awaitRecord runs a pod of an image that is not attested: it runs, and is recorded.
func (d *daemonSet) awaitRecord(ctx context.Context, name string, image harness.Pushed) {
	d.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	pods := "/api/v1/namespaces/" + shop + "/pods"
	if err := harness.Poll(ctx, name+" to be made", func(ctx context.Context) error {
		_, err := d.cluster.ControlPlane.Admin.Create(ctx, pods, harness.Object{
			"metadata": harness.Object{"name": name},
			"spec":     harness.Object{"containers": []any{harness.Object{"name": "main", "image": image.ByTag()}}},
		})
		return err // the service account comes a moment after the namespace
	}); err != nil {
		d.Fatal(err)
	}
	if err := harness.Poll(ctx, name+" to run, and to be recorded", func(ctx context.Context) error {
		pod, err := d.cluster.ControlPlane.Admin.Get(ctx, pods+"/"+name)
		if err != nil {
			return err
		}
		if harness.Field(pod, "status", "phase") != "Running" {
			return fmt.Errorf("%v", pod["status"])
		}
		records := d.records()
		for _, r := range records {
			if r.Pod == name && r.Namespace == shop {
				// Denied, or unresolved: nobody was asked for its attestations yet.
				if r.Enforcement != "audit" || !r.Admitted || r.Result == "allowed" {
					d.Fatalf("it is recorded as %s", r.Line)
				}
				return nil
			}
		}
		return fmt.Errorf("not among %d records", len(records))
	}); err != nil {
		d.Fatal(err, "\n", d.logs(context.WithoutCancel(ctx)))
	}
}

// records reads the audit log in the state folder on the host.
func (d *daemonSet) records() []harness.AuditRecord {
	d.Helper()
	content, err := os.ReadFile(filepath.Join(d.folders, "state", "audit.log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		d.Fatal(err)
	}
	var records []harness.AuditRecord
	for line := range bytes.Lines(content) {
		record := harness.AuditRecord{Line: bytes.TrimSpace(line)}
		if err := json.Unmarshal(line, &record); err != nil {
			d.Fatal(err)
		}
		records = append(records, record)
	}
	return records
}

// update changes the DaemonSet: a new pod comes, gets the state folder of the old one, and
// records on.
func (d *daemonSet) update(ctx context.Context, t *testing.T, image harness.Pushed) {
	before := harness.Field(d.pods(ctx)[0], "metadata", "name")
	began := time.Now()
	if _, _, err := d.cluster.ControlPlane.Kubectl(ctx, "-n", "horkos-system", "rollout", "restart", "daemonset/horkos-node"); err != nil {
		t.Fatal(err)
	}
	d.rollout(ctx)
	if err := harness.Poll(ctx, "the old pod to be gone", func(ctx context.Context) error {
		if pods := d.pods(ctx); len(pods) != 1 || harness.Field(pods[0], "metadata", "name") == before {
			return fmt.Errorf("%d pods", len(pods))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Log("the node was handed over after", time.Since(began).Round(time.Millisecond))
	// Rolled out is not registered: the new one waits for the old one's state folder first.
	if err := harness.Poll(ctx, "the new one to gate", func(ctx context.Context) error {
		pod := d.pods(ctx)[0]
		said, err := d.cluster.ControlPlane.Admin.Raw(ctx, ours+"/pods/"+fmt.Sprint(harness.Field(pod, "metadata", "name"))+"/log")
		if err == nil && !strings.Contains(said, "registered with the runtime") {
			err = errors.New(said)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	d.awaitRecord(ctx, "third", image)
	if restarts := harness.Field(list(d.pods(ctx)[0], "status", "containerStatuses")[0], "restartCount"); restarts != float64(0) {
		t.Errorf("the new pod was restarted %v times", restarts)
	}
}

// pushLayout pushes the image of make image under the tag of the manifests.
func pushLayout(t *testing.T, registry *harness.Registry, dir string) {
	t.Helper()
	file := func(name string) []byte {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatalf("%v; run make image", err)
		}
		return content
	}
	blob := func(d v1.Descriptor) []byte { return file("blobs/" + d.Digest.Algorithm + "/" + d.Digest.Hex) }
	parse := func(content []byte, into any) {
		if err := json.Unmarshal(content, into); err != nil {
			t.Fatal(err)
		}
	}
	push := func(d v1.Descriptor, tag string) {
		if _, err := registry.PushManifest(nodeImage, tag, string(d.MediaType), blob(d)); err != nil {
			t.Fatal(err)
		}
	}
	var layout, index v1.IndexManifest
	parse(file("index.json"), &layout)
	parse(blob(layout.Manifests[0]), &index)
	for _, m := range index.Manifests {
		var manifest v1.Manifest
		parse(blob(m), &manifest)
		for _, part := range append(manifest.Layers, manifest.Config) {
			if _, err := registry.PushBlob(nodeImage, blob(part)); err != nil {
				t.Fatal(err)
			}
		}
		push(m, "")
	}
	push(layout.Manifests[0], "VERSION")
}

// must2 is must for any value.
func must2[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}
