package objects

import (
	"os"
	"testing"

	"github.com/horkos/horkos/crds"
)

func TestAbsenceIsNotPermission(t *testing.T) {
	tests := []struct {
		name string
		held string
		kept bool
	}{
		{"an enforcing policy", enforcing, true},
		{"a malformed policy, whatever it says of enforcement", malformed, true},
		{"an image security policy", images, true},
		{"an unknown kind, which may be a policy", unknown, true},
		{"a trust policy", trust, true},
		{"an enforcing policy among auditing ones", auditing + "---\n" + elsewhere, true},
		{"revocations alone, which refuse too", revoking, true},
		{"revocations beside an auditing policy", auditing + "---\n" + revoking, true},
		{"policies that only audit", auditing, false},
		{"a cluster policy that only warns", clusterly, false},
		{"no policy", authority + "---\n" + allowlist, false},
	}
	ways := map[string]func(b *bench){
		"the last file removed":             func(b *bench) { b.remove("a.yaml") },
		"the folder removed":                func(b *bench) { b.must(os.RemoveAll(b.dir)) },
		"the last policy's file is renamed": func(b *bench) { b.must(os.Rename(b.path("a.yaml"), b.path("a.yaml.off"))) },
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for way, vanish := range ways {
				b := newBench(t)
				b.write("a.yaml", tt.held)
				before := brief(b.open())
				vanish(b)

				var want []string
				if way == "the folder removed" {
					want = []string{"fault of policies in none"}
				}
				if tt.kept {
					want = append(before[:len(before):len(before)], "stale")
				}
				b.wants(way, b.settled(), want...)
				b.wants(way+", after a restart", b.open(), want...)
				b.wants(way+", after another restart", b.open(), want...)

				b.must(os.MkdirAll(b.dir, 0o755))
				b.write("b.yaml", elsewhere)
				b.wants(way+", policies back", b.settled(), isPolicyTest)
				b.wants(way+", policies back, after a restart", b.open(), isPolicyTest)
			}
		})
	}
}

func TestPoliciesInForceAreNotUndoneByWhatIsNoPolicy(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", enforcing+"---\n"+revoking)
	b.write("b.yaml", authority)
	b.open()
	b.remove("a.yaml")
	b.wants("only an authority left", b.settled(), isPolicyProd, isRevocation, isAuthority, "stale")
	b.remove("b.yaml")
	b.write("c.yaml", allowlist)
	b.wants("an allowlist instead", b.settled(), isPolicyProd, isRevocation, isAuthority, "stale")
	b.write("a.yaml", broken)
	b.wants("a broken file back", b.settled(), isPolicyProd, isRevocation, isAuthority, "stale")
	b.wants("a broken file back, after a restart", b.open(), isPolicyProd, isRevocation, isAuthority, "stale")
	b.replace("a.yaml", auditing)
	b.wants("a policy back", b.settled(), isPolicyProd, "AdmissionAllowlist l")
	b.remove("a.yaml", "c.yaml")
	b.wants("stopped on purpose", b.settled())
}

func TestRemovingOnePolicyOfSeveralIsBelieved(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", enforcing)
	b.write("b.yaml", elsewhere)
	b.write("c.yaml", revoking)
	b.open()
	b.remove("a.yaml", "c.yaml")
	b.wants("removed", b.settled(), isPolicyTest)
	b.wants("removed, after a restart", b.open(), isPolicyTest)
}

func TestABrokenFileThatIsThenRemovedLeavesTheLastSet(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", enforcing)
	b.open()
	b.write("a.yaml", broken)
	b.wants("broken", b.settled(), "fault of a.yaml in prod")
	b.remove("a.yaml")
	b.wants("removed", b.settled(), "fault of a.yaml in prod", "stale")
	b.wants("removed, after a restart", b.open(), isPolicyProd, "stale")
}

func TestTheFirstStart(t *testing.T) {
	t.Run("without the folder is refused", func(t *testing.T) {
		b := newBench(t)
		b.must(os.Remove(b.dir))
		if _, err := b.tryOpen(); err == nil {
			t.Error("no error")
		}
	})
	t.Run("with a file for a folder is refused", func(t *testing.T) {
		b := newBench(t)
		b.dir = b.path("a.yaml")
		b.must(os.WriteFile(b.dir, []byte(enforcing), 0o644))
		if _, err := b.tryOpen(); err == nil {
			t.Error("no error")
		}
	})
	t.Run("with an empty folder holds nothing", func(t *testing.T) {
		b := newBench(t)
		b.wants("at start", b.open())
	})
}

