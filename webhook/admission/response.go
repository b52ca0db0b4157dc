package admission

import (
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/verifier"
)

// answer is an AdmissionReview as it is answered.
type answer struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Response   response `json:"response"`
}

type response struct {
	UID              string            `json:"uid"`
	Allowed          bool              `json:"allowed"`
	Status           *status           `json:"status,omitempty"`
	AuditAnnotations map[string]string `json:"auditAnnotations,omitempty"`
	Warnings         []string          `json:"warnings,omitempty"`
}

// status is a metav1.Status. It has no reason of its own: kubectl would write it before the
// message, "Error from server (Forbidden): ...", and Kritis' users look for "Error from
// server: admission webhook ...". The decision's reason is its cause.
type status struct {
	Status  string  `json:"status"`
	Message string  `json:"message"`
	Code    int     `json:"code"`
	Details details `json:"details"`
}

type details struct {
	Causes []causeOf `json:"causes"`
}

type causeOf struct {
	Reason  verifier.Reason `json:"reason"`
	Message string          `json:"message"`
}

func failure(code int, message string, result verifier.Result, reason verifier.Reason) *status {
	return &status{Status: "Failure", Message: message, Code: code, Details: details{[]causeOf{{reason, result.String()}}}}
}

// Bounds of what an answer carries beside the decision.
const (
	maxWarnings    = 8
	maxWarning     = 120 // bytes: what clients are promised to see whole
	maxAnnotations = 8   // of reports
	maxAnnotation  = 900
	maxBrokenBy    = 400 // bytes of who broke the glass, and why, where what it let through is told too
)

// told is the answer to a review, and tells of it what there is to tell. Broken is the
// decision that breakglass changed.
func (h *Handler) told(m *matter, broken *verifier.Decision, v gate.Verdict) response {
	dec := &v.Decision
	resp := response{UID: m.UID, Allowed: v.Admit, AuditAnnotations: map[string]string{
		"result": dec.Result.String(), "reason": string(dec.Reason), "revision": dec.Revision,
	}}
	var warnings []string
	switch {
	case !v.Admit:
		resp.Status = failure(http.StatusForbidden, v.Message, dec.Result, dec.Reason)
		h.tell(m, FailedAdmission, v.Message)
	case broken != nil:
		message := clip("breakglass by "+clip(m.brokenBy, maxBrokenBy)+". Without it: "+broken.Message(), maxAnnotation)
		resp.AuditAnnotations["message"] = message
		warnings = wouldBe("breakglass (nodes know none): denied without it", broken)
		if m.Kind.Kind != "Pod" && !m.forPods {
			warnings = append([]string{"the pods that come of it need a token: horkos breakglass -o patch"}, warnings...)
		}
		h.tell(m, BreakglassAdmission, message)
	case dec.Result != verifier.Allowed && m.mirror:
		resp.AuditAnnotations["message"] = v.Message
		warnings = wouldBe("static pod, its node decides: would be denied", dec)
	case dec.Result != verifier.Allowed:
		resp.AuditAnnotations["message"] = v.Message
		warnings = wouldBe("dry run: would be denied", dec)
		h.tell(m, DryRunAdmission, v.Message)
	default:
		if by := emergency(dec); by != "" {
			h.tell(m, EmergencyAdmission, by)
		}
	}
	warn, audit := reports(dec)
	for _, r := range warn {
		warnings = append(warnings, r.warning())
	}
	for i, text := range atMost(maxAnnotations, texts(audit)) {
		resp.AuditAnnotations[fmt.Sprintf("audit-%d", i+1)] = text
	}
	resp.Warnings = atMost(maxWarnings, warnings)
	return resp
}

// emergency says which images pass by emergency attestations alone; empty: none.
func emergency(dec *verifier.Decision) string {
	var all []string
	for i := range dec.Images {
		if img := &dec.Images[i]; img.Reason == verifier.Emergency {
			all = append(all, img.Message())
		}
	}
	return clip(strings.Join(all, "; "), verifier.MaxMessage)
}

// tell tells of an event, but not of a dry run of the request: of that nothing comes.
func (h *Handler) tell(m *matter, reason EventReason, message string) {
	if h.Events == nil || m.DryRun {
		return
	}
	h.Events.Tell(Event{Reason: reason, Time: h.Shell.Now(), APIVersion: clip(m.Kind.APIVersion(), maxName), Kind: clip(m.Kind.Kind, maxName),
		Namespace: clip(m.Namespace, maxName), Name: clip(m.Name, maxName), UID: clip(m.ObjectUID, maxName),
		Operation: clip(m.Operation, maxName), User: clip(printable(m.User.Username), maxName), Message: message})
}

// wouldBe are warnings of the images that would have been denied.
func wouldBe(text string, dec *verifier.Decision) (warnings []string) {
	for i := range dec.Images {
		if img := &dec.Images[i]; img.Result != verifier.Allowed {
			warnings = append(warnings, warning(text+": ", img.Image.Written, ": "+string(img.Reason)))
		}
	}
	return warnings
}

// warning shortens the image in its middle so that the whole fits.
func warning(before, name, after string) string {
	room := max(maxWarning-len(before)-len(after), 24)
	return clip(printable(before+short(name, room)+after), maxWarning)
}

// short is an image name that people recognise: of a digest its first twelve digits, of a
// long repository its end.
func short(name string, room int) string {
	if repository, digest, ok := strings.Cut(name, "@"); ok {
		algorithm, hex, _ := strings.Cut(digest, ":")
		name = repository + "@" + algorithm + ":" + hex[:min(len(hex), 12)]
	}
	if len(name) <= room {
		return name
	}
	const mark = "..."
	from := len(name) - room + len(mark)
	for from < len(name) && !utf8.RuneStart(name[from]) {
		from++
	}
	return mark + name[from:]
}

// atMost keeps n texts, the last of which says how many are left out.
func atMost(n int, texts []string) []string {
	if len(texts) <= n {
		return texts
	}
	return append(texts[:n-1:n-1], fmt.Sprintf("and %d more", len(texts)-n+1))
}

// clip cuts a text at a rune boundary.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const mark = "..."
	n -= len(mark)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + mark
}

// printable makes what others wrote fit for a terminal. It never makes a text longer.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
