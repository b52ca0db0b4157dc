package main

import (
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/objects"
)

const (
	pemA = `"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEad0imBmcm1Y1Wg+9pxWrzmvRf608\nX3B1zuzGUtww3qGKlLLsX49CterPUI25QMNpMLUotSw+ehi/uvVb7SkBBw==\n-----END PUBLIC KEY-----\n"`
	pemB = `"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhUj7oivR20OKr42qMaVxbxO/DWJm\n0YmCQc27/QwNPsN2SQY1k1uh1CgSgE3ornaE2ZfGUqvlBVLdbrpiL+RqhA==\n-----END PUBLIC KEY-----\n"`
)

// keyOf is a key of a manifest, with more fields.
func keyOf(pem, more string) string {
	return "{keyType: PKIX, pkixPublicKey: {publicKeyPem: " + pem + "}" + more + "}"
}

// manifest is one object in three lines: its spec is on the third.
func manifest(kind, namespace, name, spec string) string {
	version := "kritis.grafeas.io/v1beta1"
	if strings.HasPrefix(kind, "Cluster") || strings.HasPrefix(kind, "Image") && kind != "ImageSecurityPolicy" {
		version = "horkos.dev/v1alpha1"
	}
	meta := "{name: " + name + "}"
	if namespace != "" {
		meta = "{name: " + name + ", namespace: " + namespace + "}"
	}
	return fmt.Sprintf("{apiVersion: %s, kind: %s,\nmetadata: %s,\nspec: %s}\n", version, kind, meta, spec)
}

func authorityOf(name string, keys ...string) string {
	return manifest("AttestationAuthority", "shop", name, "{publicKeys: [\n"+strings.Join(keys, ",\n")+"]}")
}

// pgpKeyOf is an OpenPGP key of the table of cases as a manifest writes it.
func pgpKeyOf(t *testing.T, name string) string {
	t.Helper()
	armored, err := os.ReadFile(filepath.Join("../../verifier/testdata/cases/keys", name+".asc"))
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(armored)
}

func pgpOf(t *testing.T, name string) string {
	return "{keyType: PGP, asciiArmoredPgpPublicKey: " + pgpKeyOf(t, name) + "}"
}

// checked runs check over one file and reads what it printed as JSON.
func checked(t *testing.T, text string, args ...string) (outcome, []finding) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("p.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := program(append([]string{"policy", "check", "p.yaml", "-o", "json"}, args...)...)
	var raw []map[string]json.RawMessage
	if err := json.Unmarshal([]byte(got.out), &raw); err != nil || raw == nil {
		t.Fatalf("%v: %s%s", err, got.out, got.errors)
	}
	for _, r := range raw {
		hasKeys(t, r, "file", "line", "field", "object", "severity", "message")
	}
	var found []finding
	if err := json.Unmarshal([]byte(got.out), &found); err != nil {
		t.Fatal(err)
	}
	return got, found
}

