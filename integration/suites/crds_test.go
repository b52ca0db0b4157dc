package suites

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/integration/harness"
	"github.com/horkos/horkos/verifier/cases"
	policies "github.com/horkos/horkos/verifier/policy"
	"github.com/horkos/horkos/verifier/source/objects"
)

// crdServer is an API server with the CRDs of crds/manifests.
type crdServer struct {
	*harness.ControlPlane
	ctx   context.Context
	kinds map[string]crdKind // by apiVersion and kind
}

// crdKind is what a CRD says of its kind.
type crdKind struct {
	plural     string
	namespaced bool
}

// TestCRDs has one API server for all that is asked of the CRDs.
func TestCRDs(t *testing.T) {
	harness.RequireCluster(t)
	run := harness.New(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	plane, err := run.StartControlPlane(ctx, harness.ControlPlaneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := &crdServer{plane, ctx, make(map[string]crdKind)}
	if _, _, err := s.Kubectl(ctx, "apply", "-k", "crds/manifests"); err != nil {
		t.Fatal(err)
	}
	s.established(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *crdServer)
	}{
		{"every CRD bears the names that others rely on", theirNames},
		{"what documents show applies unchanged", documented},
		{"what the documents of Horkos show applies unchanged", documentedHere},
		{"nothing is refused that a node understands", refusedOnlyWithReason},
		{"every pattern that a node reads is accepted", patternsANodeReads},
		{"a malformed manifest is refused by its field", refusedByField},
		{"a misspelt field is kept, and malformed on the node", misspeltIsKept},
		{"a bound without a value is kept, and malformed on the node", emptyBoundIsKept},
		{"a status is kept, and is no part of the object's own", statusApart},
		{"kubectl lists NodeGates", listedNodeGates},
		{"kubectl lists what Horkos reads by its category", listedByCategory},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s) })
	}
}

