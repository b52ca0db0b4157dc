package verifier_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/kritis"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
)

// What follows is a second, slow decider over policies of the simplest form, written from
// the sentences of the design, and all its worlds put to the first.

// rule is a policy of one of the six layers.
type rule struct {
	origin      crds.Origin
	kind        string
	enforcement string
	require     string
	authorities []verifier.Result // what each of them gives: see authorityOf
	allow       bool              // its own allowlist names the image
	outOfScope  bool              // of a cluster policy: its images do not
	malformed   bool
}

// world is what a decision is about.
type world struct {
	rules  []rule
	admits map[crds.Origin]bool // an AdmissionAllowlist of the origin names the image
}

var (
	originsOfAll = []crds.Origin{crds.Folder, crds.Cluster}
	kindsOfAll   = []string{horkos.KindClusterAttestationPolicy, kritis.KindGenericAttestationPolicy, kritis.KindImageSecurityPolicy}
	enforcements = []string{"Enforce", "Warn", "Audit"}
	requirements = []string{"All", "Any", "1", "2"}
	// authorityOf gives these: somebody who has not attested, one who does not exist, one
	// whose signature is not verified yet, one who attested.
	authorityResults = []verifier.Result{verifier.Denied, verifier.Misconfigured, verifier.Unresolved, verifier.Allowed}
)

// oracle answers, and says whether anything was required at all.
func (w *world) oracle(byDefault verifier.Result) (verifier.Result, verifier.Reason) {
	var layers []verifier.Result // of the layers that have an enforcing policy for the image
	exempt := false
	for _, origin := range originsOfAll {
		for _, kind := range kindsOfAll {
			result, judged, exempted := w.layer(origin, kind)
			exempt = exempt || exempted
			if judged {
				layers = append(layers, result)
			}
		}
		exempt = exempt || w.admits[origin] && !w.broken(origin, kritis.KindGenericAttestationPolicy)
	}
	switch {
	case len(layers) > 0:
		// Every layer that has an enforcing policy for the image must allow.
		worst := slices.Min(layers)
		if worst == verifier.Allowed {
			return worst, verifier.Attested
		}
		return worst, ""
	case exempt: // an exemption is allowed, Exempt, also under deny
		return verifier.Allowed, verifier.Exempt
	}
	return byDefault, verifier.NoPolicy // no Enforce policy is in force for the image
}

// broken: a malformed policy makes its namespace misconfigured, whatever enforcement it claims.
func (w *world) broken(origin crds.Origin, kind string) bool {
	return slices.ContainsFunc(w.rules, func(r rule) bool {
		return r.origin == origin && r.kind == kind && r.malformed
	})
}

func (w *world) layer(origin crds.Origin, kind string) (result verifier.Result, judged, exempted bool) {
	if w.broken(origin, kind) && kind == kritis.KindGenericAttestationPolicy {
		return verifier.Misconfigured, true, false
	}
	var results []verifier.Result
	allExempt := false // from all of the layer
	if kind != horkos.KindClusterAttestationPolicy && w.admits[origin] && !w.broken(origin, kind) {
		allExempt = true // AdmissionAllowlist exempts from its origin's GAPs and ISPs, never from a cluster policy
	}
	for _, r := range w.rules {
		if r.origin != origin || r.kind != kind || (r.enforcement != "Enforce" && !r.malformed) {
			continue // only Enforce policies decide; Warn and Audit, and their allowlists, neither admit, exempt nor deny
		}
		switch {
		case r.malformed:
			results = append(results, verifier.Misconfigured)
		case r.outOfScope:
		case r.allow && kind == kritis.KindGenericAttestationPolicy:
			allExempt = true // a pattern of one policy exempts the image from all of them
		case r.allow:
			exempted = true
		default:
			results = append(results, r.result())
		}
	}
	if allExempt {
		return 0, false, true
	}
	if len(results) == 0 {
		return 0, false, exempted
	}
	if kind == kritis.KindGenericAttestationPolicy {
		return slices.Max(results), true, exempted // GAPs yield the best among them
	}
	return slices.Min(results), true, exempted // ISPs and cluster policies the worst
}