func TestEveryProblemIsToldByLineAndField(t *testing.T) {
	good := authorityOf("a", keyOf(pemA, ""))
	gap := func(spec string) string {
		return good + "---\n" + manifest("GenericAttestationPolicy", "shop", "p", spec)
	}
	tests := []struct {
		name, text string
		want       []string // line: field: a part of the message
	}{
		{"nothing", good + "---\n" + manifest("GenericAttestationPolicy", "shop", "p", "{attestationAuthorityNames: [a]}"), nil},
		{"no YAML", "a: [", []string{"1: : did not find"}},
		{"no object", good + "---\nkind: X\n", []string{"6: : without apiVersion"}},
		{"a bad kind of key beside a good one", authorityOf("a", "{\nkeyType: X509}", keyOf(pemA, "")), []string{"5: spec.publicKeys[0].keyType: want PGP or PKIX"}},
		{"a bad key beside a good one", authorityOf("a", keyOf(`"x"`, ""), keyOf(pemA, "")), []string{"4: spec.publicKeys[0]: PEM"}},
		{"a bad time", authorityOf("a", keyOf(pemA, ",\nvalidUntil: soon"), keyOf(pemA, "")), []string{"5: spec.publicKeys[0].validUntil: not a time"}},
		{"no usable key", authorityOf("a", "{keyType: X509}"), []string{"4: spec.publicKeys[0].keyType: want PGP or PKIX"}},
		{"no key", authorityOf("a"), []string{"1: : has no key"}},
		{"a private key", authorityOf("a", keyOf(`"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n-----BEGIN EC PRIVATE KEY-----\neA==\n-----END EC PRIVATE KEY-----\n"`, "")), []string{"4: spec.publicKeys[0]: this is a private key: remove it and consider it leaked"}},
		{"a private key of OpenPGP", authorityOf("a", pgpOf(t, "pgp.private")), []string{"4: spec.publicKeys[0]: this is a private key: remove it and consider it leaked"}},
		{"a key that lost a line", authorityOf("a", keyOf(`"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEad0imBmcm1Y1Wg+9pxWrzmvRf608\n-----END PUBLIC KEY-----\n"`, "")), []string{"4: spec.publicKeys[0]: is not a public key: copy it again from openssl pkey -pubout"}},
		{"an authority that is not there", gap("{attestationAuthorityNames: [a,\ngone]}"), []string{"9: spec.attestationAuthorityNames[1]: shop/gone does not exist"}},
		{"several problems of one policy", gap("{attestationAuthorityNames: [a],\nrequire: 7,\nenforcement: Enforced, notBefore: now,\nx: 1}"), []string{
			"9: spec.require: 7 is more", "10: spec.enforcement: want Enforce", "10: spec.notBefore: not a time", "11: spec.x: unknown field"}},
		{"a field twice", gap("{attestationAuthorityNames: [a],\nrequire: 1,\nrequire: 1}"), []string{"10: spec.require: duplicate field"}},
		{"a field of a wrong type", gap("{attestationAuthorityNames:\n[{}]}"), []string{"8: spec.attestationAuthorityNames: want a string", "9: spec.attestationAuthorityNames[0]: does not exist"}},
		{"an unknown kind", manifest("Policy", "shop", "p", "{}"), []string{"1: : kind Policy"}},
		{"a pattern", manifest("AdmissionAllowlist", "", "l", "{patterns: [{namePattern: a},\n{namePattern: A b}]}"), []string{"4: spec.patterns[1]: white space"}},
		{"a pattern of a policy", gap("{attestationAuthorityNames: [a], admissionAllowlistPatterns: [\n{namePattern: A b}]}"), []string{"9: spec.admissionAllowlistPatterns[0]: white space"}},
		{"two stars in an allowlist", gap("{attestationAuthorityNames: [a], admissionAllowlistPatterns: [\n{namePattern: r.example.com/**}]}") + "---\n" + manifest("ClusterAttestationPolicy", "", "c", "{authorities: [{name: a, ref: {namespace: shop, name: a}}],\nallowlist: [{namePattern: '**'}]}"),
			[]string{"9: spec.admissionAllowlistPatterns[0]: ** works only in spec.images", "14: spec.allowlist[0]: ** works only in spec.images"}},
		{"a revocation", manifest("ImageRevocation", "", "r", "{digests: [\nsha256:abc]}"), []string{"4: spec.digests[0]: sha256"}},
		{"an attestation", manifest("ImageAttestation", "", "sha256-"+strings.Repeat("ab", 32), "{attestations: [\n{resourceUri: 'r@sha256:"+strings.Repeat("ab", 32)+"',\nattestation: {serializedPayload: eA==, signatures: [{signature: eA==, publicKeyId: k}]}}]}"),
			[]string{"4: spec.attestations[0]: "}},
		{"two of one name", good + "---\n" + good, []string{"1: : also in p.yaml (document 2)", "6: : also in p.yaml (document 1)"}},
		{"in a List", "apiVersion: v1\nkind: List\nitems:\n-\n  " + strings.ReplaceAll(manifest("Policy", "shop", "p", "{}"), "\n", "\n   "), []string{"5: : kind Policy"}},
		{"in JSON", "{\"apiVersion\": \"horkos.dev/v1alpha1\",\n\"kind\": \"ImageRevocation\", \"metadata\": {\"name\": \"r\"},\n\"spec\": {\n\"reason\": \"\\ud83d\\ude00\",\n\"digests\": [\n\"sha256:abc\"]}}", []string{"6: spec.digests[0]: sha256"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, found := checked(t, tt.text)
			wantCode := 0
			if len(tt.want) > 0 {
				wantCode = exitNotAllowed
			}
			if got.code != wantCode || len(found) != len(tt.want) {
				t.Fatalf("exit %d, want %d; %d findings, want %d: %s", got.code, wantCode, len(found), len(tt.want), got.out)
			}
			for i, want := range tt.want {
				f := found[i]
				place := fmt.Sprintf("%d: %s: ", f.Line, f.Field)
				if !strings.HasPrefix(want, place) || !strings.Contains(f.Message, strings.TrimPrefix(want, place)) || f.File != "p.yaml" || f.Severity != severityError {
					t.Errorf("got %+v, want %q", f, want)
				}
			}
		})
	}
}

