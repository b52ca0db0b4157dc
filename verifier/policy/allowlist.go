package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/horkos/horkos/verifier/image"
)

// dialect is how the stars of a pattern are read.
type dialect int

const (
	// kritisDialect: a star at the end matches anything but a slash; elsewhere it is literal.
	kritisDialect dialect = iota
	// alibabaDialect: besides, a star elsewhere matches letters, digits, '-' and '_'.
	alibabaDialect
	// scopeDialect: as kritisDialect, and two stars at the end match anything, a slash too.
	scopeDialect
)

// allowlist matches names. A star at the end does not cross a slash, so that prefixes are
// found by what stands before the last slash; only the few patterns with stars elsewhere
// are tried one after the other.
type allowlist struct {
	exact    map[Name]Exemption
	prefixes map[string][]prefix // by all up to the last slash
	trees    []prefix            // whatever follows
	exprs    []expression
}

type prefix struct {
	text string
	Exemption
}

// expression is a pattern of the Alibaba dialect with stars inside.
type expression struct {
	parts []string // what stands between the stars
	atEnd bool     // there is a star at the end, too
	Exemption
}

// Name is the form of a bound name that patterns are held against. The zero value is none.
type Name string

// NameOf writes a bound name. A tag written beside a digest is bound to nothing, so it is
// left out.
func NameOf(ref image.Reference) Name {
	if ref.Repository == "" {
		return ""
	}
	if ref.Digest != "" {
		ref.Tag = ""
	}
	return Name(ref.String())
}

// add compiles one pattern. An error means the pattern cannot be understood.
func (a *allowlist) add(pattern, object string, d dialect) error {
	if pattern == "" {
		return fmt.Errorf("empty pattern")
	}
	if len(pattern) > MaxPattern {
		return fmt.Errorf("pattern of %d bytes, at most %d are allowed", len(pattern), MaxPattern)
	}
	if strings.ContainsAny(pattern, " \t\r\n") {
		return fmt.Errorf("pattern %q has white space in it", pattern)
	}
	by := Exemption{Object: object, Pattern: pattern}
	body, atEnd := strings.CutSuffix(pattern, "*")
	switch {
	case d == alibabaDialect && strings.Contains(body, "*"):
		a.exprs = append(a.exprs, expression{strings.Split(starred(pattern), "*"), atEnd, by})
	case d == scopeDialect && strings.HasSuffix(body, "*"):
		texts, err := trees(strings.TrimSuffix(body, "*"))
		if err != nil {
			return fmt.Errorf("pattern %q: %w", pattern, err)
		}
		for _, text := range texts {
			a.trees = append(a.trees, prefix{text, by})
		}
	case atEnd:
		text := normalPattern(body)
		if !begins(text) {
			if strings.HasSuffix(body, "*") {
				return fmt.Errorf("pattern %q: no image name begins so: ** works only in spec.images of a ClusterAttestationPolicy", pattern)
			}
			return fmt.Errorf("pattern %q: no image name begins so", pattern)
		}
		if a.prefixes == nil {
			a.prefixes = make(map[string][]prefix)
		}
		folder := text[:strings.LastIndexByte(text, '/')+1]
		a.prefixes[folder] = append(a.prefixes[folder], prefix{text, by})
	default:
		name, err := image.Parse(pattern)
		if err != nil {
			return fmt.Errorf("pattern %q is neither an image name nor ends in *: %w", pattern, err)
		}
		if a.exact == nil {
			a.exact = make(map[Name]Exemption)
		}
		if _, have := a.exact[NameOf(name)]; !have {
			a.exact[NameOf(name)] = by
		}
	}
	return nil
}

