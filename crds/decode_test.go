package crds_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/kritis"
)

const policy = `
apiVersion: kritis.grafeas.io/v1beta1
kind: GenericAttestationPolicy
metadata: {name: p, namespace: prod}
spec:
  attestationAuthorityNames: [release]
`

// decodeOne decodes what must be one object.
func decodeOne(t *testing.T, text string) crds.Object {
	t.Helper()
	objects, err := crds.Decode([]byte(text), "f.yaml")
	if err != nil {
		t.Fatalf("Decode: %v", err)
	}
	if len(objects) != 1 {
		t.Fatalf("got %d objects, want 1", len(objects))
	}
	return objects[0]
}

func TestAPolicyIsReadFromYAMLAndJSONAlike(t *testing.T) {
	yaml := decodeOne(t, policy)
	jsonText := `{"apiVersion":"kritis.grafeas.io/v1beta1","kind":"GenericAttestationPolicy",
		"metadata":{"name":"p","namespace":"prod","annotations":{"unread":"\ud83d\ude00"}},"status":{"x":1},
		"spec":{"attestationAuthorityNames":["release"]}}`
	fromJSON := decodeOne(t, jsonText)
	want := crds.Object{
		APIVersion: kritis.GroupVersion, Kind: kritis.KindGenericAttestationPolicy, Namespace: "prod", Name: "p",
		Spec:   &kritis.GenericAttestationPolicySpec{AttestationAuthorityNames: []string{"release"}},
		Source: "f.yaml",
		Raw: []byte(`{"apiVersion":"kritis.grafeas.io/v1beta1","kind":"GenericAttestationPolicy",` +
			`"metadata":{"name":"p","namespace":"prod"},"spec":{"attestationAuthorityNames":["release"]}}`),
	}
	for name, got := range map[string]crds.Object{"YAML": yaml, "JSON": fromJSON} {
		got.Problems = nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("from %s: got %+v\nwant %+v", name, got, want)
		}
	}
}

func TestRawIsDecodedToTheSameObject(t *testing.T) {
	for _, text := range []string{
		policy,
		strings.Replace(policy, "kind: GenericAttestationPolicy", "kind: Misspelt", 1),
		policy + "  attestationAuthorityNames: [other]\n  wrong: <1>\n",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: prod, labels: {team: a}}\n",
	} {
		first := decodeOne(t, text)
		second, err := crds.Decode(first.Raw, first.Source)
		if err != nil || len(second) != 1 {
			t.Fatalf("decode Raw of %s: %d objects, %v", first.ID(), len(second), err)
		}
		if !reflect.DeepEqual(first, second[0]) {
			t.Errorf("got %+v\nwant %+v", second[0], first)
		}
	}
}

