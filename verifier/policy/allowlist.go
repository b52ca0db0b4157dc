package policy

import (
	"fmt"
	"regexp"
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
)

// allowlist matches names in time linear in the name: exact names in a map, prefixes
// and the few expressions one after the other.
type allowlist struct {
	exact    map[string]Exemption
	prefixes []prefix
	exprs    []expression
}

type prefix struct {
	text string
	Exemption
}

type expression struct {
	re *regexp.Regexp
	Exemption
}

// matchable is the form of a bound name that patterns are held against. A tag written
// beside a digest is bound to nothing, so it is left out.
func matchable(name image.Reference) string {
	if name.Digest != "" {
		name.Tag = ""
	}
	return name.String()
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
		re, err := regexp.Compile(expr(starred(pattern), atEnd))
		if err != nil {
			return fmt.Errorf("pattern %q: %w", pattern, err)
		}
		a.exprs = append(a.exprs, expression{re, by})
	case atEnd:
		a.prefixes = append(a.prefixes, prefix{normalPattern(body), by})
	default:
		name, err := image.Parse(pattern)
		if err != nil {
			return fmt.Errorf("pattern %q is neither an image name nor ends in *: %w", pattern, err)
		}
		if a.exact == nil {
			a.exact = make(map[string]Exemption)
		}
		if _, have := a.exact[matchable(name)]; !have {
			a.exact[matchable(name)] = by
		}
	}
	return nil
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

// expr writes the Alibaba dialect as a regular expression of RE2, which takes linear time.
func expr(body string, atEnd bool) string {
	parts := strings.Split(body, "*")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	e := `\A` + strings.Join(parts, `[A-Za-z0-9_-]*`)
	if atEnd {
		e += `[^/]*`
	}
	return e + `\z`
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

func (a *allowlist) match(name string) (Exemption, bool) {
	if by, ok := a.exact[name]; ok {
		return by, true
	}
	for i := range a.prefixes {
		p := &a.prefixes[i]
		if strings.HasPrefix(name, p.text) && !strings.Contains(name[len(p.text):], "/") {
			return p.Exemption, true
		}
	}
	for i := range a.exprs {
		if a.exprs[i].re.MatchString(name) {
			return a.exprs[i].Exemption, true
		}
	}
	return Exemption{}, false
}
