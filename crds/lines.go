package crds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Lines tells where in a file its objects and their fields stand. It is made only for
// people who mend files: nothing that decides keeps it.
type Lines struct {
	nodes map[string]*yaml.Node // by Object.Source, and that of documents
}

// ReadLines reads the data that Decode read under the same source. Where it does not parse
// there are no lines.
func ReadLines(data []byte, source string) (lines *Lines) {
	lines = &Lines{nodes: make(map[string]*yaml.Node)}
	if len(data) > MaxBytes {
		return lines
	}
	// As in yamlDocuments.
	defer func() {
		if recover() != nil {
			lines = &Lines{}
		}
	}()
	docs := nodesOf(data)
	for i, doc := range docs {
		at := source
		if len(docs) > 1 {
			at = documentSource(source, i)
		}
		lines.nodes[at] = doc
		if items := valueAt(doc, "items"); items != nil && scalar(doc, "apiVersion") == "v1" && scalar(doc, "kind") == "List" {
			for n, item := range items.Content {
				lines.nodes[itemSource(at, n)] = item
			}
		}
	}
	return lines
}

// documentSource and itemSource are the sources of what is in a file of several documents,
// and in a List; both count from 0.
func documentSource(source string, i int) string {
	return fmt.Sprintf("%s (document %d)", source, i+1)
}

func itemSource(source string, i int) string { return fmt.Sprintf("%s (item %d)", source, i+1) }

var within = regexp.MustCompile(`( \(document \d+\))?( \(item \d+\))?$`)

// File is the file of an Object's source.
func File(source string) string { return within.ReplaceAllString(source, "") }

// Line is the line of a field, a path such as spec.publicKeys[0].keyType, of the object with
// that source; of a field that is not there it is that of the nearest one above it, and with
// an empty path that of the object. It counts from 1; 0 means not known.
func (l *Lines) Line(source, field string) int {
	n := l.nodes[source]
	if n == nil {
		return 0
	}
	line := n.Line
	for _, step := range steps(field) {
		key, value := child(n, step)
		if value == nil {
			break
		}
		// A value may stand below its key, which is what people look for.
		if n, line = value, value.Line; key != nil {
			line = key.Line
		}
	}
	return line
}

var (
	faultLine = regexp.MustCompile(`^(?:yaml|YAML): line (\d+): `)
	faultItem = regexp.MustCompile(`(?:^|: )item (\d+): `)
)

// FaultLine is the line that an error of Decode over the same data is about; 0 means not
// known. The message is the error's, with its source before it or without.
func (l *Lines) FaultLine(source, message string) int {
	place := source
	if strings.HasPrefix(message, source+" (document ") && strings.Contains(message[len(source):], ")") {
		rest := message[len(source):]
		place = source + rest[:strings.Index(rest, ")")+1]
	}
	message = strings.TrimPrefix(message, place+": ")
	if m := faultLine.FindStringSubmatch(message); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n
	}
	if m := faultItem.FindStringSubmatch(message); m != nil {
		n, _ := strconv.Atoi(m[1])
		if item := itemSource(place, n-1); l.nodes[item] != nil {
			place = item
		}
	}
	return l.Line(place, "")
}

// steps takes a path apart: names, and indices in brackets.
func steps(field string) []string {
	if field == "" {
		return nil
	}
	return strings.Split(strings.ReplaceAll(field, "[", ".["), ".")
}

// child finds what a step leads to: of a map the key too.
func child(n *yaml.Node, step string) (key, value *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if index, ok := strings.CutPrefix(step, "["); ok && n.Kind == yaml.SequenceNode {
		i, err := strconv.Atoi(strings.TrimSuffix(index, "]"))
		if err != nil || i < 0 || i >= len(n.Content) {
			return nil, nil
		}
		return nil, n.Content[i]
	}
	if n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == step {
			key, value = n.Content[i], n.Content[i+1] // of one that stands twice the last, which is too many
		}
	}
	return key, value
}

func valueAt(n *yaml.Node, key string) *yaml.Node {
	_, value := child(n, key)
	if value != nil && value.Kind == yaml.AliasNode {
		value = value.Alias
	}
	return value
}

func scalar(n *yaml.Node, key string) string {
	if value := valueAt(n, key); value != nil {
		return value.Value
	}
	return ""
}

// nodesOf are the roots of the documents that documents finds.
func nodesOf(data []byte) []*yaml.Node {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if start := bytes.TrimLeft(data, " \t\r\n"); len(start) > 0 && start[0] == '{' {
		if nodes, ok := jsonNodes(data); ok {
			return nodes
		}
	}
	var nodes []*yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var n yaml.Node
		switch err := dec.Decode(&n); {
		case errors.Is(err, io.EOF):
			return nodes
		case err != nil:
			return nil
		}
		if n.Kind == yaml.DocumentNode && len(n.Content) == 1 && n.Content[0].ShortTag() != "!!null" {
			nodes = append(nodes, n.Content[0])
		}
	}
}

// jsonNodes reads one value of JSON after the other as nodes of YAML.
func jsonNodes(data []byte) (nodes []*yaml.Node, ok bool) {
	r := &jsonReader{data: data, dec: json.NewDecoder(bytes.NewReader(data)), line: 1}
	r.dec.UseNumber()
	for {
		n, err := r.node(0)
		switch {
		case errors.Is(err, io.EOF):
			return nodes, true
		case err != nil:
			return nil, false
		}
		if n.Tag != "!!null" {
			nodes = append(nodes, n)
		}
	}
}

// jsonReader makes nodes of JSON, with their lines.
type jsonReader struct {
	data  []byte
	dec   *json.Decoder
	line  int
	upTo  int64 // lines are counted up to here
	ended bool  // the token before closed a list or a map
}

// maxJSONDepth is that of encoding/json.
const maxJSONDepth = 10_000

func (r *jsonReader) node(depth int) (*yaml.Node, error) {
	token, err := r.dec.Token()
	if err != nil {
		return nil, err
	}
	if depth > maxJSONDepth {
		return nil, errors.New("nested too deep")
	}
	// A token has no line break in it: where it ends is the line where it begins.
	end := r.dec.InputOffset()
	r.line += bytes.Count(r.data[r.upTo:end], []byte("\n"))
	r.upTo = end
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line}
	switch t := token.(type) {
	case json.Delim:
		r.ended = t == '}' || t == ']'
		if r.ended {
			return n, nil
		}
		n.Kind = yaml.SequenceNode
		if t == '{' {
			n.Kind = yaml.MappingNode
		}
		for {
			item, err := r.node(depth + 1)
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return nil, err
			}
			if r.ended {
				r.ended = false
				return n, nil
			}
			n.Content = append(n.Content, item)
		}
	case string:
		n.Value = t
	case nil:
		n.Tag = "!!null"
	}
	return n, nil
}
