package suites

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/integration/harness"
)

// market is the namespace that policies of the cluster speak of.
const market = "market"

// followed is a node that follows a cluster: an API server and what belongs to it, and no
// kubelet. By default images are let in that no policy speaks of, so that one sees what opens.
type followed struct {
	*fixture
	plane    *harness.ControlPlane
	identity string // the folder with the kubeconfig of the node
}

// follow starts all of it, with the definitions and rights that users get applied.
func follow(t *testing.T, change func(*setup)) *followed {
	t.Helper()
	harness.RequireCluster(t)
	f := &followed{}
	f.fixture = prepare(t, func(s *setup) {
		s.node.DefaultAction = "allow"
		f.identity = t.TempDir()
		if err := os.Chmod(filepath.Dir(f.identity), 0o755); err != nil {
			t.Fatal(err)
		}
		s.node.Args = []string{"--kubeconfig=" + filepath.Join(f.identity, "kubeconfig"), "--node-name=" + harness.NodeName}
		if change != nil {
			change(s)
		}
	})
	if err := f.node.RemovePolicy("policy.yaml"); err != nil {
		t.Fatal(err)
	}
	var err error
	if f.plane, err = f.run.StartControlPlane(f.ctx, harness.ControlPlaneOptions{}); err != nil {
		t.Fatal(err)
	}
	path, err := f.plane.NodeKubeconfig(f.identity, harness.NodeName)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(f.identity, "kubeconfig"); path != want {
		if err := os.Symlink(path, want); err != nil {
			t.Fatal(err)
		}
	}
	f.install()
	f.kubectl("", "create", "namespace", market)
	return f
}

