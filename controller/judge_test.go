package controller

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier/policy"
)

func manifest(kind, namespace, name, spec string) string {
	group := "kritis.grafeas.io/v1beta1"
	switch kind {
	case "ImageRevocation", "ClusterAttestationPolicy":
		group = "horkos.dev/v1alpha1"
	case "TrustPolicy":
		group = "notation.nirmata.io/v1alpha1"
	}
	return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s, namespace: %s}\nspec: {%s}\n", group, kind, name, namespace, spec)
}

// publicKey is always the same of a number.
func publicKey(t testing.TB, number byte) string {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = number
	der, err := x509.MarshalPKIXPublicKey(ed25519.NewKeyFromSeed(seed).Public())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("{keyType: PKIX, pkixPublicKey: {publicKeyPem: %q}}", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

const badKey = "{keyType: PKIX, pkixPublicKey: {publicKeyPem: none}}"

func authority(name string, keys ...string) string {
	return manifest("AttestationAuthority", "shop", name, "publicKeys: ["+strings.Join(keys, ", ")+"]")
}

func gap(spec string) string { return manifest("GenericAttestationPolicy", "shop", "p", spec) }

func isp(spec string) string { return manifest("ImageSecurityPolicy", "shop", "p", spec) }

func clusterPolicy(spec string) string {
	return manifest("ClusterAttestationPolicy", "", "p", spec)
}

func decoded(t testing.TB, manifests ...string) []crds.Object {
	t.Helper()
	objects, err := crds.Decode([]byte(strings.Join(manifests, "---\n")), "cluster")
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// TestWhatIsWrongWithAnObjectIsItsCondition holds the reasons, which are read off the fields
// of findings, to what package policy finds.
func TestWhatIsWrongWithAnObjectIsItsCondition(t *testing.T) {
	one, two := publicKey(t, 1), publicKey(t, 2)
	good := authority("release", one)
	own := func(key string) string { return "{name: own, publicKeys: [" + key + "]}" }
	const gapID, ispID, capID, allowlistID = "GenericAttestationPolicy shop/p", "ImageSecurityPolicy shop/p", "ClusterAttestationPolicy p", "AdmissionAllowlist l"
	const names = "attestationAuthorityNames: [release]"
	tests := []struct {
		name      string
		manifests []string
		object    string
		want      string // reason of Ready, then that of Warning
		message   string // is in that of the one that is wrong
	}{
		{"a policy and its authority", []string{good, gap(names)}, gapID, "Accepted", "in force"},
		{"that authority", []string{good, gap(names)}, "AttestationAuthority shop/release", "Accepted", "in force"},
		{"an authority that does not exist", []string{gap(names)}, gapID, "AuthorityNotFound", "spec.attestationAuthorityNames[0]: AttestationAuthority shop/release does not exist. To do: apply the authority"},
		{"one of the name in another namespace", []string{manifest("AttestationAuthority", "other", "release", "publicKeys: ["+one+"]"), gap(names)}, gapID, "AuthorityNotFound", "shop/release"},
		{"an emergency authority that does not exist", []string{good, gap(names + ", emergencyAuthorityNames: [oncall]")}, gapID, "AuthorityNotFound", "shop/oncall"},
		{"a reference to one that does not exist", []string{clusterPolicy("authorities: [{name: r, ref: {namespace: shop, name: release}}]")}, capID, "AuthorityNotFound", "shop/release"},
		{"a reference to one that does", []string{good, clusterPolicy("authorities: [{name: r, ref: {namespace: shop, name: release}}]")}, capID, "Accepted", ""},
		{"the older field of an ImageSecurityPolicy", []string{isp("attestationAuthorityName: release")}, ispID, "NotSupported", "shop/release does not exist"},
		{"a key that is none", []string{authority("release", badKey)}, "AttestationAuthority shop/release", "KeyUnparsable", "spec.publicKeys[0]"},
		{"a key of two", []string{authority("release", one, badKey)}, "AttestationAuthority shop/release", "KeyUnparsable", "spec.publicKeys[1]"},
		{"a key of the older shape", []string{manifest("AttestationAuthority", "shop", "release", "publicKeyData: '?'")}, "AttestationAuthority shop/release", "KeyUnparsable", "spec.publicKeyData"},
		{"the time of a key", []string{authority("release", strings.Replace(one, "{keyType", "{validUntil: soon, keyType", 1))}, "AttestationAuthority shop/release", "KeyUnparsable", "validUntil"},
		{"a key of a cluster policy", []string{clusterPolicy("authorities: [" + own(badKey) + "]")}, capID, "KeyUnparsable", "spec.authorities[0].publicKeys[0]"},
		{"an authority without keys", []string{authority("release")}, "AttestationAuthority shop/release", "Malformed", "has no key"},
		{"a policy of an authority without any key that can be read", []string{authority("release", badKey), gap(names)}, gapID, "AuthorityUnusable", "shop/release has no key to verify with"},
		{"a policy of an authority with one that can", []string{authority("release", badKey, one), gap(names)}, gapID, "Accepted", ""},
		{"a policy of a malformed authority", []string{strings.Replace(good, "spec: {", "spec: {x: 1, ", 1), gap(names)}, gapID, "AuthorityUnusable", ""},
		{"an unknown field", []string{good, gap(names + ", requires: 1")}, gapID, "Malformed", "spec.requires: unknown field. To do: correct it: until then what it governs is refused"},
		{"a value that cannot be", []string{good, gap(names + ", enforcement: Sometimes")}, gapID, "Malformed", "spec.enforcement"},
		{"no authority at all", []string{gap("")}, gapID, "Malformed", "at least one authority"},
		{"more than one thing: the worst is the reason, and all are told", []string{gap(names + ", require: 0")}, gapID, "Malformed", "; spec.attestationAuthorityNames[0]: AttestationAuthority shop/release"},
		{"a pattern of an allowlist", []string{manifest("AdmissionAllowlist", "", "l", `patterns: [{namePattern: "a b"}]`)}, allowlistID, "PatternUnreadable", "spec.patterns[0]"},
		{"a pattern of a policy", []string{good, gap(names + ", admissionAllowlistPatterns: [{namePattern: 'a b'}]")}, gapID, "PatternUnreadable", "exempts nothing"},
		{"a malformed allowlist", []string{manifest("AdmissionAllowlist", "", "l", "pattern: []")}, allowlistID, "Malformed", "it exempts nothing"},
		{"a pattern of a scope", []string{clusterPolicy("authorities: [" + own(one) + "], images: ['a b']")}, capID, "Malformed", "spec.images[0]"},
		{"a revocation of something else", []string{manifest("ImageRevocation", "", "r", "digests: [latest]")}, "ImageRevocation r", "Malformed", "spec.digests[0]"},
		{"scans", []string{good, isp(names)}, ispID, "NotSupported", "vulnerability scans"},
		{"a kind that is not built", []string{manifest("TrustPolicy", "", "t", "")}, "TrustPolicy t", "NotSupported", "update horkos"},

		{"an open host", []string{manifest("AdmissionAllowlist", "", "l", `patterns: [{namePattern: "registry*.example.com/a/*"}]`)}, allowlistID, "Accepted OpenHostPattern", "spec.patterns[0]: open host"},
		{"a key of two authorities", []string{good, authority("second", one)}, "AttestationAuthority shop/second", "Accepted KeysShared", "AttestationAuthority shop/release"},
		{"a key of both authorities of a cluster policy", []string{clusterPolicy("authorities: [{name: a, publicKeys: [" + one + "]}, {name: b, publicKeys: [" + one + "]}]")}, capID, "Accepted KeysShared", "a and b"},
		{"an emergency authority that is the other", []string{good, gap(names + ", emergencyAuthorityNames: [release]")}, gapID, "Accepted KeysShared", "satisfies the policy by itself"},
		{"a selector that excludes itself", []string{clusterPolicy("authorities: [" + own(one) + "], namespaceSelector: {matchExpressions: [{key: a, operator: Exists}, {key: a, operator: DoesNotExist}]}")}, capID, "Accepted SelectsNothing", "selects no namespace"},
		{"an authority named twice", []string{good, gap("attestationAuthorityNames: [release, release]")}, gapID, "Accepted NamedTwice", "listed again"},
		{"more keys than there are", []string{good, authority("second", one), gap("attestationAuthorityNames: [release, second], require: 2")}, gapID, "Accepted NeverSatisfied", "denies everything"},
		{"a scope of one tag", []string{clusterPolicy("authorities: [" + own(two) + "], images: [registry.example.com/a]")}, capID, "Accepted ScopeNarrow", "spec.images[0]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, ok := Judge(new(policy.Compiler), decoded(t, tt.manifests...))[tt.object]
			if got := strings.TrimSpace(v.Reason + " " + v.Warning); !ok || got != tt.want || v.Ready != (v.Reason == Accepted) {
				t.Errorf("%s: %+v, want %s", tt.object, v, tt.want)
			}
			message := v.Message
			if v.Warning != "" {
				message = v.WarningMessage
			}
			if !strings.Contains(message, tt.message) {
				t.Errorf("message %q, want %q in it", message, tt.message)
			}
		})
	}
}

func TestPoliciesBeyondTheLimitAreAllNotReady(t *testing.T) {
	manifests := []string{authority("release", publicKey(t, 1))}
	for i := range policy.MaxPolicies + 1 {
		manifests = append(manifests, strings.Replace(gap("attestationAuthorityNames: [release]"), "name: p", fmt.Sprint("name: p", i), 1))
	}
	for id, v := range Judge(new(policy.Compiler), decoded(t, manifests...)) {
		if strings.HasPrefix(id, "GenericAttestationPolicy ") && v.Reason != TooMany {
			t.Fatalf("%s: %+v", id, v)
		}
	}
	for id, v := range Judge(new(policy.Compiler), decoded(t, manifests[1:len(manifests)-1]...)) {
		if v.Reason != AuthorityNotFound {
			t.Fatalf("%s, one less: %+v", id, v)
		}
	}
}

func TestAMessageFitsAndSaysHowManyDidNot(t *testing.T) {
	var names []string
	for i := range 60 {
		names = append(names, fmt.Sprintf("gone-%d-%s", i, strings.Repeat("x", 100)))
	}
	v := Judge(new(policy.Compiler), decoded(t, gap("attestationAuthorityNames: ["+strings.Join(names, ", ")+"]")))["GenericAttestationPolicy shop/p"]
	if len(v.Message) > maxMessage || !strings.Contains(v.Message, "; and 5") || !strings.HasSuffix(v.Message, "out of the policy") {
		t.Errorf("%d bytes: %s", len(v.Message), v.Message)
	}
	long := tell([]note{{Malformed, strings.Repeat("é", 2000)}, {Malformed, "b"}}, "mend it")
	if len(long) > maxMessage || !utf8.ValidString(long) || !strings.HasSuffix(long, "...; and 1 more. To do: mend it") {
		t.Errorf("%d bytes: %s", len(long), long)
	}
}
