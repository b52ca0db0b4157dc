package suites

import (
	"strings"
	"testing"

	"github.com/horkos/horkos/integration/harness"
)

const (
	cart  = "registry.example.com/shop/cart"
	miner = "registry.example.com/evil/miner"
)

// versions runs a test on a containerd that tells the image, and on one that does not.
func versions(t *testing.T, test func(*testing.T, *fixture)) {
	for _, version := range []string{harness.Containerd24, harness.Containerd22} {
		t.Run("containerd "+version, func(t *testing.T) {
			test(t, newFixture(t, func(o *setup) { o.containerd.Version = version }))
		})
	}
}

func TestAnImageRunsOnlyIfItIsAttested(t *testing.T) {
	versions(t, func(t *testing.T, f *fixture) {
		good, evil := f.push(cart+":1", harness.Image{Seed: "good"}), f.push(miner+":1", harness.Image{Seed: "evil"})
		f.attest(good)
		pod := f.pod(shop)
		for _, name := range []string{good.ByDigest(), good.ByTag(), good.ByTagAndDigest(), good.Config} {
			f.created(pod, harness.ContainerConfig{Image: name})
		}
		for _, name := range []string{evil.ByDigest(), evil.ByTag(), evil.ByTagAndDigest(), evil.Config} {
			f.refused(pod, harness.ContainerConfig{Image: name}, "image "+name+" is not attested: by authority release (no attestation found)")
		}
		f.sub("and in a namespace without a policy by the default action", func(t *testing.T, f *fixture) {
			f.refused(f.pod("elsewhere"), harness.ContainerConfig{Image: good.ByDigest()}, "no enforcing policy speaks of the image")
		})
		f.sub("and with the registry gone", func(t *testing.T, f *fixture) {
			if err := f.registry.Stop(); err != nil {
				t.Fatal(err)
			}
			f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
			f.created(pod, harness.ContainerConfig{Image: good.ByTag()})
			f.refused(pod, harness.ContainerConfig{Image: evil.ByTag()}, "is not attested")
		})
	})
}

func TestAnAttestationOfAnIndexOrOfAManifestCounts(t *testing.T) {
	versions(t, func(t *testing.T, f *fixture) {
		pod := f.pod(shop)
		byIndex := f.push(cart+":index", harness.Image{Seed: "by index", Index: true})
		f.policy("index.yaml", attested(t, f.release, byIndex.Repository, byIndex.Digest))
		f.created(pod, harness.ContainerConfig{Image: byIndex.ByTag()})

		byManifest := f.push(cart+":manifest", harness.Image{Seed: "by manifest", Index: true})
		f.policy("manifest.yaml", attested(t, f.release, byManifest.Repository, byManifest.Manifest))
		f.created(pod, harness.ContainerConfig{Image: byManifest.ByTag()})
		f.created(pod, harness.ContainerConfig{Image: byManifest.ByDigest()})

		neither := f.push(cart+":neither", harness.Image{Seed: "neither", Index: true})
		f.refused(pod, harness.ContainerConfig{Image: neither.ByTag()}, "no attestation found")
	})
}

