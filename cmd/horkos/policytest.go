package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/objects"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/cases"
	"github.com/horkos/horkos/verifier/evidence"
)

func policyTestCommand() *cobra.Command {
	var output choice
	cmd := &cobra.Command{
		Use:   "test CASES...",
		Short: "Decide cases, and tell which are not decided as they say",
		Long: `test reads cases from files, or from the *.yaml, *.yml and *.json of folders, any number
of documents a file. A case has
  name      a sentence
  objects   manifests, or names of files and folders of manifests beside the case: what
            the policy folder holds
  cluster   the same of the cluster, judged besides the folder
  evidence  attestations to be signed with private keys beside the case, for tests:
              image         REPO@DIGEST that it is filed under
              key           NAME of a private key that is not encrypted: keys/NAME.pem, for
                            PGP keys/NAME.private.asc. Manifests in the case may write
                            $NAME for the public key, which of PGP is keys/NAME.asc
              format        PKIX (when left out), PGP or JWT
              keyID         the id it names; the key's own when left out
              note          the note it names
              says          another REPO@DIGEST that the payload speaks of
              signedAt      when it says it was signed; -1h when left out
              noTimestamp   true: it does not say
              signedExpiry  when it expires, under the signature
              expires       the same beside the signature
              notBefore     the nbf of a JWT
              broken        true: its signature does not verify (not for PGP)
            Times are durations from that of the request, such as -1h or 24h.
  request   {namespace, at, defaultAction: allow|deny, images: [{name}]}; at is now and
            defaultAction deny when they are left out
  want      {result, reason, message}; the message is a part of it

Exit code: 0 when all cases are decided as they say, 1 when one is not, 2 when one
cannot be read.`,
		Example: `  horkos policy test cases/
  horkos policy test cases/shop.yaml -o json`,
		Args: some("name files or folders of cases", "horkos policy test cases/"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return testPolicies(cmd, args, output.value)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// tested is what test prints of a case.
type tested struct {
	Name string  `json:"name"`
	File string  `json:"file"`
	OK   bool    `json:"ok"`
	Got  decided `json:"got"`
	Want decided `json:"want"`

	place string // with the line
}

// decided is a decision as a case has it.
type decided struct {
	Result  verifier.Result     `json:"result"`
	Reason  verifier.Reason     `json:"reason"`
	Message string              `json:"message"`
	Missing []evidence.Question `json:"missing"`
}

func testPolicies(cmd *cobra.Command, args []string, output string) error {
	all, err := loadCases(args)
	if err != nil {
		return err
	}
	results := make([]tested, 0, len(all))
	failed := 0
	for i := range all {
		var t tested
		err := slowly(cmd, fmt.Sprintf("case %d of %d", i+1, len(all)), func() error {
			t, err = runCase(cmd.Context(), &all[i])
			return err
		})
		if err != nil {
			return err
		}
		if !t.OK {
			failed++
		}
		results = append(results, t)
		if output != "json" {
			if err := t.write(cmd.OutOrStdout()); err != nil {
				return err
			}
		}
	}
	if output == "json" {
		if err := writeJSON(cmd.OutOrStdout(), results); err != nil {
			return err
		}
	}
	if failed > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "%d of %d cases failed\n", failed, len(all))
		return exit(exitNotAllowed)
	}
	return nil
}

// loadCases reads all cases before any is decided, and holds them to what this command
// needs: a case that says nothing would pass for ever.
func loadCases(paths []string) ([]cases.Case, error) {
	var all []cases.Case
	for _, path := range paths {
		files, err := caseFiles(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			list, err := cases.LoadFile(file)
			if err != nil {
				return nil, fmt.Errorf("read cases: %w", err)
			}
			for i := range list {
				if err := checkCase(&list[i]); err != nil {
					return nil, fmt.Errorf("%s: case %q: %w", list[i].Place(), list[i].Name, err)
				}
			}
			all = append(all, list...)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no case in %s", strings.Join(paths, ", "))
	}
	return all, nil
}

func caseFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read cases: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	files, err := filesOf(path)
	if err != nil {
		return nil, fmt.Errorf("read cases: %w", err)
	}
	return files, nil
}

// filesOf are the files of a folder that may hold manifests or cases.
func filesOf(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		name := e.Name()
		if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)) && !strings.HasPrefix(name, ".") && !e.IsDir() {
			files = append(files, filepath.Join(path, name))
		}
	}
	return files, nil
}

