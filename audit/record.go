// Package audit is the node-local record of every decision: one JSON object a line,
// written before the answer is given. The lines are numbered and not chained: whoever may
// write the file can change it without a trace.
package audit

import (
	"time"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// Version is the version of the record's form.
const Version = 1

// Record is one decision about one image of a request. The order of the fields is the
// order in the line, and every field is in it. The key prev, the hash of the line before,
// is not: it comes with the chain.
type Record struct {
	V           int             `json:"v"`
	Seq         uint64          `json:"seq"` // set by the log
	Time        time.Time       `json:"time"`
	Node        string          `json:"node"`
	Gate        string          `json:"gate"`
	Result      verifier.Result `json:"result"`
	Reason      verifier.Reason `json:"reason"`
	Enforcement string          `json:"enforcement"` // enforce or audit
	Admitted    bool            `json:"admitted"`    // whether the gate let the whole request pass

	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	UID       string `json:"uid"`
	Container string `json:"container"`
	Static    bool   `json:"static"`

	Image      string         `json:"image"` // as written
	Digests    []image.Digest `json:"digests"`
	Candidates []string       `json:"candidates"` // the repositories the content may be spoken of under
	Revision   string         `json:"revision"`

	EvidenceAgeSeconds float64          `json:"evidenceAgeSeconds"` // 0 while all evidence is in the policy folder
	Checks             []verifier.Check `json:"checks"`
	Message            string           `json:"message"`
	DurationMicros     int64            `json:"durationMicros"`
	Repeated           int              `json:"repeated"` // 0 while each decision has its own record
}