// established waits until the API server serves all of the CRDs, and looks at what it says of them.
func (s *crdServer) established(t *testing.T) {
	t.Helper()
	err := harness.Poll(s.ctx, "the CRDs to be established", func(ctx context.Context) error {
		list, err := s.Admin.Get(ctx, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?labelSelector=app.kubernetes.io/part-of=horkos")
		if err != nil {
			return err
		}
		items, _ := list["items"].([]any)
		if len(items) != 13 {
			t.Fatalf("%d CRDs, want 13", len(items))
		}
		for _, crd := range items {
			conditions, _ := harness.Field(crd, "status", "conditions").([]any)
			is := make(map[any]any)
			for _, c := range conditions {
				is[harness.Field(c, "type")] = harness.Field(c, "status")
				if harness.Field(c, "type") == "NonStructuralSchema" {
					t.Errorf("%v: %v", harness.Field(crd, "metadata", "name"), harness.Field(c, "message"))
				}
			}
			if is["Established"] != "True" || is["NamesAccepted"] != "True" {
				return fmt.Errorf("%v: %v", harness.Field(crd, "metadata", "name"), is)
			}
			versions, _ := harness.Field(crd, "spec", "versions").([]any)
			for _, v := range versions {
				key := fmt.Sprint(harness.Field(crd, "spec", "group"), "/", harness.Field(v, "name"), " ", harness.Field(crd, "spec", "names", "kind"))
				s.kinds[key] = crdKind{harness.Field(crd, "spec", "names", "plural").(string), harness.Field(crd, "spec", "scope") == "Namespaced"}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func theirNames(t *testing.T, s *crdServer) {
	short := map[string]string{
		"attestationauthorities.kritis.grafeas.io": "aa", "genericattestationpolicies.kritis.grafeas.io": "gap", "imagesecuritypolicies.kritis.grafeas.io": "isp",
		"admissionallowlists.kritis.grafeas.io": "aal", "kritisconfigs.kritis.grafeas.io": "", "vulnzsigningpolicies.kritis.grafeas.io": "", "buildpolicies.kritis.grafeas.io": "",
		"trustpolicies.notation.nirmata.io": "tp", "truststores.notation.nirmata.io": "ts",
		"imageattestations.horkos.dev": "ia", "imagerevocations.horkos.dev": "ir", "clusterattestationpolicies.horkos.dev": "cap", "nodegates.horkos.dev": "ng",
	}
	for name, want := range short {
		crd, err := s.Admin.Get(s.ctx, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"+name)
		if err != nil {
			t.Error(err)
			continue
		}
		var names []any
		if want != "" {
			names = []any{want}
		}
		if got, _ := harness.Field(crd, "spec", "names", "shortNames").([]any); !reflect.DeepEqual(got, names) {
			t.Errorf("%s has the short names %v, want %v", name, got, names)
		}
		if got := harness.Field(crd, "spec", "names", "categories"); !reflect.DeepEqual(got, []any{"horkos"}) {
			t.Errorf("%s is of the categories %v", name, got)
		}
		version := harness.Field(crd, "spec", "versions").([]any)[0]
		if harness.Field(version, "subresources", "status") == nil {
			t.Errorf("%s has no subresource status", name)
		}
	}
}

// collection is the path of an object's collection; its namespace is made.
func (s *crdServer) collection(t *testing.T, o harness.Object) string {
	t.Helper()
	key := fmt.Sprint(o["apiVersion"], " ", o["kind"])
	k, ok := s.kinds[key]
	if !ok {
		t.Fatalf("%s is not served", key)
	}
	path := fmt.Sprint("/apis/", o["apiVersion"])
	if !k.namespaced {
		return path + "/" + k.plural
	}
	namespace, ok := harness.Field(o, "metadata", "namespace").(string)
	if !ok {
		namespace = "default"
	}
	_, err := s.Admin.Create(s.ctx, "/api/v1/namespaces", harness.Object{"apiVersion": "v1", "kind": "Namespace", "metadata": harness.Object{"name": namespace}})
	if err != nil && !harness.IsReason(err, "AlreadyExists") && !harness.IsReason(err, "Invalid") {
		t.Fatal(err)
	}
	return path + "/namespaces/" + namespace + "/" + k.plural
}

// try asks what the API server would make of an object, as kubectl --dry-run=server does.
func (s *crdServer) try(t *testing.T, o harness.Object, fieldValidation string) (harness.Object, error) {
	t.Helper()
	return s.Admin.Create(s.ctx, s.collection(t, o)+"?dryRun=All&fieldValidation="+fieldValidation, o)
}

// applies creates the object, and looks whether it is the same when it is read back.
func (s *crdServer) applies(t *testing.T, o harness.Object) {
	t.Helper()
	collection := s.collection(t, o)
	path := fmt.Sprint(collection, "/", harness.Field(o, "metadata", "name"))
	if _, err := s.Admin.Create(s.ctx, collection+"?fieldValidation=Strict", o); err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() {
		_, err := s.Admin.Merge(s.ctx, path, harness.Object{"metadata": harness.Object{"finalizers": nil}})
		if _, gone := s.Admin.Delete(s.ctx, path); err != nil || gone != nil {
			t.Error(err, gone)
		}
	})
	stored, err := s.Admin.Get(s.ctx, path)
	if err != nil {
		t.Error(err)
		return
	}
	if got, want := asJSON(t, stored["spec"]), asJSON(t, o["spec"]); got != want {
		t.Errorf("%s is stored as %s\nnot as %s", path, got, want)
	}
	if got, want := harness.Field(stored, "metadata", "finalizers"), harness.Field(o, "metadata", "finalizers"); !reflect.DeepEqual(got, want) {
		t.Errorf("%s has the finalizers %v, want %v", path, got, want)
	}
}

func asJSON(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// manifests reads the documents of a YAML stream that are of our groups.
func manifests(t *testing.T, text string) []harness.Object {
	t.Helper()
	var all []harness.Object
	for _, doc := range regexp.MustCompile(`(?m)^---$`).Split(text, -1) {
		var o harness.Object
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if group := fmt.Sprint(o["apiVersion"]); strings.Contains(group, "kritis.grafeas.io") || strings.Contains(group, "horkos.dev") || strings.Contains(group, "nirmata.io") {
			all = append(all, o)
		}
	}
	return all
}

func documented(t *testing.T, s *crdServer) {
	files, err := filepath.Glob("testdata/manifests/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests (%v)", err)
	}
	seen := make(map[string]bool)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range manifests(t, string(text)) {
				seen[fmt.Sprint(o["apiVersion"], " ", o["kind"])] = true
				s.applies(t, o)
			}
		})
	}
	for kind := range s.kinds {
		if !seen[kind] && !strings.HasSuffix(kind, "NodeGate") {
			t.Errorf("no manifest of %s was applied", kind)
		}
	}
}

// documentedHere applies the blocks of YAML in our documents, but for those that are not whole (yml).
func documentedHere(t *testing.T, s *crdServer) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range regexp.MustCompile("(?ms)^```yaml\n(.*?)^```").FindAllStringSubmatch(string(text), -1) {
			for _, o := range manifests(t, block[1]) {
				found++
				s.applies(t, o)
			}
		}
	}
	if found < 8 {
		t.Errorf("%d objects in the documents, want 8 at least", found)
	}
}

// asANode gives what a node finds wrong with one object, as an author would mend it.
func asANode(o crds.Object) []string {
	var found []string
	for _, f := range policies.Compile(crds.Set{Origin: crds.Cluster, Objects: []crds.Object{o}}).Findings() {
		if !f.Warning && !strings.Contains(f.Message, "does not exist") {
			found = append(found, f.Message)
		}
	}
	if _, ignored := objects.Records([]crds.Object{o}); o.Kind == "ImageAttestation" {
		for _, i := range ignored {
			found = append(found, fmt.Sprint(i))
		}
	}
	return found
}

// refusedOnlyWithReason gives the API server all objects of the table of cases.
func refusedOnlyWithReason(t *testing.T, s *crdServer) {
	table, err := cases.Load("../../verifier/testdata/cases", nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []crds.Object
	for _, c := range table {
		at := c.Request.At
		if at.IsZero() {
			at = time.Now()
		}
		for _, write := range []func() ([]byte, error){func() ([]byte, error) { return c.Manifests(at) }, c.ClusterManifests} {
			text, err := write()
			if err != nil {
				t.Fatal(err)
			}
			decoded, err := crds.Decode(text, c.Name)
			if err != nil {
				continue // no client could send it
			}
			all = append(all, decoded...)
		}
	}
	tried, accepted, refused := make(map[string]bool), 0, 0
	for _, o := range all {
		var manifest harness.Object
		if err := json.Unmarshal(o.Raw, &manifest); err != nil {
			t.Fatal(err)
		}
		if tried[string(o.Raw)] || o.UnknownKind || o.Kind == crds.KindNamespace || strings.Contains(o.Malformed(), "duplicate field") || strings.Contains(o.Malformed(), "metadata.namespace") {
			continue
		}
		tried[string(o.Raw)] = true
		found := asANode(o)
		switch _, err := s.try(t, manifest, "Strict"); {
		case err == nil:
			accepted++
			if len(found) > 0 {
				t.Logf("%s is accepted, though a node says: %.300s", o.ID(), strings.Join(found, "; "))
			}
		case len(found) == 0:
			t.Errorf("refused, though a node takes it: %s\n%v", o.Raw, err)
		default:
			refused++
		}
	}
	t.Logf("%d objects accepted, %d refused", accepted, refused)
	if accepted < 400 || refused < 50 {
		t.Errorf("%d objects were accepted and %d refused: the table is not what it was", accepted, refused)
	}
}

// patternsANodeReads makes patterns of any pieces, and gives the API server those that a
// node finds nothing wrong with.
func patternsANodeReads(t *testing.T, s *crdServer) {
	pieces := []string{"registry.example.com", "localhost", "[::1]", "a", "b.c", "team__x", "x--y", "/", "/", "/", ":", "5000", ":v1", ":V_1.0-", "@", "@sha256:", strings.Repeat("0a", 32), "*", "*", "**", "-", "_", "."}
	random := rand.New(rand.NewPCG(1, 2))
	var patterns []string
	for range 20_000 {
		var p strings.Builder
		for range 1 + random.IntN(7) {
			p.WriteString(pieces[random.IntN(len(pieces))])
		}
		patterns = append(patterns, p.String())
	}
	slices.Sort(patterns)
	patterns = slices.Compact(patterns)
	named := func(list []string) any {
		all := make([]any, len(list))
		for i, p := range list {
			all[i] = harness.Object{"namePattern": p}
		}
		return all
	}
	plain := func(list []string) any {
		all := make([]any, len(list))
		for i, p := range list {
			all[i] = p
		}
		return all
	}
	authorities := []any{harness.Object{"name": "a", "ref": harness.Object{"namespace": "a", "name": "a"}}}
	for _, field := range []struct {
		apiVersion, kind, name string
		rest                   harness.Object
		list                   func([]string) any
	}{
		{"kritis.grafeas.io/v1beta1", "AdmissionAllowlist", "patterns", nil, named},
		{"kritis.grafeas.io/v1beta1", "GenericAttestationPolicy", "admissionAllowlistPatterns", harness.Object{"attestationAuthorityNames": []any{"a"}}, named},
		{"kritis.grafeas.io/v1beta1", "ImageSecurityPolicy", "imageAllowlist", nil, plain},
		{"horkos.dev/v1alpha1", "ClusterAttestationPolicy", "allowlist", harness.Object{"authorities": authorities}, named},
		{"horkos.dev/v1alpha1", "ClusterAttestationPolicy", "images", harness.Object{"authorities": authorities}, plain},
	} {
		object := func(list []string) harness.Object {
			spec := harness.Object{field.name: field.list(list)}
			for k, v := range field.rest {
				spec[k] = v
			}
			return harness.Object{"apiVersion": field.apiVersion, "kind": field.kind, "metadata": harness.Object{"name": "patterns"}, "spec": spec}
		}
		var good []string
		for chunk := range slices.Chunk(patterns, 1000) { // as many as a scope may have
			good = append(good, readable(t, object(chunk), field.name, chunk)...)
		}
		if len(good) < 100 {
			t.Errorf("%s.%s: only %d patterns are read by a node", field.kind, field.name, len(good))
		}
		for chunk := range slices.Chunk(good, 500) {
			if _, err := s.try(t, object(chunk), "Strict"); err != nil {
				t.Errorf("%s.%s: %.2000v", field.kind, field.name, err)
			}
		}
	}
}

// readable are those of a list, which is a field of the object, that a node has nothing to say about.
func readable(t *testing.T, o harness.Object, field string, list []string) []string {
	t.Helper()
	decoded, err := crds.Decode([]byte(asJSON(t, o)), "patterns")
	if err != nil || len(decoded) != 1 {
		t.Fatalf("%d objects, %v", len(decoded), err)
	}
	bad := make(map[int]bool)
	for _, f := range policies.Compile(crds.Set{Origin: crds.Cluster, Objects: decoded}).Findings() {
		for _, p := range f.Problems {
			var i int
			if _, err := fmt.Sscanf(p.Field, "spec."+field+"[%d]", &i); err == nil && !f.Warning {
				bad[i] = true
			}
		}
	}
	var good []string
	for i, text := range list {
		if !bad[i] {
			good = append(good, text)
		}
	}
	return good
}

const (
	kritisV1beta1    = "apiVersion: kritis.grafeas.io/v1beta1\n"
	horkosV1alpha1   = "apiVersion: horkos.dev/v1alpha1\n"
	notationV1alpha1 = "apiVersion: notation.nirmata.io/v1alpha1\n"
)

// Manifests of a spec, in flow style.
func gapOf(spec string) string {
	return kritisV1beta1 + "kind: GenericAttestationPolicy\nmetadata: {name: x}\nspec: {" + spec + "}\n"
}
func ispOf(spec string) string {
	return kritisV1beta1 + "kind: ImageSecurityPolicy\nmetadata: {name: x}\nspec: {" + spec + "}\n"
}
func aaOf(spec string) string {
	return kritisV1beta1 + "kind: AttestationAuthority\nmetadata: {name: x}\nspec: {" + spec + "}\n"
}
func aalOf(spec string) string {
	return kritisV1beta1 + "kind: AdmissionAllowlist\nmetadata: {name: x}\nspec: {" + spec + "}\n"
}
func capOf(spec string) string {
	return horkosV1alpha1 + "kind: ClusterAttestationPolicy\nmetadata: {name: x}\nspec: {" + spec + "}\n"
}
func irOf(spec string) string {
	return horkosV1alpha1 + "kind: ImageRevocation\nmetadata: {name: x}\nspec: {" + spec + "}\n"
}
func iaOf(name, attestations string) string {
	return horkosV1alpha1 + "kind: ImageAttestation\nmetadata: {name: " + name + "}\nspec: {attestations: [" + attestations + "]}\n"
}
func tpOf(statements string) string {
	return notationV1alpha1 + "kind: TrustPolicy\nmetadata: {name: x}\nspec: {version: \"1.0\", trustPolicies: [" + statements + "]}\n"
}
func tsOf(spec string) string {
	return notationV1alpha1 + "kind: TrustStore\nmetadata: {name: x}\nspec: {" + spec + "}\n"
}

// entries are n of a list in flow style, each with its number in the place of a #.
func entries(n int, entry string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = strings.ReplaceAll(entry, "#", fmt.Sprint(i))
	}
	return strings.Join(all, ", ")
}

// refusedByField has a case a rule: one that is good, what makes it bad, and what the API
// server says of it.
func refusedByField(t *testing.T, s *crdServer) {
	const (
		key    = `{keyType: PKIX, pkixPublicKey: {publicKeyPem: "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"}}`
		pgp    = `{keyType: PGP, asciiArmoredPgpPublicKey: AA==}`
		names  = "attestationAuthorityNames: [a, b]"
		own    = "authorities: [{name: a, publicKeys: [" + key + "]}, {name: b, ref: {namespace: ns, name: b}}]"
		shape  = "attestation: {serializedPayload: e30=, signatures: [{signature: AA==, publicKeyId: k}]}"
		policy = "{name: a, registryScopes: [r.example.com/a], signatureVerification: {level: strict}, trustStores: ['ca:a'], trustedIdentities: ['*']}"
		store  = "trustStoreName: a, type: ca, caBundle: '-----BEGIN CERTIFICATE-----'"
	)
	hex := strings.Repeat("a1", 32)
	digest := "sha256:" + hex
	about := "resourceUri: 'r.example.com/a@" + digest + "', "
	tests := []struct {
		name, good, bad, field, text string
	}{
		{"a policy names an authority", gapOf(names), gapOf(""), "spec.attestationAuthorityNames", "Required"},
		{"a policy names one at least", gapOf(names), gapOf("attestationAuthorityNames: []"), "spec.attestationAuthorityNames", "at least 1"},
		{"a policy has a spec", gapOf(names), kritisV1beta1 + "kind: GenericAttestationPolicy\nmetadata: {name: x}\n", "spec", "Required"},
		{"an authority has a name", gapOf(names), gapOf("attestationAuthorityNames: ['']"), "spec.attestationAuthorityNames[0]", "at least 1"},
		{"64 authorities", gapOf("attestationAuthorityNames: [" + entries(64, "a#") + "]"),
			gapOf("attestationAuthorityNames: [" + entries(65, "a#") + "]"), "spec.attestationAuthorityNames", "at most 64"},
		{"64 emergency authorities", gapOf(names + ", emergencyAuthorityNames: [" + entries(64, "a#") + "]"),
			gapOf(names + ", emergencyAuthorityNames: [" + entries(65, "a#") + "]"), "spec.emergencyAuthorityNames", "at most 64"},
		{"enforcement", gapOf(names + ", enforcement: Audit"), gapOf(names + ", enforcement: audit"), "spec.enforcement", `"Enforce", "Warn", "Audit"`},
		{"require is a word", gapOf(names + ", require: Any"), gapOf(names + ", require: any"), "spec.require", "want All, Any or a number"},
		{"require is a number", gapOf(names + ", require: 2"), gapOf(names + ", require: 0"), "spec.require", "want All, Any or a number of 1 at least"},
		{"require is a number in a string", gapOf(names + ", require: '02'"), gapOf(names + ", require: '-1'"), "spec.require", "want All, Any or a number"},
		{"require is no list", gapOf(names + ", require: 1"), gapOf(names + ", require: [1]"), "spec.require", "Invalid"},
		{"require is not over the authorities", gapOf(names + ", require: 2"), gapOf(names + ", require: 3"), "spec.require", "more is required"},
		{"nor in a string", gapOf(names + ", require: '2'"), gapOf(names + ", require: '3'"), "spec.require", "more is required"},
		{"an age", gapOf(names + ", maximumAttestationAge: 1.5h"), gapOf(names + ", maximumAttestationAge: 30d"), "spec.maximumAttestationAge", "such as 720h"},
		{"an age above zero", gapOf(names + ", maximumAttestationAge: 1ns"), gapOf(names + ", maximumAttestationAge: 0s"), "spec.maximumAttestationAge", "above zero"},
		{"an age that is not empty", gapOf(names), gapOf(names + ", maximumAttestationAge: ''"), "spec.maximumAttestationAge", "leave the field out"},
		{"a time", gapOf(names + ", notBefore: '2026-01-01T00:00:00+01:00'"), gapOf(names + ", notBefore: '2026-01-01'"), "spec.notBefore", "RFC 3339"},
		{"a time that can be", gapOf(names + ", notBefore: '2024-02-29T00:00:00Z'"), gapOf(names + ", notBefore: '2026-02-29T00:00:00Z'"), "spec.notBefore", ""},
		{"a pattern", gapOf(names + ", admissionAllowlistPatterns: [{namePattern: 'r.example.com/a:*'}]"), gapOf(names + ", admissionAllowlistPatterns: [{namePattern: 'https://r.example.com/a'}]"), "spec.admissionAllowlistPatterns[0].namePattern", "without https://"},
		{"a pattern in lower case", gapOf(names + ", admissionAllowlistPatterns: [{namePattern: 'r.example.com/a:V1'}]"), gapOf(names + ", admissionAllowlistPatterns: [{namePattern: r.example.com/A}]"), "spec.admissionAllowlistPatterns[0].namePattern", "lower case"},
		{"a pattern with its star at the end", gapOf(names + ", admissionAllowlistPatterns: [{namePattern: 'r.example.com/*'}]"), gapOf(names + ", admissionAllowlistPatterns: [{namePattern: 'r.example.com/*/a'}]"), "spec.admissionAllowlistPatterns[0].namePattern", "and *"},
		{"a pattern with one star", gapOf(names), gapOf(names + ", admissionAllowlistPatterns: [{namePattern: 'r.example.com/**'}]"), "spec.admissionAllowlistPatterns[0].namePattern", "and *"},
		{"a pattern that is not empty", gapOf(names), gapOf(names + ", admissionAllowlistPatterns: [{namePattern: ''}]"), "spec.admissionAllowlistPatterns[0].namePattern", "at least 1"},
		{"a pattern of 512", gapOf(names + ", admissionAllowlistPatterns: [{namePattern: 'r.example.com/" + strings.Repeat("a", 246) + ":" + strings.Repeat("a", 20) + "*'}]"),
			gapOf(names + ", admissionAllowlistPatterns: [{namePattern: 'r.example.com/" + strings.Repeat("a", 498) + "*'}]"), "spec.admissionAllowlistPatterns[0].namePattern", "512"},
		{"a pattern of no namespace", gapOf(names), gapOf(names + ", admissionAllowlistPatterns: [{namePattern: a, namespace: b}]"), "spec.admissionAllowlistPatterns[0]", "AdmissionAllowlist"},

		{"a severity", ispOf("packageVulnerabilityRequirements: {maximumSeverity: HIGH}"), ispOf("packageVulnerabilityRequirements: {maximumSeverity: SEVERE}"), "spec.packageVulnerabilityRequirements.maximumSeverity", `"MINIMAL"`},
		{"a severity without a fix", ispOf("packageVulnerabilityRequirements: {maximumFixUnavailableSeverity: ALLOW_ALL}"), ispOf("packageVulnerabilityRequirements: {maximumFixUnavailableSeverity: high}"), "spec.packageVulnerabilityRequirements.maximumFixUnavailableSeverity", `"HIGH"`},
		{"its older name", ispOf("packageVulnerabilityRequirements: {maximumFixNotAvailableSeverity: ALLOW_ALL}"), ispOf("packageVulnerabilityRequirements: {maximumFixNotAvailableSeverity: 1}"), "spec.packageVulnerabilityRequirements.maximumFixNotAvailableSeverity", "string"},
		{"one of both names", ispOf("packageVulnerabilityRequirements: {maximumFixUnavailableSeverity: '', maximumFixNotAvailableSeverity: LOW}"), ispOf("packageVulnerabilityRequirements: {maximumFixUnavailableSeverity: LOW, maximumFixNotAvailableSeverity: LOW}"), "spec.packageVulnerabilityRequirements.maximumFixNotAvailableSeverity", "write one of them"},
		{"an exact name", ispOf("imageAllowlist: ['r.example.com/a:V1']"), ispOf("imageAllowlist: ['r.example.com/*']"), "spec.imageAllowlist[0]", "exact name"},
		{"require of a policy of scans", ispOf("attestationAuthorityName: a, attestationAuthorityNames: [b], require: 2"), ispOf("require: 1"), "spec.require", "more is required"},
		{"enforcement of a policy of scans", ispOf("enforcement: Warn"), ispOf("enforcement: warn"), "spec.enforcement", "Warn"},

		{"a type of key", aaOf("publicKeys: [" + pgp + "]"), aaOf("publicKeys: [{keyType: GPG, asciiArmoredPgpPublicKey: AA==}]"), "spec.publicKeys[0].keyType", `"PGP", "PKIX"`},
		{"a type of key that is written", aaOf("publicKeys: [" + pgp + "]"), aaOf("publicKeys: [{asciiArmoredPgpPublicKey: AA==}]"), "spec.publicKeys[0].keyType", "Required"},
		{"type and key agree", aaOf("publicKeys: [" + pgp + ", " + key + "]"), aaOf("publicKeys: [{keyType: PGP, pkixPublicKey: {publicKeyPem: '-----BEGIN PUBLIC KEY-----'}}]"), "spec.publicKeys[0]", "keyType PGP has asciiArmoredPgpPublicKey"},
		{"type and key agree the other way", aaOf("publicKeys: [" + key + "]"), aaOf("publicKeys: [{keyType: PKIX, asciiArmoredPgpPublicKey: AA==}]"), "spec.publicKeys[0]", "keyType PKIX has pkixPublicKey"},
		{"one key an entry", aaOf("publicKeys: [" + key + "]"), aaOf("publicKeys: [{keyType: PKIX, asciiArmoredPgpPublicKey: AA==, pkixPublicKey: {publicKeyPem: '-----BEGIN PUBLIC KEY-----'}}]"), "spec.publicKeys[0]", "keyType PKIX has pkixPublicKey"},
		{"a public key", aaOf("publicKeys: [" + key + "]"), aaOf("publicKeys: [{keyType: PKIX, pkixPublicKey: {publicKeyPem: '-----BEGIN CERTIFICATE-----'}}]"), "spec.publicKeys[0].pkixPublicKey.publicKeyPem", "want one block PUBLIC KEY in PEM"},
		{"no private key", aaOf("publicKeys: [" + key + "]"), aaOf("publicKeys: [{keyType: PKIX, pkixPublicKey: {publicKeyPem: '-----BEGIN PRIVATE KEY-----'}}]"), "spec.publicKeys[0].pkixPublicKey.publicKeyPem", "want one block PUBLIC KEY in PEM"},
		{"an algorithm", aaOf("publicKeys: [" + strings.Replace(key, "publicKeyPem", "signatureAlgorithm: RSA_SIGN_PSS_2048_SHA256, publicKeyPem", 1) + "]"),
			aaOf("publicKeys: [" + strings.Replace(key, "publicKeyPem", "signatureAlgorithm: rsa-2048, publicKeyPem", 1) + "]"), "spec.publicKeys[0].pkixPublicKey.signatureAlgorithm", "ecdsa-p256-sha256"},
		{"when a key begins", aaOf("publicKeys: [" + strings.Replace(key, "}}", "}, validFrom: '2026-01-01T00:00:00Z'}", 1) + "]"), aaOf("publicKeys: [" + strings.Replace(key, "}}", "}, validFrom: tomorrow}", 1) + "]"), "spec.publicKeys[0].validFrom", "RFC 3339"},
		{"when a key ends", aaOf("publicKeys: [" + strings.Replace(key, "}}", "}, validUntil: '2026-01-01T00:00:00Z'}", 1) + "]"), aaOf("publicKeys: [" + strings.Replace(key, "}}", "}, validUntil: ''}", 1) + "]"), "spec.publicKeys[0].validUntil", "leave the field out"},
		{"the older shape is base64", aaOf("publicKeyData: 'AA= ='"), aaOf("publicKeyData: '-----BEGIN PRIVATE KEY-----'"), "spec.publicKeyData", "want base64 of"},
		{"64 keys", aaOf("publicKeyData: '', publicKeys: [" + entries(64, pgp) + "]"), aaOf("publicKeyData: AA==, publicKeys: [" + entries(64, pgp) + "]"), "spec", "at most 64 keys"},
		{"64 keys of the newer shape", aaOf("publicKeyData: AA==, publicKeys: [" + entries(63, pgp) + "]"), aaOf("publicKeys: [" + entries(65, pgp) + "]"), "spec.publicKeys", "at most 64"},
		{"acceptExpiredKeys", aaOf("acceptExpiredKeys: false"), aaOf("acceptExpiredKeys: 'no'"), "spec.acceptExpiredKeys", "boolean"},

		{"an allowlist's pattern", aalOf("patterns: [{namePattern: 'r*.*.example.com/a/*'}]"), aalOf("patterns: [{namePattern: 'r.example.com/a/'}]"), "spec.patterns[0].namePattern", "team/*"},
		{"an allowlist's entries have patterns", aalOf("patterns: [{namePattern: '*'}]"), aalOf("patterns: [{namespace: a}]"), "spec.patterns[0].namePattern", "Required"},
		{"one namespace", aalOf("namespace: a, patterns: [{namePattern: '*', namespace: a}]"), aalOf("namespace: a, patterns: [{namePattern: '*', namespace: b}]"), "spec.patterns", "in one place"},

		{"a cluster policy names an authority", capOf(own), capOf("require: All"), "spec.authorities", "Required"},
		{"a cluster policy names one at least", capOf(own), capOf("authorities: []"), "spec.authorities", "at least 1"},
		{"an authority's name is its own", capOf(own), capOf(strings.Replace(own, "name: b, ref", "name: a, ref", 1)), "spec.authorities[1]", "Duplicate"},
		{"an authority is called something", capOf(own), capOf(strings.Replace(own, "name: a,", "name: '',", 1)), "spec.authorities[0].name", "at least 1"},
		{"keys or a reference", capOf(own), capOf("authorities: [{name: a, ref: {namespace: ns, name: b}, publicKeys: [" + pgp + "]}]"), "spec.authorities[0]", "either ref, or publicKeys"},
		{"an authority has keys", capOf(own), capOf("authorities: [{name: a}]"), "spec.authorities[0]", "either ref, or publicKeys"},
		{"a reference is all", capOf(own), capOf("authorities: [{name: a, ref: {namespace: ns, name: b}, acceptExpiredKeys: true}]"), "spec.authorities[0]", "leave them out here"},
		{"a reference has a namespace", capOf(own), capOf("authorities: [{name: a, ref: {name: b}}]"), "spec.authorities[0].ref.namespace", "Required"},
		{"an emergency authority too", capOf(own + ", emergencyAuthorities: [{name: e, publicKeys: [" + pgp + "]}]"), capOf(own + ", emergencyAuthorities: [{name: e}]"), "spec.emergencyAuthorities[0]", "either ref, or publicKeys"},
		{"a scope", capOf(own + ", images: ['r.example.com/a/**']"), capOf(own + ", images: ['r.example.com/**/a']"), "spec.images[0]", "/** at its end"},
		{"a scope with a slash", capOf(own + ", images: ['**']"), capOf(own + ", images: ['r.example.com**']"), "spec.images[0]", "a slash before the two stars"},
		{"1024 scopes", capOf(own + ", images: [" + entries(1024, "a") + "]"), capOf(own + ", images: [" + entries(1025, "a") + "]"), "spec.images", "at most 1024"},
		{"an allowlist of its own", capOf(own + ", allowlist: [{namePattern: 'r.example.com/*'}]"), capOf(own + ", allowlist: [{namePattern: 'r.example.com/**'}]"), "spec.allowlist[0].namePattern", "and *"},
		{"require of a cluster policy", capOf(own + ", require: 2"), capOf(own + ", require: 3"), "spec.require", "more is required"},
		{"an operator", capOf(own + ", namespaceSelector: {matchExpressions: [{key: a, operator: Exists}]}"), capOf(own + ", namespaceSelector: {matchExpressions: [{key: a, operator: exists}]}"), "spec.namespaceSelector.matchExpressions[0].operator", `"DoesNotExist"`},
		{"an operator with values", capOf(own + ", namespaceSelector: {matchExpressions: [{key: a, operator: In, values: [b]}]}"), capOf(own + ", namespaceSelector: {matchExpressions: [{key: a, operator: In}]}"), "spec.namespaceSelector.matchExpressions[0].values", "need values"},
		{"an operator without", capOf(own), capOf(own + ", namespaceSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}"), "spec.namespaceSelector.matchExpressions[0].values", "take none"},
		{"the key of a label", capOf(own), capOf(own + ", namespaceSelector: {matchExpressions: [{key: 'a b', operator: Exists}]}"), "spec.namespaceSelector.matchExpressions[0].key", "key of a label"},
		{"the value of a label", capOf(own + ", namespaceSelector: {matchExpressions: [{key: a, operator: In, values: ['']}]}"), capOf(own + ", namespaceSelector: {matchExpressions: [{key: a, operator: In, values: [b/c]}]}"), "spec.namespaceSelector.matchExpressions[0].values[0]", "should match"},
		{"labels", capOf(own + ", namespaceSelector: {matchLabels: {a: b}}"), capOf(own + ", namespaceSelector: {matchLabels: {a: 1}}"), "spec.namespaceSelector.matchLabels.a", "string"},
		{"the value of a label that is asked for", capOf(own + ", namespaceSelector: {matchLabels: {a: ''}}"), capOf(own + ", namespaceSelector: {matchLabels: {a: b c}}"), "spec.namespaceSelector.matchLabels.a", "should match"},

		{"a revocation has digests", irOf("digests: ['" + digest + "']"), irOf("reason: x"), "spec.digests", "Required"},
		{"a revocation has a digest at least", irOf("digests: ['" + digest + "']"), irOf("digests: []"), "spec.digests", "at least 1"},
		{"a digest", irOf("digests: ['sha512:" + hex + hex + "']"), irOf("digests: ['" + digest + "', '" + digest[1:] + "']"), "spec.digests[1]", "64 hexadecimal digits"},
		{"256 digests", irOf("digests: [" + entries(256, "'"+digest+"'") + "]"), irOf("digests: [" + entries(257, "'"+digest+"'") + "]"), "spec.digests", "at most 256"},

		{"an attestation's name", iaOf("sha256-"+hex, "{"+about+shape+"}"), iaOf("release", "{"+about+shape+"}"), "metadata.name", "sha256- and 64"},
		{"an attestation's image", iaOf("sha256-"+hex, "{resourceUri: 'https://r.example.com/a@"+digest+"', "+shape+"}"), iaOf("sha256-"+hex, "{"+strings.Replace(about, "a1", "b1", 1)+shape+"}"), "spec.attestations", "the one that metadata.name is of"},
		{"an attestation's image has a digest", iaOf("sha256-"+hex, "{"+about+shape+"}"), iaOf("sha256-"+hex, "{resourceUri: 'r.example.com/a:v1', "+shape+"}"), "spec.attestations", "the one that metadata.name is of"},
		{"a shape", iaOf("sha256-"+hex, "{"+about+shape+"}"), iaOf("sha256-"+hex, "{resourceUri: 'r.example.com/a@"+digest+"'}"), "spec.attestations[0]", "exactly one of"},
		{"one shape", iaOf("sha256-"+hex, "{"+about+"pgpSignedAttestation: {signature: x}}"), iaOf("sha256-"+hex, "{"+about+shape+", pgpSignedAttestation: {signature: x}}"), "spec.attestations[0]", "exactly one of"},
		{"something signed", iaOf("sha256-"+hex, "{"+about+"attestation: {jwts: [{compactJwt: a.b.c}]}}"), iaOf("sha256-"+hex, "{"+about+"attestation: {serializedPayload: e30=}}"), "spec.attestations[0].attestation", "want signatures or jwts"},
		{"something signed in the older shape", iaOf("sha256-"+hex, "{"+about+strings.Replace(shape, "attestation", "genericSignedAttestation", 1)+"}"), iaOf("sha256-"+hex, "{"+about+"genericSignedAttestation: {serializedPayload: e30=}}"), "spec.attestations[0].genericSignedAttestation", "want signatures"},
		{"a payload in base64", iaOf("sha256-"+hex, "{"+about+shape+"}"), iaOf("sha256-"+hex, "{"+about+strings.Replace(shape, "e30=", "'{}'", 1)+"}"), "spec.attestations[0].attestation.serializedPayload", "want base64"},
		{"a signature in base64", iaOf("sha256-"+hex, "{"+about+shape+"}"), iaOf("sha256-"+hex, "{"+about+strings.Replace(shape, "AA==", "A_", 1)+"}"), "spec.attestations[0].attestation.signatures[0].signature", "want base64"},
		{"an expiry", iaOf("sha256-"+hex, "{"+about+shape+", expires: '2026-01-01T00:00:00Z'}"), iaOf("sha256-"+hex, "{"+about+shape+", expires: never}"), "spec.attestations[0].expires", "RFC 3339"},
		{"32 attestations", iaOf("sha256-"+hex, entries(32, "{"+about+shape+"}")), iaOf("sha256-"+hex, entries(33, "{"+about+shape+"}")), "spec.attestations", "at most 32"},

		{"a version", tpOf(policy), strings.Replace(tpOf(policy), `"1.0"`, `"2.0"`, 1), "spec.version", `"1.0"`},
		{"a statement", tpOf(policy), tpOf(""), "spec.trustPolicies", "at least 1"},
		{"statements of two names", tpOf(policy + ", " + strings.ReplaceAll(policy, "name: a", "name: b")), tpOf(policy + ", " + policy), "spec.trustPolicies[1]", "Duplicate"},
		{"a level", tpOf(policy), tpOf(strings.Replace(policy, "strict", "lenient", 1)), "spec.trustPolicies[0].signatureVerification.level", `"permissive"`},
		{"a scope of Notation", tpOf(policy), tpOf(strings.Replace(policy, "/a]", "/*]", 1)), "spec.trustPolicies[0].registryScopes[0]", ""},
		{"a scope that is alone", tpOf(strings.Replace(policy, "r.example.com/a", "'*'", 1)), tpOf(strings.Replace(policy, "[r", "['*', r", 1)), "spec.trustPolicies[0].registryScopes", "stands alone"},
		{"a scope once", tpOf(policy), tpOf(strings.Replace(policy, "[r", "[r.example.com/a, r", 1)), "spec.trustPolicies[0].registryScopes[1]", "Duplicate"},
		{"one statement for the rest", tpOf(strings.Replace(policy, "r.example.com/a", "'*'", 1)), tpOf(strings.Replace(policy, "r.example.com/a", "'*'", 1) + ", " + strings.Replace(strings.Replace(policy, "r.example.com/a", "'*'", 1), "name: a", "name: b", 1)), "spec.trustPolicies", "in two statements"},
		{"a trust store", tpOf(strings.Replace(policy, "ca:a", "tsa:a', 'ca:a", 1)), tpOf(strings.Replace(policy, "ca:a", "a", 1)), "spec.trustPolicies[0].trustStores[0]", "signingAuthority"},
		{"stores and identities", tpOf(policy), tpOf(strings.Replace(policy, "['ca:a']", "[]", 1)), "spec.trustPolicies[0]", "need trustStores"},
		{"no stores with skip", tpOf("{name: a, registryScopes: [r.example.com/a], signatureVerification: {level: skip}}"), tpOf(strings.Replace(policy, "strict", "skip", 1)), "spec.trustPolicies[0]", "looks at no signature"},
		{"an identity that is alone", tpOf(policy), tpOf(strings.Replace(policy, "['*']", "['*', 'x509.subject: C=US, ST=WA, O=a']", 1)), "spec.trustPolicies[0].trustedIdentities", "stands alone"},
		{"a subject", tpOf(strings.Replace(policy, "['*']", "['x509.subject: C=US, ST=WA, O=a']", 1)), tpOf(strings.Replace(policy, "['*']", "['x509.subject: CN=a']", 1)), "spec.trustPolicies[0].trustedIdentities[0]", "C, ST and O"},
		{"an override", tpOf(strings.Replace(policy, "strict", "strict, override: {revocation: skip}", 1)), tpOf(strings.Replace(policy, "strict", "strict, override: {integrity: log}", 1)), "spec.trustPolicies[0].signatureVerification.override", "can be overridden"},
		{"an override by skip", tpOf(strings.Replace(policy, "strict", "strict, override: {expiry: log}", 1)), tpOf(strings.Replace(policy, "strict", "strict, override: {expiry: skip}", 1)), "spec.trustPolicies[0].signatureVerification.override", "only revocation"},
		{"an override's action", tpOf(strings.Replace(policy, "strict", "strict, override: {expiry: enforce}", 1)), tpOf(strings.Replace(policy, "strict", "strict, override: {expiry: ignore}", 1)), "spec.trustPolicies[0].signatureVerification.override.expiry", `"enforce"`},
		{"no override with skip", tpOf(policy), tpOf("{name: a, registryScopes: [r.example.com/a], signatureVerification: {level: skip, override: {expiry: log}}}"), "spec.trustPolicies[0].signatureVerification", "leave override out"},
		{"a time of verifying", tpOf(strings.Replace(policy, "strict", "strict, verifyTimestamp: always", 1)), tpOf(strings.Replace(policy, "strict", "strict, verifyTimestamp: never", 1)), "spec.trustPolicies[0].signatureVerification.verifyTimestamp", `"afterCertExpiry"`},
		{"a type of store", tsOf(store), tsOf(strings.Replace(store, "type: ca", "type: CA", 1)), "spec.type", `"signingAuthority"`},
		{"a name of a store", tsOf(store), tsOf(strings.Replace(store, "Name: a", "Name: a/b", 1)), "spec.trustStoreName", "letters, digits"},
		{"certificates", tsOf(store), tsOf(strings.Replace(store, "CERTIFICATE", "PUBLIC KEY", 1)), "spec.caBundle", "certificates in PEM"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := s.try(t, manifests(t, tt.good)[0], "Strict"); err != nil {
				t.Errorf("what is good is refused: %v", err)
			}
			_, err := s.try(t, manifests(t, tt.bad)[0], "Strict")
			var refusal *harness.APIError
			if !errors.As(err, &refusal) || refusal.Reason != "Invalid" {
				t.Fatalf("not refused as invalid: %v", err)
			}
			if strings.Contains(refusal.Message, "BEGIN PRIVATE") {
				t.Errorf("the API server tells a private key: %s", refusal.Message)
			}
			if !strings.Contains(refusal.Message, tt.field) || !strings.Contains(refusal.Message, tt.text) {
				t.Errorf("the API server says %s\nwant %s and %s in it", refusal.Message, tt.field, tt.text)
			}
		})
	}
}

