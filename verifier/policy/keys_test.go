package policy

import (
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier/attestation"
)

// malformed are the authorities of an origin that the policies of a namespace name and that
// are malformed, and why.
func malformed(s *Snapshot, namespace string) map[string]string {
	why := make(map[string]string)
	for _, l := range s.Layers(namespace) {
		for _, p := range l.Policies {
			for _, a := range p.Authorities {
				if a.Malformed != "" {
					why[string(l.Origin)+" "+a.Name] = a.Malformed
				}
			}
		}
	}
	return why
}

// span are count numbers from the first on.
func span(first, count int) []int {
	var all []int
	for n := range count {
		all = append(all, first+n)
	}
	return all
}

func pgpKey(t testing.TB, name string) string {
	t.Helper()
	armored, err := os.ReadFile("../attestation/testdata/pgp/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return "{keyType: PGP, asciiArmoredPgpPublicKey: " + base64.StdEncoding.EncodeToString(armored) + "}"
}

func TestANamespaceHasRoomForSoManyKeys(t *testing.T) {
	full := []string{authority("a", keys(t, span(0, 64)...)), authority("b", keys(t, span(64, 64)...)), authority("c", keys(t, span(128, 64)...)), authority("d", keys(t, span(192, 64)...))}
	before := decoded(t, full...).Objects
	older := "publicKeyData: " + base64.StdEncoding.EncodeToString([]byte(keyPEM(t, 900)))
	tests := []struct {
		name string
		more []string
		out  []string
	}{
		{"256 keys", nil, nil},
		{"one more", []string{authority("e", keys(t, 256))}, []string{"e"}},
		{"one more, in the older shape", []string{authority("e", older)}, []string{"e"}},
		{"one more, OpenPGP", []string{authority("e", "publicKeys: ["+pgpKey(t, "ed25519.asc")+"]")}, []string{"e"}},
		{"one more that is none", []string{authority("e", "publicKeys: [{keyType: PKIX, pkixPublicKey: {publicKeyPem: x}}]")}, []string{"e"}},
		{"one more by the algorithm", []string{authority("e", strings.Replace(keys(t, 1), "publicKeyPem", "signatureAlgorithm: ed25519, publicKeyPem", 1))}, []string{"e"}},
		{"one more by the id", []string{authority("e", strings.Replace(keys(t, 1), "keyType", "keyId: k, keyType", 1))}, []string{"e"}},
		{"one more, and one that has room after it", []string{authority("e", keys(t, 256)), authority("f", keys(t, 1, 255))}, []string{"e"}},
		{"one more at the front", []string{authority("0a", keys(t, 256))}, []string{"d"}},
		{"some more at the front", []string{authority("0a", keys(t, span(256, 64)...)), authority("bb", keys(t, 500))}, []string{"c", "d"}},
		{"the same once more", []string{authority("e", keys(t, span(10, 64)...))}, nil},
		{"those of an authority that is not read for its own sake", []string{authority("0a", keys(t, span(256, 65)...))}, nil},
		{"those of a malformed authority", []string{authority("0a", "x: 1, "+keys(t, span(256, 64)...))}, nil},
		{"what is no key at all", []string{authority("e", "publicKeys: [{keyType: X509}]")}, nil},
		{"those of another namespace", []string{object("AttestationAuthority", "other", "a", keys(t, span(256, 64)...))}, nil},
		{"those of a cluster policy", []string{cluster("c", "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: far}}, authorities: [{name: x, "+keys(t, span(256, 64)...)+"}]")}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var want []string
			for _, name := range tt.out {
				want = append(want, "folder "+name)
			}
			set := decoded(t, append(tt.more, gap("p", "attestationAuthorityNames: [0a, a, b, bb, c, d, e, f]"))...)
			set.Objects = slices.Concat(before, set.Objects)
			for range 2 {
				snap := Compile(set)
				why := malformed(snap, "shop")
				maps.DeleteFunc(why, func(_, m string) bool { return !strings.Contains(m, "holds more than") })
				if got := slices.Sorted(maps.Keys(why)); !slices.Equal(got, want) {
					t.Errorf("not read: %v, want %v", got, want)
				}
				told := 0
				for _, f := range snap.Findings() {
					if strings.Contains(f.Message, "holds more than") {
						told++
						if !f.Unusable || f.Warning || f.Ignored || f.Message != why["folder "+strings.TrimPrefix(f.Object, "AttestationAuthority shop/")] {
							t.Errorf("told %+v", f)
						}
					}
				}
				if told != len(want) {
					t.Errorf("%d are told of, want %d", told, len(want))
				}
				slices.Reverse(set.Objects)
			}
		})
	}
}

