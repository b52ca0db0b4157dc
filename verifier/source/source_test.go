package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	strictjson "sigs.k8s.io/json"

	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/source/web/webtest"
)

func good(name string) Config {
	return Config{Name: name, Type: "http", URL: "https://attestations.example.com/images/"}
}

func TestAnEntryHasDefaults(t *testing.T) {
	all, err := Build([]Config{good("a"), {Name: "b", Type: "http", URL: "http://localhost:8080", Fresh: "1m30s", Stale: "24h", Timeout: "2s"}})
	if err != nil {
		t.Fatal(err)
	}
	defer Close(all)
	for i, want := range []evidence.Asked{
		{Name: "a", Locator: "https://attestations.example.com/images", Terms: evidence.Terms{Fresh: 5 * time.Minute}, Timeout: 10 * time.Second},
		{Name: "b", Locator: "http://localhost:8080", Terms: evidence.Terms{Fresh: 90 * time.Second, Stale: 24 * time.Hour}, Timeout: 2 * time.Second},
	} {
		got := all[i]
		if got.Source == nil {
			t.Errorf("%s: no source", got.Name)
		}
		if got.Source = nil; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestNoSourceIsNoError(t *testing.T) {
	if all, err := Build(nil); err != nil || len(all) > 0 {
		t.Errorf("%v, %v", all, err)
	}
}

func TestWhatIsWrongWithAnEntryIsSaid(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		want   string // empty: nothing is wrong
	}{
		{"no name", func(c *Config) { c.Name = "" }, "name: give the source a name"},
		{"a name in upper case", func(c *Config) { c.Name = "Web" }, "name: want at most 63"},
		{"a name with a dot", func(c *Config) { c.Name = "a.b" }, "name: want at most 63"},
		{"a name that begins with a dash", func(c *Config) { c.Name = "-a" }, "name: want at most 63"},
		{"a name that ends with a dash", func(c *Config) { c.Name = "a-" }, "name: want at most 63"},
		{"a name of 63", func(c *Config) { c.Name = strings.Repeat("a", 63) }, ""},
		{"a name of 64", func(c *Config) { c.Name = strings.Repeat("a", 64) }, "name: want at most 63"},
		{"the folder's name", func(c *Config) { c.Name = "folder" }, "name: folder is the name of an origin"},
		{"the cluster's name", func(c *Config) { c.Name = "cluster" }, "name: cluster is the name of an origin"},
		{"a name that is taken", func(c *Config) { c.Name = "first" }, "name: first is there twice"},
		{"no type", func(c *Config) { c.Type = "" }, `type: want http, not ""`},
		{"another type", func(c *Config) { c.Type = "HTTP" }, `type: want http, not "HTTP"`},
		{"no url", func(c *Config) { c.URL = "" }, "url: say where to ask"},
		{"credentials", func(c *Config) { c.URL = "https://u:secret@x.example.com" }, "url: it has a user in it"},
		{"plain http", func(c *Config) { c.URL = "http://x.example.com" }, "url: want https://"},
		{"plain http that is meant", func(c *Config) { c.URL, c.Insecure = "http://x.example.com", true }, ""},
		{"no authority", func(c *Config) { c.CAFile = "/nowhere" }, "caFile: open /nowhere"},
		{"fresh in words", func(c *Config) { c.Fresh = "soon" }, `fresh: want a duration such as 90s, 5m or 24h, not "soon"`},
		{"fresh as a number", func(c *Config) { c.Fresh = "5" }, "fresh: want a duration"},
		{"fresh for the least", func(c *Config) { c.Fresh = "1s" }, ""},
		{"fresh for less", func(c *Config) { c.Fresh = "999ms" }, "fresh: want 1s to 24h"},
		{"fresh for the most", func(c *Config) { c.Fresh = "24h" }, ""},
		{"fresh for more", func(c *Config) { c.Fresh = "24h0m1s" }, "fresh: want 1s to 24h"},
		{"stale as long as fresh", func(c *Config) { c.Stale = "5m" }, ""},
		{"stale for less than fresh", func(c *Config) { c.Stale = "4m59s" }, "stale: want 0, which is without end, or at least the 5m0s of fresh"},
		{"stale before time", func(c *Config) { c.Stale = "-1s" }, "stale: want 0"},
		{"stale without end", func(c *Config) { c.Stale = "0" }, ""},
		{"the least time", func(c *Config) { c.Timeout = "100ms" }, ""},
		{"less time", func(c *Config) { c.Timeout = "99ms" }, "timeout: want 100ms to 1m0s, not 99ms"},
		{"the most time", func(c *Config) { c.Timeout = "1m" }, ""},
		{"more time", func(c *Config) { c.Timeout = "61s" }, "timeout: want 100ms to 1m0s, not 1m1s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			second := good("second")
			tt.change(&second)
			all, err := Build([]Config{good("first"), second})
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				Close(all)
				return
			}
			if err == nil || !strings.Contains(err.Error(), "sources[1]: "+tt.want) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "secret") || all != nil {
				t.Errorf("error %v, sources %v", err, all)
			}
		})
	}
}

