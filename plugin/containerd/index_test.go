package containerd

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// idle reports whether all is quiet: the second list is over, and no event waits.
func (f *fake) idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subscribers {
		if len(s) > 0 {
			return false
		}
	}
	return f.calls["Images/List"] >= 2
}

func TestTheIndexFollowsImageEvents(t *testing.T) {
	f := newFake(t)
	ix := f.follow(Options{})
	app := f.multi("app", "base")
	f.pull(good, "1", app)
	knows(t, ix, good+":1")
	claim := f.claimOf(good+":1", app)

	t.Run("a twin that appears is a candidate", func(t *testing.T) {
		other := built{config: app.config, manifest: f.manifest(app.config, 1, "twin")}
		f.pull(twin, "1", other)
		knows(t, ix, twin+"@"+string(other.manifest))
		got := bindOne(t, ix, claim)
		if len(got.Candidates) != 2 || got.Candidates[1].Repository != twin || !slices.Contains(got.Digests, other.manifest) {
			t.Errorf("%+v", got)
		}
		f.untag(twin + ":1")
		f.untag(twin + "@" + string(other.manifest))
		f.record(string(app.config), app.index)
		f.publish("/images/update", string(app.config))
		eventually(t, "the twin is forgotten", func() bool { return len(bindOne(t, ix, claim).Candidates) == 1 })
		eventually(t, "its digest too", func() bool { return !slices.Contains(bindOne(t, ix, claim).Digests, other.manifest) })
	})
	t.Run("a tag that moves leads elsewhere", func(t *testing.T) {
		newer := f.multi("newer", "more")
		f.pull(good, "1", newer)
		eventually(t, "the new content has the name", func() bool {
			return ix.named(good + ":1").offers(newer.config)
		})
		if got := bindOne(t, ix, claim); got.Name != (image.Reference{}) || got.Unbound != "" {
			t.Errorf("the old content keeps the name: %+v", got)
		}
	})
	t.Run("what no record leads to is forgotten", func(t *testing.T) {
		f.mu.Lock()
		names := []string{}
		for name := range f.records {
			names = append(names, name)
		}
		f.mu.Unlock()
		for _, name := range names {
			f.untag(name)
		}
		eventually(t, "the catalog is empty", func() bool {
			ix.mu.Lock()
			defer ix.mu.Unlock()
			c := ix.catalog
			return len(c.records)+len(c.targets)+len(c.configs)+len(c.chains)+len(c.absent)+len(c.outdated) == 0
		})
	})
}

func TestContainerdsRestartIsSurvived(t *testing.T) {
	f := newFake(t)
	app := f.multi("app", "base")
	f.pull(good, "1", app)
	ix := f.follow(Options{})
	claim := f.claimOf(good+":1", app)
	if got := bindOne(t, ix, claim); got.Unbound != "" {
		t.Fatal(got.Unbound)
	}

	f.stop()
	eventually(t, "the index is not current", func() bool { return !ix.Ready() })
	newer := f.multi("newer", "base", "more")
	f.record(good+":1", newer.index)
	f.mu.Lock()
	f.handlers["runc"] = "native"
	f.mu.Unlock()
	claim = f.claimOf(good+":1", newer)
	f.snapshot("native", testContainer, newer.chain, nil)
	f.start()
	f.current(ix)
	wanted{name: good + ":1", config: newer.config, candidates: []verifier.Candidate{newer.as(good)},
		digests: []image.Digest{newer.index, newer.manifest}}.check(t, bindOne(t, ix, claim))
}

func TestAListThatFailsIsTriedAgain(t *testing.T) {
	for _, method := range []string{"Images/List", "Content/Read", "Events/Subscribe", "RuntimeService/Status"} {
		t.Run(method, func(t *testing.T) {
			f := newFake(t)
			f.pull(good, "1", f.multi("app", "base"))
			f.fail(method, status.Error(codes.Unavailable, "not yet"))
			ix := NewIndex(f.dial(), Options{})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- ix.Run(ctx) }()
			eventually(t, "it was tried twice", func() bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				return f.calls[method] > 1
			})
			if ix.Ready() {
				t.Error("ready although a call fails")
			}
			f.fail(method, nil)
			eventually(t, "the index is current", ix.Ready)
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("Run returned %v", err)
			}
			if ix.Ready() {
				t.Error("ready although Run has ended")
			}
		})
	}
}

func TestAllIsListedAgainNowAndThen(t *testing.T) {
	f := newFake(t)
	ix := f.follow(Options{Relist: 10 * time.Millisecond})
	app := f.multi("app", "base")
	f.record(good+":1", app.index) // no event
	knows(t, ix, good+":1")
	f.mu.Lock()
	delete(f.records, good+":1")
	f.mu.Unlock()
	eventually(t, "the record is forgotten", func() bool { return ix.named(good+":1") == nil })
}

