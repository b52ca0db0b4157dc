package verifier

import (
	"time"

	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
)

// Decision is the answer to a Request, with every check that was made.
type Decision struct {
	Result Result
	Reason Reason // of the first image with that result
	Images []ImageDecision

	// Revision is that of the policies decided by.
	Revision string

	// Missing are the questions whose answers could change the decision or what it reports,
	// each once. A decision that is allowed may miss some: of policies that only report, and
	// where what is known is not fresh.
	Missing []evidence.Question
}

// ImageDecision is the answer for one image of a Request.
type ImageDecision struct {
	Image  *Image
	Result Result
	Reason Reason
	Detail string // why, beyond the reason; empty when Checks tell
	Checks []Check

	// EvidenceAge is how long ago the oldest answer that was looked at was given; 0 when all of
	// it is what complete sources hold.
	EvidenceAge time.Duration

	// FolderRevoked: the image is withdrawn by the node's own folder, which not even the floor lifts.
	FolderRevoked bool

	once bool // of the request
}

// Check is one thing looked at. Fields are empty where they do not apply, and as JSON all
// of them are written.
type Check struct {
	Result Result `json:"result"`
	Reason Reason `json:"reason"`
	Layer  string `json:"layer"`
	Policy string `json:"policy"`
	// Requirement is what the policy asks for: "all of 2", "any of 2", "2 of 3", or one of the
	// constants; of a policy that is only evaluated it says so: "all of 2, only reported (Audit)".
	Requirement string `json:"requirement"`
	Authority   string `json:"authority"`
	KeyID       string `json:"keyID"`
	Attestation string `json:"attestation"` // the object it was read from
	Detail      string `json:"detail"`

	// Enforcement is that of the policy whose requirement this is; empty where there is none.
	Enforcement policy.Enforcement `json:"-"`
	// Decides is false for policies that are only evaluated, and for an emergency authority
	// that attested nothing.
	Decides bool `json:"-"`

	failed bool // of a layer that did not allow: a message tells it
}

// Requirements of checks that are not of a policy's authorities.
const (
	RequirementAllowlist = "allowlist" // an entry exempts the image
	RequirementEmergency = "emergency" // of an emergency authority
)

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
	images := req.images()
	for i := range images {
		d.Images = append(d.Images, ImageDecision{Image: &images[i], Result: result, Reason: reason, Detail: detail, once: req.Once})
	}
	return d
}

// images are those of the request. One that names none is about an image nobody knows, so
// that it too is refused, recorded and told.
func (r *Request) images() []Image {
	if len(r.Images) == 0 {
		return []Image{{Unbound: "the request names no image"}}
	}
	return r.Images
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
