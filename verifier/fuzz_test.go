package verifier_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
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
// without a good signature by a key of the authority that is told, and nothing is exempt
// but by a pattern of the objects that begins as the name does.
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
				if !good || !hasKey(dec.Images[0].Checks, snap.Layers("shop")) {
					t.Errorf("%s %s, though no key of an authority signed: %+v", dec.Result, dec.Reason, dec.Images[0].Checks)
				}
			case verifier.Exempt:
				if !hasPattern(dec.Images[0].Checks, objects, cart) {
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

// hasKey tells whether a check that allowed names a key of the authority that it names, of
// the policy that it names.
func hasKey(checks []verifier.Check, layers []policy.Layer) bool {
	for _, c := range checks {
		if c.Result != verifier.Allowed || !c.Decides {
			continue
		}
		for _, l := range layers {
			for _, p := range l.Policies {
				for _, a := range slices.Concat(p.Authorities, p.Emergency) {
					if l.Name == c.Layer && p.ID() == c.Policy && a.Name == c.Authority && len(a.Keys(c.KeyID)) > 0 {
						return true
					}
				}
			}
		}
	}
	return false
}

// hasPattern tells whether a check that exempted names one of the objects, and a pattern in
// it that begins as the image's name does.
func hasPattern(checks []verifier.Check, objects []crds.Object, id image.Identity) bool {
	name := id.Repository + "@" + string(id.Digest)
	for _, c := range checks {
		if c.Result != verifier.Allowed || c.Requirement != verifier.RequirementAllowlist {
			continue
		}
		pattern, found := strings.CutPrefix(c.Detail, "the name matches ")
		pattern, cut := strings.CutSuffix(pattern, "; a name is trusted, not a digest")
		literal, _, stars := strings.Cut(pattern, "*")
		if !found || !cut || !strings.HasPrefix(name, literal) || !stars && literal != name {
			continue
		}
		for i := range objects {
			if o := &objects[i]; o.ID() == c.Policy && writes(o.Raw, pattern) {
				return true
			}
		}
	}
	return false
}

// writes tells whether a text stands in an object, or an image name that is it in full.
func writes(object []byte, text string) bool {
	tokens := json.NewDecoder(bytes.NewReader(object))
	for {
		token, err := tokens.Token()
		if err != nil {
			return false
		}
		written, _ := token.(string)
		ref, err := image.Parse(written)
		if written == text || err == nil && ref.String() == text {
			return true
		}
	}
}
