package crds

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// emptyBounds finds the fields that bound something by a time and that are written without
// one, as templates leave them: read as left out, they would loosen.
func emptyBounds(spec json.RawMessage) []Problem {
	bounds := []string{"maximumAttestationAge", "notBefore", "validFrom", "validUntil"}
	if !slices.ContainsFunc(bounds, func(name string) bool { return bytes.Contains(spec, []byte(`"`+name+`"`)) }) {
		return nil
	}
	var all any
	if json.Unmarshal(spec, &all) != nil {
		return nil // told already
	}
	var problems []Problem
	var walk func(path []string, v any)
	walk = func(path []string, v any) { // paths are joined for problems only: keys may be long, and deep
		switch v := v.(type) {
		case []any:
			for i := range v {
				walk(append(path, fmt.Sprintf("[%d]", i)), v[i])
			}
		case map[string]any:
			for _, key := range slices.Sorted(maps.Keys(v)) {
				value, at := v[key], append(path, "."+key)
				if (value == nil || value == "") && slices.Contains(bounds, key) && len(problems) <= maxProblems {
					problems = append(problems, Problem{strings.Join(at, ""), "empty: give it a value, or leave the field out"})
				}
				walk(at, value)
			}
		}
	}
	walk([]string{"spec"}, all)
	return problems
}
