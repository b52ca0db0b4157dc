// Package objects is about where objects come from: it turns a policy folder into the
// set that is in force, and keeps to the rule that a folder which is broken, emptied or
// gone is no permission.
//
// A file is read when it stood still for a moment, and what it adds is in force within a
// second. So is what it takes away, where the file was replaced by rename (mv, the links
// of a ConfigMap volume) or removed. A file that was written in place (cp, many editors)
// and lost something that restricts may be half written: a policy, an authority, a
// revocation, or a part of one. Its last objects stay in force, the set is stale and says
// so, until the file has what was missing again or stood still for ten seconds. After a
// restart nobody knows how a file was written; what it lost since the set was kept is
// believed if the file is older than that by the wall clock.
//
// What the folder held last stays in force, too, when it holds no policy any more. An
// operator can give that set up (Kept, AcceptEmpty).
package objects

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/state"
)

// FolderOptions say which folder to follow and how.
type FolderOptions struct {
	Dir string // of the policies

	// StateDir keeps a copy of what was last in force, so that the rules of absence hold
	// over a restart. It is made, with mode 0700, when it is missing.
	StateDir string

	// Owned asks that folder, files, state folder and kept copy belong to root and be
	// writable by nobody else. A daemon needs it.
	Owned bool

	Log *slog.Logger
}

// Folder is a policy folder that is followed. What it holds and what is in force are two
// things: the first is believed only as far as owners, faults and absence allow.
// A Folder is not safe for concurrent use.
type Folder struct {
	options FolderOptions
	found   findings

	held    held
	stale   string   // crds.Set.Stale
	absent  bool     // stale because the folder holds no policy any more
	doubted []string // names of files that lost something which is not believed yet
	given   acceptance

	unproven string // why the kept copy could not be read; empty once another took its place
	unkept   bool   // held and absent are not in the kept copy yet
	unsaved  string // why it could not be written there
}

// OpenFolder reads the folder and returns what is in force at the start; Run tells what
// comes after. It refuses a folder that others than root may have written, one that cannot
// be read, and one that does not exist, the last two only where nothing is kept of it.
func OpenFolder(o FolderOptions) (*Folder, crds.Set, error) {
	f, err := newFolder(o)
	if err != nil {
		return nil, crds.Set{}, err
	}
	if err := f.start(time.Now, time.Sleep); err != nil {
		return nil, crds.Set{}, err
	}
	return f, f.set(), nil
}

// newFolder reads the kept copy, and nothing else yet.
func newFolder(o FolderOptions) (*Folder, error) {
	if err := makeStateDir(o.StateDir, o.Owned); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	f := &Folder{options: o, found: newFindings(o.Dir, o.Owned), given: acceptance{path: filepath.Join(o.StateDir, acceptName), owned: o.Owned, log: o.Log}}
	switch kept, absent, err := readKept(o.StateDir, o.Owned); {
	case err == nil:
		f.held, f.absent = kept, absent
	case !errors.Is(err, fs.ErrNotExist):
		f.unproven = err.Error()
		o.Log.Error("the kept copy of the policies cannot be read", "file", f.keptPath(), "error", err)
	}
	return f, nil
}

func makeStateDir(dir string, owned bool) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return checkState(dir, owned)
}

func checkState(dir string, owned bool) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if owned {
		if err := state.CheckOwner(info); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	return nil
}

// start looks until every file stands still, and no longer than a second: what is
// being written even then is a fault until it is not.
func (f *Folder) start(now func() time.Time, wait func(time.Duration)) error {
	proven := f.held != nil || f.unproven != ""
	for n := 0; ; n++ {
		_, moving := f.found.look(now())
		if f.found.notOwned || (f.found.trouble != "" && !proven) {
			return fmt.Errorf("policy folder: %s", f.found.trouble)
		}
		if len(moving) == 0 {
			break
		}
		if n == startLooks {
			f.found.giveUp(moving)
			break
		}
		wait(settle)
	}
	if f.found.missing && !proven {
		return fmt.Errorf("policy folder: %s does not exist", f.options.Dir)
	}
	given := f.given.read()
	f.judge(now(), given)
	f.keep()
	if f.unsaved != "" && !proven {
		// With nothing kept, an emptied folder would be one that never held a policy.
		return fmt.Errorf("keep the policies: %s", f.unsaved)
	}
	if given != "" {
		f.given.useUp()
	}
	return nil
}

