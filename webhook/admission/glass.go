package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/horkos/horkos/verifier"
)

// Glass is what becomes of the wish that what would be denied be let through. The zero
// value is that nobody wishes it.
type Glass struct {
	Broken  bool
	ForPods bool   // by a token, which the pods that come of the object bear, too
	Reason  string // to record, where it is broken: never the text of a token

	// Refused says why it is not, and what to do about it, for whoever wished it: it is in the
	// message and in the record, and holds no secret. Err is more about that, for the log.
	Refused string
	Err     error
}

// Denied is an image that would be denied.
type Denied struct {
	Image  string // as written
	Reason verifier.Reason
}

// Bounds of what is recorded of breakglass, in bytes.
const (
	maxReason  = 1500 // more than a reason may have
	maxRefused = 300
)

// breakglass lets through what would be denied, if somebody may ask for that; whoever asks
// in vain is told why. It tells what the decision was without it; nil where it changed nothing.
func (h *Handler) breakglass(ctx context.Context, m *matter, dec verifier.Decision) (verifier.Decision, *verifier.Decision) {
	if h.Breakglass == nil || h.DryRun || m.mirror || dec.Result == verifier.Allowed {
		return dec, nil
	}
	glass := h.askBreakglass(ctx, m, &dec)
	if glass.Err != nil {
		h.Shell.Log.Warn("breakglass could not be judged: there is none", "namespace", m.Namespace, "object", m.title(), "error", glass.Err)
	}
	before := dec
	dec.Images = slices.Clone(dec.Images)
	switch {
	case glass.Broken:
		m.forPods = glass.ForPods
		m.brokenBy = clip(printable(m.User.Username), maxName) + ": " + clip(printable(glass.Reason), maxReason)
		if !m.DryRun {
			// The record is on a volume that goes with the pod.
			h.Shell.Log.Warn("let through by breakglass", "namespace", m.Namespace, "object", m.title(), "by", m.brokenBy, "images", strings.Join(clipAll(m.Images), " "))
		}
		letThrough(&dec, m.brokenBy)
		return dec, &before
	case glass.Refused != "":
		noted(&dec, verifier.Check{Result: verifier.Denied, Reason: verifier.Breakglass, Detail: clip(printable(glass.Refused), maxRefused)})
	}
	return dec, nil
}

// clipAll are as many images as a line of a log holds.
func clipAll(images []string) (all []string) {
	for _, name := range images[:min(len(images), 8)] {
		all = append(all, clip(printable(name), maxName))
	}
	return all
}

// letThrough allows each image that would be denied, and says by whom.
func letThrough(dec *verifier.Decision, by string) {
	for i := range dec.Images {
		img := &dec.Images[i]
		if img.Result == verifier.Allowed {
			continue
		}
		img.Checks = append(slices.Clone(img.Checks), verifier.Check{Result: verifier.Allowed, Reason: verifier.Breakglass,
			Detail: "by " + by + "; without it: " + string(img.Reason)})
		img.Result, img.Reason = verifier.Allowed, verifier.Breakglass
	}
	dec.Conclude()
	dec.Reason = verifier.Breakglass // the first image may be attested
}

// noted adds a check to each image that is denied.
func noted(dec *verifier.Decision, c verifier.Check) {
	for i := range dec.Images {
		if img := &dec.Images[i]; img.Result != verifier.Allowed {
			img.Checks = append(slices.Clone(img.Checks), c)
		}
	}
}

// askBreakglass has it judged. What fails, panics or comes too late breaks nothing.
func (h *Handler) askBreakglass(ctx context.Context, m *matter, dec *verifier.Decision) (glass Glass) {
	const failed = "it could not be judged: see the log of Horkos' webhook"
	defer func() {
		if what := recover(); what != nil {
			h.panicked(m, what)
			glass = Glass{Refused: failed}
		}
	}()
	review := m.Review
	for i := range dec.Images {
		if img := &dec.Images[i]; img.Result != verifier.Allowed {
			review.Denied = append(review.Denied, Denied{img.Image.Written, img.Reason})
		}
	}
	glass = h.Breakglass(ctx, review)
	switch {
	case glass.Broken && ctx.Err() != nil:
		return Glass{Refused: "it was not judged in time: try again", Err: fmt.Errorf("it came too late: %w", ctx.Err())}
	case glass.Broken && (glass.Err != nil || glass.Refused != ""):
		return Glass{Refused: failed, Err: errors.Join(errors.New("it was broken and refused"), glass.Err)}
	}
	return glass
}
