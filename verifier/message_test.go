package verifier_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
)

// fits fails the test if a message is not fit for an event, a terminal and a log.
func fits(t testing.TB, message string) {
	t.Helper()
	if len(message) > verifier.MaxMessage {
		t.Errorf("%d bytes: %q", len(message), message)
	}
	if !utf8.ValidString(message) {
		t.Errorf("not UTF-8: %q", message)
	}
	for _, r := range message {
		if !unicode.IsPrint(r) {
			t.Errorf("%U in %q", r, message)
		}
	}
}

func TestAMessageNamesTheImageWhoIsMissingAndWhatToDo(t *testing.T) {
	d := digestOf(1)
	tests := []struct {
		name   string
		req    *verifier.Request
		policy []string
		want   string
	}{
		{"nothing found", asks(cart(1)), []string{authority(t, "release", newSigner(1)), gap("shop", "attestationAuthorityNames: [release]")},
			"image registry.example.com/shop/cart@" + string(d) + " is not attested: by authority release (no attestation found). If you trust this content: horkos attest registry.example.com/shop/cart@" + string(d) + " --pkix-key KEY"},
		{"two authorities", asks(cart(1)), []string{authority(t, "a", newSigner(1)), authority(t, "b", newSigner(2)), gap("shop", "attestationAuthorityNames: [a, b]")},
			"by authority a (no attestation found), by authority b (no attestation found). If you trust this content"},
		{"no policy", asks(cart(1)), nil, "is refused: no enforcing policy speaks of the image, and the default action is deny. Add a policy for the namespace"},
		{"exempt", asks(cart(1)), []string{allowlist("registry.example.com/shop/*")}, "is exempt: an allowlist names it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dec := verify(t, tt.req, policy.Compile(set(t, crds.Folder, tt.policy...)), holds(cart(0)))
			if m := dec.Message(); !strings.Contains(m, tt.want) {
				t.Errorf("got  %q\nwant %q in it", m, tt.want)
			}
			fits(t, dec.Message())
		})
	}
}

func TestImagesAreToldInTheirOrderAndThoseThatDoNotFitAreCounted(t *testing.T) {
	req := &verifier.Request{Namespace: "shop", Time: noon}
	for n := range 20 {
		id := image.Identity{Repository: fmt.Sprintf("registry.example.com/shop/n%d", n), Digest: digestOf(n)}
		req.Images = append(req.Images, bound(id))
	}
	dec := verify(t, req, requires(t, newSigner(1)), holds(cart(0)))
	m := dec.Message()
	fits(t, m)
	told := strings.Count(m, "is not attested")
	if told < 2 || !strings.Contains(m, fmt.Sprintf("; and %d more. If you trust this content", 20-told)) {
		t.Errorf("%d are told of in %q", told, m)
	}
	for n := range told {
		i := strings.Index(m, fmt.Sprintf("/n%d@", n))
		if i < 0 || (n > 0 && i < strings.Index(m, fmt.Sprintf("/n%d@", n-1))) {
			t.Errorf("image %d is not in its place: %q", n, m)
		}
	}
}

func TestWhatIsAllowedIsNotToldOfARequestThatIsRefused(t *testing.T) {
	s := newSigner(1)
	dec := verify(t, asks(cart(1), cart(2)), requires(t, s), holds(cart(1), s.attest(t, cart(1))))
	m := dec.Message()
	if strings.Contains(m, string(digestOf(1))) || !strings.Contains(m, string(digestOf(2))) {
		t.Errorf("message %q", m)
	}
}

func TestARefusalThatFoundOutNothingAboutAttestationsDoesNotSayThatItDid(t *testing.T) {
	for _, reason := range []verifier.Reason{verifier.SpecTooLarge, verifier.AuditFailed, verifier.Internal, verifier.ImageRevoked, verifier.NoPolicy, verifier.ImageUnbound} {
		dec := verifier.Refuse(asks(cart(1)), verifier.Denied, reason, "of a reason")
		if m := dec.Message(); strings.Contains(m, "attested") || !strings.Contains(m, "is refused: of a reason") {
			t.Errorf("%s: %q", reason, m)
		}
	}
}