func TestAFolderThatCannotBeReadIsNotBelieved(t *testing.T) {
	for name, tt := range map[string]struct {
		held string
		want []string
	}{
		"the last policies stay in force":                         {enforcing, []string{isPolicyProd, "stale"}},
		"without any that enforces, every image is misconfigured": {auditing, []string{isPolicyProd, "fault of policies in every namespace", "stale"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.write("a.yaml", tt.held)
			b.open()
			b.must(os.Rename(b.dir, b.dir+".old"))
			b.must(os.WriteFile(b.dir, nil, 0o644))
			b.wants("a file in its place", b.settled(), tt.want...)
			b.wants("a file in its place, after a restart", b.open(), tt.want...)
			b.must(os.Remove(b.dir))
			b.must(os.Rename(b.dir+".old", b.dir))
			b.wants("back", b.settled(), isPolicyProd)
		})
	}
}

func TestAKeptCopyThatCannotBeReadIsNoPermission(t *testing.T) {
	spoil := func(b *bench) {
		path := b.state + "/" + keptName
		text, err := os.ReadFile(path)
		b.must(err)
		text[len(text)/2] ^= 1
		b.must(os.WriteFile(path, text, 0o600))
	}
	const fault = "fault of policy-folder.json in every namespace"
	t.Run("when the folder holds no policy", func(t *testing.T) {
		b := newBench(t)
		b.write("a.yaml", auditing)
		b.open()
		b.remove("a.yaml")
		spoil(b)
		b.wants("empty", b.open(), fault)
		b.write("b.yaml", authority)
		b.wants("an authority", b.settled(), isAuthority, fault)
		b.must(os.RemoveAll(b.dir))
		b.wants("missing, after a restart", b.open(), fault, "fault of policies in none")
		b.must(os.Mkdir(b.dir, 0o755))
		b.write("a.yaml", auditing)
		b.wants("a policy", b.settled(), isPolicyProd)
		b.wants("a policy, after a restart", b.open(), isPolicyProd)
	})
	t.Run("and nothing more where the folder holds policies", func(t *testing.T) {
		b := newBench(t)
		b.write("a.yaml", enforcing)
		b.open()
		spoil(b)
		b.wants("policies", b.open(), isPolicyProd)
	})
	t.Run("and gives a broken file every namespace", func(t *testing.T) {
		b := newBench(t)
		b.write("a.yaml", enforcing)
		b.write("b.yaml", elsewhere)
		b.open()
		spoil(b)
		b.write("a.yaml", broken)
		b.wants("broken", b.open(), isPolicyTest, "fault of a.yaml in every namespace")
	})
}

func TestOnlyReportsLooksAtTheObjectAsWritten(t *testing.T) {
	for text, want := range map[string]bool{
		enforcing: false, auditing: true, malformed: false, clusterly: true, unknown: false, images: false,
		"apiVersion: horkos.dev/v1alpha1\nkind: ClusterAttestationPolicy\nmetadata: {name: c}\nspec: {enforcement: [Warn]}\n": false,
		"apiVersion: horkos.dev/v1alpha1\nkind: ClusterAttestationPolicy\nmetadata: {name: c}\nspec: {enforcement: warn}\n":   false,
	} {
		objects, err := crds.Decode([]byte(text), "f")
		if err != nil || len(objects) != 1 {
			t.Fatalf("Decode: %v", err)
		}
		if got := onlyReports(objects[0]); got != want {
			t.Errorf("got %v, want %v of %s", got, want, text)
		}
	}
}

const revokingMore = `{apiVersion: horkos.dev/v1alpha1, kind: ImageRevocation, metadata: {name: more}, spec: {digests: ["sha256:2222222222222222222222222222222222222222222222222222222222222222"]}}`

func TestRevocationsMayBeAllThatAFolderHolds(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", revoking)
	b.open()
	b.write("b.yaml", revokingMore)
	want := []string{isRevocation, "ImageRevocation more"}
	b.wants("after a second revocation", b.settled(), want...)
	b.wants("after a restart", b.open(), want...)
	b.remove("a.yaml")
	b.wants("after the first was withdrawn", b.settled(), "ImageRevocation more")
	b.remove("b.yaml")
	b.wants("after the last was withdrawn", b.settled(), "ImageRevocation more", "stale")
}

func TestARevocationTakesForceWhilePoliciesAreAbsent(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", enforcing)
	held := brief(b.open())
	b.remove("a.yaml")
	b.settled()
	b.write("b.yaml", revokingMore)
	want := append(held[:len(held):len(held)], "ImageRevocation more", "stale")
	b.wants("at once", b.settled(), want...)
	b.wants("after a restart", b.open(), want...)
	b.remove("b.yaml")
	b.wants("after it is gone as well", b.settled(), want...)
}
