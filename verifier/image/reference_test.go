package image

import (
	"errors"
	"strings"
	"testing"
)

var (
	hex64    = strings.Repeat("0123456789abcdef", 4)
	aDigest  = Digest("sha256:" + hex64)
	aSHA512  = Digest("sha512:" + hex64 + hex64)
	anyTag   = strings.Repeat("t", MaxTagBytes)
	longPath = strings.Repeat("p", MaxPathBytes)
)

func TestNamesAreNormalisedOnce(t *testing.T) {
	tests := []struct {
		name, in, want string
	}{
		{"a bare name is an official image, latest", "nginx", "docker.io/library/nginx:latest"},
		{"a tag is kept", "nginx:1.27", "docker.io/library/nginx:1.27"},
		{"a tag keeps its case", "nginx:V1_x-Y.z", "docker.io/library/nginx:V1_x-Y.z"},
		{"a digest leaves the tag empty", "nginx@" + string(aDigest), "docker.io/library/nginx@" + string(aDigest)},
		{"tag and digest are both kept", "nginx:1@" + string(aDigest), "docker.io/library/nginx:1@" + string(aDigest)},
		{"a sha512 digest is a digest", "nginx@" + string(aSHA512), "docker.io/library/nginx@" + string(aSHA512)},
		{"a namespace is on docker.io", "team/app", "docker.io/team/app:latest"},
		{"docker.io is filled in with library", "docker.io/nginx:1", "docker.io/library/nginx:1"},
		{"docker.io with library stays", "docker.io/library/nginx:1", "docker.io/library/nginx:1"},
		{"index.docker.io is docker.io", "index.docker.io/nginx:1", "docker.io/library/nginx:1"},
		{"index.docker.io with a namespace is docker.io", "index.docker.io/team/app", "docker.io/team/app:latest"},
		{"docker.io with a port is another host", "docker.io:443/nginx", "docker.io:443/nginx:latest"},
		{"a host with a dot is a host", "registry.example.com/app", "registry.example.com/app:latest"},
		{"a host with a port is a host", "registry:5000/team/app:1", "registry:5000/team/app:1"},
		{"a host with a port and a name without tag", "registry:5000/app", "registry:5000/app:latest"},
		{"localhost is a host", "localhost/app:1", "localhost/app:1"},
		{"localhost with a port is a host", "localhost:5000/app", "localhost:5000/app:latest"},
		{"localhost alone is a name", "localhost:5000", "docker.io/library/localhost:5000"},
		{"an address is a host", "10.0.0.1:5000/app:1", "10.0.0.1:5000/app:1"},
		{"an address of version 6 is a host", "[fd00::1]:5000/app:1", "[fd00::1]:5000/app:1"},
		{"separators stand between letters and digits", "team/a.b_c__d---e/f0", "docker.io/team/a.b_c__d---e/f0:latest"},
		{"hex of 11 digits is a name", "deadbeefcaf", "docker.io/library/deadbeefcaf:latest"},
		{"hex of 12 digits with a tag is a name", "deadbeefcafe:1", "docker.io/library/deadbeefcafe:1"},
		{"a repository sha256 with an ordinary tag is a name", "sha256:latest", "docker.io/library/sha256:latest"},
		{"a tag at the limit", "a:" + anyTag, "docker.io/library/a:" + anyTag},
		{"a path at the limit", "h.example/" + longPath, "h.example/" + longPath + ":latest"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.in)
			if err != nil || got.String() != tt.want {
				t.Fatalf("Parse(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
			}
			again, err := Parse(got.String())
			if err != nil || again != got {
				t.Errorf("parsed again: %q, %v", again, err)
			}
		})
	}
}

