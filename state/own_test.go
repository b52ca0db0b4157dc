package state

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Of the environment of this binary run again: what to do instead of testing, and where.
const (
	asChild  = "HORKOS_TEST_CHILD"
	childDir = "HORKOS_TEST_DIR"
)

func TestMain(m *testing.M) {
	switch os.Getenv(asChild) {
	case "own":
		own(os.Getenv(childDir))
	case "replace":
		replace(os.Getenv(childDir))
	default:
		os.Exit(m.Run())
	}
}

// own takes a folder, says so, and keeps it until its input ends.
func own(dir string) {
	if _, err := Own(context.Background(), dir, 0, nil); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("owned")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// child is this binary run again.
type child struct {
	*exec.Cmd
	lines *bufio.Reader
	input io.Closer
}

func start(t *testing.T, what, dir string) *child {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), asChild+"="+what, childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	return &child{cmd, bufio.NewReader(out), in}
}

// kill ends it without a word, and waits until it is gone.
func (c *child) kill(t *testing.T) {
	t.Helper()
	must(t, c.Process.Kill())
	_ = c.Wait() // killed
}

func (c *child) line(t *testing.T) string {
	t.Helper()
	text, err := c.lines.ReadString('\n')
	must(t, err)
	return strings.TrimSuffix(text, "\n")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the folder is root's")
	}
}

// folder is a path where no folder is yet.
func folder(t *testing.T) string { return filepath.Join(t.TempDir(), "state") }

func TestASuccessorTakesOverWhenTheOwnerIsKilled(t *testing.T) {
	asRoot(t)
	dir := folder(t)
	first := start(t, "own", dir)
	if said := first.line(t); said != "owned" {
		t.Fatal(said)
	}
	waited := 0
	lock, err := Own(t.Context(), dir, time.Minute, func() {
		waited++
		first.kill(t)
	})
	if err != nil || waited != 1 {
		t.Fatalf("waited %d times, %v", waited, err)
	}
	if _, err := Own(t.Context(), dir, 0, nil); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("another horkos-node uses it (pid %d)", os.Getpid())) {
		t.Errorf("the new owner is not named: %v", err)
	}
	must(t, lock.Close())
	next, err := Own(t.Context(), dir, 0, func() { t.Error("nobody has it, and it waits") })
	must(t, err)
	must(t, next.Close())
}

func TestAnotherProcessIsToldWhoOwnsTheFolder(t *testing.T) {
	asRoot(t)
	dir := folder(t)
	lock, err := Own(t.Context(), dir, 0, nil)
	must(t, err)
	defer lock.Close()
	c := start(t, "own", dir)
	if said := c.line(t); !strings.Contains(said, fmt.Sprintf("another horkos-node uses it (pid %d)", os.Getpid())) {
		t.Error(said)
	}
	must(t, c.input.Close())
	_ = c.Wait() // it ended with 1
	must(t, os.Truncate(filepath.Join(dir, lockName), 0))
	if _, err := Own(t.Context(), dir, 0, nil); err == nil || !strings.HasSuffix(err.Error(), "another horkos-node uses it") {
		t.Errorf("without a pid: %v", err)
	}
}