func TestATwinSteersNothing(t *testing.T) {
	f := newFixture(t, nil)
	same := harness.Image{Seed: "same content"}
	twin := same
	twin.Annotations = map[string]string{"twin": "yes"}
	// The twin sorts first, so containerd reports every container of the content under its name.
	first, good := f.push("registry.example.com/aaa/twin:1", twin), f.push(cart+":1", same)
	if first.Config != good.Config || first.Digest == good.Digest {
		t.Fatalf("not twins: %+v %+v", first, good)
	}
	pod := f.pod(shop)

	f.sub("a pod that names the attested one is admitted whatever containerd calls it", func(t *testing.T, f *fixture) {
		f.attest(good)
		f.refused(pod, harness.ContainerConfig{Image: first.ByTag()}, "no attestation found")
		f.created(pod, harness.ContainerConfig{Image: good.ByTag()})
		f.created(pod, harness.ContainerConfig{Image: first.ByTag()}) // the same content, now spoken for
		f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
	})

	f.sub("an unattested image whose twin lies under an allowlisted name is refused", func(t *testing.T, f *fixture) {
		f.inForce("allow.yaml", allowlist("mirror", "registry.example.com/mirror/*"))
		bad := harness.Image{Seed: "bad content"}
		badTwin := bad
		badTwin.Annotations = map[string]string{"twin": "yes"}
		evil, mirrored := f.push(miner+":1", bad), f.push("registry.example.com/mirror/tool:1", badTwin)
		f.created(pod, harness.ContainerConfig{Image: mirrored.ByTag()})
		f.refused(pod, harness.ContainerConfig{Image: evil.ByTag()}, "is not attested")
		f.refused(pod, harness.ContainerConfig{Image: evil.Config}, "is not attested")
		f.refused(pod, harness.ContainerConfig{Image: mirrored.Config}, "is not attested")
	})

	f.sub("a revoked twin revokes the attested image", func(t *testing.T, f *fixture) {
		f.inForce("revoked.yaml", revocation("bad", first.Digest))
		f.refused(pod, harness.ContainerConfig{Image: good.ByTag()}, "CVE-2026-0001")
		f.refused(pod, harness.ContainerConfig{Image: good.ByDigest()}, "is revoked")
	})
}

func TestATagThatMovesDuringCreatesLetsNothingUnattestedIn(t *testing.T) {
	f := newFixture(t, nil)
	good := f.push(cart+":1", harness.Image{Seed: "good"})
	f.attest(good)
	pod := f.pod(shop)
	f.created(pod, harness.ContainerConfig{Image: good.ByTag()})

	created, refused := 0, 0
	for i := range harness.Tries(t, 100) {
		moved := harness.Image{Seed: "good"}
		if i%2 == 0 {
			moved.Seed = "evil"
		}
		target := f.push(cart+":1", moved)
		done := make(chan error, 1)
		go func() {
			_, err := f.containerd.CRI.Pull(f.ctx, cart+":1")
			done <- err
		}()
		// As another client of CRI would: the tag itself, resolved by containerd while it moves.
		id, err := f.create(pod, harness.ContainerConfig{Image: cart + ":1", ImageRef: cart + ":1"})
		if pulled := <-done; pulled != nil {
			t.Fatal(pulled)
		}
		_ = target
		if err != nil {
			refused++
			continue
		}
		created++
		if err := f.containerd.CRI.StartContainer(f.ctx, id); err != nil {
			t.Fatal(err)
		}
		if seed, err := f.containerd.CRI.Exec(f.ctx, id, "/pause", "print", "/seed"); err != nil || strings.TrimSpace(seed) != "good" {
			t.Fatalf("try %d: a container runs %q (%v): nobody attested that", i, seed, err)
		}
	}
	t.Logf("%d created, all of them attested content; %d refused", created, refused)
	if created == 0 || refused == 0 {
		t.Errorf("%d created and %d refused: the tag did not move under the creates", created, refused)
	}
}

