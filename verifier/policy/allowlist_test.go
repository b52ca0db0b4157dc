package policy

import (
	"strings"
	"testing"

	"github.com/horkos/horkos/verifier/image"
)

const digestA = "sha256:a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"

func name(t testing.TB, s string) image.Reference {
	t.Helper()
	ref, err := image.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestPatternsMatchNames(t *testing.T) {
	const kritis, alibaba, both = 1, 2, 3
	tests := []struct {
		pattern, name string
		matches       int // in which dialects
	}{
		{"registry.example.com/shop/cart:1", "registry.example.com/shop/cart:1", both},
		{"registry.example.com/shop/cart:1", "registry.example.com/shop/cart:2", 0},
		{"registry.example.com/shop/cart", "registry.example.com/shop/cart:latest", both},
		{"registry.example.com/shop/cart", "registry.example.com/shop/cart:1", 0},
		{"registry.example.com/shop/cart@" + digestA, "registry.example.com/shop/cart@" + digestA, both},
		{"registry.example.com/shop/cart@" + digestA, "registry.example.com/shop/cart:1@" + digestA, both},
		{"registry.example.com/shop/cart:1", "registry.example.com/shop/cart:1@" + digestA, 0},
		{"registry.example.com/shop/*", "registry.example.com/shop/cart:1", both},
		{"registry.example.com/shop/*", "registry.example.com/shop/team/cart:1", 0},
		{"registry.example.com/*", "registry.example.com/shop/cart:1", 0},
		{"registry.example.com/shop/ca*", "registry.example.com/shop/cart@" + digestA, both},
		{"registry.example.com/shop/cart:*", "registry.example.com/shop/cart:1", both},
		{"registry.example.com/shop/cart:*", "registry.example.com/shop/cart@" + digestA, 0},
		{"registry.example.com/shop*", "registry.example.com/shop/cart", 0},
		{"registry.example.com:5000/shop/*", "registry.example.com:5000/shop/cart", both},
		{"registry.example.com/shop/*", "registry.example.com:5000/shop/cart", 0},
		{"nginx", "docker.io/library/nginx:latest", both},
		{"nginx:*", "nginx:1.27", both},
		{"nginx*", "nginx-exporter:1", both},
		{"nginx*", "registry.example.com/nginx", 0},
		{"docker.io/nginx:*", "nginx:1", both},
		{"index.docker.io/library/*", "nginx:1", both},
		{"team/*", "docker.io/team/app", both},
		{"library/*", "nginx", both},
		{"localhost/*", "localhost/app", both},
		{"localhost:5000/*", "localhost:5000/app", both},
		{"*", "nginx", both},
		{"*", "team/app", 0},
		{"*", "registry.example.com/app", 0},
		{"registry.*.com/shop/*", "registry.example.com/shop/cart:1", alibaba},
		{"registry.*.com/shop/cart:1", "registry.example.com/shop/cart:1", alibaba},
		{"registry.*.com/shop/cart", "registry.example.com/shop/cart", alibaba},
		{"registry.*.com/shop/cart", "registry.example.com/shop/cart:1", 0},
		{"registry.*.com/shop/*", "registry.example.evil.com/shop/cart:1", 0},
		{"registry*.*.aliyuncs.com/acs/*", "registry-vpc.cn-hangzhou.aliyuncs.com/acs/pause:3.2", alibaba},
		{"registry*.*.aliyuncs.com/acs/*", "registry.cn-hangzhou.aliyuncs.com/acs/pause:3.2", alibaba},
		{"registry*.*.aliyuncs.com/acs/*", "registry.cn-hangzhou.aliyuncs.com/acs/evil/pause:3.2", 0},
		{"registry.example.com/*/cart:1", "registry.example.com/shop/cart:1", alibaba},
		{"registry.example.com/*/cart:1", "registry.example.com/shop/team/cart:1", 0},
		{"registry.example.com/sh.p/c*t:1", "registry.example.com/shop/cart:1", 0},
	}
	for _, tt := range tests {
		for d, bit := range map[dialect]int{kritisDialect: kritis, alibabaDialect: alibaba} {
			var a allowlist
			err := a.add(tt.pattern, "test", d)
			_, matched := a.match(matchable(name(t, tt.name)))
			if want := tt.matches&bit != 0; matched != want || (want && err != nil) {
				t.Errorf("%s in dialect %d: matches %s: %v, want %v (%v)", tt.pattern, d, tt.name, matched, want, err)
			}
		}
	}
}

func TestPatternsThatCannotBeUnderstoodAreErrors(t *testing.T) {
	fits := "registry.example.com/" + strings.Repeat("x", MaxPattern-len("registry.example.com/")-1) + "*"
	for pattern, ok := range map[string]bool{
		"":                          false,
		" nginx":                    false,
		"nginx *":                   false,
		"nginx\n":                   false,
		"sha256:" + digestA[7:]:     false,
		"Registry/x":                false,
		"a*b":                       false,
		fits:                        true,
		fits[:30] + "x" + fits[30:]: false,
	} {
		var a allowlist
		if err := a.add(pattern, "test", kritisDialect); (err == nil) != ok {
			t.Errorf("%q (%d bytes): %v", pattern, len(pattern), err)
		}
	}
}

func TestAStarInAHostIsOpen(t *testing.T) {
	for pattern, open := range map[string]bool{
		"registry*.example.com/x":  true,
		"registry.*/x":             true,
		"registry.example.com/*/x": false,
		"registry.example.com/x*":  false,
		"*":                        false,
		"te*m/x*":                  false,
	} {
		if openHost(pattern) != open {
			t.Errorf("%s: open %v, want %v", pattern, !open, open)
		}
	}
}

func TestTheFirstEntryThatMatchesIsTold(t *testing.T) {
	var a allowlist
	for _, object := range []string{"first", "second"} {
		if err := a.add("nginx:1", object, kritisDialect); err != nil {
			t.Fatal(err)
		}
	}
	if by, ok := a.match(matchable(name(t, "nginx:1"))); !ok || by.Object != "first" {
		t.Errorf("matched by %+v", by)
	}
}

func FuzzPattern(f *testing.F) {
	for _, seed := range [][2]string{
		{"nginx", "docker.io/library/nginx:latest"}, {"registry.example.com/shop/*", "registry.example.com/shop/a/b"},
		{"*", "x"}, {"registry*.*.aliyuncs.com/acs/*", "registry-vpc.cn-hangzhou.aliyuncs.com/acs/pause:3.2"},
		{"a**b*", "a/b"}, {"[::1]/x*", "[::1]/x"}, {`\E(*`, "x"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		ref, err := image.Parse(text)
		if err != nil {
			return
		}
		written := matchable(ref)
		for _, d := range []dialect{kritisDialect, alibabaDialect} {
			var a allowlist
			if a.add(pattern, "fuzz", d) != nil {
				continue
			}
			_, matched := a.match(written)
			stars := strings.Count(pattern, "*")
			if !matched {
				continue
			}
			if strings.Count(normalPattern(pattern), "/") != strings.Count(written, "/") {
				t.Errorf("%q matches %q over a slash", pattern, written)
			}
			if stars == 0 && matchable(name(t, pattern)) != written {
				t.Errorf("%q has no star and matches %q", pattern, written)
			}
			if d == kritisDialect && stars > 1 {
				t.Errorf("%q has a star that is literal and matches %q", pattern, written)
			}
		}
	})
}