func TestEveryProblemOfEveryEntryIsInOneError(t *testing.T) {
	_, err := Build([]Config{
		{Name: "a", Type: "http", URL: "http://x.example.com?q", Fresh: "x", Stale: "y", Timeout: "z", CAFile: "/nowhere"},
		{},
		{Name: "a", Type: "ftp"},
	})
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		"sources[0]: fresh:", "sources[0]: stale:", "sources[0]: timeout:", "sources[0]: url: want https", "sources[0]: url: want it without",
		"sources[0]: caFile: open", "sources[1]: name:", "sources[1]: type:", "sources[2]: name:", "sources[2]: type:",
	}
	lines := strings.Split(err.Error(), "\n")
	for _, w := range want {
		n := 0
		for _, line := range lines {
			if strings.HasPrefix(line, w) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d lines of %q", n, w)
		}
	}
	if len(lines) != len(want) {
		t.Errorf("%d lines, want %d:\n%v", len(lines), len(want), err)
	}
}

func TestTheNumberOfSourcesHasALimit(t *testing.T) {
	var configs []Config
	for i := range MaxSources {
		configs = append(configs, good(fmt.Sprintf("s%d", i)))
	}
	all, err := Build(configs)
	if err != nil || len(all) != MaxSources {
		t.Errorf("%d sources: %v", len(all), err)
	}
	Close(all)
	if _, err := Build(append(configs, good("last"))); err == nil || !strings.Contains(err.Error(), "want at most 8") {
		t.Errorf("9 sources: %v", err)
	}
}

func TestAnEntryIsReadStrictly(t *testing.T) {
	text := `{"name":"a","type":"http","url":"https://a","insecure":true,"caFile":"b","tokenFile":"c","fresh":"1m","stale":"2m","timeout":"3s"}`
	want := Config{"a", "http", "https://a", true, "b", "c", "1m", "2m", "3s"}
	var got Config
	if strict, err := strictjson.UnmarshalStrict([]byte(text), &got); err != nil || len(strict) > 0 || got != want {
		t.Errorf("%+v, %v, %v", got, strict, err)
	}
	if strict, _ := strictjson.UnmarshalStrict([]byte(`{"ttl":"1m"}`), &got); len(strict) == 0 {
		t.Error("an unknown field is taken")
	}
}

func TestASourceAsksTheServerThatItIsConfiguredWith(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: files of a daemon belong to root")
	}
	webtest.NoGoroutineLeft(t)
	id := image.Identity{Repository: "registry.example.com/shop/cart", Digest: image.SHA256([]byte("cart"))}
	server := webtest.NewTLS(t)
	server.Put(id.Digest, webtest.Object(id, 2))
	dir := t.TempDir()
	for name, content := range map[string][]byte{"ca.pem": server.CA(), "token": []byte("secret")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err := Build([]Config{{Name: "a", Type: "http", URL: server.URL(), CAFile: filepath.Join(dir, "ca.pem"), TokenFile: filepath.Join(dir, "token")}})
	if err != nil {
		t.Fatal(err)
	}
	defer Close(all)
	ctx, cancel := context.WithTimeout(context.Background(), all[0].Timeout)
	defer cancel()
	found, err := all[0].Source.Fetch(ctx, evidence.Question{Source: "a", Locator: all[0].Locator, Identity: id})
	if err != nil || len(found) != 2 {
		t.Errorf("%d attestations, %v", len(found), err)
	}
	if got := server.Header().Get("Authorization"); got != "Bearer secret" {
		t.Errorf("sent %q", got)
	}
}
