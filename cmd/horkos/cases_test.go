package main

import (
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/cases"
)

// TestEveryCaseOfTheTableIsDecidedByTheCommandLineAsItSays runs the table that Decide and
// the node run. The command line answers an image at a time: the worst is that of the request.
func TestEveryCaseOfTheTableIsDecidedByTheCommandLineAsItSays(t *testing.T) {
	table, err := cases.Load("../../verifier/testdata/cases", nil)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, c := range table {
		t.Run(c.Name, func(t *testing.T) {
			at := c.Request.At
			if at.IsZero() {
				at = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
			}
			manifests, err := c.Manifests(at)
			if err != nil {
				t.Fatal(err)
			}
			if why := onlyOnANode(c, manifests); why != "" {
				t.Skip("the command line cannot express it: " + why)
			}
			ran++
			decideCase(t, c, string(manifests), at)
		})
	}
	if ran < 330 {
		t.Errorf("only %d cases ran", ran)
	}
}

func decideCase(t *testing.T, c cases.Case, manifests string, at time.Time) {
	action := c.Request.DefaultAction
	if action == "" {
		action = "deny"
	}
	args := []string{"verify", "-n", c.Request.Namespace, "--policy", write1(t, "case.yaml", manifests), "--at", at.Format(time.RFC3339),
		"--default-action", action, "-o", "json"}
	for _, i := range c.Request.Images {
		args = append(args, i.Name)
	}
	got := program(args...)
	answers := got.answers(t)
	if len(answers) != len(c.Request.Images) {
		t.Fatalf("%d answers: %s", len(answers), got.errors)
	}
	code, told := 0, false
	worst := answers[0]
	for i, a := range answers {
		if a.Image != c.Request.Images[i].Name || a.Namespace != c.Request.Namespace || len(a.Revision) != 12 || a.Message == "" {
			t.Errorf("answer %+v", a)
		}
		if a.Result < worst.Result {
			worst = a
		}
		switch a.Result {
		case verifier.Allowed:
		case verifier.Denied:
			code = max(code, 1)
		default:
			code = 2
		}
		told = told || strings.Contains(a.Message, c.Want.Message)
	}
	if worst.Result != c.Want.Result || worst.Reason != c.Want.Reason || !told {
		t.Errorf("got %s %s, want %s %s with %q\n%s", worst.Result, worst.Reason, c.Want.Result, c.Want.Reason, c.Want.Message, got.out)
	}
	if got.code != code {
		t.Errorf("exit %d, want %d", got.code, code)
	}
}

// onlyOnANode says why a case cannot be asked of a gate that sees nothing but names and files.
func onlyOnANode(c cases.Case, manifests []byte) string {
	if len(c.Cluster) > 0 {
		return "objects of the cluster"
	}
	return c.OnlyOnANode(manifests)
}
