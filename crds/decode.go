package crds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	strictjson "sigs.k8s.io/json"
)

// Decode reads the documents of a file or an answer, YAML or JSON, as objects.
//
// Lists (v1 List) are opened, one level deep. Objects of other groups are dropped, but for
// v1 Namespaces. What is wrong inside spec, a name that cannot be, a kind or version that
// is not known: each is a Problem of the object, which stays in the result. Unknown fields
// elsewhere are passed over.
//
// The error is for data that as a whole cannot be told to be objects: it does not parse, a
// document has no apiVersion, kind or metadata.name, a key outside spec stands twice, or a
// limit is passed. There is no object then, since nobody can say which ones are missing.
func Decode(data []byte, source string) ([]Object, error) {
	d := &decoder{}
	if err := d.decode(data, source); err != nil {
		return nil, err
	}
	return d.objects, nil
}

// Strangers are the objects that Decode drops and that were hardly meant to be: their group
// or kind looks like ours. Each has one Problem, which tells that. Of data that Decode
// refuses there are none.
func Strangers(data []byte, source string) []Object {
	d := &decoder{}
	if err := d.decode(data, source); err != nil {
		return nil
	}
	return d.strangers
}

func (d *decoder) decode(data []byte, source string) error {
	if len(data) > MaxBytes {
		return fmt.Errorf("%s: more than %d bytes", source, MaxBytes)
	}
	if !utf8.Valid(data) {
		return fmt.Errorf("%s: not UTF-8", source)
	}
	docs, err := documents(data)
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	for i, doc := range docs {
		at := source
		if len(docs) > 1 {
			at = documentSource(source, i)
		}
		if err := d.document(doc, at); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	}
	return nil
}

// documents splits data into its documents, each as JSON. JSON is tried first where it
// may be: YAML reads almost all of it, but not escaped surrogate pairs.
func documents(data []byte) ([][]byte, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if start := bytes.TrimLeft(data, " \t\r\n"); len(start) > 0 && start[0] == '{' {
		if docs, ok := jsonDocuments(start); ok {
			return docs, nil
		}
	}
	return yamlDocuments(data)
}

// jsonDocuments reads one value of JSON after the other; ok is false when there is anything else.
func jsonDocuments(data []byte) (docs [][]byte, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(data))
	for {
		var doc json.RawMessage
		switch err := dec.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return docs, true
		case err != nil:
			return nil, false
		}
		if !bytes.Equal(doc, []byte("null")) {
			docs = append(docs, doc)
		}
	}
}

