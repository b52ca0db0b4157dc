// Package verifier decides whether images may run: one verifier for every gate.
// Deciding is pure: it takes the request, the policies and the evidence of a moment, and
// does no I/O, reads no clock and waits for nothing.
package verifier

import (
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
	for i := range images {
		j := judgement{decider: d, req: req, img: &images[i], snap: snap, view: view, layers: layers, name: policy.NameOf(images[i].Name)}
		dec.Images[i] = j.decide()
		for _, q := range j.missing {
			if !slices.Contains(dec.Missing, q) {
				dec.Missing = append(dec.Missing, q)
			}
		}
	}
	dec.Conclude()
	return dec
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
	missing []evidence.Question
	age     time.Duration // of the oldest answer that was looked at
}

func (j *judgement) decide() ImageDecision {
	d := ImageDecision{Image: j.img}
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
		if len(exemptions) > 0 || l.Fault != "" || enforcing(l.policies) {
			inForce = true
		}
		if l.Fault != "" || len(l.policies) > 0 {
			judged = append(judged, l)
			size += l.size()
		}
	}
	j.checks = slices.Grow(j.checks, size)
	best := j.bestCandidate(judged)
	d.Checks, d.EvidenceAge = j.checks, j.age
	switch {
	case !inForce: // what is not enforced was evaluated for the report
		d.Result, d.Reason, d.Detail = j.decider.Default.decide()
	case best.result == Allowed && !best.decided:
		d.Result, d.Reason = Allowed, Exempt
	default:
		d.Result, d.Reason = best.result, best.reason
	}
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
	if by, reports, ok := l.Exempts(j.name); ok && l.Fault == "" && !malformed(policies) {
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

// decide is what the default action gives.
func (a DefaultAction) decide() (Result, Reason, string) {
	if a == AllowByDefault {
		return Allowed, NoPolicy, ""
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
