package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/verifier"
)

// asProgram makes the test binary horkos itself.
const asProgram = "HORKOS_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// blocks are the fenced blocks of a language in a document.
func blocks(t *testing.T, file, language string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		all = append(all, m[1])
	}
	return all
}

func TestThePoliciesOfTheGuideAreGoodAndItsCasesPass(t *testing.T) {
	manifests, tests := 0, 0
	all := blocks(t, "../../docs/writing-policies.md", "yaml")
	t.Chdir(t.TempDir())
	for i, text := range all {
		if strings.HasPrefix(text, "name:") {
			tests++
			if err := os.WriteFile(fmt.Sprintf("cases%d.yaml", i), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		manifests++
		if err := os.MkdirAll("policies", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(fmt.Sprintf("policies/%d.yaml", i), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		// Whoever has read so far has a folder that is good.
		if got := program("policy", "check", "policies"); got.code != 0 || got.out != "" {
			t.Errorf("up to block %d: %+v", i+1, got)
		}
	}
	if manifests < 5 || tests < 1 {
		t.Fatalf("%d blocks of manifests, %d of cases", manifests, tests)
	}
	if got := program("policy", "test", "."); got.code != 0 {
		t.Errorf("%+v", got)
	}
}

// guideFolder writes the policies of the guide into policies, with a public key in place of
// another.
func guideFolder(t *testing.T, all []string, old, public string) {
	t.Helper()
	if err := os.MkdirAll("policies", 0o700); err != nil {
		t.Fatal(err)
	}
	replaced := 0
	for i, text := range all {
		if strings.HasPrefix(text, "name:") {
			continue
		}
		indented := strings.ReplaceAll(strings.TrimSpace(public), "\n", "\n        ")
		replaced += strings.Count(text, old)
		text = strings.ReplaceAll(text, old, indented)
		if err := os.WriteFile(fmt.Sprintf("policies/%d.yaml", i), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if replaced != 1 {
		t.Fatalf("the key is in the guide %d times", replaced)
	}
}

// keyOfAuthority is the public key that the guide gives to an authority.
func keyOfAuthority(t *testing.T, all []string, name string) string {
	t.Helper()
	m := regexp.MustCompile("(?s)name: " + name + ", namespace: shop}.*?(-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----)").FindStringSubmatch(strings.Join(all, ""))
	if m == nil {
		t.Fatalf("the guide has no key of %s", name)
	}
	return m[1]
}

// TestTheEmergencyOfTheGuideLetsTheImageRun runs the commands of its section.
func TestTheEmergencyOfTheGuideLetsTheImageRun(t *testing.T) {
	all := blocks(t, "../../docs/writing-policies.md", "yaml")
	commands := ""
	for _, text := range blocks(t, "../../docs/writing-policies.md", "sh") {
		if strings.Contains(text, "oncall.pem") {
			commands = strings.Replace(text, "sha256:...", digestA, 1)
		}
	}
	old := keyOfAuthority(t, all, "oncall")
	t.Chdir(t.TempDir())
	oncall := newPair(t, newECDSA(t, elliptic.P256()))
	if err := os.Rename(oncall.file, "oncall.pem"); err != nil {
		t.Fatal(err)
	}
	guideFolder(t, all, old, oncall.public)
	run := func(script string) string {
		out, err := inShell(t, ".", script)
		if err != nil && !strings.Contains(out, "RESULT") {
			t.Fatalf("%v: %s", err, out)
		}
		return out
	}
	if out := run(commands); !strings.Contains(out, "\nallowed  Emergency  registry.example.com/payments/api@") {
		t.Errorf("printed\n%s", out)
	}
	if err := os.Remove("policies/emergency.yaml"); err != nil {
		t.Fatal(err)
	}
	if out := run(strings.Replace(commands, "--expires 4h", "", 1)); !strings.Contains(out, "--expires of at most 24h") || !strings.Contains(out, "denied") {
		t.Errorf("without an expiry it printed\n%s", out)
	}
}

// TestTheJWTOfTheGuideCounts signs its claims.
func TestTheJWTOfTheGuideCounts(t *testing.T) {
	all := blocks(t, "../../docs/writing-policies.md", "json")
	if len(all) != 1 {
		t.Fatalf("%d blocks", len(all))
	}
	header, claims, _ := strings.Cut(strings.Replace(all[0], "sha256:...", digestA, 1), "\n")
	private := newECDSA(t, elliptic.P256()).(*ecdsa.PrivateKey)
	key := newPair(t, private)
	encode := base64.RawURLEncoding.EncodeToString
	token := encode([]byte(header)) + "." + encode([]byte(claims))
	digest := sha256.Sum256([]byte(token))
	r, s, err := ecdsa.Sign(rand.Reader, private, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	token += "." + encode(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
	object := manifest("ImageAttestation", "", strings.Replace(digestA, ":", "-", 1),
		"{attestations: [{resourceUri: '"+cart+"@"+digestA+"', noteName: projects/p/notes/release, attestation: {jwts: [{compactJwt: "+token+"}]}}]}")
	for at, want := range map[int64]verifier.Reason{1795262400: verifier.Attested, 1798761600: verifier.AttestationExpired} {
		if a := attested(t, key.policyOf("release-2026", "ecdsa-p256-sha256"), object, time.Unix(at, 0)); a.Reason != want {
			t.Errorf("%s: %s", a.Reason, a.Message)
		}
	}
}

// TestTheConsolesOfThePagesDoWhatTheyShow runs the commands of a page in one shell, and holds
// what they print to what is shown: "..." is anything, "# exit code 1" is the exit code.
func TestTheConsolesOfThePagesDoWhatTheyShow(t *testing.T) {
	for name, atLeast := range map[string]int{"cli.md": 10, "concepts.md": 8, "migrating.md": 6} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath("jq"); err != nil && name == "migrating.md" {
				t.Skip(err)
			}
			doesWhatItShows(t, "../../docs/"+name, atLeast)
		})
	}
}

func doesWhatItShows(t *testing.T, page string, atLeast int) {
	work := t.TempDir()
	var script strings.Builder
	var steps []step
	for _, block := range blocks(t, page, "console") {
		steps = append(steps, stepsOf(block)...)
	}
	if len(steps) < atLeast {
		t.Fatalf("only %d commands were found", len(steps))
	}
	for i, s := range steps {
		fmt.Fprintf(&script, "{ %s\n} >out.%d 2>&1; echo $? >code.%d\n", s.command, i, i)
	}
	if out, err := inShell(t, work, script.String()); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i, s := range steps {
		out, err := os.ReadFile(filepath.Join(work, fmt.Sprintf("out.%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		code, err := os.ReadFile(filepath.Join(work, fmt.Sprintf("code.%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(code)) != s.code || !s.shown.Match(out) {
			t.Errorf("$ %s\nexit code %swant %s, printed\n%s\nwant %s", s.command, code, s.code, out, s.shown)
		}
	}
}

// inShell runs a script that knows horkos.
func inShell(t *testing.T, dir, script string) (string, error) {
	t.Helper()
	for _, tool := range []string{"bash", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "horkos")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), asProgram+"=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// step is a command of a console, its exit code and what it is shown to print.
type step struct {
	command, code string
	shown         *regexp.Regexp
}

func stepsOf(block string) []step {
	var steps []step
	var shown string
	here := "" // the word that ends a here-document
	end := func() {
		if len(steps) > 0 {
			pattern := strings.ReplaceAll(regexp.QuoteMeta(shown), `\.\.\.`, `(?s:.*)`)
			steps[len(steps)-1].shown = regexp.MustCompile(`\A` + pattern + `\z`)
		}
		shown = ""
	}
	for line := range strings.Lines(block) {
		switch text, isCommand := strings.CutPrefix(line, "$ "); {
		case here != "":
			steps[len(steps)-1].command += line
			if strings.TrimSpace(line) == here {
				here = ""
			}
		case isCommand:
			end()
			s := step{command: text, code: "0"}
			if _, code, ok := strings.Cut(text, "# exit code "); ok {
				s.code = strings.TrimSpace(code)
			}
			if strings.Contains(text, "<<EOF") {
				here = "EOF"
			}
			steps = append(steps, s)
		default:
			shown += line
		}
	}
	end()
	return steps
}
