package containerd

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// wanted is what binding a container should give.
type wanted struct {
	unbound    string // part of the text; all else is then not looked at
	name       string
	config     image.Digest
	candidates []verifier.Candidate
	digests    []image.Digest // all but the config, in any order
}

func (w wanted) check(t *testing.T, got verifier.Image) {
	t.Helper()
	if w.unbound != "" {
		if !strings.Contains(got.Unbound, w.unbound) {
			t.Errorf("unbound %q, want %q in it", got.Unbound, w.unbound)
		}
		if got.Name != (image.Reference{}) || got.Config != "" || got.Candidates != nil || got.Digests != nil {
			t.Errorf("an unbound image speaks of content: %+v", got)
		}
		return
	}
	if got.Unbound != "" {
		t.Fatalf("unbound: %s", got.Unbound)
	}
	if name := got.Name.String(); name != w.name {
		t.Errorf("name %q, want %q", name, w.name)
	}
	if got.Config != w.config {
		t.Errorf("config %s, want %s", got.Config, w.config)
	}
	same := func(a, b verifier.Candidate) bool {
		return a.Repository == b.Repository && slices.Equal(a.Digests, b.Digests)
	}
	if !slices.EqualFunc(got.Candidates, w.candidates, same) {
		t.Errorf("candidates\n%v, want\n%v", got.Candidates, w.candidates)
	}
	digests := slices.Sorted(slices.Values(got.Digests))
	if want := slices.Sorted(slices.Values(append(w.digests, w.config))); !slices.Equal(digests, want) {
		t.Errorf("digests\n%v, want\n%v", digests, want)
	}
}

// as is the candidate of an image under a repository.
func (b built) as(repository string) verifier.Candidate {
	if b.index == "" {
		return verifier.Candidate{Repository: repository, Digests: []image.Digest{b.manifest}}
	}
	return verifier.Candidate{Repository: repository, Digests: []image.Digest{b.index, b.manifest}}
}

const (
	good = "registry.example.com/good/app"
	twin = "aaa.example.com/twin/app"
)

