package suites

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
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

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
)

type object = map[string]any

// manifest reads what the registry has under a digest.
func (f *fixture) manifest(repository, digest string) []byte {
	f.Helper()
	_, path, _ := strings.Cut(repository, "/")
	r, err := http.Get("http://" + f.registry.Address + "/v2/" + path + "/manifests/" + digest)
	if err != nil {
		f.Fatal(err)
	}
	defer r.Body.Close()
	content, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		f.Fatal(r.Status, err)
	}
	return content
}

// pushAndPull has containerd pull what a stranger put into the registry.
func (f *fixture) pushAndPull(repository, tag, mediaType string, content []byte) {
	f.Helper()
	if _, err := f.registry.PushManifest(repository, tag, mediaType, content); err != nil {
		f.Fatal(err)
	}
	if _, err := f.containerd.CRI.Pull(f.ctx, repository+":"+tag); err != nil {
		f.Fatal(err)
	}
}

// entry is what an index says of a manifest; those of other platforms are not pulled.
func entry(mediaType, architecture, digest string, size int) object {
	return object{"mediaType": mediaType, "digest": digest, "size": size, "platform": object{"os": "linux", "architecture": architecture}}
}

func indexOf(t *testing.T, note string, entries ...object) []byte {
	t.Helper()
	content, err := json.Marshal(object{"schemaVersion": 2, "mediaType": indexType, "annotations": object{"note": note}, "manifests": entries})
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestAMalformedTwinDeniesNothing(t *testing.T) {
	f := newFixture(t, nil)
	good := f.push(cart+":1", harness.Image{Seed: "good"})
	f.attest(good)
	pod := f.pod(shop)
	volume := []harness.ImageVolume{{Image: good.ByDigest(), Path: "/data"}}
	f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})

	// It sorts first, so that containerd reports the good image by its digest.
	const twin = "registry.example.com/aaa/twin"
	base := f.push(twin+":base", harness.Image{Seed: "good", Annotations: map[string]string{"twin": "yes"}})
	manifest := f.manifest(twin, base.Digest)
	for _, malformed := range []struct {
		name, mediaType string
		content         []byte
	}{
		{"key-twice", manifestType, append([]byte(`{"mediatype":"`+manifestType+`",`), manifest[1:]...)},
		{"other-config-type", manifestType, []byte(strings.Replace(string(manifest), "oci.image.config.v1", "example.config.v1", 1))},
		{"not-an-index", indexType, indexOf(t, "", entry(manifestType, runtime.GOARCH, base.Digest, len(manifest)),
			entry(indexType, "s390x", base.Digest, len(manifest)))},
	} {
		f.sub(malformed.name, func(t *testing.T, f *fixture) {
			f.pushAndPull(twin, malformed.name, malformed.mediaType, malformed.content)
			for _, c := range []harness.ContainerConfig{
				{Image: good.ByDigest()}, {Image: good.ByTag()}, {Image: good.ByDigest(), Volumes: volume},
			} {
				if _, err := f.create(f.pod(shop), c); err != nil {
					t.Errorf("the good image: %v", err)
				}
			}
		})
	}
}

func TestAnImageOverTheSameLayersIsNotTakenForTheAttestedOne(t *testing.T) {
	// This containerd does not tell which image it is.
	f := newFixture(t, func(o *setup) { o.containerd.Version = harness.Containerd22 })
	good := f.push(cart+":1", harness.Image{Seed: "good"})
	f.attest(good)
	pod := f.pod(shop)
	f.created(pod, harness.ContainerConfig{Image: good.ByTag()})

	// Strangers' indexes that are all to be looked at again when the trigger arrives.
	wide := f.push(miner+":wide", harness.Image{Seed: "wide"})
	trigger := f.push(miner+":trigger", harness.Image{Seed: "trigger"})
	entries := []object{
		entry(manifestType, runtime.GOARCH, wide.Digest, len(f.manifest(miner, wide.Digest))),
		entry(manifestType, "s390x", trigger.Digest, len(f.manifest(miner, trigger.Digest))),
	}
	for i := range 126 {
		content := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[],"annotations":{"n":"%d"}}`,
			manifestType, wide.Config, i)
		digest, err := f.registry.PushManifest(miner, "", manifestType, content)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry(manifestType, "s390x", digest, len(content)))
	}
	for i := range 20 {
		f.pushAndPull(miner, fmt.Sprint("wide-", i), indexType, indexOf(t, fmt.Sprint(i), entries...))
	}
	// The tag moves to another command over the same layers while the gate is busy.
	f.push(cart+":1", harness.Image{Seed: "good", Entrypoint: []string{"/pause", "evil"}})
	if _, err := f.containerd.CRI.Pull(f.ctx, trigger.ByTag()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := f.create(pod, harness.ContainerConfig{Image: good.ByTag(), PullPolicy: "Always"}); err == nil {
			t.Fatal("another command over the layers of the attested image was admitted")
		}
	}
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
