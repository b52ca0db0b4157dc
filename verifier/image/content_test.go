package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// store is a Provider that heeds no limit and checks nothing, as a hostile one.
type store map[Digest][]byte

func (s store) Blob(_ context.Context, digest Digest, _ int64) ([]byte, error) {
	data, ok := s[digest]
	if !ok {
		return nil, fmt.Errorf("store: %w", ErrNotFound)
	}
	return data, nil
}

// add puts content in the store, filled up with spaces to size bytes.
func (s store) add(content string, size int) Digest {
	data := append([]byte(content), bytes.Repeat([]byte(" "), max(0, size-len(content)))...)
	digest := SHA256(data)
	s[digest] = data
	return digest
}

func desc(mediaType string, digest Digest) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1}`, mediaType, digest)
}

func manifestOf(config string, layers int) string {
	layer := strings.TrimSuffix(strings.Repeat(`{"digest":"any"},`, layers), ",")
	return fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[%s]}`, config, layer)
}

func indexOf(entries ...string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s]}`, strings.Join(entries, ","))
}

// image adds a manifest with one layer, told from others by its name.
func (s store) image(name string) (manifest, config Digest) {
	config = s.add(fmt.Sprintf(`{"author":%q,"config":{"Entrypoint":["/%s"],"Cmd":["run"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`, name, name, aDigest), 0)
	return s.add(manifestOf(desc(ociConfig, config), 1), 0), config
}

func resolve(t *testing.T, p Provider, target Digest) []Manifest {
	t.Helper()
	found, err := Resolve(t.Context(), p, target)
	if err != nil {
		t.Fatalf("Resolve: %v", err)
	}
	return found
}

// refused asserts an error that names a digest and nothing found.
func refused(t *testing.T, p Provider, target, named Digest, text string) {
	t.Helper()
	found, err := Resolve(t.Context(), p, target)
	if err == nil || len(found) != 0 {
		t.Fatalf("Resolve = %v, %v; want an error", found, err)
	}
	if !strings.Contains(err.Error(), string(named)) || !strings.Contains(err.Error(), text) {
		t.Errorf("error %q does not say %q of %s", err, text, named)
	}
}

func TestAManifestLeadsToItsConfig(t *testing.T) {
	for _, types := range [][2]string{{ociManifest, ociConfig}, {dockerManifest, dockerConfig}} {
		s := store{}
		config := s.add(fmt.Sprintf(`{"config":{"Entrypoint":["/app"],"Cmd":["a","b"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`, aDigest), 0)
		manifest := s.add(fmt.Sprintf(`{"mediaType":%q,"config":%s,"layers":[{}]}`, types[0], desc(types[1], config)), 0)
		want := []Manifest{{
			Digests: []Digest{manifest}, Config: config, ChainID: aDigest,
			Entrypoint: []string{"/app"}, Cmd: []string{"a", "b"},
		}}
		if got := resolve(t, s, manifest); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", types[0], got, want)
		}
	}
}

func TestAnIndexLeadsToWhatIsInTheStore(t *testing.T) {
	s := store{}
	here, hereConfig := s.image("here")
	second, _ := s.image("second")
	elsewhere, _ := s.image("elsewhere")
	delete(s, elsewhere)
	noConfig, itsConfig := s.image("noconfig")
	delete(s, itsConfig)
	inner := s.add(indexOf(desc(ociManifest, second), desc(ociManifest, here)), 0)
	index := s.add(indexOf(
		desc(dockerManifest, elsewhere), desc(ociManifest, noConfig), desc(ociManifest, here), desc(ociManifest, here),
		desc("application/vnd.example.sbom", here), desc(ociIndex, SHA256([]byte("not here"))), desc(ociIndex, inner)), 0)

	var ways []string
	for _, m := range resolve(t, s, index) {
		ways = append(ways, fmt.Sprint(m.Digests))
	}
	want := []string{
		fmt.Sprint([]Digest{index, here}),
		fmt.Sprint([]Digest{index, inner, second}),
		fmt.Sprint([]Digest{index, inner, here}),
	}
	if !reflect.DeepEqual(ways, want) {
		t.Errorf("got ways\n%s\nwant\n%s", strings.Join(ways, "\n"), strings.Join(want, "\n"))
	}
	if got := resolve(t, s, index)[0].Config; got != hereConfig {
		t.Errorf("config %s, want %s", got, hereConfig)
	}
	if found := resolve(t, s, s.add(indexOf(desc(ociManifest, elsewhere)), 0)); len(found) != 0 {
		t.Errorf("found %v, nothing is in the store", found)
	}
}

func TestMissingContentOfTheTargetIsSaid(t *testing.T) {
	s := store{}
	if _, err := Resolve(t.Context(), s, aDigest); !errors.Is(err, ErrNotFound) {
		t.Errorf("no manifest: %v", err)
	}
	manifest, config := s.image("a")
	delete(s, config)
	if _, err := Resolve(t.Context(), s, manifest); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), string(config)) {
		t.Errorf("no config: %v", err)
	}
}

func TestAnErrorOfTheProviderIsNotTakenForAMissingBlob(t *testing.T) {
	s := store{}
	manifest, _ := s.image("a")
	index := s.add(indexOf(desc(ociManifest, manifest)), 0)
	broken := errors.New("connection refused")
	_, err := Resolve(t.Context(), failing{s, manifest, broken}, index)
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), string(manifest)) {
		t.Errorf("got %v", err)
	}
}

// failing gives an error for one digest.
type failing struct {
	store
	digest Digest
	err    error
}

func (f failing) Blob(ctx context.Context, digest Digest, limit int64) ([]byte, error) {
	if digest == f.digest {
		return nil, f.err
	}
	return f.store.Blob(ctx, digest, limit)
}

func TestContentThatHasAnotherDigestIsRefused(t *testing.T) {
	for _, which := range []string{"index", "manifest", "config"} {
		t.Run(which, func(t *testing.T) {
			s := store{}
			manifest, config := s.image("good")
			index := s.add(indexOf(desc(ociManifest, manifest)), 0)
			evilManifest, evilConfig := s.image("evil")
			forged := map[string][2]Digest{
				"index": {index, s.add(indexOf(desc(ociManifest, evilManifest)), 0)}, "manifest": {manifest, evilManifest}, "config": {config, evilConfig},
			}[which]
			s[forged[0]] = s[forged[1]]
			refused(t, s, index, forged[0], "does not have this digest")
		})
	}
}

func TestAnIndexThatListsItselfIsRefused(t *testing.T) {
	s := store{aDigest: []byte(indexOf(desc(ociIndex, aDigest)))}
	refused(t, s, aDigest, aDigest, "does not have this digest")
}

func TestATargetThatIsNoDigestIsRefused(t *testing.T) {
	for _, target := range []Digest{"", "latest", "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		refused(t, store{target: []byte("{}")}, target, "", "digest")
	}
}

func TestMalformedDocumentsAreRefused(t *testing.T) {
	good := desc(ociConfig, aDigest)
	tests := []struct{ name, content, says string }{
		{"no JSON", `{`, "not valid JSON"},
		{"something behind the object", `{"manifests":[]}{}`, "not valid JSON"},
		{"no object", `[]`, "not a JSON object"},
		{"null", `null`, "not a JSON object"},
		{"neither index nor manifest", `{"schemaVersion":2}`, "neither"},
		{"a manifest without layers", `{"config":` + good + `}`, "neither"},
		{"an index that is also a manifest", `{"manifests":[],"config":` + good + `,"layers":[]}`, "of an index and of a manifest"},
		{"an index with layers", `{"manifests":[],"layers":[]}`, "of an index and of a manifest"},
		{"an index with a null config", `{"manifests":[],"config":null}`, "of an index and of a manifest"},
		{"a manifest of schema 1", `{"fsLayers":[],"config":` + good + `,"layers":[]}`, "schema 1"},
		{"an index that names a manifest's media type", `{"mediaType":"` + ociManifest + `","manifests":[]}`, "is an index and names"},
		{"a manifest that names an index's media type", `{"mediaType":"` + dockerIndex + `","config":` + good + `,"layers":[]}`, "is a manifest and names"},
		{"a manifest that names an unknown media type", `{"mediaType":"text/plain","config":` + good + `,"layers":[]}`, "is a manifest and names"},
		{"a media type that is no string", `{"mediaType":1,"manifests":[]}`, "not a string"},
		{"manifests written twice", `{"manifests":[],"manifests":[]}`, "written twice"},
		{"config written twice, once null", `{"config":null,"config":` + good + `,"layers":[]}`, "written twice"},
		{"config in two letter cases", `{"config":` + good + `,"Config":` + good + `,"layers":[]}`, `want "config"`},
		{"layers with a letter that folds to s", `{"config":` + good + `,"layer\u017f":[]}`, `want "layers"`},
		{"an escaped name written twice", `{"manifests":[],"manifest\u0073":[]}`, "written twice"},
		{"manifests that are no list", `{"manifests":{}}`, "not a list"},
		{"an entry that is no object", `{"manifests":[1]}`, "manifests[0]"},
		{"an entry without a digest", `{"manifests":[{"mediaType":"` + ociManifest + `"}]}`, "manifests[0]"},
		{"an entry whose digest is written twice", `{"manifests":[{"digest":"` + string(aDigest) + `","digest":"` + string(aDigest) + `"}]}`, "written twice"},
		{"a config that is null", `{"config":null,"layers":[]}`, "config: not a JSON object"},
		{"a config of another algorithm", `{"config":{"digest":"md5:00"},"layers":[]}`, "want sha256"},
		{"layers that are no list", `{"config":` + good + `,"layers":1}`, "not a list"},
		{"a nesting without end", `{"manifests":` + strings.Repeat("[", 1<<20), "not valid JSON"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := store{}
			target := s.add(tt.content, 0)
			refused(t, s, target, target, tt.says)
			index := s.add(indexOf(desc(ociManifest, target)), 0)
			if _, err := Resolve(t.Context(), s, index); err == nil {
				t.Error("an index that leads there is not refused")
			}
		})
	}
}

func TestMalformedConfigsAreRefused(t *testing.T) {
	tests := []struct{ name, content, says string }{
		{"no JSON", ``, "not valid JSON"},
		{"no object", `"config"`, "not a JSON object"},
		{"rootfs written twice", `{"rootfs":{},"rootfs":{}}`, "written twice"},
		{"rootfs in another letter case", `{"RootFS":{}}`, `want "rootfs"`},
		{"rootfs that is no object", `{"rootfs":[]}`, "rootfs: not a JSON object"},
		{"diff ids written twice", `{"rootfs":{"type":"layers","diff_ids":[],"diff_ids":[]}}`, "written twice"},
		{"diff ids that are no list", `{"rootfs":{"type":"layers","diff_ids":"a"}}`, "not a list of strings"},
		{"a diff id that is no digest", `{"rootfs":{"type":"layers","diff_ids":["a"]}}`, "diff_ids[0]"},
		{"a command that is no list", `{"config":{"Cmd":"/bin/sh"}}`, "field Cmd"},
		{"an entrypoint in two letter cases", `{"config":{"Entrypoint":["a"],"entrypoint":["b"]}}`, `want "Entrypoint"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := store{}
			config := s.add(tt.content, 0)
			refused(t, s, s.add(manifestOf(desc(ociConfig, config), 1), 0), config, tt.says)
		})
	}
}

func TestADescriptorThatMisnamesItsTargetIsRefused(t *testing.T) {
	s := store{}
	manifest, _ := s.image("a")
	index := s.add(indexOf(desc(ociManifest, manifest)), 0)
	refused(t, s, s.add(indexOf(desc(ociIndex, manifest)), 0), manifest, "not of the kind")
	refused(t, s, s.add(indexOf(desc(dockerManifest, index)), 0), index, "not of the kind")
}

func TestAConfigThatDoesNotPinTheContentIsUnusable(t *testing.T) {
	one := fmt.Sprintf(`{"rootfs":{"type":"layers","diff_ids":[%q]},"config":{"Cmd":["a"]}}`, aDigest)
	tests := []struct {
		name, mediaType, config string
		layers                  int
		says                    string
	}{
		{"an artifact's empty config", "application/vnd.oci.empty.v1+json", `{}`, 1, "media type"},
		{"a config without media type", "", one, 1, "media type"},
		{"an empty config under an image's media type", ociConfig, `{}`, 1, "rootfs has type"},
		{"an empty config without layers", ociConfig, `{}`, 0, "rootfs has type"},
		{"null for everything", ociConfig, `{"rootfs":null,"config":null}`, 0, "rootfs has type"},
		{"another type of rootfs", ociConfig, strings.Replace(one, "layers", "layers+base", 1), 1, `"layers+base"`},
		{"more layers than diff ids", ociConfig, one, 2, "2 layers and its config 1 diff ids"},
		{"fewer layers than diff ids", dockerConfig, one, 0, "0 layers and its config 1 diff ids"},
		{"an empty diff id", ociConfig, `{"rootfs":{"type":"layers","diff_ids":[""]}}`, 1, "empty diff id"},
		{"a null diff id", ociConfig, `{"rootfs":{"type":"layers","diff_ids":[null]}}`, 1, "empty diff id"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := store{}
			config := s.add(tt.config, 0)
			manifest := s.add(manifestOf(desc(tt.mediaType, config), tt.layers), 0)
			found := resolve(t, s, manifest)
			if len(found) != 1 || !strings.Contains(found[0].Unusable, tt.says) {
				t.Fatalf("got %+v, want one that is unusable: %s", found, tt.says)
			}
			found[0].Unusable = ""
			if want := (Manifest{Digests: []Digest{manifest}, Config: config}); !reflect.DeepEqual(found[0], want) {
				t.Errorf("got %+v, want %+v and nothing of the config", found[0], want)
			}
		})
	}
}

func TestTheChainIDIsThatOfTheImageSpecification(t *testing.T) {
	a, b, c := SHA256([]byte("a")), SHA256([]byte("b")), SHA256([]byte("c"))
	ab := SHA256([]byte(a + " " + b))
	tests := []struct {
		name   string
		layers []Digest
		want   Digest
	}{
		{"no layers, no chain", nil, ""},
		{"one layer is its own chain", []Digest{a}, a},
		{"two layers", []Digest{a, b}, ab},
		{"three layers", []Digest{a, b, c}, SHA256([]byte(ab + " " + c))},
	}
	for _, tt := range tests {
		if got := chainID(tt.layers); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	s := store{}
	config := s.add(`{"rootfs":{"type":"layers","diff_ids":[]}}`, 0)
	found := resolve(t, s, s.add(manifestOf(desc(ociConfig, config), 0), 0))
	if found[0].Unusable != "" || found[0].ChainID != "" {
		t.Errorf("an image without layers: %+v", found[0])
	}
}
