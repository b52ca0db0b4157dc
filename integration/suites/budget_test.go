package suites

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/integration/harness"
	"github.com/horkos/horkos/plugin"
)

// TestAFullNodeAndAGreedyTenantLeaveTheGateAbleToSynchronise: NRI tells a plugin that
// registers of all pods and containers, in messages that it splits badly; up to 0.12.5 it
// can panic. So the gate keeps off the node what could not be told.
func TestAFullNodeAndAGreedyTenantLeaveTheGateAbleToSynchronise(t *testing.T) {
	f := newFixture(t, func(o *setup) { o.node.DefaultAction = "allow" })
	good := f.push(cart+":1", harness.Image{Seed: "good"})
	pods, containers := harness.Tries(t, 110), harness.Tries(t, 500)
	started := time.Now()
	for i := range pods {
		pod := f.pod(fmt.Sprintf("team-%d", i%10))
		for range (containers + pods - 1) / pods {
			f.created(pod, harness.ContainerConfig{Image: good.ByDigest(), Env: map[string]string{"FILL": strings.Repeat("x", 1024)}})
		}
	}
	t.Logf("%d pods and %d containers in %s", pods, containers, time.Since(started).Round(time.Millisecond))

	tenant := f.pod("tenant")
	big := make(map[string]string)
	for i := range 18 {
		big[fmt.Sprintf("BIG_%d", i)] = strings.Repeat("x", 100<<10)
	}
	for range 20 {
		f.refused(tenant, harness.ContainerConfig{Image: good.ByDigest(), Env: big}, "enableServiceLinks: false")
	}
	admitted := 0
	for i := range 60 {
		_, err := f.containerd.CRI.RunPod(f.ctx, harness.PodConfig{Namespace: "tenant", Name: fmt.Sprintf("wide-%d", i),
			Annotations: map[string]string{"wide": strings.Repeat("x", 250<<10)}})
		if err == nil {
			admitted++
		} else if !strings.Contains(err.Error(), "at most") {
			t.Fatal(err)
		}
	}
	if admitted != 0 {
		t.Errorf("%d of 60 pods with 250 KiB of annotations were admitted", admitted)
	}
	f.sub("also one just small enough, again and again, until its namespace holds too much", func(t *testing.T, f *fixture) {
		n := 0
		for i := range 60 {
			_, err := f.containerd.CRI.RunPod(f.ctx, harness.PodConfig{Namespace: "tenant", Name: fmt.Sprintf("narrow-%d", i),
				Annotations: map[string]string{"wide": strings.Repeat("x", 120<<10)}})
			if err != nil {
				if !strings.Contains(err.Error(), "namespace tenant holds") {
					t.Fatal(err)
				}
				break
			}
			n++
		}
		t.Logf("%d pods of 120 KiB were admitted", n)
		if n == 60 {
			t.Error("60 pods of 120 KiB were admitted: 7 MiB to synchronise")
		}
		f.created(f.pod("team-1"), harness.ContainerConfig{Image: good.ByDigest()})
	})

	pid := f.containerd.PID()
	for range 3 {
		if err := f.node.Kill(); err != nil {
			t.Fatal(err)
		}
		f.start() // ready means synchronised
	}
	if f.containerd.PID() != pid || !running(f.containerd.Service) {
		t.Error("containerd did not live through the gate's restarts")
	}
	// The tenant has filled the node to a few bytes of the bound and may be refused now, nobody else is.
	f.created(f.pod("team-3"), harness.ContainerConfig{Image: good.ByDigest()})

	f.sub("and over a restart of containerd", func(t *testing.T, f *fixture) {
		if err := f.containerd.Restart(f.ctx); err != nil {
			t.Fatal(err)
		}
		// Of the refused sandboxes containerd leaves some behind, not ready, and tells of them
		// from now on: the tenant may be over its share, nobody else is.
		f.created(f.pod("team-2"), harness.ContainerConfig{Image: good.ByDigest()})
	})
}

