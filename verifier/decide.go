// Package verifier decides whether images may run: one verifier for every gate.
// Deciding is pure: it takes the request, the policies and the evidence of a moment, and
// does no I/O, reads no clock and waits for nothing.
package verifier

import (
	"fmt"
	"slices"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
)

// View is the evidence at hand. Neither method waits.
type View interface {
	// Lookup gives what is known of what a source holds about an identity.
	Lookup(evidence.Question) evidence.Answer
	// Outcome gives what verifying an envelope under a key gave; false means not known yet.
	Outcome(*attestation.Key, *attestation.Envelope) (attestation.Outcome, bool)
}

// DefaultAction is what an image gets that no enforcing policy speaks of. The zero value denies.
type DefaultAction bool

// The default actions.
const (
	DenyByDefault  DefaultAction = false
	AllowByDefault DefaultAction = true
)

// Decider decides requests. Its zero value is valid: it knows no source of evidence and denies by default.
type Decider struct {
	Default DefaultAction
	// Sources are asked about every image; each is the Source and Locator of the questions.
	Sources []evidence.Question
}

// Decide answers a request. The images are decided one by one, and the worst decides the whole.
// A request without a time is not decided: at the zero time nothing has expired.
func (d *Decider) Decide(req *Request, snap *policy.Snapshot, view View) Decision {
	if req.Time.IsZero() {
		dec := Refuse(req, Unresolved, Internal, "the request has no time")
		dec.Revision = snap.Revision()
		return dec
	}
	images := req.images()
	dec := Decision{Revision: snap.Revision(), Images: make([]ImageDecision, len(images))}
	layers := snap.Layers(req.Namespace)
	var missing missing
	for i := range images {
		j := judgement{decider: d, req: req, img: &images[i], snap: snap, view: view, layers: layers, name: policy.NameOf(images[i].Name), missing: &missing}
		dec.Images[i] = j.decide()
	}
	dec.Missing = missing.questions
	dec.Conclude()
	return dec
}

// maxMissing bounds the questions that one decision wants answered; the next one wants
// what is left.
const maxMissing = 256

// missing are questions, each once.
type missing struct {
	questions []evidence.Question
	has       map[evidence.Question]bool
}

func (m *missing) add(q evidence.Question) {
	if m.has[q] || len(m.questions) == maxMissing {
		return
	}
	if m.has == nil {
		m.has = make(map[evidence.Question]bool)
	}
	m.has[q] = true
	m.questions = append(m.questions, q)
}

// cut takes some out again.
func (m *missing) cut(from, to int) {
	for _, q := range m.questions[from:to] {
		delete(m.has, q)
	}
	m.questions = slices.Delete(m.questions, from, to)
}

// judgement is the deciding of one image.
type judgement struct {
	decider *Decider
	req     *Request
	img     *Image
	snap    *policy.Snapshot
	view    View
	layers  []policy.Layer
	name    policy.Name // scope and allowlists look at it and nothing else

	checks  []Check
	missing *missing      // of the whole request
	looked  int           // at answers and signatures
	age     time.Duration // of the oldest answer that was looked at
}

func (j *judgement) decide() ImageDecision {
	d := ImageDecision{Image: j.img, once: j.req.Once}
	if j.img.Unbound != "" {
		d.Result, d.Reason, d.Detail = Unresolved, ImageUnbound, j.img.Unbound
		return d
	}
	if rev, digest, ok := j.revoked(); ok {
		d.Result, d.Reason = Denied, ImageRevoked
		d.FolderRevoked = rev.Origin == crds.Folder
		d.Detail = string(digest) + " is revoked by " + rev.Object
		if rev.Reason != "" {
			d.Detail += " (" + clip(rev.Reason, 200) + ")"
		}
		return d
	}
	j.judge(&d)
	return d
}

// judge has the layers decide, or the default action where none is in force.
func (j *judgement) judge(d *ImageDecision) {
	inForce, size := false, 0
	judged := make([]judgedLayer, 0, len(j.layers))
	for i := range j.layers {
		l, exemptions := j.applies(&j.layers[i])
		j.checks = append(j.checks, exemptions...)
		if len(exemptions) > 0 || !l.Judges() || enforcing(l.policies) {
			inForce = true
		}
		if !l.Judges() || len(l.policies) > 0 {
			judged = append(judged, l)
			size += l.size()
		}
	}
	j.checks = slices.Grow(j.checks, size)
	best := j.bestCandidate(judged)
	d.EvidenceAge = j.age
	switch {
	case !inForce: // what is not enforced was evaluated for the report
		d.Result, d.Reason, d.Detail = j.decider.Default.decide(len(judged) > 0)
	case best.result == Allowed && !best.decided:
		d.Result, d.Reason = Allowed, Exempt
	default:
		d.Result, d.Reason = best.result, best.reason
	}
	if j.exhausted() && d.Result != Allowed { // told first: what else was found is not all
		over := tooMuch()
		over.Decides, over.failed = true, true
		j.checks = slices.Insert(j.checks, 0, over)
	}
	d.Checks = fewer(j.checks, d.Result, d.Reason)
}

