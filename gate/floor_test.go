package gate

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/horkos/horkos/verifier/image"
)

func digestOf(n int) image.Digest { return image.SHA256(fmt.Append(nil, n)) }

func TestAFloorIsReadLineByLine(t *testing.T) {
	a, b := digestOf(1), digestOf(2)
	tests := []struct {
		name, text string
		shop, any  []image.Digest // on the floor in namespace shop, and in another
		err        string
	}{
		{"nothing", "", nil, nil, ""},
		{"comments and empty lines", "# the floor\n\n   \n\t# of this node", nil, nil, ""},
		{"a digest", string(a), []image.Digest{a}, []image.Digest{a}, ""},
		{"a digest with a comment", string(a) + " # pause", []image.Digest{a}, []image.Digest{a}, ""},
		{"carriage returns", string(a) + "\r\n" + string(b) + "\r\n", []image.Digest{a, b}, []image.Digest{a, b}, ""},
		{"a digest for one namespace", string(a) + " namespace=shop", []image.Digest{a}, nil, ""},
		{"a digest for two namespaces", string(a) + "\tnamespace=other-one,shop", []image.Digest{a}, nil, ""},
		{"a digest for two namespaces on two lines", string(a) + " namespace=x\n" + string(a) + " namespace=shop", []image.Digest{a}, nil, ""},
		{"a line without a limit stands for every namespace", string(a) + " namespace=x\n" + string(a), []image.Digest{a}, []image.Digest{a}, ""},
		{"also when it comes first", string(a) + "\n" + string(a) + " namespace=x", []image.Digest{a}, []image.Digest{a}, ""},
		{"a name", "registry.example.com/pause:3.10", nil, nil, "line 1"},
		{"a name with a digest", "registry.example.com/pause@" + string(a), nil, nil, "line 1"},
		{"a short digest", string(a) + "\nsha256:abc", nil, nil, "line 2"},
		{"upper case", strings.ToUpper(string(a)), nil, nil, "line 1"},
		{"sha512", "sha512:" + strings.Repeat("ab", 64), nil, nil, "want sha256"},
		{"an option that is none", string(a) + " namespaces=shop", nil, nil, "line 1"},
		{"no namespace", string(a) + " namespace=", nil, nil, "line 1"},
		{"an empty one among namespaces", string(a) + " namespace=shop,,x", nil, nil, "line 1"},
		{"two digests on a line", string(a) + " " + string(b), nil, nil, "line 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := ParseFloor([]byte(tt.text))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for ns, want := range map[string][]image.Digest{"shop": tt.shop, "other": tt.any} {
				for _, d := range []image.Digest{a, b} {
					if has, should := f.Has(ns, []image.Digest{d}), strings.Contains(fmt.Sprint(want), string(d)); has != should {
						t.Errorf("%s on the floor of %s: %v", d, ns, has)
					}
				}
			}
		})
	}
}

func TestTheLimitOfAFloor(t *testing.T) {
	line := string(digestOf(1)) + "\n"
	full := bytes.Repeat([]byte(line), MaxFloorBytes/len(line))
	full = append(full, bytes.Repeat([]byte("#"), MaxFloorBytes-len(full))...)
	if f, err := ParseFloor(full); err != nil || f.Len() != 1 {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := ParseFloor(append(full, '#')); err == nil {
		t.Error("one byte above was read")
	}
	if _, err := ParseFloor([]byte("#" + strings.Repeat("x", 64<<10))); err == nil {
		t.Error("a line of 64 KiB was read")
	}
}

func TestNoFloorHoldsNothing(t *testing.T) {
	var f *Floor
	if f.Len() != 0 || f.Has("shop", []image.Digest{digestOf(1)}) {
		t.Error("it does")
	}
}

func FuzzParseFloor(f *testing.F) {
	f.Add(string(digestOf(1)) + " namespace=a,b # c\n")
	f.Add("# c\n\nsha256:abc")
	f.Add(string(digestOf(1)) + "\x00")
	f.Fuzz(func(t *testing.T, text string) {
		floor, err := ParseFloor([]byte(text))
		if err != nil {
			return
		}
		for d := range floor.pins {
			if _, err := image.ParseDigest(string(d)); err != nil || !strings.Contains(text, string(d)) {
				t.Errorf("%q put %q on the floor: %v", text, d, err)
			}
		}
	})
}
