package evidence

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/horkos/horkos/verifier/image"
)

// Bounds of what is kept of sources that are asked.
const (
	maxAnswers     = 50_000   // of each source
	maxAnswerBytes = 64 << 20 // of all, as answer.size counts
)

// Negative answers, which are failures and empty answers, are worth asking again after
// minAgain, and twice as long after each in a row, up to maxAgain or Terms.Again.
const (
	minAgain = 5 * time.Second
	maxAgain = 2 * time.Minute
)

// answer is what is known of one question. Times are of Memory.elapsed, which no change
// of the wall clock touches.
type answer struct {
	attestations []Attestation
	known        bool          // the source answered once
	read         time.Duration // when it did
	again        time.Duration // from when on it may be asked again
	vain         int           // negative answers in a row
	tried        time.Duration // when it was asked last, in vain
	problem      string        // why the last try failed
	clipped      bool
	revision     string
	size         int
	file         string // where the Store has it; empty when it does not
}

// answers are those of the sources that are asked.
type answers struct {
	mu    sync.RWMutex
	terms map[string]Terms  // by source
	at    map[string]string // the locator of a source
	by    map[Question]*answer
	bytes int
	most  int // bytes that are kept
}

// Asked makes a source one that is asked, at a locator. It is called before anything is looked up.
func (m *Memory) Asked(source, locator string, terms Terms) {
	m.answers.mu.Lock()
	defer m.answers.mu.Unlock()
	m.answers.terms[source], m.answers.at[source] = terms, locator
}

// look gives the answer of a source that is asked; ok is false for other sources.
func (a *answers) look(q Question, now time.Duration) (ans Answer, ok bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	terms, ok := a.terms[q.Source]
	if !ok {
		return Answer{}, false
	}
	e := a.by[q]
	if e == nil {
		return Answer{Again: true}, true
	}
	ans = Answer{State: e.state(terms, now), Problem: e.problem, Again: now >= e.again, Anew: e.anew(terms, now)}
	if e.known {
		ans.Age = now - e.read
	}
	if ans.State >= Stale {
		ans.Attestations = e.attestations
	}
	return ans, true
}

func (e *answer) state(terms Terms, now time.Duration) State {
	switch age := now - e.read; {
	case !e.known:
		return Failed
	case age <= terms.Fresh:
		return Fresh
	case terms.Stale > 0 && age > terms.Stale:
		return Expired
	}
	return Stale
}

// Due tells whether a question is worth asking now, under the policies of that revision:
// it was not asked yet, its answer is not fresh any more, or keys that came since could
// apply to what was left out.
func (m *Memory) Due(q Question, revision string) bool {
	now := m.elapsed()
	m.answers.mu.RLock()
	defer m.answers.mu.RUnlock()
	if _, ok := m.answers.terms[q.Source]; !ok {
		return false
	}
	e := m.answers.by[q]
	return e == nil || now >= e.again || e.anew(m.answers.terms[q.Source], now) || (e.clipped && e.revision != revision)
}

// anew tells whether an answer that holds something may hold more by now, for who waits.
func (e *answer) anew(terms Terms, now time.Duration) bool {
	return terms.Again > 0 && len(e.attestations) > 0 && now >= max(e.tried, e.read)+terms.Again
}

// anyDue tells whether anything that was asked once is worth asking now.
func (m *Memory) anyDue(revision string) bool {
	now := m.elapsed()
	m.answers.mu.RLock()
	defer m.answers.mu.RUnlock()
	for _, e := range m.answers.by {
		if now >= e.again || (e.clipped && e.revision != revision) {
			return true
		}
	}
	return false
}

// put keeps what a source answered at a time read.
func (m *Memory) put(r *Record, read time.Duration) {
	now := m.elapsed()
	a := &m.answers
	a.mu.Lock()
	defer a.mu.Unlock()
	terms, ok := a.terms[r.Question.Source]
	if !ok {
		return
	}
	e := a.entry(r.Question)
	a.bytes -= e.size
	e.attestations, e.known, e.read, e.problem, e.clipped, e.revision = r.Attestations, true, read, "", r.Clipped, r.Revision
	e.size = sizeOf(r)
	a.bytes += e.size
	if len(r.Attestations) > 0 {
		e.vain, e.again = 0, read+terms.Fresh
	} else {
		e.retry(now, terms)
	}
}

// fail keeps that a source was asked and failed.
func (m *Memory) fail(q Question, problem string) {
	now := m.elapsed()
	a := &m.answers
	a.mu.Lock()
	defer a.mu.Unlock()
	terms, ok := a.terms[q.Source]
	if !ok {
		return
	}
	e := a.entry(q)
	e.problem = problem
	e.retry(now, terms)
}

func (e *answer) retry(now time.Duration, terms Terms) {
	e.again, e.tried = now+min(minAgain<<min(e.vain, 10), cmp.Or(terms.Again, maxAgain)), now
	e.vain++
}

func (a *answers) entry(q Question) *answer {
	e := a.by[q]
	if e == nil {
		e = &answer{size: emptySize}
		a.by[q] = e
		a.bytes += e.size
	}
	return e
}

// emptySize is about what an answer takes without attestations.
const emptySize = 400

func sizeOf(r *Record) int {
	n := emptySize
	for i := range r.Attestations {
		n += attestationSize(&r.Attestations[i])
	}
	return n
}

func attestationSize(at *Attestation) int {
	n := 100 + len(at.Note) + len(at.Origin)
	for k := range at.Envelopes {
		n += 150 + len(at.Envelopes[k].Payload) + len(at.Envelopes[k].Signature) + len(at.Envelopes[k].KeyID)
	}
	return n
}

