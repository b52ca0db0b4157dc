package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/objects"
)

// keep makes a state folder that keeps the policies of unmet, as a daemon leaves it.
func keep(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may give up policies")
	}
	policies := folderOf(t, map[string]string{"shop.yaml": unmet})
	state := filepath.Join(t.TempDir(), "state")
	if err := os.Chmod(filepath.Dir(state), 0o755); err != nil {
		t.Fatal(err)
	}
	_, _, err := objects.OpenFolder(objects.FolderOptions{Dir: policies, StateDir: state, Owned: true})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func TestGivingUpPoliciesNamesThemAndWantsAYes(t *testing.T) {
	state := keep(t)
	accepted := filepath.Join(state, "accept-empty")

	got := fed("yes\n", "policy", "accept-empty", "--state-dir", state)
	if got.code != exitUndecided || !strings.Contains(got.errors, "--yes") {
		t.Errorf("%+v", got)
	}
	for _, name := range []string{"AttestationAuthority shop/release", "GenericAttestationPolicy shop/shop", "held policies when they were kept"} {
		if !strings.Contains(got.out, name) {
			t.Errorf("%q is not in\n%s", name, got.out)
		}
	}
	if _, err := os.Stat(accepted); err == nil {
		t.Error("given up without a yes")
	}

	got = typed(t, "no\n", "policy", "accept-empty", "--state-dir", state)
	if _, err := os.Stat(accepted); err == nil || got.code != exitUndecided || !strings.Contains(got.errors, "they stay in force") {
		t.Errorf("given up after a no: %+v", got)
	}
	got = typed(t, "yes\n", "policy", "accept-empty", "--state-dir", state)
	if err := os.Remove(accepted); err != nil || got.code != 0 || !strings.Contains(got.out, "Given up") {
		t.Errorf("not given up after a yes: %v, %+v", err, got)
	}

	got = program("policy", "accept-empty", "--state-dir", state, "--yes")
	if got.code != 0 || !strings.Contains(got.out, "Given up") {
		t.Errorf("%+v", got)
	}
	kept, err := objects.Kept(state, crds.Folder)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(accepted); err != nil || string(text) != kept.Hash+"\n" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestTheStateFolderIsThatOfTheDaemonUnlessSaid(t *testing.T) {
	for _, cmd := range []*cobra.Command{acceptEmptyCommand(), acceptTimeCommand()} {
		if f := cmd.Flag("state-dir"); f.DefValue != "/var/lib/horkos" || cmd.ValidateRequiredFlags() != nil {
			t.Errorf("%s: %q", cmd.Name(), f.DefValue)
		}
	}
}

func TestWhereNothingIsKeptNothingIsGivenUp(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give up policies")
	}
	empty := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{empty: "nothing of the folder is kept in", filepath.Join(empty, "gone"): "nothing of the folder is kept in"} {
		if got := program("policy", "accept-empty", "--state-dir", dir, "--yes"); got.code != exitUndecided || !strings.Contains(got.errors, want) {
			t.Errorf("%+v", got)
		}
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if got := program("policy", "accept-empty", "--state-dir", open, "--yes"); got.code != exitUndecided || !strings.Contains(got.errors, "root") {
		t.Errorf("%+v", got)
	}
}
