package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/horkos/horkos/verifier"
)

// maxTallied bounds the decisions whose repetitions are counted at a time, of each kind.
const maxTallied = 4096

// bucket is a quota in bytes, refilled over a day. What must be written whatever the quota
// makes debts, at most of a day.
type bucket struct {
	capacity, level float64
	at              time.Time
}

func newBucket(capacity int64, now time.Time) bucket {
	return bucket{capacity: float64(capacity), level: float64(capacity), at: now}
}

// left tells whether there is something left of the quota.
func (b *bucket) left(now time.Time) bool {
	if passed := now.Sub(b.at); passed > 0 {
		b.level = min(b.level+b.capacity*passed.Hours()/24, b.capacity)
	}
	b.at = now
	return b.level > 0
}

func (b *bucket) take(n int) { b.level = max(b.level-float64(n), -b.capacity) }

// tally counts decisions that are the same.
type tally struct {
	quota bucket
	seen  map[tallyKey]*repeats
}

type tallyKey [sha256.Size]byte

// repeats are those after a record that was written.
type repeats struct {
	n    int
	last *Record
	idle bool // there was none when they were written last
}

func (r *repeats) add(again *Record) {
	r.n++
	r.last = slim(again)
}

// same names what makes two decisions the same: of refusals the pod, container, reason and
// image, and who asked for breakglass in vain; where they are allowed, the digests instead of
// the reason.
func same(r *Record) tallyKey {
	parts := []string{r.UID, r.Container, r.Image}
	if r.allowed() {
		for _, d := range r.Digests {
			parts = append(parts, string(d))
		}
	} else {
		parts = append(parts, string(r.Reason))
		for i := range r.Checks {
			if c := &r.Checks[i]; c.Reason == verifier.Breakglass {
				parts = append(parts, c.Detail)
				break
			}
		}
	}
	var buf []byte
	for _, p := range parts {
		buf = binary.AppendUvarint(buf, uint64(len(p)))
		buf = append(buf, p...)
	}
	return sha256.Sum256(buf)
}

// summary is what decisions that have no record of their own are counted by. There are as
// many as there are reasons: a closed list.
type summary struct {
	result      verifier.Result
	reason      verifier.Reason
	enforcement string
	admitted    bool
	lost        bool // the log could not be written then
}

func summaryOf(r *Record) summary {
	return summary{r.Result, r.Reason, r.Enforcement, r.Admitted, false}
}

// take writes a decision, or counts it.
func (l *Log) take(r *Record) error {
	if r.allowed() {
		return l.takeAllowed(r)
	}
	return l.takeRefused(r)
}

// takeRefused writes the first of the same refusals, within the quota.
func (l *Log) takeRefused(r *Record) error {
	key := same(r)
	if again := l.refused.seen[key]; again != nil {
		again.add(r)
		return nil
	}
	if len(l.refused.seen) >= maxTallied || !l.refused.quota.left(l.o.Now()) {
		l.unwritten[summaryOf(r)]++
		return nil
	}
	n, err := l.write(r)
	if err != nil {
		return err
	}
	l.refused.quota.take(n)
	l.refused.seen[key] = new(repeats)
	return nil
}

// takeAllowed writes all that is allowed, but for what is the same within a minute once the
// quota is used up. While the log cannot be written nothing is merely counted: the caller
// must know that there may be no record.
func (l *Log) takeAllowed(r *Record) error {
	if l.allowed.quota.left(l.o.Now()) {
		n, err := l.write(r)
		l.allowed.quota.take(n)
		return err
	}
	key := same(r)
	if again := l.allowed.seen[key]; again != nil && l.failed == nil {
		again.add(r)
		return nil
	}
	n, err := l.write(r)
	if err != nil {
		return err
	}
	l.allowed.quota.take(n)
	if len(l.allowed.seen) < maxTallied {
		l.allowed.seen[key] = new(repeats)
	}
	return nil
}

// miss counts a decision that could not be written. One that is allowed is not one yet:
// whoever gave it has to refuse it now, or to say that it passes.
func (l *Log) miss(r *Record) {
	if r.allowed() && r.Reason != verifier.AuditFailed {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := summaryOf(r)
	s.lost = true
	l.unwritten[s]++
}

// flush writes what was counted. What cannot be written now stays counted. The lock is
// released between records, so that no decision waits for all of them.
func (l *Log) flush() error {
	for _, t := range []*tally{&l.allowed, &l.refused} {
		l.mu.Lock()
		keys := slices.Collect(maps.Keys(t.seen))
		l.mu.Unlock()
		for _, key := range keys {
			if err := l.locked(func() error { return l.flushOne(t, key) }); err != nil {
				return err
			}
		}
	}
	return l.locked(l.flushUnwritten)
}

func (l *Log) locked(do func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ifUsable(do)
}

// ifUsable does something that writes, under a lock that is held.
func (l *Log) ifUsable(do func() error) error {
	if err := l.usable(); err != nil {
		return err
	}
	return do()
}

// flushOne writes how often a decision was repeated, and forgets one that was not.
func (l *Log) flushOne(t *tally, key tallyKey) error {
	again := t.seen[key]
	switch {
	case again.n == 0 && again.idle:
		delete(t.seen, key)
		return nil
	case again.n == 0:
		again.idle = true
		return nil
	case t == &l.refused && !t.quota.left(l.o.Now()):
		l.unwritten[summaryOf(again.last)] += again.n
	default:
		r := again.last
		r.Repeated = again.n
		n, err := l.write(r)
		if err != nil {
			return err
		}
		t.quota.take(n)
	}
	*again = repeats{}
	return nil
}

// flushUnwritten writes how many decisions have no record of their own.
func (l *Log) flushUnwritten() error {
	for s, n := range l.unwritten {
		why := "%d refusals for this reason were not written one by one: there are too many that differ, or their quota of this log is used up"
		if s.lost {
			why = "%d decisions for this reason could not be written when they were made"
		}
		r := l.note(fmt.Sprintf(why, n))
		r.Result, r.Reason, r.Enforcement, r.Admitted, r.Repeated = s.result, s.reason, s.enforcement, s.admitted, n
		if _, err := l.write(r); err != nil {
			return err
		}
		delete(l.unwritten, s)
	}
	return nil
}
