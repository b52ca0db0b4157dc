package gate

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/horkos/horkos/audit"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// book is a Recorder that fails from the n-th record on, when n is given.
type book struct {
	records []audit.Record
	failAt  int
}

func (b *book) Append(r *audit.Record) error {
	if b.failAt > 0 && len(b.records)+1 >= b.failAt {
		return errors.New("no space left on device")
	}
	b.records = append(b.records, *r)
	return nil
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

type bench struct {
	shell    *Shell
	book     *book
	log      *bytes.Buffer
	registry *prometheus.Registry
}

func newBench(t *testing.T, mode Mode, floor string) *bench {
	t.Helper()
	f, err := ParseFloor([]byte(floor))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{book: &book{}, log: &bytes.Buffer{}, registry: prometheus.NewRegistry()}
	b.shell = &Shell{Gate: "node", Node: "n1", Mode: mode, Floor: func() *Floor { return f }, Records: b.book,
		Metrics: NewMetrics(b.registry, "v1"), Log: slog.New(slog.NewTextHandler(b.log, nil)), Now: func() time.Time { return noon }}
	return b
}

// counted is what the counter of decisions holds, by its labels.
func (b *bench) counted(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, f := range families {
		if f.GetName() != "horkos_decisions_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			all[strings.Join(labels, " ")] = m.GetCounter().GetValue()
		}
	}
	return all
}

// request is about images with the digests of these numbers.
func request(numbers ...int) *verifier.Request {
	req := &verifier.Request{Namespace: "shop", Time: noon}
	for _, n := range numbers {
		req.Images = append(req.Images, verifier.Image{
			Written: "registry.example.com/shop/cart@" + string(digestOf(n)), Digests: []image.Digest{digestOf(n)},
			Candidates: []verifier.Candidate{{Repository: "registry.example.com/shop/cart", Digests: []image.Digest{digestOf(n)}}},
		})
	}
	return req
}

var who = Subject{Namespace: "shop", Pod: "cart-1", UID: "u", Container: "cart", Static: true}

func TestTheFloorLiftsWhatItShouldAndNothingElse(t *testing.T) {
	refused := func(result verifier.Result, reason verifier.Reason) verifier.Decision {
		return verifier.Refuse(request(1), result, reason, "because")
	}
	folderRevoked := refused(verifier.Denied, verifier.ImageRevoked)
	folderRevoked.Images[0].FolderRevoked = true
	unbound := refused(verifier.Misconfigured, verifier.ObjectMalformed)
	unbound.Images[0].Image = &verifier.Image{Unbound: "of some reason", Digests: []image.Digest{digestOf(1)}}
	tests := []struct {
		name string
		dec  verifier.Decision
		lift bool
	}{
		{"what nobody attested", refused(verifier.Denied, verifier.NotAttested), true},
		{"what no policy speaks of", refused(verifier.Denied, verifier.NoPolicy), true},
		{"policies that cannot be understood", refused(verifier.Misconfigured, verifier.ObjectMalformed), true},
		{"an authority that does not exist", refused(verifier.Misconfigured, verifier.AuthorityNotFound), true},
		{"evidence that is pending", refused(verifier.Unresolved, verifier.EvidencePending), true},
		{"a revocation of the cluster", refused(verifier.Denied, verifier.ImageRevoked), true},
		{"not a revocation of the folder", folderRevoked, false},
		{"not what could not be bound", refused(verifier.Unresolved, verifier.ImageUnbound), false},
		{"not what could not be bound, whatever the reason", unbound, false},
		{"not what is too large", refused(verifier.Denied, verifier.SpecTooLarge), false},
		{"not what came too late", refused(verifier.Unresolved, verifier.DeadlineExceeded), false},
		{"not what could not be recorded", refused(verifier.Unavailable, verifier.AuditFailed), false},
		{"not what failed", refused(verifier.Denied, verifier.Internal), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := newBench(t, Enforce, string(digestOf(1))).shell.Judge(request(1), tt.dec)
			if v.Admit != tt.lift {
				t.Errorf("admitted: %v: %s", v.Admit, v.Message)
			}
			if tt.lift && (v.Decision.Reason != verifier.Floor || !strings.Contains(v.Message, "on the floor of this node")) {
				t.Errorf("lifted as %s: %s", v.Decision.Reason, v.Message)
			}
			if off := newBench(t, Enforce, string(digestOf(2))).shell.Judge(request(1), tt.dec); off.Admit {
				t.Error("admitted off the floor")
			}
		})
	}
}

