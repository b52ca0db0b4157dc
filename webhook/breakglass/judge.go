// Package breakglass judges who may let through what the webhook would deny, by the
// annotation Annotation: a user who has the right to, and who says why; or whoever has a
// token, minted for a namespace, a few images and an hour at most. A token is for what
// makes pods of templates: it acts for anybody who may write one, so a service account's
// own rights count for nothing here.
package breakglass

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/dynamic"

	"github.com/horkos/horkos/webhook/admission"
)

// Annotation is the annotation of objects that asks for breakglass.
const Annotation = "kritis.grafeas.io/breakglass"

const (
	maxText = 1024 // bytes of a user's reason
	// atOnce bounds the questions to the API server: anybody who may make a pod can cause one.
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
}

// New makes a Judge, which asks the API server, and the keeper of its key in the namespace.
func New(client func() (dynamic.Interface, error), namespace string, log *slog.Logger, now func() time.Time) (*Judge, *Keeper) {
	keeper := NewKeeper(client, namespace, log, now)
	return NewJudge(keeper, &AccessReviews{Client: client}, now), keeper
}

// NewJudge makes a Judge.
func NewJudge(keys Keys, rights Rights, now func() time.Time) *Judge {
	return &Judge{Keys: keys, Rights: rights, Now: now, asking: make(chan struct{}, atOnce)}
}

// Judge tells whether a review that would be denied is let through, and the reason to record,
// which is never the text of a token. An error says why it is not, where that was asked for.
// Nothing comes of a review but questions.
func (j *Judge) Judge(ctx context.Context, r admission.Review) (reason string, ok bool, err error) {
	text := r.Breakglass
	if text == "" || strings.EqualFold(strings.TrimSpace(text), "false") {
		return "", false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case j.asking <- struct{}{}:
		defer func() { <-j.asking }()
	case <-ctx.Done():
		return "", false, fmt.Errorf("too many ask for breakglass: %w", ctx.Err())
	}
	if isToken(text) {
		reason, err := j.byToken(ctx, r)
		if err == nil {
			return reason, true, nil
		}
		if isController(r.User) {
			return "", false, err
		}
		// A user needs the right, as with any text; what could be a token is not repeated.
		reason, ok, noRight := j.byRight(ctx, r.User, "with a token that does not count: "+err.Error())
		if noRight != nil {
			noRight = fmt.Errorf("%w; %w", err, noRight)
		}
		return reason, ok, noRight
	}
	if isController(r.User) {
		return "", false, errors.New("a service account needs a token: horkos breakglass")
	}
	if err := checkReason(text, maxText); err != nil {
		return "", false, err
	}
	return j.byRight(ctx, r.User, text)
}

// byToken gives the reason that is in a token which lets the review through.
func (j *Judge) byToken(ctx context.Context, r admission.Review) (string, error) {
	key, err := j.Keys.Key(ctx)
	if err != nil {
		return "", err
	}
	t, err := Verify(key, r.Breakglass, j.Now())
	switch {
	case err != nil:
		return "", err
	case t.Namespace != r.Namespace:
		return "", fmt.Errorf("the token is for namespace %s", t.Namespace)
	case len(r.Denied) == 0:
		return "", errors.New("it is not known which images would be denied")
	}
	for _, name := range r.Denied {
		if !t.covers(name) {
			return "", fmt.Errorf("the token is not for image %.200q", name)
		}
	}
	return fmt.Sprintf("token until %s: %s", time.Unix(t.Expires, 0).UTC().Format(time.RFC3339), t.Reason), nil
}

func (j *Judge) byRight(ctx context.Context, user admission.User, reason string) (string, bool, error) {
	may, err := j.Rights.May(ctx, user)
	switch {
	case err != nil:
		return "", false, err
	case ctx.Err() != nil:
		return "", false, ctx.Err()
	case !may:
		return "", false, fmt.Errorf("the user may not %s %s.%s", verb, resource, group)
	}
	return reason, true, nil
}

// isController tells whether the user makes objects for others, of what they wrote.
func isController(u admission.User) bool {
	return strings.HasPrefix(u.Username, "system:serviceaccount:") || slices.Contains(u.Groups, "system:serviceaccounts") ||
		u.Username == "system:kube-controller-manager"
}
