// Package breakglass judges who may let through what the webhook would deny, by the
// annotation Annotation: a user who has the right to, and who says why; or whoever has a
// token, minted for a namespace, a few images and an hour at most. A token is for what
// makes pods of templates: it acts for anybody who may write one, so a service account's
// own rights count for nothing here.
//
// It stands in for attestations and policies, and for nothing else: what is revoked is never
// let through, nor anything of which it was not found out whether it is, because the image
// could not be tied down, or the verifier failed or ran out of time. One such image is
// enough. (What a tag stands for only a node can tell, and whether that is revoked.) On an
// update a user's reason counts only if the same request wrote it: the author of a pod must not
// borrow the right of whoever changes it. What is let through and cannot be recorded is denied by the gate, as ever.
package breakglass

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/dynamic"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/webhook/admission"
)

// Annotation is the annotation of objects that asks for breakglass.
const Annotation = "kritis.grafeas.io/breakglass"

const (
	maxText = 1024 // bytes of a user's reason
	// atOnce bounds the questions to the API server: anybody who may make a pod can cause one.
	// So many of them may be one user's, or wait, so that nobody keeps others from asking.
	atOnce   = 4
	patience = 3 * time.Second
)

// Keys gives the key of tokens.
type Keys interface {
	Key(context.Context) ([]byte, error)
}

// Rights tells whether a user may break the glass.
type Rights interface {
	May(context.Context, admission.User) (bool, error)
}

// Judge judges reviews that would be denied.
type Judge struct {
	Keys   Keys
	Rights Rights
	Now    func() time.Time

	asking chan struct{}

	mu      sync.Mutex
	waiting map[string]int // who asks or waits to, by name
}

// New makes a Judge, which asks the API server, and the keeper of its key in the namespace.
func New(client func() (dynamic.Interface, error), namespace string, log *slog.Logger, now func() time.Time) (*Judge, *Keeper) {
	keeper := NewKeeper(client, namespace, log, now)
	return NewJudge(keeper, &AccessReviews{Client: client}, now), keeper
}

// NewJudge makes a Judge.
func NewJudge(keys Keys, rights Rights, now func() time.Time) *Judge {
	return &Judge{Keys: keys, Rights: rights, Now: now, asking: make(chan struct{}, atOnce), waiting: make(map[string]int)}
}