func TestDocumentsAndLists(t *testing.T) {
	other := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {1: x}\n"
	namespace := "apiVersion: v1\nkind: Namespace\nmetadata: {name: prod, labels: {team: a}}\n"
	list := `{"apiVersion":"v1","kind":"List","metadata":{},"items":[%s]}`
	item := `{"apiVersion":"horkos.dev/v1alpha1","kind":"NodeGate","metadata":{"name":"n","namespace":"dropped"}}`
	tests := []struct {
		name string
		text string
		want []string // ID and source
	}{
		{"nothing is no object", "", nil},
		{"comments and empty documents are no objects", "# x\n---\n---\nnull\n--- # y\n", nil},
		{"documents are told apart by their number", policy + "---\n" + namespace, []string{
			"GenericAttestationPolicy prod/p f.yaml (document 1)", "Namespace prod f.yaml (document 2)"}},
		{"a document after the end of a document is read", policy + "...\n---\n" + namespace, []string{
			"GenericAttestationPolicy prod/p f.yaml (document 1)", "Namespace prod f.yaml (document 2)"}},
		{"objects of other groups are dropped", other + "---\n" + policy, []string{"GenericAttestationPolicy prod/p f.yaml (document 2)"}},
		{"JSON objects may follow each other", item + "\n" + item, []string{"NodeGate n f.yaml (document 1)", "NodeGate n f.yaml (document 2)"}},
		{"JSON documents may be parted as YAML's are", item + "\n---\n" + item, []string{"NodeGate n f.yaml (document 1)", "NodeGate n f.yaml (document 2)"}},
		{"YAML may start with a brace", "{apiVersion: horkos.dev/v1alpha1, kind: NodeGate, metadata: {name: n}}", []string{"NodeGate n f.yaml"}},
		{"a byte order mark is passed over", "\ufeff" + item, []string{"NodeGate n f.yaml"}},
		{"a list is opened", fmt.Sprintf(list, item+","+item), []string{"NodeGate n f.yaml (item 1)", "NodeGate n f.yaml (item 2)"}},
		{"an empty list is no object", fmt.Sprintf(list, ""), nil},
		{"a namespaced object without namespace is in default", strings.Replace(policy, ", namespace: prod", "", 1), []string{
			"GenericAttestationPolicy default/p f.yaml"}},
		{"aliases are followed", strings.Replace(policy, "[release]", "[&a release, *a]", 1), []string{"GenericAttestationPolicy prod/p f.yaml"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			objects, err := crds.Decode([]byte(tt.text), "f.yaml")
			if err != nil {
				t.Fatalf("Decode: %v", err)
			}
			var got []string
			for _, o := range objects {
				if m := o.Malformed(); m != "" {
					t.Errorf("malformed: %s", m)
				}
				got = append(got, o.ID()+" "+o.Source)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDataThatCannotBeToldToBeObjectsIsAnError(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'k'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 10), ","))
	}
	tests := []struct{ name, text, want string }{
		{"it does not parse", "a: [", "did not find"},
		{"it was cut off", policy[:len(policy)-len("[release]\n")] + "[rel", "did not find"},
		{"JSON was cut off", `{"apiVersion":"v1","ki`, "unexpected end"},
		{"a document follows the end of another without its start", policy + "...\n" + policy, "did not find"},
		{"it is not UTF-8", "a: \xff", "not UTF-8"},
		{"a document is a list", "- a\n", "not an object"},
		{"a document is a string", "text", "not an object"},
		{"a document has no kind", "apiVersion: v1\nmetadata: {name: a}\n", "without kind"},
		{"a document has no apiVersion", "kind: A\nmetadata: {name: a}\n", "without apiVersion"},
		{"a document has no name", strings.Replace(policy, "name: p, ", "", 1), "without metadata.name"},
		{"field names are case-sensitive", strings.Replace(policy, "kind:", "Kind:", 1), "without kind"},
		{"one bad document spoils the file", policy + "---\nkind: A\n", "document 2"},
		{"a name is a number", strings.Replace(policy, "name: p", "name: 1", 1), "metadata.name"},
		{"spec stands twice", policy + "spec: {}\n", `duplicate field "spec"`},
		{"spec stands twice in JSON", `{"apiVersion":"v1","kind":"A","metadata":{"name":"a"},"spec":{},"spec":{}}`, `duplicate field "spec"`},
		{"a name stands twice", strings.Replace(policy, "{name: p", "{name: p, name: q", 1), `duplicate field "metadata.name"`},
		{"a list is in a list", `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"List","items":[]}]}`, "a list in a list"},
		{"an item is null", `{"apiVersion":"v1","kind":"List","items":[null]}`, "nothing where an object should be"},
		{"items are a map", `{"apiVersion":"v1","kind":"List","items":{}}`, "want a list"},
		{"aliases explode", bomb, "when its aliases are followed"},
		{"an alias holds itself", "a: &a [*a]", "nested deeper"},
		{"YAML nests too deep", strings.Repeat("[", 102) + strings.Repeat("]", 102), "nested deeper"},
		{"JSON nests too deep", strings.Repeat(`{"a":`, 20000), ""},
		{"a merge key", "a: &a {b: 1}\nc: {<<: *a}\n", "merge keys"},
		{"a quoted and tagged merge key", "a: &a {b: 1}\nc: {!!merge \"\\x3c\\x3c\": *a}\n", "merge keys"},
		{"a tag of its own", "a: !secret x", "tag !secret"},
		{"binary", "a: !!binary eA==", "tag !!binary"},
		{"an infinite number", "a: .inf", "unsupported value"},
		{"a key that is a list", "? [a]\n: b\n", "a key must be a string"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			objects, err := crds.Decode([]byte(tt.text), "f.yaml")
			if err == nil {
				t.Fatalf("no error, %d objects", len(objects))
			}
			if objects != nil {
				t.Errorf("%d objects beside the error", len(objects))
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "f.yaml") {
				t.Errorf("got %q, want f.yaml: ... %q", err, tt.want)
			}
		})
	}
}

