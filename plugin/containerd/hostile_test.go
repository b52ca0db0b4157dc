package containerd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// old is a claim as containerd before 2.4 makes it.
func (c Claim) old() Claim {
	c.Digest, c.ConfigDigest = "", ""
	return c
}

func TestAnImageOverTheSameLayersThatNoEventToldIsNotTakenForTheKnownOne(t *testing.T) {
	const both = "2 images on the node with different configs"
	for _, test := range []struct {
		name string
		// do changes containerd's records behind the index and returns what the pod asks for.
		do      func(f *fake, app, evil built) string
		unbound string
		bound   string // name
	}{
		{"the tag has moved to it", func(f *fake, _, evil built) string {
			f.record(good+":1", evil.manifest)
			return good + ":1"
		}, both, ""},
		{"the tag has moved to an index of it", func(f *fake, _, evil built) string {
			f.record(good+":1", f.index("evil", evil.manifest))
			return good + ":1"
		}, both, ""},
		{"the tag has moved to a malformed index of it", func(f *fake, _, evil built) string {
			f.record(good+":1", f.hostile("evil", evil, 3))
			return good + ":1"
		}, "what the pod asked for is not the image", ""},
		{"it is asked for by its own name", func(f *fake, _, evil built) string {
			f.record(twin+":1", evil.manifest)
			return twin + ":1"
		}, both, ""},
		{"it is asked for by tag and digest", func(f *fake, _, evil built) string {
			f.record(twin+"@"+string(evil.manifest), evil.manifest)
			return twin + ":1@" + string(evil.manifest)
		}, both, ""},
		{"it is asked for by its id", func(f *fake, _, evil built) string {
			f.record(string(evil.config), evil.manifest)
			return string(evil.config)
		}, both, ""},
		{"it is asked for by the hex of its id", func(f *fake, _, evil built) string {
			f.record(string(evil.config), evil.manifest)
			return evil.config.Encoded()
		}, both, ""},
		{"it is asked for by an abbreviated id", func(_ *fake, _, evil built) string {
			return evil.config.Encoded()[:12]
		}, "the image id that the pod asked for", ""},
		{"it is asked for by an id that has no record", func(_ *fake, _, evil built) string {
			return string(evil.config)
		}, "the image id that the pod asked for", ""},
		{"the tag has moved to other layers", func(f *fake, _, _ built) string {
			f.record(good+":1", f.simple("newer", "x").manifest)
			return good + ":1"
		}, "its tag may just have moved", ""},
		{"an abbreviated id of the known one", func(_ *fake, app, _ built) string {
			return "sha256:" + app.config.Encoded()[:7]
		}, "", ""},
		{"the known one by its tag", func(*fake, built, built) string { return good + ":1" }, "", good + ":1"},
		{"a name without a record", func(*fake, built, built) string { return good + ":2" }, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			app, evil := f.simple("app", "base"), f.simple("evil", "base")
			f.pull(good, "1", app)
			ix := f.follow(Options{})
			claim := f.claimOf(test.do(f, app, evil), app).old()
			got := bindOne(t, ix, claim)
			if test.unbound != "" {
				wanted{unbound: test.unbound}.check(t, got)
				return
			}
			wanted{name: test.bound, config: app.config, candidates: []verifier.Candidate{app.as(good)},
				digests: []image.Digest{app.manifest}}.check(t, got)
		})
	}
}

func TestAnIndexThatHasNotCaughtUpDoesNotTellWhichConfigASnapshotHas(t *testing.T) {
	f := newFake(t)
	app := f.simple("app", "base")
	f.pull(good, "1", app)
	ix := f.follow(Options{})
	eventually(t, "the second list is over", f.idle)
	release := f.hold("Content/Read")
	f.pull(twin, "1", f.simple("evil", "base"))
	eventually(t, "the event is received", func() bool { return ix.events.waits(twin + ":1") })

	claim := f.claimOf(good+":1", app)
	if got := bindOne(t, ix, claim); got.Unbound != "" {
		t.Errorf("where containerd tells the config: %s", got.Unbound)
	}
	wanted{unbound: notCaughtUp}.check(t, bindOne(t, ix, claim.old()))
	release()
	knows(t, ix, twin+":1")
	wanted{unbound: "2 images"}.check(t, bindOne(t, ix, claim.old()))
}

func TestANameIsNotBoundFromARecordThatAnEventIsAbout(t *testing.T) {
	f := newFake(t)
	app := f.simple("app", "base")
	f.pull(good, "1", app)
	ix := f.follow(Options{})
	eventually(t, "the second list is over", f.idle)
	release := f.hold("Content/Read")
	defer release()
	f.record(good+":1", f.simple("newer", "x").manifest)
	f.publish("/images/update", good+":1")
	eventually(t, "the event is received", func() bool { return ix.events.waits(good + ":1") })
	// The new target cannot be read while the reads are held.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if got := ix.Bind(ctx, f.claimOf(good+":1", app)); got[0].Name != (image.Reference{}) {
		t.Errorf("the name was bound: %+v", got[0])
	}
}

