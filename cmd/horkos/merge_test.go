package main

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/verifier"
)

// fed runs the program with something on its standard input.
func fed(stdin string, args ...string) outcome {
	var out, errors bytes.Buffer
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&errors)
	return outcome{run(context.Background(), cmd), out.String(), errors.String()}
}

// attestations are those of the one ImageAttestation in a manifest.
func attestations(t *testing.T, text string) []horkos.Attestation {
	t.Helper()
	objects, err := crds.Decode([]byte(text), "f")
	if err != nil || len(objects) != 1 || objects[0].Malformed() != "" {
		t.Fatalf("%v: %s", err, text)
	}
	return objects[0].Spec.(*horkos.ImageAttestationSpec).Attestations
}

func TestWhatIsMergedIsAllowedWithWhatWasThere(t *testing.T) {
	a, b := newPair(t, newECDSA(t, elliptic.P256())), newPair(t, newECDSA(t, elliptic.P384()))
	name := cart + "@" + digestA
	first := program("attest", name, "--pkix-key", a.file)
	policy := a.policyOf("", "") + "---\n" + strings.NewReplacer("name: release", "name: build", "name: shop,", "name: second,", "[release]", "[release, build]").Replace(b.policyOf("", ""))
	policy = strings.Replace(policy, "{attestationAuthorityNames: [release]}", "{attestationAuthorityNames: [release, build]}", 1)
	asJSON, err := yaml.YAMLToJSON([]byte(first.out))
	if err != nil {
		t.Fatal(err)
	}
	commented := "# who keeps this: release team\n" + strings.Replace(first.out, "metadata:\n", "metadata:\n  labels: {team: release} # kept\n  annotations: {at: 2026-11-21T12:00:00Z}\n", 1)
	for what, before := range map[string]string{"YAML": first.out, "JSON": string(asJSON), "comments and labels": commented} {
		t.Run(what, func(t *testing.T) {
			file := write1(t, "cart.yaml", before)
			if err := os.Chmod(file, 0o640); err != nil {
				t.Fatal(err)
			}
			got := program("attest", name, "--pkix-key", b.file, "--note", "projects/p/notes/b", "--merge", file)
			if got.code != 0 || got.out != "" || got.errors != "" {
				t.Fatalf("%+v", got)
			}
			merged, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(attestations(t, string(merged))); n != 2 {
				t.Fatalf("%d attestations:\n%s", n, merged)
			}
			if json.Valid(merged) != (what == "JSON") {
				t.Errorf("it is in another form:\n%s", merged)
			}
			for _, kept := range []string{"# who keeps this: release team", "labels: {team: release} # kept", "2026-11-21T12:00:00Z"} {
				if strings.Contains(before, kept) && !strings.Contains(string(merged), kept) {
					t.Errorf("%q was lost:\n%s", kept, merged)
				}
			}
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "*")); len(left) != 1 {
				t.Errorf("left behind: %v", left)
			}
			if a := attested(t, policy, string(merged), time.Now()); a.Result != verifier.Allowed {
				t.Errorf("%s: %s", a.Reason, a.Message)
			}
			// By way of standard input it is the same.
			got = fed(before, "attest", name, "--pkix-key", b.file, "--merge", "-")
			if got.code != 0 || len(attestations(t, got.out)) != 2 {
				t.Errorf("%+v", got)
			}
		})
	}
	if a := attested(t, policy, first.out, time.Now()); a.Result != verifier.Denied {
		t.Errorf("without the second one: %s: %s", a.Result, a.Message)
	}
}

func TestAFileThatIsNotThereIsMade(t *testing.T) {
	key := newPair(t, newECDSA(t, elliptic.P256()))
	file := filepath.Join(t.TempDir(), "cart.yaml")
	for want := 1; want <= 2; want++ {
		if got := program("attest", cart+"@"+digestA, "--pkix-key", key.file, "--merge", file); got.code != 0 {
			t.Fatalf("%+v", got)
		}
		text, err := os.ReadFile(file)
		if err != nil || len(attestations(t, string(text))) != want {
			t.Errorf("%v: %s", err, text)
		}
	}
	got := program("attest", cart+"@"+digestA, "--pkix-key", key.file, "--merge", filepath.Join(file, "no", "folder"))
	if got.code != exitUndecided {
		t.Errorf("%+v", got)
	}
}

