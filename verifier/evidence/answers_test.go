package evidence

import (
	"fmt"
	"testing"
	"time"

	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/image"
)

// asked is a memory with one source that is asked, and its clock.
func asked(terms Terms) (*Memory, *time.Duration) {
	m := NewMemory()
	now := new(time.Duration)
	m.elapsed = func() time.Duration { return *now }
	m.Asked("web", "", terms)
	return m, now
}

func about(n int) Question {
	return Question{Source: "web", Identity: image.Identity{Repository: fmt.Sprintf("r%d", n), Digest: image.SHA256([]byte("content"))}}
}

func holding(q Question, n int) *Record {
	r := &Record{Question: q, Read: testTime}
	for i := range n {
		r.Attestations = append(r.Attestations, Attestation{Origin: "o", Envelopes: []attestation.Envelope{envelope(i)}})
	}
	return r
}

func TestAnAnswerIsFreshThenStaleThenExpired(t *testing.T) {
	for _, tt := range []struct {
		name  string
		terms Terms
		at    time.Duration
		want  State
		again bool
	}{
		{"when it is given", Terms{Fresh: time.Minute, Stale: time.Hour}, 0, Fresh, false},
		{"at the end of fresh", Terms{Fresh: time.Minute, Stale: time.Hour}, time.Minute, Fresh, true},
		{"after it", Terms{Fresh: time.Minute, Stale: time.Hour}, time.Minute + 1, Stale, true},
		{"at the end of stale", Terms{Fresh: time.Minute, Stale: time.Hour}, time.Hour, Stale, true},
		{"after it", Terms{Fresh: time.Minute, Stale: time.Hour}, time.Hour + 1, Expired, true},
		{"where stale has no end", Terms{Fresh: time.Minute}, 10_000 * time.Hour, Stale, true},
	} {
		m, now := asked(tt.terms)
		m.put(holding(about(1), 1), 0)
		*now = tt.at
		got := m.Lookup(about(1))
		if got.State != tt.want || got.Again != tt.again || got.Age != tt.at || (len(got.Attestations) > 0) != (tt.want >= Stale) {
			t.Errorf("%s: %+v, want %s, again %v", tt.name, got, tt.want, tt.again)
		}
		if m.Due(about(1), "") != tt.again {
			t.Errorf("%s: due differs from again", tt.name)
		}
	}
}

func TestNegativeAnswersAreWorthAskingAgainEverLater(t *testing.T) {
	seconds := []int{5, 10, 20, 40, 80, 120, 120, 120}
	for _, kind := range []string{"empty", "failed"} {
		m, now := asked(Terms{Fresh: time.Hour})
		negative := func() {
			if kind == "empty" {
				m.put(holding(about(1), 0), *now)
			} else {
				m.fail(about(1), "no route")
			}
		}
		for n, s := range seconds {
			negative()
			if m.Due(about(1), "") {
				t.Fatalf("%s: due at once", kind)
			}
			*now += time.Duration(s)*time.Second - 1
			if m.Due(about(1), "") {
				t.Errorf("%s: answer %d: due before %d s", kind, n, s)
			}
			if *now++; !m.Due(about(1), "") {
				t.Errorf("%s: answer %d: not due after %d s", kind, n, s)
			}
		}
		m.put(holding(about(1), 1), *now) // something at last
		*now += 2 * time.Hour
		negative()
		*now += 5 * time.Second
		if !m.Due(about(1), "") {
			t.Errorf("%s: after an answer it does not begin at 5 s", kind)
		}
	}
}

func TestWhoWaitsForAnAnswerMayAskAgainSooner(t *testing.T) {
	now := new(time.Duration)
	m := NewMemory()
	m.elapsed = func() time.Duration { return *now }
	m.Asked("web", "", Terms{Fresh: time.Minute, Again: minAgain})
	for range 10 {
		m.put(holding(about(1), 0), *now)
		if m.Due(about(1), "") {
			t.Fatal("it is asked again at once")
		}
		if *now += minAgain; !m.Due(about(1), "") {
			t.Fatalf("it is not asked again after %v", minAgain)
		}
	}
}

func TestASourceThatFailsKeepsItsLastAnswerAndSaysWhyItFails(t *testing.T) {
	m, now := asked(Terms{Fresh: time.Minute, Stale: time.Hour})
	if got := m.Lookup(about(1)); got.State != Unasked || !got.Again {
		t.Errorf("before it was asked: %+v", got)
	}
	m.fail(about(1), "no route")
	if got := m.Lookup(about(1)); got.State != Failed || got.Problem != "no route" || got.Attestations != nil {
		t.Errorf("it never answered: %+v", got)
	}
	m.put(holding(about(1), 1), 0)
	if got := m.Lookup(about(1)); got.State != Fresh || got.Problem != "" {
		t.Errorf("it answered: %+v", got)
	}
	*now = 2 * time.Minute
	m.fail(about(1), "hangs")
	if got := m.Lookup(about(1)); got.State != Stale || got.Problem != "hangs" || len(got.Attestations) != 1 {
		t.Errorf("it fails again: %+v", got)
	}
}

