package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
)

// maxShown bounds how many attestations of an image are looked at one by one.
const maxShown = 32

// explanation draws a decision as a tree: layers, their policies, the policies'
// authorities, and the attestations that bear their keys. The checks of the decision are
// what was found; how they add up is told by the rules of composition.
type explanation struct {
	*world
	namespace, action, revision string
	now                         time.Time
	decision                    *verifier.ImageDecision

	filed []evidence.Attestation // about the image, at most maxShown
	more  int                    // how many there are beyond
	alone [][]verifier.Check     // what each of filed gives alone
	used  []bool                 // which of filed some authority has a key for
}

// standing is a result and its reason.
type standing struct {
	result verifier.Result
	reason verifier.Reason
}

func (s standing) String() string { return s.result.String() + ", " + string(s.reason) }

func (e *explanation) tree(ctx context.Context) (*branch, error) {
	d := e.decision
	root := &branch{text: "image " + d.Image.Written}
	root.remark(standing{d.Result, d.Reason}.String() + " in namespace " + e.namespace)
	root.remark(d.Detail)
	layers := e.snap.Layers(e.namespace)
	switch {
	case d.Reason == verifier.ImageRevoked || d.Reason == verifier.ImageUnbound:
		root.remark("policies were not looked at")
		return root, nil
	case len(layers) == 0:
		root.remark("no policy speaks of this namespace: the default action, " + e.action + ", decides")
		return root, nil
	case d.Reason == verifier.NoPolicy:
		root.remark("no policy that enforces speaks of this image: the default action, " + e.action + ", decides")
	case len(layers) > 1:
		root.remark("every layer must allow it")
	}
	if err := e.tryAlone(ctx); err != nil {
		return nil, err
	}
	for i := range layers {
		e.layer(root, &layers[i])
	}
	e.strangers(root)
	return root, nil
}

// only is evidence of which one attestation about an image is left.
type only struct {
	*evidence.Memory
	n int
}

func (o only) Lookup(q evidence.Question) evidence.Answer {
	known := o.Memory.Lookup(q)
	all := known.Attestations
	known.Attestations = nil
	if o.n < len(all) {
		known.Attestations = all[o.n : o.n+1]
	}
	return known
}

// tryAlone decides again with each attestation by itself, which tells what became of it.
func (e *explanation) tryAlone(ctx context.Context) error {
	q := evidence.Question{Source: folderSource}
	for _, c := range e.decision.Image.Candidates {
		if len(c.Digests) > 0 {
			q.Identity.Repository, q.Identity.Digest = c.Repository, c.Digests[0]
			break
		}
	}
	all := e.memory.Lookup(q).Attestations
	e.filed = all[:min(len(all), maxShown)]
	e.more = len(all) - len(e.filed)
	e.used = make([]bool, len(e.filed))
	for n := range e.filed {
		req := &verifier.Request{Namespace: e.namespace, Time: e.now, Images: []verifier.Image{*e.decision.Image}}
		dec, err := e.decider.Verify(ctx, req, e.snap, only{e.memory, n})
		if err != nil {
			return err
		}
		e.alone = append(e.alone, dec.Images[0].Checks)
	}
	return nil
}

