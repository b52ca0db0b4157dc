package objects

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/crds"
)

// Manifests as people write them, which parse wherever they are cut between two lines.
const (
	twoAuthorities = "apiVersion: kritis.grafeas.io/v1beta1\nkind: GenericAttestationPolicy\nmetadata:\n  name: p\n  namespace: prod\nspec:\n  attestationAuthorityNames:\n  - a\n  - b\n"
	oneAuthority   = "apiVersion: kritis.grafeas.io/v1beta1\nkind: GenericAttestationPolicy\nmetadata:\n  name: p\n  namespace: prod\nspec:\n  attestationAuthorityNames:\n  - a\n"
	twoDigests     = "apiVersion: horkos.dev/v1alpha1\nkind: ImageRevocation\nmetadata: {name: r}\nspec:\n  digests:\n  - d\n  - e\n"
	attestation    = "apiVersion: horkos.dev/v1alpha1\nkind: ImageAttestation\nmetadata: {name: sha256-1111111111111111111111111111111111111111111111111111111111111111}\nspec: {attestations: []}\n"
	labels         = "apiVersion: v1\nkind: Namespace\nmetadata: {name: prod, labels: {env: prod}}\n"
)

// docs joins documents.
func docs(texts ...string) string { return strings.Join(texts, "---\n") }

func TestWhatAFileLosesInPlaceIsNotBelievedUntilItStoodStill(t *testing.T) {
	for _, tt := range []struct{ name, was, now string }{
		{"a policy", docs(enforcing, elsewhere), enforcing},
		{"a policy that only audits", docs(elsewhere, auditing), elsewhere},
		{"an image security policy", docs(enforcing, images), enforcing},
		{"a cluster policy", docs(enforcing, clusterly), enforcing},
		{"a trust policy", docs(enforcing, trust), enforcing},
		{"an unknown kind", docs(enforcing, unknown), enforcing},
		{"an authority", docs(enforcing, authority), enforcing},
		{"a revocation", docs(enforcing, revoking), enforcing},
		{"a digest of a revocation", docs(enforcing, twoDigests), docs(enforcing, revoking)},
		{"an authority of a policy", twoAuthorities, oneAuthority},
		{"a field of a policy", auditing, enforcing},
		{"a value of a policy", docs(enforcing, elsewhere), docs(enforcing, strings.Replace(elsewhere, "[a]", "[b]", 1))},
		{"one policy of two with one name", docs(enforcing, enforcing), enforcing},
		{"a label of a namespace", docs(enforcing, labels), docs(enforcing, strings.Replace(labels, ", labels: {env: prod}", "", 1))},
		{"every policy", docs(authority, enforcing), authority},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			b.write("a.yaml", tt.was)
			b.write("z.yaml", images) // so that a.yaml may lose everything
			before := append(brief(b.open()), "stale")
			b.write("a.yaml", tt.now)
			set := b.settled()
			b.wants("written", set, before...)
			if want := b.path("a.yaml") + " is being rewritten, or lost "; !strings.HasPrefix(set.Stale, want) {
				t.Errorf("stale: got %q, want it to begin with %q", set.Stale, want)
			}
			b.wants("just before it is believed", b.after(lossSettle-settle-1), before...)
			if b.folder.awaited(b.now) || !b.folder.awaited(b.now.Add(1)) {
				t.Error("it is not when it is believed that the folder is looked at again")
			}

			other := newBench(t)
			other.write("a.yaml", tt.now)
			other.write("z.yaml", images)
			b.wants("believed", b.after(1), brief(other.open())...)
		})
	}
}

