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
	v, err := readValue(dec)
	if err != nil {
		return nil, err
	}
	return v.append(nil), nil
}

// value is one of JSON: text of a scalar, or what a list or an object holds.
type value struct {
	text    string
	open    byte // [ or {; 0 of a scalar
	entries []entry
}

// entry is one of a list, or of an object with its key.
type entry struct {
	key   string
	order []uint16 // RFC 8785, section 3.2.3: by UTF-16 code units
	value value
}

func readValue(dec *json.Decoder) (value, error) {
	token, err := dec.Token()
	if err != nil {
		return value{}, err
	}
	switch t := token.(type) {
	case json.Delim:
		return readEntries(dec, byte(t))
	case string:
		return value{text: string(appendString(nil, t))}, nil
	case json.Number:
		return value{text: string(t)}, nil
	case bool:
		return value{text: fmt.Sprint(t)}, nil
	}
	return value{text: "null"}, nil
}

// readEntries reads what follows an opening bracket, and the closing one.
func readEntries(dec *json.Decoder, open byte) (value, error) {
	v := value{open: open}
	for dec.More() {
		var m entry
		if open == '{' {
			token, err := dec.Token()
			if err != nil {
				return v, err
			}
			key, ok := token.(string)
			if !ok {
				return v, fmt.Errorf("key %v is not a string", token)
			}
			m.key, m.order = key, utf16.Encode([]rune(key))
		}
		var err error
		if m.value, err = readValue(dec); err != nil {
			return v, err
		}
		v.entries = append(v.entries, m)
	}
	slices.SortStableFunc(v.entries, func(a, b entry) int { return slices.Compare(a.order, b.order) })
	_, err := dec.Token()
	return v, err
}

func (v *value) append(dst []byte) []byte {
	if v.open == 0 {
		return append(dst, v.text...)
	}
	dst = append(dst, v.open)
	for i := range v.entries {
		if i > 0 {
			dst = append(dst, ',')
		}
		if v.open == '{' {
			dst = append(appendString(dst, v.entries[i].key), ':')
		}
		dst = v.entries[i].value.append(dst)
	}
	return append(dst, v.open+2) // ] and } follow two after [ and {
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