func TestWhatHasNoRoomInANamespaceIsMalformedThereAlone(t *testing.T) {
	var manifests []string
	for n := range MaxNamespaceKeys + 1 {
		manifests = append(manifests, authority(fmt.Sprintf("a%03d", n), keys(t, n)))
	}
	manifests = append(manifests, gap("p", "attestationAuthorityNames: [a000, a255, a256]"),
		object("AttestationAuthority", "other", "a256", keys(t, 256)), object("GenericAttestationPolicy", "other", "p", "attestationAuthorityNames: [a256]"),
		cluster("c", "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: far}}, authorities: [{name: x, ref: {namespace: shop, name: a256}}, {name: y, ref: {namespace: shop, name: a255}}]"))
	folder, api := decoded(t, manifests...), decoded(t, authority("a256", keys(t, 256)), gap("p", "attestationAuthorityNames: [a256]"))
	api.Origin = crds.Cluster
	snap := Compile(folder, api)
	const why = "namespace shop holds more than 256 keys: AttestationAuthority shop/a256 is not read, as the authorities before it by name leave no room: remove keys that are no longer used"
	for namespace, want := range map[string]map[string]string{"shop": {"folder a256": why}, "other": {}, "far": {"folder x": why}} {
		if got := malformed(snap, namespace); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", namespace, got, want)
		}
	}
	if len(snap.Findings()) != 1 || snap.Findings()[0].Problems[0].Message != why {
		t.Errorf("findings %+v", snap.Findings())
	}
	if got := snap.byKey[compiled(t, manifests[256], gap("p", "attestationAuthorityNames: [a256]")).ids()[0]]; len(got) != 1 {
		t.Errorf("the key is of %d authorities, want that of the other namespace and origin", len(got))
	}
}

// ids are those of all keys that signatures are verified by.
func (s *Snapshot) ids() []string { return slices.Sorted(maps.Keys(s.byKey)) }

