package objects

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
)

var hexA = strings.Repeat("a1", 32)

const repository = "registry.example.com/shop/cart"

// manifest is an ImageAttestation of hexA with these entries, in JSON.
func manifest(name string, attestations ...string) string {
	return fmt.Sprintf("apiVersion: horkos.dev/v1alpha1\nkind: ImageAttestation\nmetadata: {name: %s}\nspec: {attestations: [%s]}\n", name, strings.Join(attestations, ", "))
}

func entry(rest string) string {
	return fmt.Sprintf(`{"resourceUri": "%s@sha256:%s", %s}`, repository, hexA, rest)
}

// payload is base64 of one that speaks of an image.
func payload(repository string) string {
	data, err := attestation.NewPayload(image.Identity{Repository: repository, Digest: image.Digest("sha256:" + hexA)}, time.Unix(0, 0), time.Time{})
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(data)
}

// signatures is a payload with n signatures beside it.
func signatures(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`{"signature": "AAAA", "publicKeyId": "key-%d"}`, i))
	}
	return fmt.Sprintf(`"serializedPayload": %q, "signatures": [%s]`, payload(repository), strings.Join(all, ", "))
}

// jwts is an attestation of one JWT, n times.
func jwts(t *testing.T, n int) string {
	t.Helper()
	jwt := testdata(t, "jwt/ES256.jwt")
	return `"attestation": {"jwts": [` + strings.TrimSuffix(strings.Repeat(fmt.Sprintf(`{"compactJwt": %q}, `, jwt), n), ", ") + `]}`
}

// pgpMessage is an attestation by a PGP message, with what stands beside it.
func pgpMessage(t *testing.T, file, beside string) string {
	t.Helper()
	return fmt.Sprintf(`"pgpSignedAttestation": {"signature": %q, %s}`, testdata(t, "pgp/"+file), beside)
}

// testdata is a vector of package attestation.
func testdata(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile("../../attestation/testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func v1(n int) string { return `"attestation": {` + signatures(n) + `}` }

func records(t *testing.T, manifests ...string) (evidence.Records, []Ignored) {
	t.Helper()
	objects, err := crds.Decode([]byte(strings.Join(manifests, "---\n")), "f.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return Records(objects)
}

func TestAnAttestationIsReadInItsShapes(t *testing.T) {
	tests := []struct {
		name      string
		entry     string
		envelopes int
		ignored   string
	}{
		{"the shape of Grafeas v1", entry(v1(2)), 2, ""},
		{"the shape of v1beta1", entry(`"genericSignedAttestation": {"contentType": "SIMPLE_SIGNING_JSON", ` + signatures(1) + `}`), 1, ""},
		{"the shape of v1beta1 without a content type", entry(`"genericSignedAttestation": {` + signatures(1) + `}`), 1, ""},
		{"https before the image", strings.Replace(entry(v1(1)), repository, "https://"+repository, 1), 1, ""},
		{"16 signatures", entry(v1(16)), 16, ""},
		{"17 signatures", entry(v1(17)), 0, "17 signatures, want 1 to 16"},
		{"no signature", entry(v1(0)), 0, "0 signatures"},
		{"another content type", entry(`"genericSignedAttestation": {"contentType": "JSON", ` + signatures(1) + `}`), 0, "not known"},
		{"a JWT", entry(jwts(t, 1)), 1, ""},
		{"a JWT beside signatures", entry(strings.Replace(jwts(t, 1), "{", "{"+signatures(2)+", ", 1)), 3, ""},
		{"16 JWTs and signatures", entry(strings.Replace(jwts(t, 8), "{", "{"+signatures(8)+", ", 1)), 16, ""},
		{"17 JWTs and signatures", entry(strings.Replace(jwts(t, 8), "{", "{"+signatures(9)+", ", 1)), 0, "17 signatures, want 1 to 16"},
		{"a JWT that is none", entry(`"attestation": {"jwts": [{"compactJwt": "a.b.c"}]}`), 0, "attestation.jwts[0]: reading JWT"},
		{"a PGP message under a key id", entry(pgpMessage(t, "ed25519.armored.msg", `"pgpKeyId": "ABCD"`)), 1, ""},
		{"a PGP message of simple signing", entry(pgpMessage(t, "ed25519.armored.msg", `"contentType": "SIMPLE_SIGNING_JSON"`)), 1, ""},
		{"a PGP message of another content type", entry(pgpMessage(t, "ed25519.armored.msg", `"contentType": "JSON"`)), 0, "not known"},
		{"a PGP message that names its key", entry(pgpMessage(t, "ed25519.armored.msg", `"pgpKeyId": ""`)), 1, ""},
		{"a PGP message that is none and under no key id", entry(`"pgpSignedAttestation": {"signature": "x"}`), 0, "pgpSignedAttestation.signature: reading OpenPGP message"},
		{"an image of another digest", strings.Replace(entry(v1(1)), hexA, strings.Repeat("b1", 32), 1), 0, "resourceUri: it is of sha256:b1"},
		{"an image by tag", strings.Replace(entry(v1(1)), "@sha256:"+hexA, ":1", 1), 0, "resourceUri"},
		{"a payload that is none", entry(strings.Replace(v1(1), payload(repository), "AAAA", 1)), 0, "payload"},
		{"a payload about another image", entry(strings.Replace(v1(1), payload(repository), payload("docker.io/library/x"), 1)), 1, ""},
		{"an expiry", entry(`"expires": "2026-12-31T00:00:00Z", ` + v1(1)), 1, ""},
		{"an expiry that is no time", entry(`"expires": "soon", ` + v1(1)), 0, "expires"},
		{"an expiry that would read as none", entry(`"expires": "0001-01-01T00:00:00Z", ` + v1(1)), 0, "expires"},
	}
	id := image.Identity{Repository: repository, Digest: image.Digest("sha256:" + hexA)}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// A good one beside it is read whatever happens to it.
			found, ignored := records(t, manifest("sha256-"+hexA, tt.entry, entry(v1(1))))
			var envelopes int
			for _, at := range found[id] {
				envelopes += len(at.Envelopes)
			}
			if envelopes != tt.envelopes+1 {
				t.Errorf("%d envelopes, want %d", envelopes, tt.envelopes+1)
			}
			if tt.ignored == "" && len(ignored) > 0 {
				t.Errorf("ignored: %+v", ignored)
			}
			if tt.ignored != "" && (len(ignored) != 1 || !strings.Contains(ignored[0].Message, tt.ignored) || ignored[0].Source != "f.yaml") {
				t.Errorf("ignored %+v, want %q", ignored, tt.ignored)
			}
		})
	}
}

