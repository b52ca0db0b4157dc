package state

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const series = "series"

// content is the n-th of what replace writes, of many blocks.
func content(n int) []byte {
	return Seal(1, bytes.Repeat(fmt.Appendf(nil, "%08d\n", n), 20_000))
}

// replace writes one content after the other, and says which is written.
func replace(dir string) {
	for n := 1; ; n++ {
		if err := Replace(dir, series, content(n)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(n)
	}
}

func TestAProcessKilledWhileItWritesLeavesTheOldOrTheNew(t *testing.T) {
	const kills = 200
	dir := t.TempDir()
	between := 0
	for i := range kills {
		c := start(t, "replace", dir)
		said := 0
		for range 1 + i%3 {
			n, err := strconv.Atoi(c.line(t))
			must(t, err)
			said = n
		}
		c.kill(t)
		text, err := os.ReadFile(filepath.Join(dir, series))
		must(t, err)
		body, err := Unseal(text, 1)
		must(t, err)
		n, err := strconv.Atoi(strings.TrimLeft(string(body[:8]), "0"))
		must(t, err)
		if n < said || !bytes.Equal(text, content(n)) {
			t.Fatalf("kill %d: %d is there, %d was said to be", i, n, said)
		}
		if _, err := os.Stat(filepath.Join(dir, series+".new")); err == nil {
			between++
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 2 {
			t.Fatalf("kill %d: %d files, %v", i, len(entries), err)
		}
	}
	t.Logf("%d of %d kills came within a write", between, kills)
	if between == 0 {
		t.Error("no kill came within a write: nothing was tested")
	}
}

func TestAFileIsReplacedForItsOwnerAlone(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.new", "torn")
	must(t, os.WriteFile(filepath.Join(dir, "a"), []byte("old"), 0o644))
	must(t, Replace(dir, "a", []byte("new")))
	holds(t, dir, map[string]string{"a": "new"})
	info, err := os.Stat(filepath.Join(dir, "a"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestWhatCannotBeReplacedStaysAsItIs(t *testing.T) {
	t.Run("on a full disk", func(t *testing.T) {
		dir := mounted(t, "size=64k")
		put(t, dir, "a", "old")
		must(t, os.Chmod(dir, 0o700))
		if err := Replace(dir, "a", make([]byte, 1<<20)); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("got %v", err)
		}
		holds(t, dir, map[string]string{"a": "old"})
		must(t, Replace(dir, "a", []byte("new")))
	})
	t.Run("on a read-only disk", func(t *testing.T) {
		dir := mounted(t, "size=64k")
		put(t, dir, "a", "old")
		must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
		if err := Replace(dir, "a", []byte("new")); !errors.Is(err, syscall.EROFS) {
			t.Errorf("got %v", err)
		}
		holds(t, dir, map[string]string{"a": "old"})
	})
	t.Run("with a folder in its place", func(t *testing.T) {
		dir := t.TempDir()
		put(t, dir, "a/b", "there")
		if err := Replace(dir, "a", []byte("new")); err == nil {
			t.Error("no error")
		}
		holds(t, dir, map[string]string{"a/b": "there"})
	})
	t.Run("without its folder", func(t *testing.T) {
		if err := Replace(folder(t), "a", nil); err == nil {
			t.Error("no error")
		}
	})
}

// mounted is a file system of its own.
func mounted(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options+",mode=0700"); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}