func TestAnAuthorityThatNothingCanBeVerifiedByIsMarked(t *testing.T) {
	bad := "{keyType: X509}"
	for name, tt := range map[string]struct {
		spec string
		want []bool // of each finding
	}{
		"no key that can be read":  {"publicKeys: [" + bad + ", " + bad + "]", []bool{false, true}},
		"one of two":               {strings.Replace(keys(t, 1), "[", "["+bad+", ", 1), []bool{false}},
		"no key":                   {"noteReference: projects/p", []bool{true}},
		"more keys than there may": {keys(t, numbers(65)...), []bool{true}},
		"a field that is unknown":  {"x: 1, " + keys(t, 1), []bool{true}},
		"nothing wrong":            {keys(t, 1), nil},
	} {
		var got []bool
		for _, f := range compiled(t, authority("a", tt.spec)).Findings() {
			got = append(got, f.Unusable)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// manyKeys are an authority with keys of all sorts, one of which cannot be read, and a policy.
func manyKeys(t testing.TB) []string {
	list := strings.TrimSuffix(keys(t, 1, 2), "]") + ", " + pgpKey(t, "rsa.asc") + ", " + pgpKey(t, "bad-sha1.asc") + "]"
	return []string{authority("a", list+", publicKeyData: "+base64.StdEncoding.EncodeToString([]byte(keyPEM(t, 3)))), gap("p", "attestationAuthorityNames: [a]")}
}

func TestAKeyIsReadOnceThoughThePoliciesChange(t *testing.T) {
	var c Compiler
	manifests := manyKeys(t)
	first := c.Compile(decoded(t, manifests...))
	before := c.parsed
	if len(before) != 5 {
		t.Fatalf("%d keys are remembered, want 5", len(before))
	}
	failed := 0
	for sum, p := range before {
		if p.err != nil {
			failed++
			before[sum] = parsedKey{err: fmt.Errorf("remembered: %w", p.err)}
		}
	}
	again := c.Compile(decoded(t, append(manifests, gap("q", "attestationAuthorityNames: [a], require: Any"))...))
	if !maps.Equal(c.parsed, before) {
		t.Errorf("now %v, before %v", c.parsed, before)
	}
	if failed != 1 || !strings.Contains(again.Findings()[0].Message, "remembered: ") {
		t.Errorf("the one of %d that cannot be read was read again: %+v", failed, again.Findings())
	}
	for _, id := range first.ids() {
		if one, other := first.Authorities(id)[0].Keys(id), again.Authorities(id)[0].Keys(id); one[0].Key != other[0].Key {
			t.Errorf("%s was read again", id)
		}
	}
}

func TestACompilerRemembersTheLastTimeOnly(t *testing.T) {
	var c Compiler
	manifests := manyKeys(t)
	c.Compile(decoded(t, manifests...))
	old := maps.Clone(c.parsed)
	changed := strings.Replace(manifests[0], pgpKey(t, "rsa.asc"), pgpKey(t, "ed25519.asc"), 1)
	snap := c.Compile(decoded(t, changed, manifests[1]))
	kept := 0
	for sum := range c.parsed {
		if _, ok := old[sum]; ok {
			kept++
		}
	}
	if len(c.parsed) != 5 || kept != 4 {
		t.Errorf("%d keys are remembered, %d of them of before; want 5 and 4", len(c.parsed), kept)
	}
	if want := Compile(decoded(t, changed, manifests[1])).ids(); !slices.Equal(snap.ids(), want) {
		t.Errorf("keys %v, want %v", snap.ids(), want)
	}
	if c.Compile(decoded(t, manifests[1])); len(c.parsed) > 0 {
		t.Errorf("%d keys are remembered of no authority", len(c.parsed))
	}
	if snap := c.Compile(decoded(t, manifests...)); len(snap.ids()) != len(Compile(decoded(t, manifests...)).ids()) {
		t.Errorf("keys %v", snap.ids())
	}
}

// TestAKeyThatIsRememberedIsUnderItsOwnIDAndAlgorithm: the bytes are the same.
func TestAKeyThatIsRememberedIsUnderItsOwnIDAndAlgorithm(t *testing.T) {
	var c Compiler
	for _, tt := range []struct{ id, algorithm, want string }{
		{"", "", "AttestationAuthority shop/a accepts ni:"}, {"k", "", "AttestationAuthority shop/a accepts k"}, {"l", "ed25519", "AttestationAuthority shop/a accepts l"},
		{"l", "ecdsa-p256-sha256", ""}, {"l", "", "AttestationAuthority shop/a accepts l"},
	} {
		list := strings.Replace(keys(t, 1), "{keyType: PKIX, pkixPublicKey: {", fmt.Sprintf("{keyType: PKIX, keyId: %q, pkixPublicKey: {signatureAlgorithm: %q, ", tt.id, tt.algorithm), 1)
		a := only(t, c.Compile(decoded(t, authority("a", list), gap("p", "attestationAuthorityNames: [a]")))).Authorities[0]
		got := ""
		for id := range a.keys {
			got = "AttestationAuthority shop/a accepts " + id
		}
		if !strings.HasPrefix(got, tt.want) || (tt.want == "") != (a.Malformed != "") {
			t.Errorf("id %q, algorithm %q: %q, malformed %q", tt.id, tt.algorithm, got, a.Malformed)
		}
	}
}

func TestACompilerSaysWhatCompileSays(t *testing.T) {
	var c Compiler
	full := []string{gap("p", "attestationAuthorityNames: [a, z]"), authority("a", keys(t, 1)+", x: 1")}
	for n := range MaxNamespaceKeys + 1 {
		full = append(full, authority(fmt.Sprint("k", n), keys(t, n)))
	}
	for n, manifests := range [][]string{manyKeys(t), full, manyKeys(t)[:1], nil, full[:2], manyKeys(t)} {
		var set crds.Set
		if manifests != nil {
			set = decoded(t, manifests...)
		}
		got, want := c.Compile(set), Compile(set)
		if got.Revision() != want.Revision() || fmt.Sprintf("%+v", got.Findings()) != fmt.Sprintf("%+v", want.Findings()) || !slices.Equal(got.ids(), want.ids()) {
			t.Errorf("step %d: %v %+v, want %v %+v", n, got.ids(), got.Findings(), want.ids(), want.Findings())
		}
	}
}

// TestKeysAreUsedWhileTheyAreRemembered: gates decide by the snapshot before while the next is
// compiled. What goes wrong here the race detector finds.
func TestKeysAreUsedWhileTheyAreRemembered(t *testing.T) {
	var c Compiler
	message, err := os.ReadFile("../attestation/testdata/pgp/rsa.msg")
	if err != nil {
		t.Fatal(err)
	}
	set := decoded(t, manyKeys(t)...)
	var users sync.WaitGroup
	var good atomic.Int32
	for range 5 {
		snap := c.Compile(set)
		users.Go(func() {
			for _, id := range snap.ids() {
				for _, key := range snap.Authorities(id)[0].Keys(id) {
					env := attestation.NewEnvelope(attestation.PGP, id, nil, message)
					if got := attestation.Verify(key.Key, &env); got.Failure == nil {
						good.Add(1)
					}
					key.KeyIDs()
				}
			}
		})
	}
	users.Wait()
	if good.Load() == 0 {
		t.Error("no signature is verified")
	}
}
