package objects

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/horkos/horkos/crds"
)

func TestTheFilesOfAFolderAreRead(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", enforcing)
	b.write("b.yml", elsewhere)
	b.write("c.json", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"prod"}}`)
	b.write(".hidden.yaml", broken)
	b.write("readme.md", broken)
	b.write("d.yaml~", broken)
	b.must(os.Mkdir(b.path("deeper"), 0o755))
	b.write("deeper/e.yaml", broken)
	set := b.open()
	b.wants("at start", set, isPolicyProd, isPolicyTest, "Namespace prod")
	if set.Origin != crds.Folder || set.Objects[0].Source != b.path("a.yaml") {
		t.Errorf("origin %s, source %s", set.Origin, set.Objects[0].Source)
	}
}

func TestAFileThatIsNoGoodMakesWhatItSpokeOfMisconfigured(t *testing.T) {
	for _, tt := range []struct {
		name string
		good string // what a.yaml held before; empty for no file
		want []string
	}{
		{"nobody knows what it would say", "", []string{"fault of a.yaml in every namespace"}},
		{"a file that held no object yet", foreign, []string{"fault of a.yaml in every namespace"}},
		{"a policy speaks of its namespace", enforcing, []string{"fault of a.yaml in prod"}},
		{"so does one that only reports", auditing, []string{"fault of a.yaml in prod"}},
		{"several namespaces", enforcing + "---\n" + authority + "---\n" + images + "---\n" + allowlist, []string{"fault of a.yaml in keys,prod,scan"}},
		{"a cluster policy speaks of all", enforcing + "---\n" + clusterly, []string{"fault of a.yaml in every namespace"}},
		{"a trust policy may be named anywhere", trust, []string{"fault of a.yaml in every namespace"}},
		{"an unknown kind may say anything", unknown, []string{"fault of a.yaml in every namespace"}},
		{"an allowlist can only loosen", allowlist, []string{"fault of a.yaml in none"}},
		{"revocations stay", revoking + "---\n" + enforcing, []string{isRevocation, "fault of a.yaml in prod"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ways := map[string]func(b *bench){
				"broken":      func(b *bench) { b.write("a.yaml", broken) },
				"cut off":     func(b *bench) { b.write("a.yaml", enforcing[:len(enforcing)-3]) },
				"a folder":    func(b *bench) { b.remove("a.yaml"); b.must(os.Mkdir(b.path("a.yaml"), 0o755)) },
				"a pipe":      func(b *bench) { b.remove("a.yaml"); b.must(syscall.Mkfifo(b.path("a.yaml"), 0o644)) },
				"a dead link": func(b *bench) { b.remove("a.yaml"); b.must(os.Symlink("nowhere", b.path("a.yaml"))) },
			}
			if tt.good != "" && tt.good != foreign {
				ways["emptied"] = func(b *bench) { b.write("a.yaml", nothing) }
				ways["of other objects"] = func(b *bench) { b.write("a.yaml", foreign) }
			}
			for way, spoil := range ways {
				b := newBench(t)
				b.write("z.yaml", elsewhere)
				if tt.good != "" {
					b.write("a.yaml", tt.good)
				}
				b.open()
				spoil(b)
				want := append([]string{isPolicyTest}, tt.want...)
				b.wants(way, b.settled(), want...)
				b.wants(way+", after a restart", b.open(), want...)

				b.remove("a.yaml")
				b.wants(way+", then removed", b.settled(), isPolicyTest)
			}
		})
	}
}

func TestAFileThatIsNoGoodAtTheFirstStartMakesTheFolderMisconfigured(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", broken)
	b.write("z.yaml", elsewhere)
	b.wants("at start", b.open(), isPolicyTest, "fault of a.yaml in every namespace")
	b.write("a.yaml", enforcing)
	b.wants("mended", b.settled(), isPolicyProd, isPolicyTest)
}

func TestAFileThatNeverHeldAnythingIsNoFault(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", "# nothing yet\n")
	b.write("b.yaml", foreign)
	b.wants("at start", b.open())
}

func TestAFaultIsTriedAgainWithTheNextRescan(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", enforcing)
	b.write("b.yaml", elsewhere)
	b.folder = &Folder{options: b.options(), found: newFindings(b.dir, false)}
	b.must(os.Mkdir(b.state, 0o700))
	b.folder.found.left.bytes = len(enforcing) + len(elsewhere) - 1 // no room for both
	b.folder.look(b.now)
	b.wants("without room", b.settled(), isPolicyProd, "fault of b.yaml in every namespace")
	b.write("a.yaml", foreign)
	b.settled()
	b.now = b.now.Add(rescan)
	b.wants("with room", b.settled(), isPolicyTest, "fault of a.yaml in prod")
}

func TestTwoObjectsOfOneNameAreBothHandedOn(t *testing.T) {
	b := newBench(t)
	attestation := "apiVersion: horkos.dev/v1alpha1\nkind: ImageAttestation\nmetadata: {name: sha256-" + strings.Repeat("a", 64) + "}\n" +
		"spec: {attestations: [{resourceUri: r, attestation: {}}]}\n"
	b.write("a.yaml", enforcing+"---\n"+attestation)
	b.write("b.yaml", auditing+"---\n"+attestation+"---\n"+elsewhere)
	set := b.open()
	name := "ImageAttestation sha256-" + strings.Repeat("a", 64)
	b.wants("two", set, isPolicyProd, name, isPolicyProd, name, isPolicyTest) // compiling makes the policies malformed
	b.remove("a.yaml")
	b.wants("one", b.settled(), isPolicyProd, name, isPolicyTest)
}

func TestAHalfWrittenFileIsNotRead(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", enforcing)
	b.open()
	text := auditing + "---\n" + elsewhere
	for n := 0; n <= len(text); n += 10 { // a slow writer
		b.write("a.yaml", text[:n])
		b.now = b.now.Add(settle / 2)
		if _, moving := b.folder.look(b.now); !moving {
			t.Fatalf("after %d bytes: not in motion", n)
		}
		b.wants("while written", b.folder.set(), isPolicyProd)
	}
	b.write("a.yaml", text)
	b.wants("written", b.settled(), isPolicyProd, isPolicyTest)
}

func TestAFileInMotionAtTheStartIsAFaultUntilItStandsStill(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", enforcing)
	f, err := newFolder(b.options())
	b.must(err)
	start := b.now
	b.must(f.start(func() time.Time { return b.now }, func(d time.Duration) {
		b.now = b.now.Add(d)
		b.write("a.yaml", enforcing[:len(enforcing)/2])
	}))
	b.folder = f
	b.wants("at start", f.set(), "fault of a.yaml in every namespace")
	if took := b.now.Sub(start); took > startLooks*settle {
		t.Errorf("the start took %v", took)
	}
	b.write("a.yaml", enforcing)
	b.wants("still", b.settled(), isPolicyProd)
}

func TestAFileThatIsGoneForAMomentIsNotRemoved(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", enforcing)
	b.write("b.yaml", elsewhere)
	b.open()
	b.must(os.Rename(b.path("a.yaml"), b.path("a.yaml~"))) // as editors do
	b.now = b.now.Add(settle)
	b.folder.look(b.now)
	b.wants("gone", b.folder.set(), isPolicyProd, isPolicyTest)
	b.write("a.yaml", auditing)
	b.wants("back", b.settled(), isPolicyProd, isPolicyTest)
}

func TestAConfigMapIsSwapped(t *testing.T) {
	b := newBench(t)
	version := func(name, text string) {
		b.must(os.Mkdir(b.path(name), 0o755))
		b.write(filepath.Join(name, "policy.yaml"), text)
		b.must(os.Symlink(name, b.path("..data_tmp")))
		b.must(os.Rename(b.path("..data_tmp"), b.path("..data")))
	}
	version("..2026_1", enforcing)
	b.must(os.Symlink("..data/policy.yaml", b.path("policy.yaml")))
	b.wants("first", b.open(), isPolicyProd)
	version("..2026_2", elsewhere)
	b.remove("..2026_1")
	b.wants("second", b.settled(), isPolicyTest)
	b.remove("..data")
	b.wants("gone", b.settled(), "fault of policy.yaml in test")
}

func TestMoreFilesThanAllowedAreNotBelieved(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", auditing)
	b.open()
	for n := range MaxFolderFiles - 1 {
		b.must(os.Link(b.path("a.yaml"), b.path(fmt.Sprintf("x%d.yaml", n))))
	}
	if _, err := list(b.dir, false); err != nil {
		t.Errorf("as many as allowed: %v", err)
	}
	b.must(os.Link(b.path("a.yaml"), b.path("z.yaml")))
	b.wants("one more", b.settled(), isPolicyProd, "fault of policies in every namespace", "stale")
}

func TestDecodeKeepsToWhatIsLeftOfTheLimits(t *testing.T) {
	text := []byte(enforcing + "---\n" + elsewhere)
	size := decode(text, "f", newBudget()).bytes
	for _, tt := range []struct {
		name string
		left budget
		ok   bool
	}{
		{"all that is left", budget{size, 2}, true},
		{"a byte too many", budget{size - 1, 2}, false},
		{"an object too many", budget{size, 1}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if c := decode(text, "f", tt.left); (c.fault == "") != tt.ok {
				t.Errorf("fault %q", c.fault)
			}
		})
	}
	if left := newBudget(); left.bytes != 64<<20 || left.objects != 20_000 {
		t.Errorf("a folder may hold %+v", left)
	}
}
