package objects

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/horkos/horkos/crds"
)

func keep(t testing.TB, texts ...string) []byte {
	t.Helper()
	h := held{}
	for i, text := range texts {
		objects, err := crds.Decode([]byte(text), "a.yaml")
		if err != nil {
			t.Fatal(err)
		}
		h[string(rune('a'+i))+".yaml"] = heldFile{objects: objects}
	}
	kept, err := encodeKept(h, true)
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

func TestWhatIsKeptIsReadBackWhole(t *testing.T) {
	dir := t.TempDir()
	objects, err := crds.Decode([]byte(enforcing+"---\n"+strings.Replace(malformed, "wrong", "'<&>'", 1)+"---\n"+unknown), "/p/a.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := held{"a.yaml": {objects: objects}, "b.yaml": {objects: []crds.Object{}}}
	if err := writeKept(dir, want, true); err != nil {
		t.Fatal(err)
	}
	got, absent, err := readKept(dir, false)
	if err != nil || !absent || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, absent %v, %v\nwant %+v", got, absent, err, want)
	}
	info, err := os.Stat(filepath.Join(dir, keptName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("%d files are left behind", len(entries)-1)
	}
}

func TestALeftoverOfAWriteThatWasKilledIsReplaced(t *testing.T) {
	b := newBench(t)
	b.must(os.Mkdir(b.state, 0o700))
	b.must(os.WriteFile(filepath.Join(b.state, keptName+".new"), []byte("torn"), 0o600))
	b.write("a.yaml", enforcing)
	b.open()
	b.wants("after a restart", b.open(), isPolicyProd)
}

func TestAKeptCopyThatWasTouchedIsNotBelieved(t *testing.T) {
	good := keep(t, enforcing, revoking)
	if _, _, err := decodeKept(good); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for at := range good {
		bad := append([]byte{}, good...)
		bad[at] ^= 1
		if _, _, err := decodeKept(bad); err == nil {
			t.Errorf("byte %d changed: no error", at)
		}
		if _, _, err := decodeKept(good[:at]); err == nil {
			t.Errorf("cut at byte %d: no error", at)
		}
	}
	if _, _, err := decodeKept(append(good[:len(good):len(good)], ' ')); err == nil {
		t.Error("a byte more: no error")
	}
}

func TestAKeptCopyOfAnotherVersionIsNotBelieved(t *testing.T) {
	good := string(keep(t, enforcing))
	if _, _, err := decodeKept([]byte(strings.Replace(good, `"version":1`, `"version":2`, 1))); err == nil {
		t.Error("no error")
	}
}

func TestAStateFolderThatCannotBeWritten(t *testing.T) {
	t.Run("refuses the start", func(t *testing.T) {
		b := newBench(t)
		b.must(os.WriteFile(b.state, nil, 0o600))
		if _, err := b.tryOpen(); err == nil {
			t.Error("no error")
		}
	})
	t.Run("is reported later, and written as soon as it can be", func(t *testing.T) {
		b := newBench(t)
		b.write("a.yaml", enforcing)
		b.open()
		b.must(os.RemoveAll(b.state))
		b.replace("a.yaml", elsewhere)
		b.wants("without it", b.settled(), isPolicyTest, "fault of policy-folder.json in none")
		b.must(os.Mkdir(b.state, 0o700))
		b.wants("with it", b.settled(), isPolicyTest)
		b.remove("a.yaml")
		b.wants("after a restart", b.open(), isPolicyTest, "stale")
	})
}

func FuzzDecodeKept(f *testing.F) {
	f.Add(keep(f, enforcing, revoking))
	f.Add([]byte("{}\n{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, absent, err := decodeKept(text)
		if err != nil {
			return
		}
		again, err := encodeKept(h, absent)
		if err != nil {
			t.Fatal(err)
		}
		if back, was, err := decodeKept(again); err != nil || was != absent || !reflect.DeepEqual(back, h) {
			t.Fatalf("not the same again: %v", err)
		}
	})
}