func TestWhatArrivesForAnIndexCompletesIt(t *testing.T) {
	f := newFake(t)
	first, second := f.simple("first", "a"), f.simple("second", "b")
	both := f.index("both", first.manifest, second.manifest)
	later := f.dropBlob(second.manifest)
	f.record(good+":1", both)
	ix := f.follow(Options{})
	if ix.named(good + ":1").offers(second.config) {
		t.Fatal("what is not there leads somewhere")
	}
	f.blob(later)
	f.pull(twin, "1", second)
	eventually(t, "the index leads to the second config too", func() bool { return ix.named(good + ":1").offers(second.config) })
	got := bindOne(t, ix, f.claimOf(twin+":1", second))
	if !slices.Contains(got.Digests, both) {
		t.Errorf("a revocation of the index would not be seen: %+v", got)
	}
}

func TestContentWithAFaultIsTriedAgainWithAnEvent(t *testing.T) {
	f := newFake(t)
	app := f.simple("app", "base")
	manifest := f.dropBlob(app.manifest)
	f.pull(good, "1", app)
	ix := f.follow(Options{})
	if c := ix.named(good + ":1"); c == nil || c.fault == "" {
		t.Fatalf("%+v", c)
	}
	f.blob(manifest)
	f.publish("/images/update", good+":1")
	eventually(t, "the record leads to its config", func() bool { return ix.named(good + ":1").offers(app.config) })
}

func TestNewImagesAreReported(t *testing.T) {
	f := newFake(t)
	app := f.multi("app", "base")
	f.pull(good, "1", app)
	var mu sync.Mutex
	var told []verifier.Candidate
	ix := f.follow(Options{OnChange: func(news []verifier.Candidate) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, news...)
	}})
	heard := func(want ...verifier.Candidate) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return fmt.Sprint(told) == fmt.Sprint(want)
		}
	}
	eventually(t, "what is there is reported once", heard(app.as(good)))
	mu.Lock()
	told = nil
	mu.Unlock()
	next := f.simple("next", "x")
	f.record(good+":2", next.manifest)
	f.publish("/images/create", good+":2")
	eventually(t, "what comes is reported", heard(next.as(good)))
	f.publish("/images/update", good+":2")
	f.record("registry.example.com/last:1", next.manifest)
	f.publish("/images/create", "registry.example.com/last:1")
	eventually(t, "an update without a change is not", heard(next.as(good), next.as("registry.example.com/last")))

	images := ix.Images()
	for _, want := range []verifier.Candidate{app.as(good), next.as(good), next.as("registry.example.com/last")} {
		if !slices.ContainsFunc(images, func(c verifier.Candidate) bool { return fmt.Sprint(c) == fmt.Sprint(want) }) {
			t.Errorf("images %v lack %v", images, want)
		}
	}
}

func TestAnEventThatCannotBeReadStartsOver(t *testing.T) {
	f := newFake(t)
	ix := f.follow(Options{})
	f.counted()
	f.publish("/images/create", "")
	eventually(t, "all is listed again", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.calls["Events/Subscribe"] > 0 && f.calls["Images/List"] > 0
	})
	f.current(ix)
}

func TestNamesInEvents(t *testing.T) {
	for _, test := range []struct{ event, name string }{
		{"\x0a\x01a", "a"},
		{"\x12\x02xy\x0a\x01a", "a"}, // labels first
		{"", ""},
		{"\x0a", ""},
		{"\x0a\x05a", ""},
		{"\x08\x01", ""},
		{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", ""},
		{"\x12\xff\x01", ""},
	} {
		name, err := nameIn([]byte(test.event))
		if name != test.name || (err == nil) != (test.name != "") {
			t.Errorf("%q: %q, %v", test.event, name, err)
		}
	}
}

func FuzzNamesInEvents(f *testing.F) {
	for _, seed := range []string{"\x0a\x01a", "\x12\x02xy\x0a\x01a", "\x0a\xff\x01", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(_ *testing.T, event []byte) { _, _ = nameIn(event) })
}

func FuzzMappings(f *testing.F) {
	f.Add("0:65536:65536", "0:65536:65536,70000:1:1")
	f.Add(",", "::")
	f.Fuzz(func(t *testing.T, uids, gids string) {
		if m, err := parseMapping(uids, gids); err == nil && m != nil && m.remapped("sha256:x") == "" {
			t.Error("a mapping without a name")
		}
	})
}

func FuzzSettings(f *testing.F) {
	f.Add(`{"stateDir":"/run","containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"snapshotter":""}}}}`)
	f.Fuzz(func(t *testing.T, config string) {
		if s, err := parseSettings(config); err == nil && (s.StateDir == "" || len(s.Snapshotters) == 0) {
			t.Errorf("settings without content: %+v", s)
		}
	})
}

func FuzzVolumes(f *testing.F) {
	f.Add("s/" + strings.Repeat("a", 64) + "/sub")
	f.Add("")
	f.Fuzz(func(t *testing.T, below string) {
		if v, err := parseVolume("/d", below, "s"); err == nil {
			if _, bad := image.ParseDigest(string(v.digest)); bad != nil || !strings.HasPrefix("/d/"+below+"/", v.key+"/") {
				t.Errorf("%q gives %+v", below, v)
			}
		}
	})
}

func TestTheClient(t *testing.T) {
	f := newFake(t)
	c := f.dial()
	t.Run("tells containerd's version", func(t *testing.T) {
		if v, err := c.Version(t.Context()); v != "v2.4.2" || err != nil {
			t.Errorf("%q, %v", v, err)
		}
	})
	t.Run("reads CRI's settings", func(t *testing.T) {
		s, err := c.Settings(t.Context())
		if err != nil || s.StateDir != f.stateDir || s.DefaultHandler != "runc" || s.Snapshotters["kata"] != "devmapper" {
			t.Errorf("%+v, %v", s, err)
		}
	})
	d := f.blob([]byte(strings.Repeat("x", 1000)))
	t.Run("reads a blob of the limit", func(t *testing.T) {
		if data, err := c.Blob(t.Context(), d, 1000); len(data) != 1000 || err != nil {
			t.Errorf("%d bytes, %v", len(data), err)
		}
	})
	t.Run("does not read a blob over the limit", func(t *testing.T) {
		if _, err := c.Blob(t.Context(), d, 999); !errors.Is(err, errTooLong) {
			t.Error(err)
		}
	})
	t.Run("tells a blob that is not there", func(t *testing.T) {
		if _, err := c.Blob(t.Context(), image.SHA256(nil), 1000); !errors.Is(err, image.ErrNotFound) {
			t.Error(err)
		}
	})
	t.Run("ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Version(ctx); err == nil {
			t.Error("answered after its context ended")
		}
	})
	t.Run("wants a namespace", func(t *testing.T) {
		if _, err := Dial(f.socket, ""); err == nil {
			t.Error("no namespace was accepted")
		}
	})
}

