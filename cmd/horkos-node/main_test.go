package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/pflag"

	"github.com/horkos/horkos/node"
)

func program(args ...string) (out string, err error) {
	var b bytes.Buffer
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetOut(&b)
	cmd.SetErr(&b)
	err = cmd.ExecuteContext(context.Background())
	return b.String(), err
}

func config(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagsWinOverTheFileAndTheFileOverTheDefaults(t *testing.T) {
	file := config(t, "enforcement: audit\npolicyDir: /of/the/file\nstateDir: /state/of/the/file\nmaxSpecBytes: 2048\n")
	tests := []struct {
		name string
		args []string
		want []string
	}{
		{"the file", []string{"--config", file}, []string{"policyDir: /of/the/file", "maxSpecBytes: 2048", "auditLog: /state/of/the/file/audit.log", "containerdNamespace: k8s.io"}},
		{"a flag beside it", []string{"--config", file, "--policy-dir", "/of/the/flag"}, []string{"policyDir: /of/the/flag", "maxSpecBytes: 2048"}},
		{"a flag before it", []string{"--max-spec-bytes", "4096", "--config", file}, []string{"policyDir: /of/the/file", "maxSpecBytes: 4096"}},
		{"a flag with the value of the default", []string{"--config", file, "--policy-dir", node.Defaults().PolicyDir}, []string{"policyDir: " + node.Defaults().PolicyDir}},
		{"an empty flag", []string{"--config", file, "--health-address", ""}, []string{`healthAddress: ""`}},
		{"flags alone", []string{"--enforcement", "audit", "--audit-log", "/a.log"}, []string{"auditLog: /a.log", "policyDir: " + node.Defaults().PolicyDir}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, err := program(append(tt.args, "--print-config")...)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range tt.want {
				if !slices.Contains(strings.Split(out, "\n"), line) {
					t.Errorf("%q is not in\n%s", line, out)
				}
			}
		})
	}
}

func TestWhatIsPrintedIsAConfiguration(t *testing.T) {
	args := []string{"--default-action", "deny", "--floor", "/etc/horkos/floor", "--print-config"}
	first, err := program(args...)
	if err != nil {
		t.Fatal(err)
	}
	again, err := program("--config", config(t, first), "--print-config")
	if err != nil || first != again {
		t.Errorf("%v\n%s\n%s", err, first, again)
	}
}

func TestBadUsageIsAnErrorThatNamesTheFlag(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"nothing", nil, "--default-action allow|deny must be given"},
		{"no floor", []string{"--default-action", "deny"}, "--floor FILE must be given"},
		{"a file that is not there", []string{"--config", "/nowhere.yaml"}, "/nowhere.yaml"},
		{"a file with a misspelt field", []string{"--config", config(t, "enforcment: audit\n")}, "enforcment"},
		{"a number that is none", []string{"--max-spec-bytes", "much"}, "--max-spec-bytes"},
		{"a log level that is none", []string{"--enforcement", "audit", "--log-level", "loud"}, "--log-level"},
		{"an argument", []string{"audit"}, "audit"},
		{"a flag that is none", []string{"--polizy"}, "--polizy"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := program(append(tt.args, "--print-config")...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestEveryFieldIsAFlagOfItsName(t *testing.T) {
	var c node.Config
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	bind(flags, &c)
	var want []string
	fields := reflect.TypeFor[node.Config]()
	for i := range fields.NumField() {
		var flag strings.Builder
		for _, r := range fields.Field(i).Tag.Get("json") {
			if unicode.IsUpper(r) {
				flag.WriteByte('-')
			}
			flag.WriteRune(unicode.ToLower(r))
		}
		if flag.String() != "sources" { // a list has no flag
			want = append(want, flag.String())
		}
	}
	var got []string
	flags.VisitAll(func(f *pflag.Flag) { got = append(got, f.Name) })
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("flags %v\nwant %v", got, want)
	}
}