func TestWhatLosesNothingThatRestrictsIsInForceAtOnce(t *testing.T) {
	base := docs(enforcing, revoking)
	for _, tt := range []struct {
		name, was, now string
		want           []string
	}{
		{"a policy more", base, docs(base, elsewhere), []string{isPolicyProd, isRevocation, isPolicyTest}},
		{"a policy before the others", base, docs(elsewhere, base), []string{isPolicyTest, isPolicyProd, isRevocation}},
		{"another order", base, docs(revoking, enforcing), []string{isRevocation, isPolicyProd}},
		{"written in another way", twoAuthorities, strings.Replace(enforcing, "[a]", "[a, b]", 1), []string{isPolicyProd}},
		{"an authority more", oneAuthority, twoAuthorities, []string{isPolicyProd}},
		{"another order of a list", twoAuthorities, strings.Replace(enforcing, "[a]", "[b, a]", 1), []string{isPolicyProd}},
		{"a field more", enforcing, auditing, []string{isPolicyProd}},
		{"a digest more", docs(enforcing, revoking), docs(enforcing, twoDigests), []string{isPolicyProd, isRevocation}},
		{"an allowlist gone", docs(enforcing, allowlist), enforcing, []string{isPolicyProd}},
		{"an attestation gone", docs(enforcing, attestation), enforcing, []string{isPolicyProd}},
		{"an object of others gone", docs(enforcing, foreign), enforcing, []string{isPolicyProd}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			b.write("a.yaml", tt.was)
			b.open()
			b.write("a.yaml", tt.now)
			b.wants("in place", b.settled(), tt.want...)
		})
	}
}

func TestAFileThatIsReplacedOrRemovedIsBelievedAtOnce(t *testing.T) {
	ways := map[string]func(b *bench){
		"renamed over": func(b *bench) { b.replace("a.yaml", enforcing) },
		"removed":      func(b *bench) { b.write("b.yaml", enforcing); b.remove("a.yaml") },
		"a link to another file": func(b *bench) {
			b.write("new", enforcing)
			b.must(os.Remove(b.path("a.yaml")))
			b.must(os.Symlink("new", b.path("a.yaml")))
		},
		"renamed over a half one": func(b *bench) { b.write("a.yaml", elsewhere); b.settled(); b.replace("a.yaml", enforcing) },
		"renamed over a broken":   func(b *bench) { b.write("a.yaml", broken); b.settled(); b.replace("a.yaml", enforcing) },
		"removed after a half one": func(b *bench) {
			b.write("a.yaml", elsewhere)
			b.settled()
			b.write("b.yaml", enforcing)
			b.remove("a.yaml")
		},
	}
	for way, change := range ways {
		t.Run(way, func(t *testing.T) {
			b := newBench(t)
			b.write("a.yaml", docs(enforcing, elsewhere))
			b.open()
			change(b)
			b.wants("changed", b.settled(), isPolicyProd)
		})
	}
}

func TestAFileThatIsWrittenInPiecesOpensNothing(t *testing.T) {
	b := newBench(t)
	whole := docs(twoAuthorities, elsewhere, revoking)
	b.write("a.yaml", whole)
	before := brief(b.open())
	for at := 0; at < len(whole); at = at + strings.Index(whole[at:], "\n") + 1 {
		b.write("a.yaml", whole[:at])
		set := b.settled()
		closed := set.Stale != "" && len(set.Objects) == len(before)
		for _, fault := range set.Faults {
			closed = closed || fault.Namespaces == nil || len(fault.Namespaces) == 2
		}
		if !closed {
			t.Errorf("after %q: got %q", whole[:at], brief(set))
		}
		if set := b.open(); set.Stale != "" && len(set.Objects) != len(before) {
			t.Errorf("after %q and a restart: got %q", whole[:at], brief(set))
		}
		b.replace("a.yaml", whole)
		b.settled()
	}
	b.wants("whole", b.settled(), before...)
}

func TestEveryWriteInPlaceStartsTheTimeAnew(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", docs(enforcing, elsewhere, authority))
	b.open()
	want := []string{isPolicyProd, isPolicyTest, isAuthority, "stale"}
	b.write("a.yaml", enforcing)
	b.settled()
	b.wants("nearly believed", b.after(lossSettle-2*settle), want...)
	b.write("a.yaml", docs(enforcing, authority))
	b.wants("written again", b.settled(), want...)
	b.wants("nearly believed again", b.after(lossSettle-2*settle), want...)
	b.write("b.yaml", images)
	b.wants("another file does not matter", b.settled(), isPolicyProd, isAuthority, "ImageSecurityPolicy scan/i")
}

