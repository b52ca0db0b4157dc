package harness

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// kernelSettings are those the kubelet changes when it starts (vm, panic and keyring
// settings); it has no setting to leave them alone that lets it start.
var kernelSettings = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

// sysctlNote is the file that a setting is noted in.
func sysctlNote(setting string) string { return strings.ReplaceAll(setting, "/", ".") }

// keepKernelSettings notes the settings as they are, once a run; where another run has
// changed them already, as that one found them.
func keepKernelSettings(dir string) error {
	keep := filepath.Join(dir, "sysctl")
	if err := os.Mkdir(keep, 0o700); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("keep kernel settings: %w", err)
	}
	for _, name := range kernelSettings {
		note := filepath.Join("sysctl", sysctlNote(name))
		earlier, err := notesOfOthers(dir, note)
		if err != nil {
			return fmt.Errorf("keep kernel settings: %w", err)
		}
		value, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if err != nil {
			return fmt.Errorf("keep kernel settings: %w", err)
		}
		if len(earlier) > 0 {
			value = earlier[0]
		}
		if err := os.WriteFile(filepath.Join(dir, note), value, 0o600); err != nil {
			return fmt.Errorf("keep kernel settings: %w", err)
		}
	}
	return nil
}

// notesOfOthers are what the other runs on this machine noted in the file: what they found
// is what was there before any. It is to be read before what is there now, since a run
// puts things back before its notes go.
func notesOfOthers(dir, file string) ([][]byte, error) {
	var notes [][]byte
	err := eachRun(func(other string) error {
		if other == dir {
			return nil
		}
		note, err := os.ReadFile(filepath.Join(other, file))
		if err == nil && len(note) > 0 { // else that run keeps no such thing, or is ending
			notes = append(notes, note)
		}
		return nil
	})
	return notes, err
}

// keepAbsent notes which of the files and folders are not there, or are there because of
// another run, so that they are removed again, in the order given; a folder only if it is
// empty.
func keepAbsent(dir string, paths ...string) error {
	keep := filepath.Join(dir, "absent")
	noted, err := os.ReadFile(keep)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep what is absent: %w", err)
	}
	others, err := notesOfOthers(dir, "absent")
	if err != nil {
		return fmt.Errorf("keep what is absent: %w", err)
	}
	theirs := "\n" + string(bytes.Join(others, nil))
	for _, path := range paths {
		_, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || strings.Contains(theirs, "\n"+path+"\n") {
			noted = append(noted, path+"\n"...)
		}
	}
	if err := os.WriteFile(keep, noted, 0o600); err != nil {
		return fmt.Errorf("keep what is absent: %w", err)
	}
	return nil
}

// undo puts back what was kept, and removes the kubelet's links to the run's logs.
func undo(dir string) error {
	var errs []error
	for _, name := range kernelSettings {
		value, err := os.ReadFile(filepath.Join(dir, "sysctl", sysctlNote(name)))
		if err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join("/proc/sys", name), value, 0o600); err != nil {
			errs = append(errs, fmt.Errorf("restore a kernel setting: %w", err))
		}
	}
	errs = append(errs, removeLinks(kubeletLogs, dir))
	absent, _ := os.ReadFile(filepath.Join(dir, "absent")) // absent itself when nothing was
	for path := range strings.Lines(string(absent)) {
		err := os.Remove(strings.TrimSuffix(path, "\n"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
			errs = append(errs, fmt.Errorf("remove what was not there before: %w", err))
		}
	}
	return errors.Join(errs...)
}

// removeLinks removes the symbolic links in folder that point into dir.
func removeLinks(folder, dir string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove links to logs: %w", err)
	}
	for _, entry := range entries {
		link := filepath.Join(folder, entry.Name())
		target, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(target, dir+"/") {
			continue
		}
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove links to logs: %w", err)
		}
	}
	return nil
}