// layer draws one layer, and gives what it came to; decides is false when nothing in it
// enforces anything of the image.
func (e *explanation) layer(root *branch, l *policy.Layer) (s standing, decides bool) {
	b := root.add("")
	defer func() {
		b.text = "layer " + l.Name + ": " + s.String()
		if !decides {
			b.text = "layer " + l.Name + ": nothing in it decides on the image"
		}
	}()
	if l.Fault != "" {
		b.remark(short(l.Fault))
		return standing{verifier.Misconfigured, verifier.ObjectMalformed}, true
	}
	if l.Unknown != nil {
		b.remark(short(l.Unknown.Message))
		reason := verifier.PoliciesNotSynced
		if l.Unknown.Expired {
			reason = verifier.PoliciesExpired
		}
		return standing{verifier.Unresolved, reason}, true
	}
	var checks []verifier.Check
	exempt := make(map[string]verifier.Check) // by the object that exempts
	for _, c := range e.decision.Checks {
		switch {
		case c.Layer != l.Name:
		case c.Requirement == verifier.RequirementAllowlist:
			exempt[c.Policy] = c
		default:
			checks = append(checks, c)
		}
	}
	if by, reports, ok := l.Exempts(policy.NameOf(e.decision.Image.Name)); ok {
		if c, ok := exempt[by.Object]; ok {
			s = standing{c.Result, c.Reason}
			b.add(by.Object+": "+s.String(), c.Detail)
			for _, p := range l.Policies {
				if !reports && p.Enforcement != policy.Enforce {
					e.policy(b, p, &checks, exempt)
				}
			}
			return s, true
		}
	}
	broken := l.Best && slices.ContainsFunc(l.Policies, func(p *policy.Policy) bool { return p.Malformed != "" })
	var deciding []standing
	for _, p := range l.Policies {
		ps, counts := e.policy(b, p, &checks, exempt)
		if counts && (!broken || p.Malformed != "") {
			deciding = append(deciding, ps)
		}
	}
	if len(deciding) == 0 {
		return s, false
	}
	switch {
	case broken && len(l.Policies) > 1:
		b.remark("one that cannot be understood decides for all of its policies")
	case len(deciding) > 1 && l.Best:
		b.remark(fmt.Sprintf("one of its %d policies is enough", len(deciding)))
	case len(deciding) > 1:
		b.remark(fmt.Sprintf("all of its %d policies must be satisfied", len(deciding)))
	}
	return combine(deciding, l.Best), true
}

// combine gives the best of several, or the worst. With an emergency is worse than without,
// and one that was satisfied tells more than one exempt.
func combine(all []standing, best bool) standing {
	s := all[0]
	for _, o := range all[1:] {
		better := o.rank() - s.rank()
		if (best && better > 0) || (!best && better < 0) || (s.reason == verifier.Exempt && o.result == verifier.Allowed) {
			s = o
		}
	}
	return s
}

func (s standing) rank() int {
	if s.reason == verifier.Emergency {
		return 2*int(s.result) - 1
	}
	return 2 * int(s.result)
}

// policy draws one policy of a layer, and takes its checks off the layer's. It counts
// unless it only reports, or the image is out of its scope.
func (e *explanation) policy(layer *branch, p *policy.Policy, checks *[]verifier.Check, exempt map[string]verifier.Check) (s standing, counts bool) {
	if !p.Applies(policy.NameOf(e.decision.Image.Name)) {
		layer.add(p.ID() + ": the image is out of its scope")
		return s, false
	}
	enforces := p.Enforcement == policy.Enforce
	if c, ok := exempt[p.ID()]; ok {
		s = standing{c.Result, c.Reason}
		layer.add(p.ID()+": "+s.String(), c.Detail)
		return s, enforces
	}
	mine := 0
	for mine < len(*checks) && (*checks)[mine].Policy == p.ID() && (p.Malformed == "" || mine < 1) {
		mine++
	}
	own := (*checks)[:mine]
	*checks = (*checks)[mine:]
	s = standingOf(p, own)
	name := p.ID()
	if !enforces {
		name += fmt.Sprintf(" (%s, only reported)", p.Enforcement)
	}
	b := layer.add(name + ": " + s.String())
	switch {
	case p.Malformed != "":
		b.remark(short(p.Malformed))
		return s, enforces
	case len(own) > 0 && len(p.Authorities) > 0:
		b.remark("requires " + p.Asks())
	}
	for _, c := range own {
		if c.Authority == "" {
			b.remark(short(c.Detail)) // what it requires besides attestations
			continue
		}
		e.authority(b, c)
	}
	return s, enforces
}