func TestEveryWarningIsTold(t *testing.T) {
	past, ahead := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	policyOf := func(authority, spec string) string {
		return authority + "---\n" + manifest("GenericAttestationPolicy", "shop", "p", "{attestationAuthorityNames: [a]"+spec+"}")
	}
	scoped := func(name, more string) string {
		return manifest("ClusterAttestationPolicy", "", name, "{authorities: [{name: a, publicKeys: ["+keyOf(pemA, "")+"]}]"+more+"}")
	}
	const labelled = "---\n{apiVersion: v1, kind: Namespace, metadata: {name: n, labels: {a: b, b: c}}}\n"
	tests := []struct {
		name, text string
		args       []string
		want       []string
	}{
		{"authorities that share a key", authorityOf("a", keyOf(pemA, "")) + "---\n" + authorityOf("b", keyOf(pemA, "")), nil, []string{"6: : a key in common"}},
		{"an open host pattern", manifest("AdmissionAllowlist", "", "l", "{patterns: [\n{namePattern: reg*.example.com/x}]}"), nil, []string{"4: spec.patterns[0]: open host"}},
		{"a scope without a default deny", scoped("c", ",\nimages: [registry.example.com/**]"), nil, []string{"4: spec.images: out of this scope"}},
		{"a scope where the gates deny", scoped("c", ",\nimages: [registry.example.com/**]"), []string{"--default-action", "deny"}, nil},
		{"a scope beside a policy for all", scoped("c", ",\nimages: [registry.example.com/**]") + "---\n" + scoped("d", ""), nil, nil},
		{"a scope beside a policy for all that only reports", scoped("c", ",\nimages: [registry.example.com/**]") + "---\n" + scoped("d", ", enforcement: Audit"), nil, []string{"4: spec.images: out of this scope"}},
		{"a scope beside a policy for the same namespaces", scoped("c", ", namespaceSelector: {matchLabels: {a: b}},\nimages: [registry.example.com/**]") + "---\n" + scoped("d", ", namespaceSelector: {matchLabels: {a: b}}") + labelled, nil, nil},
		{"a scope beside a policy for other namespaces", scoped("c", ",\nimages: [registry.example.com/**]") + "---\n" + scoped("d", ", namespaceSelector: {matchLabels: {a: b}}") + labelled, nil, []string{"4: spec.images: out of this scope"}},
		{"a scope that only reports", scoped("c", ", enforcement: Warn,\nimages: [registry.example.com/**]"), nil, nil},
		{"a scope without a slash", scoped("c", ", enforcement: Warn,\nimages: [registry.example.com*]"), nil, []string{"4: spec.images[0]: docker.io/library/registry.example.com*"}},
		{"a scope of everything", scoped("c", ", enforcement: Warn,\nimages: ['**']"), nil, nil},
		{"a registry without a slash in an allowlist of the cluster", scoped("c", ",\nallowlist: [{namePattern: ghcr.io*}]"), nil, []string{"4: spec.allowlist[0]: docker.io/library/ghcr.io*, and no registry"}},
		{"a registry without a slash in an AdmissionAllowlist", manifest("AdmissionAllowlist", "", "l", "{patterns: [\n{namePattern: ghcr.io*},\n{namePattern: '*'},\n{namePattern: localhost*},\n{namePattern: nginx}, {namePattern: ghcr.io/*}]}"), nil,
			[]string{"4: spec.patterns[0]: docker.io/library/ghcr.io*, and no registry", "5: spec.patterns[1]: docker.io/library/*, and no", "6: spec.patterns[2]: docker.io/library/localhost*"}},
		{"a registry without a slash in a policy's allowlist", policyOf(authorityOf("a", keyOf(pemA, "")), ",\nadmissionAllowlistPatterns: [{namePattern: ghcr.io*}]"), nil, []string{"9: spec.admissionAllowlistPatterns[0]: docker.io/library/ghcr.io*"}},
		{"two stars in an AdmissionAllowlist", manifest("AdmissionAllowlist", "", "l", "{patterns: [\n{namePattern: r.example.com/**},\n{namePattern: r.example.com/a**}]}"), nil, []string{"4: spec.patterns[0]: ** works only in spec.images", "5: spec.patterns[1]: ** works only in spec.images"}},
		{"require above the distinct keys", authorityOf("a", keyOf(pemA, "")) + "---\n" + authorityOf("b", keyOf(pemA, "")) + "---\n" + manifest("GenericAttestationPolicy", "shop", "p", "{attestationAuthorityNames: [a, b],\nrequire: 2}"), nil,
			[]string{"6: : a key in common", "14: spec.require: it denies everything"}},
		{"a key that has expired", authorityOf("a", keyOf(pemA, ",\nvalidUntil: "+past)), nil, []string{"5: spec.publicKeys[0].validUntil: only what it signed before"}},
		{"keys that count no more", strings.Replace(authorityOf("a", keyOf(pemA, ",\nvalidUntil: "+past)), "{publicKeys", "{acceptExpiredKeys: false, publicKeys", 1), nil,
			[]string{"3: spec.publicKeys: nothing satisfies", "5: spec.publicKeys[0].validUntil: nothing that it signed counts"}},
		{"one of two keys that counts no more", strings.Replace(authorityOf("a", keyOf(pemA, ",\nvalidUntil: "+past), keyOf(pemB, "")), "{publicKeys", "{acceptExpiredKeys: false, publicKeys", 1), nil,
			[]string{"5: spec.publicKeys[0].validUntil: nothing that it signed counts"}},
		{"a key not to be used yet", authorityOf("a", keyOf(pemA, ",\nvalidFrom: "+ahead), keyOf(pemB, "")), nil, []string{"5: spec.publicKeys[0].validFrom: not to be used yet"}},
		{"a key that is never valid", authorityOf("a", keyOf(pemA, ",\nvalidUntil: "+past+", validFrom: "+past), keyOf(pemB, "")), nil, []string{"5: spec.publicKeys[0].validUntil: at no time valid"}},
		{"a key that will expire", authorityOf("a", keyOf(pemA, ", validUntil: "+ahead)), nil, nil},
		{"a key of a policy of the cluster", manifest("ClusterAttestationPolicy", "", "c", "{authorities: [{name: a, publicKeys: ["+keyOf(pemA, ",\nvalidUntil: "+past)+"]}]}"), nil, []string{"4: spec.authorities[0].publicKeys[0].validUntil: only what"}},
		{"a bound ahead of now", policyOf(authorityOf("a", keyOf(pemA, "")), ",\nnotBefore: "+ahead), nil, []string{"9: spec.notBefore: lies ahead"}},
		{"an authority listed twice", policyOf(authorityOf("a", keyOf(pemA, "")), ",\nemergencyAuthorityNames: [a, a]"), nil, []string{"9: spec.emergencyAuthorityNames[1]: listed again", "9: spec.emergencyAuthorityNames: by itself"}},
		{"an emergency authority with a key of another", authorityOf("a", keyOf(pemA, "")) + "---\n" + authorityOf("oncall", keyOf(pemA, "")) + "---\n" + manifest("GenericAttestationPolicy", "shop", "p", "{attestationAuthorityNames: [a],\nemergencyAuthorityNames: [oncall]}"), nil,
			[]string{"6: : a key in common", "14: spec.emergencyAuthorityNames: satisfies the policy by itself"}},
		{"an emergency authority that is one of the others", policyOf(authorityOf("a", keyOf(pemA, "")), ",\nemergencyAuthorityNames: [a]"), nil, []string{"9: spec.emergencyAuthorityNames: satisfies the policy by itself"}},
		{"an emergency authority with a key of its own", policyOf(authorityOf("a", keyOf(pemA, ""))+"---\n"+authorityOf("b", keyOf(pemB, "")), ",\nemergencyAuthorityNames: [b]"), nil, nil},
		{"an emergency authority of the cluster with a key of another", scoped("c", ",\nemergencyAuthorities: [{name: b, publicKeys: ["+keyOf(pemA, "")+"]}]"), nil, []string{"4: spec.emergencyAuthorities: satisfies the policy by itself"}},
		{"a selector of namespaces without a name", scoped("c", ",\nnamespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: DoesNotExist}]}"), nil, []string{"4: spec.namespaceSelector: selects no namespace"}},
		{"a selector of two names", scoped("c", ",\nnamespaceSelector: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: In, values: [c, d]}]}") + labelled, nil, []string{"4: spec.namespaceSelector: selects no namespace"}},
		{"a selector of what it excludes", scoped("c", ",\nnamespaceSelector: {matchExpressions: [{key: a, operator: In, values: [b, c]}, {key: a, operator: NotIn, values: [c, b]}]}") + labelled, nil, []string{"4: spec.namespaceSelector: selects no namespace"}},
		{"a selector of what is not there", scoped("c", ",\nnamespaceSelector: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: DoesNotExist}]}") + labelled, nil, []string{"4: spec.namespaceSelector: selects no namespace"}},
		{"a selector that selects some", scoped("c", ",\nnamespaceSelector: {matchExpressions: [{key: a, operator: In, values: [b, c]}, {key: a, operator: NotIn, values: [c]}, {key: a, operator: Exists}, {key: b, operator: DoesNotExist}]}") + labelled, nil, nil},
		{"a selector of a label that no namespace has", scoped("c", ",\nnamespaceSelector: {matchLabels: {env: prod}}") + labelled, nil, []string{"4: spec.namespaceSelector: no Namespace object here has label env: every namespace"}},
		{"a selector of labels without any namespace", scoped("c", ",\nnamespaceSelector: {matchLabels: {env: prod}, matchExpressions: [{key: env, operator: Exists}, {key: free, operator: DoesNotExist}]}"), nil, []string{"4: spec.namespaceSelector: has label env: ", "4: spec.namespaceSelector: has label free: "}},
		{"a selector of namespaces without a label", scoped("c", ",\nnamespaceSelector: {matchExpressions: [{key: free, operator: DoesNotExist}]}") + labelled, nil, nil},
		{"a selector of names", scoped("c", ",\nnamespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}"), nil, nil},
		{"a PGP key that is revoked", authorityOf("a", pgpOf(t, "pgp-revoked")), nil, []string{"3: spec.publicKeys: nothing satisfies", "4: spec.publicKeys[0]: the key is revoked"}},
		{"a PGP key that is revoked beside a good one", authorityOf("a", pgpOf(t, "pgp-revoked"), keyOf(pemA, "")), nil, []string{"4: spec.publicKeys[0]: the key is revoked"}},
		{"a PGP key that has expired", authorityOf("a", pgpOf(t, "pgp-expired")), nil, []string{"4: spec.publicKeys[0]: only what it signed before"}},
		{"a PGP key that has expired and counts no more", strings.Replace(authorityOf("a", pgpOf(t, "pgp-expired")), "{publicKeys", "{acceptExpiredKeys: false, publicKeys", 1), nil, []string{"3: spec.publicKeys: nothing satisfies", "4: spec.publicKeys[0]: nothing that it signed counts"}},
		{"a PGP key of the older shape that is revoked", manifest("AttestationAuthority", "shop", "a", "{publicKeyData: "+pgpKeyOf(t, "pgp-revoked")+"}"), nil, []string{"3: spec.publicKeyData: the key is revoked", "3: spec.publicKeyData: nothing satisfies"}},
		{"a PGP key that is good", authorityOf("a", pgpOf(t, "pgp")), nil, nil},
		{"a group that looks like ours", authorityOf("a", keyOf(pemA, "")) + "---\n" + strings.Replace(manifest("GenericAttestationPolicy", "shop", "p", "{}"), "grafeas.io", "grafeas.com", 1), nil, []string{"6: apiVersion: is passed over"}},
		{"a kind of ours in another group", authorityOf("a", keyOf(pemA, "")) + "---\n" + strings.Replace(manifest("ClusterAttestationPolicy", "", "p", "{}"), "horkos.dev", "horcos.dev", 1), nil, []string{"6: apiVersion: is passed over"}},
		{"nothing but a group that looks like ours", strings.Replace(authorityOf("a", keyOf(pemA, "")), "kritis.grafeas.io", "kritis.io", 1), nil, []string{"1: apiVersion: is passed over"}},
		{"another group", authorityOf("a", keyOf(pemA, "")) + "---\n{apiVersion: kyverno.io/v1, kind: ClusterPolicy, metadata: {name: p}}\n", nil, nil},
		{"scans without a source", manifest("ImageSecurityPolicy", "shop", "i", "{}"), nil, []string{"3: spec: no source"}},
		{"a kind that decides nothing", manifest("BuildPolicy", "shop", "b", "{}"), nil, []string{"1: : decide nothing"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, found := checked(t, tt.text, tt.args...)
			if got.code != 0 || len(found) != len(tt.want) {
				t.Fatalf("exit %d, %d findings, want %d: %s", got.code, len(found), len(tt.want), got.out)
			}
			for i, want := range tt.want {
				f := found[i]
				place := fmt.Sprintf("%d: %s: ", f.Line, f.Field)
				if !strings.HasPrefix(want, place) || !strings.Contains(f.Message, strings.TrimPrefix(want, place)) || f.Severity != severityWarning {
					t.Errorf("got %+v, want %q", f, want)
				}
			}
		})
	}
}

