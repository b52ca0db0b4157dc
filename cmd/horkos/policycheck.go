package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/objects"
)

func policyCheckCommand() *cobra.Command {
	var action, output choice
	var strict bool
	cmd := &cobra.Command{
		Use:   "check FILE|DIR...",
		Short: "Tell every problem of policies and attestations in files",
		Long: `check reads files and folders (not the folders in them) as one policy folder of a node, and
prints what is wrong with it, by file, line and field. "-" is standard input.

Problems are what a gate would find misconfigured, or leave out. Warnings are what can be
judged as it stands and is hardly what was meant: authorities that share a key, patterns
that match registries anybody may own or none at all, policies for some images where nothing
decides on the others (unless it is said that the gates deny by default), policies that nothing
can satisfy or that select no namespace, labels that no namespace here has, attestations that
cannot count for a policy, and objects that are passed over though their group or kind looks
like ours.

Exit code: 0 without problems, whatever the warnings (with --strict: without those too), 1 with
one, 2 when there is nothing to check or the command was used wrongly.`,
		Example: `  horkos policy check policies/

  # the gates deny what no policy speaks of: a policy for some images leaves no gap
  horkos policy check policies/ --default-action deny

  # in CI: no warnings either
  horkos policy check policies/ --strict

  # for a script
  horkos policy check policies/ -o json | jq -r '.[] | select(.severity == "error") | .message'`,
		Args: some("name files or folders of policies, or - for standard input", "horkos policy check policies/"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return checkPolicies(cmd, args, action.value == "deny", strict, output.value)
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "warnings count as problems: exit code 1 with one")
	actionFlag(cmd, &action, "")
	outputFlag(cmd, &output)
	return cmd
}

// Severities of findings.
const (
	severityError   = "error"
	severityWarning = "warning"
)

// finding is one line of what check prints.
type finding struct {
	File     string `json:"file"`
	Line     int    `json:"line"` // from 1; 0 is not known
	Field    string `json:"field"`
	Object   string `json:"object"`
	Severity string `json:"severity"`
	Message  string `json:"message"`

	source string // crds.Object.Source
}

func checkPolicies(cmd *cobra.Command, paths []string, denyByDefault, strict bool, output string) error {
	var found []finding
	count := 0
	err := slowly(cmd, "checking the policies", func() error {
		set, err := objects.Load(paths...)
		if err != nil {
			return err
		}
		passedOver := strangers(paths)
		if count = len(set.Objects); count+len(set.Faults)+len(passedOver) == 0 {
			return fmt.Errorf("no object of horkos or kritis in %s: nothing to check", strings.Join(paths, ", "))
		}
		found = findings(set, time.Now(), denyByDefault)
		for _, o := range passedOver {
			for _, p := range o.Problems {
				found = append(found, finding{File: crds.File(o.Source), Field: p.Field, Object: o.ID(), Severity: severityWarning, Message: p.Message, source: o.Source})
			}
		}
		locate(found)
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(found, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	if output == "json" {
		err = writeJSON(cmd.OutOrStdout(), found)
	} else {
		err = writeFindings(cmd.OutOrStdout(), found)
	}
	if err != nil {
		return err
	}
	problems := 0
	for _, f := range found {
		if f.Severity == severityError {
			problems++
		}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s, %s, %s\n", plural(count, "object"), plural(problems, "problem"), plural(len(found)-problems, "warning"))
	if problems > 0 || (strict && len(found) > 0) {
		return exit(exitNotAllowed)
	}
	return nil
}

// findings are the problems and the warnings of a set.
func findings(set crds.Set, now time.Time, denyByDefault bool) []finding {
	w := newWorld("deny", set)
	found := []finding{}
	add := func(source, object, severity, field, message string) {
		found = append(found, finding{File: crds.File(source), Field: field, Object: object, Severity: severity, Message: message, source: source})
	}
	for _, f := range w.snap.Findings() {
		if f.Object == "" {
			found = append(found, finding{File: f.Source, Severity: severityError, Message: f.Message, source: f.Source})
			continue
		}
		severity := severityError
		if f.Warning {
			severity = severityWarning
		}
		for _, p := range f.Problems {
			add(f.Source, f.Object, severity, p.Field, p.Message)
		}
	}
	for _, i := range w.ignored {
		field, message, ok := strings.Cut(i.Message, ": ")
		if !ok || !strings.HasPrefix(field, "spec") {
			field, message = "", i.Message
		}
		add(i.Source, i.Object, severityError, field, message)
	}
	l := lint{now: now, denyByDefault: denyByDefault}
	l.labels, l.namespaces = labelKeys(set.Objects)
	a := audition{snap: w.snap, now: now}
	judges := requires(set)
	for i := range set.Objects {
		o := &set.Objects[i]
		warnings := l.object(o, set.Objects)
		if judges {
			warnings = append(warnings, a.attestations(o)...)
		}
		for _, p := range warnings {
			add(o.Source, o.ID(), severityWarning, p.Field, p.Message)
		}
	}
	return found
}

// locate finds the lines, file by file, since their text takes much more room as nodes.
func locate(found []finding) {
	byFile := make(map[string][]*finding)
	for i := range found {
		byFile[found[i].File] = append(byFile[found[i].File], &found[i])
	}
	for file, list := range byFile {
		data, ok := readManifests(file)
		if !ok {
			continue
		}
		lines := crds.ReadLines(data, file)
		for _, f := range list {
			if f.Object == "" {
				f.Line = lines.FaultLine(f.source, f.Message)
			} else {
				f.Line = lines.Line(f.source, f.Field)
			}
		}
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func writeFindings(w io.Writer, found []finding) error {
	for _, f := range found {
		text := f.source // names the document where the line is not known
		if f.Line > 0 {
			text = fmt.Sprintf("%s:%d", f.File, f.Line)
		}
		if f.Severity == severityWarning {
			text += ": warning"
		}
		switch {
		case f.Field != "":
			text += ": " + f.Field
		case f.Object != "" && !strings.HasPrefix(f.Message, f.Object):
			text += ": " + f.Object
		}
		if _, err := fmt.Fprintln(w, printable(text+": "+f.Message)); err != nil {
			return err
		}
	}
	return nil
}
