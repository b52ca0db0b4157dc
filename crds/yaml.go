package crds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// yamlDocuments turns each document of YAML into JSON, duplicate keys and all: to refuse
// them is the business of the one decoder behind it. Empty documents are left out.
//
// Of YAML it leaves out what has no meaning in JSON or two meanings in the field: merge
// keys, tags other than those of JSON's types, infinities. Anchors and aliases are followed.
func yamlDocuments(data []byte) (docs [][]byte, err error) {
	// The parser promises errors and has panicked in the past; a policy file must not be
	// able to end the daemon.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("YAML: parser failed: %v", r)
		}
	}()
	in := &meter{r: bytes.NewReader(data)}
	dec := yaml.NewDecoder(in)
	total := 0
	for {
		in.left = MaxDocumentBytes
		var n yaml.Node
		switch err := dec.Decode(&n); {
		case errors.Is(err, io.EOF):
			return docs, nil
		case err != nil:
			return nil, err
		}
		w := &yamlWriter{}
		if err := w.node(&n, 0); err != nil {
			return nil, fmt.Errorf("YAML: %w", err)
		}
		if total += len(w.json); total > MaxBytes {
			return nil, fmt.Errorf("YAML: more than %d bytes when aliases are followed", MaxBytes)
		}
		if !bytes.Equal(w.json, []byte("null")) {
			docs = append(docs, w.json)
		}
	}
}

// meter lets the parser read so much and no more until it is set again: a node of YAML
// takes many times the memory of its text.
type meter struct {
	r    io.Reader
	left int
}

func (m *meter) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, fmt.Errorf("document is over %d bytes", MaxDocumentBytes)
	}
	n, err := m.r.Read(p[:min(len(p), m.left)])
	m.left -= n
	return n, err
}

// yamlWriter writes a tree of YAML nodes as JSON. Every node it visits writes at least
// a byte, so that the bound on what it writes bounds its work too, whatever the aliases.
type yamlWriter struct {
	json []byte
}

func (w *yamlWriter) node(n *yaml.Node, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("line %d: nested deeper than %d", n.Line, maxDepth)
	}
	if len(w.json) > MaxDocumentBytes {
		return fmt.Errorf("line %d: document is over %d bytes when its aliases are followed", n.Line, MaxDocumentBytes)
	}
	switch n.Kind {
	case yaml.DocumentNode:
		if len(n.Content) != 1 {
			return errors.New("document without content")
		}
		return w.node(n.Content[0], depth)
	case yaml.AliasNode:
		return w.node(n.Alias, depth+1)
	case yaml.MappingNode:
		return w.mapping(n, depth)
	case yaml.SequenceNode:
		return w.sequence(n, depth)
	case yaml.ScalarNode:
		return w.scalar(n)
	}
	w.json = append(w.json, "null"...) // the parser's zero node: a document of nothing
	return nil
}

func (w *yamlWriter) mapping(n *yaml.Node, depth int) error {
	if tag := n.ShortTag(); tag != "!!map" {
		return fmt.Errorf("line %d: tag %s is not supported", n.Line, tag)
	}
	w.json = append(w.json, '{')
	for i := 0; i+1 < len(n.Content); i += 2 {
		if i > 0 {
			w.json = append(w.json, ',')
		}
		key := n.Content[i]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			return fmt.Errorf("line %d: a key must be a string", key.Line)
		}
		if key.ShortTag() == "!!merge" {
			return fmt.Errorf("line %d: merge keys (<<) are not supported", key.Line)
		}
		w.json = append(appendString(w.json, key.Value), ':')
		if err := w.node(n.Content[i+1], depth+1); err != nil {
			return err
		}
	}
	w.json = append(w.json, '}')
	return nil
}

func (w *yamlWriter) sequence(n *yaml.Node, depth int) error {
	if tag := n.ShortTag(); tag != "!!seq" {
		return fmt.Errorf("line %d: tag %s is not supported", n.Line, tag)
	}
	w.json = append(w.json, '[')
	for i, item := range n.Content {
		if i > 0 {
			w.json = append(w.json, ',')
		}
		if err := w.node(item, depth+1); err != nil {
			return err
		}
	}
	w.json = append(w.json, ']')
	return nil
}

func (w *yamlWriter) scalar(n *yaml.Node) error {
	switch tag := n.ShortTag(); tag {
	case "!!str", "!!timestamp": // a time stays the text that was written
		w.json = appendString(w.json, n.Value)
	case "!!null":
		w.json = append(w.json, "null"...)
	case "!!bool", "!!int", "!!float":
		var v any
		if err := n.Decode(&v); err != nil {
			return err
		}
		text, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("line %d: %w", n.Line, err)
		}
		w.json = append(w.json, text...)
	default:
		return fmt.Errorf("line %d: tag %s is not supported", n.Line, tag)
	}
	return nil
}