func TestWhatIsNoNameIsRefused(t *testing.T) {
	tests := []struct{ name, in string }{
		{"nothing", ""},
		{"a space around it", " nginx"},
		{"a newline behind it", "nginx\n"},
		{"upper case in the repository", "Nginx"},
		{"upper case in the path", "registry.example.com/Team/app"},
		{"upper case in the host", "Registry.example.com/app"},
		{"upper case that other parsers take for a host", "Team/app"},
		{"upper case hex of an id", strings.ToUpper(hex64)},
		{"letters that are not ASCII", "ngınx"},
		{"an empty component", "a//b"},
		{"a slash at the end", "a/"},
		{"a slash at the beginning", "/a"},
		{"a component of dots", "a/../b"},
		{"a separator at the end", "a-"},
		{"a separator at the beginning", "-a"},
		{"two dots", "a..b"},
		{"three underscores", "a___b"},
		{"two sorts of separators together", "a.-b"},
		{"an empty tag", "a:"},
		{"a tag that begins with a dot", "a:.1"},
		{"a host with a port that is a tag", "a:x/b"},
		{"a tag with a slash in it", "team/a:1/b"},
		{"two tags", "a:1:2"},
		{"an empty digest", "a@"},
		{"two digests", "a@" + string(aDigest) + "@" + string(aDigest)},
		{"a digest of another algorithm", "a@md5:d41d8cd98f00b204e9800998ecf8427e"},
		{"a digest in upper case", "a@sha256:" + strings.ToUpper(hex64)},
		{"a digest that is short", "a@sha256:" + hex64[1:]},
		{"a digest without a name", "@" + string(aDigest)},
		{"a scheme", "https://registry.example.com/app"},
		{"a host with an empty label", "registry..example.com/app"},
		{"a host with a dot at its end", "registry.example.com./app"},
		{"a host label that ends with a dash", "registry-.example.com/app"},
		{"a host with an underscore", "a_b.example.com/app"},
		{"a host with an empty port", "registry:/app"},
		{"a host with a port that is no number", "registry:5o/app"},
		{"an address without its bracket", "[::1/app"},
		{"an address with something behind it", "[::1]5/app"},
		{"an address that is empty", "[]:5000/app"},
		{"a tag over the limit", "a:" + anyTag + "t"},
		{"a path over the limit", "h.example/" + longPath + "p"},
		{"a path over the limit once library is filled in", longPath},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.in)
			if err == nil || got != (Reference{}) {
				t.Errorf("Parse(%q) = %q, %v; want an error and no reference", tt.in, got, err)
			}
			if errors.Is(err, ErrID) {
				t.Errorf("Parse(%q) calls it an id: %v", tt.in, err)
			}
		})
	}
}

func TestIDsAreNeverNames(t *testing.T) {
	for _, id := range []string{
		hex64, hex64[:12], hex64 + hex64,
		string(aDigest), string(aSHA512),
		"sha256:" + hex64[:1], "sha256:" + hex64[:63],
		string(aDigest) + "@" + string(aDigest), hex64 + "@" + string(aDigest),
	} {
		name, _, _ := strings.Cut(id, "@")
		if !IsID(name) {
			t.Errorf("IsID(%q) = false", name)
		}
		if got, err := Parse(id); !errors.Is(err, ErrID) {
			t.Errorf("Parse(%q) = %q, %v; want ErrID", id, got, err)
		}
	}
	for _, name := range []string{"", "nginx", "cafe", hex64[:13], "sha256:", "sha256:latest", "sha256:" + hex64 + "0", "md5:abc"} {
		if IsID(name) {
			t.Errorf("IsID(%q) = true", name)
		}
	}
}

func TestTheLimitOfAReferenceHoldsAsWrittenAndNormalised(t *testing.T) {
	// host + "/" + path + ":" + tag, with the host making up the length.
	build := func(length int) string {
		rest := "/" + longPath + ":" + anyTag
		return strings.Repeat("a.", length)[:length-len(rest)-1] + "a" + rest
	}
	if s := build(MaxReferenceBytes); len(s) != MaxReferenceBytes {
		t.Fatalf("test makes %d bytes", len(s))
	} else if _, err := Parse(s); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := Parse(build(MaxReferenceBytes + 1)); err == nil || !strings.Contains(err.Error(), "of 513 bytes") {
		t.Errorf("above the limit: %v", err)
	}
	// At the limit as written, over it once docker.io is filled in.
	grown := "u/" + strings.Repeat("p", MaxReferenceBytes-len("u/:@")-len(anyTag)-len(aSHA512)) + ":" + anyTag + "@" + string(aSHA512)
	if len(grown) != MaxReferenceBytes {
		t.Fatalf("test makes %d bytes", len(grown))
	}
	if _, err := Parse(grown); err == nil || !strings.Contains(err.Error(), "in its normal form") {
		t.Errorf("above the limit in its normal form: %v", err)
	}
}

