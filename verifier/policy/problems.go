package policy

import (
	"regexp"

	"github.com/horkos/horkos/crds"
)

// fielded is a message that begins with the path of a field, and of a key with the name of
// one of its fields.
var fielded = regexp.MustCompile(`\A(spec(?:[.\[][^\s:]*)?): (?:(keyType|validFrom|validUntil): )?((?s:.*))\z`)

// problemsOf takes a message about an object apart.
func problemsOf(o crds.Object, message string) []crds.Problem {
	if len(o.Problems) > 0 && message == o.Malformed() {
		return o.Problems
	}
	m := fielded.FindStringSubmatch(message)
	switch {
	case m == nil:
		return []crds.Problem{{Message: message}}
	case m[2] != "":
		return []crds.Problem{{Field: m[1] + "." + m[2], Message: m[3]}}
	}
	return []crds.Problem{{Field: m[1], Message: m[3]}}
}
