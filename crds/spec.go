package crds

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"

	strictjson "sigs.k8s.io/json"
)

// decodeSpec fills k.spec with what can be read of raw and says what is wrong with the
// rest. Where a type is wrong, unknown fields are not looked for; duplicate ones are, since
// of two readings of a field one may be looser.
func decodeSpec(raw json.RawMessage, k kind) []Problem {
	if len(raw) == 0 {
		return nil
	}
	strict, err := strictjson.UnmarshalStrict(raw, k.spec)
	if err == nil {
		problems := make([]Problem, 0, len(strict))
		for _, e := range strict {
			problems = append(problems, strictProblem(e))
		}
		return problems
	}
	var problems []Problem
	if k.explain != nil {
		problems = k.explain(raw)
	}
	var generic any
	if duplicates, err := strictjson.UnmarshalStrict(raw, &generic, strictjson.DisallowDuplicateFields); err == nil {
		for _, d := range duplicates {
			problems = append(problems, strictProblem(d))
		}
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return append(problems, Problem{underSpec(wrong.Field), "want " + typeName(wrong.Type) + ", not " + wrong.Value})
	}
	if len(problems) == 0 {
		problems = append(problems, Problem{"spec", err.Error()})
	}
	return problems
}

// strictProblem is an unknown or duplicate field as a Problem.
func strictProblem(err error) Problem {
	field, ok := err.(strictjson.FieldError)
	if !ok {
		return Problem{"spec", err.Error()}
	}
	// The text of such an error is: what, space, quoted path.
	what, _, _ := strings.Cut(err.Error(), ` "`)
	return Problem{underSpec(field.FieldPath()), what}
}

func underSpec(path string) string {
	if path == "" {
		return "spec"
	}
	return "spec." + path
}

// typeName names a Go type as the author of a manifest knows it.
func typeName(t reflect.Type) string {
	if t == nil {
		return "another type"
	}
	if t.Name() == "IntOrString" {
		return "a string or an integer"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "base64"
		}
		return "a list"
	case reflect.Struct, reflect.Map:
		return "a map"
	}
	return t.String()
}
