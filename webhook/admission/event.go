package admission

import "time"

// EventReason is the reason of an event, by which people look for it.
type EventReason string

// The reasons of events; the first two are those of Alibaba Cloud's kritis-validation-hook.
const (
	FailedAdmission     EventReason = "FailedKritisAdmission"     // the request was denied
	DryRunAdmission     EventReason = "DryRunKritisAdmission"     // it would have been, were it not for the dry run
	BreakglassAdmission EventReason = "BreakglassKritisAdmission" // it would have been, were it not for breakglass
	EmergencyAdmission  EventReason = "EmergencyKritisAdmission"  // it passed by an attestation of an emergency authority
)

// Event is what there is to tell of a review. The texts are those of whoever asked, bounded.
type Event struct {
	Reason EventReason
	Time   time.Time

	// The object: with generateName and no name yet, Name is what it begins with.
	APIVersion, Kind, Namespace, Name, UID string

	Operation string
	User      string
	Message   string // why, as the answer says
}

// Teller is told of events. It does not wait: what it cannot take at once it drops and
// counts. It writes each into kube-system and the object's namespace, and sees to
// duplicates and rate.
type Teller interface{ Tell(Event) }
