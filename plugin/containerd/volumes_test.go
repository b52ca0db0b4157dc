package containerd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// volume mounts an image as CRI does for an image volume, and returns the path.
func (f *fake) volume(sandbox string, b built) string {
	f.t.Helper()
	d := b.index
	if d == "" {
		d = b.manifest
	}
	path := filepath.Join(f.stateDir, volumesDir, sandbox, d.Encoded())
	if err := os.MkdirAll(filepath.Join(path, "sub/path"), 0o755); err != nil {
		f.t.Fatal(err)
	}
	f.snapshot("overlayfs", path, b.chain, nil)
	return path
}

func TestBindImageVolumes(t *testing.T) {
	type world struct {
		*fake
		data built
		path string // of data as a volume of the pod
	}
	plain := func(w world) []wanted {
		return []wanted{{config: w.data.config, candidates: []verifier.Candidate{w.data.as(good)},
			digests: []image.Digest{w.data.index, w.data.manifest}}}
	}
	unbound := func(text string) []wanted { return []wanted{{unbound: text}} }
	for _, test := range []struct {
		name string
		do   func(world) ([]string, []wanted)
	}{
		{"mounts that are no image volumes", func(w world) ([]string, []wanted) {
			return []string{"proc", "tmpfs", "/", "/etc/hosts", "/nowhere/at/all", w.stateDir, filepath.Join(w.stateDir, "image-volumes-2")}, nil
		}},
		{"an image volume", func(w world) ([]string, []wanted) { return []string{w.path}, plain(w) }},
		{"an image volume with a sub path", func(w world) ([]string, []wanted) { return []string{w.path + "/sub/path"}, plain(w) }},
		{"two sub paths of one image volume are one", func(w world) ([]string, []wanted) {
			return []string{w.path + "/sub/path", w.path + "/sub"}, plain(w)
		}},
		{"two image volumes", func(w world) ([]string, []wanted) {
			other := w.simple("other", "x")
			w.record(twin+":1", other.manifest)
			return []string{w.path, w.volume(testSandbox, other)}, append(plain(w), wanted{config: other.config,
				candidates: []verifier.Candidate{other.as(twin)}, digests: []image.Digest{other.manifest}})
		}},
		{"an image volume of no record", func(w world) ([]string, []wanted) {
			other := w.simple("other", "x")
			return []string{w.volume(testSandbox, other)}, []wanted{{config: other.config, digests: []image.Digest{other.manifest}}}
		}},
		{"other content than the path says", func(w world) ([]string, []wanted) {
			w.snapshot("overlayfs", w.path, chain("evil"), nil)
			return []string{w.path}, unbound("is not of that image")
		}},
		{"the content of another image of the node", func(w world) ([]string, []wanted) {
			other := w.simple("other", "x")
			w.record(twin+":1", other.manifest)
			w.snapshot("overlayfs", w.path, other.chain, nil)
			return []string{w.path}, unbound("is not of that image")
		}},
		{"no snapshot", func(w world) ([]string, []wanted) {
			path := w.volume(testSandbox, w.simple("other", "x"))
			w.mu.Lock()
			delete(w.snapshots, "overlayfs "+path)
			w.mu.Unlock()
			return []string{path}, unbound(errNoSnapshot.Error())
		}},
		{"two configs of the index fit the snapshot", func(w world) ([]string, []wanted) {
			a, b := w.simple("a", "same"), w.simple("b", "same")
			a.index = w.index("both", a.manifest, b.manifest)
			w.record(twin+":1", a.index)
			return []string{w.volume(testSandbox, a)}, unbound("2 configs")
		}},
		{"two manifests of one config fit the snapshot", func(w world) ([]string, []wanted) {
			a := w.simple("a", "same")
			second := w.manifest(a.config, 1, "second")
			a.index = w.index("both", a.manifest, second)
			w.record(twin+":1", a.index)
			return []string{w.volume(testSandbox, a)}, []wanted{{config: a.config, digests: []image.Digest{a.index, a.manifest, second},
				candidates: []verifier.Candidate{{Repository: twin, Digests: []image.Digest{a.index, a.manifest, second}}}}}
		}},
		{"an artifact", func(w world) ([]string, []wanted) {
			var a built
			a.manifest = w.json(object{"schemaVersion": 2, "mediaType": manifestType, "layers": []object{},
				"config": descriptor("application/vnd.oci.empty.v1+json", w.json(object{}))})
			w.record(twin+":1", a.manifest)
			return []string{w.volume(testSandbox, a)}, unbound("is not of that image")
		}},
		{"a volume of another pod", func(w world) ([]string, []wanted) {
			return []string{w.volume("sandbox-2", w.data)}, unbound("belongs to another pod")
		}},
		{"the folder of all image volumes", func(w world) ([]string, []wanted) {
			return []string{filepath.Join(w.stateDir, volumesDir)}, unbound("is not an image volume")
		}},
		{"the folder of the pod's image volumes", func(w world) ([]string, []wanted) {
			return []string{filepath.Join(w.stateDir, volumesDir, testSandbox) + "/"}, unbound("is not an image volume")
		}},
		{"a folder whose name is no digest", func(w world) ([]string, []wanted) {
			return []string{filepath.Join(w.stateDir, volumesDir, testSandbox, "data")}, unbound("does not name an image's digest")
		}},
		{"a digest that is too short", func(w world) ([]string, []wanted) {
			return []string{w.path[:len(w.path)-1]}, unbound("does not name an image's digest")
		}},
		{"a path that leaves the folder by ..", func(w world) ([]string, []wanted) {
			return []string{w.path + "/../../.."}, unbound("has .. in it")
		}},
		{"another name that is no digest", func(w world) ([]string, []wanted) {
			return []string{filepath.Join(w.stateDir, volumesDir, testSandbox, "x")}, unbound("does not name an image's digest")
		}},
		{"what links elsewhere lead to is not looked at", func(w world) ([]string, []wanted) {
			loop := filepath.Join(filepath.Dir(w.socket), "loop")
			if err := os.Symlink(loop, loop); err != nil {
				w.t.Fatal(err)
			}
			return []string{loop, w.link(w.path) + "/sub"}, nil
		}},
		{"the path of a malformed twin with the content of one image", func(w world) ([]string, []wanted) {
			bad := w.malformed(built{manifest: w.data.manifest})
			w.record(twin+":1", bad)
			return []string{w.volume(testSandbox, built{manifest: bad, chain: w.data.chain})}, plain(w)
		}},
		{"the path of an unusable twin with the content of one image", func(w world) ([]string, []wanted) {
			bad := w.manifest(w.data.config, 3, "more")
			w.record(twin+":1", bad)
			want := plain(w)
			want[0].digests = append(want[0].digests, bad)
			return []string{w.volume(testSandbox, built{manifest: bad, chain: w.data.chain})}, want
		}},
		{"the path of a malformed twin with the content of no image", func(w world) ([]string, []wanted) {
			bad := w.malformed(w.data)
			return []string{w.volume(testSandbox, built{manifest: bad, chain: chain("evil")})}, unbound("resolving image content")
		}},
		{"the path of a malformed twin with the content of two images", func(w world) ([]string, []wanted) {
			w.record(twin+":1", w.simple("same content", "files").manifest)
			return []string{w.volume(testSandbox, built{manifest: w.malformed(w.data), chain: w.data.chain})}, unbound("resolving image content")
		}},
		{"as many image volumes as are looked at", func(w world) ([]string, []wanted) {
			var mounts []string
			for i := range maxVolumes {
				mounts = append(mounts, w.volume(testSandbox, w.simple(fmt.Sprint(i), "x")))
			}
			return mounts, make([]wanted, maxVolumes)
		}},
		{"one image volume too many", func(w world) ([]string, []wanted) {
			var mounts []string
			for i := range maxVolumes + 1 {
				mounts = append(mounts, w.volume(testSandbox, w.simple(fmt.Sprint(i), "x")))
			}
			return mounts, unbound("more than 32 image volumes")
		}},
		{"as many mounts as are looked at", func(w world) ([]string, []wanted) { return make([]string, maxMounts), nil }},
		{"one mount too many", func(w world) ([]string, []wanted) {
			return make([]string, maxMounts+1), unbound("4097 mounts")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			w := world{fake: f, data: f.multi("data", "files")}
			w.path = w.volume(testSandbox, w.data)
			w.pull(good, "data", w.data)
			app := f.multi("app", "base")
			f.pull(good, "1", app)
			mounts, want := test.do(w)
			ix := f.follow(Options{})
			claim := f.claimOf(good+":1", app)
			claim.Mounts = mounts
			got := ix.Bind(t.Context(), claim)
			if len(got) != len(want)+1 {
				t.Fatalf("%d images, want %d: %+v", len(got), len(want)+1, got)
			}
			if got[0].Config != app.config {
				t.Errorf("the first image is not the container's: %+v", got[0])
			}
			for i, img := range got[1:] {
				if want[i].config == "" && want[i].unbound == "" { // any, but bound
					if img.Unbound != "" {
						t.Error(img.Unbound)
					}
					continue
				}
				want[i].check(t, img)
			}
		})
	}
}

