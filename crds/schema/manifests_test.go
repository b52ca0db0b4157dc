package schema_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/horkos/horkos/crds"
	specs "github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/schema/horkos"
	"github.com/horkos/horkos/crds/schema/kritis"
	"github.com/horkos/horkos/crds/schema/notation"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/policy"
)

// manifests is where make generate writes.
const manifests = "../manifests"

// object is one of YAML.
type object = map[string]any

// field is what is in an object at a path of keys, and nil if nothing is.
func field(value any, path ...string) any {
	for _, key := range path {
		fields, _ := value.(object)
		value = fields[key]
	}
	return value
}

// schemas are those of the kinds, by their names.
func schemas(t *testing.T) map[string]any {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(manifests, "*_*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]any)
	for _, file := range files {
		var crd object
		read(t, file, &crd)
		versions, _ := field(crd, "spec", "versions").([]any)
		if len(versions) != 1 {
			t.Fatalf("%s: %d versions", file, len(versions))
		}
		all[fmt.Sprint(field(crd, "spec", "names", "kind"))] = field(versions[0], "schema", "openAPIV3Schema")
	}
	return all
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func TestTheKustomizationHasEveryManifest(t *testing.T) {
	var kustomization struct{ Resources []string }
	read(t, filepath.Join(manifests, "kustomization.yaml"), &kustomization)
	files, err := filepath.Glob(filepath.Join(manifests, "*_*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	slices.Sort(kustomization.Resources)
	if !slices.Equal(kustomization.Resources, files) {
		t.Errorf("it has %q, there are %q", kustomization.Resources, files)
	}
}

// TestTheManifestsHaveTheFieldsOfTheTypes fails, without the generator, when somebody
// changes a type and forgets make generate. What the generator alone knows make lint compares.
func TestTheManifestsHaveTheFieldsOfTheTypes(t *testing.T) {
	all := schemas(t)
	kinds := []any{
		kritis.AttestationAuthority{}, kritis.GenericAttestationPolicy{}, kritis.ImageSecurityPolicy{}, kritis.AdmissionAllowlist{},
		kritis.KritisConfig{}, kritis.VulnzSigningPolicy{}, kritis.BuildPolicy{},
		notation.TrustPolicy{}, notation.TrustStore{},
		horkos.ImageAttestation{}, horkos.ImageRevocation{}, horkos.ClusterAttestationPolicy{}, horkos.NodeGate{},
	}
	if len(all) != len(kinds) {
		t.Errorf("%d manifests of %d kinds", len(all), len(kinds))
	}
	for _, kind := range kinds {
		of := reflect.TypeOf(kind)
		for _, part := range []string{"Spec", "Status"} {
			if f, ok := of.FieldByName(part); ok {
				at := of.Name() + "." + strings.ToLower(part)
				same(t, at, f.Type, field(all[of.Name()], "properties", strings.ToLower(part)))
			}
		}
	}
}

// same compares the fields of a type with those of a schema, and those below.
func same(t *testing.T, at string, of reflect.Type, schema any) {
	t.Helper()
	switch {
	case of.Kind() == reflect.Pointer:
		same(t, at, of.Elem(), schema)
	case of.Kind() == reflect.Slice && of.Elem().Kind() != reflect.Uint8:
		same(t, at+"[]", of.Elem(), field(schema, "items"))
	case of.Kind() == reflect.Struct && strings.Contains(of.PkgPath(), "/crds/"):
		properties, _ := field(schema, "properties").(object)
		var names []string
		for i := range of.NumField() {
			name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			names = append(names, name)
			same(t, at+"."+name, of.Field(i).Type, properties[name])
		}
		slices.Sort(names)
		if got := slices.Sorted(maps.Keys(properties)); !slices.Equal(got, names) {
			t.Errorf("%s has the fields %q in the manifest, %q in the type: run make generate", at, got, names)
		}
	case schema == nil:
		t.Errorf("%s is not in the manifest: run make generate", at)
	}
}

// A misspelt field that is pruned is one that no node can call malformed.
func TestEveryObjectOfASpecKeepsFieldsItDoesNotKnow(t *testing.T) {
	seen := 0
	var walk func(at string, schema any)
	walk = func(at string, schema any) {
		properties, isObject := field(schema, "properties").(object)
		if isObject {
			seen++
			if field(schema, "x-kubernetes-preserve-unknown-fields") != true {
				t.Errorf("%s prunes fields: mark its type +kubebuilder:pruning:PreserveUnknownFields", at)
			}
		}
		for name, of := range properties {
			walk(at+"."+name, of)
		}
		if items := field(schema, "items"); items != nil {
			walk(at+"[]", items)
		}
	}
	for kind, schema := range schemas(t) {
		walk(kind+".spec", field(schema, "properties", "spec"))
	}
	if seen < 30 {
		t.Errorf("%d objects were found", seen)
	}
}

func TestLimitsAreThoseThatNodesHave(t *testing.T) {
	all := schemas(t)
	tests := []struct {
		kind, path, limit string
		want              int
	}{
		{"AttestationAuthority", "publicKeys", "maxItems", policy.MaxKeys},
		{"AttestationAuthority", "publicKeys.asciiArmoredPgpPublicKey", "maxLength", attestation.MaxPGPKeyBytes},
		{"AttestationAuthority", "publicKeys.pkixPublicKey.publicKeyPem", "maxLength", attestation.MaxKeyBytes},
		{"GenericAttestationPolicy", "attestationAuthorityNames", "maxItems", policy.MaxAuthorities},
		{"GenericAttestationPolicy", "emergencyAuthorityNames", "maxItems", policy.MaxAuthorities},
		{"GenericAttestationPolicy", "admissionAllowlistPatterns.namePattern", "maxLength", policy.MaxPattern},
		{"ImageSecurityPolicy", "attestationAuthorityNames", "maxItems", policy.MaxAuthorities},
		{"ImageSecurityPolicy", "emergencyAuthorityNames", "maxItems", policy.MaxAuthorities},
		{"ImageSecurityPolicy", "imageAllowlist[]", "maxLength", policy.MaxPattern},
		{"AdmissionAllowlist", "patterns.namePattern", "maxLength", policy.MaxPattern},
		{"ClusterAttestationPolicy", "authorities", "maxItems", policy.MaxAuthorities},
		{"ClusterAttestationPolicy", "authorities.publicKeys", "maxItems", policy.MaxKeys},
		{"ClusterAttestationPolicy", "emergencyAuthorities", "maxItems", policy.MaxAuthorities},
		{"ClusterAttestationPolicy", "images", "maxItems", policy.MaxPatterns},
		{"ClusterAttestationPolicy", "images[]", "maxLength", policy.MaxPattern},
		{"ClusterAttestationPolicy", "allowlist.namePattern", "maxLength", policy.MaxPattern},
		{"ImageAttestation", "attestations", "maxItems", crds.MaxAttestations},
		{"ImageAttestation", "attestations.pgpSignedAttestation.signature", "maxLength", attestation.MaxPGPMessageBytes},
		{"ImageAttestation", "attestations.attestation.jwts.compactJwt", "maxLength", attestation.MaxJWTBytes},
		{"ImageRevocation", "digests", "maxItems", crds.MaxRevokedDigests},
	}
	for _, tt := range tests {
		at := field(all[tt.kind], "properties", "spec")
		for step := range strings.SplitSeq(tt.path, ".") {
			name, items := strings.CutSuffix(step, "[]")
			if of := field(at, "items"); of != nil {
				at = of
			}
			if at = field(at, "properties", name); items {
				at = field(at, "items")
			}
		}
		if got := field(at, tt.limit); got != float64(tt.want) {
			t.Errorf("%s spec.%s: %s is %v, a node's limit is %d", tt.kind, tt.path, tt.limit, got, tt.want)
		}
	}
}

// A NodeGate has nothing for anybody to write but the node.
func TestANodeGateHasNoSpec(t *testing.T) {
	if spec := field(schemas(t)[specs.KindNodeGate], "properties", "spec"); spec != nil {
		t.Errorf("it has %v", spec)
	}
}