func TestSettingsThatAreNotUnderstoodAreAnError(t *testing.T) {
	for _, config := range []string{"", "{}", "[]", `{"stateDir":"run","containerd":{"runtimes":{"runc":{}}}}`, `{"stateDir":"/run"}`} {
		if s, err := parseSettings(config); err == nil {
			t.Errorf("%q: %+v", config, s)
		}
	}
}

func TestTenThousandRecordsAreListedOnceAndNotScanned(t *testing.T) {
	f := newFake(t)
	const targets = 500
	for i := range targets {
		b := f.simple(fmt.Sprint(i), "base", fmt.Sprint(i))
		for tag := range 10_000 / targets {
			f.record(fmt.Sprintf("registry.example.com/many-%03d:%d", i, tag), b.manifest)
		}
	}
	app := f.multi("app", "base")
	f.pull(good, "1", app)
	ix := f.follow(Options{})
	claim := f.claimOf(good+":1", app)
	bindOne(t, ix, claim)
	const binds = 200
	began := time.Now()
	for range binds {
		if got := bindOne(t, ix, claim); got.Unbound != "" || len(got.Candidates) != 1 {
			t.Fatalf("%+v", got)
		}
	}
	if each := time.Since(began) / binds; each > 20*time.Millisecond {
		t.Errorf("a claim takes %s", each)
	}
}

func TestTenThousandImagesCostLittleMemory(t *testing.T) {
	digest := func(kind string, i int) image.Digest { return image.SHA256(fmt.Append(nil, kind, i)) }
	before := heap()
	c := newCatalog()
	began := time.Now()
	for i := range 10_000 {
		points := &content{digest: digest("index", i)}
		points.add(image.Manifest{Digests: []image.Digest{points.digest, digest("manifest", i)},
			Config: digest("config", i), ChainID: digest("chain", i)})
		for p := range 10 { // platforms that the node does not have
			points.absent = append(points.absent, markOf(digest("platform", 10*i+p)))
		}
		c.put(fmt.Sprintf("registry.example.com/team/application-%05d:v1.2.3", i), points)
	}
	t.Logf("%d KiB, %s", (heap()-before)>>10, time.Since(began))
	if used := heap() - before; used > 32<<20 {
		t.Errorf("10,000 images take %d MiB", used>>20)
	}
	runtime.KeepAlive(c)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestTenThousandTwinsAreKeptAndForgottenInTime(t *testing.T) {
	c := newCatalog()
	config := image.SHA256([]byte("config"))
	began := time.Now()
	for i := range 10_000 {
		points := &content{digest: image.SHA256(fmt.Append(nil, i))}
		points.add(image.Manifest{Digests: []image.Digest{points.digest}, Config: config, ChainID: chain("x")})
		c.put(fmt.Sprintf("registry.example.com/twin-%05d:1", 9_999-i), points)
	}
	run := c.configs[config]
	if n := len(run.all()); n != 10_001 {
		t.Errorf("%d digests", n)
	}
	if got := candidates(nil, run.records, config, nil); len(got) != verifier.MaxCandidates || got[0].Repository != "registry.example.com/twin-00000" {
		t.Errorf("candidates %v", got)
	}
	for i := range 10_000 {
		c.remove(fmt.Sprintf("registry.example.com/twin-%05d:1", i))
	}
	if len(c.configs)+len(c.targets)+len(c.chains) != 0 {
		t.Error("something is left")
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}
