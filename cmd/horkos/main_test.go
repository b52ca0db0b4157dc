package main

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/horkos/horkos/verifier"
)

// outcome is what running the program gave.
type outcome struct {
	code        int
	out, errors string
}

func program(args ...string) outcome {
	var out, errors bytes.Buffer
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&errors)
	code := run(context.Background(), cmd)
	return outcome{code, out.String(), errors.String()}
}

// answers reads what verify -o json printed, and holds it to the keys of the contract.
func (o outcome) answers(t *testing.T) []answer {
	t.Helper()
	var raw []map[string]json.RawMessage
	if err := json.Unmarshal([]byte(o.out), &raw); err != nil {
		t.Fatalf("%v: %s%s", err, o.out, o.errors)
	}
	for _, r := range raw {
		hasKeys(t, r, "image", "digest", "namespace", "result", "reason", "message", "revision", "checks")
		var checks []map[string]json.RawMessage
		if err := json.Unmarshal(r["checks"], &checks); err != nil || checks == nil {
			t.Errorf("checks %s: %v", r["checks"], err)
		}
		for _, c := range checks {
			hasKeys(t, c, "result", "reason", "layer", "policy", "requirement", "authority", "keyID", "attestation", "detail")
		}
	}
	var all []answer
	if err := json.Unmarshal([]byte(o.out), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func hasKeys(t *testing.T, object map[string]json.RawMessage, want ...string) {
	t.Helper()
	var got []string
	for key := range object {
		got = append(got, key)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("keys %v, want %v", got, want)
	}
}

func write1(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	digestA = "sha256:a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"
	cart    = "registry.example.com/shop/cart"
	unmet   = `apiVersion: kritis.grafeas.io/v1beta1
kind: AttestationAuthority
metadata: {name: release, namespace: shop}
spec:
  publicKeys:
  - keyType: PKIX
    pkixPublicKey:
      publicKeyPem: |
        -----BEGIN PUBLIC KEY-----
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEy13+a1Qn796gtyKgjY5xExIOQVue
        ynlD/JxvnKfQFicf+LO9zVnLMG9ngiqlHyLtr5Jp7ObSFBcMPRCYzvNQUA==
        -----END PUBLIC KEY-----
---
apiVersion: kritis.grafeas.io/v1beta1
kind: GenericAttestationPolicy
metadata: {name: shop, namespace: shop}
spec: {attestationAuthorityNames: [release]}
---
apiVersion: kritis.grafeas.io/v1beta1
kind: GenericAttestationPolicy
metadata: {name: broken, namespace: broken}
spec: {attestationAuthorityNames: [release], x: 1}
`
)

func TestTheExitCodeIsThatOfTheImageThatMattersMost(t *testing.T) {
	policy := write1(t, "policy.yaml", unmet)
	allowed, denied, unresolved := "nginx@"+digestA, cart+"@"+digestA, cart+":1"
	tests := []struct {
		name string
		args []string
		want int
	}{
		{"allowed", []string{allowed, "-n", "other", "--default-action", "allow"}, exitAllowed},
		{"denied", []string{denied, "-n", "shop"}, exitNotAllowed},
		{"unresolved", []string{unresolved, "-n", "shop"}, exitUndecided},
		{"misconfigured", []string{denied, "-n", "broken"}, exitUndecided},
		{"an id", []string{digestA}, exitUndecided},
		{"denied and unresolved", []string{denied, unresolved, "-n", "shop"}, exitUndecided},
		{"unresolved and denied", []string{unresolved, denied, "-n", "shop"}, exitUndecided},
		{"denied by default", []string{allowed, "-n", "other"}, exitNotAllowed},
		{"allowed in the default namespace", []string{denied, "--default-action", "allow"}, exitAllowed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, format := range []string{"table", "json"} {
				got := program(append([]string{"verify", "--policy", policy, "-o", format}, tt.args...)...)
				if got.code != tt.want || got.out == "" {
					t.Errorf("exit %d, want %d: %s%s", got.code, tt.want, got.out, got.errors)
				}
			}
		})
	}
	for _, tt := range []struct {
		results []verifier.Result
		want    error
	}{
		{[]verifier.Result{verifier.Allowed}, nil},
		{[]verifier.Result{verifier.Allowed, verifier.Denied}, exit(1)},
		{[]verifier.Result{verifier.Denied, verifier.Unavailable, verifier.Allowed, verifier.Denied}, exit(2)},
	} {
		var answers []answer
		for _, r := range tt.results {
			answers = append(answers, answer{Result: r})
		}
		if got := verdict(answers); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.results, got, tt.want)
		}
	}
}

