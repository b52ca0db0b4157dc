package suites

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/horkos/horkos/integration/harness"
	"github.com/horkos/horkos/plugin"
)

// wholeCluster is a cluster of one node under an enforcing gate that follows it, with a
// policy that images in namespace market be attested, and the attestation of one, all of
// them objects of the cluster. The fixture's containerd and node are the cluster's; the
// flags are the API server's.
func wholeCluster(t *testing.T, apiServer ...string) (f *followed, c *harness.Cluster, good, evil harness.Pushed) {
	t.Helper()
	harness.RequireCluster(t)
	f = &followed{fixture: &fixture{T: t, run: harness.New(t), release: newKey(t), serial: new(atomic.Int64)}}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	f.ctx = ctx
	var err error
	if f.registry, err = f.run.StartRegistry(harness.RegistryOptions{}); err != nil {
		t.Fatal(err)
	}
	good, evil = f.push(cart+":1", harness.Image{Seed: "good"}), f.push(miner+":1", harness.Image{Seed: "evil"})
	c, err = f.run.StartCluster(ctx, harness.ClusterOptions{
		Registry:     f.registry,
		ControlPlane: harness.ControlPlaneOptions{APIServerArgs: apiServer},
		Containerd:   harness.ContainerdOptions{NRI: harness.NRIOptions{RequiredPlugins: []string{plugin.FullName}}},
		Node:         &harness.NodeOptions{DefaultAction: "allow"},
		Follow:       true,
		Apply: func(_ context.Context, plane *harness.ControlPlane) error {
			f.plane = plane
			f.install()
			f.kubectl("", "create", "namespace", market)
			f.apply(authority(market, "release", f.release) + policy(market, "release", "release") + attested(t, f.release, good.Repository, good.Digest))
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.containerd, f.node = c.Containerd, c.Node
	f.eventually("pods can be made in the namespace", func() error {
		_, err := f.tryKubectl("", "-n", market, "get", "serviceaccount", "default")
		return err
	})
	return f, c, good, evil
}

func TestACluster(t *testing.T) {
	f, c, good, evil := wholeCluster(t)
	f.sub("of a Deployment the attested image runs, and the events of the other's pods say why not", func(t *testing.T, _ *fixture) {
		for name, image := range map[string]string{"good": good.ByDigest(), "tagged": good.ByTag(), "evil": evil.ByTag()} {
			f.kubectl("", "-n", market, "create", "deployment", name, "--image="+image, "--replicas=2")
		}
		f.kubectl("", "-n", market, "rollout", "status", "deployment/good", "--timeout=60s")
		f.kubectl("", "-n", market, "rollout", "status", "deployment/tagged", "--timeout=60s")
		want := "image " + evil.ByTag() + " is not attested: by authority release (no attestation found)"
		f.eventually("the events of both pods say why not", func() error {
			var list struct {
				Items []struct {
					Reason, Message string
					InvolvedObject  struct{ Kind, Name string }
				}
			}
			if err := json.Unmarshal([]byte(f.kubectl("", "-n", market, "get", "events", "-o", "json")), &list); err != nil {
				return err
			}
			pods := make(map[string]bool)
			var said []string
			for _, e := range list.Items {
				if e.InvolvedObject.Kind == "Pod" && strings.HasPrefix(e.InvolvedObject.Name, "evil-") && e.Reason == "Failed" {
					said = append(said, e.Message)
					if strings.Contains(e.Message, want) {
						pods[e.InvolvedObject.Name] = true
					}
				}
			}
			if len(pods) < 2 {
				return fmt.Errorf("of %d pods: %q", len(pods), said)
			}
			return nil
		})
		for _, line := range strings.Split(strings.TrimSpace(f.kubectl("", "-n", market, "get", "pods", "--no-headers")), "\n") {
			running := strings.Contains(line, " Running ")
			if evil := strings.HasPrefix(line, "evil-"); running == evil {
				t.Errorf("pod %s", line)
			}
		}
		f.kubectl("", "-n", market, "delete", "deployment", "--all")
	})

	f.sub("kubectl get nodegates tells how the gate stands", func(t *testing.T, _ *fixture) {
		f.eventually("the NodeGate tells how things stand", func() error {
			var gate struct {
				Status struct {
					Mode, PolicyRevision, SyncedAt, RuntimeVersion string
					Ready                                          bool
					Problems                                       []string
					AuditHead                                      struct{ Seq int64 }
				}
			}
			if err := json.Unmarshal([]byte(f.kubectl("", "get", "nodegate", harness.NodeName, "-o", "json")), &gate); err != nil {
				return err
			}
			s := gate.Status
			if s.Mode != "enforce" || !s.Ready || s.PolicyRevision != f.revision() || s.SyncedAt == "" || s.RuntimeVersion == "" || s.AuditHead.Seq == 0 {
				return fmt.Errorf("%+v, revision %s", s, f.revision())
			}
			return nil
		})
		table := f.kubectl("", "get", "nodegates")
		t.Logf("\n%s", table)
		for _, word := range []string{"NAME", "MODE", "READY", "enforce", "true", f.revision()} {
			if !strings.Contains(table, word) {
				t.Errorf("%q is not in\n%s", word, table)
			}
		}
	})

	f.sub("without an API server", func(t *testing.T, _ *fixture) {
		if err := f.plane.APIServer.Kill(); err != nil {
			t.Fatal(err)
		}
		f.sub("the node decides on", func(t *testing.T, _ *fixture) {
			pod := f.pod(market)
			f.created(pod, harness.ContainerConfig{Image: good.ByTag()})
			f.refused(pod, harness.ContainerConfig{Image: evil.ByTag()}, "is not attested")
			f.eventually("it is ready, and tells that the API server is away", func() error {
				if ready, body := f.ready(); !ready || !strings.Contains(body, "cluster: ") {
					return fmt.Errorf("ready %v: %s", ready, body)
				}
				return nil
			})
		})
		f.sub("static pods are started and refused", func(t *testing.T, _ *fixture) {
			f.staticPodsAreDecided(c, good, evil)
		})
		if err := c.Kubelet.Kill(); err != nil { // it removes the sandboxes that it does not know
			t.Fatal(err)
		}
		f.sub("a node that is restarted decides within 300 ms of its start", func(t *testing.T, _ *fixture) {
			pod := f.pod(market)
			var took []time.Duration
			for range 10 {
				if err := f.node.Kill(); err != nil {
					t.Fatal(err)
				}
				started := time.Now()
				if err := f.node.Launch(); err != nil {
					t.Fatal(err)
				}
				for {
					_, err := f.create(pod, harness.ContainerConfig{Image: good.ByTag()})
					if err == nil {
						break
					}
					if time.Since(started) > patience {
						t.Fatalf("not created: %v", err)
					}
					time.Sleep(5 * time.Millisecond)
				}
				took = append(took, time.Since(started))
				f.refused(pod, harness.ContainerConfig{Image: evil.ByTag()}, "is not attested")
			}
			slices.Sort(took)
			half, worst := took[len(took)/2], took[len(took)-1]
			t.Logf("from the start of the daemon to the attested container: %v (median), %v (worst), limit 300ms", half, worst)
			if half > 300*time.Millisecond {
				t.Errorf("limit missed by %v", half-300*time.Millisecond)
			}
		})
		if err := f.plane.APIServer.Start(f.ctx); err != nil {
			t.Fatal(err)
		}
	})

	f.sub("with the API server back, a revocation is in force on the next create", func(t *testing.T, _ *fixture) {
		f.eventually("the node follows again", func() error {
			if ready, body := f.ready(); !ready || strings.Contains(body, "cluster: ") {
				return fmt.Errorf("%s", body)
			}
			return nil
		})
		pod := f.pod(market)
		f.created(pod, harness.ContainerConfig{Image: good.ByTag()})
		f.apply(revocation("bad", good.Digest))
		f.soonRefused(pod, good.ByTag(), "revoked by ImageRevocation bad")
	})
}

// staticPodsAreDecided has the kubelet start a static pod of each image, and looks at what
// the gate decides and containerd runs.
func (f *followed) staticPodsAreDecided(c *harness.Cluster, good, evil harness.Pushed) {
	f.Helper()
	for name, image := range map[string]string{"good": good.ByTag(), "evil": evil.ByTag()} {
		if err := c.Kubelet.WriteStaticPod(name, fmt.Appendf(nil, staticPod, name, market, good.ByTag(), image)); err != nil {
			f.Fatal(err)
		}
	}
	// While the API server takes none, a kubelet does not tell of them: the log of the gate does.
	decided := func(pod, image, result string) func() error {
		return func() error {
			records, err := f.node.Audit()
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(records, func(r harness.AuditRecord) bool {
				return r.Static && r.Pod == pod+"-"+harness.NodeName && r.Image == image && r.Result == result && r.Admitted == (result == "allowed")
			}) {
				return fmt.Errorf("no record of %s of pod %s, %s", image, pod, result)
			}
			return nil
		}
	}
	f.eventually("the attested static pod is allowed", decided("good", good.ByTag(), "allowed"))
	f.eventually("the other one is denied", decided("evil", evil.ByTag(), "denied"))
	f.eventually("containerd runs the main container of the one, and has none of the other", func() error {
		all, err := f.containerd.CRI.Containers(f.ctx)
		if err != nil {
			return err
		}
		runs := false
		for _, c := range all {
			pod, name := c.Labels["io.kubernetes.pod.name"], c.Labels["io.kubernetes.container.name"]
			if name == "main" && pod == "evil-"+harness.NodeName {
				f.Fatalf("containerd has it: %v", c)
			}
			runs = runs || (name == "main" && pod == "good-"+harness.NodeName && c.State == runtimeapi.ContainerState_CONTAINER_RUNNING)
		}
		if !runs {
			return errNotYet
		}
		return nil
	})
	for _, name := range []string{"good", "evil"} {
		if err := c.Kubelet.RemoveStaticPod(name); err != nil {
			f.Fatal(err)
		}
	}
}
