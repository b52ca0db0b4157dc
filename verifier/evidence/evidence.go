// Package evidence holds what was gathered before anybody asked: signed envelopes that
// answer a question, and the arithmetic of their signatures, remembered. It never holds
// a verdict.
package evidence

import (
	"time"

	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/image"
)

// Question asks one source for all it holds about one identity. Comparable.
type Question struct {
	Source   string         `json:"source"`
	Locator  string         `json:"locator,omitempty"` // where in the source; empty for the policy folder
	Identity image.Identity `json:"identity"`
}

// Attestation is one entry of a source: the envelopes of one occurrence, and what stands
// beside them unsigned.
type Attestation struct {
	Envelopes []attestation.Envelope
	Note      string    // the note it claims; empty when it claims none
	Expires   time.Time // unsigned: can only shorten; zero when none
	Origin    string    // the object it was read from, for people
}
