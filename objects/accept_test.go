package objects

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/state"
)

// kept is what an operator's command sees.
func (b *bench) kept() KeptInfo {
	b.Helper()
	info, err := Kept(b.state, crds.Folder)
	b.must(err)
	return info
}

// accepts gives up a set.
func (b *bench) accepts(hash string) {
	b.Helper()
	b.must(AcceptEmpty(b.state, crds.Folder, hash))
}

// usedUp fails the test if an acceptance is still there.
func (b *bench) usedUp() {
	b.Helper()
	if entries, _ := filepath.Glob(filepath.Join(b.state, acceptName+"*")); len(entries) > 0 {
		b.Errorf("left behind: %q", entries)
	}
}

func TestAnOperatorGivesUpTheSetThatStaysInForce(t *testing.T) {
	ways := map[string]struct {
		empty func(b *bench)
		want  []string
	}{
		"the last file removed":   {func(b *bench) { b.remove("a.yaml", "b.yaml") }, nil},
		"the folder removed":      {func(b *bench) { b.must(os.RemoveAll(b.dir)) }, []string{"fault of policies in none"}},
		"something else is there": {func(b *bench) { b.remove("a.yaml"); b.write("c.yaml", revoking) }, []string{isAuthority, isRevocation}},
	}
	for way, tt := range ways {
		t.Run(way, func(t *testing.T) {
			b := newOwnedBench(t)
			var log bytes.Buffer
			b.write("a.yaml", enforcing)
			b.write("b.yaml", authority)
			b.open()
			b.folder.options.Log = slog.New(slog.NewTextHandler(&log, nil))
			if info := b.kept(); info.Absent || info.Objects != 2 {
				t.Errorf("before: %+v", info)
			}
			tt.empty(b)
			if set := b.settled(); set.Stale == "" {
				t.Fatalf("not stale: %q", brief(set))
			}
			info := b.kept()
			if !info.Absent || info.Objects < 2 {
				t.Errorf("absent: %+v", info)
			}
			b.accepts(info.Hash)
			if !b.folder.awaited(b.now) {
				t.Error("the folder is not looked at before the next rescan")
			}
			b.wants("given up", b.after(settle), tt.want...)
			b.usedUp()
			if !strings.Contains(log.String(), "given up by an operator") || !strings.Contains(log.String(), info.Hash) {
				t.Errorf("log: %s", log.String())
			}
			b.wants("after a restart", b.open(), tt.want...)

			b.must(os.MkdirAll(b.dir, 0o755))
			b.write("a.yaml", enforcing)
			b.settled()
			b.remove("a.yaml")
			if set := b.settled(); set.Stale == "" {
				t.Error("absence is permission ever after")
			}
		})
	}
}

func TestASetIsGivenUpWhileTheDaemonIsDown(t *testing.T) {
	b := newOwnedBench(t)
	b.write("a.yaml", enforcing)
	b.open()
	b.remove("a.yaml")
	b.accepts(b.kept().Hash)
	b.wants("at start", b.open())
	b.usedUp()
	b.wants("at the next start", b.open())
}

func TestAnAcceptanceIsGoodForOneSetAndAnEmptyFolderAlone(t *testing.T) {
	type test struct {
		name    string
		prepare func(b *bench) // what is in the folder when it is accepted
		want    []string
	}
	for _, tt := range []test{
		{"another set", func(b *bench) {
			b.replace("a.yaml", elsewhere)
			b.settled()
			b.remove("a.yaml")
		}, []string{isPolicyTest, "stale"}},
		{"policies that never went away", func(*bench) {}, []string{isPolicyProd}},
		{"policies that came back", func(b *bench) {
			b.remove("a.yaml")
			b.settled()
			b.write("a.yaml", enforcing)
		}, []string{isPolicyProd}},
		{"half a file of policies that came back", func(b *bench) {
			b.replace("a.yaml", enforcing+"---\n"+elsewhere)
			b.settled()
			b.remove("a.yaml")
			b.settled()
			b.write("a.yaml", enforcing)
			b.must(os.Chtimes(b.path("a.yaml"), b.now, b.now))
		}, []string{isPolicyProd, isPolicyTest, "stale"}},
		{"a file that cannot be read, which may hold policies", func(b *bench) {
			b.remove("a.yaml")
			b.settled()
			b.write("a.yaml", broken)
		}, []string{isPolicyProd, "stale"}},
		{"a file that is not owned", func(b *bench) {
			b.remove("a.yaml")
			b.settled()
			b.write("a.yaml", authority)
			b.must(os.Chown(b.path("a.yaml"), nobody, 0))
		}, []string{isPolicyProd, "stale"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newOwnedBench(t)
			var log bytes.Buffer
			b.write("a.yaml", enforcing)
			b.open()
			first := b.kept().Hash
			b.folder.options.Log = slog.New(slog.NewTextHandler(&log, nil))
			tt.prepare(b)
			b.settled()
			hash := b.kept().Hash
			if tt.name == "another set" {
				hash = first
			}
			b.accepts(hash)
			b.wants("accepted", b.settled(), tt.want...)
			b.usedUp()
			if !strings.Contains(log.String(), "giving up the policies is ignored") {
				t.Errorf("log: %s", log.String())
			}
		})
	}
}

