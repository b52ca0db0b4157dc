// Package gate does what every gate does after a decision: it applies the floor and the
// mode, writes the audit record, counts, and says what was refused and why.
package gate

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/audit"
	"github.com/horkos/horkos/verifier"
)

// Mode is what a gate does with a decision.
type Mode string

// The modes.
const (
	Enforce Mode = "enforce" // what is not allowed is refused
	Audit   Mode = "audit"   // everything passes, but what would endanger the node itself
)

// AuditFailure is what an enforcing gate does with an allowed decision that cannot be recorded.
type AuditFailure string

// What it may do.
const (
	DenyAllowed AuditFailure = "deny-allowed" // it is refused; so too with any other value, and with none
	AllowAnyway AuditFailure = "allow"        // it passes, and is logged and counted as AuditFailed
)

// Subject is whose images a request is about, for the record.
type Subject struct {
	Namespace string
	Pod       string
	UID       string
	Container string
	Static    bool
}

// Recorder takes the record of a decision before the answer is given.
type Recorder interface {
	Append(*audit.Record) error
}

// Shell concludes decisions for one gate.
type Shell struct {
	Gate    string // the gate's name in records and metrics
	Node    string
	Mode    Mode
	Floor   func() *Floor // the floor in force; nil where there is none
	Records Recorder
	Metrics *Metrics
	Log     *slog.Logger
	Now     func() time.Time

	AuditFailure AuditFailure
}

// Verdict is the gate's answer.
type Verdict struct {
	Admit    bool
	Message  string // why not; why, when it is allowed
	Decision verifier.Decision
}

// Judge applies floor and mode to a decision, and nothing else: no I/O, no counter.
func (s *Shell) Judge(req *verifier.Request, dec verifier.Decision) Verdict {
	if dec.Result != verifier.Allowed && s.Floor != nil {
		dec = s.Floor().lift(req.Namespace, dec)
	}
	v := Verdict{Decision: dec, Message: dec.Message()}
	switch {
	case dec.Result == verifier.Allowed:
		v.Admit = true
	case s.Mode == Audit:
		v.Admit = dec.Reason != verifier.SpecTooLarge
	}
	return v
}

// Conclude judges a decision, records and counts it, and gives the answer. What cannot
// be recorded is not allowed, unless AuditFailure says so. Started is when the request came,
// by time.Now: the gate's clock may leap.
func (s *Shell) Conclude(who Subject, req *verifier.Request, dec verifier.Decision, started time.Time) Verdict {
	v := s.Judge(req, dec)
	now, counted := s.Now(), v.Decision.Reason
	took := max(time.Since(started), 0)
	if err := s.record(who, v, now, took); err != nil {
		s.Log.Error("a decision could not be recorded", "namespace", who.Namespace, "pod", who.Pod, "container", who.Container,
			"result", v.Decision.Result.String(), "admitted", v.Admit && (s.Mode == Audit || s.AuditFailure == AllowAnyway), "error", err)
		switch {
		case !v.Admit:
		case s.Mode == Audit:
			s.passUnrecorded(who, v, now, took)
		case s.AuditFailure == AllowAnyway:
			counted = verifier.AuditFailed
			s.passUnrecorded(who, v, now, took)
		default:
			v = s.Judge(req, verifier.Refuse(req, verifier.Unavailable, verifier.AuditFailed, "the decision could not be recorded"))
			// Some images may be recorded as admitted already. If there is room for it now, the
			// log ends with what was answered.
			_ = s.record(who, v, now, took)
			counted = v.Decision.Reason
		}
	}
	s.count(v, counted, time.Since(started))
	s.tell(who, v)
	return v
}

// passUnrecorded tells the log that what could not be recorded passes nevertheless: it counts
// that until it can be written again.
func (s *Shell) passUnrecorded(who Subject, v Verdict, now time.Time, took time.Duration) {
	if v.Decision.Result != verifier.Allowed {
		return // counted as what it is
	}
	images := slices.Clone(v.Decision.Images)
	for i := range images {
		images[i].Reason = verifier.AuditFailed
	}
	v.Decision.Images = images
	_ = s.record(who, v, now, took)
}

// record writes a record for each image. Of what is not allowed it tries all, whatever failed: the log
// counts those that it cannot write.
func (s *Shell) record(who Subject, v Verdict, now time.Time, took time.Duration) error {
	var failed error
	for i := range v.Decision.Images {
		img := &v.Decision.Images[i]
		r := audit.Record{
			Time: now.UTC(), Node: s.Node, Gate: s.Gate, Result: img.Result, Reason: img.Reason, Enforcement: string(s.Mode), Admitted: v.Admit,
			Namespace: who.Namespace, Pod: who.Pod, UID: who.UID, Container: who.Container, Static: who.Static,
			Image: written(img.Image.Written), Digests: img.Image.Digests, Revision: v.Decision.Revision,
			EvidenceAgeSeconds: img.EvidenceAge.Seconds(), Checks: img.Checks, Message: img.Message(), DurationMicros: took.Microseconds(),
		}
		for _, c := range img.Image.Candidates {
			r.Candidates = append(r.Candidates, c.Repository)
		}
		if err := s.Records.Append(&r); err != nil {
			if failed = err; v.Decision.Result == verifier.Allowed && img.Reason != verifier.AuditFailed {
				break // what becomes of it is recorded next
			}
		}
	}
	return failed
}

// maxWritten bounds what a record keeps of an image as written, in bytes: more than any
// name that can be bound.
const maxWritten = 1024

func written(name string) string {
	if len(name) > maxWritten {
		return strings.ToValidUTF8(name[:maxWritten], "") + "..."
	}
	return name
}

func (s *Shell) count(v Verdict, reason verifier.Reason, took time.Duration) {
	if s.Metrics == nil {
		return
	}
	s.Metrics.Decisions.WithLabelValues(s.Gate, v.Decision.Result.String(), string(reason), string(s.Mode)).Inc()
	s.Metrics.Duration.WithLabelValues(s.Gate).Observe(took.Seconds())
	s.Metrics.results[v.Decision.Result].Add(1)
}

// tell logs a refusal, or what enforcing would have refused: one entry a refusal, not a decision.
func (s *Shell) tell(who Subject, v Verdict) {
	if v.Decision.Result == verifier.Allowed {
		return
	}
	text := "refused"
	if v.Admit {
		text = "would be refused"
	}
	s.Log.Warn(text, "namespace", who.Namespace, "pod", who.Pod, "container", who.Container,
		"result", v.Decision.Result.String(), "reason", string(v.Decision.Reason), "message", v.Message)
}
