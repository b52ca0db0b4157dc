package kritis

import (
	"encoding/json"
	"reflect"
	"strconv"
)

// IntOrString is a value written as a JSON string or a JSON integer; either way it
// is kept as its text, so that 2 and "2" are one.
type IntOrString string

// UnmarshalJSON accepts a string or an integer and refuses everything else.
func (v *IntOrString) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err == nil {
		*v = IntOrString(s)
		return nil
	}
	n, err := strconv.ParseInt(string(data), 10, 32)
	if err != nil {
		// An error of this type is told with the path of the field.
		return &json.UnmarshalTypeError{Value: "this", Type: reflect.TypeFor[IntOrString]()}
	}
	*v = IntOrString(strconv.FormatInt(n, 10))
	return nil
}

// MarshalJSON writes a string.
func (v IntOrString) MarshalJSON() ([]byte, error) { return json.Marshal(string(v)) }
