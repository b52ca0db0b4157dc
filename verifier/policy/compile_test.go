package policy

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/horkos/horkos/crds"
)

// keyPEM is a public key that any number stands for.
func keyPEM(t testing.TB, n int) string {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, fmt.Sprint("key ", n))
	der, err := x509.MarshalPKIXPublicKey(ed25519.NewKeyFromSeed(seed).Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func object(kind, namespace, name, spec string) string {
	group := "kritis.grafeas.io/v1beta1"
	if (strings.HasPrefix(kind, "Image") && kind != "ImageSecurityPolicy") || strings.HasPrefix(kind, "Cluster") {
		group = "horkos.dev/v1alpha1"
	}
	return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s, namespace: %s}\nspec: {%s}\n", group, kind, name, namespace, spec)
}

func cluster(name, spec string) string { return object("ClusterAttestationPolicy", "", name, spec) }

// listed are n authorities of a cluster policy, all with one key.
func listed(t testing.TB, n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("{name: a%d, %s}", i, keys(t, 1)))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

func gap(name, spec string) string { return object("GenericAttestationPolicy", "shop", name, spec) }

func keys(t testing.TB, numbers ...int) string {
	var list []string
	for _, n := range numbers {
		list = append(list, fmt.Sprintf("{keyType: PKIX, pkixPublicKey: {publicKeyPem: %q}}", keyPEM(t, n)))
	}
	return "publicKeys: [" + strings.Join(list, ", ") + "]"
}

func authority(name, spec string) string { return object("AttestationAuthority", "shop", name, spec) }

