package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// pages are the documents of the project, by their path from its root.
func pages(t *testing.T) []string {
	t.Helper()
	all := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "daemonset/README.md"}
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(docs) < 12 {
		t.Fatalf("%d pages: %v", len(docs), err)
	}
	for _, doc := range docs {
		all = append(all, "docs/"+filepath.Base(doc))
	}
	return all
}

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var fenced = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

// flagsOf are the flags of a command as a page names them.
func flagsOf(cmd *cobra.Command) string {
	var all []string
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "` " + name
		}
		if f.Name != "help" {
			all = append(all, name)
		}
	})
	return strings.Join(all, ", ")
}

func TestThePageOfTheProgramNamesEveryCommandAndEveryFlagAndNoOther(t *testing.T) {
	_, table, found := strings.Cut(page(t, "docs/cli.md"), "\n| Command | Flags |\n|---|---|\n")
	if !found {
		t.Fatal("it has no table of commands")
	}
	var want, got []string
	each(command(), func(cmd *cobra.Command) {
		if len(cmd.Commands()) == 0 && cmd.Name() != "help" {
			want = append(want, strings.Join(strings.Fields("| `"+cmd.CommandPath()+"` | "+flagsOf(cmd)+" |"), " "))
		}
	})
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		got = append(got, strings.TrimSpace(line))
	}
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("the table is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// word is a word of a shell's command line; cut ends a command.
type word struct {
	text string
	cut  bool
}

// words reads a script as far as it takes to tell commands apart: quotes, substitutions
// (each begins a command of its own, and is one word of the one that it stands in),
// comments, redirections.
func words(script string) []word {
	var all, inner []word
	var now strings.Builder
	quote, open := rune(0), false // open: there is a word, if an empty one
	end := func(cut bool) {
		if open || now.Len() > 0 {
			all = append(all, word{text: now.String()})
		}
		now.Reset()
		if open = false; cut {
			all = append(all, word{cut: true})
		}
	}
	runes := []rune(strings.ReplaceAll(script, "\\\n", " "))
	for i := 0; i < len(runes); i++ {
		c := runes[i]
		switch {
		case quote != '\'' && c == '$' && i+1 < len(runes) && runes[i+1] == '(':
			depth, from := 1, i+2
			for i += 2; i < len(runes) && depth > 0; i++ {
				switch runes[i] {
				case '(':
					depth++
				case ')':
					depth--
				}
			}
			i--
			inner = append(append(inner, words(string(runes[from:i]))...), word{cut: true})
			now.WriteString("substituted")
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			now.WriteRune(c)
		case c == '\'' || c == '"':
			quote, open = c, true
		case c == '\n' || c == '|' || c == ';' || c == '&' || c == '>' || c == '<':
			end(true)
		case c == '#' && now.Len() == 0:
			for i+1 < len(runes) && runes[i+1] != '\n' {
				i++
			}
		case unicode.IsSpace(c):
			end(false)
		default:
			now.WriteRune(c)
		}
	}
	end(true)
	return append(all, inner...)
}

// hereDocument is what a command is given to read, not what a shell runs.
var hereDocument = regexp.MustCompile(`(?ms)(<<EOF)$.*?^EOF$`)

// commandLines are what a script gives to a program.
func commandLines(program, script string) (all [][]string) {
	var command []string
	for _, w := range words(hereDocument.ReplaceAllString(script, "")) {
		if !w.cut {
			command = append(command, w.text)
			continue
		}
		if args, ok := argumentsOf(program, command); ok {
			all = append(all, args)
		}
		command = nil
	}
	return all
}

// argumentsOf are those that a command gives to a program: by itself, or as xargs and
// kubectl exec do.
func argumentsOf(program string, command []string) ([]string, bool) {
	at := slices.IndexFunc(command, func(w string) bool { return w == program || w == "bin/"+program || w == "/"+program })
	switch {
	case at < 0:
		return nil, false
	case at == 0 || command[at-1] == "--":
		return command[at+1:], true
	case command[0] == "xargs":
		return append(slices.Clone(command[at+1:]), "registry.example.com/what/is/read:1"), true
	}
	return nil, false
}

// script is what of a block is typed: all of sh, the lines with a prompt of a console and
// the here-documents of those.
func script(language, block string) string {
	if language == "sh" {
		return block
	}
	var typed strings.Builder
	here := false
	for line := range strings.Lines(block) {
		text, isCommand := strings.CutPrefix(line, "$ ")
		if !isCommand {
			text, isCommand = strings.CutPrefix(line, "# ")
		}
		if here || isCommand {
			typed.WriteString(text)
			here = (here || strings.Contains(text, "<<EOF")) && strings.TrimSpace(text) != "EOF"
		}
	}
	return typed.String()
}

func TestEveryCommandLineOfThePagesIsOneThatTheProgramTakes(t *testing.T) {
	ran := make(map[string]int)
	for _, name := range pages(t) {
		for _, m := range fenced.FindAllStringSubmatch(page(t, name), -1) {
			if m[1] != "sh" && m[1] != "console" {
				continue
			}
			for _, args := range commandLines("horkos", script(m[1], m[2])) {
				ran[name]++
				t.Run(name, func(t *testing.T) { parses(t, args) })
			}
		}
	}
	if ran["docs/cli.md"] < 14 || ran["docs/migrating.md"] < 5 || ran["docs/audit-log.md"] < 3 || ran["docs/emergency.md"] < 2 {
		t.Errorf("found %v", ran)
	}
}

// TestTheTextOfThePagesNamesCommandsAndFlagsThatThereAre looks at `horkos ...` within a line.
func TestTheTextOfThePagesNamesCommandsAndFlagsThatThereAre(t *testing.T) {
	inline := regexp.MustCompile("`(horkos [^`]+)`")
	found := 0
	for _, name := range pages(t) {
		for _, m := range inline.FindAllStringSubmatch(strings.ReplaceAll(fenced.ReplaceAllString(page(t, name), ""), "\n", " "), -1) {
			found++
			for _, line := range alternatives(strings.Fields(m[1])[1:]) {
				named(t, name, line)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d were found", found)
	}
}

// alternatives are the command lines that "policy check|test" is short for.
func alternatives(args []string) [][]string {
	for i, arg := range args {
		if strings.Contains(arg, "|") && !strings.HasPrefix(arg, "-") {
			var all [][]string
			for one := range strings.SplitSeq(arg, "|") {
				all = append(all, alternatives(slices.Concat(args[:i], []string{one}, args[i+1:]))...)
			}
			return all
		}
	}
	return [][]string{args}
}

// named holds a command that a text names to be one, and its flags.
func named(t *testing.T, name string, args []string) {
	t.Helper()
	if len(args) > 0 && args[0] == "help" {
		return
	}
	cmd, rest, err := command().Find(args)
	wrong := cmd.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-")
	if err != nil || wrong || cmd == cmd.Root() {
		t.Errorf("%s: there is no horkos %s: %v", name, strings.Join(args, " "), err)
		return
	}
	for _, arg := range args {
		flag, _, _ := strings.Cut(strings.TrimRight(arg, ".,"), "=")
		long, isLong := strings.CutPrefix(flag, "--")
		if isLong && long != "" && cmd.Flags().Lookup(long) == nil && long != "help" {
			t.Errorf("%s: %s has no --%s", name, cmd.CommandPath(), long)
		}
	}
}

// flagsOfTheDaemon are those of horkos-node.
func flagsOfTheDaemon(t *testing.T) map[string]bool {
	t.Helper()
	source, err := os.ReadFile("../horkos-node/main.go")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]bool)
	for _, m := range regexp.MustCompile(`Var\(&\S+, "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1) {
		all[m[1]] = true
	}
	return all
}

func TestEveryCommandLineOfTheDaemonInThePagesHasFlagsThatThereAre(t *testing.T) {
	known, found := flagsOfTheDaemon(t), 0
	for _, name := range pages(t) {
		for _, m := range fenced.FindAllStringSubmatch(page(t, name), -1) {
			for _, args := range commandLines("horkos-node", script(m[1], m[2])) {
				for _, arg := range args {
					flag, _, _ := strings.Cut(arg, "=")
					if long, ok := strings.CutPrefix(flag, "--"); ok {
						if found++; !known[long] {
							t.Errorf("%s: horkos-node has no --%s", name, long)
						}
					}
				}
			}
		}
	}
	if found == 0 {
		t.Error("none was found")
	}
}

// TestEveryFlagThatATextNamesIsOne is about a flag alone: of which program it is, its text says.
func TestEveryFlagThatATextNamesIsOne(t *testing.T) {
	known := flagsOfTheDaemon(t)
	each(command(), func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
	})
	alone := regexp.MustCompile("`--([a-z][a-z-]*)[^`]*`")
	found := 0
	for _, name := range pages(t) {
		for _, m := range alone.FindAllStringSubmatch(fenced.ReplaceAllString(page(t, name), ""), -1) {
			if found++; !known[m[1]] {
				t.Errorf("%s: no program has --%s", name, m[1])
			}
		}
	}
	if found < 60 {
		t.Errorf("only %d were found", found)
	}
}

// TestEveryManifestOfThePagesIsReadWithoutAProblem is about the blocks of YAML that are whole;
// fragments are of language yml.
func TestEveryManifestOfThePagesIsReadWithoutAProblem(t *testing.T) {
	found := 0
	for _, name := range pages(t) {
		var whole []string
		for _, m := range fenced.FindAllStringSubmatch(page(t, name), -1) {
			if m[1] == "yaml" && strings.Contains(m[2], "apiVersion:") {
				whole = append(whole, m[2])
			}
		}
		if len(whole) == 0 {
			continue
		}
		folder := t.TempDir()
		for i, text := range whole {
			found++
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%d.yaml", i)), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := program("policy", "check", folder, "--strict"); got.code != exitAllowed {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if found < 5 {
		t.Errorf("only %d were found", found)
	}
}

// anchor is what GitHub makes of a heading.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimSpace(heading))
}

func anchors(text string) (all []string) {
	for _, m := range regexp.MustCompile(`(?m)^#{1,6} (.*)$`).FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		all = append(all, anchor(m[1]))
	}
	return all
}

func TestEveryLinkOfThePagesLeadsSomewhere(t *testing.T) {
	links := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	found := 0
	for _, name := range pages(t) {
		for _, m := range links.FindAllStringSubmatch(fenced.ReplaceAllString(page(t, name), ""), -1) {
			path, to, hasAnchor := strings.Cut(m[1], "#")
			if strings.Contains(path, "://") || strings.HasPrefix(path, "mailto:") {
				continue
			}
			found++
			target := name
			if path != "" {
				target = filepath.Join(filepath.Dir(name), path)
			}
			if _, err := os.Stat(filepath.Join("../..", target)); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			} else if hasAnchor && !slices.Contains(anchors(page(t, target)), to) {
				t.Errorf("%s links to %s: there is no such heading", name, m[1])
			}
		}
	}
	if found < 40 {
		t.Errorf("only %d were found", found)
	}
}

// TestOccurrencesOfBothVersionsOfGrafeasAreBroughtAsThePageSays runs the page's example, which
// has those of v1, with v1beta1's.
func TestOccurrencesOfBothVersionsOfGrafeasAreBroughtAsThePageSays(t *testing.T) {
	if _, err := exec.LookPath("jq"); err != nil {
		t.Skip(err)
	}
	text := ""
	for _, block := range blocks(t, "../../docs/migrating.md", "console") {
		text += script("console", block)
	}
	for old, beta := range map[string]string{
		`"resourceUri": "https://$image@$digest"`: `"resource": {"uri": "https://$image@$digest"}`,
		`"attestation": {` + "\n":                 `"attestation": {"attestation": {"genericSignedAttestation": {"contentType": "SIMPLE_SIGNING_JSON",` + "\n",
		`payload | base64 -w0)"}]}}]}`:            `payload | base64 -w0)"}]}}}}]}`,
	} {
		if strings.Count(text, old) != 1 {
			t.Fatalf("the page has not %q", old)
		}
		text = strings.Replace(text, old, beta, 1)
	}
	out, err := inShell(t, t.TempDir(), text)
	if err != nil || !strings.Contains(out, "\nallowed  Attested  registry.example.com/shop/cart@") {
		t.Errorf("%v:\n%s", err, out)
	}
}
