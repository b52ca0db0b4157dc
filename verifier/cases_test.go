package verifier_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/objects"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/cases"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
	source "github.com/horkos/horkos/verifier/source/objects"
)

// TestEveryCaseOfTheTableIsDecidedAsItSays is the specification of Decide: read
// testdata/cases.
func TestEveryCaseOfTheTableIsDecidedAsItSays(t *testing.T) {
	table, err := cases.Load("testdata/cases", nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(table) < 390 {
		t.Fatalf("only %d cases were read", len(table))
	}
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
			folder := loaded(t, crds.Folder, manifests)
			if manifests, err = c.ClusterManifests(); err != nil {
				t.Fatal(err)
			}
			snap := policy.Compile(folder, loaded(t, crds.Cluster, manifests))
			records, _ := source.Records(folder.Objects)
			memory := evidence.NewMemory()
			memory.Replace("folder", records)
			req, err := c.Bound(at)
			if err != nil {
				t.Fatal(err)
			}
			d := verifier.Decider{Default: verifier.DefaultAction(c.Request.DefaultAction == "allow"), Sources: []evidence.Question{{Source: "folder"}}}

			first := d.Decide(req, snap, memory)
			if len(c.Evidence) > 0 && c.Want.Result == verifier.Allowed && c.Want.Reason == verifier.Attested {
				if first.Result != verifier.Unresolved || first.Reason != verifier.EvidencePending {
					t.Errorf("before any signature was verified: %s %s, want unresolved EvidencePending", first.Result, first.Reason)
				}
			}
			dec, err := d.Verify(context.Background(), req, snap, memory)
			if err != nil {
				t.Fatal(err)
			}
			if dec.Result != c.Want.Result || dec.Reason != c.Want.Reason {
				t.Errorf("got %s %s, want %s %s\n%s", dec.Result, dec.Reason, c.Want.Result, c.Want.Reason, dec.Message())
			}
			if m := dec.Message(); !strings.Contains(m, c.Want.Message) || len(m) > verifier.MaxMessage {
				t.Errorf("message %q (%d bytes), want %q in it", m, len(m), c.Want.Message)
			}
			if !slices.Equal(dec.Missing, c.Want.Missing) {
				t.Errorf("missing %v, want %v", dec.Missing, c.Want.Missing)
			}
		})
	}
}

// loaded is what an origin reads of manifests.
func loaded(t *testing.T, origin crds.Origin, manifests []byte) crds.Set {
	t.Helper()
	file := filepath.Join(t.TempDir(), "case.yaml")
	if err := os.WriteFile(file, manifests, 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := objects.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	set.Origin = origin
	return set
}
