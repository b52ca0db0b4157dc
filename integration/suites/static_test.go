package suites

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/horkos/horkos/integration/harness"
)

const staticPod = `apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec:
  hostNetwork: true
  initContainers:
  - {name: init, image: "%s", args: [exit, "0"]}
  containers:
  - {name: main, image: "%s"}
`

// TestAStaticPodIsDecidedByTheNode: a real kubelet, standalone: no API server has seen
// these pods.
func TestAStaticPodIsDecidedByTheNode(t *testing.T) {
	f := newFixture(t, nil)
	good, evil := f.push(cart+":1", harness.Image{Seed: "good"}), f.push(miner+":1", harness.Image{Seed: "evil"})
	f.attest(good)
	kubelet, err := f.run.StartKubelet(f.ctx, harness.KubeletOptions{Containerd: f.containerd})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []struct{ name, init, main string }{
		{"good", good.ByTag(), good.ByDigest()},
		{"evil", good.ByTag(), evil.ByTag()},
		{"evil-init", evil.ByDigest(), good.ByTag()},
	} {
		if err := kubelet.WriteStaticPod(p.name, fmt.Appendf(nil, staticPod, p.name, shop, p.init, p.main)); err != nil {
			t.Fatal(err)
		}
	}
	state := func(container string) harness.ContainerState {
		all, err := kubelet.Containers(f.ctx)
		if err != nil {
			t.Fatal(err)
		}
		return all[container]
	}
	name := func(pod, container string) string {
		return fmt.Sprintf("%s/%s-%s/%s", shop, pod, harness.NodeName, container)
	}
	want := func(container, running, text string) {
		t.Helper()
		if err := harness.Poll(f.ctx, container+" "+running+text, func(context.Context) error {
			s := state(container)
			if s.State != running || !strings.Contains(s.Message, text) {
				return fmt.Errorf("%+v", s)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	want(name("good", "main"), "running", "")
	want(name("evil", "main"), "waiting", "image "+evil.ByTag()+" is not attested: by authority release (no attestation found)")
	want(name("evil-init", "init"), "waiting", "image "+evil.ByDigest()+" is not attested")
	if s := state(name("evil-init", "main")); s.State == "running" {
		t.Errorf("the container after a refused init container runs: %+v", s)
	}
	if s := state(name("evil", "main")); s.Reason != "CreateContainerError" {
		t.Errorf("the kubelet's reason is %q, want CreateContainerError", s.Reason)
	}

	records, err := f.node.Audit()
	if err != nil {
		t.Fatal(err)
	}
	static := 0
	for _, r := range records {
		if r.Static {
			static++
		}
	}
	if static == 0 {
		t.Error("no record says that its pod is static")
	}
}
