package cases

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// placed is an error about one line.
type placed struct {
	line int
	err  error
}

func (p *placed) Error() string { return p.err.Error() }
func (p *placed) Unwrap() error { return p.err }

// placedAt is an error about a field, by its path from the top of a document.
func placedAt(doc *yaml.Node, path string, err error) error {
	return &placed{lineOf(doc.Content[0], strings.Split(path, ".")), fmt.Errorf("%s: %w", path, err)}
}

// decode reads a document strictly, in words of what was written: whoever writes cases knows
// no types of Go.
func decode(doc *yaml.Node, into *Case) error {
	top := doc.Content[0]
	if err := isCase(top); err != nil {
		return err
	}
	if key := twice(top); key != nil {
		return &placed{key.Line, fmt.Errorf("%.80q is written twice", key.Value)}
	}
	text, err := yaml.Marshal(doc)
	if err != nil {
		return err
	}
	if text, err = sigsyaml.YAMLToJSONStrict(text); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	return inWords(doc, dec.Decode(into))
}

// isCase tells manifests and other things from cases.
func isCase(top *yaml.Node) error {
	if top.Kind != yaml.MappingNode {
		return errors.New("want a case: name, objects, request and want")
	}
	kind := value(top, "kind")
	if value(top, "apiVersion") == nil || kind == nil {
		return nil
	}
	return fmt.Errorf("this is a manifest (%.80s), not a case: name its file among the objects of a case", kind.Value)
}

// inWords says what a JSON decoder found, and where.
func inWords(doc *yaml.Node, err error) error {
	var wrong *json.UnmarshalTypeError
	var noTime *time.ParseError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong):
		return placedAt(doc, wrong.Field, fmt.Errorf("want %s, not %s", kindOf(wrong.Type), wrong.Value))
	case errors.As(err, &noTime):
		return placedAt(doc, "request.at", fmt.Errorf("want a time of RFC 3339, such as 2027-06-01T00:00:00Z, not %.40q", strings.Trim(noTime.Value, `"`)))
	}
	text := strings.TrimPrefix(err.Error(), "json: ")
	if name, ok := strings.CutPrefix(text, "unknown field "); ok {
		line := doc.Content[0].Line
		if key := named(doc.Content[0], strings.Trim(name, `"`), 0); key != nil {
			line = key.Line
		}
		return &placed{line, errors.New(text)}
	}
	if strings.HasPrefix(text, "unknown result") {
		return placedAt(doc, "want.result", err)
	}
	return errors.New(text)
}

// kindOf names what a type of Go is written as.
func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Bool:
		return "true or false"
	case reflect.Struct, reflect.Map:
		return "fields and their values"
	}
	return "something else"
}

// value is what a mapping has under a key.
func value(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// lineOf is the line of a path, or of as much of it as is there. Of a list it is the first
// entry that has what follows.
func lineOf(n *yaml.Node, path []string) int {
	if len(path) == 0 {
		return n.Line
	}
	if n.Kind == yaml.SequenceNode {
		for _, entry := range n.Content {
			if value(entry, path[0]) != nil {
				return lineOf(entry, path)
			}
		}
		return n.Line
	}
	if next := value(n, path[0]); next != nil {
		return lineOf(next, path[1:])
	}
	return n.Line
}

// maxDepth is how deep cases are looked through.
const maxDepth = 100

// named is the first key of a name that is not within manifests.
func named(n *yaml.Node, name string, depth int) *yaml.Node {
	if depth > maxDepth {
		return nil
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			if c.Value == name {
				return c
			}
			continue
		}
		if n.Kind == yaml.MappingNode && depth == 0 && (n.Content[i-1].Value == "objects" || n.Content[i-1].Value == "cluster") {
			continue
		}
		if key := named(c, name, depth+1); key != nil {
			return key
		}
	}
	return nil
}

// twice is a key of the case that stands in one mapping twice. Those of manifests are left to who reads them.
func twice(top *yaml.Node) *yaml.Node {
	seen := make(map[string]bool)
	for i := 0; i+1 < len(top.Content); i += 2 {
		key := top.Content[i]
		if seen[key.Value] {
			return key
		}
		seen[key.Value] = true
		if v := top.Content[i+1]; key.Value != "objects" && key.Value != "cluster" {
			for _, m := range append([]*yaml.Node{v}, v.Content...) {
				if m.Kind == yaml.MappingNode {
					if again := twice(m); again != nil {
						return again
					}
				}
			}
		}
	}
	return nil
}