// misspeltIsKept puts a field that is not known into every object of the specs of the
// manifests that documents show.
func misspeltIsKept(t *testing.T, s *crdServer) {
	const misspelt = "horkosMisspelt"
	places := make(map[string]bool)
	files, err := filepath.Glob("testdata/manifests/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range manifests(t, string(text)) {
			for _, at := range objectsIn(o["spec"], "spec") {
				place := fmt.Sprint(o["kind"], " ", at.path)
				if maps := strings.HasSuffix(at.path, "matchLabels") || strings.HasSuffix(at.path, "override"); maps || places[place] {
					continue
				}
				places[place] = true
				at.object[misspelt] = "x"
				kept, err := s.try(t, o, "Warn")
				delete(at.object, misspelt)
				if err != nil {
					t.Errorf("%s: %v", place, err)
					continue
				}
				if !strings.Contains(asJSON(t, kept["spec"]), misspelt) {
					t.Errorf("%s: the field is pruned", place)
				}
				decoded, err := crds.Decode([]byte(asJSON(t, kept)), "API server")
				if err != nil || len(decoded) != 1 {
					t.Fatalf("%d objects, %v", len(decoded), err)
				}
				if built := decoded[0].Spec != nil; built && !strings.Contains(decoded[0].Malformed(), "unknown field") {
					t.Errorf("%s is not malformed on a node: %s", place, decoded[0].Malformed())
				}
			}
		}
	}
	t.Logf("%d places", len(places))
	if len(places) < 35 {
		t.Errorf("%d places were tried, want 35 at least", len(places))
	}
}