func decoded(t testing.TB, manifests ...string) crds.Set {
	t.Helper()
	objects, err := crds.Decode([]byte(strings.Join(manifests, "---\n")), "p.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return crds.Set{Origin: crds.Folder, Objects: objects}
}

func compiled(t testing.TB, manifests ...string) *Snapshot {
	return Compile(decoded(t, manifests...))
}

// only is the one policy of namespace shop.
func only(t testing.TB, s *Snapshot) *Policy {
	t.Helper()
	layers := s.Layers("shop")
	if len(layers) != 1 || len(layers[0].Policies) != 1 {
		t.Fatalf("layers %+v", layers)
	}
	return layers[0].Policies[0]
}

func numbers(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func TestTheLimitsOfAPolicyAndAnAuthority(t *testing.T) {
	names := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprint("a", i))
		}
		return "attestationAuthorityNames: [" + strings.Join(all, ", ") + "]"
	}
	older := fmt.Sprintf("publicKeyData: %s, ", base64.StdEncoding.EncodeToString([]byte(keyPEM(t, 99))))
	tests := []struct {
		name      string
		manifests []string
		problem   string
	}{
		{"64 authorities are read", []string{gap("p", names(64))}, ""},
		{"65 authorities are malformed", []string{gap("p", names(65))}, "65 authorities, at most 64"},
		{"64 keys are read", []string{gap("p", names(1)), authority("a0", keys(t, numbers(64)...))}, ""},
		{"65 keys are malformed", []string{gap("p", names(1)), authority("a0", keys(t, numbers(65)...))}, "65 keys, at most 64"},
		{"63 keys and one of the older shape are read", []string{gap("p", names(1)), authority("a0", older+keys(t, numbers(63)...))}, ""},
		{"64 keys and one of the older shape are malformed", []string{gap("p", names(1)), authority("a0", older+keys(t, numbers(64)...))}, "65 keys, at most 64"},
		{"64 authorities of a cluster policy are read", []string{cluster("p", "authorities: "+listed(t, 64))}, ""},
		{"65 authorities of a cluster policy are malformed", []string{cluster("p", "authorities: "+listed(t, 65))}, "65 authorities, want 1 to 64"},
		{"64 emergency authorities of a cluster policy are read", []string{cluster("p", "authorities: "+listed(t, 1)+", emergencyAuthorities: "+listed(t, 64))}, ""},
		{"65 emergency authorities of a cluster policy are malformed", []string{cluster("p", "authorities: "+listed(t, 1)+", emergencyAuthorities: "+listed(t, 65))}, "65 authorities, at most 64"},
		{"65 emergency authorities are malformed", []string{gap("p", "attestationAuthorityNames: [a0], emergencyAuthorityNames: "+strings.TrimPrefix(names(65), "attestationAuthorityNames: "))}, "65 authorities, at most 64"},
		{"64 keys of an authority of a cluster policy are read", []string{cluster("p", "authorities: [{name: a, "+keys(t, numbers(64)...)+"}]")}, ""},
		{"65 keys of an authority of a cluster policy are malformed", []string{cluster("p", "authorities: [{name: a, "+keys(t, numbers(65)...)+"}]")}, "65 keys, at most 64"},
		{"1024 patterns of a scope are read", []string{cluster("p", "authorities: "+listed(t, 1)+", images: ["+strings.Repeat("x/**, ", 1024)+"]")}, ""},
		{"1025 patterns of a scope are malformed", []string{cluster("p", "authorities: "+listed(t, 1)+", images: ["+strings.Repeat("x/**, ", 1025)+"]")}, "1025 patterns, at most 1024"},
		{"a scope pattern of 513 bytes is malformed", []string{cluster("p", "authorities: "+listed(t, 1)+", images: [\"x/"+strings.Repeat("x", 509)+"**\"]")}, "pattern of 513 bytes"},
		{"1024 values of a selector are read", []string{cluster("p", "authorities: "+listed(t, 1)+", namespaceSelector: {matchExpressions: [{key: a, operator: NotIn, values: ["+strings.Repeat("x, ", 1024)+"]}]}")}, ""},
		{"1025 values of a selector are malformed", []string{cluster("p", "authorities: "+listed(t, 1)+", namespaceSelector: {matchExpressions: [{key: a, operator: NotIn, values: ["+strings.Repeat("x, ", 1025)+"]}]}")}, "1025 values, at most 1024"},
		{"a name of 253 bytes is read", []string{gap("p", "attestationAuthorityNames: ["+strings.Repeat("x", 253)+"]")}, ""},
		{"a name of 254 bytes is malformed", []string{gap("p", "attestationAuthorityNames: ["+strings.Repeat("x", 254)+"]")}, "more than 253 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := only(t, compiled(t, tt.manifests...))
			problem := p.Malformed
			if problem == "" && len(p.Authorities) > 0 {
				problem = p.Authorities[0].Malformed
			}
			if (problem == "") != (tt.problem == "") || !strings.Contains(problem, tt.problem) {
				t.Errorf("problem %q, want %q in it", problem, tt.problem)
			}
		})
	}
}