func TestAFileWhoseWritingGoesOnIsInForceAtOnce(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", docs(enforcing, elsewhere))
	b.open()
	b.write("a.yaml", enforcing)
	b.wants("half", b.settled(), isPolicyProd, isPolicyTest, "stale")
	b.write("a.yaml", docs(enforcing, elsewhere, authority))
	b.wants("whole", b.settled(), isPolicyProd, isPolicyTest, isAuthority)
}

func TestAFileThatIsHalfWrittenHidesNoOther(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", docs(enforcing, elsewhere))
	b.write("b.yaml", authority)
	b.open()
	b.write("a.yaml", enforcing)
	b.settled()
	b.replace("b.yaml", images)
	b.write("c.yaml", revoking)
	b.wants("others changed", b.settled(), isPolicyProd, isPolicyTest, "ImageSecurityPolicy scan/i", isRevocation, "stale")
}

func TestAFileEmptiedAndThenHalfWrittenKeepsItsLastObjects(t *testing.T) {
	for name, text := range map[string]string{"emptied": nothing, "broken": broken} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.write("a.yaml", docs(enforcing, elsewhere))
			b.open()
			b.write("a.yaml", text)
			b.wants("no good", b.settled(), "fault of a.yaml in prod,test")
			b.write("a.yaml", enforcing)
			b.wants("half", b.settled(), isPolicyProd, isPolicyTest, "stale")
			b.wants("half, believed", b.after(lossSettle), isPolicyProd)
		})
	}
}

func TestAPolicyLostInPlaceAndThenBelievedIsNoPermission(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", docs(authority, enforcing))
	b.open()
	b.write("a.yaml", authority)
	b.wants("half", b.settled(), isAuthority, isPolicyProd, "stale")
	b.wants("without a policy", b.after(lossSettle), isAuthority, isPolicyProd, "stale")
	if !b.folder.absent {
		t.Error("it is not absence that keeps it")
	}
}

func TestAPolicyFileThatComesBackInPiecesDoesNotEndAbsence(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", docs(enforcing, elsewhere))
	b.write("b.yaml", images)
	held := append(brief(b.open()), "stale")
	b.remove("a.yaml", "b.yaml")
	b.wants("removed", b.settled(), held...)
	b.write("a.yaml", enforcing)
	b.must(os.Chtimes(b.path("a.yaml"), b.now, b.now))
	b.wants("a half", b.settled(), held...)
	b.wants("a half, after a restart", b.open(), held...)
	b.write("a.yaml", docs(enforcing, elsewhere))
	b.wants("the whole", b.settled(), isPolicyProd, isPolicyTest)
}

func TestAFileHalfWrittenWhenTheDaemonStartsOpensNothing(t *testing.T) {
	// The clock of the bench is the wall clock here, and so are the times of files.
	start := func(t *testing.T, age time.Duration) (*bench, crds.Set) {
		b := newBench(t)
		b.write("a.yaml", docs(enforcing, elsewhere))
		b.open()
		b.write("a.yaml", enforcing)
		b.must(os.Chtimes(b.path("a.yaml"), b.now, b.now))
		// The start takes two looks until the file stands still.
		b.now = b.now.Add(age - settle)
		return b, b.open()
	}
	t.Run("a file that is old enough is believed", func(t *testing.T) {
		b, set := start(t, lossSettle)
		b.wants("at start", set, isPolicyProd)
	})
	for name, age := range map[string]time.Duration{
		"a file that is nearly old enough is not": lossSettle - 1,
		"nor one that was written a moment ago":   settle,
		"nor one of the future":                   -time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			b, set := start(t, age)
			want := []string{isPolicyProd, isPolicyTest, "stale"}
			b.wants("at start", set, want...)
			b.wants("nearly still for long enough", b.after(lossSettle-settle-1), want...)
			b.wants("still for long enough", b.after(1), isPolicyProd)
		})
	}
	t.Run("nor one that was believed to be half written before", func(t *testing.T) {
		b := newBench(t)
		b.write("a.yaml", docs(enforcing, elsewhere))
		b.open()
		b.write("a.yaml", enforcing)
		b.must(os.Chtimes(b.path("a.yaml"), b.now, b.now))
		want := []string{isPolicyProd, isPolicyTest, "stale"}
		b.wants("half", b.settled(), want...)
		b.wants("half, after a restart", b.open(), want...)
		b.write("a.yaml", docs(enforcing, elsewhere))
		b.wants("whole", b.settled(), isPolicyProd, isPolicyTest)
	})
	t.Run("nor one that was in motion all through the start", func(t *testing.T) {
		b := newBench(t)
		b.write("a.yaml", docs(enforcing, elsewhere))
		b.open()
		f, err := newFolder(b.options())
		b.must(err)
		b.must(f.start(func() time.Time { return b.now }, func(d time.Duration) {
			b.now = b.now.Add(d)
			b.write("a.yaml", enforcing)
		}))
		b.folder = f
		b.must(os.Chtimes(b.path("a.yaml"), b.now, b.now))
		b.wants("half", b.settled(), isPolicyProd, isPolicyTest, "stale")
	})
}

