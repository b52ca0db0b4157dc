package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
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

// TestTheConsoleOfTheGuideDoesWhatItShows runs its commands in one shell, and holds what they
// print to what is shown: "..." is anything, "# exit code 1" is the exit code.
func TestTheConsoleOfTheGuideDoesWhatItShows(t *testing.T) {
	for _, tool := range []string{"bash", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	work, bin := t.TempDir(), t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "horkos")); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	var steps []step
	for _, block := range blocks(t, "../../docs/cli.md", "console") {
		steps = append(steps, stepsOf(block)...)
	}
	if len(steps) < 10 {
		t.Fatalf("only %d commands were found", len(steps))
	}
	for i, s := range steps {
		fmt.Fprintf(&script, "{ %s\n} >out.%d 2>&1; echo $? >code.%d\n", s.command, i, i)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script.String())
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), asProgram+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
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
