package policy

import (
	"math/rand/v2"
	"regexp"
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
	const kritis, alibaba, scope, all = 1, 2, 4, 7
	tests := []struct {
		pattern, name string
		matches       int // in which dialects
	}{
		{"registry.example.com/shop/cart:1", "registry.example.com/shop/cart:1", all},
		{"registry.example.com/shop/cart:1", "registry.example.com/shop/cart:2", 0},
		{"registry.example.com/shop/cart", "registry.example.com/shop/cart:latest", all},
		{"registry.example.com/shop/cart", "registry.example.com/shop/cart:1", 0},
		{"registry.example.com/shop/cart@" + digestA, "registry.example.com/shop/cart@" + digestA, all},
		{"registry.example.com/shop/cart@" + digestA, "registry.example.com/shop/cart:1@" + digestA, all},
		{"registry.example.com/shop/cart:1", "registry.example.com/shop/cart:1@" + digestA, 0},
		{"registry.example.com/shop/*", "registry.example.com/shop/cart:1", all},
		{"registry.example.com/shop/*", "registry.example.com/shop/team/cart:1", 0},
		{"registry.example.com/*", "registry.example.com/shop/cart:1", 0},
		{"registry.example.com/shop/ca*", "registry.example.com/shop/cart@" + digestA, all},
		{"registry.example.com/shop/cart:*", "registry.example.com/shop/cart:1", all},
		{"registry.example.com/shop/cart:*", "registry.example.com/shop/cart@" + digestA, 0},
		{"registry.example.com/shop*", "registry.example.com/shop/cart", 0},
		{"registry.example.com:5000/shop/*", "registry.example.com:5000/shop/cart", all},
		{"registry.example.com/shop/*", "registry.example.com:5000/shop/cart", 0},
		{"nginx", "docker.io/library/nginx:latest", all},
		{"nginx:*", "nginx:1.27", all},
		{"nginx*", "nginx-exporter:1", all},
		{"nginx*", "registry.example.com/nginx", 0},
		{"docker.io/nginx:*", "nginx:1", all},
		{"index.docker.io/library/*", "nginx:1", all},
		{"team/*", "docker.io/team/app", all},
		{"library/*", "nginx", all},
		{"localhost/*", "localhost/app", all},
		{"localhost:5000/*", "localhost:5000/app", all},
		{"*", "nginx", all},
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

		{"registry.example.com/**", "registry.example.com/shop/cart:1", scope},
		{"registry.example.com/sh**", "registry.example.com/shop/cart:1", scope},
		{"registry.example.com/shop/**", "registry.example.com/shop/cart@" + digestA, alibaba | scope},
		{"registry.example.com/shop/**", "registry.example.com/shop", 0},
		{"registry.example.com/shop/**", "registry.example.com/shopping/cart", 0},
		{"registry.example.com/**", "registry.example.com.evil.org/shop/cart", 0},
		{"docker.io/**", "nginx", alibaba | scope},
		{"docker.io/**", "team/app", scope},
		{"docker.io/te**", "team/app", scope},
		{"docker.io/ng**", "nginx", alibaba | scope},
		{"index.docker.io/**", "team/app", scope},
		{"docker.io/library/**", "team/app", 0},
		{"docker.io/library/**", "nginx", alibaba | scope},
		{"team/**", "team/app", alibaba | scope},
		{"team/**", "registry.example.com/team/app", 0},
		{"**", "nginx", alibaba | scope},
		{"**", "registry.example.com/shop/cart", scope},
	}
	for _, tt := range tests {
		for d, bit := range map[dialect]int{kritisDialect: kritis, alibabaDialect: alibaba, scopeDialect: scope} {
			var a allowlist
			err := a.add(tt.pattern, "test", d)
			_, matched := a.match(NameOf(name(t, tt.name)))
			if want := tt.matches&bit != 0; matched != want || (want && err != nil) {
				t.Errorf("%s in dialect %d: matches %s: %v, want %v (%v)", tt.pattern, d, tt.name, matched, want, err)
			}
		}
	}
}

