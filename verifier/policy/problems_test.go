package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestAFindingTellsItsProblemsByField(t *testing.T) {
	good := authority("a", keys(t, 1))
	tests := []struct {
		manifests []string
		want      []string // "field: message", of each problem of the last finding
	}{
		{[]string{good, gap("p", "attestationAuthorityNames: [a], require: 7, x: 1")}, []string{"spec.x: unknown field", "spec.require: 7 is more than the 1 authorities of the policy"}},
		{[]string{good, authority("b", keys(t, 2)), gap("p", "attestationAuthorityNames: [a], emergencyAuthorityNames: [a]")}, []string{"spec.emergencyAuthorityNames: a has a key in common with authority a: what that one attests for at most a day satisfies the policy by itself"}},
		{[]string{authority("a", strings.Replace(keys(t, 1), "[", "[{keyType: X509}, ", 1))}, []string{`spec.publicKeys[0].keyType: want PGP or PKIX, not "X509"`}},
		{[]string{authority("a", strings.Replace(keys(t, 1, 2), "{keyType", "{validUntil: soon, keyType", 1))}, []string{`spec.publicKeys[0].validUntil: "soon" is not a time of RFC 3339`}},
		{[]string{gap("p", "attestationAuthorityNames: [gone]")}, []string{"spec.attestationAuthorityNames[0]: AttestationAuthority shop/gone does not exist"}},
		{[]string{cluster("p", "authorities: "+listed(t, 1)+", allowlist: [{namePattern: registry.example.com/**}]")}, []string{`spec.allowlist[0]: pattern "registry.example.com/**": no image name begins so: ** works only in spec.images of a ClusterAttestationPolicy`}},
		{[]string{object("BuildPolicy", "shop", "b", "")}, []string{"objects of this kind decide nothing on a node"}},
		{[]string{object("Policy", "shop", "x", "")}, []string{"kind Policy of kritis.grafeas.io/v1beta1 is not known to this version"}},
	}
	for _, tt := range tests {
		findings := compiled(t, tt.manifests...).Findings()
		if len(findings) == 0 {
			t.Errorf("nothing is found, want %q", tt.want)
			continue
		}
		var got []string
		for _, p := range findings[len(findings)-1].Problems {
			got = append(got, p.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
		for _, f := range findings {
			for _, p := range f.Problems {
				if !strings.Contains(f.Message, p.String()) && !strings.Contains(f.Message, p.Message) {
					t.Errorf("message %q, problem %q", f.Message, p)
				}
			}
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