func TestWhatSomebodyShouldMendIsReported(t *testing.T) {
	good := authority("a", keys(t, 1))
	tests := []struct {
		name      string
		manifests []string
		want      string
		ignored   bool
	}{
		{"an open host pattern", []string{object("AdmissionAllowlist", "", "l", `patterns: [{namePattern: "registry*.example.com/x/*"}]`)}, "open host pattern", false},
		{"a pattern over the limit", []string{object("AdmissionAllowlist", "", "l", fmt.Sprintf("patterns: [{namePattern: %q}]", strings.Repeat("x", 513)))}, "pattern of 513 bytes", true},
		{"a bad pattern of a policy", []string{good, gap("p", `attestationAuthorityNames: [a], admissionAllowlistPatterns: [{namePattern: "A b"}]`)}, "white space", true},
		{"two authorities with a key in common", []string{good, authority("b", keys(t, 2, 1))}, "a key in common with AttestationAuthority shop/a", false},
		{"require above the distinct keys", []string{good, authority("b", keys(t, 1)), gap("p", "attestationAuthorityNames: [a, b], require: 2")}, "it denies everything", false},
		{"an authority listed twice", []string{good, gap("p", "attestationAuthorityNames: [a, a]")}, `"a" is listed again`, true},
		{"an authority that does not exist", []string{gap("p", "attestationAuthorityNames: [gone]")}, "AttestationAuthority shop/gone does not exist", false},
		{"a bad key beside a good one", []string{authority("a", strings.Replace(keys(t, 1), "[", "[{keyType: X509}, ", 1))}, "keyType: want PGP or PKIX", false},
		{"an authority without keys", []string{authority("a", "noteReference: projects/p")}, "has no key", false},
		{"a malformed revocation", []string{object("ImageRevocation", "", "r", "digests: [sha256:abc]")}, "spec.digests", false},
		{"a malformed attestation", []string{object("ImageAttestation", "", "sha256-abc", "attestations: []")}, "metadata.name", true},
		{"two authorities of a cluster policy with a key in common", []string{cluster("p", "authorities: "+listed(t, 2))}, "a0 and a1 have a key in common", false},
		{"a scope without a tag", []string{cluster("p", "authorities: "+listed(t, 1)+", images: [registry.example.com/shop/cart]")}, "of the tags latest and no other", false},
		{"a pattern of a cluster policy's allowlist that matches nothing", []string{cluster("p", "authorities: "+listed(t, 1)+", allowlist: [{namePattern: registry.example.com/**}]")}, "no image name begins so", true},
		{"a malformed KritisConfig", []string{object("KritisConfig", "", "k", "x: 1")}, "spec.x: unknown field", true},
		{"a malformed Namespace", []string{"apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {a: 1}}\n"}, "metadata.labels", true},
		{"an object that decides nothing", []string{object("BuildPolicy", "shop", "b", "")}, "decide nothing", true},
		{"a kind that is not known", []string{object("Policy", "shop", "x", "")}, "kind Policy", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			findings := compiled(t, tt.manifests...).Findings()
			if !slices.ContainsFunc(findings, func(f Finding) bool {
				return strings.Contains(f.Message, tt.want) && f.Ignored == tt.ignored && strings.HasPrefix(f.Source, "p.yaml")
			}) {
				t.Errorf("findings %+v, want %q (ignored %v)", findings, tt.want, tt.ignored)
			}
		})
	}
	if f := compiled(t, good, gap("p", "attestationAuthorityNames: [a]"), authority("b", keys(t, 2))).Findings(); len(f) > 0 {
		t.Errorf("findings about nothing: %+v", f)
	}
}

func TestAFaultNamesItsObjectOnce(t *testing.T) {
	for name, manifest := range map[string]string{
		"Policy shop/x":                   object("Policy", "shop", "x", ""),
		"GenericAttestationPolicy Shop/p": object("GenericAttestationPolicy", "Shop", "p", "attestationAuthorityNames: [a]"),
		"TrustPolicy t":                   "apiVersion: notation.nirmata.io/v1alpha1\nkind: TrustPolicy\nmetadata: {name: t}\nspec: {}\n",
	} {
		layers := compiled(t, manifest).Layers("shop")
		if len(layers) == 0 || strings.Count(layers[0].Fault, name) != 1 {
			t.Errorf("%s: layers %+v", name, layers)
		}
	}
}

func TestFindingsAndLayersAreInOneOrder(t *testing.T) {
	var manifests []string
	for n := range 20 {
		manifests = append(manifests, gap(fmt.Sprint("p", n), "attestationAuthorityNames: [gone, gone-too], require: 3, x: 1"),
			object("ImageSecurityPolicy", fmt.Sprint("n", n), "i", ""))
	}
	set := decoded(t, manifests...)
	first := Compile(set)
	for range 20 {
		again := Compile(set)
		if !reflect.DeepEqual(first, again) {
			t.Fatal("the same objects were compiled to something else")
		}
	}
}