// emptyBoundIsKept is about templates that leave a bound empty: an API server drops what is
// null where it is not told otherwise, and the bound with it.
func emptyBoundIsKept(t *testing.T, s *crdServer) {
	const key = "{keyType: PGP, asciiArmoredPgpPublicKey: AA==, "
	for field, manifest := range map[string]string{
		"spec.maximumAttestationAge":                   gapOf("attestationAuthorityNames: [a], maximumAttestationAge: null"),
		"spec.notBefore":                               ispOf("notBefore: null"),
		"spec.publicKeys[0].validFrom":                 aaOf("publicKeys: [" + key + "validFrom: null}]"),
		"spec.authorities[0].publicKeys[0].validUntil": capOf("authorities: [{name: a, publicKeys: [" + key + "validUntil: null}]}]"),
	} {
		kept, err := s.try(t, manifests(t, manifest)[0], "Strict")
		if err != nil {
			t.Errorf("%s: %v", field, err)
			continue
		}
		decoded, err := crds.Decode([]byte(asJSON(t, kept)), "API server")
		if err != nil || !strings.Contains(decoded[0].Malformed(), field+": empty") {
			t.Errorf("%s is not malformed on a node (%v): %s", field, err, asJSON(t, kept["spec"]))
		}
	}
}

// placed is an object somewhere in another.
type placed struct {
	path   string // without the places of lists
	object harness.Object
}

