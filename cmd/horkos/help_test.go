package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/cases"
)

// each calls visit for every command.
func each(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, c := range cmd.Commands() {
		each(c, visit)
	}
}

func TestEveryCommandHasExamplesAndTheyParse(t *testing.T) {
	each(command(), func(cmd *cobra.Command) {
		if cmd.Name() == "help" {
			return
		}
		ran := 0
		for line := range strings.Lines(cmd.Example) {
			args := strings.Fields(line)
			if len(args) == 0 || args[0] != "horkos" {
				continue
			}
			if end := slices.IndexFunc(args, func(a string) bool { return a == ">" || a == "|" || a == "#" }); end > 0 {
				args = args[:end]
			}
			ran++
			parses(t, args[1:])
		}
		if ran == 0 || cmd.Short == "" {
			t.Errorf("%s: %d examples", cmd.CommandPath(), ran)
		}
		if len(cmd.Commands()) == 0 && cmd.Parent() == cmd.Root() && cmd.GroupID == "" {
			t.Errorf("%s is in no group of the help", cmd.Name())
		}
	})
}

// parses holds a command line to its command's flags and arguments, without running it.
func parses(t *testing.T, args []string) {
	t.Helper()
	cmd, rest, err := command().Find(args)
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err == nil {
		err = cmd.ValidateRequiredFlags()
	}
	if err == nil {
		err = cmd.ValidateArgs(cmd.Flags().Args())
	}
	if err != nil || cmd.RunE == nil {
		t.Errorf("horkos %s: %v", strings.Join(args, " "), err)
	}
}

func TestHelpFitsATerminal(t *testing.T) {
	each(command(), func(cmd *cobra.Command) {
		for line := range strings.Lines(cmd.Long) {
			if len(line) > 100 {
				t.Errorf("%s: %s", cmd.CommandPath(), line)
			}
		}
		if out := program(append(strings.Fields(cmd.CommandPath())[1:], "--help")...); out.code != 0 || !strings.Contains(out.out, "Usage:") {
			t.Errorf("%s: %+v", cmd.CommandPath(), out)
		}
	})
}

func TestTheHelpOfTestHasEveryFieldOfACase(t *testing.T) {
	help := policyTestCommand().Long
	for _, of := range []reflect.Type{reflect.TypeFor[cases.Case](), reflect.TypeFor[cases.Record]()} {
		for i := range of.NumField() {
			name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			if name != "" && !strings.Contains(help, "  "+name+" ") {
				t.Errorf("%s is not in it", name)
			}
		}
	}
}

func TestTheShellCompletesWords(t *testing.T) {
	for line, want := range map[string][]string{
		"verify -o ":                       {"table", "json"},
		"verify --default-action ":         {"allow", "deny"},
		"policy check -o ":                 {"table", "json"},
		"policy check --default-action=":   {"allow", "deny"},
		"policy test --output ":            {"table", "json"},
		"status -o ":                       {"table", "json"},
		"policy ":                          {"accept-empty", "accept-time", "check", "test"},
		"completion ":                      {"bash", "zsh", "fish"},
		"help ":                            {"attest", "audit", "breakglass", "completion", "controller", "policy", "status", "verify", "version", "webhook"},
		"help policy ":                     {"accept-empty", "accept-time", "check", "test"},
		"attest --pkix-alg ":               attestation.Algorithms(),
		"attest --p":                       {"--passphrase-file", "--pgp-key", "--pkix-alg", "--pkix-key", "--prune"},
		"verify nothing-is-a-file-here -n": {"-n"},
	} {
		parts := strings.Split(line, " ")
		got := program(append([]string{"__complete"}, parts...)...)
		var words []string
		for l := range strings.Lines(got.out) {
			word, _, _ := strings.Cut(strings.TrimSpace(l), "\t")
			if !strings.HasPrefix(word, ":") {
				words = append(words, word)
			}
		}
		if !slices.Equal(words, want) {
			t.Errorf("%q: %v, want %v", line, words, want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if got := program("completion", shell); got.code != 0 || !strings.Contains(got.out, "horkos") {
			t.Errorf("%s: %+v", shell, got)
		}
	}
}
