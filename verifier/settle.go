package verifier

import (
	"context"
	"fmt"
	"slices"

	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
)

// Limits of the evidence about an image and of one source that is looked at for one
// authority, counted after the filter by key and note, so that foreign evidence cannot
// crowd out the good.
const (
	maxRead  = 256 // attestations
	maxTried = 64  // envelopes; copies of one are one
)

// bounds gathers what is looked at for one authority.
type bounds struct {
	read, tried int
	envelopes   [maxTried]tried
	over        bool // there is more than is looked at
}

// tried is an envelope, and of the attestations that carry it the one that lasts longest:
// their own expiry is not signed, and one that has expired must not hide another.
type tried struct {
	sum [32]byte
	at  *evidence.Attestation
	env *attestation.Envelope
}

// try counts an envelope, and copies of it once. It tells whether it is within the limit.
func (b *bounds) try(at *evidence.Attestation, env *attestation.Envelope) bool {
	sum := env.Sum()
	for i := range b.envelopes[:b.tried] {
		t := &b.envelopes[i]
		if t.sum != sum {
			continue
		}
		if !t.at.Expires.IsZero() && (at.Expires.IsZero() || at.Expires.After(t.at.Expires)) {
			t.at = at
		}
		return true
	}
	if b.over = b.tried == maxTried; b.over {
		return false
	}
	b.envelopes[b.tried] = tried{sum, at, env}
	b.tried++
	return true
}

// each calls visit for every envelope that an authority's keys could have made, under
// every such key, until visit returns false or the bounds are reached. Deciding and
// settling share it, so that what is decided on is what was verified.
func (b *bounds) each(a *policy.Authority, attestations []evidence.Attestation, visit func(*evidence.Attestation, *attestation.Envelope, *policy.Key) bool) {
	for i := range attestations {
		if !b.gather(a, &attestations[i]) {
			break
		}
	}
	for _, t := range b.envelopes[:b.tried] {
		for _, key := range a.Keys(t.env.KeyID) {
			if !visit(t.at, t.env, key) {
				return
			}
		}
	}
}

// gather counts the envelopes of an attestation. It tells whether to go on to the next.
func (b *bounds) gather(a *policy.Authority, at *evidence.Attestation) bool {
	if !a.Accepts(at.Note) {
		return true
	}
	counted := false
	for k := range at.Envelopes {
		env := &at.Envelopes[k]
		if len(a.Keys(env.KeyID)) == 0 {
			continue
		}
		if !counted {
			if b.over = b.read == maxRead; b.over {
				return false
			}
			counted = true
			b.read++
		}
		if !b.try(at, env) {
			return false
		}
	}
	return true
}

// Evidence is a View that remembers outcomes.
type Evidence interface {
	View
	Remember(namespace string, key *attestation.Key, env *attestation.Envelope, out attestation.Outcome)
}

// maxForNamespace bounds the signatures about one question that are verified on behalf of
// one namespace before anybody asks in its name: key ids are free text, and a tenant may
// claim that of everybody with any number of keys.
const maxForNamespace = 64

// Settle verifies every signature that deciding in a namespace on the answer to a question
// could look at, under the policies of the moment, and remembers the outcomes. With an
// empty namespace it does so for all of them, as far as each has not too many. It is
// arithmetic, possibly much of it, and belongs outside the create callback; it stops with
// the context, and goes on from there the next time.
func Settle(ctx context.Context, snap *policy.Snapshot, ev Evidence, namespace string, q evidence.Question) error {
	attestations := ev.Lookup(q).Attestations
	spent := make(map[string]int) // by namespace
	for _, a := range authorities(snap, namespace, attestations) {
		var b bounds
		b.each(a, attestations, func(_ *evidence.Attestation, env *attestation.Envelope, key *policy.Key) bool {
			if ctx.Err() != nil {
				return false
			}
			if _, known := ev.Outcome(key.Key, env); known {
				return true
			}
			if namespace == "" && a.Namespace != "" {
				if spent[a.Namespace] == maxForNamespace {
					return false
				}
				spent[a.Namespace]++
			}
			out := verify(key.Key, env)
			if out.Statement != nil && out.Statement.Identity == q.Identity {
				out.Statement.Identity = q.Identity // one text in memory and not two, for every image of a node
			}
			ev.Remember(a.Namespace, key.Key, env, out)
			return true
		})
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("verify the signatures about %s: %w", q.Identity, err)
	}
	return nil
}

// verify is the arithmetic. A panic in it, which would come again at every try, is one of
// the ways not to verify.
func verify(key *attestation.Key, env *attestation.Envelope) (out attestation.Outcome) {
	defer func() {
		if what := recover(); what != nil {
			out = attestation.Outcome{Failure: &attestation.Failure{Kind: attestation.BadSignature, Detail: "verifying it failed"}}
		}
	}()
	return attestation.Verify(key, env)
}

// authorities are those of a namespace; or all that have a key of any of the attestations.
func authorities(snap *policy.Snapshot, namespace string, attestations []evidence.Attestation) (all []*policy.Authority) {
	seen := make(map[*policy.Authority]bool)
	add := func(list []*policy.Authority) {
		for _, a := range list {
			if !seen[a] {
				seen[a] = true
				all = append(all, a)
			}
		}
	}
	if namespace == "" {
		for i := range attestations {
			for k := range attestations[i].Envelopes {
				add(snap.Authorities(attestations[i].Envelopes[k].KeyID))
			}
		}
		return all
	}
	for _, l := range snap.Layers(namespace) {
		for _, p := range l.Policies {
			add(p.Authorities)
			add(p.Emergency)
		}
	}
	return all
}

// maxRounds bounds how often a gate that may wait gathers and decides again.
const maxRounds = 4

// Rounds is how gates decide that may wait: what a decision misses is gathered and the request
// decided again, while that tells anything new, and twice at least, since what is answered
// first may be verified when it is gathered again, and others gather, too. Of an error of
// gather the decision before it is given with it.
func Rounds(decide func() Decision, gather func(missing []evidence.Question) error) (Decision, error) {
	dec := decide()
	for round := 1; round < maxRounds && len(dec.Missing) > 0; round++ {
		before := dec.Missing
		if err := gather(before); err != nil {
			return dec, err
		}
		if dec = decide(); round > 1 && slices.Equal(before, dec.Missing) {
			break
		}
	}
	return dec, nil
}

// Verify decides as Decide does, for gates that have all there is to know at hand: what is
// missing is settled, in Rounds.
func (d *Decider) Verify(ctx context.Context, req *Request, snap *policy.Snapshot, ev Evidence) (Decision, error) {
	return Rounds(func() Decision { return d.Decide(req, snap, ev) }, func(missing []evidence.Question) error {
		for _, q := range missing {
			if err := Settle(ctx, snap, ev, req.Namespace, q); err != nil {
				return err
			}
		}
		return nil
	})
}
