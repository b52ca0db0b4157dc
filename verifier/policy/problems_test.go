package policy

import (
	"reflect"
	"testing"

	"github.com/horkos/horkos/crds"
)

func TestAFindingTellsItsProblemsByField(t *testing.T) {
	two := []crds.Problem{{Field: "spec.x", Message: "unknown field"}, {Message: "also in f.yaml"}}
	bad := crds.Object{Kind: "GenericAttestationPolicy", Namespace: "shop", Name: "p", Source: "f.yaml", Problems: two}
	tests := []struct {
		object  crds.Object
		message string
		want    []crds.Problem
	}{
		{bad, bad.Malformed(), two},
		{bad, "spec.require: it denies everything", []crds.Problem{{Field: "spec.require", Message: "it denies everything"}}},
		{crds.Object{}, "spec.publicKeys[0]: keyType: want PGP or PKIX", []crds.Problem{{Field: "spec.publicKeys[0].keyType", Message: "want PGP or PKIX"}}},
		{crds.Object{}, "spec.publicKeys[0]: parsing: asn1: bad", []crds.Problem{{Field: "spec.publicKeys[0]", Message: "parsing: asn1: bad"}}},
		{crds.Object{}, "spec.images[0]: one\ntwo", []crds.Problem{{Field: "spec.images[0]", Message: "one\ntwo"}}},
		{crds.Object{}, "specific: nothing", []crds.Problem{{Message: "specific: nothing"}}},
		{crds.Object{}, "it has no key", []crds.Problem{{Message: "it has no key"}}},
		{crds.Object{}, "", []crds.Problem{{}}},
	}
	for _, tt := range tests {
		if got := problemsOf(tt.object, tt.message); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: %+v, want %+v", tt.message, got, tt.want)
		}
	}
}

func TestWhatCanBeJudgedIsAWarning(t *testing.T) {
	for text, want := range map[string]bool{
		object("AdmissionAllowlist", "", "l", `patterns: [{namePattern: "registry*.example.com/x/*"}]`): true,
		object("BuildPolicy", "shop", "b", ""):                                                          true,
		object("ImageRevocation", "", "r", "digests: [sha256:abc]"):                                     false,
		gap("p", "attestationAuthorityNames: [gone]"):                                                   false,
	} {
		findings := compiled(t, text).Findings()
		if len(findings) != 1 || findings[0].Warning != want {
			t.Errorf("%s: %+v", text, findings)
		}
	}
}