func TestACommandIsNotToldByHalves(t *testing.T) {
	for _, length := range []int{190, 250} {
		id := image.Identity{Repository: "registry.example.com/" + strings.Repeat("x", length-len("registry.example.com/")), Digest: digestOf(1)}
		dec := verify(t, asks(id), requires(t, newSigner(1)), holds(cart(0)))
		m := dec.Message()
		fits(t, m)
		if !strings.HasSuffix(m, "@"+string(id.Digest)+" --pkix-key KEY") {
			t.Errorf("a repository of %d bytes: %q", length, m)
		}
	}
}

func TestMessagesOfHostileTextAreBoundedAndPrintable(t *testing.T) {
	evil := map[string]string{
		"long":            strings.Repeat("x", 5000),
		"multibyte":       strings.Repeat("\u00e4\u20ac\U0001f600", 500),
		"control":         strings.Repeat("\x1b[31m\r\n\x00", 300),
		"invalid":         strings.Repeat("\xff\xfe\x80", 400),
		"bidirectional":   strings.Repeat("\u202e\u2066", 400),
		"at the boundary": strings.Repeat("x", 299) + "\u20ac",
	}
	for name, text := range evil {
		t.Run(name, func(t *testing.T) {
			img := verifier.Image{Written: text, Unbound: text}
			req := &verifier.Request{Time: noon, Images: []verifier.Image{img, img, img, img}}
			for _, reason := range []verifier.Reason{verifier.Internal, verifier.SpecTooLarge, verifier.NotAttested, verifier.ImageRevoked} {
				dec := verifier.Refuse(req, verifier.Denied, reason, text)
				fits(t, dec.Message())
				fits(t, dec.Images[0].Message())
			}
			dec := decider().Decide(req, policy.Compile(), holds(cart(0)))
			fits(t, dec.Message())
		})
	}
}

func TestNamesOfAuthoritiesAndPoliciesAreHostileToo(t *testing.T) {
	names := []string{"\x1b[2J", strings.Repeat("\u20ac", 84), "a\u202eb"}
	spec := fmt.Sprintf("attestationAuthorityNames: [%q, %q, %q]", names[0], names[1], names[2])
	snap := policy.Compile(set(t, crds.Folder, gap("shop", spec)))
	dec := verify(t, asks(cart(1)), snap, holds(cart(0)))
	want(t, dec, verifier.Misconfigured, verifier.AuthorityNotFound)
	fits(t, dec.Message())
}

func FuzzMessage(f *testing.F) {
	f.Add("registry.example.com/shop/cart:1", "no", "release", uint8(1))
	f.Add("\xff\x1b\u202e", strings.Repeat("\u20ac", 400), "\x00", uint8(20))
	f.Fuzz(func(t *testing.T, written, detail, name string, n uint8) {
		req := &verifier.Request{}
		for range n % 24 {
			req.Images = append(req.Images, verifier.Image{Written: written, Candidates: []verifier.Candidate{{Repository: name, Digests: []image.Digest{image.Digest(detail)}}}})
		}
		for _, result := range []verifier.Result{verifier.Denied, verifier.Allowed} {
			for _, reason := range []verifier.Reason{verifier.NotAttested, verifier.Attested, verifier.Reason(name)} {
				dec := verifier.Refuse(req, result, reason, detail)
				for i := range dec.Images {
					dec.Images[i].Checks = []verifier.Check{{Result: result, Authority: name, Detail: detail, Policy: written}}
				}
				fits(t, dec.Message())
				fits(t, dec.Images[0].Message())
			}
		}
	})
}