// manifest is what the decoder reads of any object; written again, it is Object.Raw.
type manifest struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`

	Spec  json.RawMessage `json:"spec,omitempty"`
	Items json.RawMessage `json:"items,omitempty"`
}

type metadata struct {
	Name      string          `json:"name"`
	Namespace string          `json:"namespace,omitempty"`
	Labels    json.RawMessage `json:"labels,omitempty"`
}

type decoder struct {
	objects   []Object
	strangers []Object // of those that are dropped
	seen      int      // objects, the dropped ones too
}

// document decodes a document that is an object or a list of objects.
func (d *decoder) document(doc []byte, source string) error {
	m, err := readManifest(doc)
	if err != nil {
		return err
	}
	if !m.isList() {
		return d.object(m, source)
	}
	var items []json.RawMessage
	if len(m.Items) > 0 {
		if err := json.Unmarshal(m.Items, &items); err != nil {
			return fmt.Errorf("items: want a list of objects: %w", err)
		}
	}
	for i, item := range items {
		if err := d.item(item, itemSource(source, i)); err != nil {
			return fmt.Errorf("item %d: %w", i+1, err)
		}
	}
	return nil
}

func (d *decoder) item(item []byte, source string) error {
	m, err := readManifest(item)
	if err != nil {
		return err
	}
	if m.isList() {
		return errors.New("a list in a list")
	}
	return d.object(m, source)
}

func readManifest(doc []byte) (manifest, error) {
	var m manifest
	if len(doc) > MaxDocumentBytes {
		return m, fmt.Errorf("document is over %d bytes", MaxDocumentBytes)
	}
	if bytes.Equal(doc, []byte("null")) {
		return m, errors.New("nothing where an object should be")
	}
	duplicates, err := strictjson.UnmarshalStrict(doc, &m, strictjson.DisallowDuplicateFields)
	if err == nil {
		err = errors.Join(duplicates...)
	}
	switch {
	case err != nil:
		return m, fmt.Errorf("not an object: %w", err)
	case m.APIVersion == "":
		return m, errors.New("object without apiVersion")
	case m.Kind == "":
		return m, errors.New("object without kind")
	case m.Metadata.Name == "" && !m.isList():
		return m, errors.New("object without metadata.name")
	}
	return m, nil
}

func (m manifest) isList() bool { return m.APIVersion == "v1" && m.Kind == "List" }

// object decodes one object, or drops it when it is not ours.
func (d *decoder) object(m manifest, source string) error {
	if d.seen++; d.seen > MaxObjects {
		return fmt.Errorf("more than %d objects", MaxObjects)
	}
	k, known := knownKind(m.APIVersion, m.Kind)
	if !known && !ours(m.APIVersion) {
		if like, ok := looksLike(m.APIVersion, m.Kind); ok {
			text := fmt.Sprintf("apiVersion %.80q is of another group than %s: the object is passed over", m.APIVersion, like)
			d.strangers = append(d.strangers, Object{APIVersion: m.APIVersion, Kind: m.Kind, Name: m.Metadata.Name, Namespace: m.Metadata.Namespace,
				Source: source, Problems: []Problem{{"apiVersion", text}}})
		}
		return nil
	}
	o := Object{
		APIVersion: m.APIVersion,
		Kind:       m.Kind,
		Name:       m.Metadata.Name,
		Namespace:  m.Metadata.Namespace,
		Source:     source,
	}
	switch {
	case !known:
		o.UnknownKind = true
		o.Problems = []Problem{{"", fmt.Sprintf("kind %s of %s is not known to this version", m.Kind, m.APIVersion)}}
	case k.namespaced && o.Namespace == "":
		o.Namespace = "default"
	case !k.namespaced:
		o.Namespace = ""
	}
	o.Problems = append(o.Problems, checkNames(&o)...)
	if m.Kind != KindNamespace {
		m.Metadata.Labels = nil
	} else if p := checkLabels(m.Metadata.Labels); p != nil {
		o.Problems = append(o.Problems, *p)
	}

	m.Metadata.Namespace, m.Items = o.Namespace, nil
	if err := o.setRaw(m); err != nil {
		return err
	}
	if k.spec != nil {
		o.Problems = append(o.Problems, append(decodeSpec(m.Spec, k), emptyBounds(m.Spec)...)...)
		o.Spec = k.spec
		if k.check != nil {
			o.Problems = append(o.Problems, k.check(&o)...)
		}
	}
	o.Problems = bounded(o.Problems)
	d.objects = append(d.objects, o)
	return nil
}

// bounded keeps what is told about one object short: paths and values are its author's.
func bounded(problems []Problem) []Problem {
	if n := len(problems); n > maxProblems {
		problems = append(problems[:maxProblems:maxProblems], Problem{"", fmt.Sprintf("and %d more", n-maxProblems)})
	}
	for i := range problems {
		problems[i].Field = clip(problems[i].Field)
		problems[i].Message = clip(problems[i].Message)
	}
	return problems
}

func clip(s string) string {
	if len(s) <= maxProblemText {
		return s
	}
	return strings.ToValidUTF8(s[:maxProblemText], "") + "..."
}

func (o *Object) setRaw(m manifest) error {
	var raw bytes.Buffer
	enc := json.NewEncoder(&raw)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return fmt.Errorf("%s: %w", o.ID(), err)
	}
	o.Raw = bytes.TrimSuffix(raw.Bytes(), []byte("\n"))
	if len(o.Raw) > MaxObjectBytes {
		return fmt.Errorf("%s: object is over %d bytes", o.ID(), MaxObjectBytes)
	}
	return nil
}

// checkLabels looks at the labels of a Namespace.
func checkLabels(raw json.RawMessage) *Problem {
	if len(raw) == 0 {
		return nil
	}
	var labels map[string]string
	duplicates, err := strictjson.UnmarshalStrict(raw, &labels)
	if err != nil || len(duplicates) > 0 {
		return &Problem{"metadata.labels", "want a map of strings, each key once"}
	}
	return nil
}