// link makes a symlink beside the socket.
func (f *fake) link(to string) string {
	f.t.Helper()
	link := filepath.Join(filepath.Dir(f.socket), "link")
	if err := os.Symlink(to, link); err != nil {
		f.t.Fatal(err)
	}
	return link
}

func TestAStateFolderBehindALinkIsWrittenAsContainerdWritesIt(t *testing.T) {
	f := newFake(t)
	real := f.stateDir
	if err := os.MkdirAll(real, 0o755); err != nil {
		t.Fatal(err)
	}
	f.stateDir = f.link(real)
	app, data := f.multi("app", "base"), f.multi("data", "files")
	f.pull(good, "1", app)
	f.pull(good, "data", data)
	written := f.volume(testSandbox, data) // the snapshot's key has the link in it
	ix := f.follow(Options{})
	claim := f.claimOf(good+":1", app)
	for _, source := range []string{written, written + "/sub", strings.Replace(written, f.stateDir, real, 1)} {
		claim.Mounts = []string{source}
		got := ix.Bind(t.Context(), claim)
		if len(got) != 2 || got[1].Config != data.config {
			t.Errorf("mount source %s: %+v", source, got)
		}
	}
}

func TestTheLengthOfAVolumesHexTellsItsAlgorithm(t *testing.T) {
	for _, test := range []struct {
		hex  string
		want image.Digest
	}{
		{strings.Repeat("a", 64), image.Digest("sha256:" + strings.Repeat("a", 64))},
		{strings.Repeat("a", 128), image.Digest("sha512:" + strings.Repeat("a", 128))},
		{strings.Repeat("a", 63), ""},
		{strings.Repeat("a", 65), ""},
		{strings.Repeat("a", 127), ""},
		{strings.Repeat("a", 129), ""},
		{strings.Repeat("A", 64), ""},
		{"sha256:" + strings.Repeat("a", 57), ""},
	} {
		v, err := parseVolume("/state/image-volumes", "s/"+test.hex+"/sub", "s")
		if v.digest != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v", test.hex, v.digest, err)
		}
		if err == nil && v.key != "/state/image-volumes/s/"+test.hex {
			t.Errorf("key %s", v.key)
		}
	}
}

func TestSpellingsOfTheFolderOfImageVolumes(t *testing.T) {
	dirs := []string{"/run/containerd/image-volumes", "/mnt/run/image-volumes"}
	for _, test := range []struct {
		source, below string
		inside        bool
	}{
		{"/run/containerd/image-volumes", "", true},
		{"/run/containerd/image-volumes/", "", true},
		{"//run/containerd/./image-volumes//a/b/", "a/b", true},
		{"/var/run/containerd/image-volumes/a", "a", true},
		{"/mnt/run/image-volumes/a", "a", true},
		{"/run/containerd/image-volumes-2/a", "", false},
		{"/run/containerd", "", false},
		{"/var/run2/containerd/image-volumes/a", "", false},
	} {
		if below, inside := inAny(dirs, test.source); below != test.below || inside != test.inside {
			t.Errorf("%s: %q, %v", test.source, below, inside)
		}
	}
	if _, inside := inAny([]string{"/var/run/c/image-volumes"}, "/run/c/image-volumes/a"); !inside {
		t.Error("a state folder that is configured below /var/run is not recognised below /run")
	}
}