// Judge tells what becomes of a review that would be denied. Nothing comes of a review but
// questions.
func (j *Judge) Judge(ctx context.Context, r admission.Review) admission.Glass {
	text := strings.TrimSpace(r.Breakglass)
	if text == "" || strings.EqualFold(text, "false") {
		return admission.Glass{}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reason, err := j.judge(ctx, &r, text)
	if err == nil {
		return admission.Glass{Broken: true, ForPods: isToken(text) && strings.HasPrefix(reason, tokenUntil), Reason: reason}
	}
	glass := admission.Glass{Refused: fmt.Sprintf("user %.64s %s", r.User.Username, err)}
	if untold := (*untold)(nil); errors.As(err, &untold) {
		glass.Err = untold.cause
	}
	return glass
}

// judge gives the reason to record. An error says of the user why there is no breakglass, and
// what to do: it is told to whoever asked, so no text of a token and nothing of the cluster's
// inner workings is in it.
func (j *Judge) judge(ctx context.Context, r *admission.Review, text string) (reason string, err error) {
	if err := passable(r.Denied); err != nil {
		return "", err
	}
	if isToken(text) {
		return j.withToken(ctx, r, text)
	}
	if isController(r.User) {
		return "", errors.New("is a service account and needs a token: horkos breakglass")
	}
	if err := checkReason(text, maxText); err != nil {
		return "", fmt.Errorf("gave a reason that cannot be recorded: %w", err)
	}
	if !r.Wrote {
		return "", errNotWritten
	}
	if err := j.right(ctx, r.User); err != nil {
		return "", fmt.Errorf("%w; ask who may, or for a token: horkos breakglass", err)
	}
	return text, nil
}

// errNotWritten is why a reason that was there before does not count.
var errNotWritten = errors.New("did not write the annotation in this request, and it may be somebody else's: write it in the patch that changes the image, or use a token of horkos breakglass")

// passable tells whether all that would be denied may be let through at all.
func passable(denied []admission.Denied) error {
	if len(denied) == 0 {
		return errors.New("cannot let through what nobody named")
	}
	for _, d := range denied {
		if d.Reason == verifier.ImageRevoked {
			return fmt.Errorf("cannot let through what is revoked: image %.120s", d.Image)
		}
	}
	for _, d := range denied {
		if !judged(d.Reason) {
			return fmt.Errorf("cannot let through what may be revoked (%s): image %.80s", d.Reason, d.Image)
		}
	}
	return nil
}

// judged tells whether the verifier looked at the revocations before it gave a reason, and
// found none of what is written. What a tag stands for it does not know.
func judged(r verifier.Reason) bool {
	switch r {
	case verifier.NoPolicy, verifier.NotAttested, verifier.KeyRevoked, verifier.KeyExpired, verifier.AttestationExpired,
		verifier.SignatureInvalid, verifier.WrongImage, verifier.EvidencePending, verifier.SourceUnavailable, verifier.EvidenceExpired,
		verifier.TagNotResolved, verifier.PoliciesExpired, verifier.ObjectMalformed, verifier.AuthorityNotFound, verifier.NoSource:
		return true
	}
	return false
}

// withToken lets the review through by a token, or by the right of a user who has one that
// does not count: it is not repeated then.
func (j *Judge) withToken(ctx context.Context, r *admission.Review, text string) (reason string, err error) {
	reason, err = j.byToken(ctx, r, text)
	if err == nil {
		return reason, nil
	}
	another := fmt.Errorf("needs another token, of horkos breakglass: %w", err)
	if isController(r.User) {
		return "", another
	}
	if !r.Wrote {
		return "", fmt.Errorf("%w, and %w", errNotWritten, another)
	}
	if noRight := j.right(ctx, r.User); noRight != nil {
		return "", fmt.Errorf("%w, and %w", noRight, another)
	}
	return "with a token that does not count: " + err.Error(), nil
}

// tokenUntil begins the reason of a token that counts.
const tokenUntil = "token until "

// byToken gives the reason that is in a token which lets the review through.
func (j *Judge) byToken(ctx context.Context, r *admission.Review, text string) (string, error) {
	key, err := j.Keys.Key(ctx)
	if err != nil {
		return "", &untold{"the key to check it by could not be read, try again", err}
	}
	t, err := Verify(key, text, j.Now())
	switch {
	case err != nil:
		return "", err
	case t.Namespace != r.Namespace:
		return "", fmt.Errorf("the token is for namespace %s", t.Namespace)
	}
	for _, d := range r.Denied {
		if !t.covers(d.Image) {
			return "", fmt.Errorf("the token is not for image %.120s", d.Image)
		}
	}
	return fmt.Sprintf(tokenUntil+"%s: %s", time.Unix(t.Expires, 0).UTC().Format(time.RFC3339), t.Reason), nil
}

// right tells why a user has no right to break the glass; nil where they have.
func (j *Judge) right(ctx context.Context, user admission.User) error {
	done, err := j.turn(ctx, user.Username)
	if err != nil {
		return err
	}
	defer done()
	may, err := j.Rights.May(ctx, user)
	if err == nil {
		err = ctx.Err()
	}
	switch {
	case err != nil:
		return &untold{"may have the right, but the API server could not be asked (try again)", err}
	case !may:
		return fmt.Errorf("may not %s %s.%s", verb, resource, group)
	}
	return nil
}

// turn waits until a user may ask the API server. Done ends that.
func (j *Judge) turn(ctx context.Context, user string) (done func(), err error) {
	j.mu.Lock()
	if j.waiting[user] >= atOnce {
		j.mu.Unlock()
		return nil, errors.New("asks too often at once (try again)")
	}
	j.waiting[user]++
	j.mu.Unlock()
	gone := func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.waiting[user]--; j.waiting[user] == 0 {
			delete(j.waiting, user)
		}
	}
	select {
	case j.asking <- struct{}{}:
		return func() { <-j.asking; gone() }, nil
	case <-ctx.Done():
		gone()
		return nil, errors.New("had to wait for others who ask (try again)")
	}
}

// untold is an error whose cause is for the log alone.
type untold struct {
	text  string
	cause error
}

func (u *untold) Error() string { return u.text }

// isController tells whether the user makes objects for others, of what they wrote.
func isController(u admission.User) bool {
	return strings.HasPrefix(u.Username, "system:serviceaccount:") || slices.Contains(u.Groups, "system:serviceaccounts") ||
		u.Username == "system:kube-controller-manager"
}
