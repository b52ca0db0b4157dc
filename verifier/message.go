package verifier

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxMessage bounds a message in bytes: it ends up in kubelet events and waiting reasons.
const MaxMessage = 900

// Bounds of the parts of a message, in bytes: so much of one text that others wrote, of
// all reasons about one image, and of the advice.
const (
	maxText   = 300
	maxWhys   = 500
	maxAdvice = 300
	maxAsked  = 250 // of breakglass
)

// Message tells people what was decided of the images that are not allowed, in the order
// of the request, why, and what to do; of an allowed request it tells what allowed it.
// It is at most MaxMessage bytes of printable UTF-8, and holds no secrets: whoever may
// read the pod may read it.
func (d *Decision) Message() string {
	var parts []string
	var asked, advice string
	for i := range d.Images {
		img := &d.Images[i]
		if (img.Result == Allowed) != (d.Result == Allowed) {
			continue
		}
		parts = append(parts, img.why())
		if asked == "" {
			asked = img.asked()
		}
		if advice == "" {
			advice = img.Advice()
		}
	}
	return fit(parts, asked, advice)
}

// Message is that of one image.
func (d *ImageDecision) Message() string { return fit([]string{d.why()}, d.asked(), d.Advice()) }

// fit joins as many parts as the bound lets, and says how many did not fit.
func fit(parts []string, asked, advice string) string {
	end := ""
	if asked != "" {
		end = "; " + clip(asked, maxAsked)
	}
	if advice != "" {
		end += ". " + clip(advice, maxAdvice)
	}
	room := MaxMessage - len(end)
	var b strings.Builder
	for i, p := range parts {
		sep := ""
		if i > 0 {
			sep = "; "
		}
		rest := more(len(parts) - i - 1)
		if b.Len()+len(sep)+len(p)+len(rest) <= room {
			b.WriteString(sep + p)
			continue
		}
		if i == 0 {
			b.WriteString(clip(p, room-len(rest)) + rest)
		} else {
			b.WriteString(more(len(parts) - i)) // there was room for it before the last part
		}
		break
	}
	return printable(b.String() + end)
}

func more(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; and %d more", n)
}

func (d *ImageDecision) why() string {
	name := clip(d.Image.Written, maxText)
	if name == "" {
		name = "without a name"
	}
	switch d.Reason {
	case SpecTooLarge, AuditFailed, Internal: // whatever the result says, nothing was found out
		return "image " + name + " is refused: " + clip(d.Detail, maxWhys)
	}
	if d.Result == Allowed {
		return "image " + name + " " + d.allowedBy()
	}
	is := " is not attested: "
	switch d.Reason {
	case ImageRevoked, NoPolicy, ImageUnbound, PoliciesNotSynced, PoliciesExpired: // nobody looked for attestations
		is = " is refused: "
	}
	var whys []string
	for i := range d.Checks {
		if c := &d.Checks[i]; c.failed && c.Result != Allowed {
			whys = append(whys, c.why())
		}
	}
	if d.Detail != "" {
		whys = append(whys, d.Detail)
	}
	if len(whys) == 0 {
		whys = append(whys, string(d.Reason))
	}
	return "image " + name + is + fitWhys(whys)
}