func objectsIn(value any, path string) []placed {
	var all []placed
	switch value := value.(type) {
	case harness.Object:
		all = append(all, placed{path, value})
		for key, v := range value {
			all = append(all, objectsIn(v, path+"."+key)...)
		}
	case []any:
		for _, v := range value {
			all = append(all, objectsIn(v, path+"[]")...)
		}
	}
	return all
}

func statusApart(t *testing.T, s *crdServer) {
	o := manifests(t, gapOf("attestationAuthorityNames: [a]"))[0]
	status := harness.Object{"observedGeneration": 1, "conditions": []any{harness.Object{
		"type": "Ready", "status": "False", "reason": "AuthorityNotFound", "message": "AttestationAuthority default/a does not exist", "lastTransitionTime": "2026-01-01T00:00:00Z"}}}
	o["status"] = status
	s.applies(t, o)
	path := s.collection(t, o) + "/x"
	stored, err := s.Admin.Get(s.ctx, path)
	if err != nil || stored["status"] != nil {
		t.Errorf("whoever writes the object writes its status: %v (%v)", stored["status"], err)
	}
	stored, err = s.Admin.Merge(s.ctx, path+"/status", harness.Object{"status": status, "spec": harness.Object{"require": "Any"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := asJSON(t, stored["status"]), asJSON(t, status); got != want || harness.Field(stored, "spec", "require") != nil {
		t.Errorf("status %s, want %s; spec %v", got, want, stored["spec"])
	}
	for name, bad := range map[string]harness.Object{
		"conditions[0].reason":             {"type": "Ready", "status": "False", "reason": "", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
		"conditions[0].status":             {"type": "Ready", "status": "No", "reason": "A", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
		"conditions[0].lastTransitionTime": {"type": "Ready", "status": "True", "reason": "A", "message": ""},
	} {
		_, err := s.Admin.Merge(s.ctx, path+"/status", harness.Object{"status": harness.Object{"conditions": []any{bad}}})
		if !harness.IsReason(err, "Invalid") || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	stdout, _, err := s.Kubectl(s.ctx, "get", "gap", "x")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(stdout, "AuthorityNotFound") || !strings.Contains(stdout, "False") || !strings.Contains(stdout, `["a"]`) {
		t.Errorf("kubectl get gap says\n%s", stdout)
	}
}

func listedNodeGates(t *testing.T, s *crdServer) {
	now := time.Now().UTC().Truncate(time.Second).Add(-time.Minute).Format(time.RFC3339)
	const path = "/apis/horkos.dev/v1alpha1/nodegates"
	gate := harness.Object{"apiVersion": "horkos.dev/v1alpha1", "kind": "NodeGate", "metadata": harness.Object{"name": "node-1"}}
	if _, err := s.Admin.Apply(s.ctx, path+"/node-1", "horkos-node", gate); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := s.Admin.Delete(s.ctx, path+"/node-1"); err != nil {
			t.Error(err)
		}
	})
	gate["status"] = harness.Object{
		"mode": "enforce", "version": "v0.6.0", "runtimeVersion": "containerd v2.3.5", "policyRevision": "0123456789ab", "syncedAt": now, "startedAt": now, "observedAt": now,
		"ready": true, "problems": []any{"one"}, "auditHead": harness.Object{"seq": 7, "hash": strings.Repeat("0a", 32)},
		"decisions": []any{harness.Object{"result": "allowed", "count": 41}, harness.Object{"result": "denied", "count": 3}},
	}
	stored, err := s.Admin.Apply(s.ctx, path+"/node-1/status", "horkos-node", gate)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := asJSON(t, stored["status"]), asJSON(t, gate["status"]); got != want {
		t.Errorf("stored as %s\nnot as %s", got, want)
	}
	stdout, _, err := s.Kubectl(s.ctx, "get", "nodegates")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`NAME +MODE +READY +POLICY +SYNCED +ALLOWED +DENIED +RUNTIME +AGE`,
		`node-1 +enforce +true +0123456789ab +\d+[sm]\S* +41 +3 +containerd v2.3.5 +\d+s`,
	} {
		if !regexp.MustCompile(want).MatchString(stdout) {
			t.Errorf("kubectl get nodegates says\n%s\nwant %s", stdout, want)
		}
	}
}

func listedByCategory(t *testing.T, s *crdServer) {
	s.applies(t, manifests(t, aalOf("patterns: [{namePattern: r.example.com/*}]"))[0])
	s.applies(t, manifests(t, irOf("digests: ['sha256:"+strings.Repeat("a1", 32)+"']"))[0])
	stdout, _, err := s.Kubectl(s.ctx, "get", "horkos", "-A")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"admissionallowlist.kritis.grafeas.io/x", "imagerevocation.horkos.dev/x"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("kubectl get horkos -A says\n%s\nwant %s", stdout, want)
		}
	}
	stdout, _, err = s.Kubectl(s.ctx, "explain", "cap.spec.authorities.ref")
	if err != nil || !strings.Contains(stdout, "AttestationAuthority") {
		t.Errorf("kubectl explain says\n%s (%v)", stdout, err)
	}
}
