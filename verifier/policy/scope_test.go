package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestTheIndexOfScopesChangesNoAnswer: names and patterns that almost meet, in every
// combination, and the policies that Applies tells of in their order.
func TestTheIndexOfScopesChangesNoAnswer(t *testing.T) {
	patterns := []string{"**", "*", "nginx", "nginx:1", "nginx:*", "docker.io/**", "docker.io/n**", "docker.io/library/**", "library/*", "team/**", "docker.io/team/a*",
		"registry.example.com/**", "registry.example.com/*", "registry.example.com/a", "registry.example.com/a*", "registry.example.com/a/**", "registry.example.com/a/*",
		"registry.example.com/a/b", "registry.example.com/a/b:2", "registry.example.com/a/b:*", "registry.example.com/a/b/**", "registry.example.com/ab/**",
		"registry.example.com/a/b@sha256:*", "registry.example.com/a/b@sha256:" + strings.Repeat("a1", 32), "localhost/**", "localhost/a/**", "localhost:5000/**", "index.docker.io/team/**", "A/*"}
	names := []string{"nginx", "nginx:1", "team/a", "team/a/b", "docker.io/n/x", "localhost/a", "localhost/a/b", "localhost:5000/a", "registry.example.com/a", "registry.example.com/a:2",
		"registry.example.com/ab", "registry.example.com/a/b", "registry.example.com/a/b:2", "registry.example.com/a/b@sha256:" + strings.Repeat("a1", 32),
		"registry.example.com/a/b/c", "registry.example.com/ab/c", "registry.example.org/a/b", "quay.io/x/y"}
	random := rand.New(rand.NewPCG(1, 2))
	scoped := 0
	for round := range 200 {
		var manifests []string
		for n := range 1 + random.IntN(12) {
			spec := "authorities: " + listed(t, 1)
			if random.IntN(6) > 0 {
				var images []string
				for range 1 + random.IntN(3) {
					images = append(images, fmt.Sprintf("%q", patterns[random.IntN(len(patterns))]))
				}
				spec += ", images: [" + strings.Join(images, ", ") + "]"
			}
			manifests = append(manifests, cluster(fmt.Sprint("p", n), spec))
		}
		l := compiled(t, manifests...).Layers("shop")[0]
		for _, written := range append(names, "") {
			var bound Name
			if written != "" {
				bound = NameOf(name(t, written))
			}
			var want []*Policy
			for _, p := range l.Policies {
				if p.Applies(bound) {
					want = append(want, p)
				}
			}
			if got := l.About(bound); !slices.Equal(got, want) {
				t.Fatalf("round %d, %q: %d policies, want %d of\n%s", round, written, len(got), len(want), strings.Join(manifests, ""))
			}
			if len(want) > 0 && len(want) < len(l.Policies) {
				scoped++
			}
		}
	}
	if scoped < 1_000 {
		t.Errorf("only %d names were in some scopes and out of others", scoped)
	}
}

// TestAScopeOfTagsIsAboutDigestsToo: a digest bears no tag that could be out of it.
func TestAScopeOfTagsIsAboutDigestsToo(t *testing.T) {
	for pattern, want := range map[string]string{
		"example.com/app:*":              "example.com/app@*",
		"example.com/app:v1":             "example.com/app@*",
		"example.com/app:v1**":           "example.com/app@*",
		"example.com/app":                "example.com/app@*",
		"app":                            "app@*",
		"example.com:5000/a/app:v1*":     "example.com:5000/a/app@*",
		"example.com:5000/a/*":           "",
		"example.com:5000/a/app*":        "",
		"example.com/a/**":               "",
		"example.com/a**":                "",
		"*":                              "",
		"**":                             "",
		"example.com/app@sha256:ab*":     "",
		"example.com/app@*":              "",
		"example.com/app:v1@sha256:ab*":  "example.com/app@sha256:ab*",
		"example.com/app:v1@*":           "example.com/app@*",
		"example.com/app:v1@sha256:full": "",
	} {
		if got := byDigest(pattern); got != want {
			t.Errorf("%s: %q, want %q", pattern, got, want)
		}
	}
}
