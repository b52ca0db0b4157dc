package webhook

import (
	"crypto/x509"
	"net"
	"slices"
	"time"
)

// Schedule is when certificates are made and given up. The zero value is DefaultSchedule.
type Schedule struct {
	Authority time.Duration // how long an authority holds
	Serving   time.Duration // how long a serving certificate holds
	Backdate  time.Duration // how long before it is made each begins, for clocks that are behind
	Overlap   time.Duration // how long a new authority is in the bundle before it signs
	Retire    time.Duration // how long an old authority is in the bundle after its last certificate
	Settle    time.Duration // how long a bundle is seen before API servers are taken to know it
}

// DefaultSchedule renews an authority after eight months and a serving certificate after two.
// An authority of ten years would be renewed by code that nobody has seen run.
func DefaultSchedule() Schedule { return ScheduleOf(DefaultLifetime) }

// Lifetimes of a serving certificate.
const (
	DefaultLifetime = 90 * 24 * time.Hour
	MinLifetime     = time.Minute
)

// ScheduleOf is that of serving certificates that hold so long, MinLifetime at least. Their
// authority holds four times as long.
func ScheduleOf(lifetime time.Duration) Schedule {
	lifetime = max(lifetime, MinLifetime)
	const day = 24 * time.Hour
	return Schedule{Authority: 4 * lifetime, Serving: lifetime, Backdate: time.Hour,
		Overlap: min(time.Hour, lifetime/20), Retire: min(day, lifetime/4), Settle: min(time.Minute, lifetime/60)}
}

// situation is what a replica knows beside what the Secret holds.
type situation struct {
	now       time.Time
	chance    float64 // 0 to 1, of this replica: so that they do not all renew at once
	names     []string
	addresses []net.IP

	held     *pair               // what this replica shows; nil: nothing
	heldBy   *x509.Certificate   // the authority of that; nil: not known
	believed []*x509.Certificate // what the API server believes now
}

// made is when a certificate was made.
func (s Schedule) made(c *x509.Certificate) time.Time { return c.NotBefore.Add(s.Backdate) }

// due tells whether a certificate is to be replaced: after two thirds of its life, and up to a
// twentieth more.
func (s Schedule) due(c *x509.Certificate, at situation) bool {
	made := s.made(c)
	life := c.NotAfter.Sub(made)
	return at.now.After(made.Add(life*2/3 + time.Duration(at.chance*float64(life/20))))
}

// next is what the Secret is to hold after what it holds, and why it differs; nothing if it
// does not.
func (s Schedule) next(have material, at situation) (want material, why []string, err error) {
	want = material{bundle: slices.Clone(have.bundle), signer: have.signer, serving: have.serving}
	because := func(reason string) { why = append(why, reason) }
	if reason := s.renewSigner(have, at); reason != "" {
		signer, err := newAuthority(at.now.Add(-s.Backdate), at.now.Add(s.Authority))
		if err != nil {
			return material{}, nil, err
		}
		want.signer, want.bundle = signer, append([]*x509.Certificate{signer.certificate}, want.bundle...)
		because(reason)
		if have.signer == nil {
			// Another replica may show what only the API server is known to believe still.
			for _, c := range at.believed {
				if c.IsCA && !want.believes(c) && holds(c, at.now) {
					want.bundle = append(want.bundle, c)
				}
			}
		}
	}
	if at.heldBy != nil && holds(at.heldBy, at.now) && !want.believes(at.heldBy) {
		want.bundle = append(want.bundle, at.heldBy)
		because("the authority of the certificate that is shown was not in the bundle")
	}
	restore, reason := s.renewServing(want, at)
	switch {
	case reason == "":
	case restore:
		want.serving = at.held
		because(reason)
	default:
		names, addresses := at.names, at.addresses
		if reason == lacksName {
			// The other replicas may want others: they would take turns.
			names, addresses = union(names, want.serving.certificate.DNSNames), unionIP(addresses, want.serving.certificate.IPAddresses)
		}
		want.serving, err = want.signer.serve(names, addresses, at.now.Add(-s.Backdate), at.now.Add(s.Serving))
		if err != nil {
			return material{}, nil, err
		}
		because(reason)
	}
	if s.retire(&want, at) {
		because("an authority of which nothing is shown any more is given up")
	}
	return want, why, nil
}

func (s Schedule) renewSigner(have material, at situation) string {
	switch {
	case have.signer == nil:
		return "there is no authority that signs"
	case !holds(have.signer.certificate, at.now):
		return "the authority does not hold now"
	case s.due(have.signer.certificate, at):
		return "the authority is due to be replaced"
	}
	return ""
}

const (
	lacksName = "the certificate lacks a name"
	maxNames  = 16
)

func union(wanted, others []string) []string {
	all := slices.Clone(wanted)
	for _, name := range others {
		if len(all) < maxNames && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

func unionIP(wanted, others []net.IP) []net.IP {
	all := slices.Clone(wanted)
	for _, ip := range others {
		if len(all) < maxNames && !slices.ContainsFunc(all, ip.Equal) {
			all = append(all, ip)
		}
	}
	return all
}

// renewServing tells why another serving certificate is needed, and whether it is the one that
// this replica shows.
func (s Schedule) renewServing(m material, at situation) (restore bool, why string) {
	if m.serving == nil || verify(m.serving.certificate, m.bundle, at.now) != nil {
		if at.held != nil && verify(at.held.certificate, m.bundle, at.now) == nil {
			return true, "the certificate that is shown was lost"
		}
		return false, "there is no certificate that holds now"
	}
	signs := m.serving.certificate.CheckSignatureFrom(m.signer.certificate) == nil
	if !signs && at.now.Before(s.made(m.signer.certificate).Add(s.Overlap)) {
		return false, "" // not all may know the new authority
	}
	switch {
	case !signs:
		return false, "there is a new authority"
	case s.due(m.serving.certificate, at):
		return false, "the certificate is due to be replaced"
	case !covers(m.serving.certificate, at):
		return false, lacksName
	}
	return false, ""
}

func covers(c *x509.Certificate, at situation) bool {
	for _, name := range at.names {
		if !slices.Contains(c.DNSNames, name) {
			return false
		}
	}
	for _, address := range at.addresses {
		if !slices.ContainsFunc(c.IPAddresses, address.Equal) {
			return false
		}
	}
	return true
}

// retire removes authorities from the bundle that have no use any more, and the oldest where
// there are too many.
func (s Schedule) retire(m *material, at situation) bool {
	over := m.serving.same(at.held) && m.serving.certificate.CheckSignatureFrom(m.signer.certificate) == nil &&
		at.now.After(s.made(m.serving.certificate).Add(s.Retire))
	before := len(m.bundle)
	kept := m.bundle[:0:0]
	for _, c := range m.bundle {
		needed := c.Equal(m.signer.certificate) || m.serving.certificate.CheckSignatureFrom(c) == nil || (at.heldBy != nil && c.Equal(at.heldBy))
		if twice := slices.ContainsFunc(kept, c.Equal); !twice && (needed || (!over && !at.now.After(c.NotAfter))) {
			kept = append(kept, c)
		}
	}
	for i := len(kept) - 1; i > 0 && len(kept) > maxBundled; i-- {
		if c := kept[i]; m.serving.certificate.CheckSignatureFrom(c) != nil && (at.heldBy == nil || !c.Equal(at.heldBy)) {
			kept = slices.Delete(kept, i, i+1)
		}
	}
	m.bundle = kept
	return len(kept) < before
}