func TestAnIdentityIsRepositoryAndDigest(t *testing.T) {
	want := Identity{Repository: "registry.example.com/team/app", Digest: aDigest}
	for _, prefix := range []string{"", "https://", "http://"} {
		if got, err := ParseIdentity(prefix + want.String()); err != nil || got != want {
			t.Errorf("ParseIdentity(%q) = %v, %v", prefix+want.String(), got, err)
		}
	}
	for _, s := range []string{
		"", "nginx", "nginx:1", "nginx:1@" + string(aDigest), string(aDigest), "@" + string(aDigest),
		"https://http://nginx@" + string(aDigest), "HTTPS://nginx@" + string(aDigest), "ftp://nginx@" + string(aDigest),
	} {
		if got, err := ParseIdentity(s); err == nil {
			t.Errorf("ParseIdentity(%q) = %v", s, got)
		}
	}
	ref, err := Parse("team/app:1@" + string(aDigest))
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := ref.Identity(); !ok || got.String() != "docker.io/team/app@"+string(aDigest) {
		t.Errorf("Identity() = %v, %v", got, ok)
	}
	if got, ok := (Reference{Repository: "docker.io/team/app", Tag: "1"}).Identity(); ok {
		t.Errorf("a tag made an identity: %v", got)
	}
}

func TestDigestsAreExact(t *testing.T) {
	for _, good := range []Digest{aDigest, aSHA512} {
		if got, err := ParseDigest(string(good)); err != nil || got != good {
			t.Errorf("ParseDigest(%q) = %q, %v", good, got, err)
		}
	}
	for _, bad := range []string{
		"", "sha256", "sha256:", hex64, "sha256:" + hex64[1:], "sha256:" + hex64 + "0", "sha512:" + hex64,
		"SHA256:" + hex64, "sha256:" + strings.ToUpper(hex64), "sha384:" + hex64, "sha256:" + hex64[1:] + "g", " " + string(aDigest),
	} {
		if got, err := ParseDigest(bad); err == nil {
			t.Errorf("ParseDigest(%q) = %q", bad, got)
		}
	}
	if got := aDigest.Encoded(); got != hex64 {
		t.Errorf("Encoded() = %q", got)
	}
}

func TestADigestVerifiesItsContentOnly(t *testing.T) {
	// The digests of "abc" in FIPS 180-2, appendices B and C.
	abc := Digest("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
	abc512 := Digest("sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a" +
		"2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f")
	if got := SHA256([]byte("abc")); got != abc {
		t.Errorf("SHA256 = %s", got)
	}
	for _, d := range []Digest{abc, abc512} {
		if err := d.Verify([]byte("abc")); err != nil {
			t.Errorf("%s: %v", d, err)
		}
		if err := d.Verify([]byte("abd")); err == nil {
			t.Errorf("%s verifies other content", d)
		}
	}
	for _, d := range []Digest{"", "sha256:", "md5:900150983cd24fb0d6963f7d28e17f72"} {
		if err := d.Verify([]byte("abc")); err == nil {
			t.Errorf("%q verifies content", d)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"nginx", "docker.io/library/nginx:1", "index.docker.io/a/b", "localhost:5000/a/b:1@" + string(aDigest), "a@" + string(aSHA512),
		"[fd00::1]:5000/a", hex64, string(aDigest), "Team/app", "a..b", "a:b/c", "a@b@c", "sha256:abc", "x/" + longPath + ":" + anyTag,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := Parse(s)
		if err != nil {
			if ref != (Reference{}) {
				t.Errorf("an error and a reference: %q", ref)
			}
			return
		}
		if IsID(s) {
			t.Errorf("an id became the name %q", ref)
		}
		if again, err := Parse(ref.String()); err != nil || again != ref {
			t.Errorf("normal form %q parses to %q, %v", ref, again, err)
		}
		if ref.Tag == "" && ref.Digest == "" || strings.ToLower(ref.Repository) != ref.Repository {
			t.Errorf("not a normal form: %q", ref)
		}
	})
}