func TestTheFloorLiftsImagesNotRequests(t *testing.T) {
	b := newBench(t, Enforce, string(digestOf(1)))
	v := b.shell.Judge(request(1, 2), verifier.Refuse(request(1, 2), verifier.Denied, verifier.NotAttested, ""))
	if v.Admit || v.Decision.Images[0].Reason != verifier.Floor || v.Decision.Images[1].Reason != verifier.NotAttested {
		t.Errorf("admitted %v: %+v", v.Admit, v.Decision.Images)
	}
}

func TestAPinCountsInItsNamespaceOnly(t *testing.T) {
	b := newBench(t, Enforce, string(digestOf(1))+" namespace=kube-system")
	for ns, want := range map[string]bool{"kube-system": true, "shop": false, "": false} {
		req := request(1)
		req.Namespace = ns
		if v := b.shell.Judge(req, verifier.Refuse(req, verifier.Denied, verifier.NotAttested, "")); v.Admit != want {
			t.Errorf("admitted in namespace %q: %v", ns, v.Admit)
		}
	}
}

func TestOnlyWhatIsAllowedPassesAnEnforcingGate(t *testing.T) {
	for _, mode := range []Mode{Enforce, "", "other"} {
		b := newBench(t, mode, "")
		for result := verifier.Denied; result <= verifier.Allowed; result++ {
			if v := b.shell.Judge(request(1), verifier.Refuse(request(1), result, verifier.NotAttested, "")); v.Admit != (result == verifier.Allowed) {
				t.Errorf("mode %q: %s admitted: %v", mode, result, v.Admit)
			}
		}
	}
}

func TestAnAuditingGateAdmitsAllButWhatEndangersTheNode(t *testing.T) {
	b := newBench(t, Audit, "")
	for result := verifier.Denied; result <= verifier.Allowed; result++ {
		if v := b.shell.Conclude(who, request(1), verifier.Refuse(request(1), result, verifier.NotAttested, ""), noon); !v.Admit {
			t.Errorf("%s was refused", result)
		}
	}
	v := b.shell.Conclude(who, request(1), verifier.Refuse(request(1), verifier.Denied, verifier.SpecTooLarge, "130 KiB"), noon)
	if v.Admit || !strings.Contains(v.Message, "enableServiceLinks: false") {
		t.Errorf("admitted %v: %s", v.Admit, v.Message)
	}
	b.book.failAt = 1
	if v := b.shell.Conclude(who, request(1), verifier.Refuse(request(1), verifier.Denied, verifier.NotAttested, ""), noon); !v.Admit {
		t.Error("what could not be recorded was refused by an auditing gate")
	}
}

func TestWhatCannotBeRecordedIsNotAllowed(t *testing.T) {
	allowed := verifier.Refuse(request(1, 2), verifier.Allowed, verifier.Attested, "")
	for _, mode := range []Mode{Enforce, ""} {
		b := newBench(t, mode, string(digestOf(1))+"\n"+string(digestOf(2)))
		b.book.failAt = 2
		v := b.shell.Conclude(who, request(1, 2), allowed, noon)
		if v.Admit || v.Decision.Result != verifier.Unavailable || v.Decision.Reason != verifier.AuditFailed {
			t.Errorf("mode %q: admitted %v: %s %s", mode, v.Admit, v.Decision.Result, v.Decision.Reason)
		}
		if !strings.Contains(v.Message, "could not be recorded") || !strings.Contains(b.log.String(), "no space left on device") {
			t.Errorf("message %q, log %s", v.Message, b.log)
		}
	}
}

