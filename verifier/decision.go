package verifier

import (
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
)

// Decision is the answer to a Request, with every check that was made.
type Decision struct {
	Result Result
	Reason Reason // of the first image with that result
	Images []ImageDecision

	// Revision is that of the policies decided by.
	Revision string

	// Missing are the questions whose answers could change an unresolved decision.
	Missing []evidence.Question
}

// ImageDecision is the answer for one image of a Request.
type ImageDecision struct {
	Image  *Image
	Result Result
	Reason Reason
	Detail string // why, beyond the reason; empty when Checks tell
	Checks []Check

	// FolderRevoked: the image is withdrawn by the node's own folder, which not even the floor lifts.
	FolderRevoked bool
}

// Check is one thing looked at. Layer, Policy and Authority are empty where they do not apply.
type Check struct {
	Result      Result `json:"result"`
	Reason      Reason `json:"reason"`
	Layer       string `json:"layer,omitempty"`
	Policy      string `json:"policy,omitempty"`
	Enforcement string `json:"enforcement,omitempty"` // set for policies that are only evaluated: Warn, Audit
	Requirement string `json:"requirement,omitempty"`
	Authority   string `json:"authority,omitempty"`
	KeyID       string `json:"keyID,omitempty"`
	Attestation string `json:"attestation,omitempty"` // the object it was read from
	Detail      string `json:"detail,omitempty"`

	// failed marks the checks of a layer that did not allow: those a message tells.
	failed bool
}

// Conclude sets the result of the whole to the worst of the images.
func (d *Decision) Conclude() {
	for i := range d.Images {
		if r := d.Images[i].Result; i == 0 || r < d.Result {
			d.Result, d.Reason = r, d.Images[i].Reason
		}
	}
}

// Refuse makes the decision of a gate that could not ask: every image of the request
// has the same result.
func Refuse(req *Request, result Result, reason Reason, detail string) Decision {
	d := Decision{Result: result, Reason: reason}
	for i := range req.Images {
		d.Images = append(d.Images, ImageDecision{Image: &req.Images[i], Result: result, Reason: reason, Detail: detail})
	}
	return d
}

// Digest is the digest by which people know the image: that of the first candidate, or
// of the config.
func (i *Image) Digest() image.Digest {
	for _, c := range i.Candidates {
		if len(c.Digests) > 0 {
			return c.Digests[0]
		}
	}
	return i.Config
}
