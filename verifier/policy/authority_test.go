package policy

import (
	"encoding/base64"
	"os"
	"testing"
)

// TestAPGPKeyIsReadOnceHoweverManyListIt: thousands of namespaces list the one key of a company.
func TestAPGPKeyIsReadOnceHoweverManyListIt(t *testing.T) {
	armored, err := os.ReadFile("../attestation/testdata/pgp/rsa.asc")
	if err != nil {
		t.Fatal(err)
	}
	data := base64.StdEncoding.EncodeToString(armored)
	snap := compiled(t,
		authority("a", "publicKeys: [{keyType: PGP, asciiArmoredPgpPublicKey: "+data+"}]"),
		authority("b", "publicKeys: [{keyType: PGP, asciiArmoredPgpPublicKey: "+data+"}]"),
		authority("wrong", "publicKeys: [{keyType: PGP, keyId: ABCD, asciiArmoredPgpPublicKey: "+data+"}]"),
		gap("p", "attestationAuthorityNames: [a, b, wrong]"))
	list := only(t, snap).Authorities
	for id, keys := range list[0].keys {
		if other := list[1].keys[id]; len(other) != 1 || other[0].Key != keys[0].Key {
			t.Errorf("%s was read twice", id)
		}
	}
	if len(list[0].keys) == 0 || list[2].Malformed == "" {
		t.Errorf("keys %v; under another id: %q", list[0].keys, list[2].Malformed)
	}
}