func TestAnObjectSaysAllThatAnotherOneSays(t *testing.T) {
	for _, tt := range []struct {
		name, has, wants string
		want             bool
	}{
		{"the same", `{"a":[1,{"b":null}]}`, `{"a":[1,{"b":null}]}`, true},
		{"a field more", `{"a":1,"b":2}`, `{"a":1}`, true},
		{"a field less", `{"a":1}`, `{"a":1,"b":2}`, false},
		{"null for a field that was there", `{"a":null}`, `{"a":1}`, false},
		{"another value", `{"a":"12"}`, `{"a":"1"}`, false},
		{"a number for a string", `{"a":1}`, `{"a":"1"}`, false},
		{"numbers that a float64 cannot tell apart", `{"a":9007199254740993}`, `{"a":9007199254740992}`, false},
		{"a list for a value", `{"a":[1]}`, `{"a":1}`, false},
		{"a value for a list", `{"a":1}`, `{"a":[1]}`, false},
		{"a value for fields", `{"a":1}`, `{"a":{}}`, false},
		{"fields for a value", `{"a":{}}`, `{"a":1}`, false},
		{"an entry more", `{"a":[1,2]}`, `{"a":[1]}`, true},
		{"an entry before", `{"a":[2,1]}`, `{"a":[1]}`, true},
		{"an entry less", `{"a":[1]}`, `{"a":[1,2]}`, false},
		{"another entry", `{"a":[1,3]}`, `{"a":[1,2]}`, false},
		{"an entry that has more at its place", `{"a":[{"b":1,"c":2}]}`, `{"a":[{"b":1}]}`, true},
		{"entries that moved", `{"a":[{"b":2},{"b":1}]}`, `{"a":[{"b":1},{"b":2}]}`, true},
		{"as deep as is looked", deep(maxCovered, "2,1"), deep(maxCovered, "1"), true},
		{"deeper than is looked", deep(maxCovered+1, "2,1"), deep(maxCovered+1, "1"), false},
		{"no JSON", `{"a":`, `{"a":1}`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := saysAll(crds.Object{Raw: []byte(tt.has)}, crds.Object{Raw: []byte(tt.wants)}); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// deep is a list with the text in it, so deep.
func deep(n int, text string) string {
	return strings.Repeat("[", n) + text + strings.Repeat("]", n)
}

func TestARealWriterThatPausesIsNotBelieved(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", docs(enforcing, elsewhere))
	r := startRunning(t, b)
	f, err := os.Create(r.path("a.yaml"))
	r.must(err)
	defer f.Close()
	_, err = f.WriteString(enforcing)
	r.must(err)
	r.inForce(isPolicyProd, isPolicyTest, "stale")
	_, err = f.WriteString("---\n" + elsewhere)
	r.must(err)
	r.inForce(isPolicyProd, isPolicyTest)
}