func TestBindContainer(t *testing.T) {
	// app is what most cases run: pulled by tag before the index is made.
	type world struct {
		*fake
		app built
	}
	// twinOf gives an image with the config of another, and a manifest of its own.
	twinOf := func(w world) built {
		return built{config: w.app.config, chain: w.app.chain, manifest: w.manifest(w.app.config, 2, "twin")}
	}
	plain := func(w world) wanted {
		return wanted{name: good + ":1", config: w.app.config, candidates: []verifier.Candidate{w.app.as(good)},
			digests: []image.Digest{w.app.index, w.app.manifest}}
	}
	for _, test := range []struct {
		name string
		do   func(world) (Claim, wanted)
	}{
		{"an image by tag has its name and its digests, index first", func(w world) (Claim, wanted) {
			return w.claimOf(good+":1", w.app), plain(w)
		}},
		{"an image by digest has its name", func(w world) (Claim, wanted) {
			want := plain(w)
			want.name = good + "@" + string(w.app.index)
			return w.claimOf(want.name, w.app), want
		}},
		{"tag and digest are looked up as the digest", func(w world) (Claim, wanted) {
			want := plain(w)
			want.name = good + ":never-pulled@" + string(w.app.index)
			return w.claimOf(want.name, w.app), want
		}},
		{"an image by its id has no name, and candidates", func(w world) (Claim, wanted) {
			want := plain(w)
			want.name = ""
			return w.claimOf(string(w.app.config), w.app), want
		}},
		{"an image by its bare id has no name", func(w world) (Claim, wanted) {
			want := plain(w)
			want.name = ""
			return w.claimOf(w.app.config.Encoded()[:12], w.app), want
		}},
		{"no annotation, no name", func(w world) (Claim, wanted) {
			want := plain(w)
			want.name = ""
			return w.claimOf("", w.app), want
		}},
		{"the name of another image does not count", func(w world) (Claim, wanted) {
			w.record("registry.example.com/allowed/app:1", w.simple("other", "x").manifest)
			want := plain(w)
			want.name = ""
			return w.claimOf("registry.example.com/allowed/app:1", w.app), want
		}},
		{"a name without a record does not count", func(w world) (Claim, wanted) {
			want := plain(w)
			want.name = ""
			return w.claimOf("registry.example.com/allowed/app:1", w.app), want
		}},
		{"a digest that leads to the config does not lend a repository", func(w world) (Claim, wanted) {
			want := plain(w)
			want.name = ""
			return w.claimOf("registry.example.com/allowed/app@"+string(w.app.index), w.app), want
		}},
		{"a twin reported by containerd does not take the name", func(w world) (Claim, wanted) {
			other := twinOf(w)
			w.record(twin+":1", other.manifest)
			claim := w.claimOf(good+":1", other)
			want := plain(w)
			want.candidates = []verifier.Candidate{w.app.as(good), other.as(twin)}
			want.digests = append(want.digests, other.manifest)
			return claim, want
		}},
		{"records under image ids are digests and no candidates", func(w world) (Claim, wanted) {
			other := twinOf(w)
			w.record(string(w.app.config), other.manifest)
			want := plain(w)
			want.digests = append(want.digests, other.manifest)
			return w.claimOf(good+":1", w.app), want
		}},
		{"a record whose name is not in its normal form is no candidate", func(w world) (Claim, wanted) {
			w.record("app", w.app.index)
			return w.claimOf(good+":1", w.app), plain(w)
		}},
		{"a tag that moved away keeps the candidate of the digest", func(w world) (Claim, wanted) {
			w.record(good+":1", w.simple("newer", "x").manifest)
			want := plain(w)
			want.name = ""
			return w.claimOf(good+":1", w.app), want
		}},
		{"the digest of a moved tag with the config of the old one", func(w world) (Claim, wanted) {
			newer := w.simple("newer", "x")
			claim := w.claimOf(good+":1", newer)
			claim.ConfigDigest = string(w.app.config)
			return claim, wanted{unbound: "does not lead to the other"}
		}},
		{"a snapshot of other content", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			w.snapshot("overlayfs", testContainer, chain("base"), nil)
			return claim, wanted{unbound: "is not of image"}
		}},
		{"a snapshot without a parent", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			w.snapshot("overlayfs", testContainer, "", nil)
			return claim, wanted{unbound: "its parent is none"}
		}},
		{"no snapshot", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			claim.ContainerID = "another"
			return claim, wanted{unbound: errNoSnapshot.Error()}
		}},
		{"a claim without ids", func(w world) (Claim, wanted) {
			return Claim{}, wanted{unbound: "learn the default snapshotter"}
		}},
		{"a claim without a container id", func(w world) (Claim, wanted) {
			return Claim{RuntimeHandler: "kata"}, wanted{unbound: "no container id"}
		}},
		{"a config digest alone", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			claim.Digest = ""
			return claim, wanted{unbound: "the digest that containerd reports"}
		}},
		{"a digest alone", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			claim.ConfigDigest = ""
			return claim, wanted{unbound: "the config digest that containerd reports"}
		}},
		{"a digest that is none", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			claim.Digest = "sha256:../../x"
			return claim, wanted{unbound: "the digest that containerd reports"}
		}},
		{"a digest without content", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":other", w.simple("other", "x"))
			claim.Digest = string(image.SHA256([]byte("gone")))
			return claim, wanted{unbound: "not found"}
		}},
		{"content that does not have its digest", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":other", w.simple("other", "x"))
			bad := image.SHA256([]byte("bad"))
			w.mu.Lock()
			w.blobs[bad] = w.blobs[w.app.manifest]
			w.mu.Unlock()
			claim.Digest = string(bad)
			return claim, wanted{unbound: "does not have this digest"}
		}},
		{"an artifact whose config is {}", func(w world) (Claim, wanted) {
			empty := w.json(object{})
			b := built{config: empty}
			b.manifest = w.json(object{"schemaVersion": 2, "mediaType": manifestType, "layers": []object{},
				"config": descriptor("application/vnd.oci.empty.v1+json", empty)})
			w.record(good+":artifact", b.manifest)
			return w.claimOf(good+":artifact", b), wanted{unbound: "does not say what runs"}
		}},
		{"artifacts that share a config are no candidates of each other's", func(w world) (Claim, wanted) {
			odd := w.json(object{"schemaVersion": 2, "mediaType": manifestType, "layers": []object{},
				"config": descriptor("application/vnd.example.config", w.app.config)})
			w.record(twin+":artifact", odd)
			want := plain(w)
			want.digests = append(want.digests, odd) // a revocation of it still counts
			return w.claimOf(good+":1", w.app), want
		}},
		{"a manifest with more layers than its config has diff ids", func(w world) (Claim, wanted) {
			b := built{config: w.config("other", "x"), chain: chain("x")}
			b.manifest = w.manifest(b.config, 3, "more")
			w.record(twin+":1", b.manifest)
			return w.claimOf(twin+":1", b), wanted{unbound: "3 layers"}
		}},
		{"a malformed twin reported by containerd does not deny the image", func(w world) (Claim, wanted) {
			bad := w.malformed(w.app)
			w.record(twin+":1", bad)
			return w.claimOf(good+":1", built{config: w.app.config, chain: w.app.chain, manifest: bad}), plain(w)
		}},
		{"a malformed twin that no record leads to any more does not either", func(w world) (Claim, wanted) {
			return w.claimOf(good+":1", built{config: w.app.config, chain: w.app.chain, manifest: w.malformed(w.app)}), plain(w)
		}},
		{"a malformed twin's digests that can be told count for revocations", func(w world) (Claim, wanted) {
			bad := w.hostile("bad", w.app, 3)
			w.record(twin+":1", bad)
			want := plain(w)
			want.digests = append(want.digests, bad)
			return w.claimOf(good+":1", built{config: w.app.config, chain: w.app.chain, index: bad}), want
		}},
		{"an unusable twin reported by containerd does not deny the image", func(w world) (Claim, wanted) {
			bad := w.manifest(w.app.config, 3, "more")
			w.record(twin+":1", bad)
			want := plain(w)
			want.digests = append(want.digests, bad)
			return w.claimOf(good+":1", built{config: w.app.config, chain: w.app.chain, manifest: bad}), want
		}},
		{"a pod that asks for the malformed twin has no name, and the content's candidates", func(w world) (Claim, wanted) {
			bad := w.malformed(w.app)
			w.record(twin+":1", bad)
			want := plain(w)
			want.name = ""
			return w.claimOf(twin+":1", built{config: w.app.config, chain: w.app.chain, manifest: bad}), want
		}},
		{"a malformed twin with other content in the snapshot", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", built{config: w.app.config, chain: chain("evil"), manifest: w.malformed(w.app)})
			return claim, wanted{unbound: "is not of image"}
		}},
		{"a malformed image of which no record is sound", func(w world) (Claim, wanted) {
			other := w.simple("other", "base", "app")
			bad := w.malformed(other)
			w.record(twin+":1", bad)
			return w.claimOf(twin+":1", built{config: other.config, chain: other.chain, manifest: bad}), wanted{unbound: "image " + string(bad)}
		}},
		{"an image without layers", func(w world) (Claim, wanted) {
			b := w.simple("scratch")
			w.record(good+":scratch", b.manifest)
			return w.claimOf(good+":scratch", b), wanted{name: good + ":scratch", config: b.config,
				candidates: []verifier.Candidate{b.as(good)}, digests: []image.Digest{b.manifest}}
		}},
		{"an image without layers in a snapshot with a parent", func(w world) (Claim, wanted) {
			b := w.simple("scratch")
			w.record(good+":scratch", b.manifest)
			claim := w.claimOf(good+":scratch", b)
			w.snapshot("overlayfs", testContainer, chain("base"), nil)
			return claim, wanted{unbound: "want none"}
		}},
		{"a user namespace whose ids the snapshotter maps", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			w.snapshot("overlayfs", testContainer, w.app.chain, map[string]string{uidLabel: "0:65536:65536", gidLabel: "0:65536:65536"})
			return claim, plain(w)
		}},
		{"a user namespace with a copy of the right chain and mapping", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			w.snapshot("overlayfs", testContainer, remapTo(65536, w.app.chain), map[string]string{uidLabel: "0:65536:65536", gidLabel: "0:65536:65536"})
			return claim, plain(w)
		}},
		{"a user namespace with a copy of another chain", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			w.snapshot("overlayfs", testContainer, remapTo(65536, chain("evil")), map[string]string{uidLabel: "0:65536:65536", gidLabel: "0:65536:65536"})
			return claim, wanted{unbound: "is not of image"}
		}},
		{"a user namespace with a copy of another mapping", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			w.snapshot("overlayfs", testContainer, remapTo(131072, w.app.chain), map[string]string{uidLabel: "0:65536:65536", gidLabel: "0:65536:65536"})
			return claim, wanted{unbound: "is not of image"}
		}},
		{"a mapping that is none", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			w.snapshot("overlayfs", testContainer, w.app.chain, map[string]string{uidLabel: "0:x:1"})
			return claim, wanted{unbound: "container:host:size"}
		}},
		{"a runtime handler with a snapshotter of its own", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			claim.RuntimeHandler = "kata"
			w.snapshot("overlayfs", testContainer, chain("base"), nil)
			w.snapshot("devmapper", testContainer, w.app.chain, nil)
			return claim, plain(w)
		}},
		{"a snapshotter that does not verify diff ids", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			claim.RuntimeHandler = "lazy"
			w.snapshot("stargz", testContainer, w.app.chain, nil)
			return claim, wanted{unbound: `snapshotter "stargz" is not known to check`}
		}},
		{"a default snapshotter that does not verify diff ids", func(w world) (Claim, wanted) {
			w.sandbox(testSandbox, "erofs", "", "")
			return w.claimOf(good+":1", w.app), wanted{unbound: `snapshotter "erofs"`}
		}},
		{"an unknown runtime handler", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			claim.RuntimeHandler = "gvisor"
			return claim, wanted{unbound: `no runtime handler "gvisor"`}
		}},
		{"containerd that answers the stat with an error", func(w world) (Claim, wanted) {
			w.fail("Snapshots/Stat", status.Error(codes.Internal, "disk on fire"))
			return w.claimOf(good+":1", w.app), wanted{unbound: "disk on fire"}
		}},
		{"before 2.4 the one config with the snapshot's chain", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			claim.Digest, claim.ConfigDigest = "", ""
			return claim, plain(w)
		}},
		{"before 2.4 two configs with the snapshot's chain", func(w world) (Claim, wanted) {
			w.record(twin+":1", w.simple("same layers", "base", "app").manifest)
			claim := w.claimOf(good+":1", w.app)
			claim.Digest, claim.ConfigDigest = "", ""
			return claim, wanted{unbound: "2 images on the node"}
		}},
		{"before 2.4 a twin with the same config is not ambiguous", func(w world) (Claim, wanted) {
			other := twinOf(w)
			w.record(twin+":1", other.manifest)
			claim := w.claimOf(good+":1", w.app)
			claim.Digest, claim.ConfigDigest = "", ""
			want := plain(w)
			want.candidates = append(want.candidates, other.as(twin))
			want.digests = append(want.digests, other.manifest)
			return claim, want
		}},
		{"before 2.4 no config with the snapshot's chain", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			w.snapshot("overlayfs", testContainer, chain("base"), nil)
			claim.Digest, claim.ConfigDigest = "", ""
			return claim, wanted{unbound: "no image on the node has the content"}
		}},
		{"before 2.4 the one image without layers", func(w world) (Claim, wanted) {
			b := w.simple("scratch")
			w.record(good+":scratch", b.manifest)
			claim := w.claimOf(good+":scratch", b)
			claim.Digest, claim.ConfigDigest = "", ""
			return claim, wanted{name: good + ":scratch", config: b.config,
				candidates: []verifier.Candidate{b.as(good)}, digests: []image.Digest{b.manifest}}
		}},
		{"before 2.4 two images without layers", func(w world) (Claim, wanted) {
			b := w.simple("scratch")
			w.record(good+":scratch", b.manifest)
			w.record(twin+":scratch", w.simple("scratch too").manifest)
			claim := w.claimOf(good+":scratch", b)
			claim.Digest, claim.ConfigDigest = "", ""
			return claim, wanted{unbound: "whose parent is none"}
		}},
		{"before 2.4 a user namespace with a copy that its name proves", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			claim.Digest, claim.ConfigDigest = "", ""
			w.snapshot("overlayfs", testContainer, remapTo(65536, w.app.chain), map[string]string{uidLabel: "0:65536:65536", gidLabel: "0:65536:65536"})
			w.snapshot("overlayfs", string(remapTo(65536, w.app.chain)), w.app.chain, nil)
			return claim, plain(w)
		}},
		{"before 2.4 a user namespace with a parent that only has the right parent", func(w world) (Claim, wanted) {
			claim := w.claimOf(good+":1", w.app)
			claim.Digest, claim.ConfigDigest = "", ""
			w.snapshot("overlayfs", testContainer, chain("evil"), map[string]string{uidLabel: "0:65536:65536", gidLabel: "0:65536:65536"})
			w.snapshot("overlayfs", string(chain("evil")), w.app.chain, nil)
			return claim, wanted{unbound: "no image on the node"}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			w := world{f, f.multi("app", "base", "app")}
			w.pull(good, "1", w.app)
			claim, want := test.do(w)
			ix := f.follow(Options{})
			want.check(t, bindOne(t, ix, claim))
		})
	}
}