func (r *rule) result() verifier.Result {
	best := slices.Clone(r.authorities)
	slices.Sort(best)
	slices.Reverse(best)
	result := map[string]verifier.Result{"All": best[len(best)-1], "Any": best[0], "1": best[0], "2": best[1]}[r.require]
	if r.kind == kritis.KindImageSecurityPolicy { // without a source of scans misconfigured
		return min(result, verifier.Misconfigured)
	}
	return result
}

// authorityOf is the name of an authority of an origin that gives a result.
func authorityOf(n int, result verifier.Result) string { return fmt.Sprintf("%s-%d", result, n) }

// crossEvidence holds what all authorities attested, and which of it is verified.
func crossEvidence(t *testing.T) *evidence.Memory {
	var attestations []evidence.Attestation
	for n := range 2 {
		attestations = append(attestations, crossSigner(n, verifier.Allowed).attest(t, cart(1)), crossSigner(n, verifier.Unresolved).attest(t, cart(1)))
	}
	memory := holds(cart(1), attestations...)
	for n := range 2 {
		at := attestations[2*n]
		key, err := attestation.ParsePKIXKey("", []byte(crossSigner(n, verifier.Allowed).pem(t)), "")
		if err != nil {
			t.Fatal(err)
		}
		memory.Remember("", key, &at.Envelopes[0], attestation.Verify(key, &at.Envelopes[0]))
	}
	return memory
}

func crossSigner(n int, result verifier.Result) signer { return newSigner(10*n + int(result)) }

// sets are the objects of a world, by origin.
func (w *world) sets(authorities []crds.Object) []crds.Set {
	var sets []crds.Set
	for _, origin := range originsOfAll {
		set := crds.Set{Origin: origin, Objects: slices.Clone(authorities)}
		if w.admits[origin] {
			set.Objects = append(set.Objects, crds.Object{Kind: kritis.KindAdmissionAllowlist, Name: "list",
				Spec: &kritis.AdmissionAllowlistSpec{Patterns: []kritis.NamePattern{{NamePattern: "registry.example.com/shop/*"}}}})
		}
		for i := range w.rules {
			if w.rules[i].origin == origin {
				set.Objects = append(set.Objects, w.rules[i].object(i))
			}
		}
		sets = append(sets, set)
	}
	return sets
}

func (r *rule) object(i int) crds.Object {
	o := crds.Object{Kind: r.kind, Namespace: "shop", Name: fmt.Sprint("p", i)}
	var names []string
	var listed []horkos.Authority
	for n, result := range r.authorities {
		name := authorityOf(n, result)
		names = append(names, name)
		listed = append(listed, horkos.Authority{Name: name, Ref: &horkos.AuthorityRef{Namespace: "shop", Name: name}})
	}
	var patterns []kritis.NamePattern
	if r.allow {
		patterns = []kritis.NamePattern{{NamePattern: "registry.example.com/shop/*"}}
	}
	require, age := kritis.IntOrString(r.require), ""
	if r.malformed {
		age = "never"
	}
	switch r.kind {
	case kritis.KindGenericAttestationPolicy:
		o.Spec = &kritis.GenericAttestationPolicySpec{AttestationAuthorityNames: names, AdmissionAllowlistPatterns: patterns,
			Enforcement: r.enforcement, Require: &require, MaximumAttestationAge: age}
	case kritis.KindImageSecurityPolicy:
		spec := &kritis.ImageSecurityPolicySpec{AttestationAuthorityNames: names, Enforcement: r.enforcement, Require: &require, MaximumAttestationAge: age}
		if r.allow {
			spec.ImageAllowlist = []string{cart(1).String()}
		}
		o.Spec = spec
	default:
		spec := &horkos.ClusterAttestationPolicySpec{Authorities: listed, Allowlist: patterns, Enforcement: r.enforcement, Require: &require, MaximumAttestationAge: age}
		if r.outOfScope {
			spec.Images = []string{"registry.example.com/team/**"}
		}
		o.Namespace, o.Spec = "", spec
	}
	return o
}

// crossAuthorities are those of every origin; the ones that give misconfigured do not exist.
func crossAuthorities(t *testing.T) []crds.Object {
	var all []crds.Object
	for n := range 2 {
		for _, result := range []verifier.Result{verifier.Denied, verifier.Unresolved, verifier.Allowed} {
			all = append(all, crds.Object{Kind: kritis.KindAttestationAuthority, Namespace: "shop", Name: authorityOf(n, result),
				Spec: &kritis.AttestationAuthoritySpec{PublicKeys: []kritis.PublicKey{{KeyType: "PKIX",
					PKIXPublicKey: &kritis.PKIXPublicKey{PublicKeyPEM: crossSigner(n, result).pem(t)}}}}})
		}
	}
	return all
}