func TestAMalformedObjectStaysWithItsProblems(t *testing.T) {
	authority := "apiVersion: kritis.grafeas.io/v1beta1\nkind: AttestationAuthority\nmetadata: {name: a}\nspec:\n"
	tests := []struct{ name, text, want string }{
		{"an unknown field", policy + "  enforcment: Audit\n", "spec.enforcment: unknown field"},
		{"a field in other letters", policy + "  Enforcement: Audit\n", "spec.Enforcement: unknown field"},
		{"a duplicate field of YAML", policy + "  enforcement: Enforce\n  enforcement: Audit\n", "spec.enforcement: duplicate field"},
		{"an unknown field of a list's entry", authority + "  publicKeys:\n  - {keyID: x}\n", "spec.publicKeys[0].keyID: unknown field"},
		{"a duplicate field of JSON", `{"apiVersion":"kritis.grafeas.io/v1beta1","kind":"GenericAttestationPolicy","metadata":{"name":"p"},` +
			`"spec":{"require":"Any","require":"All"}}`, "spec.require: duplicate field"},
		{"a wrong type", strings.Replace(policy, "[release]", "release", 1), "spec.attestationAuthorityNames: want a list, not string"},
		{"a wrong type in an entry", authority + "  publicKeys:\n  - {keyType: 5}\n", "spec.publicKeys.keyType: want a string, not number"},
		{"a spec that is no map", strings.Replace(policy, "spec:\n  attestationAuthorityNames: [release]", "spec: x", 1), "spec: want a map, not string"},
		{"a number with a fraction", policy + "  require: 1.5\n", "spec.require: want a string or an integer, not this"},
		{"a namespace for a pattern of a cluster policy", "apiVersion: horkos.dev/v1alpha1\nkind: ClusterAttestationPolicy\nmetadata: {name: a}\nspec: {allowlist: [{namePattern: a, namespace: b}]}\n",
			"spec.allowlist[0].namespace: unknown field"},
		{"a namespace for a policy's own pattern", policy + "  admissionAllowlistPatterns: [{namePattern: a, namespace: b}]\n",
			"spec.admissionAllowlistPatterns[0].namespace: unknown field"},
		{"a name that cannot be", strings.Replace(policy, "name: p", "name: P", 1), "metadata.name: not a name that Kubernetes allows"},
		{"a namespace that cannot be", strings.Replace(policy, "prod", "a.b", 1), "metadata.namespace: not a name that Kubernetes allows"},
		{"labels that are no strings", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {b: 1}}\n", "metadata.labels: want a map of strings, each key once"},
		{"a kind that is not known", strings.Replace(policy, "Generic", "Generous", 1),
			"kind GenerousAttestationPolicy of kritis.grafeas.io/v1beta1 is not known to this version"},
		{"a version that is not known", strings.Replace(policy, "v1beta1", "v1", 1),
			"kind GenericAttestationPolicy of kritis.grafeas.io/v1 is not known to this version"},
		{"a group of ours without its version", strings.Replace(policy, "/v1beta1", "", 1),
			"kind GenericAttestationPolicy of kritis.grafeas.io is not known to this version"},
		{"a group of ours in other letters", strings.Replace(policy, "kritis", "Kritis", 1),
			"kind GenericAttestationPolicy of Kritis.grafeas.io/v1beta1 is not known to this version"},
		{"a Namespace of one of our groups", "apiVersion: horkos.dev/v1alpha1\nkind: Namespace\nmetadata: {name: a}\n",
			"kind Namespace of horkos.dev/v1alpha1 is not known to this version"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := decodeOne(t, tt.text)
			if len(o.Problems) != 1 || o.Problems[0].String() != tt.want {
				t.Errorf("got %v, want %s", o.Problems, tt.want)
			}
			if unknown := strings.Contains(tt.want, "not known"); o.UnknownKind != unknown {
				t.Errorf("UnknownKind %v, want %v", o.UnknownKind, unknown)
			}
		})
	}
}