func TestALinkStaysALink(t *testing.T) {
	key := newPair(t, newECDSA(t, elliptic.P256()))
	file := write1(t, "cart.yaml", program("attest", cart+"@"+digestA, "--pkix-key", key.file).out)
	link := filepath.Join(t.TempDir(), "link.yaml")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	program("attest", cart+"@"+digestA, "--pkix-key", key.file, "--merge", link)
	text, err := os.ReadFile(file)
	if err != nil || len(attestations(t, string(text))) != 2 {
		t.Errorf("%v: %s", err, text)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestWhatCannotBeMergedIsLeftAsItWas(t *testing.T) {
	key := newPair(t, newECDSA(t, elliptic.P256()))
	name := cart + "@" + digestA
	good := program("attest", name, "--pkix-key", key.file).out
	full := good
	for range crds.MaxAttestations - 1 {
		full = fed(full, "attest", name, "--pkix-key", key.file, "--merge", "-").out
	}
	if n := len(attestations(t, full)); n != crds.MaxAttestations {
		t.Fatalf("%d attestations", n)
	}
	other := strings.Replace(digestA, "a1", "b1", 1)
	tests := map[string]struct{ text, want string }{
		"of another image":     {program("attest", cart+"@"+other, "--pkix-key", key.file).out, "the attestation is of sha256-a1"},
		"full":                 {full, "holds 32 attestations, and no more are allowed: --prune takes out"},
		"two documents":        {good + "---\n" + good, "one ImageAttestation"},
		"beside another kind":  {good + "---\n{apiVersion: v1, kind: Secret, metadata: {name: a}}\n", "one ImageAttestation"},
		"in a List":            {"apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(good), "\n", "\n  "), "one ImageAttestation"},
		"another kind":         {"{apiVersion: horkos.dev/v1alpha1, kind: ImageRevocation, metadata: {name: r}, spec: {digests: [a]}}", "want an ImageAttestation, not ImageRevocation r"},
		"malformed":            {strings.Replace(good, "spec:", "spec:\n  x: 1", 1), "spec.x: unknown field"},
		"nothing":              {"", "one ImageAttestation"},
		"no YAML":              {"{", "did not find"},
		"a list by reference":  {strings.Replace(good, "spec:", "x: &x {}\nspec:", 1) + "y: *x\n", ""},
		"without attestations": {strings.SplitN(good, "spec:", 2)[0], "want 1 to 32"},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			file := write1(t, "f.yaml", tt.text)
			got := program("attest", name, "--pkix-key", key.file, "--merge", file)
			if tt.want == "" {
				if got.code != 0 {
					t.Errorf("%+v", got)
				}
				return
			}
			if got.code != exitUndecided || !strings.Contains(got.errors, tt.want) || got.out != "" {
				t.Errorf("%+v, want %q", got, tt.want)
			}
			if text, err := os.ReadFile(file); err != nil || string(text) != tt.text {
				t.Errorf("it was changed: %v\n%s", err, text)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "*")); len(left) != 1 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	if got := program("attest", name, "--pkix-key", key.file, "--merge", t.TempDir()); got.code != exitUndecided || !strings.Contains(got.errors, "not a regular file") {
		t.Errorf("a folder: %+v", got)
	}
}

func TestWhatHasExpiredMakesRoomIfItIsOfTheSameKeyAndNote(t *testing.T) {
	key, other := newPair(t, newECDSA(t, elliptic.P256())), newPair(t, newECDSA(t, elliptic.P256()))
	name := cart + "@" + digestA
	by := func(in string, key pair, more ...string) string {
		got := fed(in, append([]string{"attest", name, "--pkix-key", key.file, "--merge", "-"}, more...)...)
		if got.code != 0 {
			t.Fatalf("%+v", got)
		}
		return got.out
	}
	full := program("attest", name, "--pkix-key", key.file).out                                             // lasts
	full = by(full, key, "--expires", "1ns")                                                                // has expired
	full = by(full, key, "--expires", "1ns", "--note", "projects/p/notes/n")                                // of another note
	full = by(full, other, "--expires", "1ns")                                                              // by another key
	full = strings.Replace(by(full, key, "--note", "x"), "noteName: x", "expires: 2026-01-01T00:00:00Z", 1) // by the object
	for range crds.MaxAttestations - 5 {
		full = by(full, key, "--expires", "1h")
	}
	asJSON, err := yaml.YAMLToJSON([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"YAML": "# kept\n" + full, "JSON": string(asJSON)} {
		file := write1(t, "f", text)
		if got := program("attest", name, "--pkix-key", key.file, "--merge", file); got.code != exitUndecided || !strings.Contains(got.errors, "--prune takes out") {
			t.Errorf("%s: %+v", what, got)
		}
		got := program("attest", name, "--pkix-key", key.file, "--merge", file, "--prune")
		if got.code != 0 || got.errors != "taken out: 2 attestations expired\n" {
			t.Errorf("%s: %+v", what, got)
		}
		after, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		left, had := attestations(t, string(after)), attestations(t, full)
		if len(left) != crds.MaxAttestations-1 || left[1].NoteName != "projects/p/notes/n" || left[2].Attestation.Signatures[0].PublicKeyID != had[3].Attestation.Signatures[0].PublicKeyID {
			t.Errorf("%s: %d left: %s", what, len(left), after)
		}
		if what == "YAML" && !strings.HasPrefix(string(after), "# kept\n") {
			t.Errorf("the comment is gone: %s", after)
		}
		// There is room for one more, and then none.
		if got := program("attest", name, "--pkix-key", key.file, "--merge", file, "--prune"); got.code != 0 || got.errors != "" {
			t.Errorf("%s: %+v", what, got)
		}
		if got := program("attest", name, "--pkix-key", key.file, "--merge", file, "--prune"); got.code != exitUndecided || !strings.Contains(got.errors, "none of this key and note has expired") {
			t.Errorf("%s: %+v", what, got)
		}
	}
}

// pgpKey makes a key with gpg, and gives the files of its private and public halves.
func pgpKey(t *testing.T, passphrase string) (private, public string) {
	t.Helper()
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip("no gpg")
	}
	home, err := os.MkdirTemp("", "gpg") // the path of its socket must be short
	if err != nil {
		t.Fatal(err)
	}
	gpg := func(args ...string) []byte {
		cmd := exec.Command("gpg", append([]string{"--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", passphrase, "--armor"}, args...)...)
		out, err := cmd.Output()
		if err != nil {
			t.Skipf("gpg: %v", err)
		}
		return out
	}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	gpg("--quick-generate-key", "release@example.com", "ed25519", "sign", "never")
	return write1(t, "private.asc", string(gpg("--export-secret-keys"))), string(gpg("--export"))
}

func TestWhatAPGPKeyAttestsIsAllowed(t *testing.T) {
	for _, passphrase := range []string{"", "open sesame"} {
		t.Run("passphrase "+passphrase, func(t *testing.T) {
			private, public := pgpKey(t, passphrase)
			args := []string{"attest", cart + "@" + digestA, "--pgp-key", private, "--expires", "1h"}
			if passphrase != "" {
				for _, wrong := range [][]string{args, append(args, "--passphrase-file", write1(t, "wrong", "open barley\n"))} {
					got := program(wrong...)
					if got.code != exitUndecided || got.out != "" || !strings.Contains(got.errors, "passphrase") || strings.Contains(got.errors, "barley") {
						t.Errorf("%+v", got)
					}
				}
				args = append(args, "--passphrase-file", write1(t, "right", passphrase+"\r\n"))
			}
			made := program(args...)
			if made.code != 0 || made.errors != "" {
				t.Fatalf("%+v", made)
			}
			if one := attestations(t, made.out)[0]; one.PGPSignedAttestation == nil || len(one.PGPSignedAttestation.PGPKeyID) != 40 || one.PGPSignedAttestation.ContentType != "SIMPLE_SIGNING_JSON" {
				t.Errorf("%+v", one)
			}
			text, err := json.Marshal([]byte(public)) // base64
			if err != nil {
				t.Fatal(err)
			}
			policy := manifest("AttestationAuthority", "shop", "release", "{publicKeys: [{keyType: PGP, asciiArmoredPgpPublicKey: "+string(text)+"}]}") + "---\n" +
				manifest("GenericAttestationPolicy", "shop", "shop", "{attestationAuthorityNames: [release]}")
			if a := attested(t, policy, made.out, time.Now()); a.Result != verifier.Allowed || a.Reason != verifier.Attested {
				t.Errorf("%s %s: %s", a.Result, a.Reason, a.Message)
			}
			if a := attested(t, policy, made.out, time.Now().Add(2*time.Hour)); a.Reason != verifier.AttestationExpired {
				t.Errorf("%s %s: %s", a.Result, a.Reason, a.Message)
			}
			// Beside an attestation of the other sort it counts too.
			pkix := newPair(t, newECDSA(t, elliptic.P256()))
			both := fed(program("attest", cart+"@"+digestA, "--pkix-key", pkix.file).out, append(args, "--merge", "-")...)
			if a := attested(t, policy, both.out, time.Now()); a.Result != verifier.Allowed {
				t.Errorf("%s: %s", a.Reason, a.Message)
			}
		})
	}
}