func TestAKeyIDOfAPGPMessageIsWrittenInUpperCaseAndElseTheMessages(t *testing.T) {
	id := image.Identity{Repository: repository, Digest: image.Digest("sha256:" + hexA)}
	key, err := attestation.ParsePGPKey("", []byte(testdata(t, "pgp/ed25519.asc")))
	if err != nil {
		t.Fatal(err)
	}
	for keyID, want := range map[string]string{"abcd": "ABCD", "": key.ID} {
		found, _ := records(t, manifest("sha256-"+hexA, entry(pgpMessage(t, "ed25519.armored.msg", fmt.Sprintf(`"pgpKeyId": %q`, keyID)))))
		if got := found[id][0].Envelopes[0].KeyID; got != want {
			t.Errorf("key id %q: filed under %s, want %s", keyID, got, want)
		}
	}
}

func TestObjectsOfOneDigestAreMerged(t *testing.T) {
	other := strings.Replace(entry(v1(1)), repository, "registry.example.com/mirror/cart", 1)
	found, _ := records(t, manifest("sha256-"+hexA, entry(v1(1))), manifest("sha256-"+hexA, entry(v1(1)), other))
	digest := image.Digest("sha256:" + hexA)
	if n := len(found[image.Identity{Repository: repository, Digest: digest}]); n != 2 {
		t.Errorf("%d attestations of the image, want 2", n)
	}
	if n := len(found[image.Identity{Repository: "registry.example.com/mirror/cart", Digest: digest}]); n != 1 {
		t.Errorf("%d attestations under the other repository, want 1", n)
	}
}

func TestWhatSpeaksOfAnotherImageComesLast(t *testing.T) {
	other := entry(strings.Replace(v1(1), payload(repository), payload("docker.io/library/x"), 1))
	found, _ := records(t, manifest("sha256-"+hexA, other, entry(`"noteName": "good", `+v1(1)), other))
	list := found[image.Identity{Repository: repository, Digest: image.Digest("sha256:" + hexA)}]
	if len(list) != 3 || list[0].Note != "good" {
		t.Errorf("got %+v", list)
	}
}

func TestAMalformedObjectGivesNothing(t *testing.T) {
	for _, text := range []string{
		manifest("not-a-digest", entry(v1(1))),
		manifest("sha256-"+hexA, entry(v1(1)), `{"resourceUri": "x"}`),
		manifest("sha256-"+hexA, entry(v1(1)+`, "x": 1`)),
	} {
		if found, _ := records(t, text); len(found) > 0 {
			t.Errorf("%s gave %v", text, found)
		}
	}
}
