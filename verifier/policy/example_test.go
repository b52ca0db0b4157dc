package policy_test

import (
	"fmt"
	"log"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier/policy"
)

// What is wrong with the objects is among the findings, and what follows from it in the
// layers: compiling never fails.
func ExampleCompile() {
	objects, err := crds.Decode([]byte(`
apiVersion: kritis.grafeas.io/v1beta1
kind: GenericAttestationPolicy
metadata: {name: release, namespace: shop}
spec: {attestationAuthorityNames: [release], require: Any}
`), "policy.yaml")
	if err != nil {
		log.Fatal(err)
	}
	snapshot := policy.Compile(crds.Set{Origin: crds.Folder, Objects: objects})
	for _, layer := range snapshot.Layers("shop") {
		for _, p := range layer.Policies {
			fmt.Println(layer.Name, p.ID(), p.Requirement())
		}
	}
	for _, f := range snapshot.Findings() {
		fmt.Println(f.Source, f.Message)
	}
	// Output:
	// folder/GenericAttestationPolicy GenericAttestationPolicy shop/release all of 1
	// policy.yaml spec.attestationAuthorityNames[0]: AttestationAuthority shop/release does not exist
}
