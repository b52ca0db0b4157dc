// Package evidence holds what was gathered before anybody asked: signed envelopes that
// answer a question, and the arithmetic of their signatures, remembered. It never holds
// a verdict.
//
// A source is complete, and says at once all that it holds (Memory.Replace), or it is
// asked, question by question (Fetcher), and its answers last in a Store.
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

// State is how well a question is answered. The zero value is Unasked.
type State uint8

// The states, from worst to best.
const (
	Unasked State = iota // the source was not asked yet, or has not answered yet
	Failed               // it was asked and failed, and no answer is known
	Expired              // the last answer is older than it may be used
	Stale                // the last answer is older than fresh, and may be used
	Fresh                // the answer is what the source holds
)

var stateNames = [...]string{"unasked", "failed", "expired", "stale", "fresh"}

func (s State) String() string { return stateNames[s] }

// Answer is what is known of the answer to a question. Attestations are those of a Fresh
// or Stale one.
type Answer struct {
	State        State
	Attestations []Attestation
	Age          time.Duration // since the source gave it; 0 for complete sources
	Problem      string        // why asking failed last; empty when it did not fail
	Again        bool          // it may be asked again now
	Anew         bool          // it may be asked again now if what it holds does not suffice
}

// Terms say how long an answer of a source that is asked holds.
type Terms struct {
	Fresh time.Duration // so long it is taken for what the source holds
	Stale time.Duration // so long it may be used; 0: without end
	// Again is how long at most an answer stands in the way of one that attests, for gates that
	// wait: one of nothing, and one of what does not suffice. 0: two minutes, and Fresh.
	Again time.Duration
}

// Record is an answer that a source gave.
type Record struct {
	Question     Question
	Attestations []Attestation
	Read         time.Time // the node's clock when it was given

	// Clipped: the source held more than is kept. Revision is that of the policies whose keys
	// chose what was kept.
	Clipped  bool
	Revision string
}
