package webhook

import (
	"crypto/sha256"
	"crypto/x509"
	"time"
)

// What API servers believe, as the configurations tell.

// notice remembers since when all configurations have had each authority in their bundle.
func (k *Keeper) notice() {
	now, since := k.options.Now(), make(map[[sha256.Size]byte]time.Time)
	for _, c := range k.inAll() {
		id := sha256.Sum256(c.Raw)
		since[id] = now
		if before, ok := k.since[id]; ok {
			since[id] = before
		}
	}
	k.since = since
}

// settled tells whether all API servers may be taken to believe an authority.
func (k *Keeper) settled(c *x509.Certificate, now time.Time) bool {
	bundles, known := k.bundles()
	if !known || c == nil {
		return false
	}
	if len(bundles) == 0 {
		return true // nobody calls
	}
	since, ok := k.since[sha256.Sum256(c.Raw)]
	return ok && !now.Before(since.Add(k.options.Schedule.Settle))
}

// bundles are those of all webhooks of the configurations there are; known tells whether the
// configurations were all looked for.
func (k *Keeper) bundles() (all [][]byte, known bool) {
	known = true
	for _, s := range k.injected {
		object, listed := s.get()
		known = known && listed
		if object != nil {
			all = append(all, bundlesOf(object)...)
		}
	}
	return all, known
}

// inAll are the authorities that are in every bundle.
func (k *Keeper) inAll() (all []*x509.Certificate) {
	bundles, _ := k.bundles()
	for i, bundle := range bundles {
		have, err := decodeCertificates(bundle)
		if err != nil {
			return nil
		}
		if i == 0 {
			all = have
			continue
		}
		both := all[:0:0]
		for _, c := range all {
			if (material{bundle: have}).believes(c) {
				both = append(both, c)
			}
		}
		all = both
	}
	return all
}

// early tells whether the authority of what is shown is so new that an API server may know only
// another, by which another replica is still believed.
func (k *Keeper) early() bool {
	return k.held.Load() != k.trusted && len(k.inAll()) > 1 && k.options.Now().Before(k.options.Schedule.made(k.heldBy).Add(k.options.Schedule.Settle))
}