// remapTo names the copy of a chain for a user namespace that starts at a host id, by the
// form that containerd documents in nothing but its code.
func remapTo(host uint32, chain image.Digest) image.Digest {
	ids := fmt.Sprintf(`[{"containerID":0,"hostID":%d,"size":65536}]`, host)
	return image.SHA256(fmt.Appendf(nil, `{"Parent":%q,"IDMap":{"UidMap":%s,"GidMap":%s}}`, chain, ids, ids))
}

func TestTheCandidatesAreSixteenAndTheAskedForComesFirst(t *testing.T) {
	f := newFake(t)
	app := f.multi("app", "base")
	f.pull(good, "1", app)
	var manifests []image.Digest
	for i := range 40 {
		m := f.manifest(app.config, 1, fmt.Sprint("twin ", i))
		manifests = append(manifests, m)
		f.record(fmt.Sprintf("aaa.example.com/twin-%02d:1", i), m)
	}
	ix := f.follow(Options{})
	got := bindOne(t, ix, f.claimOf(good+":1", app))
	if len(got.Candidates) != verifier.MaxCandidates {
		t.Fatalf("%d candidates, want %d", len(got.Candidates), verifier.MaxCandidates)
	}
	if first := got.Candidates[0]; first.Repository != good || !slices.Equal(first.Digests, []image.Digest{app.index, app.manifest}) {
		t.Errorf("the first candidate is %v", first)
	}
	for i, c := range got.Candidates[1:] {
		if want := fmt.Sprintf("aaa.example.com/twin-%02d", i); c.Repository != want {
			t.Errorf("candidate %d is of %s, want %s", i+1, c.Repository, want)
		}
	}
	for _, m := range manifests {
		if !slices.Contains(got.Digests, m) {
			t.Errorf("digest %s of a twin is missing", m)
		}
	}
}

