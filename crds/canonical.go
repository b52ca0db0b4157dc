package crds

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"unicode/utf16"
)

// Canonical is the object as canonical JSON (RFC 8785): kind, namespace, name and its
// spec as it was understood, so that two ways to write one policy are one; of a v1
// Namespace its labels instead of a spec. What was not understood, because the object is
// malformed or its kind not built, stands as it was written. It is empty for an Object
// that does not come from Decode and has no Raw to fall back on.
func (o Object) Canonical() []byte {
	view := struct {
		Kind      string          `json:"kind"`
		Labels    json.RawMessage `json:"labels,omitempty"`
		Name      string          `json:"name"`
		Namespace string          `json:"namespace"`
		Spec      json.RawMessage `json:"spec"`
	}{Kind: o.Kind, Name: o.Name, Namespace: o.Namespace}

	if o.Spec != nil && len(o.Problems) == 0 {
		spec, err := json.Marshal(o.Spec)
		if err != nil {
			return nil
		}
		view.Spec = spec
	} else {
		var raw manifest
		if err := json.Unmarshal(o.Raw, &raw); err != nil {
			return nil
		}
		view.Spec, view.Labels = raw.Spec, raw.Metadata.Labels
	}
	if view.Spec == nil {
		view.Spec = json.RawMessage("null")
	}
	text, err := json.Marshal(view)
	if err != nil {
		return nil
	}
	canonical, err := canonicalJSON(text)
	if err != nil {
		return nil
	}
	return canonical
}

// canonicalJSON writes JSON as RFC 8785 does, but for two things that only occur in
// malformed objects: numbers keep the text they were written in, and equal keys their order.
func canonicalJSON(data []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return appendCanonical(nil, dec)
}

func appendCanonical(dst []byte, dec *json.Decoder) ([]byte, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		if t == '{' {
			return appendCanonicalObject(dst, dec)
		}
		return appendCanonicalArray(dst, dec)
	case string:
		return appendString(dst, t), nil
	case json.Number:
		return append(dst, t...), nil
	case bool:
		return fmt.Appendf(dst, "%t", t), nil
	default:
		return append(dst, "null"...), nil
	}
}

func appendCanonicalArray(dst []byte, dec *json.Decoder) ([]byte, error) {
	dst = append(dst, '[')
	for i := 0; dec.More(); i++ {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendCanonical(dst, dec); err != nil {
			return nil, err
		}
	}
	_, err := dec.Token() // the closing bracket
	return append(dst, ']'), err
}

func appendCanonicalObject(dst []byte, dec *json.Decoder) ([]byte, error) {
	type member struct {
		order []uint16 // RFC 8785, section 3.2.3: by UTF-16 code units
		text  []byte
	}
	var members []member
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, ok := token.(string)
		if !ok {
			return nil, fmt.Errorf("key %v is not a string", token)
		}
		text, err := appendCanonical(append(appendString(nil, key), ':'), dec)
		if err != nil {
			return nil, err
		}
		members = append(members, member{utf16.Encode([]rune(key)), text})
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, err
	}
	slices.SortStableFunc(members, func(a, b member) int { return slices.Compare(a.order, b.order) })
	dst = append(dst, '{')
	for i, m := range members {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, m.text...)
	}
	return append(dst, '}'), nil
}

// appendString writes a JSON string with no more escapes than RFC 8785 (section 3.2.2.2) asks for.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	done := 0
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[done:i]...)
		done = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = fmt.Appendf(dst, `\u%04x`, c)
		}
	}
	return append(append(dst, s[done:]...), '"')
}