// look reads what changed and puts it in force. It tells whether anything is another than
// before, and whether files are in motion, so that the next look should be soon.
func (f *Folder) look(now time.Time) (changed, moving bool) {
	changed, inMotion := f.found.look(now)
	given := ""
	if len(inMotion) == 0 {
		given = f.given.read()
	}
	if changed || given != "" || f.doubtOver(now) {
		f.judge(now, given)
		changed = true
	}
	if f.keep() {
		changed = true
	}
	if given != "" { // only now: if this ends in between, it is the old set that is kept, or the new one
		f.given.useUp()
	}
	return changed, len(inMotion) > 0
}

// awaited tells whether what makes the set stale may be over, which no event reports.
func (f *Folder) awaited(now time.Time) bool {
	return f.doubtOver(now) || (f.absent && f.given.offered())
}

// judge decides what is in force: what the folder holds, or what was in force before.
// given is the hash of the set that an operator gave up, or empty.
func (f *Folder) judge(at time.Time, given string) {
	next := f.held.next(f.found.contents, at)
	now := next.objects(true)
	if f.absent {
		// A broken file still stands for the policies it held. Once they are kept in force
		// because of absence it does not: the kept policies are the better answer.
		now = next.certain()
	}
	f.doubted = next.doubted()
	stale, accepted := "", false
	switch {
	case f.found.trouble != "":
		stale = f.found.trouble
	case f.unproven != "" && !slices.ContainsFunc(next.objects(false), isPolicy):
		f.held = next // beside the fault that set adds
	case !vanished(f.held.objects(true), now):
		f.held, f.unkept = next, true
		f.absent, f.unproven = false, ""
	case f.accepts(given):
		f.options.Log.Warn("the policies that stayed in force are given up by an operator", "hash", given, "objects", len(f.held.objects(true)))
		accepted = true
		f.held, f.unkept = held{}.next(f.found.contents, at), true
		f.absent, f.doubted = false, nil
	default:
		held, more := f.held.withRevocations(f.found.contents)
		f.held = held
		f.unkept = f.unkept || !f.absent || more
		f.absent = true
		stale = f.absence()
	}
	if stale == "" && len(f.doubted) > 0 {
		stale = f.doubt(next)
	}
	if given != "" && !accepted {
		f.options.Log.Warn("giving up the policies is ignored: that set is not the one in force, or the folder holds policies or files that cannot be read", "hash", given)
	}
	if stale != "" && stale != f.stale {
		f.options.Log.Warn("the last policies stay in force", "reason", stale)
	}
	f.stale = stale
}

// absence says what is missing, and what else is wrong with the folder.
func (f *Folder) absence() string {
	text := f.options.Dir + " holds no policy any more"
	if f.found.missing {
		text = f.options.Dir + " does not exist any more"
	}
	faulty := 0
	for _, c := range f.found.contents {
		if c.fault != "" {
			faulty++
		}
	}
	if faulty > 0 {
		text += fmt.Sprintf(" (%d of its files cannot be read)", faulty)
	}
	return text + "; what it held last stays in force until policies are there again, or an operator gives it up"
}

// set is what is in force as others see it.
func (f *Folder) set() crds.Set {
	set := f.held.set(func(name string) string { return filepath.Join(f.options.Dir, name) })
	set.Stale = f.stale
	if f.unproven != "" {
		set.Faults = append(set.Faults, crds.Fault{Source: f.keptPath(), Message: "the folder holds no policy, and what it held before cannot be told: " + f.unproven})
	}
	if f.found.trouble != "" && !f.found.notOwned && !enforces(f.held.objects(true)) {
		set.Faults = append(set.Faults, crds.Fault{Source: f.options.Dir, Message: f.found.trouble})
	}
	reported := []string{} // in no namespace
	if f.found.missing && f.stale == "" {
		set.Faults = append(set.Faults, crds.Fault{Source: f.options.Dir, Namespaces: reported, Message: "does not exist"})
	}
	if f.unsaved != "" {
		set.Faults = append(set.Faults, crds.Fault{Source: f.keptPath(), Namespaces: reported, Message: "cannot be written: " + f.unsaved})
	}
	return set
}

// keep writes what is in force to the kept copy, again and again until it is there, and
// tells whether it stands with that other than before.
func (f *Folder) keep() (changed bool) {
	if !f.unkept {
		return false
	}
	before := f.unsaved
	f.unsaved = ""
	if err := writeKept(f.options.StateDir, f.held, f.absent); err != nil {
		f.unsaved = err.Error()
		f.options.Log.Error("the policies in force cannot be kept", "file", f.keptPath(), "error", err)
	}
	f.unkept = f.unsaved != ""
	return f.unsaved != before
}

func (f *Folder) keptPath() string { return filepath.Join(f.options.StateDir, keptName) }