func TestAnAcceptanceWaitsForFilesInMotion(t *testing.T) {
	b := newOwnedBench(t)
	b.write("a.yaml", enforcing)
	b.open()
	b.remove("a.yaml")
	b.settled()
	b.accepts(b.kept().Hash)
	b.write("a.yaml", elsewhere)
	b.wants("a policy is being written", b.after(settle), isPolicyProd, "stale")
	b.wants("it is written", b.after(settle), isPolicyTest)
	b.usedUp()
}

func TestAnAcceptanceThatCannotBeBelievedIsNone(t *testing.T) {
	for name, spoil := range map[string]func(b *bench, path string) error{
		"of another owner":        func(b *bench, path string) error { return os.Chown(path, nobody, 0) },
		"that all may write":      func(b *bench, path string) error { return os.Chmod(path, 0o602) },
		"that is a folder":        func(b *bench, path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"that is empty":           func(b *bench, path string) error { return os.Truncate(path, 0) },
		"that is cut":             func(b *bench, path string) error { return os.Truncate(path, 63) },
		"with something after it": func(b *bench, path string) error { return os.WriteFile(path, []byte(b.kept().Hash+"\n\n"), 0o600) },
		"of no hash":              func(b *bench, path string) error { return os.WriteFile(path, []byte(strings.Repeat("g", 64)), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newOwnedBench(t)
			b.write("a.yaml", enforcing)
			b.open()
			b.remove("a.yaml")
			b.settled()
			b.accepts(b.kept().Hash)
			b.must(spoil(b, filepath.Join(b.state, acceptName)))
			b.wants("accepted", b.settled(), isPolicyProd, "stale")
			b.usedUp()
			b.accepts(b.kept().Hash)
			b.wants("and a good one after it", b.settled())
		})
	}
}

func TestAnAcceptanceThatCannotBeRemovedCountsOnce(t *testing.T) {
	b := newOwnedBench(t)
	b.write("a.yaml", enforcing)
	b.open()
	path := filepath.Join(b.state, acceptName)
	b.must(os.MkdirAll(filepath.Join(path, "full"), 0o700))
	b.remove("a.yaml")
	b.settled()
	if b.folder.awaited(b.now) {
		t.Error("it is waited for again")
	}
}

func TestTheHashOfASet(t *testing.T) {
	hash := func(texts ...string) string {
		var objects []crds.Object
		for _, text := range texts {
			decoded, err := crds.Decode([]byte(text), "f")
			if err != nil {
				t.Fatal(err)
			}
			objects = append(objects, decoded...)
		}
		return hashOf(objects)
	}
	if hash(enforcing, revoking) != hash(revoking, "# otherwise\n"+enforcing) {
		t.Error("order and writing change it")
	}
	others := map[string]string{}
	for _, texts := range [][]string{{}, {enforcing}, {enforcing, enforcing}, {auditing}, {malformed}, {elsewhere}, {unknown}, {strings.Replace(unknown, "v1alpha1", "v2", 1)}, {enforcing, revoking}} {
		sum := hash(texts...)
		if was, ok := others[sum]; ok || !acceptedHash.MatchString(sum) {
			t.Errorf("%q: %s, as of %q", texts, sum, was)
		}
		others[sum] = strings.Join(texts, "")
	}
}

func TestWhatACommandIsToldOfTheStateFolder(t *testing.T) {
	b := newOwnedBench(t)
	if _, err := Kept(b.state, crds.Folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no state folder: %v", err)
	}
	b.must(os.Mkdir(b.state, 0o700))
	if _, err := Kept(b.state, crds.Folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing kept: %v", err)
	}
	b.write("a.yaml", enforcing)
	b.open()
	hash := b.kept().Hash
	for _, bad := range []string{"", hash[1:], hash + "\n", strings.ToUpper(hash), strings.Repeat("g", 64)} {
		if err := AcceptEmpty(b.state, crds.Folder, bad); err == nil {
			t.Errorf("AcceptEmpty of %q: no error", bad)
		}
	}
	b.accepts(hash)
	info, err := os.Stat(filepath.Join(b.state, acceptName))
	if err != nil || info.Mode().Perm() != 0o600 || state.CheckOwner(info) != nil {
		t.Errorf("the acceptance: %v, %v", info, err)
	}
	b.must(os.Chown(b.state, nobody, 0))
	if _, err := Kept(b.state, crds.Folder); err == nil {
		t.Error("Kept in a folder of another owner: no error")
	}
	if err := AcceptEmpty(b.state, crds.Folder, hash); err == nil {
		t.Error("AcceptEmpty in a folder of another owner: no error")
	}
}

func TestARunningFolderTakesAnAcceptanceWithinASecond(t *testing.T) {
	b := newOwnedBench(t)
	b.write("a.yaml", enforcing)
	r := startRunning(t, b)
	r.remove("a.yaml")
	r.inForce(isPolicyProd, "stale")
	r.accepts(r.kept().Hash)
	if took := r.inForce(); took > time.Second {
		t.Errorf("in force after %v", took)
	}
}