func TestAClaimOfAWarmIndexCostsOneCall(t *testing.T) {
	f := newFake(t)
	app := f.multi("app", "base")
	f.pull(good, "1", app)
	ix := f.follow(Options{})
	claim := f.claimOf(good+":1", app)
	volume := f.multi("data", "files")
	f.pull(good, "data", volume)
	knows(t, ix, string(volume.config))
	claim.Mounts = []string{"proc", "/", f.volume(testSandbox, volume), f.volume(testSandbox, volume) + "/sub/path"}
	ix.Bind(t.Context(), claim) // learns the default snapshotter
	eventually(t, "the second list is over", func() bool { return f.idle() })
	for _, test := range []struct {
		mounts []string
		stats  int
	}{{nil, 1}, {claim.Mounts, 2}} {
		f.counted()
		claim.Mounts = test.mounts
		for _, img := range ix.Bind(t.Context(), claim) {
			if img.Unbound != "" {
				t.Error(img.Unbound)
			}
		}
		if calls := f.counted(); len(calls) != 1 || calls["Snapshots/Stat"] != test.stats {
			t.Errorf("with mounts %q the calls were %v, want %d of Snapshots/Stat", test.mounts, calls, test.stats)
		}
	}
}

func TestWhatNoEventToldIsAskedOfContainerd(t *testing.T) {
	for _, test := range []struct {
		name string
		old  bool // containerd before 2.4
	}{{"with digests", false}, {"by the snapshot's chain", true}} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			ix := f.follow(Options{})
			app := f.multi("app", "base")
			f.record(good+":1", app.index)
			claim := f.claimOf(good+":1", app)
			if test.old {
				claim.Digest, claim.ConfigDigest = "", ""
			}
			want := wanted{name: good + ":1", config: app.config, candidates: []verifier.Candidate{app.as(good)},
				digests: []image.Digest{app.index, app.manifest}}
			want.check(t, bindOne(t, ix, claim))
			knows(t, ix, good+":1") // and merged
			want.check(t, bindOne(t, ix, claim))
		})
	}
}