func TestBadUsageIsSaidAndExitsWithTwo(t *testing.T) {
	key, good := write1(t, "key.pem", "not a key"), newPair(t, newECDSA(t, elliptic.P256())).file
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"no image", []string{"verify"}, "name an image, such as: horkos verify registry"},
		{"an image that is none", []string{"verify", "UPPER/case", "--policy", write1(t, "p.yaml", unmet)}, "lower case"},
		{"a namespace that cannot be", []string{"verify", "nginx", "-n", "Shop"}, "cannot be the name of a namespace"},
		{"an empty namespace", []string{"verify", "nginx", "-n", ""}, "cannot be the name of a namespace"},
		{"a time that is none", []string{"verify", "nginx", "--at", "tomorrow"}, "--at: want a time of RFC 3339"},
		{"an action that is none", []string{"verify", "nginx", "--default-action", "maybe"}, "want allow or deny"},
		{"an output that is none", []string{"verify", "nginx", "-o", "yaml"}, "want table or json"},
		{"a policy that is not there", []string{"verify", "nginx", "--policy", "/nowhere.yaml"}, "/nowhere.yaml"},
		{"a flag that is none", []string{"verify", "nginx", "--polizy", "x"}, "unknown flag: --polizy"},
		{"a verb that is none", []string{"verfy"}, "unknown command"},
		{"nothing to attest", []string{"attest"}, "name the image by its digest, such as: horkos attest"},
		{"two to attest", []string{"attest", "a", "b"}, "2 arguments, want one"},
		{"a tag to attest", []string{"attest", "nginx:1", "--pkix-key", key}, "want repository@sha256:"},
		{"a digest that an object cannot be named by", []string{"attest", "nginx@sha512:" + strings.Repeat("ab", 64), "--pkix-key", key}, "want repository@sha256:"},
		{"no key", []string{"attest", "nginx@" + digestA}, "--pkix-key or --pgp-key is needed"},
		{"two keys", []string{"attest", "nginx@" + digestA, "--pkix-key", key, "--pgp-key", key}, "want one of them"},
		{"a passphrase without a PGP key", []string{"attest", "nginx@" + digestA, "--pkix-key", key, "--passphrase-file", key}, "--passphrase-file is for --pgp-key"},
		{"an algorithm for a PGP key", []string{"attest", "nginx@" + digestA, "--pgp-key", key, "--pkix-alg", "ed25519"}, "--pkix-alg is for --pkix-key"},
		{"an id for a PGP key", []string{"attest", "nginx@" + digestA, "--pgp-key", key, "--key-id", "x"}, "--key-id is for --pkix-key"},
		{"a PGP key that is none", []string{"attest", "nginx@" + digestA, "--pgp-key", key}, "private key"},
		{"a PGP key that is not there", []string{"attest", "nginx@" + digestA, "--pgp-key", "/nowhere.asc"}, "/nowhere.asc"},
		{"a merge into nothing", []string{"attest", "nginx@" + digestA, "--pkix-key", key, "--merge", ""}, "--merge"},
		{"a pruning of nothing", []string{"attest", "nginx@" + digestA, "--pkix-key", key, "--prune"}, "--prune is for --merge"},
		{"nothing to check", []string{"policy", "check"}, "such as: horkos policy check policies/"},
		{"no cases", []string{"policy", "test"}, "such as: horkos policy test cases/"},
		{"a check of what is not there", []string{"policy", "check", "/nowhere.yaml"}, "/nowhere.yaml"},
		{"cases that are not there", []string{"policy", "test", "/nowhere.yaml"}, "/nowhere.yaml"},
		{"a verb of policy that is none", []string{"policy", "chekc"}, "unknown command \"chekc\" for \"horkos policy\"\n\nDid you mean this?\n\tcheck\n"},
		{"a verb of audit that is none", []string{"audit", "tial"}, "Did you mean this?\n\ttail\n"},
		{"help about what is none", []string{"help", "veriyf"}, "Did you mean this?\n\tverify\n"},
		{"help about what is no verb of policy", []string{"help", "policy", "chekc"}, "Did you mean this?\n\tcheck\n"},
		{"no log to verify", []string{"audit", "verify"}, "such as: horkos audit verify /var/lib/horkos/audit.log*"},
		{"an algorithm that is none", []string{"attest", "nginx@" + digestA, "--pkix-key", good, "--pkix-alg", "foo"}, "want one of rsa-sign-pkcs1-2048-sha256, "},
		{"a shell that is none", []string{"completion", "tcsh"}, "invalid argument"},
		{"no shell", []string{"completion"}, "bash, zsh or fish, such as: horkos completion bash"},
		{"a key that is not there", []string{"attest", "nginx@" + digestA, "--pkix-key", "/nowhere.pem"}, "/nowhere.pem"},
		{"a key that is none", []string{"attest", "nginx@" + digestA, "--pkix-key", key}, "private key"},
		{"an expiry of nothing", []string{"attest", "nginx@" + digestA, "--pkix-key", key, "--expires", "0s"}, "--expires"},
		{"an expiry in the past", []string{"attest", "nginx@" + digestA, "--pkix-key", key, "--expires", "-1h"}, "--expires"},
		{"an expiry without a unit", []string{"attest", "nginx@" + digestA, "--pkix-key", key, "--expires", "30"}, "--expires"},
		{"an argument of version", []string{"version", "x"}, "unknown command"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := program(tt.args...)
			if got.code != exitUndecided || !strings.Contains(got.errors, tt.want) || got.out != "" {
				t.Errorf("exit %d, said %q, printed %q; want %q", got.code, got.errors, got.out, tt.want)
			}
			if strings.Contains(got.errors, "not a key") {
				t.Error("the key was quoted")
			}
		})
	}
}