// fitWhys keeps one image from taking the room of all.
func fitWhys(whys []string) string {
	var b strings.Builder
	for i, w := range whys {
		if i > 0 && b.Len()+len(w) > maxWhys {
			return b.String() + fmt.Sprintf(", and %d more", len(whys)-i)
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(clip(w, maxWhys))
	}
	return b.String()
}

func (c *Check) why() string {
	detail := clip(c.Detail, maxText)
	if detail == "" && c.Reason == NotAttested {
		detail = "no attestation found"
	}
	authority := "by authority "
	if c.Requirement == RequirementEmergency {
		authority = "by emergency authority "
	}
	switch {
	case c.Authority != "" && detail != "":
		return authority + c.Authority + " (" + detail + ")"
	case c.Authority != "":
		return authority + c.Authority + " (" + string(c.Reason) + ")"
	case c.Reason == NoSource:
		return c.Policy + " cannot be judged (" + detail + ")"
	case c.Policy != "":
		return c.Policy + " cannot be understood (" + detail + ")"
	}
	return "the policies cannot be understood (" + detail + ")"
}

func (d *ImageDecision) allowedBy() string {
	switch d.Reason {
	case Attested, Emergency:
		var names []string
		for i := range d.Checks {
			if c := &d.Checks[i]; c.Result == Allowed && c.Reason == d.Reason && c.Decides && !slices.Contains(names, c.Authority) {
				names = append(names, c.Authority)
			}
		}
		if d.Reason == Emergency {
			return "is attested in an emergency by authority " + strings.Join(names, ", ")
		}
		return "is attested by authority " + strings.Join(names, ", ")
	case Exempt:
		return "is exempt: an allowlist names it"
	case Floor:
		return "is on the floor of this node"
	case NoPolicy:
		return "is in no policy: allowed by default"
	case Breakglass:
		return "is let through by breakglass" + clip(prefixed(": ", d.ofBreakglass(Allowed)), maxWhys)
	}
	return "is allowed: " + string(d.Reason)
}

// asked tells whoever asked for breakglass why there is none.
func (d *ImageDecision) asked() string {
	return prefixed("breakglass was asked for and refused: ", d.ofBreakglass(Denied))
}

// ofBreakglass is what a gate found out about breakglass; empty where nobody asked for it.
func (d *ImageDecision) ofBreakglass(result Result) string {
	for i := range d.Checks {
		if c := &d.Checks[i]; c.Reason == Breakglass && c.Result == result {
			return c.Detail
		}
	}
	return ""
}

// prefixed is a text with something before it; nothing where there is none.
func prefixed(before, text string) string {
	if text == "" {
		return ""
	}
	return before + text
}

// Advice is what to do next about an image that is not allowed: the end of its message.
func (d *ImageDecision) Advice() string {
	if d.Result == Allowed {
		return ""
	}
	switch d.Reason {
	case NotAttested, SignatureInvalid, WrongImage, AttestationExpired, KeyExpired, KeyRevoked:
		if len(d.Checks) == 0 {
			return "" // refused for something that no attestation mends
		}
		for _, c := range d.Image.Candidates {
			if len(c.Digests) > 0 {
				const before, after = "If you trust this content: horkos attest ", " --pkix-key KEY"
				command := before + c.Repository + "@" + string(c.Digests[0]) + after
				if len(command) > maxAdvice { // half a command would be worse than none
					return before + "REPOSITORY@" + string(c.Digests[0]) + after
				}
				return command
			}
		}
		return "Name the image by a repository and a digest that is attested"
	case NoPolicy:
		return "Add a policy for the namespace, or an allowlist entry for the image"
	case EvidencePending, DeadlineExceeded:
		return d.again("It is tried again", "Try again")
	case ImageUnbound:
		return d.again("It is tried again", "Correct it, and try again")
	case SourceUnavailable, EvidenceExpired:
		return d.again("It is asked again; whoever keeps the node", "Try again; whoever keeps Horkos") + " has to see that the source of attestations can be reached"
	case PoliciesNotSynced, PoliciesExpired:
		return d.again("It is tried again; whoever keeps the node", "Try again; whoever keeps Horkos") + " has to see that it reaches the API server: horkos status"
	case TagNotResolved:
		return "Write repository@sha256:... in place of the tag"
	case ObjectMalformed, AuthorityNotFound, NoSource:
		return "Whoever keeps the policies has to mend them: horkos policy check"
	case ImageRevoked:
		return "Use an image that is not revoked"
	case SpecTooLarge:
		return "Make the pod smaller: enableServiceLinks: false, less environment, fewer annotations"
	case AuditFailed:
		return d.again("Whoever keeps the node", "Whoever keeps Horkos") + " has to make room for the audit log"
	}
	return ""
}

// again is the first text where a kubelet tries again, and the second where that is left to
// whoever reads it.
func (d *ImageDecision) again(kubelet, reader string) string {
	if d.once {
		return reader
	}
	return kubelet
}

// clip cuts a text at a rune boundary.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const mark = "..."
	n = max(n-len(mark), 0)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + mark
}

// printable makes what hostile authors wrote fit for a terminal and a log line. It never
// makes a text longer.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