// trees are the beginnings of names that a pattern with two stars stands for; body is what
// is written before them. Without a slash it could mean a host or an image of docker.io.
func trees(body string) ([]string, error) {
	if body == "" {
		return []string{""}, nil
	}
	if !strings.Contains(body, "/") {
		return nil, errors.New("write a slash before the two stars: REGISTRY/** or docker.io/NAME**")
	}
	texts := []string{normalPattern(body)}
	if rest, ok := strings.CutPrefix(texts[0], "docker.io/library/"); ok && !strings.HasSuffix(body, "library/"+rest) {
		texts = append(texts, "docker.io/"+rest) // written docker.io/REST: also what follows a slash
	}
	for _, text := range texts {
		if !begins(text) {
			return nil, errors.New("no image name begins so")
		}
	}
	return texts, nil
}

// begins tells whether an image name in its normal form can begin with a text that has
// host and slash.
func begins(text string) bool {
	name, digest, hasDigest := strings.Cut(text, "@")
	if !hasDigest {
		_, err := image.Parse(text + "a")
		return err == nil
	}
	const whole = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	if len(digest) < len(whole) && strings.HasPrefix(digest, whole[:min(len("sha256:"), len(digest))]) {
		digest += whole[len(digest):]
	}
	_, err := image.Parse(name + "@" + digest)
	return err == nil
}

// starred is the normal form of a pattern of the Alibaba dialect with a star inside,
// without the one at its end. Without a tag, a digest or that star it means the tag
// latest, as a name does.
func starred(pattern string) string {
	body, atEnd := strings.CutSuffix(pattern, "*")
	p := normalPattern(body)
	if last := p[strings.LastIndexByte(p, '/'):]; !atEnd && !strings.ContainsAny(last, ":@") {
		p += ":latest"
	}
	return p
}

// openHost tells whether a pattern of the Alibaba dialect has a star in its host, and so
// may match a registry that anybody can own.
func openHost(pattern string) bool {
	host, _, _ := strings.Cut(normalPattern(pattern), "/")
	return strings.Contains(host, "*")
}

// match tells whether the expression matches all of a name, in linear time. The first place
// where a part fits is as good as any: what lies between two places is a star's to match.
func (e *expression) match(name string) bool {
	rest, ok := strings.CutPrefix(name, e.parts[0])
	if !ok {
		return false
	}
	parts := e.parts[1:]
	last := ""
	if !e.atEnd {
		last = parts[len(parts)-1]
		parts = parts[:len(parts)-1]
	}
	for _, part := range parts {
		i := strings.Index(rest, part)
		if i < 0 || !inLabel(rest[:i]) {
			return false
		}
		rest = rest[i+len(part):]
	}
	if e.atEnd {
		return !strings.Contains(rest, "/")
	}
	between, ok := strings.CutSuffix(rest, last)
	return ok && inLabel(between)
}

// inLabel tells whether a star inside a pattern may stand for a text.
func inLabel(text string) bool {
	for i := range len(text) {
		c := text[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// normalPattern brings the beginning of a pattern into the form of a normal name, by
// the same rules as image.Parse: a first component with a dot or a colon, or localhost,
// is a host; everything else is on docker.io.
func normalPattern(p string) string {
	host, rest, ok := strings.Cut(p, "/")
	if !ok || !(strings.ContainsAny(host, ".:") || host == "localhost") {
		host, rest = "docker.io", p
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	if host == "docker.io" && !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	return host + "/" + rest
}

// match names the entry that a name matches; none is matched by no name.
func (a *allowlist) match(bound Name) (Exemption, bool) {
	if a == nil || bound == "" {
		return Exemption{}, false
	}
	if by, ok := a.exact[bound]; ok {
		return by, true
	}
	name := string(bound)
	if len(a.prefixes) > 0 {
		same := a.prefixes[name[:strings.LastIndexByte(name, '/')+1]]
		for i := range same {
			if strings.HasPrefix(name, same[i].text) {
				return same[i].Exemption, true
			}
		}
	}
	for i := range a.trees {
		if strings.HasPrefix(name, a.trees[i].text) {
			return a.trees[i].Exemption, true
		}
	}
	for i := range a.exprs {
		if a.exprs[i].match(name) {
			return a.exprs[i].Exemption, true
		}
	}
	return Exemption{}, false
}
