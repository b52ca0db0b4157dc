package containerd

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// smallSpec is up to what length a specification counts as long as it is written.
	smallSpec = 32 << 10

	// besides is room for what NRI tells of a container that is not in its record.
	besides = 1 << 10

	// perObject is what a message, or an entry of a map, takes besides its content at most.
	perObject = 2 + 4
)

// recordSize estimates what it takes to tell a plugin of a container, never less than it is.
func recordSize(ctr *containersapi.Container) int {
	size := besides + specSize(ctr.GetSpec().GetValue())
	for k, v := range ctr.GetLabels() {
		size += perObject + stringSize(len(k)) + stringSize(len(v))
	}
	return size
}

// specSize estimates what an OCI runtime specification takes as a protobuf message, never
// less than it is. As JSON it can be six times as long, for Go escapes <, > and &, so a long
// one is decoded and all its values are summed up: NRI carries a selection of them.
func specSize(spec []byte) int {
	if len(spec) <= smallSpec {
		return len(spec)
	}
	size := 0
	decoder := json.NewDecoder(bytes.NewReader(spec))
	decoder.UseNumber()
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return size
		}
		if err != nil {
			return len(spec) // nothing to go by
		}
		switch v := token.(type) {
		case string: // a value, or the name of one, which may be a key of a map
			size += stringSize(len(v))
		case json.Number:
			size += numberSize(string(v))
		case json.Delim:
			if v == '{' || v == '[' {
				size += perObject
			}
		case bool:
			size += numberSize("1")
		}
	}
}

// stringSize is what a string of n bytes takes with its tag and length at most.
func stringSize(n int) int { return 2 + protowire.SizeBytes(n) }

// numberSize is what a number takes with its tag at most: a varint of a number of n digits
// has no more than n bytes; that of a negative one has ten.
func numberSize(written string) int {
	if strings.ContainsAny(written, "-.eE") {
		return 2 + 10
	}
	return 2 + min(len(written), 10)
}
