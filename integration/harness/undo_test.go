package harness

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestTheLastRunPutsBackWhatTheFirstFound: two runs at once, of which one finds what the
// other has made, in either order of their ends.
func TestTheLastRunPutsBackWhatTheFirstFound(t *testing.T) {
	for name, order := range map[string][2]int{"the first ends first": {0, 1}, "the first ends last": {1, 0}} {
		t.Run(name, func(t *testing.T) {
			runs := [2]*Run{New(t), New(t)}
			folder, setting := filepath.Join(t.TempDir(), "made"), kernelSettings[0]
			for i, run := range runs {
				if err := keepAbsent(run.Dir, folder); err != nil {
					t.Fatal(err)
				}
				if err := os.MkdirAll(folder, 0o700); err != nil {
					t.Fatal(err)
				}
				// The first found another value than is there now.
				if i == 1 {
					writeNote(t, runs[0].Dir, setting, "found by the first")
				}
				if err := keepKernelSettings(run.Dir); err != nil {
					t.Fatal(err)
				}
			}
			note := filepath.Join(runs[1].Dir, "sysctl", sysctlNote(setting))
			if value, err := os.ReadFile(note); err != nil || string(value) != "found by the first" {
				t.Errorf("the second run notes %q, %v; want what the first found", value, err)
			}
			for _, run := range runs { // the machine keeps its setting
				if err := os.RemoveAll(filepath.Join(run.Dir, "sysctl")); err != nil {
					t.Fatal(err)
				}
			}
			held := filepath.Join(folder, "of the run that lives")
			if err := os.WriteFile(held, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := runs[order[0]].Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(held); err != nil {
				t.Fatal(err)
			}
			if err := runs[order[1]].Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(folder); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the folder that no run found is left: %v", err)
			}
		})
	}
}

func writeNote(t *testing.T, dir, setting, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "sysctl", sysctlNote(setting)), []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
}