func TestOnlyWhereAKubeletAsksAgainAMessageSaysSo(t *testing.T) {
	for reason, node := range map[verifier.Reason]string{
		verifier.EvidencePending:   "It is tried again",
		verifier.ImageUnbound:      "It is tried again",
		verifier.DeadlineExceeded:  "It is tried again",
		verifier.SourceUnavailable: "It is asked again; whoever keeps the node has to see that the source of attestations can be reached",
		verifier.EvidenceExpired:   "It is asked again; whoever keeps the node has to see that the source of attestations can be reached",
		verifier.PoliciesNotSynced: "It is tried again; whoever keeps the node has to see that it reaches the API server: horkos status",
		verifier.PoliciesExpired:   "It is tried again; whoever keeps the node has to see that it reaches the API server: horkos status",
		verifier.AuditFailed:       "Whoever keeps the node has to make room for the audit log",
	} {
		if m := verifier.Refuse(asks(cart(1)), verifier.Unresolved, reason, "why"); !strings.HasSuffix(m.Message(), ". "+node) {
			t.Errorf("%s at a node: %q", reason, m.Message())
		}
	}
	once := asks(cart(1))
	once.Once = true
	for _, reason := range verifier.Reasons() {
		dec := verifier.Refuse(once, verifier.Denied, reason, "why")
		for _, m := range []string{dec.Message(), dec.Images[0].Message()} {
			if strings.Contains(m, "tried again") || strings.Contains(m, "asked again") || strings.Contains(m, "the node") {
				t.Errorf("%s where nobody asks again: %q", reason, m)
			}
		}
	}
	once.Images[0].Unbound = "its name is none"
	dec := decider().Decide(once, policy.Compile(), holds(cart(0)))
	if m := dec.Message(); !strings.HasSuffix(m, " is refused: its name is none. Correct it, and try again") {
		t.Errorf("message %q", m)
	}
}

func TestWhoAskedForBreakglassInVainIsToldWhy(t *testing.T) {
	dec := verify(t, asks(cart(1), cart(2)), requires(t, newSigner(1)), holds(cart(0)))
	without := dec.Message()
	for i := range dec.Images {
		dec.Images[i].Checks = append(dec.Images[i].Checks, verifier.Check{Reason: verifier.Breakglass, Detail: "user alice may not"})
	}
	at := strings.Index(without, ". If you trust this content: horkos attest ")
	if m := dec.Message(); m != without[:at]+"; breakglass was asked for and refused: user alice may not"+without[at:] {
		t.Errorf("message %q", m)
	}
	if m := dec.Images[1].Message(); strings.Count(m, "; breakglass was asked for and refused: user alice may not. If you trust") != 1 {
		t.Errorf("message of an image %q", m)
	}
	// However much there is to tell, it says whether the image is attested, and why there is no breakglass.
	for _, text := range []string{strings.Repeat("x", 5000), strings.Repeat("\u20ac", 2000), strings.Repeat("\x1b", 400)} {
		id := image.Identity{Repository: "registry.example.com/" + strings.Repeat("x", 220), Digest: digestOf(1)}
		dec := verify(t, asks(id, id), requires(t, newSigner(1)), holds(cart(0)))
		dec.Images[0].Checks = append(dec.Images[0].Checks, verifier.Check{Reason: verifier.Breakglass, Detail: text})
		for _, m := range []string{dec.Message(), dec.Images[0].Message()} {
			fits(t, m)
			if !strings.Contains(m, " is not attested: ") || !strings.Contains(m, "; breakglass was asked for and refused: ") || !strings.HasSuffix(m, " --pkix-key KEY") {
				t.Errorf("message %q", m)
			}
		}
	}
}

func TestWhatBreakglassLetsThroughIsToldWithWhoAskedForIt(t *testing.T) {
	dec := verifier.Refuse(asks(cart(1)), verifier.Allowed, verifier.Breakglass, "")
	dec.Images[0].Checks = []verifier.Check{{Result: verifier.Allowed, Reason: verifier.Breakglass, Detail: "by alice: INC-7\x1b"}}
	if m := dec.Images[0].Message(); !strings.HasSuffix(m, " is let through by breakglass: by alice: INC-7?") {
		t.Errorf("message %q", m)
	}
	dec.Images[0].Checks[0].Detail = strings.Repeat("\u20ac", 3000)
	fits(t, dec.Images[0].Message())
}