// dropped is an answer that made room for others.
type dropped struct {
	question Question
	file     string // empty when it is in none
}

// bounds are how many answers are kept, and how many bytes of them. Every source has its
// own answers about the images of a node.
func (a *answers) bounds() (count, bytes int) {
	return maxAnswers * max(1, len(a.terms)), a.most
}

// full tells whether there is more than the bounds.
func (m *Memory) full() bool {
	m.answers.mu.RLock()
	defer m.answers.mu.RUnlock()
	count, bytes := m.answers.bounds()
	return len(m.answers.by) > count || m.answers.bytes > bytes
}

// victim is an answer that may make room for others.
type victim struct {
	question Question
	rank     int // what goes first has the lowest
	size     int
	again    time.Duration
}

// makeRoom drops answers until a tenth of the bounds is free. What holds no attestation
// goes first, and then what is about images that are not on this node, each the longest
// unheard of first: both are asked for again at no loss. Of what attests images of this node
// the largest goes first: who fills the memory so loses his own.
func (m *Memory) makeRoom(onNode map[image.Identity]bool) (gone []dropped) {
	victims, count, bytes := m.victims(onNode)
	for chunk := range slices.Chunk(victims, handful) {
		if m.dropSome(chunk, count, bytes, &gone) {
			break
		}
	}
	return gone
}

// victims are all answers in the order in which they go, and so many of them and of their
// bytes as may stay.
func (m *Memory) victims(onNode map[image.Identity]bool) (all []victim, count, bytes int) {
	a := &m.answers
	a.mu.RLock()
	all = make([]victim, 0, len(a.by))
	for q, e := range a.by {
		v := victim{question: q, size: e.size, again: e.again}
		switch {
		case len(e.attestations) == 0:
		case !onNode[q.Identity]:
			v.rank = 1
		default:
			v.rank = 2
		}
		all = append(all, v)
	}
	count, bytes = a.bounds()
	a.mu.RUnlock()
	slices.SortFunc(all, func(x, y victim) int {
		if c := cmp.Compare(x.rank, y.rank); c != 0 {
			return c
		}
		if x.rank == 2 {
			return cmp.Compare(y.size, x.size)
		}
		return cmp.Compare(x.again, y.again)
	})
	return all, count / 10 * 9, bytes / 10 * 9
}

// dropSome drops answers until no more is held than may be, and tells whether it got there.
func (m *Memory) dropSome(victims []victim, count, bytes int, gone *[]dropped) (enough bool) {
	a := &m.answers
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, v := range victims {
		if len(a.by) <= count && a.bytes <= bytes {
			return true
		}
		if e := a.by[v.question]; e != nil {
			*gone = append(*gone, dropped{v.question, e.file})
			a.bytes -= e.size
			delete(a.by, v.question)
		}
	}
	return false
}

// What follows is for the Store, which has the answers on disk.

// termsOf are those of the source of a question; ok is false when it is not asked, or not
// there any more.
func (m *Memory) termsOf(q Question) (terms Terms, ok bool) {
	m.answers.mu.RLock()
	defer m.answers.mu.RUnlock()
	terms, ok = m.answers.terms[q.Source]
	return terms, ok && m.answers.at[q.Source] == q.Locator
}

// files are the names of all files that answers are in.
func (m *Memory) files() map[string]bool {
	m.answers.mu.RLock()
	defer m.answers.mu.RUnlock()
	all := make(map[string]bool)
	for _, e := range m.answers.by {
		if e.file != "" {
			all[e.file] = true
		}
	}
	return all
}

// lose drops the answers whose files are not among those that are left: who owned the
// folder has withdrawn them.
func (m *Memory) lose(left map[string]bool) {
	a := &m.answers
	a.mu.Lock()
	defer a.mu.Unlock()
	for q, e := range a.by {
		if e.file != "" && !left[e.file] {
			a.bytes -= e.size
			delete(a.by, q)
		}
	}
}

// record gives what is to be written of an answer, and when it was read. It is empty when
// there is nothing to write.
func (m *Memory) record(q Question) (Record, time.Duration) {
	m.answers.mu.RLock()
	defer m.answers.mu.RUnlock()
	e := m.answers.by[q]
	if e == nil {
		return Record{}, 0
	}
	return Record{Question: q, Attestations: e.attestations, Clipped: e.clipped, Revision: e.revision}, e.read
}

// holds tells whether there are attestations to be written of an answer.
func (m *Memory) holds(q Question) bool {
	r, _ := m.record(q)
	return len(r.Attestations) > 0
}

// filed notes the file that has an answer read at that time, empty for none, and gives the
// one before. Current is false when the answer changed meanwhile and is to be written again.
func (m *Memory) filed(q Question, file string, read time.Duration) (before string, current bool) {
	m.answers.mu.Lock()
	defer m.answers.mu.Unlock()
	e := m.answers.by[q]
	if e == nil {
		return file, true // dropped meanwhile
	}
	before, e.file = e.file, file
	return before, e.read == read
}

// restore takes an answer from a file, unless a newer one is known. It gives the file that
// is of no use then; empty when there is none.
func (m *Memory) restore(r *Record, read time.Duration, file string) (useless string) {
	m.answers.mu.RLock()
	e := m.answers.by[r.Question]
	newer := e != nil && e.known && e.read >= read
	m.answers.mu.RUnlock()
	if newer {
		return file
	}
	m.put(r, read)
	useless, _ = m.filed(r.Question, file, read)
	return useless
}