func TestASuccessorGivesUpAfterTheWait(t *testing.T) {
	asRoot(t)
	dir := folder(t)
	lock, err := Own(t.Context(), dir, 0, nil)
	must(t, err)
	defer lock.Close()
	synctest.Test(t, func(t *testing.T) {
		waited, began := 0, time.Now()
		_, err := Own(t.Context(), dir, 30*time.Second, func() { waited++ })
		if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "another horkos-node uses it") || took != 30*time.Second || waited != 1 {
			t.Errorf("after %v and %d calls: %v", took, waited, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		_, err = Own(ctx, dir, 30*time.Second, nil)
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

func TestAFolderIsMadeForRootAloneAndNoOtherIsTaken(t *testing.T) {
	asRoot(t)
	dir := folder(t)
	lock, err := Own(t.Context(), dir, 0, nil)
	must(t, err)
	must(t, lock.Close())
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for name, spoil := range map[string]func(dir string) error{
		"of another owner":     func(dir string) error { return os.Chown(dir, nobody, 0) },
		"that all may write":   func(dir string) error { return os.Chmod(dir, 0o777) },
		"that is a file":       func(dir string) error { return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)) },
		"whose lock is a link": func(dir string) error { return os.Symlink("elsewhere", filepath.Join(dir, lockName)) },
	} {
		dir := folder(t)
		must(t, os.Mkdir(dir, 0o700))
		must(t, spoil(dir))
		if _, err := Own(t.Context(), dir, 0, nil); err == nil {
			t.Errorf("a folder %s: no error", name)
		}
	}
}

func TestAFolderOfAnUnknownVersionIsMovedAside(t *testing.T) {
	asRoot(t)
	for text, want := range map[string]string{
		"2\n": "aside-2", "": "aside-empty", "../..\n": "aside-..-..", "1.5": "aside-1.5",
		strings.Repeat("v", 99): "aside-" + strings.Repeat("v", 32), strings.Repeat("v", 101): "aside-unreadable",
	} {
		t.Run(want, func(t *testing.T) {
			dir := folder(t)
			lock, err := Own(t.Context(), dir, 0, nil)
			must(t, err)
			defer lock.Close()
			put(t, dir, "version", text)
			put(t, dir, "evidence/a/b", "new")
			put(t, dir, "kept", "kept")
			put(t, dir, want+"/evidence/old", "from before")
			put(t, dir, want+"/other", "from before")

			said, err := lock.Adopt("evidence", "gone")
			if err != nil || !strings.Contains(said, "unknown version") || !strings.HasSuffix(said, want+": evidence") {
				t.Errorf("%q, %v", said, err)
			}
			holds(t, dir, map[string]string{
				"version": "1\n", "kept": "kept", want + "/evidence/a/b": "new", want + "/other": "from before",
				"lock": fmt.Sprintln(os.Getpid()),
			})
			if said, err := lock.Adopt("evidence"); said != "" || err != nil {
				t.Errorf("again: %q, %v", said, err)
			}
		})
	}
}

func TestAFolderWithoutAVersionGetsOne(t *testing.T) {
	asRoot(t)
	dir := folder(t)
	lock, err := Own(t.Context(), dir, 0, nil)
	must(t, err)
	defer lock.Close()
	put(t, dir, "evidence/a", "data")
	if said, err := lock.Adopt("evidence"); said != "" || err != nil {
		t.Errorf("%q, %v", said, err)
	}
	holds(t, dir, map[string]string{"version": "1\n", "evidence/a": "data", "lock": fmt.Sprintln(os.Getpid())})
}

func TestAVersionThatCannotBeBelievedIsUnknown(t *testing.T) {
	asRoot(t)
	dir := folder(t)
	lock, err := Own(t.Context(), dir, 0, nil)
	must(t, err)
	defer lock.Close()
	put(t, dir, "version", "1\n")
	must(t, os.Chown(filepath.Join(dir, "version"), nobody, 0))
	if said, err := lock.Adopt(); err != nil || !strings.Contains(said, "unreadable") || !strings.HasSuffix(said, "nothing of it had to be") {
		t.Errorf("%q, %v", said, err)
	}
	must(t, os.Remove(filepath.Join(dir, "version")))
	must(t, os.Mkdir(filepath.Join(dir, "version"), 0o700))
	if _, err := lock.Adopt(); err == nil {
		t.Error("a folder in the place of the version: no error")
	}
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

// holds fails the test if a folder holds other files than these.
func holds(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		got[name] = string(text)
		return err
	}))
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: %q, want %q", name, got[name], text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files, want %d: %q", len(got), len(want), got)
	}
}
