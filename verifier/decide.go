// Package verifier decides whether images may run: one verifier for every gate.
// Deciding is pure: it takes the request, the policies and the evidence of a moment, and
// does no I/O, reads no clock and waits for nothing.
package verifier

import (
	"slices"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
)

// View is the evidence at hand. Neither method waits; false means not known yet.
type View interface {
	// Lookup gives what a source holds about an identity.
	Lookup(evidence.Question) ([]evidence.Attestation, bool)
	// Outcome gives what verifying an envelope under a key gave.
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
func (d *Decider) Decide(req *Request, snap *policy.Snapshot, view View) Decision {
	images := req.images()
	dec := Decision{Revision: snap.Revision(), Images: make([]ImageDecision, len(images))}
	layers := snap.Layers(req.Namespace)
	for i := range images {
		j := judgement{decider: d, req: req, img: &images[i], snap: snap, view: view, layers: layers}
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
	missing []evidence.Question
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

	inForce := 0
	var judged []*policy.Layer // the layers that require something of this image
	for i := range j.layers {
		l := &j.layers[i]
		enforcing := l.Enforcing()
		if by, ok := l.Exempts(j.img.Name); ok && l.Fault == "" && !malformed(l) {
			d.Checks = append(d.Checks, Check{Result: Allowed, Reason: Exempt, Layer: l.Name, Policy: by.Object,
				Requirement: "allowlist", Detail: "the name matches " + by.Pattern + "; a name is trusted, not a digest"})
			inForce++
			continue
		}
		if enforcing {
			inForce++
		}
		if enforcing || len(l.Policies) > 0 {
			judged = append(judged, l)
		}
	}
	if inForce == 0 {
		return j.byDefault(d, judged)
	}
	if len(judged) == 0 {
		d.Result, d.Reason = Allowed, Exempt
		return d
	}
	best := j.bestCandidate(judged)
	d.Checks = append(d.Checks, best.checks...)
	d.Result, d.Reason = best.result, best.reason
	if d.Result == Allowed && !best.decided {
		d.Reason = Exempt
	}
	return d
}

// byDefault applies the default action, with policies that do not decide evaluated for the report.
func (j *judgement) byDefault(d ImageDecision, judged []*policy.Layer) ImageDecision {
	if len(judged) > 0 {
		d.Checks = append(d.Checks, j.bestCandidate(judged).checks...)
	}
	d.Reason = NoPolicy
	if j.decider.Default == AllowByDefault {
		d.Result = Allowed
		return d
	}
	d.Result = Denied
	d.Detail = "no enforcing policy speaks of the image, and the default action is deny"
	return d
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

// malformed tells whether a policy of the layer that would decide cannot be understood:
// then the namespace is misconfigured and no allowlist helps.
func malformed(l *policy.Layer) bool {
	for _, p := range l.Policies {
		if p.Malformed != "" && p.Enforcement == policy.Enforce {
			return true
		}
	}
	return false
}

// verdict is what a candidate, a layer or a policy gave.
type verdict struct {
	result  Result
	reason  Reason
	decided bool // an enforcing policy took part
	checks  []Check
}

// bestCandidate judges the layers under each candidate and gives the best: one candidate
// must satisfy all layers.
func (j *judgement) bestCandidate(layers []*policy.Layer) verdict {
	if len(j.img.Candidates) == 0 {
		return j.allLayers(layers, Candidate{})
	}
	var best verdict
	var missing []evidence.Question
	for i, c := range j.img.Candidates[:min(len(j.img.Candidates), MaxCandidates)] {
		j.missing = nil
		v := j.allLayers(layers, c)
		if v.result == Allowed {
			return v // what is missing of other candidates no longer matters
		}
		if i == 0 || v.result > best.result {
			best = v
		}
		missing = append(missing, j.missing...)
	}
	j.missing = missing
	return best
}

// allLayers gives the worst of the layers.
func (j *judgement) allLayers(layers []*policy.Layer, c Candidate) verdict {
	all := verdict{result: Allowed, reason: Attested}
	for _, l := range layers {
		v := j.layer(l, c)
		if v.decided && v.result != Allowed {
			for i := range v.checks {
				v.checks[i].failed = v.checks[i].decides
			}
		}
		all.checks = append(all.checks, v.checks...)
		if !v.decided {
			continue
		}
		if !all.decided || v.result < all.result {
			all.result, all.reason = v.result, v.reason
		}
		all.decided = true
	}
	return all
}

// layer combines the policies of a layer; those that do not enforce are only reported.
func (j *judgement) layer(l *policy.Layer, c Candidate) verdict {
	if l.Fault != "" {
		return verdict{result: Misconfigured, reason: ObjectMalformed, decided: true,
			checks: []Check{{Result: Misconfigured, Reason: ObjectMalformed, Layer: l.Name, Detail: l.Fault, decides: true}}}
	}
	broken := malformed(l)
	v := verdict{result: Allowed, reason: Attested}
	for _, p := range l.Policies {
		pv := j.policy(l, p, c)
		v.checks = append(v.checks, pv.checks...)
		if p.Enforcement != policy.Enforce {
			continue
		}
		if broken && p.Malformed == "" {
			continue // the malformed one decides for the namespace
		}
		better := pv.result > v.result
		if !v.decided || (better == l.Best && pv.result != v.result) {
			v.result, v.reason = pv.result, pv.reason
		}
		v.decided = true
	}
	return v
}