// install applies what a cluster needs for a node to follow it.
func (f *followed) install() {
	f.Helper()
	f.kubectl("", "apply", "-k", "crds/manifests")
	f.kubectl("", "apply", "-f", "daemonset/namespace.yaml", "-f", "daemonset/node-rbac.yaml", "-f", "daemonset/nodegates.yaml")
	f.kubectl("", "wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
}

// kubectl runs kubectl as an administrator and fails the test if that fails.
func (f *followed) kubectl(stdin string, args ...string) string {
	f.Helper()
	out, err := f.tryKubectl(stdin, args...)
	if err != nil {
		f.Fatal(err)
	}
	return out
}

func (f *followed) tryKubectl(stdin string, args ...string) (string, error) {
	out, errors, err := f.plane.KubectlAs(f.ctx, f.plane.AdminKubeconfig, stdin, args...)
	return out + errors, err
}

// apply puts objects in the cluster.
func (f *followed) apply(manifests string, args ...string) {
	f.Helper()
	f.kubectl(manifests, append([]string{"apply", "-f", "-"}, args...)...)
}

// inForceWithin is in what time a change of the cluster is in force.
const inForceWithin = 2 * time.Second

// soonRefused fails the test unless an image is refused for a reason, at most two seconds
// from now and from then on.
func (f *followed) soonRefused(pod *harness.Pod, image, text string) {
	f.Helper()
	f.within2s(image+" is refused: "+text, func() (bool, string) {
		ok, why := f.admits(pod, image)
		return !ok && strings.Contains(why, text), why
	})
	f.refused(pod, harness.ContainerConfig{Image: image}, text)
}

// soonCreated fails the test unless an image is created in at most two seconds.
func (f *followed) soonCreated(pod *harness.Pod, image string) {
	f.Helper()
	f.within2s(image+" is created", func() (bool, string) { return f.admits(pod, image) })
}

func (f *followed) within2s(what string, is func() (bool, string)) {
	f.Helper()
	started := time.Now()
	for {
		ok, why := is()
		took := time.Since(started)
		switch {
		case ok && took <= inForceWithin:
			f.Logf("%v: %s", took.Round(time.Millisecond), what)
			return
		case took > patience:
			f.Fatalf("not after %v: %s (%s)", took, what, why)
		case ok:
			f.Errorf("after %v, want %v: %s", took, inForceWithin, what)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// admits tries an image in the namespace once and tells whether it was admitted, and why not.
func (f *followed) admits(pod *harness.Pod, image string) (bool, string) {
	f.Helper()
	_, err := f.create(pod, harness.ContainerConfig{Image: image})
	if err != nil {
		return false, err.Error()
	}
	return true, ""
}

// notReady fails the test unless the gate says that it is not ready, with a text.
func (f *followed) notReady(text string) {
	f.Helper()
	f.eventually("the gate is not ready: "+text, func() error {
		ready, body := f.ready()
		if ready || !strings.Contains(body, text) {
			return fmt.Errorf("ready %v: %s", ready, body)
		}
		return nil
	})
}

func TestPoliciesOfAClusterAreInForceWithinTwoSeconds(t *testing.T) {
	f := follow(t, nil)
	f.start()
	good, evil := f.push(cart+":1", harness.Image{Seed: "good"}), f.push(miner+":1", harness.Image{Seed: "evil"})
	f.attest(good)
	pod := f.pod(market)
	f.created(pod, harness.ContainerConfig{Image: evil.ByTag()}) // no policy speaks of it

	f.apply(authority(market, "release", f.release) + policy(market, "release", "release"))
	f.soonRefused(pod, evil.ByTag(), "is not attested: by authority release (no attestation found)")
	f.created(pod, harness.ContainerConfig{Image: good.ByTag()})

	f.apply(strings.Replace(policy(market, "release", "release"), "spec: {", "spec: {enforcement: Audit, ", 1))
	f.soonCreated(pod, evil.ByTag())
	f.apply(policy(market, "release", "release"))
	f.soonRefused(pod, evil.ByTag(), "is not attested")

	// One of two, whose authority attested nothing: that it is deleted is believed.
	f.apply(strings.Replace(clusterPolicyOf(newKey(t)), "NAME", "second", 1))
	f.soonRefused(pod, good.ByTag(), "by authority cluster-release")
	f.kubectl("", "delete", "clusterattestationpolicy", "second")
	f.soonCreated(pod, good.ByTag())

	f.apply(revocation("bad", good.Digest))
	f.soonRefused(pod, good.ByTag(), "revoked by ImageRevocation bad")
	f.kubectl("", "delete", "imagerevocation", "bad")
	f.soonCreated(pod, good.ByTag())

	misspelt := strings.Replace(policy(market, "release", "release"), "spec: {", "spec: {enforcment: Audit, ", 1)
	t.Logf("kubectl says: %s", strings.TrimSpace(f.kubectl(misspelt, "apply", "--validate=warn", "-f", "-")))
	f.soonRefused(pod, good.ByTag(), "spec.enforcment: unknown field")
	f.soonRefused(pod, evil.ByTag(), "spec.enforcment: unknown field")
}

// clusterPolicyOf is a policy for every namespace by a key of its own.
func clusterPolicyOf(k key) string {
	return fmt.Sprintf(`---
apiVersion: horkos.dev/v1alpha1
kind: ClusterAttestationPolicy
metadata: {name: NAME}
spec: {authorities: [{name: cluster-release, publicKeys: [{keyType: PKIX, pkixPublicKey: {publicKeyPem: %q}}]}]}
`, k.pem)
}

func TestNothingOpensWhenPoliciesOfAClusterVanish(t *testing.T) {
	f := follow(t, nil)
	f.start()
	evil := f.push(miner+":1", harness.Image{Seed: "evil"})
	pod := f.pod(market)
	policies := authority(market, "release", f.release) + policy(market, "release", "release")
	f.apply(policies)
	f.soonRefused(pod, evil.ByTag(), "by authority release (no attestation found)")
	closed := func(when string) {
		t.Helper()
		for range 10 {
			if ok, _ := f.admits(pod, evil.ByTag()); ok {
				t.Fatalf("%s: the unattested image is admitted", when)
			}
			time.Sleep(200 * time.Millisecond) // what opens, opens late
		}
	}
	closed("at first")
	back := func() {
		t.Helper()
		f.kubectl("", "apply", "-k", "crds/manifests")
		f.kubectl("", "wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
		f.eventually("the policies are back", func() error {
			_, err := f.tryKubectl(policies, "apply", "-f", "-")
			return err
		})
		f.eventually("ready again", func() error {
			if ready, body := f.ready(); !ready {
				return fmt.Errorf("%s", body)
			}
			return nil
		})
	}

	f.sub("kubectl delete --all", func(t *testing.T, g *fixture) {
		f.kubectl("", "delete", "--all", "gap,aa", "-n", market)
		f.notReady("no policy in the cluster enforces any more")
		closed("all deleted")
		f.restarted()
		f.notReady("no policy in the cluster enforces any more")
		closed("all deleted, after a restart")
		back()
	})
	f.sub("kubectl delete crd", func(t *testing.T, g *fixture) {
		f.kubectl("", "delete", "crd", "genericattestationpolicies.kritis.grafeas.io", "attestationauthorities.kritis.grafeas.io")
		f.notReady("does not know")
		closed("definitions deleted")
		f.restarted()
		closed("definitions deleted, after a restart")
		f.kubectl("", "apply", "-k", "crds/manifests")
		f.notReady("went with their CustomResourceDefinition")
		closed("definitions back, and empty")
		back()
	})
	f.sub("kubectl delete namespace", func(t *testing.T, g *fixture) {
		f.kubectl("", "delete", "namespace", market)
		f.notReady("no policy in the cluster enforces any more")
		closed("the namespace deleted")
		f.kubectl("", "create", "namespace", market)
		back()
	})
	f.sub("an older etcd is restored", func(t *testing.T, g *fixture) {
		f.kubectl("", "delete", "--all", "gap,aa", "-n", market)
		f.notReady("no policy in the cluster enforces any more")
		snapshot, err := f.plane.Snapshot(f.ctx)
		if err != nil {
			t.Fatal(err)
		}
		f.eventually("the policies are applied", func() error {
			_, err := f.tryKubectl(policies, "apply", "-f", "-")
			return err
		})
		for n := range 200 { // more than is written while it comes up again
			if _, err := f.plane.Admin.Merge(f.ctx, "/api/v1/namespaces/"+market, harness.Object{"metadata": harness.Object{"annotations": harness.Object{"n": fmt.Sprint(n)}}}); err != nil {
				t.Fatal(err)
			}
		}
		f.eventually("ready", func() error {
			if ready, body := f.ready(); !ready {
				return fmt.Errorf("%s", body)
			}
			return nil
		})
		if err := f.plane.APIServer.Kill(); err != nil { // told to end, it waits a minute for its watches
			t.Fatal(err)
		}
		if err := f.plane.Restore(f.ctx, snapshot); err != nil {
			t.Fatal(err)
		}
		f.notReady("restored from an older copy")
		closed("restored")
		f.restarted()
		f.notReady("restored from an older copy")
		closed("restored, after a restart")
		if out, err := f.horkos("policy", "accept-empty", "--origin", "cluster", "--state-dir", f.node.StateDir, "--yes"); err != nil {
			t.Fatal(err, out)
		}
		f.within2s("what the operator gave up is out of force", func() (bool, string) { return f.admits(pod, evil.ByTag()) })
		back()
	})
	f.sub("the kept copy is removed and no API server answers", func(t *testing.T, g *fixture) {
		if err := f.plane.APIServer.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := f.node.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(f.node.StateDir, "policy-cluster.json")); err != nil {
			t.Fatal(err)
		}
		if err := f.node.Launch(); err != nil {
			t.Fatal(err)
		}
		f.refused(pod, harness.ContainerConfig{Image: evil.ByTag()}, "never known on this node")
		closed("nothing kept")
		if err := f.plane.APIServer.Start(f.ctx); err != nil {
			t.Fatal(err)
		}
		f.refused(pod, harness.ContainerConfig{Image: evil.ByTag()}, "by authority release (no attestation found)")
	})
	f.sub("set to Audit first, then deleted, it opens", func(t *testing.T, g *fixture) {
		before := f.revision()
		f.apply(strings.Replace(policy(market, "release", "release"), "spec: {", "spec: {enforcement: Audit, ", 1))
		f.soonCreated(pod, evil.ByTag())
		f.kubectl("", "delete", "--all", "gap", "-n", market)
		f.within2s("the policy is out of force", func() (bool, string) {
			text, err := f.node.Get(f.ctx, "/metrics")
			return err == nil && !strings.Contains(text, `revision="`+before), ""
		})
		if ready, body := f.ready(); !ready {
			t.Errorf("not ready: %s", body)
		}
		f.created(pod, harness.ContainerConfig{Image: evil.ByTag()})
	})
}

// restarted kills the daemon and starts it anew; it need not be ready.
func (f *followed) restarted() {
	f.Helper()
	if err := f.node.Kill(); err != nil {
		f.Fatal(err)
	}
	if err := f.node.Launch(); err != nil {
		f.Fatal(err)
	}
	f.eventually("the gate answers", func() error {
		_, err := f.node.Get(f.ctx, "/healthz")
		return err
	})
}