func TestARefusalThatCannotBeRecordedStaysTheRefusalItWas(t *testing.T) {
	b := newBench(t, Enforce, "")
	b.book.failAt = 1
	v := b.shell.Conclude(who, request(1), verifier.Refuse(request(1), verifier.Denied, verifier.NotAttested, ""), noon)
	if v.Admit || v.Decision.Reason != verifier.NotAttested {
		t.Errorf("admitted %v: %s", v.Admit, v.Decision.Reason)
	}
}

func TestARecordIsWrittenForEachImage(t *testing.T) {
	b := newBench(t, Enforce, string(digestOf(1)))
	req := request(1, 2)
	req.Images[1].Written = strings.Repeat("x", 5000)
	dec := verifier.Refuse(req, verifier.Denied, verifier.NotAttested, "")
	dec.Revision = "0123456789ab"
	b.shell.Conclude(who, req, dec, time.Now().Add(-time.Hour))
	if len(b.book.records) != 2 {
		t.Fatalf("%d records", len(b.book.records))
	}
	first, second := b.book.records[0], b.book.records[1]
	if first.Reason != verifier.Floor || first.Result != verifier.Allowed || first.Admitted {
		t.Errorf("of the image on the floor, in a request that is refused: %+v", first)
	}
	if second.Reason != verifier.NotAttested || len(second.Image) > 1100 {
		t.Errorf("of the other: %+v", second)
	}
	if hour := time.Hour.Microseconds(); first.DurationMicros < hour || first.DurationMicros > 2*hour {
		t.Errorf("a request of an hour ago took %d µs", first.DurationMicros)
	}
	want := audit.Record{Time: noon, Node: "n1", Gate: "node", Result: verifier.Allowed, Reason: verifier.Floor, Enforcement: "enforce",
		Namespace: "shop", Pod: "cart-1", UID: "u", Container: "cart", Static: true, Image: req.Images[0].Written,
		Digests: []image.Digest{digestOf(1)}, Candidates: []string{"registry.example.com/shop/cart"}, Revision: "0123456789ab",
		Checks: first.Checks, Message: first.Message, DurationMicros: first.DurationMicros}
	if !reflect.DeepEqual(first, want) {
		t.Errorf("got  %+v\nwant %+v", first, want)
	}
}

func TestARequestWithoutImagesIsRecordedToo(t *testing.T) {
	b := newBench(t, Audit, "")
	req := &verifier.Request{Namespace: "shop"}
	b.shell.Conclude(who, req, new(verifier.Decider).Decide(req, noPolicies(), nil), noon)
	if len(b.book.records) != 1 || !b.book.records[0].Admitted {
		t.Errorf("records %+v", b.book.records)
	}
}

func TestJudgeHasNoSideEffects(t *testing.T) {
	b := newBench(t, Enforce, string(digestOf(1)))
	req := request(1, 2)
	dec, same := verifier.Refuse(req, verifier.Denied, verifier.NotAttested, "x"), verifier.Refuse(req, verifier.Denied, verifier.NotAttested, "x")
	for range 3 {
		b.shell.Judge(req, dec)
	}
	if !reflect.DeepEqual(dec, same) {
		t.Error("the decision was changed")
	}
	if len(b.book.records) > 0 || b.log.Len() > 0 {
		t.Errorf("records %v, log %s", b.book.records, b.log)
	}
	if counted := b.counted(t); len(counted) > 0 {
		t.Errorf("counted %v", counted)
	}
}

func TestOneRefusalIsOneLogEntryAndOneCount(t *testing.T) {
	b := newBench(t, Enforce, "")
	dec := verifier.Refuse(request(1, 2), verifier.Denied, verifier.NotAttested, "")
	b.shell.Conclude(who, request(1, 2), dec, noon)
	b.shell.Conclude(who, request(1), verifier.Refuse(request(1), verifier.Allowed, verifier.Attested, ""), noon)
	if n := strings.Count(b.log.String(), "\n"); n != 1 || !strings.Contains(b.log.String(), "msg=refused") {
		t.Errorf("log:\n%s", b.log)
	}
	want := map[string]float64{"enforce node NotAttested denied": 1, "enforce node Attested allowed": 1}
	if counted := b.counted(t); !reflect.DeepEqual(counted, want) {
		t.Errorf("counted %v, want %v", counted, want)
	}
}