func TestAClaimBeforeTwoFourCostsOneCallMore(t *testing.T) {
	f := newFake(t)
	app := f.multi("app", "base")
	f.pull(good, "1", app)
	ix := f.follow(Options{})
	claim := f.claimOf(good+":1", app).old()
	bindOne(t, ix, claim) // learns the default snapshotter
	eventually(t, "the second list is over", f.idle)
	f.counted()
	if got := bindOne(t, ix, claim); got.Unbound != "" {
		t.Fatal(got.Unbound)
	}
	if calls := f.counted(); len(calls) != 2 || calls["Snapshots/Stat"] != 1 || calls["Images/Get"] != 1 {
		t.Errorf("the calls were %v", calls)
	}
}

func TestContentKnownToHaveAFaultIsNotReadWhileTheNodeWaits(t *testing.T) {
	f := newFake(t)
	app := f.simple("app", "base")
	f.pull(good, "1", app)
	var mounts []string
	for i := range 16 {
		data := f.simple(fmt.Sprint("data", i), fmt.Sprint(i))
		bad := f.hostile(fmt.Sprint(i), data, 126)
		f.record(fmt.Sprint(twin, ":", i), bad)
		mounts = append(mounts, f.volume(testSandbox, built{manifest: bad, chain: chain(fmt.Sprint(i))}))
	}
	bad := f.hostile("bad", app, 126)
	f.record(twin+":bad", bad)
	ix := f.follow(Options{})
	claim := f.claimOf(good+":1", built{config: app.config, chain: app.chain, index: bad})
	claim.Mounts = mounts
	defer f.hold("Content/Read")() // whoever reads now fails
	images := ix.Bind(t.Context(), claim)
	if len(images) != 17 || images[0].Unbound != "" || images[0].Name.Repository != good {
		t.Fatalf("%d images; %+v", len(images), images[0])
	}
	for _, img := range images[1:] {
		if !strings.Contains(img.Unbound, "is not of the kind") {
			t.Errorf("unbound %q", img.Unbound)
		}
	}
}

func TestContentWithAFaultThatAClaimNamesIsTriedAgainInTheBackground(t *testing.T) {
	f := newFake(t)
	app := f.simple("app", "base")
	manifest := f.dropBlob(app.manifest)
	f.pull(good, "1", app)
	ix := NewIndex(f.dial(), Options{})
	ix.retry = time.Millisecond
	f.run(ix)
	eventually(t, "the second list is over", f.idle)
	claim := f.claimOf(good+":1", app)
	wanted{unbound: "not found"}.check(t, bindOne(t, ix, claim))
	f.blob(manifest) // no event
	eventually(t, "the claim is bound", func() bool { return bindOne(t, ix, claim).Unbound == "" })
}

func TestABindReadsSoManyBlobsAndNoMore(t *testing.T) {
	for _, test := range []struct {
		name   string
		absent int
		old    bool
		ok     bool
	}{
		{"as many as it may", maxReads - 3, false, true}, // the index, the manifest and the config
		{"one more", maxReads - 2, false, false},
		{"as many as it may, before 2.4", maxReads - 3, true, true},
		{"one more, before 2.4", maxReads - 2, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			ix := f.follow(Options{})
			eventually(t, "the second list is over", f.idle)
			app := f.simple("app", "base")
			list := []image.Digest{app.manifest}
			for i := range test.absent {
				list = append(list, image.SHA256(fmt.Append(nil, "absent", i)))
			}
			app.index = f.index("wide", list...)
			f.record(good+":1", app.index)
			claim := f.claimOf(good+":1", app)
			if test.old {
				claim = claim.old()
			}
			release := f.hold("Images/List") // nothing but the claim
			defer release()
			f.counted()
			got := bindOne(t, ix, claim)
			if test.ok != (got.Unbound == "") || !test.ok && !strings.Contains(got.Unbound, errTooMany.Error()) {
				t.Errorf("unbound %q", got.Unbound)
			}
			if test.ok {
				return
			}
			// What is too much for the claim is read in the background.
			f.publish("/images/create", good+":1")
			knows(t, ix, good+":1")
			if got := bindOne(t, ix, claim); got.Unbound != "" {
				t.Error(got.Unbound)
			}
		})
	}
	t.Run("its volumes included", func(t *testing.T) {
		t.Parallel()
		f := newFake(t)
		app := f.simple("app", "base")
		f.pull(good, "1", app)
		ix := f.follow(Options{})
		eventually(t, "the second list is over", f.idle)
		claim := f.claimOf(good+":1", app)
		for i := range maxVolumes {
			claim.Mounts = append(claim.Mounts, f.volume(testSandbox, f.multi(fmt.Sprint(i), fmt.Sprint(i))))
		}
		f.counted()
		images := ix.Bind(t.Context(), claim)
		if calls := f.counted(); calls["Content/Read"] > maxReads {
			t.Errorf("%d reads", calls["Content/Read"])
		}
		bound := 0
		for _, img := range images[1:] {
			if img.Unbound == "" {
				bound++
			}
		}
		if want := maxReads / 4; bound != want { // index, manifest, config, and the other platform
			t.Errorf("%d of %d volumes are bound, want %d", bound, len(images)-1, want)
		}
	})
}