func TestImageVolumesAreAsImages(t *testing.T) {
	f := newFixture(t, nil)
	good, evil := f.push(cart+":1", harness.Image{Seed: "good"}), f.push(miner+":1", harness.Image{Seed: "evil"})
	data := f.push("registry.example.com/shop/data:1", harness.Image{Seed: "data"})
	f.attest(good)
	f.attest(data)
	volume := func(image string) []harness.ImageVolume {
		return []harness.ImageVolume{{Image: image, Path: "/data"}}
	}

	pod := f.pod(shop)
	f.created(pod, harness.ContainerConfig{Image: good.ByDigest(), Volumes: volume(data.ByDigest())})
	f.refused(pod, harness.ContainerConfig{Image: good.ByDigest(), Volumes: volume(evil.ByDigest())}, "is not attested")
	f.refused(pod, harness.ContainerConfig{Image: evil.ByDigest(), Volumes: volume(data.ByDigest())}, "is not attested")
	f.sub("and with a tag that moves, also for a second container of the pod", func(t *testing.T, f *fixture) {
		created, refused := 0, 0
		for i := range harness.Tries(t, 100) {
			moved := harness.Image{Seed: "data"}
			if i%2 == 0 {
				moved.Seed = "evil"
			}
			f.push("registry.example.com/shop/data:1", moved)
			pod := f.pod(shop)
			done := make(chan error, 1)
			go func() {
				_, err := f.containerd.CRI.Pull(f.ctx, "registry.example.com/shop/data:1")
				done <- err
			}()
			racing := harness.ContainerConfig{Image: good.ByDigest(), Volumes: []harness.ImageVolume{{
				Image: "registry.example.com/shop/data:1", ImageRef: "registry.example.com/shop/data:1", Path: "/data"}}}
			first, err1 := f.create(pod, racing)
			pulled := <-done
			second, err2 := f.create(pod, racing)
			if pulled != nil {
				t.Fatal(pulled)
			}
			for _, c := range []struct {
				id  string
				err error
			}{{first, err1}, {second, err2}} {
				if c.err != nil {
					refused++
					continue
				}
				created++
				if err := f.containerd.CRI.StartContainer(f.ctx, c.id); err != nil {
					t.Fatal(err)
				}
				if seed, err := f.containerd.CRI.Exec(f.ctx, c.id, "/pause", "print", "/data/seed"); err != nil || strings.TrimSpace(seed) != "data" {
					t.Fatalf("try %d: a volume holds %q (%v): nobody attested that", i, seed, err)
				}
			}
			if err := f.containerd.CRI.RemovePod(f.ctx, pod); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%d created, all of them over attested content; %d refused", created, refused)
		if created == 0 || refused == 0 {
			t.Errorf("%d created and %d refused: the tag did not move under the creates", created, refused)
		}
	})
}

func TestNamesThatLieAreNotBelieved(t *testing.T) {
	f := newFixture(t, nil)
	good, evil := f.push(cart+":1", harness.Image{Seed: "good", Labels: map[string]string{"a": "b"}}),
		f.push(miner+":1", harness.Image{Seed: "evil", Labels: map[string]string{
			"io.kubernetes.cri.image-name": cart + ":1", "io.kubernetes.cri-o.ImageName": cart + ":1"}})
	f.attest(good)
	lies := map[string]string{
		"io.kubernetes.cri.image-name":      cart + ":1",
		"io.kubernetes.cri-o.ImageName":     cart + ":1",
		"kritis.grafeas.io/breakglass":      "true",
		"kritis.grafeas.io/attestation":     "attested",
		"required-plugins.noderesource.dev": "[]",
	}
	pod, err := f.containerd.CRI.RunPod(f.ctx, harness.PodConfig{Namespace: shop, Name: "liar", Labels: map[string]string{"image": good.ByDigest()}, Annotations: lies})
	if err != nil {
		t.Fatal(err)
	}
	f.refused(pod, harness.ContainerConfig{Image: evil.ByDigest(), Annotations: lies}, "is not attested")

	f.sub("also not the name of another image beside the id of this one", func(t *testing.T, f *fixture) {
		f.inForce("allow.yaml", allowlist("cart", cart+"*"))
		f.refused(pod, harness.ContainerConfig{Image: cart + ":1", ImageRef: evil.Config}, "is not attested")
	})
	f.sub("also not docker.io/library for an id", func(t *testing.T, f *fixture) {
		f.inForce("allow.yaml", allowlist("library", "docker.io/library/*"))
		f.refused(pod, harness.ContainerConfig{Image: evil.Config}, "is not attested")
		f.refused(pod, harness.ContainerConfig{Image: strings.TrimPrefix(evil.Config, "sha256:")}, "is not attested")
	})
}

func TestAKeyReplacedWhileRunningIsObeyedByTheNextCreate(t *testing.T) {
	f := newFixture(t, nil)
	good := f.push(cart+":1", harness.Image{Seed: "good"})
	f.attest(good)
	pod := f.pod(shop)
	f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})

	other := newKey(t)
	f.inForce("policy.yaml", authority(shop, "release", other)+policy(shop, "release", "release"))
	if _, err := f.create(pod, harness.ContainerConfig{Image: good.ByDigest()}); err == nil || !strings.Contains(err.Error(), "by authority release (no attestation found)") {
		t.Fatalf("the image attested by the old key, after the key was replaced: %v", err)
	}
	f.policy("again.yaml", attested(t, other, good.Repository, good.Digest))
	f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
}