func TestVersionIsPrinted(t *testing.T) {
	if got := program("version"); got.code != 0 || strings.TrimSpace(got.out) == "" {
		t.Errorf("%+v", got)
	}
}

func TestTheTableNamesEachImageAndTellsWhatIsRefused(t *testing.T) {
	got := program("verify", "--policy", write1(t, "p.yaml", unmet), "-n", "shop", cart+"@"+digestA, cart+":1")
	lines := strings.Split(got.out, "\n")
	if len(lines) < 5 || !strings.HasPrefix(lines[0], "RESULT") || !strings.HasPrefix(lines[1], "denied") || !strings.HasPrefix(lines[2], "unresolved") {
		t.Errorf("printed\n%s", got.out)
	}
	if !strings.Contains(got.out, "by authority release (no attestation found)") || !strings.Contains(got.out, "name it by its digest") {
		t.Errorf("printed\n%s", got.out)
	}
}

func TestProblemsOfManifestsAreToldOnStandardErrorWithoutTheirControlCharacters(t *testing.T) {
	evil := `apiVersion: kritis.grafeas.io/v1beta1
kind: AdmissionAllowlist
metadata: {name: list}
spec: {patterns: [{namePattern: "\e[31m registry.example.com/x"}, {namePattern: "reg*.example.com/x"}], "\e[2Jx": 1}
`
	for name, text := range map[string]string{"unknown field": evil, "open host pattern": strings.Replace(evil, `, "\e[2Jx": 1`, "", 1)} {
		got := program("verify", "nginx", "--policy", write1(t, "p.yaml", text), "-o", "json", "--default-action", "allow")
		if got.code != 0 || !strings.Contains(got.errors, name) || strings.ContainsRune(got.errors, 0x1b) {
			t.Errorf("exit %d, said %q, want %q", got.code, got.errors, name)
		}
		got.answers(t)
	}
}

func TestAFileThatDoesNotParseMakesEverythingMisconfigured(t *testing.T) {
	got := program("verify", "nginx", "--policy", write1(t, "p.yaml", "{"), "-o", "json")
	if a := got.answers(t); got.code != exitUndecided || a[0].Result != verifier.Misconfigured {
		t.Errorf("exit %d: %+v", got.code, a)
	}
}

func TestWithoutPoliciesVerifySaysThatNothingDecides(t *testing.T) {
	for _, action := range []string{"allow", "deny"} {
		for _, extra := range [][]string{nil, {"-o", "json"}, {"--explain"}} {
			got := program(append([]string{"verify", "nginx", "--default-action", action}, extra...)...)
			want := "no --policy is given: nothing decides but the default action, " + action + "\n" +
				"no policy speaks of namespace default: the default action, " + action + ", decides\n"
			if got.errors != want {
				t.Errorf("said %q, want %q", got.errors, want)
			}
		}
	}
	if got := program("verify", "nginx", "--policy", write1(t, "p.yaml", unmet)); strings.Contains(got.errors, "--policy") {
		t.Errorf("said %q", got.errors)
	}
}