// entry is an attestation of a manifest that attest printed.
func entry(t *testing.T, made outcome) string {
	t.Helper()
	if made.code != 0 {
		t.Fatalf("%+v", made)
	}
	text, err := json.Marshal(attestations(t, made.out)[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAttestationsThatCannotCountAreTold(t *testing.T) {
	release, other := newPair(t, newECDSA(t, elliptic.P256())), newPair(t, newECDSA(t, elliptic.P256()))
	by := func(key pair, name string, more ...string) string {
		return entry(t, program(append([]string{"attest", name, "--pkix-key", key.file}, more...)...))
	}
	good := by(release, cart+"@"+digestA)
	object := func(entries ...string) string {
		return manifest("ImageAttestation", "", strings.Replace(digestA, ":", "-", 1), "{attestations: [\n"+strings.Join(entries, ",\n")+"]}")
	}
	broken := regexp.MustCompile(`"signature":"....`).ReplaceAllString(good, `"signature":"AAAA`)
	elsewhere := strings.Replace(good, cart+"@", cart+"s@", 1)
	past := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	tests := []struct {
		name    string
		entries []string
		want    []string
	}{
		{"one that counts", []string{good}, nil},
		{"by another key", []string{good, by(other, cart+"@"+digestA)}, []string{"18: spec.attestations[1]: no authority that a policy names has its key ni:///sha-256;"}},
		{"broken", []string{broken, good}, []string{"17: spec.attestations[0]: bad signature"}},
		{"filed under another image", []string{elsewhere}, []string{"17: spec.attestations[0]: it speaks of " + cart + "@" + digestA}},
		{"expired", []string{strings.Replace(good, "{", `{"expires": "`+past+`", `, 1)}, []string{"17: spec.attestations[0]: it expired at " + past}},
		{"expired under the signature", []string{by(release, cart+"@"+digestA, "--expires", "1ns")}, []string{"17: spec.attestations[0]: it expired at "}},
		{"under another note", []string{by(release, cart+"@"+digestA, "--note", "projects/q/notes/n")}, []string{"17: spec.attestations[0]: its note \"projects/q/notes/n\""}},
		{"under the note", []string{by(release, cart+"@"+digestA, "--note", "projects/p/notes/n")}, nil},
	}
	policies := release.policyOf("", "")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, found := checked(t, policies+"---\n"+object(tt.entries...))
			if got.code != 0 || len(found) != len(tt.want) {
				t.Fatalf("%+v", got)
			}
			for i, want := range tt.want {
				line, rest, _ := strings.Cut(want, ": ")
				field, message, _ := strings.Cut(rest, ": ")
				if f := found[i]; f.Field != field || !strings.Contains(f.Message, message) || f.Severity != severityWarning || fmt.Sprint(f.Line) != line {
					t.Errorf("got %+v, want %q", f, want)
				}
			}
			// There is nothing to hold them to without a policy.
			if got, found := checked(t, object(tt.entries...)); got.code != 0 || len(found) != 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestCheckVerifiesABoundedNumberOfSignatures(t *testing.T) {
	release := newPair(t, newECDSA(t, elliptic.P256()))
	set, err := objects.Load(write1(t, "p.yaml", release.policyOf("", "")))
	if err != nil {
		t.Fatal(err)
	}
	made, err := crds.Decode([]byte(program("attest", cart+"@"+digestA, "--pkix-key", release.file).out), "a.yaml")
	if err != nil {
		t.Fatal(err)
	}
	a := audition{snap: newWorld("deny", set).snap, now: time.Now(), verified: maxVerified - 1}
	for i, want := range []int{0, 1, 0} {
		if w := a.attestations(&made[0]); len(w) != want {
			t.Errorf("%d: %v", i, w)
		}
	}
}

func TestWithStrictWarningsAreProblems(t *testing.T) {
	open := write1(t, "p.yaml", manifest("AdmissionAllowlist", "", "l", "{patterns: [{namePattern: reg*.example.com/x}]}"))
	good := write1(t, "p.yaml", authorityOf("a", keyOf(pemA, "")))
	for _, tt := range []struct {
		args []string
		code int
	}{{[]string{open}, 0}, {[]string{open, "--strict"}, exitNotAllowed}, {[]string{good, "--strict"}, 0}} {
		got := program(append([]string{"policy", "check"}, tt.args...)...)
		if got.code != tt.code || !strings.Contains(got.errors, " 0 problems, ") {
			t.Errorf("%v: %+v", tt.args, got)
		}
	}
}

func TestCheckPrintsALineAFinding(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("policies", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"a.yaml": authorityOf("a", keyOf(pemA, "")),
		"b.yaml": authorityOf("b", keyOf(pemA, "")) + "---\n" + manifest("GenericAttestationPolicy", "shop", "p", "{attestationAuthorityNames: [a],\n\"\\e]x\": 1}"),
		"c.yaml": "{",
		"d.txt":  "not read",
	} {
		if err := os.WriteFile(filepath.Join("policies", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := program("policy", "check", "policies")
	want := []string{
		"policies/b.yaml:1: warning: AttestationAuthority shop/b: it has a key in common with AttestationAuthority shop/a: they share attestations",
		"policies/b.yaml:9: spec.?]x: unknown field",
		"policies/c.yaml:1: yaml: line 1: did not find expected node content",
	}
	if lines := strings.Split(strings.TrimSuffix(got.out, "\n"), "\n"); !slices.Equal(lines, want) {
		t.Errorf("got\n%s", got.out)
	}
	if got.code != exitNotAllowed || got.errors != "3 objects, 2 problems, 1 warning\n" {
		t.Errorf("exit %d, said %q", got.code, got.errors)
	}
}

func TestNothingToCheckIsNoSuccess(t *testing.T) {
	dir := t.TempDir()
	other := write1(t, "p.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}")
	for _, path := range []string{dir, other} {
		if got := program("policy", "check", path); got.code != exitUndecided || !strings.Contains(got.errors, "nothing to check") {
			t.Errorf("%+v", got)
		}
	}
}

func TestAProblemOfAFileThatIsNoFileIsToldWithoutReadingIt(t *testing.T) {
	got, found := program("policy", "check", os.DevNull, "-o", "json"), []finding{}
	if err := json.Unmarshal([]byte(got.out), &found); err != nil || got.code != exitNotAllowed || len(found) != 1 || found[0].Line != 0 || !strings.Contains(found[0].Message, "not a regular file") {
		t.Errorf("%v: %+v", err, got)
	}
}
