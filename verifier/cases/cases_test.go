package cases

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/crds"
)

const table = "../testdata/cases"

func TestADigestIsNamedByOneByte(t *testing.T) {
	for short, long := range map[string]string{
		"registry.example.com/x@sha256:a1..": "registry.example.com/x@sha256:" + strings.Repeat("a1", 32),
		"name: sha256-0b..":                  "name: sha256-" + strings.Repeat("0b", 32),
		"sha256:a1.":                         "sha256:a1.",
		"sha256:A1..":                        "sha256:A1..",
		"sha512:a1..":                        "sha512:a1..",
	} {
		if got := expandDigests(short); got != long {
			t.Errorf("%s is %s, want %s", short, got, long)
		}
	}
}

func TestAKeyIsNamedByItsFile(t *testing.T) {
	text, err := expandKeys(table, "{publicKeyPem: $release}, {asciiArmoredPgpPublicKey: $pgp}")
	if err != nil || !strings.Contains(text, `{publicKeyPem: "-----BEGIN PUBLIC KEY-----\nMF`) || !strings.Contains(text, "{asciiArmoredPgpPublicKey: LS0t") {
		t.Errorf("got %s, %v", text, err)
	}
	if _, err := expandKeys(table, "$nobody"); err == nil || !strings.Contains(err.Error(), "key $nobody") {
		t.Errorf("a key that is not there: %v", err)
	}
}

func TestACaseThatCannotBeReadIsAnError(t *testing.T) {
	for name, text := range map[string]string{
		"no name":          "request: {namespace: shop}\n",
		"an unknown field": "name: x\nwanted: {}\n",
		"a field twice":    "name: x\nname: y\n",
		"no YAML":          "{",
		"a result":         "name: x\nwant: {result: perhaps}\n",
		"a duration":       "name: x\nevidence: [{image: x, key: y, signedAt: soon}]\n",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "case.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if all, err := Load(dir, nil); err == nil {
			t.Errorf("%s was read as %+v", name, all)
		}
	}
}

func TestNamesOfCasesAreSentencesOfTheirOwn(t *testing.T) {
	all, err := Load(table, nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, c := range all {
		if seen[c.Name] {
			t.Errorf("twice: %s", c.Name)
		}
		seen[c.Name] = true
		if len(strings.Fields(c.Name)) < 4 || strings.Contains(c.Name, "/") {
			t.Errorf("no sentence: %s", c.Name)
		}
	}
}

// TestWhatIsSignedIsReadAsAnAttestation: every format, and what a record cannot be.
func TestWhatIsSignedIsReadAsAnAttestation(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	image := "registry.example.com/shop/cart@sha256:" + strings.Repeat("a1", 32)
	for name, tt := range map[string]struct {
		record Record
		ok     bool
	}{
		"PKIX":                        {Record{Image: image, Key: "release"}, true},
		"PGP":                         {Record{Image: image, Key: "pgp", Format: "PGP"}, true},
		"JWT":                         {Record{Image: image, Key: "release", Format: "JWT"}, true},
		"a format that is not known":  {Record{Image: image, Key: "release", Format: "DSSE"}, false},
		"a key that is not there":     {Record{Image: image, Key: "nobody"}, false},
		"an image by tag":             {Record{Image: "registry.example.com/shop/cart:1", Key: "release"}, false},
		"a PGP message to be broken":  {Record{Image: image, Key: "pgp", Format: "PGP", Broken: true}, false},
		"an OpenPGP key under X.509":  {Record{Image: image, Key: "pgp"}, false},
		"another image that is none":  {Record{Image: image, Key: "release", Says: "nonsense@x"}, false},
		"a PGP key that has run out":  {Record{Image: image, Key: "pgp-expired", Format: "PGP"}, false},
		"a PGP key whose half is out": {Record{Image: image, Key: "pgp-revoked", Format: "PGP"}, false},
	} {
		c := Case{dir: table, Evidence: []Record{tt.record}}
		manifests, err := c.Manifests(at)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		objects, err := crds.Decode(manifests, "case.yaml")
		if err != nil || len(objects) != 1 || objects[0].Malformed() != "" {
			t.Errorf("%s: %v, %+v", name, err, objects)
		}
	}
}