func TestWhatCanBeReadOfAMalformedSpecIsRead(t *testing.T) {
	o := decodeOne(t, "apiVersion: horkos.dev/v1alpha1\nkind: ImageRevocation\nmetadata: {name: r}\nspec: {digests: [one, 2, three], reason: {}}\n")
	if o.Malformed() == "" {
		t.Error("not malformed")
	}
	got := o.Spec.(*horkos.ImageRevocationSpec).Digests
	if want := []string{"one", "", "three"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestADuplicateBesideAWrongTypeIsToldToo(t *testing.T) {
	o := decodeOne(t, "apiVersion: horkos.dev/v1alpha1\nkind: ClusterAttestationPolicy\nmetadata: {name: a}\n"+
		"spec:\n  require: {}\n  namespaceSelector: {matchLabels: {a: b}}\n  namespaceSelector: {matchLabels: {a: c}}\n")
	if got := o.Malformed(); !strings.Contains(got, "spec.namespaceSelector: duplicate field") || !strings.Contains(got, "spec.require: want") {
		t.Errorf("got %s", got)
	}
}

func TestKindsThatAreKnownButNotBuiltHaveNoSpec(t *testing.T) {
	for apiVersion, kinds := range map[string][]string{
		"horkos.dev/v1alpha1":          {"NodeGate"},
		"notation.nirmata.io/v1alpha1": {"TrustPolicy", "TrustStore"},
	} {
		for _, kind := range kinds {
			o := decodeOne(t, fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: a}\nspec: {any: thing}\n", apiVersion, kind))
			if o.Spec != nil || o.UnknownKind || o.Malformed() != "" || o.Namespace != "" {
				t.Errorf("%s: spec %v, unknown %v, namespace %q, %s", kind, o.Spec, o.UnknownKind, o.Namespace, o.Malformed())
			}
			if !strings.Contains(string(o.Raw), `"spec":{"any":"thing"}`) {
				t.Errorf("%s: Raw has no spec: %s", kind, o.Raw)
			}
		}
	}
}

func TestEveryBuiltKindIsStrictAndInItsScope(t *testing.T) {
	for apiVersion, kinds := range map[string]map[string]string{ // the namespace of an object without one
		"kritis.grafeas.io/v1beta1": {
			"AttestationAuthority": "default", "GenericAttestationPolicy": "default", "ImageSecurityPolicy": "default",
			"VulnzSigningPolicy": "default", "BuildPolicy": "default", "KritisConfig": "", "AdmissionAllowlist": "",
		},
		"horkos.dev/v1alpha1": {"ClusterAttestationPolicy": "", "ImageRevocation": "", "ImageAttestation": ""},
	} {
		for kind, namespace := range kinds {
			o := decodeOne(t, fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: a}\nspec: {any: thing}\n", apiVersion, kind))
			if o.Spec == nil || o.UnknownKind || o.Namespace != namespace || !strings.Contains(o.Malformed(), "spec.any: unknown field") {
				t.Errorf("%s: spec %v, unknown %v, namespace %q, %s", kind, o.Spec, o.UnknownKind, o.Namespace, o.Malformed())
			}
		}
	}
}

func TestImageAttestations(t *testing.T) {
	hex := strings.Repeat("ab", 32)
	with := func(name, attestations string) string {
		return "apiVersion: horkos.dev/v1alpha1\nkind: ImageAttestation\nmetadata: {name: " + name + "}\nspec: {attestations: " + attestations + "}\n"
	}
	good := `{resourceUri: "r@sha256:` + hex + `", attestation: {serializedPayload: eA==, signatures: [{signature: eA==, publicKeyId: k}]}}`
	many := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat(good+",", n), ",") + "]" }
	tests := []struct {
		name, text string
		want       []string
	}{
		{"one attestation", with("sha256-"+hex, many(1)), nil},
		{"as many as allowed", with("sha256-"+hex, many(32)), nil},
		{"one more than allowed", with("sha256-"+hex, many(33)), []string{"spec.attestations: 33 attestations, want 1 to 32"}},
		{"none", with("sha256-"+hex, "[]"), []string{"spec.attestations: 0 attestations, want 1 to 32"}},
		{"a short name", with("sha256-"+hex[2:], many(1)), []string{"metadata.name: want sha256- and 64 hexadecimal digits in lower case"}},
		{"no shape", with("sha256-"+hex, "[{resourceUri: a}]"), []string{
			"spec.attestations[0]: 0 of attestation, pgpSignedAttestation and genericSignedAttestation, want exactly one"}},
		{"two shapes", with("sha256-"+hex, "["+good+", {resourceUri: a, attestation: {}, pgpSignedAttestation: {signature: a}}]"), []string{
			"spec.attestations[1]: 2 of attestation, pgpSignedAttestation and genericSignedAttestation, want exactly one"}},
		{"a payload that is not base64", with("sha256-"+hex, strings.Replace(many(1), "eA==", "e", 1)), []string{
			"spec.attestations[0].attestation.serializedPayload: not base64"}},
		{"a signature that is not base64", with("sha256-"+hex, "[{resourceUri: a, genericSignedAttestation: {serializedPayload: eA==, signatures: [{signature: eA==}, {signature: '!'}]}}]"), []string{
			"spec.attestations[0].genericSignedAttestation.signatures[1].signature: not base64"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, p := range decodeOne(t, tt.text).Problems {
				got = append(got, p.String())
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	object := func(name string, filler int) string {
		return fmt.Sprintf(`{"apiVersion":"horkos.dev/v1alpha1","kind":"NodeGate","metadata":{"name":%q},"spec":{"a":%q}}`, name, strings.Repeat("a", filler))
	}
	overhead := len(object("n", 0))
	digests := func(n int) string {
		return `{"apiVersion":"horkos.dev/v1alpha1","kind":"ImageRevocation","metadata":{"name":"r"},"spec":{"digests":[` +
			strings.TrimSuffix(strings.Repeat(`"d",`, n), ",") + `]}}`
	}
	small := object("n", 0) + "\n"
	document := func(n int) string {
		text := `{"apiVersion":"v1","kind":"A","metadata":{"name":"a"},"data":"`
		return text + strings.Repeat("a", n-len(text)-2) + `"}`
	}
	tests := []struct {
		name, text string
		ok         bool
	}{
		{"an object of 1 MiB", object("n", crds.MaxObjectBytes-overhead), true},
		{"an object of a byte more", object("n", crds.MaxObjectBytes-overhead+1), false},
		{"20,000 objects", strings.Repeat(small, crds.MaxObjects), true},
		{"20,001 objects", strings.Repeat(small, crds.MaxObjects+1), false},
		{"a document of 8 MiB", document(crds.MaxDocumentBytes), true},
		{"a document of a byte more", document(crds.MaxDocumentBytes + 1), false},
		{"a document of YAML over 8 MiB", "# x\n" + document(crds.MaxDocumentBytes+1), false},
		{"documents whose aliases make them over 64 MiB", strings.Repeat("x: &a "+strings.Repeat("a", 1<<20)+"\ny: [*a,*a,*a,*a,*a,*a]\n---\n", 10), false},
		{"64 MiB of text", small + strings.Repeat(" ", crds.MaxBytes-len(small)), true},
		{"a byte more of text", small + strings.Repeat(" ", crds.MaxBytes-len(small)+1), false},
		{"256 revoked digests", digests(256), true},
		{"257 revoked digests", digests(257), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			objects, err := crds.Decode([]byte(tt.text), "f.json")
			ok := err == nil
			for _, o := range objects {
				ok = ok && o.Malformed() == ""
			}
			if ok != tt.ok {
				t.Errorf("ok %v, want %v (%v)", ok, tt.ok, err)
			}
		})
	}
	if o := decodeOne(t, digests(257)); len(o.Spec.(*horkos.ImageRevocationSpec).Digests) != 257 {
		t.Error("revocations beyond the limit are lost")
	}
}

func TestProblemsAreBounded(t *testing.T) {
	text := policy
	for i := range 40 {
		text += fmt.Sprintf("  %s%d: x\n", strings.Repeat("a", 300), i)
	}
	o := decodeOne(t, text)
	if len(o.Problems) != 33 || o.Problems[32].Message != "and 8 more" {
		t.Errorf("%d problems, the last %q", len(o.Problems), o.Problems[len(o.Problems)-1])
	}
	if n := len(o.Problems[0].Field); n > 300 {
		t.Errorf("a path of %d bytes", n)
	}
}

func TestCanonicalIsOneForOnePolicy(t *testing.T) {
	want := `{"kind":"GenericAttestationPolicy","name":"p","namespace":"prod","spec":{"admissionAllowlistPatterns":[{"namePattern":"<a>"}],"attestationAuthorityNames":["release"],"require":"2"}}`
	for _, rest := range []string{
		"  require: 2\n  admissionAllowlistPatterns: [{namePattern: <a>}]\n",
		"  admissionAllowlistPatterns: [{namePattern: \"\\x3ca>\"}]\n  require: \"2\"\n",
	} {
		if got := string(decodeOne(t, policy+rest).Canonical()); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestCanonicalOfWhatIsNotUnderstoodIsAsWritten(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"a malformed object, its numbers and duplicates",
			policy + "  z: {b: 1.50, a: \"\\u2028\\n\\x01\\\"\"}\n  attestationAuthorityNames: [other]\n",
			`{"kind":"GenericAttestationPolicy","name":"p","namespace":"prod","spec":{"attestationAuthorityNames":["release"],"attestationAuthorityNames":["other"],"z":{"a":"` + "\u2028" + `\n\u0001\"","b":1.5}}}`},
		{"a kind not built", "apiVersion: horkos.dev/v1alpha1\nkind: NodeGate\nmetadata: {name: n}\n",
			`{"kind":"NodeGate","name":"n","namespace":"","spec":null}`},
		{"a Namespace", "apiVersion: v1\nkind: Namespace\nmetadata: {name: n, labels: {b: x, a: y}}\n",
			`{"kind":"Namespace","labels":{"a":"y","b":"x"},"name":"n","namespace":"","spec":null}`},
		{"keys are sorted by UTF-16 code units",
			"apiVersion: horkos.dev/v1alpha1\nkind: NodeGate\nmetadata: {name: n}\nspec: {\"\\uFB33\": 1, \"\\U0001F600\": 2}\n",
			"{\"kind\":\"NodeGate\",\"name\":\"n\",\"namespace\":\"\",\"spec\":{\"\U0001F600\":2,\"\uFB33\":1}}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(decodeOne(t, tt.text).Canonical()); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
	if got := (crds.Object{}).Canonical(); got != nil {
		t.Errorf("of nothing: %s", got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		policy, policy + "---\n" + policy, "a: &a [*a]", "{}", `{"a":1}{"b":2}`, "a: !!float .inf\n? b\n: c", "%YAML 1.1\n---\nnull",
		`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"horkos.dev/v1alpha1","kind":"ImageAttestation","metadata":{"name":"a"},"spec":{"attestations":[{"attestation":{"serializedPayload":"!"}}]}}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, err := crds.Decode(data, "f")
		if err != nil && objects != nil {
			t.Fatal("objects beside an error")
		}
		for _, o := range objects {
			if o.Kind == "" || o.APIVersion == "" || o.Name == "" {
				t.Fatalf("nameless object %+v", o)
			}
			if !json.Valid(o.Canonical()) {
				t.Fatalf("canonical form is no JSON: %s", o.Canonical())
			}
			again, err := crds.Decode(o.Raw, o.Source)
			if err != nil || len(again) != 1 || !reflect.DeepEqual(o, again[0]) {
				t.Fatalf("Raw is not the object (%v): %s", err, o.Raw)
			}
		}
	})
}

func TestWhatIsDroppedAndLooksLikeOursIsTold(t *testing.T) {
	doc := func(apiVersion, kind string) string {
		return "apiVersion: " + apiVersion + "\nkind: " + kind + "\nmetadata: {name: x}\n"
	}
	tests := map[string]struct {
		text string
		want string // part of what is told; empty is nothing
	}{
		"another top level":          {doc("kritis.grafeas.com/v1beta1", "Anything"), "than kritis.grafeas.io/v1beta1"},
		"another group of the old":   {doc("kritis.io/v1beta1", "AttestationAuthority"), "than kritis.grafeas.io/v1beta1"},
		"one of ours, misspelt":      {doc("horcos.dev/v1alpha1", "ImageRevocation"), "than horkos.dev/v1alpha1"},
		"no group":                   {doc("v1alpha1", "ClusterAttestationPolicy"), "than horkos.dev/v1alpha1"},
		"in a List":                  {"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: horkos.io/v1alpha1, kind: X, metadata: {name: x}}\n", "than horkos.dev/v1alpha1"},
		"another version":            {doc("kritis.grafeas.io/v1beta2", "AttestationAuthority"), ""}, // not dropped
		"another group":              {doc("kyverno.io/v1", "ClusterPolicy"), ""},
		"the core group":             {doc("v1", "ConfigMap"), ""},
		"Notation's own group":       {doc("trust.example.com/v1", "TrustPolicy"), ""},
		"beside what does not parse": {doc("kritis.io/v1beta1", "AttestationAuthority") + "---\n{", ""},
	}
	for name, tt := range tests {
		found := crds.Strangers([]byte(tt.text), "f.yaml")
		if tt.want == "" {
			if len(found) > 0 {
				t.Errorf("%s: %+v", name, found)
			}
			continue
		}
		if len(found) != 1 || len(found[0].Problems) != 1 || !strings.Contains(found[0].Problems[0].Message, tt.want) || !strings.HasPrefix(found[0].Source, "f.yaml") {
			t.Errorf("%s: %+v, want %q", name, found, tt.want)
		}
		if kept, err := crds.Decode([]byte(tt.text), "f.yaml"); err != nil || len(kept) > 0 {
			t.Errorf("%s: decoded %+v, %v", name, kept, err)
		}
	}
}
