package harness

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	deployments = "/apis/apps/v1/namespaces/default/deployments"
	pods        = "/api/v1/namespaces/default/pods"
)

// TestAClusterRunsWhatIsAttestedAndAPodSaysWhyNot: by all the real components between
// a Deployment and a container, on the host's network and on the bridge.
func TestAClusterRunsWhatIsAttestedAndAPodSaysWhyNot(t *testing.T) {
	RequireCluster(t)
	run := New(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	registry := startRegistry(t, run)
	evil := push(t, registry, Host+"/team/evil:1", Image{Seed: "evil"})
	good := push(t, registry, app, Image{Seed: "good"})
	began := time.Now()
	cluster, err := run.StartCluster(ctx, ClusterOptions{
		Registry:   registry,
		Containerd: ContainerdOptions{NRI: NRIOptions{RequiredPlugins: []string{"99-horkos"}}},
		Node:       &NodeOptions{DefaultAction: "deny", Floor: []string{registry.Pause.Digest, good.Digest}},
		Prepare:    func(n *Node) error { return n.WritePolicy("policy.yaml", releasePolicy(t)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the cluster was ready after %v", time.Since(began).Round(time.Millisecond))
	logMemory(t, cluster.Containerd.Service, cluster.Node.Service, cluster.Kubelet.Service)
	api := cluster.ControlPlane.Admin

	began = time.Now()
	for name, deployed := range map[string]Object{
		"host":   deployment("host", good.ByTag(), true),
		"bridge": deployment("bridge", good.ByTag(), false),
		"evil":   deployment("evil", evil.ByTag(), true),
	} {
		if _, err := api.Apply(ctx, deployments+"/"+name, "test", deployed); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"host", "bridge"} {
		pod := runningPod(ctx, t, cluster, name)
		t.Logf("deployment %s ran after %v", name, time.Since(began).Round(time.Millisecond))
		address, err := netip.ParseAddr(fmt.Sprint(Field(pod, "status", "podIP")))
		if err != nil || !cluster.Network.Pods.Contains(address) {
			t.Errorf("the pod of %s has the address %v, %v; want one of %v", name, address, err, cluster.Network.Pods)
		}
		log, err := api.Raw(ctx, pods+"/"+fmt.Sprint(Field(pod, "metadata", "name"))+"/log")
		if err != nil || log != "" {
			t.Errorf("the log of the pod of %s: %q, %v", name, log, err)
		}
	}
	want := "image " + evil.ByTag() + " is not attested"
	event := eventOf(ctx, t, cluster, "evil", want)
	t.Logf("the event: %v: %v", Field(event, "reason"), Field(event, "message"))
	if pod, err := podOf(ctx, cluster, "evil"); err != nil || Field(pod, "status", "phase") != "Pending" {
		t.Errorf("the pod of evil: %v, %v; want Pending", Field(pod, "status", "phase"), err)
	}
}

func TestAPodOfAClusterReachesTheAPIServerAsAService(t *testing.T) {
	RequireCluster(t)
	run := New(t)
	registry := startRegistry(t, run)
	cluster := startCluster(t, run, registry)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := cluster.ControlPlane.Admin.Create(ctx, pods, Object{
		"metadata": Object{"name": "client"},
		"spec":     Object{"containers": []any{Object{"name": "main", "image": PauseImage}}},
	}); err != nil {
		t.Fatal(err)
	}
	runningPod(ctx, t, cluster, "client")
	id := containerOf(ctx, t, cluster, "client")
	const secrets = "/var/run/secrets/kubernetes.io/serviceaccount/"
	for _, name := range []string{"token", "ca.crt", "namespace"} {
		content, err := cluster.Containerd.CRI.Exec(ctx, id, "/pause", "print", secrets+name)
		if err != nil || content == "" {
			t.Errorf("the pod's %s: %q, %v", name, content, err)
		}
	}
	environment, err := cluster.Containerd.CRI.Exec(ctx, id, "/pause", "print", "/proc/1/environ")
	if err != nil {
		t.Fatal(err)
	}
	variables := make(map[string]string)
	for variable := range strings.SplitSeq(environment, "\x00") {
		name, value, _ := strings.Cut(variable, "=")
		variables[name] = value
	}
	token, err := cluster.Containerd.CRI.Exec(ctx, id, "/pause", "print", secrets+"token")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cluster.ControlPlane.authority.pem)
	inside := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		DialContext:       dialIn(filepath.Join(cluster.Containerd.State, "io.containerd.runtime.v2.task", Namespace, id, "init.pid")),
		DisableKeepAlives: true,
	}}
	service := "https://" + net.JoinHostPort(variables["KUBERNETES_SERVICE_HOST"], variables["KUBERNETES_SERVICE_PORT"])
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, service+configMaps, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := inside.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusForbidden { // authenticated, and without a role
		t.Errorf("the API server at %s answers the token of a pod with %s, want 403", service, response.Status)
	}
}

// TestAClusterOutlivesItsAPIServer: what runs goes on while it is away, and what is
// applied after its return is run.
func TestAClusterOutlivesItsAPIServer(t *testing.T) {
	RequireCluster(t)
	run := New(t)
	cluster := startCluster(t, run, startRegistry(t, run))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	api := cluster.ControlPlane.Admin
	if _, err := api.Create(ctx, deployments, deployment("before", PauseImage, true)); err != nil {
		t.Fatal(err)
	}
	runningPod(ctx, t, cluster, "before")
	id := containerOf(ctx, t, cluster, "before")
	if err := cluster.ControlPlane.APIServer.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Kubelet.WriteStaticPod("app.json", staticPod(t, PauseImage)); err != nil {
		t.Fatal(err)
	}
	if err := Poll(ctx, "a static pod without an API server", runsIn(cluster.Containerd, "app-node")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := cluster.ControlPlane.APIServer.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := cluster.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("the API server was back after %v", time.Since(began).Round(time.Millisecond))
	if _, err := api.Create(ctx, deployments, deployment("after", PauseImage, true)); err != nil {
		t.Fatal(err)
	}
	runningPod(ctx, t, cluster, "after")
	t.Logf("a new deployment ran after %v", time.Since(began).Round(time.Millisecond))
	runningPod(ctx, t, cluster, "app-node") // the mirror of the static pod
	t.Logf("and its mirror was there after %v", time.Since(began).Round(time.Millisecond))
	if again := containerOf(ctx, t, cluster, "before"); again != id {
		t.Error("the container from before was made again")
	}
}

func TestNothingIsLeftOfACluster(t *testing.T) {
	RequireCluster(t)
	before := settings(t)
	run, err := NewRun()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = run.Close() })
	cluster := startCluster(t, run, startRegistry(t, run))
	for name, host := range map[string]bool{"host": true, "bridge": false} {
		if _, err := cluster.ControlPlane.Admin.Create(t.Context(), deployments, deployment(name, PauseImage, host)); err != nil {
			t.Fatal(err)
		}
		runningPod(t.Context(), t, cluster, name)
	}
	bridge := filepath.Join(interfaces, filepath.Base(run.Dir))
	links, err := filepath.Glob(filepath.Join(bridge, "brif", "*"))
	if err != nil || len(links) == 0 {
		t.Errorf("the bridge has the interfaces %v, %v; want one of a pod", links, err)
	}
	began := time.Now()
	if err := run.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("closed in %v", time.Since(began).Round(time.Millisecond))
	wantNothingLeft(t, run.Dir)
	if left := commandsOf(t, run.Dir); left != "" {
		t.Errorf("programs are left: %s", left)
	}
	wantSettings(t, before)
	for file, of := range results() {
		if of == run.Dir {
			t.Errorf("a result of the plugins is left: %s", file)
		}
	}
	// The kernel removes the interfaces of a pod after its last process.
	if err := until(5*time.Second, func() error {
		for _, link := range append(links, bridge) {
			if _, err := os.Lstat(filepath.Join(interfaces, filepath.Base(link))); err == nil {
				return fmt.Errorf("a network interface is left: %s", filepath.Base(link))
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestTheNextClusterRemovesWhatAKilledProgramLeft(t *testing.T) {
	RequireCluster(t)
	program := exec.Command(os.Args[0], "-test.run=^TestClusterHelper$")
	program.Env = append(os.Environ(), envHelper+"=cluster")
	program.Stderr = os.Stderr
	stdout, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Process.Kill() })
	var dir string
	for lines := bufio.NewScanner(stdout); dir == "" && lines.Scan(); {
		if found, is := strings.CutPrefix(lines.Text(), "run: "); is {
			dir = found
		}
	}
	if dir == "" {
		t.Fatal("the helper did not get to run a cluster")
	}
	if err := program.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = program.Wait()
	run := New(t)
	wantNothingLeft(t, dir)
	if left := commandsOf(t, dir); left != "" {
		t.Errorf("programs are left: %s", left)
	}
	if _, err := run.StartNetwork(); err != nil {
		t.Fatal(err)
	}
	for file, of := range results() {
		if of == dir {
			t.Errorf("a result of the plugins is left: %s", file)
		}
	}
	if links := interfacesOf(t); strings.Contains(links, filepath.Base(dir)) || !strings.Contains(links, filepath.Base(run.Dir)) {
		t.Errorf("the interfaces are %s; want the bridge of %s and not that of %s", links, run.Dir, dir)
	}
}

// TestClusterHelper is the program that is killed: it runs a cluster with a pod on the
// bridge and says where.
func TestClusterHelper(t *testing.T) {
	if os.Getenv(envHelper) != "cluster" {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	run := New(t)
	cluster := startCluster(t, run, startRegistry(t, run))
	if _, err := cluster.ControlPlane.Admin.Create(ctx, deployments, deployment("bridge", PauseImage, false)); err != nil {
		t.Fatal(err)
	}
	runningPod(ctx, t, cluster, "bridge")
	fmt.Println("run:", run.Dir)
	<-ctx.Done()
}

// commandsOf are the command lines with the folder in them.
func commandsOf(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(content), dir+"/") {
			all = append(all, strings.ReplaceAll(string(content), "\x00", " "))
		}
	}
	return strings.Join(all, "; ")
}

func startCluster(t *testing.T, run *Run, registry *Registry) *Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	began := time.Now()
	cluster, err := run.StartCluster(ctx, ClusterOptions{Registry: registry})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the cluster was ready after %v", time.Since(began).Round(time.Millisecond))
	return cluster
}

// deployment is a Deployment of one pod.
func deployment(name, image string, hostNetwork bool) Object {
	labels := Object{"app": name}
	return Object{
		"apiVersion": "apps/v1",
		"kind":       "Deployment",
		"metadata":   Object{"name": name},
		"spec": Object{
			"selector": Object{"matchLabels": labels},
			"template": Object{
				"metadata": Object{"labels": labels},
				"spec": Object{
					"hostNetwork": hostNetwork,
					"containers":  []any{Object{"name": "main", "image": image}},
				},
			},
		},
	}
}

// releasePolicy wants the images of namespace default attested by a key that nobody has.
func releasePolicy(t *testing.T) string {
	t.Helper()
	key, err := newPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`apiVersion: kritis.grafeas.io/v1beta1
kind: AttestationAuthority
metadata: {name: release, namespace: default}
spec: {publicKeys: [{keyType: PKIX, pkixPublicKey: {publicKeyPem: %q}}]}
---
apiVersion: kritis.grafeas.io/v1beta1
kind: GenericAttestationPolicy
metadata: {name: release, namespace: default}
spec: {attestationAuthorityNames: [release]}
`, encodePEM("PUBLIC KEY", der))
}

// podOf is the pod of a Deployment, or with the name.
func podOf(ctx context.Context, cluster *Cluster, name string) (Object, error) {
	list, err := cluster.ControlPlane.Admin.Get(ctx, pods)
	if err != nil {
		return nil, err
	}
	items, _ := list["items"].([]any)
	for _, item := range items {
		if found, _ := Field(item, "metadata", "name").(string); found == name || strings.HasPrefix(found, name+"-") {
			return item.(Object), nil
		}
	}
	return nil, fmt.Errorf("no pod of %s yet", name)
}

func runningPod(ctx context.Context, t *testing.T, cluster *Cluster, name string) Object {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var pod Object
	if err := Poll(ctx, name+" to run", func(ctx context.Context) error {
		var err error
		if pod, err = podOf(ctx, cluster, name); err != nil {
			return err
		}
		if Field(pod, "status", "phase") != "Running" {
			return fmt.Errorf("it is %v: %v", Field(pod, "status", "phase"), Field(pod, "status", "containerStatuses"))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return pod
}

// containerOf is the id of the container of a running pod.
func containerOf(ctx context.Context, t *testing.T, cluster *Cluster, name string) string {
	t.Helper()
	statuses, _ := Field(runningPod(ctx, t, cluster, name), "status", "containerStatuses").([]any)
	if len(statuses) != 1 {
		t.Fatalf("%s has the containers %v, want one", name, statuses)
	}
	return strings.TrimPrefix(fmt.Sprint(Field(statuses[0], "containerID")), "containerd://")
}

// runsIn looks whether container main of the pod runs, as containerd has it: of a static
// pod the kubelet knows the state by its mirror alone.
func runsIn(containerd *Containerd, pod string) func(context.Context) error {
	return func(ctx context.Context) error {
		containers, err := containerd.CRI.Containers(ctx)
		if err != nil {
			return err
		}
		for _, c := range containers {
			labels := c.GetLabels()
			if labels["io.kubernetes.pod.name"] == pod && labels["io.kubernetes.container.name"] == "main" && c.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING {
				return nil
			}
		}
		return fmt.Errorf("not among %d containers", len(containers))
	}
}

// eventOf is an event about the pod of a Deployment whose message has the text.
func eventOf(ctx context.Context, t *testing.T, cluster *Cluster, name, text string) Object {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var event Object
	if err := Poll(ctx, "an event about "+name, func(ctx context.Context) error {
		list, err := cluster.ControlPlane.Admin.Get(ctx, "/api/v1/namespaces/default/events")
		if err != nil {
			return err
		}
		var others []string
		items, _ := list["items"].([]any)
		for _, item := range items {
			about, _ := Field(item, "involvedObject", "name").(string)
			message, _ := Field(item, "message").(string)
			if !strings.HasPrefix(about, name+"-") {
				continue
			}
			if strings.Contains(message, text) {
				event = item.(Object)
				return nil
			}
			others = append(others, message)
		}
		return fmt.Errorf("only %q", others)
	}); err != nil {
		t.Fatal(err)
	}
	return event
}

// dialIn connects from within the network of the process whose id is in the file.
func dialIn(file string) func(ctx context.Context, network, address string) (net.Conn, error) {
	type dialed struct {
		conn net.Conn
		err  error
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		id, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		namespace, err := os.Open("/proc/" + strings.TrimSpace(string(id)) + "/ns/net")
		if err != nil {
			return nil, err
		}
		defer namespace.Close()
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return nil, err
		}
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, address)
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		result := make(chan dialed)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			conn, err := dial(ctx, network, address)
			result <- dialed{conn, err}
		}()
		d := <-result
		return d.conn, d.err
	}
}

// interfacesOf are the names of this machine's network interfaces.
func interfacesOf(t *testing.T) string {
	t.Helper()
	entries, err := os.ReadDir(interfaces)
	if err != nil {
		t.Fatal(err)
	}
	var names strings.Builder
	for _, entry := range entries {
		names.WriteString(entry.Name() + " ")
	}
	return names.String()
}