func checkCase(c *cases.Case) error {
	switch {
	case c.Want.Reason == "":
		return errors.New("want: a result and a reason are needed")
	case len(c.Request.Images) == 0:
		return errors.New("request.images: at least one image is needed")
	case !validNamespace(c.Request.Namespace):
		return fmt.Errorf("request.namespace: %q cannot be the name of a namespace", c.Request.Namespace)
	case !slices.Contains([]string{"", "allow", "deny"}, c.Request.DefaultAction):
		return fmt.Errorf("request.defaultAction: want allow or deny, not %q", c.Request.DefaultAction)
	}
	return nil
}

func runCase(ctx context.Context, c *cases.Case) (tested, error) {
	at := c.Request.At
	if at.IsZero() {
		at = time.Now()
	}
	sets, err := caseSets(c, at)
	if err != nil {
		return tested{}, fmt.Errorf("%s: case %q: %w", c.Place(), c.Name, err)
	}
	req, err := c.Bound(at)
	if err != nil {
		return tested{}, fmt.Errorf("%s: %w", c.Place(), err)
	}
	w := newWorld(cmp.Or(c.Request.DefaultAction, defaultAction), sets...)
	dec, err := w.decider.Verify(ctx, req, w.snap, w.memory)
	if err != nil {
		return tested{}, err
	}
	t := tested{
		Name: c.Name, File: c.File(), place: c.Place(),
		Got:  decided{dec.Result, dec.Reason, dec.Message(), append([]evidence.Question{}, dec.Missing...)},
		Want: decided{c.Want.Result, c.Want.Reason, c.Want.Message, append([]evidence.Question{}, c.Want.Missing...)},
	}
	t.OK = t.Got.Result == t.Want.Result && t.Got.Reason == t.Want.Reason &&
		strings.Contains(t.Got.Message, t.Want.Message) && slices.Equal(t.Got.Missing, t.Want.Missing)
	return t, nil
}

// caseSets are what the folder, and the cluster if the case has one, would hold.
func caseSets(c *cases.Case, at time.Time) ([]crds.Set, error) {
	inline, err := c.Inline(at)
	if err != nil {
		return nil, err
	}
	folder, err := loadCase(crds.Folder, c.Files(), inline)
	if err != nil || len(c.Cluster) == 0 {
		return []crds.Set{folder}, err
	}
	if inline, err = c.ClusterInline(); err != nil {
		return nil, err
	}
	cluster, err := loadCase(crds.Cluster, c.ClusterFiles(), inline)
	return []crds.Set{folder, cluster}, err
}

// loadCase reads what an origin holds. What stands in the case itself is read by way of a
// file, as all manifests are.
func loadCase(origin crds.Origin, paths []string, inline []byte) (crds.Set, error) {
	if len(inline) > 0 {
		dir, err := os.MkdirTemp("", "horkos-case-")
		if err != nil {
			return crds.Set{}, err
		}
		defer os.RemoveAll(dir)
		file := filepath.Join(dir, "case.yaml")
		if err := os.WriteFile(file, inline, 0o600); err != nil {
			return crds.Set{}, err
		}
		paths = append(paths, file)
	}
	set, err := objects.Load(paths...)
	set.Origin = origin
	return set, err
}

func (t *tested) write(w io.Writer) error {
	if t.OK {
		_, err := fmt.Fprintf(w, "ok      %s\n", printable(t.Name))
		return err
	}
	text := fmt.Sprintf("FAILED  %s (%s)\n        got  %s, %s: %s\n        want %s, %s", t.Name, t.place, t.Got.Result, t.Got.Reason, t.Got.Message, t.Want.Result, t.Want.Reason)
	if t.Want.Message != "" {
		text += ": " + t.Want.Message
	}
	if !slices.Equal(t.Got.Missing, t.Want.Missing) {
		text += fmt.Sprintf("\n        left to ask: %v, want %v", t.Got.Missing, t.Want.Missing)
	}
	for line := range strings.SplitSeq(text, "\n") {
		if _, err := fmt.Fprintln(w, printable(line)); err != nil {
			return err
		}
	}
	return nil
}
