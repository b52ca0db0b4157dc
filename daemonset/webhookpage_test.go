package daemonset

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	rbac "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// TestThePageSaysWhatTheWebhookMayDoAndItMayDoNoMore holds the roles of the webhook to this
// list, and the list to the table of README.md.
func TestThePageSaysWhatTheWebhookMayDoAndItMayDoNoMore(t *testing.T) {
	const read = "| policies, authorities, allowlists, revocations, namespaces, CRDs | list, watch |"
	rows := map[string]string{ // by the rule
		"kritis.grafeas.io/attestationauthorities: list watch":                                   read,
		"kritis.grafeas.io/genericattestationpolicies: list watch":                               read,
		"kritis.grafeas.io/imagesecuritypolicies: list watch":                                    read,
		"kritis.grafeas.io/admissionallowlists: list watch":                                      read,
		"notation.nirmata.io/trustpolicies: list watch":                                          read,
		"notation.nirmata.io/truststores: list watch":                                            read,
		"horkos.dev/clusterattestationpolicies: list watch":                                      read,
		"horkos.dev/imagerevocations: list watch":                                                read,
		"/namespaces: list watch":                                                                read,
		"apiextensions.k8s.io/customresourcedefinitions: list watch":                             read,
		"horkos.dev/imageattestations: get":                                                      "| ImageAttestations | get |",
		"/secrets[horkos-webhook-tls]: get list watch update":                                    "| Secret `horkos-webhook-tls` | get, list, watch, update |",
		"/secrets[horkos-breakglass]: get update":                                                "| Secret `horkos-breakglass` | get, update |",
		"admissionregistration.k8s.io/validatingwebhookconfigurations[horkos]: list watch patch": "| ValidatingWebhookConfiguration `horkos` | list, watch, patch |",
		"events.k8s.io/events: create":                                                           "| events | create |",
		"authorization.k8s.io/subjectaccessreviews: create":                                      "| SubjectAccessReviews | create |",
	}
	text, err := os.ReadFile("webhook/rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var role rbac.ClusterRole // a Role is read as well
		if err := yaml.Unmarshal(document, &role); err != nil {
			t.Fatal(err)
		}
		got = append(got, spelled(role.Rules)...)
	}
	for rule, row := range rows {
		want = append(want, rule)
		if !strings.Contains(string(page), "\n"+row) {
			t.Errorf("README.md has no row %s", row)
		}
	}
	slices.Sort(got)
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("it may\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