func TestATagThatMovedWithoutAnEventIsAskedOfContainerd(t *testing.T) {
	f := newFake(t)
	older := f.multi("older", "base")
	f.pull(good, "1", older)
	ix := f.follow(Options{})
	newer := f.multi("newer", "base", "more")
	f.record(good+":1", newer.index)
	want := wanted{name: good + ":1", config: newer.config, candidates: []verifier.Candidate{newer.as(good)},
		digests: []image.Digest{newer.index, newer.manifest}}
	want.check(t, bindOne(t, ix, f.claimOf(good+":1", newer)))
}

func TestANameThatCannotBeAskedForIsUnbound(t *testing.T) {
	f := newFake(t)
	app := f.multi("app", "base")
	f.pull(good, "1", app)
	ix := f.follow(Options{})
	f.fail("Images/Get", status.Error(codes.Unavailable, "busy"))
	wanted{unbound: "busy"}.check(t, bindOne(t, ix, f.claimOf(good+":unknown", app)))
}

func TestContentThatArrivesLaterIsFoundByAClaim(t *testing.T) {
	f := newFake(t)
	app := f.multi("app", "base")
	config := f.dropBlob(app.config)
	f.pull(good, "1", app)
	ix := f.follow(Options{})
	claim := f.claimOf(good+":1", app)
	wanted{unbound: "does not lead"}.check(t, bindOne(t, ix, claim))
	f.blob(config)
	want := wanted{name: good + ":1", config: app.config, candidates: []verifier.Candidate{app.as(good)},
		digests: []image.Digest{app.index, app.manifest}}
	eventually(t, "the claim is bound", func() bool { return bindOne(t, ix, claim).Unbound == "" && bindOne(t, ix, claim).Name.Tag != "" })
	want.check(t, bindOne(t, ix, claim))
}

func TestADefaultSnapshotterThatChangedIsLearnedAgain(t *testing.T) {
	f := newFake(t)
	app := f.multi("app", "base")
	f.pull(good, "1", app)
	f.sandbox("old", "native", "", "")
	ix := f.follow(Options{})
	claim := f.claimOf(good+":1", app)
	claim.SandboxID = "old"
	wanted{unbound: errNoSnapshot.Error()}.check(t, bindOne(t, ix, claim))
	claim.SandboxID = testSandbox
	if got := bindOne(t, ix, claim); got.Unbound != "" {
		t.Error(got.Unbound)
	}
}

func TestAnIndexThatIsNotCurrentBindsNothing(t *testing.T) {
	f := newFake(t)
	app := f.multi("app", "base")
	f.pull(good, "1", app)
	ix := NewIndex(f.dial(), Options{})
	wanted{unbound: "not current"}.check(t, bindOne(t, ix, f.claimOf(good+":1", app)))
	if img := ix.BindSandbox(t.Context(), testSandbox); !strings.Contains(img.Unbound, "not current") {
		t.Errorf("unbound %q", img.Unbound)
	}
}
