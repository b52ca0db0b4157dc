package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/objects"
	"github.com/horkos/horkos/state"
)

// The policies that stay in force outlive the version of the folder: moved aside they would be
// policies that never were, and an empty folder a permission.
func TestAStateFolderOfAnUnknownVersionStillKeepsThePolicies(t *testing.T) {
	asRoot(t)
	root := t.TempDir()
	dir, policies := filepath.Join(root, "state"), filepath.Join(root, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		t.Fatal(err)
	}
	const policy = "apiVersion: kritis.grafeas.io/v1beta1\nkind: GenericAttestationPolicy\nmetadata: {name: p, namespace: prod}\nspec: {attestationAuthorityNames: [a]}\n"
	put(t, filepath.Join(policies, "a.yaml"), policy)
	open := func() crds.Set {
		t.Helper()
		_, set, err := objects.OpenFolder(objects.FolderOptions{Dir: policies, StateDir: dir, Owned: true, Log: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	own := func() string {
		t.Helper()
		lock, err := state.Own(t.Context(), dir, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		said, err := lock.Adopt(evidenceDir)
		if err != nil {
			t.Fatal(err)
		}
		return said
	}
	own()
	open()
	if err := os.Remove(filepath.Join(policies, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "evidence"), 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "version"), "99\n")
	if said := own(); !strings.Contains(said, "aside-99: evidence") {
		t.Errorf("said: %q", said)
	}
	if set := open(); len(set.Objects) != 1 || set.Stale == "" {
		t.Errorf("%d objects, stale %q", len(set.Objects), set.Stale)
	}

	// Nor does a kept copy that itself is of another version become one that never was.
	kept := filepath.Join(dir, "policy-folder.json")
	text, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	put(t, kept, strings.Replace(string(text), `"version":1`, `"version":2`, 1))
	put(t, filepath.Join(dir, "version"), "99\n")
	own()
	if set := open(); len(set.Faults) != 1 || set.Faults[0].Namespaces != nil || !strings.Contains(set.Faults[0].Message, "unknown version 2") {
		t.Errorf("faults %+v", set.Faults)
	}
}
