package crds_test

import (
	"strings"
	"testing"

	"github.com/horkos/horkos/crds"
)

const placed = `# a file
apiVersion: kritis.grafeas.io/v1beta1
kind: AttestationAuthority
metadata: {name: a}
spec:
  publicKeys:
  - keyType: PKIX
    pkixPublicKey:
      publicKeyPem: |
        one
        two
  - keyId: second
    keyType:
      X509
---
# nothing here
---
{apiVersion: v1, kind: List, items: [
  {apiVersion: horkos.dev/v1alpha1, kind: NodeGate, metadata: {name: n}},
  {apiVersion: horkos.dev/v1alpha1, kind: ImageRevocation, metadata: {name: r},
   spec: {digests: [
     sha256:a,
     sha256:b]}}]}
---
apiVersion: horkos.dev/v1alpha1
kind: ImageRevocation
metadata: {name: s}
spec: &spec
  digests: [a]
---
x: &y {spec: 1}
apiVersion: v1
kind: List
items:
- *y
`

const placedJSON = `
{"apiVersion": "horkos.dev/v1alpha1", "kind": "NodeGate", "metadata": {"name": "\ud83d\ude00"}}
null
{
  "apiVersion": "v1", "kind": "List",
  "items": [
    {"apiVersion": "horkos.dev/v1alpha1", "kind": "ImageRevocation",
     "metadata": {"name": "r"},
     "spec": {
       "digests": [
         "a", {}, [],
         "b"
       ], "reason":
         "x", "reason": "y"
     }
    }
  ]
}`

func TestEveryFieldIsFoundInItsLine(t *testing.T) {
	tests := []struct {
		text, source, field string
		want                int
	}{
		{placed, "f.yaml (document 1)", "", 2},
		{placed, "f.yaml (document 1)", "metadata.name", 4},
		{placed, "f.yaml (document 1)", "spec", 5},
		{placed, "f.yaml (document 1)", "spec.publicKeys[0]", 7},
		{placed, "f.yaml (document 1)", "spec.publicKeys[0].pkixPublicKey.publicKeyPem", 9},
		{placed, "f.yaml (document 1)", "spec.publicKeys[1].keyType", 13},
		{placed, "f.yaml (document 1)", "spec.publicKeys[1].validUntil", 12},
		{placed, "f.yaml (document 1)", "spec.publicKeys[2].keyType", 6},
		{placed, "f.yaml (document 1)", "spec.publicKeys[-1]", 6},
		{placed, "f.yaml (document 1)", "spec.noteReference", 5},
		{placed, "f.yaml (document 1)", "nonsense", 2},
		{placed, "f.yaml (document 2) (item 1)", "", 19},
		{placed, "f.yaml (document 2) (item 2)", "spec.digests[1]", 23},
		{placed, "f.yaml (document 3)", "spec.digests[0]", 29},
		{placed, "f.yaml (document 4) (item 1)", "spec", 31},
		{placed, "f.yaml (document 5)", "", 0},
		{placed, "f.yaml", "", 0},
		{"kind: A\nspec:\n  a: 1\n", "f.yaml", "spec.a", 3},
		{placedJSON, "f.yaml (document 1)", "metadata.name", 2},
		{placedJSON, "f.yaml (document 2) (item 1)", "", 7},
		{placedJSON, "f.yaml (document 2) (item 1)", "spec.digests[0]", 11},
		{placedJSON, "f.yaml (document 2) (item 1)", "spec.digests[3]", 12},
		{placedJSON, "f.yaml (document 2) (item 1)", "spec.digests[4]", 10},
		{placedJSON, "f.yaml (document 2) (item 1)", "spec.reason", 14},
		{`{"a": `, "f.yaml", "", 0},
		{"\ufeff\n" + `{"kind": "A"}`, "f.yaml", "kind", 2},
	}
	for _, tt := range tests {
		if got := crds.ReadLines([]byte(tt.text), "f.yaml").Line(tt.source, tt.field); got != tt.want {
			t.Errorf("%s %s: line %d, want %d", tt.source, tt.field, got, tt.want)
		}
	}
}

func TestTheFaultOfAFileIsFoundInItsLine(t *testing.T) {
	object := "apiVersion: horkos.dev/v1alpha1\nkind: NodeGate\nmetadata: {name: n}\n"
	list := "kind: List\napiVersion: v1\nitems:\n- {apiVersion: horkos.dev/v1alpha1, kind: NodeGate, metadata: {name: n}}\n-\n  kind: A\n"
	tests := []struct {
		name, text string
		want       int
	}{
		{"it does not parse", object + "spec: {\n", 4},
		{"a merge key", object + "spec:\n  <<: {a: 1}\n", 5},
		{"an object without a kind", "# x\n\napiVersion: v1\n", 3},
		{"a document without a kind", object + "---\n# x\napiVersion: v1\n", 6},
		{"an item without a version", list, 6},
		{"an item of a document", object + "---\n" + list, 10},
	}
	for _, tt := range tests {
		// A file's own name can look like that of a document.
		for _, source := range []string{"f.yaml", "f (document 1).yaml"} {
			_, err := crds.Decode([]byte(tt.text), source)
			if err == nil {
				t.Fatalf("%s: decoded", tt.name)
			}
			lines := crds.ReadLines([]byte(tt.text), source)
			for _, message := range []string{err.Error(), strings.TrimPrefix(err.Error(), source+": ")} {
				if got := lines.FaultLine(source, message); got != tt.want {
					t.Errorf("%s: line %d, want %d: %s", tt.name, got, tt.want, message)
				}
			}
		}
	}
}

func TestTheFileOfASource(t *testing.T) {
	for source, want := range map[string]string{
		"a/b.yaml": "a/b.yaml", "b.yaml (document 2)": "b.yaml", "b.yaml (item 1)": "b.yaml",
		"b (item 3).yaml (document 12) (item 3)": "b (item 3).yaml", "b.yaml (document x)": "b.yaml (document x)",
	} {
		if got := crds.File(source); got != want {
			t.Errorf("%s: %s, want %s", source, got, want)
		}
	}
}

func TestAFileOfAliasesTakesNoMoreThanItsText(t *testing.T) {
	text := "a: &a [x]\n"
	for c := 'b'; c < 'z'; c++ {
		text += strings.Repeat(string(c), 1) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+string(c-1)+",", 9), ",") + "]\n"
	}
	lines := crds.ReadLines([]byte(text), "f")
	if got := lines.Line("f", "y[8][8][8]"); got != 23 {
		t.Errorf("line %d", got)
	}
	if got := crds.ReadLines([]byte("spec: &a [*a]\n"), "f").Line("f", "spec[0][0][0]"); got != 1 {
		t.Errorf("an alias of itself: line %d", got)
	}
}

func FuzzLines(f *testing.F) {
	for _, seed := range []string{placed, placedJSON, "a: &a [*a]", "{}[", "x: [\n"} {
		f.Add([]byte(seed), "spec.a[0]")
	}
	f.Fuzz(func(t *testing.T, data []byte, field string) {
		lines := crds.ReadLines(data, "f")
		objects, err := crds.Decode(data, "f")
		if err != nil {
			lines.FaultLine("f", err.Error())
			return
		}
		for _, o := range objects {
			if lines.Line(o.Source, "") < 1 || lines.Line(o.Source, field) < 1 {
				t.Fatalf("no line of %s (%s)", o.ID(), o.Source)
			}
			if crds.File(o.Source) != "f" {
				t.Fatalf("file of %s", o.Source)
			}
		}
	})
}
