package audit

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/verifier"
)

// timed is a log on a clock.
func timed(t *testing.T, maxBytes int64) (*Log, *clock) {
	t.Helper()
	c := &clock{noon}
	return openWith(t, Options{Path: filepath.Join(t.TempDir(), "audit.log"), Now: c.Now, MaxBytes: maxBytes, MaxFiles: 7}), c
}

func put(t *testing.T, l *Log, r *Record) {
	t.Helper()
	if err := l.Append(r); err != nil {
		t.Fatal(err)
	}
}

func TestTheSameRefusalsAreWrittenOnceAndCountedEachMinute(t *testing.T) {
	l, c := timed(t, 1<<20)
	for range 3 {
		for range 60 {
			put(t, l, refusal("u"))
			c.pass(time.Second)
			l.tick()
		}
	}
	other := refusal("u")
	other.Reason = verifier.ImageRevoked
	put(t, l, other)
	put(t, l, refusal("u"))
	if err := l.Close(); err != nil { // what was counted is not lost
		t.Fatal(err)
	}
	var got []string
	n := 0
	for _, r := range allOf(t, l.o.Path) {
		got = append(got, fmt.Sprint(r.UID, " ", r.Reason, " ", r.Repeated))
		n += max(r.Repeated, 0)
		if r.Repeated == 0 {
			n++
		}
	}
	want := []string{"u NotAttested 0", "u NotAttested 59", "u NotAttested 60", "u NotAttested 60", "u ImageRevoked 0", "u NotAttested 1"}
	if fmt.Sprint(got) != fmt.Sprint(want) || n != 182 {
		t.Errorf("%d in all\ngot  %v\nwant %v", n, got, want)
	}
}

func TestWhoAsksForBreakglassInVainIsNotCountedAmongOthers(t *testing.T) {
	l, _ := timed(t, 1<<20)
	put(t, l, refusal("u"))
	for _, user := range []string{"alice", "bob", "bob"} {
		r := refusal("u")
		r.Checks = append(r.Checks, verifier.Check{Result: verifier.Denied, Reason: verifier.Breakglass, Detail: "user " + user + " may not"})
		put(t, l, r)
	}
	if all := allOf(t, l.o.Path); len(all) != 3 {
		t.Errorf("%d records, want one of each", len(all))
	}
}

func TestARefusalThatWasNotRepeatedForAWhileIsForgotten(t *testing.T) {
	l, c := timed(t, 1<<20)
	put(t, l, refusal("u"))
	for range 3 {
		c.pass(time.Minute)
		l.tick()
	}
	if len(l.refused.seen) > 0 {
		t.Error("it is kept")
	}
	put(t, l, refusal("u"))
	if l.head.seq != 2 {
		t.Errorf("at %d", l.head.seq)
	}
}

func TestMoreRefusalsThanCanBeToldApartAreCountedByReason(t *testing.T) {
	l, c := timed(t, 64<<20)
	for i := range maxTallied + 100 {
		put(t, l, refusal(fmt.Sprint(i)))
	}
	if len(l.refused.seen) != maxTallied || l.head.seq != maxTallied {
		t.Fatalf("%d kept, at %d", len(l.refused.seen), l.head.seq)
	}
	c.pass(time.Minute)
	l.tick()
	all := allOf(t, l.o.Path)
	last := all[len(all)-1]
	if len(all) != maxTallied+1 || last.Gate != "audit" || last.Repeated != 100 || last.Reason != verifier.NotAttested || last.Namespace != "" || !strings.Contains(last.Message, "100 refusals") {
		t.Errorf("%d records, the last %+v", len(all), last)
	}
}

func TestAFloodOfRefusalsDoesNotPushOutWhatWasAllowed(t *testing.T) {
	l, c := timed(t, 128<<10) // 1 MiB in all
	appended(t, l, 50)
	refusals := 0
	for i := range 600 {
		for j := range 100 {
			uid := fmt.Sprint("new-", i, "-", j)
			if j%4 == 0 {
				uid = fmt.Sprint("same-", j)
			}
			put(t, l, refusal(uid))
			refusals++
		}
		c.pass(time.Second)
		l.tick()
		if i%60 == 30 {
			appended(t, l, 1)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := Files(l.o.Path)
	if err != nil || len(files) > 8 {
		t.Errorf("files %v, %v", files, err)
	}
	allowed, counted, bytes := 0, 0, 0
	for _, f := range files {
		for _, line := range lines(t, f) {
			bytes += len(line) + 1
		}
	}
	for _, r := range allOf(t, l.o.Path) {
		switch {
		case r.allowed():
			allowed++
		case r.Repeated > 0:
			counted += r.Repeated
		default:
			counted++
		}
	}
	if allowed != 60 || counted != refusals || bytes > 1<<20 {
		t.Errorf("%d allowed of 60, %d refusals of %d, %d bytes", allowed, counted, refusals, bytes)
	}
}

func TestWhatIsAllowedIsNeverLeftOut(t *testing.T) {
	l, c := timed(t, 16<<10) // a quota of 64 KiB
	for i := range 400 {
		r := record()
		r.UID = fmt.Sprint(i)
		if put(t, l, r); r.Seq == 0 {
			t.Fatalf("record %d of 400 that differ is not written", i)
		}
	}
	for i := range 100 {
		r := record()
		if put(t, l, r); (r.Seq > 0) != (i == 0) {
			t.Errorf("%d of those that are the same: number %d", i, r.Seq)
		}
	}
	other := record()
	other.Digests = append(other.Digests, "sha256:1")
	if put(t, l, other); other.Seq == 0 {
		t.Error("another digest is taken for the same")
	}
	c.pass(time.Minute)
	l.tick()
	all := allOf(t, l.o.Path)
	if last := all[len(all)-1]; last.Repeated != 99 || !last.allowed() {
		t.Errorf("the last %+v", last)
	}
	c.pass(48 * time.Hour)
	for range 2 {
		r := record()
		if put(t, l, r); r.Seq == 0 {
			t.Error("the quota is not refilled")
		}
	}
}

func TestAQuotaIsRefilledOverADayAndItsDebtIsBounded(t *testing.T) {
	b := newBucket(2400, noon)
	b.take(2500)
	if b.left(noon) || b.left(noon.Add(time.Hour)) {
		t.Error("something is left")
	}
	if !b.left(noon.Add(2 * time.Hour)) {
		t.Error("nothing is left after two hours")
	}
	b.take(1e9)
	if b.left(noon.Add(25*time.Hour)) || !b.left(noon.Add(27*time.Hour)) {
		t.Errorf("debt %v", b.level)
	}
	b.left(noon.Add(-time.Hour)) // a clock that goes back takes and gives nothing
	if b.left(noon.Add(1000 * time.Hour)); b.level != 2400 {
		t.Errorf("level %v", b.level)
	}
}

func BenchmarkAppendAllowed(b *testing.B) {
	l, err := Open(Options{Path: filepath.Join(b.TempDir(), "audit.log")})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	r := record()
	r.Checks = []verifier.Check{{Result: verifier.Allowed, Reason: verifier.Attested, Layer: "folder/GenericAttestationPolicy", Policy: "shop/shop", Authority: "release", KeyID: "ni:///sha-256;0123456789abcdef"}}
	r.Message = strings.Repeat("m", 200)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		r.UID = fmt.Sprint(n)
		if err := l.Append(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendRepeatedRefusal(b *testing.B) {
	l, err := Open(Options{Path: filepath.Join(b.TempDir(), "audit.log")})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	r := refusal("u")
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Append(r); err != nil {
			b.Fatal(err)
		}
	}
}