func TestARevisionIsThatOfThePoliciesHoweverTheyAreWritten(t *testing.T) {
	base := []string{authority("a", keys(t, 1)), gap("p", "attestationAuthorityNames: [a]"), object("ImageRevocation", "", "r", "digests: []"),
		object("ImageSecurityPolicy", "shop", "s", "packageVulnerabilityRequirements: {maximumFixNotAvailableSeverity: LOW}"),
		cluster("c", "authorities: [{name: a, "+keys(t, 1)+"}, {name: b, ref: {namespace: shop, name: a}}]")}
	same := map[string][]string{
		"in another order": {base[2], base[4], base[1], base[3], base[0]},
		"with the defaults written": {authority("a", keys(t, 1)+", acceptExpiredKeys: true"), gap("p", "attestationAuthorityNames: [a], require: All, enforcement: Enforce"), base[2],
			object("ImageSecurityPolicy", "shop", "s", "enforcement: Enforce, require: All, packageVulnerabilityRequirements: {maximumSeverity: CRITICAL, maximumFixUnavailableSeverity: LOW}"),
			cluster("c", "authorities: [{name: a, acceptExpiredKeys: true, "+keys(t, 1)+"}, {name: b, ref: {namespace: shop, name: a}}], namespaceSelector: {}, enforcement: Enforce, require: All")},
		"with evidence":              append(slices.Clone(base), object("ImageAttestation", "", "sha256-"+strings.Repeat("a", 64), "attestations: [{}]")),
		"with other groups' objects": append(slices.Clone(base), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"),
		"with labels of a namespace that no selector asks for": append([]string{"apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {a: b}}\n"}, base...),
		"with a label and no meaning":                          {strings.Replace(base[0], "metadata: {", "metadata: {labels: {x: y}, ", 1), base[1], base[2], base[3], base[4]},
	}
	rest := append([]string{base[0]}, base[2:]...) // all but the policy
	other := map[string][]string{
		"another spec":     append([]string{gap("p", "attestationAuthorityNames: [a], require: Any")}, rest...),
		"another name":     append([]string{gap("q", "attestationAuthorityNames: [a]")}, rest...),
		"another key":      append([]string{authority("a", keys(t, 2)), base[1]}, base[2:]...),
		"an object less":   rest,
		"a malformed spec": append([]string{gap("p", "attestationAuthorityNames: [a], x: 1")}, rest...),
	}
	want := compiled(t, base...).Revision()
	if len(want) != 12 || strings.Trim(want, "0123456789abcdef") != "" {
		t.Errorf("revision %q, want 12 hex digits", want)
	}
	for name, manifests := range same {
		if got := compiled(t, manifests...).Revision(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for name, manifests := range other {
		if got := compiled(t, manifests...).Revision(); got == want {
			t.Errorf("%s: the same revision", name)
		}
	}
	selects := func(labels string) string {
		return compiled(t, base[0], "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: "+labels+"}\n",
			cluster("d", "authorities: [{name: a, "+keys(t, 1)+"}], namespaceSelector: {matchLabels: {a: b}, matchExpressions: [{key: c, operator: Exists}]}")).Revision()
	}
	if one, same := selects("{a: b, x: y}"), selects("{x: z, a: b}"); one != same {
		t.Errorf("%s and %s: a label that no selector asks for counts", one, same)
	}
	for _, labels := range []string{"{a: c}", "{}", "{a: b, c: d}"} {
		if selects(labels) == selects("{a: b}") {
			t.Errorf("labels %s: the same revision, though a selector asks for them", labels)
		}
	}
	cluster := decoded(t, base...)
	cluster.Origin = crds.Cluster
	if Compile(cluster).Revision() == want {
		t.Error("another origin: the same revision")
	}
}

func TestARequirementIsAWordOrANumber(t *testing.T) {
	tests := []struct {
		require  string
		count    int
		distinct bool
		ok       bool
	}{
		{"All", 3, false, true}, {"Any", 1, false, true}, {"1", 1, true, true}, {"2", 2, true, true}, {`"2"`, 2, true, true}, {"3", 3, true, true},
		{"4", 0, false, false}, {"0", 0, false, false}, {"-1", 0, false, false}, {"1.5", 0, false, false}, {"all", 0, false, false}, {`""`, 0, false, false}, {"true", 0, false, false},
	}
	for _, tt := range tests {
		p := only(t, compiled(t, gap("p", "attestationAuthorityNames: [a, b, c], require: "+tt.require)))
		if (p.Malformed == "") != tt.ok {
			t.Errorf("require %s: %q", tt.require, p.Malformed)
		} else if tt.ok && (p.Require != tt.count || p.Distinct != tt.distinct) {
			t.Errorf("require %s: %d, distinct %v", tt.require, p.Require, p.Distinct)
		}
	}
}

func TestNotesAgreeByWholeSegments(t *testing.T) {
	tests := []struct {
		authority, attestation string
		want                   bool
	}{
		{"", "projects/p/notes/n", true},
		{"projects/p", "", true},
		{"projects/p", "projects/p", true},
		{"projects/p", "projects/p/notes/n", true},
		{"v1beta1/projects/p", "projects/p/notes/n", true},
		{"projects/p/", "v1/projects/p/notes/n", true},
		{"projects/p/notes/n", "projects/p", false},
		{"projects/p", "projects/p2", false},
		{"projects/p", "projects/p2/notes/n", false},
		{"projects/p", "projects", false},
		{"projects/p", "/", false},
	}
	for _, tt := range tests {
		a := Authority{Note: normalNote(tt.authority)}
		if a.Accepts(tt.attestation) != tt.want {
			t.Errorf("authority %q accepts %q: %v", tt.authority, tt.attestation, !tt.want)
		}
	}
}

func TestOnlyAuthoritiesThatAPolicyNamesAreVerifiedFor(t *testing.T) {
	named, idle := authority("a", keys(t, 1)), authority("idle", keys(t, 2))
	s := compiled(t, named, idle, gap("p", "attestationAuthorityNames: [a]"), gap("q", "attestationAuthorityNames: [a]"))
	if len(s.byKey) != 1 {
		t.Errorf("%d key ids, want that of the authority that is named", len(s.byKey))
	}
	for id := range s.byKey {
		if n := len(s.Authorities(id)); n != 1 {
			t.Errorf("%d authorities, want one", n)
		}
	}
}

func TestASnapshotOfNothingSaysNothing(t *testing.T) {
	s := Compile()
	if len(s.Layers("shop")) > 0 || s.HasRevocations() || len(s.Findings()) > 0 || len(s.Revision()) != 12 {
		t.Errorf("%+v", s)
	}
}

func TestANamespaceNobodyNamesHasTheLayersOfAll(t *testing.T) {
	s := compiled(t, object("AdmissionAllowlist", "", "l", `patterns: [{namePattern: "nginx"}, {namePattern: "redis", namespace: shop}]`))
	exempt := func(namespace, image string) bool {
		for _, l := range s.Layers(namespace) {
			if _, _, ok := l.Exempts(NameOf(name(t, image))); ok {
				return true
			}
		}
		return false
	}
	for _, tt := range []struct {
		namespace, image string
		want             bool
	}{{"shop", "nginx", true}, {"shop", "redis", true}, {"other", "nginx", true}, {"other", "redis", false}, {"", "nginx", true}, {"", "redis", false}} {
		if exempt(tt.namespace, tt.image) != tt.want {
			t.Errorf("%s in namespace %q exempt: %v", tt.image, tt.namespace, !tt.want)
		}
	}
}

func TestASelectorThatMayBeReadOtherwiseSelectsEveryNamespace(t *testing.T) {
	for name, selector := range map[string]string{
		"written twice":         `"namespaceSelector":{"matchLabels":{"tier":"test"}},"namespaceSelector":{"matchLabels":{"tier":"stage"}}`,
		"a label written twice": `"namespaceSelector":{"matchLabels":{"tier":"prod","tier":"test"}}`,
		"a value that is none":  `"namespaceSelector":{"matchLabels":{"tier":"test","zone":1}}`,
		"beside a wrong type":   `"namespaceSelector":{"matchLabels":{"tier":"test"}},"require":{},"namespaceSelector":{"matchLabels":{"tier":"stage"}}`,
		"a list":                `"namespaceSelector":["tier"]`,
	} {
		s := compiled(t, `{"apiVersion":"horkos.dev/v1alpha1","kind":"ClusterAttestationPolicy","metadata":{"name":"c"},"spec":{`+selector+"}}\n",
			"apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {tier: prod}}\n")
		if layers := s.Layers("shop"); len(layers) != 1 || layers[0].Policies[0].Malformed == "" {
			t.Errorf("%s: layers %+v", name, layers)
		}
	}
}