// cross puts worlds to both deciders.
type cross struct {
	t           *testing.T
	authorities []crds.Object
	memory      *evidence.Memory
	seen        map[verifier.Result]int
}

func newCross(t *testing.T) *cross {
	return &cross{t, crossAuthorities(t), crossEvidence(t), make(map[verifier.Result]int)}
}

func (c *cross) put(w *world) {
	snap := policy.Compile(w.sets(c.authorities)...)
	for action, byDefault := range map[verifier.DefaultAction]verifier.Result{verifier.AllowByDefault: verifier.Allowed, verifier.DenyByDefault: verifier.Denied} {
		d := decider()
		d.Default = action
		dec := d.Decide(asks(cart(1)), snap, c.memory)
		result, reason := w.oracle(byDefault)
		if dec.Result != result || (reason != "" && dec.Reason != reason) {
			c.t.Fatalf("got %s %s, want %s %s, by default %s, of\n%+v\n%s", dec.Result, dec.Reason, result, reason, byDefault, *w, dec.Message())
		}
		c.seen[result]++
	}
}

// done fails the test unless every result was seen.
func (c *cross) done() {
	c.t.Logf("%v", c.seen)
	for _, result := range authorityResults {
		if c.seen[result] < 100 {
			c.t.Errorf("%s was seen %d times", result, c.seen[result])
		}
	}
}

// TestEveryPolicyAloneIsDecidedAsTheDesignSays: layers by enforcement, require, allowlists,
// scope and the results of two authorities, each with each.
func TestEveryPolicyAloneIsDecidedAsTheDesignSays(t *testing.T) {
	c := newCross(t)
	for n := range 2 * 3 * 3 * 4 * 4 * 4 * 2 * 2 * 2 * 2 {
		digit := func(base int) int { // of n, the world's number
			d := n % base
			n /= base
			return d
		}
		r := rule{
			origin: originsOfAll[digit(2)], kind: kindsOfAll[digit(3)], enforcement: enforcements[digit(3)], require: requirements[digit(4)],
			authorities: []verifier.Result{authorityResults[digit(4)], authorityResults[digit(4)]},
			allow:       digit(2) == 1, malformed: digit(2) == 1, outOfScope: digit(2) == 1,
		}
		admits := digit(2) == 1
		if r.outOfScope && r.kind != horkos.KindClusterAttestationPolicy {
			continue
		}
		c.put(&world{[]rule{r}, map[crds.Origin]bool{r.origin: admits}})
	}
	c.done()
}

// TestLayersAreCombinedAsTheDesignSays: up to eight policies over all six layers.
func TestLayersAreCombinedAsTheDesignSays(t *testing.T) {
	c := newCross(t)
	random := rand.New(rand.NewPCG(5, 6))
	pick := func(n int) bool { return random.IntN(n) == 0 }
	for range 6_000 {
		w := world{admits: map[crds.Origin]bool{crds.Folder: pick(6), crds.Cluster: pick(6)}}
		// Most of a world must be fine for its worst to be anything but denied.
		good := random.IntN(5)
		result := func() verifier.Result {
			if random.IntN(5) < good {
				return verifier.Allowed
			}
			return authorityResults[random.IntN(4)]
		}
		for range random.IntN(9) {
			r := rule{
				origin: originsOfAll[random.IntN(2)], kind: kindsOfAll[random.IntN(3)], require: requirements[random.IntN(4)], enforcement: "Enforce",
				authorities: []verifier.Result{result(), result()}, allow: pick(6), malformed: pick(20),
			}
			if pick(4) {
				r.enforcement = enforcements[random.IntN(3)]
			}
			r.allow = r.allow || (r.kind == kritis.KindImageSecurityPolicy && !pick(4))
			r.outOfScope = r.kind == horkos.KindClusterAttestationPolicy && pick(4)
			w.rules = append(w.rules, r)
		}
		c.put(&w)
	}
	c.done()
}