func TestOnlyWhoSaysSoLetsPassWhatCannotBeRecorded(t *testing.T) {
	allowed := verifier.Refuse(request(1), verifier.Allowed, verifier.Attested, "")
	for setting, want := range map[AuditFailure]bool{"": false, DenyAllowed: false, "other": false, AllowAnyway: true} {
		b := newBench(t, Enforce, "")
		b.shell.AuditFailure, b.book.failAt = setting, 1
		if v := b.shell.Conclude(who, request(1), allowed, noon); v.Admit != want {
			t.Errorf("%q: admitted %v", setting, v.Admit)
		}
		counted := "enforce node AuditFailed unavailable"
		if want {
			counted = "enforce node AuditFailed allowed"
		}
		if got := b.counted(t); got[counted] != 1 || len(got) != 1 {
			t.Errorf("%q: counted %v", setting, got)
		}
		if !strings.Contains(b.log.String(), "level=ERROR") || strings.Contains(b.log.String(), "admitted=true") != want {
			t.Errorf("%q: log %s", setting, b.log)
		}
		if v := b.shell.Conclude(who, request(1), verifier.Refuse(request(1), verifier.Denied, verifier.NotAttested, ""), noon); v.Admit {
			t.Errorf("%q: a refusal passed", setting)
		}
	}
}

func TestTheAgeOfTheEvidenceIsRecorded(t *testing.T) {
	b := newBench(t, Enforce, "")
	dec := verifier.Refuse(request(1), verifier.Allowed, verifier.Attested, "")
	dec.Images[0].EvidenceAge = 90 * time.Second
	b.shell.Conclude(who, request(1), dec, noon)
	if len(b.book.records) != 1 || b.book.records[0].EvidenceAgeSeconds != 90 {
		t.Errorf("%+v", b.book.records)
	}
}

// TestTheLogIsToldOfWhatPassesThoughItCannotBeRecorded is with a log on a full disk:
// what is tried after a failure is what the log counts.
func TestTheLogIsToldOfWhatPassesThoughItCannotBeRecorded(t *testing.T) {
	for _, tt := range []struct {
		name    string
		mode    Mode
		failure AuditFailure
		result  verifier.Result
		want    []string // of the attempts after the first
	}{
		{"allowed, and let through", Enforce, AllowAnyway, verifier.Allowed, []string{"allowed AuditFailed true", "allowed AuditFailed true"}},
		{"allowed, and refused", Enforce, DenyAllowed, verifier.Allowed, []string{"unavailable AuditFailed false", "unavailable AuditFailed false"}},
		{"allowed, by an auditing gate", Audit, DenyAllowed, verifier.Allowed, []string{"allowed AuditFailed true", "allowed AuditFailed true"}},
		{"not allowed", Enforce, AllowAnyway, verifier.Denied, []string{"denied NotAttested false"}},
		{"not allowed, by an auditing gate", Audit, DenyAllowed, verifier.Denied, []string{"denied NotAttested true"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reason := verifier.NotAttested
			if tt.result == verifier.Allowed {
				reason = verifier.Attested
			}
			b, full := newBench(t, tt.mode, ""), new(fullDisk)
			b.shell.AuditFailure, b.shell.Records = tt.failure, full
			b.shell.Conclude(who, request(1, 2), verifier.Refuse(request(1, 2), tt.result, reason, ""), noon)
			var got []string
			for _, r := range full.attempts[1:] {
				got = append(got, fmt.Sprint(r.Result, " ", r.Reason, " ", r.Admitted))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// fullDisk is a Recorder that can write nothing.
type fullDisk struct{ attempts []audit.Record }

func (d *fullDisk) Append(r *audit.Record) error {
	d.attempts = append(d.attempts, *r)
	return errors.New("no space left on device")
}