func TestSeveralNamespacesTogetherLeaveTheGateAbleToSynchronise(t *testing.T) {
	f := newFixture(t, func(o *setup) { o.node.DefaultAction = "allow" })
	good := f.push(cart+":1", harness.Image{Seed: "good"})
	admitted := 0
	for i := range 60 {
		_, err := f.containerd.CRI.RunPod(f.ctx, harness.PodConfig{Namespace: fmt.Sprintf("tenant-%d", i%4), Name: fmt.Sprintf("wide-%d", i),
			Annotations: map[string]string{"wide": strings.Repeat("x", 120<<10)}})
		if err == nil {
			admitted++
		} else if !strings.Contains(err.Error(), "over the limit at most") && !strings.Contains(err.Error(), "holds") {
			t.Fatal(err)
		}
	}
	t.Logf("%d of 60 pods of 120 KiB were admitted, in four namespaces", admitted)
	if admitted*120<<10 > plugin.DefaultMaxSyncBytes {
		t.Errorf("they are over %d bytes", plugin.DefaultMaxSyncBytes)
	}
	for range 2 {
		f.created(f.pod("ordinary"), harness.ContainerConfig{Image: good.ByDigest()})
		if err := f.node.Kill(); err != nil {
			t.Fatal(err)
		}
		f.start() // ready means synchronised
	}
}

func running(s *harness.Service) bool {
	select {
	case <-s.Exited():
		return false
	default:
		return true
	}
}

func TestTenThousandForeignAttestationsDoNotHideTheGoodOne(t *testing.T) {
	f := newFixture(t, nil)
	good := f.push(cart+":1", harness.Image{Seed: "good"})
	other := newKey(t)
	foreign := attested(t, other, good.Repository, good.Digest)
	ours := attested(t, f.release, good.Repository, good.Digest) // its key id, over payloads that do not parse
	var b strings.Builder
	for i := range 10_000 {
		if i%2 == 0 {
			b.WriteString(foreign)
			continue
		}
		garbage := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "not a payload %d", i))
		b.WriteString(payloadField.ReplaceAllString(ours, "serializedPayload: "+garbage+","))
	}
	f.policy("a-flood.yaml", b.String())
	f.policy("z-good.yaml", attested(t, f.release, good.Repository, good.Digest))
	f.created(f.pod(shop), harness.ContainerConfig{Image: good.ByDigest()})
}

var payloadField = regexp.MustCompile(`serializedPayload: [^,]*,`)

func TestASandboxWithARepointedPauseImageIsRefused(t *testing.T) {
	f := newFixture(t, func(o *setup) { o.node.DefaultAction = "allow" })
	good := f.push(cart+":1", harness.Image{Seed: "good"})
	before := f.pod("before")
	f.push(harness.PauseImage, harness.Image{Seed: "not the pause image"})
	if _, err := f.containerd.CRI.Pull(f.ctx, harness.PauseImage); err != nil {
		t.Fatal(err)
	}
	if _, err := f.containerd.CRI.RunPod(f.ctx, harness.PodConfig{Name: "after"}); err == nil || !strings.Contains(err.Error(), "not on the floor") {
		t.Fatalf("a sandbox of a foreign pause image: %v, want it refused", err)
	}
	f.created(before, harness.ContainerConfig{Image: good.ByDigest()})

	f.sub("and one made while the gate was away gets no container", func(t *testing.T, f *fixture) {
		if err := f.node.Kill(); err != nil {
			t.Fatal(err)
		}
		sneaky, err := f.containerd.CRI.RunPod(f.ctx, harness.PodConfig{Name: "sneaky"})
		if err != nil {
			t.Fatal(err)
		}
		// The floor has the pause image that the tag names no more; the daemon must start all the same.
		if err := f.node.WriteFloor(f.registry.Pause.Digest, f.registry.Pause.Config); err != nil {
			t.Fatal(err)
		}
		if err := f.node.Launch(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.create(sneaky, harness.ContainerConfig{Image: good.ByDigest()}); err == nil {
			t.Fatal("a container was created in a sandbox of a foreign pause image")
		}
	})
}