func TestWhatWasLeftOutIsAskedAgainUnderOtherPolicies(t *testing.T) {
	m, _ := asked(Terms{Fresh: time.Hour})
	r := holding(about(1), 1)
	r.Clipped, r.Revision = true, "one"
	m.put(r, 0)
	if m.Due(about(1), "one") || !m.Due(about(1), "two") {
		t.Error("due under the policies that chose it, or not under others")
	}
	whole := holding(about(2), 1)
	whole.Revision = "one"
	m.put(whole, 0)
	if m.Due(about(2), "two") {
		t.Error("a whole answer is asked again under other policies")
	}
}

func TestOnlySourcesThatAreAskedHaveAnswers(t *testing.T) {
	m, _ := asked(Terms{})
	q := about(1)
	q.Source = "other"
	m.put(holding(q, 1), 0)
	m.fail(q, "x")
	if m.Due(q, "") || m.Lookup(q).State != Unasked {
		t.Error("another source is asked")
	}
}

func TestEvidenceOfThisNodesImagesIsNotGivenUpForOthers(t *testing.T) {
	m, now := asked(Terms{Fresh: time.Hour})
	here := make(map[image.Identity]bool)
	for n := range 100 {
		m.put(holding(about(n), 1), 0)
		here[about(n).Identity] = true
	}
	for n := 100; !m.full(); n++ {
		*now++
		m.put(holding(about(n), 1), *now)
	}
	gone := m.makeRoom(here)
	if len(gone) < maxAnswers/20 || m.full() {
		t.Errorf("%d made room", len(gone))
	}
	for n := range 100 {
		if m.Lookup(about(n)).State != Fresh {
			t.Fatalf("image %d of this node is forgotten", n)
		}
	}
	if m.Lookup(about(100)).State != Unasked {
		t.Error("the longest unheard of is still there")
	}
}

func TestAnswersWithoutAttestationsMakeRoomForThoseWithSome(t *testing.T) {
	m, now := asked(Terms{Fresh: time.Hour})
	here := make(map[image.Identity]bool)
	for n := 0; !m.full(); n++ {
		*now++
		attestations := 0
		if n < 100 {
			attestations = 1
		}
		m.put(holding(about(n), attestations), *now)
		here[about(n).Identity] = true
	}
	m.makeRoom(here)
	for n := range 100 {
		if m.Lookup(about(n)).State != Fresh {
			t.Fatalf("what attests image %d made room for answers that hold nothing", n)
		}
	}
	if m.Lookup(about(100)).State != Unasked || m.full() {
		t.Error("the longest unheard of is still there")
	}
}

// A create looks up while room is made.
func TestMakingRoomHoldsUpNoLookUp(t *testing.T) {
	m, _ := asked(Terms{Fresh: time.Hour})
	for n := 0; !m.full(); n++ {
		m.put(holding(about(n), 1), 0)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.makeRoom(nil)
	}()
	var worst time.Duration
	for looking := true; looking; {
		select {
		case <-done:
			looking = false
		default:
		}
		started := time.Now()
		m.Lookup(about(1))
		worst = max(worst, time.Since(started))
	}
	if worst > 50*time.Millisecond { // all at once it takes hundreds
		t.Errorf("a look-up waited %s", worst)
	}
}

func TestLargeEvidenceMakesRoomForSmall(t *testing.T) {
	m, _ := asked(Terms{Fresh: time.Hour})
	here := make(map[image.Identity]bool)
	large := func(q Question) *Record {
		return &Record{Question: q, Attestations: []Attestation{{Envelopes: []attestation.Envelope{
			attestation.NewEnvelope(attestation.PKIX, "key", make([]byte, maxKeptBytes), nil)}}}}
	}
	for n := range 1000 {
		m.put(holding(about(n), 1), 0)
		here[about(n).Identity] = true
	}
	for n := 1000; !m.full(); n++ {
		m.put(large(about(n)), 0)
		here[about(n).Identity] = true
	}
	for _, d := range m.makeRoom(here) {
		for n := range 1000 {
			if d.question == about(n) {
				t.Fatalf("small evidence about image %d made room", n)
			}
		}
	}
	if m.full() {
		t.Error("still over the bounds")
	}
}

func TestAnAnswerCanBeReplacedWithoutLosingCount(t *testing.T) {
	m, _ := asked(Terms{Fresh: time.Hour})
	for range 10 {
		m.put(holding(about(1), 3), 0)
		m.fail(about(2), "x")
		m.put(holding(about(2), 1), 0)
	}
	if want := sizeOf(holding(about(1), 3)) + sizeOf(holding(about(2), 1)); m.answers.bytes != want {
		t.Errorf("%d bytes are counted, want %d", m.answers.bytes, want)
	}
}

func TestOutcomesOfAnswersAreNotForgottenWhenAFolderChanges(t *testing.T) {
	m, _ := asked(Terms{Fresh: time.Hour})
	k, r := key(t), holding(about(1), 1)
	m.put(r, 0)
	env := &r.Attestations[0].Envelopes[0]
	m.Remember("", k, env, attestation.Outcome{})
	m.Replace("folder", Records{})
	if _, ok := m.Outcome(k, env); !ok {
		t.Error("forgotten")
	}
}