func TestNamesInEventsComeBeforeWhatIsLookedAtAgain(t *testing.T) {
	f := newFake(t)
	trigger := f.simple("trigger", "t")
	const wide = 40
	for i := range 60 {
		list := []image.Digest{trigger.manifest}
		for k := range wide {
			list = append(list, image.SHA256(fmt.Append(nil, i, k)))
		}
		f.record(fmt.Sprintf("%s:%d", twin, i), f.index(fmt.Sprint(i), list...))
	}
	later := f.dropBlob(trigger.manifest)
	ix := f.follow(Options{})
	eventually(t, "the second list is over", f.idle)
	f.counted()
	f.blob(later)
	f.pull(twin, "trigger", trigger) // outdates all of them
	app := f.multi("app", "base")
	f.pull(good, "1", app)
	knows(t, ix, good+":1")
	if reads := f.counted()["Content/Read"]; reads > 10*wide {
		t.Errorf("%d blobs were read before the name in an event was looked at", reads)
	}
	eventually(t, "the indexes lead to what arrived", func() bool {
		return !slices.ContainsFunc([]int{0, 30, 59}, func(i int) bool { return !ix.named(fmt.Sprintf("%s:%d", twin, i)).offers(trigger.config) })
	})
}

func TestABlobThatCannotBeReadIsAFaultOfItsRecordsOnly(t *testing.T) {
	f := newFake(t)
	app, bad := f.simple("app", "base"), f.simple("bad", "x")
	f.pull(good, "1", app)
	f.pull(twin, "1", bad)
	f.mu.Lock()
	f.broken[bad.config] = status.Error(codes.Unknown, "read /blobs: input/output error")
	f.mu.Unlock()
	ix := NewIndex(f.dial(), Options{Relist: 10 * time.Millisecond})
	f.run(ix)
	if got := bindOne(t, ix, f.claimOf(good+":1", app)); got.Unbound != "" {
		t.Error(got.Unbound)
	}
	claim := f.claimOf(twin+":1", bad)
	wanted{unbound: "input/output error"}.check(t, bindOne(t, ix, claim))
	f.mu.Lock()
	delete(f.broken, bad.config)
	f.mu.Unlock()
	eventually(t, "it is read when all is listed again", func() bool { return bindOne(t, ix, claim).Unbound == "" })
}

func TestNoNumberOfTwinsCrowdsOutAPreferredCandidate(t *testing.T) {
	f := newFake(t)
	app := f.multi("app", "base")
	f.pull(good, "1", app)
	const twins = 2_000
	for i := range twins {
		f.record(fmt.Sprintf("aaa.example.com/twin-%05d:1", i), f.manifest(app.config, 1, fmt.Sprint("twin ", i)))
	}
	asked, last := "aaa.example.com/twin-00100", fmt.Sprintf("aaa.example.com/twin-%05d", twins-1)
	ix := f.follow(Options{Prefer: func(c verifier.Candidate) bool { return c.Repository == good || c.Repository == last }})
	claim := f.claimOf(asked+":1", app)
	began := time.Now()
	got := bindOne(t, ix, claim)
	t.Logf("with %d twins a claim takes %s", twins, time.Since(began))
	var repositories []string
	for _, c := range got.Candidates {
		repositories = append(repositories, c.Repository)
	}
	want := []string{asked, last, good}
	for i := range verifier.MaxCandidates - len(want) {
		want = append(want, fmt.Sprintf("aaa.example.com/twin-%05d", i))
	}
	if !slices.Equal(repositories, want) {
		t.Errorf("candidates\n%v, want\n%v", repositories, want)
	}
	claim.Requested = string(app.config) // no name
	if got := bindOne(t, ix, claim); got.Candidates[0].Repository != last || got.Candidates[1].Repository != good || len(got.Candidates) != verifier.MaxCandidates {
		t.Errorf("candidates %v", got.Candidates)
	}
}
