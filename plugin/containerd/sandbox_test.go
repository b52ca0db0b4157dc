package containerd

import (
	"slices"
	"strings"
	"testing"

	"github.com/horkos/horkos/verifier/image"
)

const pauseRef = "registry.example.com/pause:3.10"

func TestBindSandbox(t *testing.T) {
	const spec = `{"ociVersion":"1.2.0","process":{"args":["/pause","run"]},"annotations":{"a":"b"}}`
	for _, test := range []struct {
		name    string
		do      func(f *fake, pause built)
		unbound string
		config  bool // Config is that of pause
		digests func(f *fake, pause built) []image.Digest
	}{
		{name: "the pause image", config: true, do: func(*fake, built) {},
			digests: func(_ *fake, p built) []image.Digest { return []image.Digest{p.index, p.manifest, p.config} }},
		{name: "other content under the pause image's name", unbound: "no image on the node has both", do: func(f *fake, _ built) {
			f.snapshot("overlayfs", testSandbox, chain("evil"), nil)
		}},
		{name: "an image with the pause image's content and another command", unbound: "no image on the node has both", do: func(f *fake, _ built) {
			f.sandbox(testSandbox, "overlayfs", pauseRef, strings.Replace(spec, "run", "mine", 1))
		}},
		{name: "arguments that only look the same when joined", unbound: "no image on the node has both", do: func(f *fake, _ built) {
			f.sandbox(testSandbox, "overlayfs", pauseRef, strings.Replace(spec, `","run`, `run`, 1))
		}},
		{name: "another config with the same content and another command", config: true, do: func(f *fake, _ built) {
			f.record(twin+":1", f.simple("mine", "pause").manifest)
		}, digests: func(_ *fake, p built) []image.Digest { return []image.Digest{p.index, p.manifest, p.config} }},
		{name: "a re-pointed tag whose old content has no record left", unbound: "no image on the node has both", do: func(f *fake, p built) {
			f.mu.Lock()
			delete(f.records, pauseRef)
			f.mu.Unlock()
			f.record(pauseRef, f.simple("evil", "evil").manifest)
		}},
		{name: "a user namespace with a copy that its name proves", config: true, do: func(f *fake, p built) {
			f.snapshot("overlayfs", testSandbox, remapTo(65536, p.chain), map[string]string{uidLabel: "0:65536:65536", gidLabel: "0:65536:65536"})
			f.snapshot("overlayfs", string(remapTo(65536, p.chain)), p.chain, nil)
		}, digests: func(_ *fake, p built) []image.Digest { return []image.Digest{p.index, p.manifest, p.config} }},
		{name: "a mapping that the pod's author wrote proves nothing", unbound: "no image on the node has both", do: func(f *fake, p built) {
			f.snapshot("overlayfs", testSandbox, chain("evil"), map[string]string{uidLabel: "0:65536:65536", gidLabel: "0:65536:65536"})
			f.snapshot("overlayfs", string(chain("evil")), p.chain, nil)
		}},
		{name: "a snapshotter that does not verify diff ids", unbound: `snapshotter "stargz"`, do: func(f *fake, _ built) {
			f.sandbox(testSandbox, "stargz", pauseRef, spec)
		}},
		{name: "no record of the container", unbound: "get container record", do: func(f *fake, _ built) {
			f.mu.Lock()
			delete(f.containers, testSandbox)
			f.mu.Unlock()
		}},
		{name: "no snapshot", unbound: errNoSnapshot.Error(), do: func(f *fake, _ built) {
			f.mu.Lock()
			delete(f.snapshots, "overlayfs "+testSandbox)
			f.mu.Unlock()
		}},
		{name: "no specification", unbound: "read the runtime specification", do: func(f *fake, _ built) {
			f.sandbox(testSandbox, "overlayfs", pauseRef, "")
		}},
		{name: "a specification without arguments", unbound: "no process.args", do: func(f *fake, _ built) {
			f.sandbox(testSandbox, "overlayfs", pauseRef, `{"process":null}`)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			pause := f.multi("pause", "pause")
			f.record(pauseRef, pause.index)
			f.sandbox(testSandbox, "overlayfs", pauseRef, spec)
			f.snapshot("overlayfs", testSandbox, pause.chain, nil)
			test.do(f, pause)
			got := f.follow(Options{}).BindSandbox(t.Context(), testSandbox)
			if test.unbound != "" {
				if !strings.Contains(got.Unbound, test.unbound) || got.Digests != nil || got.Config != "" {
					t.Errorf("%+v, want unbound %q", got, test.unbound)
				}
				return
			}
			if got.Unbound != "" || (got.Config == pause.config) != test.config {
				t.Errorf("%+v", got)
			}
			if want := slices.Sorted(slices.Values(test.digests(f, pause))); !slices.Equal(slices.Sorted(slices.Values(got.Digests)), want) {
				t.Errorf("digests %v, want %v", got.Digests, want)
			}
		})
	}
}

func TestAPauseImageThatNoEventToldIsAskedOfContainerd(t *testing.T) {
	f := newFake(t)
	ix := f.follow(Options{})
	pause := f.multi("pause", "pause")
	f.record(pauseRef, pause.index)
	f.sandbox(testSandbox, "overlayfs", pauseRef, `{"process":{"args":["/pause","run"]}}`)
	f.snapshot("overlayfs", testSandbox, pause.chain, nil)
	if got := ix.BindSandbox(t.Context(), testSandbox); got.Unbound != "" || got.Config != pause.config {
		t.Errorf("%+v", got)
	}
	knows(t, ix, pauseRef)
}

func TestAllConfigsThatAPauseContainerMayRunCount(t *testing.T) {
	f := newFake(t)
	pause := f.multi("pause", "pause")
	f.record(pauseRef, pause.index)
	second := built{chain: pause.chain, config: f.json(object{"os": "linux", "author": "second",
		"config": object{"Cmd": []string{"/pause", "run"}},
		"rootfs": object{"type": "layers", "diff_ids": []image.Digest{chain("pause")}}})}
	second.manifest = f.manifest(second.config, 1, "second")
	f.record(twin+":1", second.manifest)
	f.sandbox(testSandbox, "overlayfs", pauseRef, `{"process":{"args":["/pause","run"]}}`)
	f.snapshot("overlayfs", testSandbox, pause.chain, nil)
	got := f.follow(Options{}).BindSandbox(t.Context(), testSandbox)
	want := slices.Sorted(slices.Values([]image.Digest{pause.index, pause.manifest, pause.config, second.manifest, second.config}))
	if got.Unbound != "" || got.Config != "" || !slices.Equal(got.Digests, want) {
		t.Errorf("%+v, want digests %v and no config", got, want)
	}
}

func TestASpecificationOverTheLimitIsNotRead(t *testing.T) {
	spec := `{"process":{"args":["x"]}}`
	if _, err := processArgs([]byte(spec + strings.Repeat(" ", maxSpec-len(spec)))); err != nil {
		t.Error(err)
	}
	if _, err := processArgs([]byte(spec + strings.Repeat(" ", maxSpec-len(spec)+1))); err == nil {
		t.Error("one byte over the limit was read")
	}
}