func TestPatternsThatCannotBeUnderstoodAreErrors(t *testing.T) {
	path := strings.Repeat("/x", 120) + ":"
	fits := strings.Repeat("r.", (MaxPattern-len(path)-len("io*"))/2) + "io" + path
	fits += strings.Repeat("1", MaxPattern-len(fits)-1) + "*"
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

		// What no image name begins with.
		"Registry.example.com/shop/*":         false,
		"registry.*.com/shop/*":               false,
		"https://registry.example.com/shop/*": false,
		"registry.example.com//shop*":         false,
		"registry.example.com/shop/cart:1:*":  false,
		"registry.example.com/shop/**":        false,
		"registry.example.com/x@sha256:a1*":   true,
		"registry.example.com/x@sha256:G*":    false,
		"registry.example.com/x@*":            true,
		"registry.example.com/x@sh*":          true,
		"registry.example.com/x@sha512:ab*":   false,
		"registry.example.com/x:1@sha256:*":   true,
	} {
		var a allowlist
		if err := a.add(pattern, "test", kritisDialect); (err == nil) != ok {
			t.Errorf("%q (%d bytes): %v", pattern, len(pattern), err)
		}
	}
}

// TestStarsInsideMatchAsTheirRegularExpressionDoes holds the matcher to the rule written
// as RE2: a star at the end is anything but a slash, one elsewhere letters, digits, - and _.
func TestStarsInsideMatchAsTheirRegularExpressionDoes(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	text := func(letters string, n int) string {
		b := make([]byte, random.IntN(n))
		for i := range b {
			b[i] = letters[random.IntN(len(letters))]
		}
		return string(b)
	}
	matches := 0
	for range 20_000 {
		body, atEnd := "a"+text("ab.*", 8)+"*"+text("ab./*", 6)+"b", random.IntN(2) == 0
		expr := strings.ReplaceAll(regexp.QuoteMeta(body), `\*`, `[A-Za-z0-9_-]*`)
		if atEnd {
			expr += `[^/]*`
		}
		e := expression{parts: strings.Split(body, "*"), atEnd: atEnd}
		name := "a" + text("ab./", 12)
		if random.IntN(2) == 0 { // one that may well match
			name = text("./", 2)
			for i, part := range strings.Split(body, "*") {
				if i > 0 {
					name += text("ab-", 3)
				}
				name += part
			}
			name += text("ab/", 3)
		}
		want := regexp.MustCompile(`\A` + expr + `\z`).MatchString(name)
		if e.match(name) != want {
			t.Fatalf("%s (and a star at the end: %v) matches %s: %v, want %v", body, atEnd, name, !want, want)
		}
		if want {
			matches++
		}
	}
	if matches < 1000 {
		t.Errorf("only %d matched", matches)
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
	if by, ok := a.match(NameOf(name(t, "nginx:1"))); !ok || by.Object != "first" {
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
		written := string(NameOf(ref))
		for _, d := range []dialect{kritisDialect, alibabaDialect, scopeDialect} {
			var a allowlist
			if a.add(pattern, "fuzz", d) != nil {
				continue
			}
			_, matched := a.match(Name(written))
			stars := strings.Count(pattern, "*")
			if !matched {
				continue
			}
			literal, _, _ := strings.Cut(normalPattern(pattern), "*")
			onDockerHub := strings.Replace(literal, "docker.io/library/", "docker.io/", 1) // NAME** is also what follows a slash
			if stars > 0 && pattern != "**" && !strings.HasPrefix(written, literal) && !(d == scopeDialect && strings.HasPrefix(written, onDockerHub)) {
				t.Errorf("%q matches %q, which does not begin so", pattern, written)
			}
			if d == scopeDialect && strings.HasSuffix(pattern, "**") {
				if begins := strings.TrimSuffix(pattern, "**"); begins != "" && !strings.Contains(begins, "/") {
					t.Errorf("%q has no slash and matches %q", pattern, written)
				}
				continue
			}
			if strings.Count(normalPattern(pattern), "/") != strings.Count(written, "/") {
				t.Errorf("%q matches %q over a slash", pattern, written)
			}
			if stars == 0 && string(NameOf(name(t, pattern))) != written {
				t.Errorf("%q has no star and matches %q", pattern, written)
			}
			if d != alibabaDialect && stars > 1 {
				t.Errorf("%q has a star that is literal and matches %q", pattern, written)
			}
		}
	})
}