// TestWithoutAPolicyNothingIsAllowedInSilence: a folder may be empty by mistake.
func TestWithoutAPolicyNothingIsAllowedInSilence(t *testing.T) {
	empty := t.TempDir()
	other := write1(t, "p.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}")
	labels := write1(t, "p.yaml", "{apiVersion: v1, kind: Namespace, metadata: {name: a}}")
	misspelt := write1(t, "p.yaml", strings.ReplaceAll(unmet, "kritis.grafeas.io", "kritis.grafeas.com"))
	for _, args := range [][]string{nil, {"--policy", empty}, {"--policy", other}, {"--policy", labels}, {"--policy", misspelt}} {
		args = append([]string{"verify", "nginx"}, args...)
		got := program(args...)
		if got.code != exitUndecided || got.out != "" || !strings.Contains(got.errors, "--default-action") {
			t.Errorf("%v: %+v", args, got)
		}
		got = program(append(args, "--default-action", "allow")...)
		if got.code != exitAllowed || !strings.Contains(got.errors, "nothing decides but the default action, allow") {
			t.Errorf("%v: %+v", args, got)
		}
	}
	if got := program("verify", "nginx", "--policy", misspelt); !strings.Contains(got.errors, `"kritis.grafeas.com/v1beta1" is of another group than kritis.grafeas.io/v1beta1`) {
		t.Errorf("said %q", got.errors)
	}
	policy := write1(t, "p.yaml", unmet)
	got := program("verify", "nginx", cart, "--policy", policy, "-n", "elsewhere", "--default-action", "allow")
	if want := "no policy speaks of namespace elsewhere: the default action, allow, decides\n"; got.code != exitAllowed || !strings.HasSuffix(got.errors, want) || strings.Count(got.errors, "elsewhere") != 1 {
		t.Errorf("%+v", got)
	}
	trial := write1(t, "p.yaml", strings.ReplaceAll(unmet, "[release]}", "[release], enforcement: Audit}"))
	got = program("verify", cart+"@"+digestA, "--policy", trial, "-n", "shop", "--default-action", "allow")
	if want := "no policy that enforces speaks of " + cart + "@" + digestA + " in namespace shop"; got.code != exitAllowed || !strings.Contains(got.errors, want) {
		t.Errorf("%+v", got)
	}
}

func TestAPolicyThatOnlyReportsAndWouldRefuseIsTold(t *testing.T) {
	trial := write1(t, "p.yaml", strings.ReplaceAll(unmet, "[release]}", "[release], enforcement: Audit}"))
	args := []string{"verify", cart + "@" + digestA, "--policy", trial, "-n", "shop"}
	want := "GenericAttestationPolicy shop/shop only reports (Audit): enforced, it would refuse " + cart + "@" + digestA + ": denied, NotAttested"
	if got := program(append(args, "--default-action", "allow")...); got.code != exitAllowed || !strings.Contains(got.errors, want) {
		t.Errorf("%+v", got)
	}
	// What is refused is told by its message, the others tell it anyway.
	got := program(args...)
	if got.code != exitNotAllowed || strings.Contains(got.errors, want) || !strings.Contains(got.out, "only policies that report (Audit, Warn) speak of the image") {
		t.Errorf("%+v", got)
	}
	for _, more := range [][]string{{"--explain"}, {"-o", "json"}} {
		if got := program(append(append(args, "--default-action", "allow"), more...)...); strings.Contains(got.errors, want) {
			t.Errorf("%v: %+v", more, got)
		}
	}
	key := newPair(t, newECDSA(t, elliptic.P256()))
	good := write1(t, "a.yaml", program("attest", cart+"@"+digestA, "--pkix-key", key.file).out)
	met := write1(t, "p.yaml", strings.Replace(key.policyOf("", ""), "[release]}", "[release], enforcement: Warn}", 1))
	got = program("verify", cart+"@"+digestA, "--policy", met, "--policy", good, "-n", "shop", "--default-action", "allow")
	if got.code != exitAllowed || strings.Contains(got.errors, "only reports") {
		t.Errorf("%+v", got)
	}
}