const (
	// maxLooked bounds how often one image is looked at an answer or a signature for. It is
	// far above what policies ask for that people write, and keeps a decision within the time
	// of a create, whoever may write policies and attestations.
	maxLooked = 200_000
	// maxChecks bounds the checks that are told of one image.
	maxChecks = 1024
)

// exhausted tells whether the image takes more looking at than it may.
func (j *judgement) exhausted() bool { return j.looked > maxLooked }

// tooMuch is what comes of that.
func tooMuch() Check {
	return Check{Result: Misconfigured, Reason: ObjectMalformed,
		Detail: "there are more authorities and attestations than are looked at for one image: let fewer policies name fewer authorities"}
}

// fewer leaves out checks above the bound, first those that refused nothing, and says how many.
func fewer(checks []Check, result Result, reason Reason) []Check {
	if len(checks) <= maxChecks {
		return checks
	}
	kept := make([]Check, 0, maxChecks+1)
	for _, failed := range []bool{true, false} {
		for i := range checks {
			if checks[i].failed == failed && len(kept) < maxChecks {
				kept = append(kept, checks[i])
			}
		}
	}
	return append(kept, Check{Result: result, Reason: reason, Detail: fmt.Sprintf("and %d more checks", len(checks)-maxChecks)})
}

// judgedLayer is a layer and those of its policies that the image is neither out of nor exempt from.
type judgedLayer struct {
	*policy.Layer
	policies []*policy.Policy
}

// size is how many checks the layer makes, if nobody declares an emergency.
func (l *judgedLayer) size() int {
	n := 1
	for _, p := range l.policies {
		n += max(1, len(p.Authorities))
	}
	return n
}

// applies gives what a layer requires of the image, by its bound name, and the exemptions.
// No allowlist cures what cannot be understood.
func (j *judgement) applies(l *policy.Layer) (judgedLayer, []Check) {
	policies := l.About(j.name)
	if by, reports, ok := l.Exempts(j.name); ok && l.Judges() && !malformed(policies) {
		var rest []*policy.Policy
		if !reports {
			rest = slices.DeleteFunc(slices.Clone(policies), func(p *policy.Policy) bool { return p.Enforcement == policy.Enforce })
		}
		return judgedLayer{l, rest}, []Check{exempted(l, by)}
	}
	policies, exemptions := exempt(l, policies, j.name)
	return judgedLayer{l, policies}, exemptions
}

// exempt takes out the policies whose own allowlist names the image. One that cannot be
// understood exempts nothing.
func exempt(l *policy.Layer, policies []*policy.Policy, name policy.Name) (rest []*policy.Policy, checks []Check) {
	rest = policies
	for i, p := range policies {
		by, ok := p.Exempts(name)
		if !ok || p.Malformed != "" || p.Enforcement != policy.Enforce {
			if len(checks) > 0 {
				rest = append(rest, p)
			}
			continue
		}
		if len(checks) == 0 {
			rest = slices.Clone(policies[:i])
		}
		checks = append(checks, exempted(l, by))
	}
	return rest, checks
}

func exempted(l *policy.Layer, by policy.Exemption) Check {
	return Check{Result: Allowed, Reason: Exempt, Layer: l.Name, Policy: by.Object,
		Requirement: RequirementAllowlist, Decides: true, Detail: "the name matches " + by.Pattern + "; a name is trusted, not a digest"}
}

func enforcing(policies []*policy.Policy) bool {
	return slices.ContainsFunc(policies, func(p *policy.Policy) bool { return p.Enforcement == policy.Enforce })
}

// decide is what the default action gives; reported tells that policies speak of the image
// that do not enforce.
func (a DefaultAction) decide(reported bool) (Result, Reason, string) {
	if a == AllowByDefault {
		return Allowed, NoPolicy, ""
	}
	if reported {
		return Denied, NoPolicy, "only policies that report (Audit, Warn) speak of the image, and the default action is deny: to refuse nothing yet, have the nodes audit instead"
	}
	return Denied, NoPolicy, "no enforcing policy speaks of the image, and the default action is deny"
}

// revoked looks at the running config and all that leads to it, before candidates and outside their bound.
func (j *judgement) revoked() (policy.Revocation, image.Digest, bool) {
	if !j.snap.HasRevocations() {
		return policy.Revocation{}, "", false
	}
	var found policy.Revocation
	var at image.Digest
	look := func(d image.Digest) {
		if d == "" || found.Origin == crds.Folder {
			return
		}
		if r, ok := j.snap.Revocation(d); ok && (at == "" || r.Origin == crds.Folder) {
			found, at = r, d
		}
	}
	look(j.img.Config)
	look(j.img.Name.Digest)
	for _, d := range j.img.Digests {
		look(d)
	}
	for _, c := range j.img.Candidates {
		for _, d := range c.Digests {
			look(d)
		}
	}
	return found, at, at != ""
}
