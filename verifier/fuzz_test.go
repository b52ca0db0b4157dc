package verifier_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/cases"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
	source "github.com/horkos/horkos/verifier/source/objects"
)

// arithmetic is a View that holds records and says of every signature the same: that it is
// good and about an image, or that it is not.
type arithmetic struct {
	records evidence.Records
	good    bool
	about   image.Identity
}

func (a arithmetic) Lookup(q evidence.Question) evidence.Answer {
	return evidence.Answer{State: evidence.Fresh, Attestations: a.records[q.Identity]}
}

func (a arithmetic) Outcome(*attestation.Key, *attestation.Envelope) (attestation.Outcome, bool) {
	if !a.good {
		return attestation.Outcome{Failure: &attestation.Failure{Kind: attestation.BadSignature}}, true
	}
	return attestation.Outcome{Statement: &attestation.Statement{Identity: a.about, Timestamp: noon, Expires: noon.Add(1)}}, true
}

// FuzzCompile decides over arbitrary manifests. Whatever they say, nothing is attested
// without a good signature by a key of an authority, and nothing is exempt without a pattern.
func FuzzCompile(f *testing.F) {
	table, err := cases.Load("testdata/cases", nil)
	if err != nil {
		f.Fatal(err)
	}
	for i := range table {
		at := noon
		if !table[i].Request.At.IsZero() {
			at = table[i].Request.At
		}
		manifests, err := table[i].Manifests(at)
		if err != nil {
			f.Fatal(err)
		}
		more, err := table[i].ClusterManifests()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(manifests, more...))
	}
	files, err := filepath.Glob("testdata/cases/keys/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	cart := image.Identity{Repository: "registry.example.com/shop/cart", Digest: image.Digest("sha256:" + strings.Repeat("a1", 32))}
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, err := crds.Decode(data, "fuzz.yaml")
		if err != nil {
			return
		}
		records, _ := source.Records(objects)
		folder := crds.Set{Origin: crds.Folder, Objects: objects}
		snap := policy.Compile(folder, crds.Set{Origin: crds.Cluster, Objects: objects})
		if again := policy.Compile(folder, crds.Set{Origin: crds.Cluster, Objects: objects}); again.Revision() != snap.Revision() {
			t.Errorf("revisions %s and %s of the same objects", snap.Revision(), again.Revision())
		}
		for _, good := range []bool{false, true} {
			dec := decider().Decide(asks(cart), snap, arithmetic{records, good, cart})
			fits(t, dec.Message())
			switch dec.Reason {
			case verifier.Attested, verifier.Emergency:
				if !good || !hasKey(dec.Images[0].Checks, snap) {
					t.Errorf("%s %s, though no key of an authority signed: %+v", dec.Result, dec.Reason, dec.Images[0].Checks)
				}
			case verifier.Exempt:
				if !strings.Contains(string(data), "attern") && !strings.Contains(string(data), "llowlist") {
					t.Errorf("exempt without a pattern: %+v", dec.Images[0].Checks)
				}
			default:
				if dec.Result == verifier.Allowed {
					t.Errorf("allowed %s by a decider that denies by default", dec.Reason)
				}
			}
		}
	})
}

// hasKey tells whether a check that allowed names a key that an authority of the policies has.
func hasKey(checks []verifier.Check, snap *policy.Snapshot) bool {
	for _, c := range checks {
		if c.Result == verifier.Allowed && c.KeyID != "" && c.Authority != "" && len(snap.Authorities(c.KeyID)) > 0 {
			return true
		}
	}
	return false
}