// standingOf is what the checks of a policy add up to.
func standingOf(p *policy.Policy, checks []verifier.Check) standing {
	if p.Malformed != "" {
		return standing{verifier.Misconfigured, verifier.ObjectMalformed}
	}
	s := standing{verifier.Allowed, verifier.Attested} // of a policy that asks for no authority
	var asked []standing
	for _, c := range checks {
		if c.Authority != "" && c.Requirement != verifier.RequirementEmergency {
			asked = append(asked, standing{c.Result, c.Reason})
		}
	}
	slices.SortStableFunc(asked, func(a, b standing) int { return int(b.result - a.result) })
	if p.Require >= 1 && p.Require <= len(asked) {
		s = asked[p.Require-1]
	}
	for _, c := range checks {
		switch {
		case c.Authority == "" && c.Result < s.result:
			s = standing{c.Result, c.Reason}
		case c.Requirement == verifier.RequirementEmergency && c.Result > s.result:
			s = standing{c.Result, c.Reason}
		}
	}
	return s
}

// authority draws one authority and what became of each attestation that bears its keys.
func (e *explanation) authority(pb *branch, c verifier.Check) {
	what := "authority "
	if c.Requirement == verifier.RequirementEmergency {
		what = "emergency authority "
	}
	detail := c.Detail
	if detail == "" && c.Reason == verifier.NotAttested {
		detail = "no attestation found"
	}
	b := pb.add(what + c.Authority + ": " + standing{c.Result, c.Reason}.String())
	shown := 0
	for n := range e.filed {
		own, ok := e.aloneFor(n, c)
		if !ok {
			continue
		}
		shown++
		e.used[n] = true
		b.add(e.nameOf(n)+": "+standing{own.Result, own.Reason}.String(), "key "+own.KeyID, short(own.Detail))
		if own.Detail == detail {
			detail = ""
		}
	}
	b.remark(short(detail))
	if e.more > 0 {
		b.remark(fmt.Sprintf("%d more attestations of the image are not shown", e.more))
	}
}

// aloneFor is what an attestation alone is to the authority of a check, if it bears a key of it.
func (e *explanation) aloneFor(n int, c verifier.Check) (verifier.Check, bool) {
	for _, a := range e.alone[n] {
		if a.Layer != c.Layer || a.Policy != c.Policy || a.Authority != c.Authority || (a.Requirement == verifier.RequirementEmergency) != (c.Requirement == verifier.RequirementEmergency) {
			continue
		}
		if c.Result == verifier.Allowed && c.KeyID == a.KeyID && c.Attestation == e.filed[n].Origin {
			return c, true // by itself it may count for another authority with the same key
		}
		return a, a.KeyID != ""
	}
	return verifier.Check{}, false
}

// strangers draws the attestations of the image that no authority has a key for.
func (e *explanation) strangers(root *branch) {
	var b *branch
	for n, used := range e.used {
		if used {
			continue
		}
		if b == nil {
			b = root.add("not counted: no authority above has the key, or the note, of")
		}
		var ids []string
		for i := range e.filed[n].Envelopes {
			if id := e.filed[n].Envelopes[i].KeyID; !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		note := ""
		if e.filed[n].Note != "" {
			note = "note " + e.filed[n].Note
		}
		b.add(e.nameOf(n), "key "+strings.Join(ids, ", "), note)
	}
}

// nameOf names an attestation by the file it is in. Its object is named for the image.
func (e *explanation) nameOf(n int) string {
	_, file, ok := strings.Cut(e.filed[n].Origin, " (")
	if !ok {
		return short(e.filed[n].Origin)
	}
	return "attestation in " + strings.TrimSuffix(file, ")")
}

var digits = regexp.MustCompile(`([0-9a-f]{12})[0-9a-f]{52}`)

// short leaves the first digits of digests: the whole one stands at the top.
func short(text string) string { return digits.ReplaceAllString(text, "$1...") }
