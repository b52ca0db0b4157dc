package objects

import (
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/horkos/horkos/state"
)

// findings are what a folder holds, as of the last look and whether believed or not.
type findings struct {
	dir   string
	owned bool

	contents  map[string]content // by name of the file, of what stood still
	sightings map[string]sighting
	left      budget

	missing  bool   // the folder does not exist
	trouble  string // why nothing in it can be believed: it cannot be read, or it or a file is not owned
	notOwned bool   // trouble is about an owner
}

// sighting is a state of a file, and since when it stands still.
type sighting struct {
	stamp stamp
	since time.Time
}

func newFindings(dir string, owned bool) findings {
	return findings{
		dir: dir, owned: owned, left: newBudget(),
		contents: make(map[string]content), sightings: make(map[string]sighting),
	}
}

// look lists the folder and reads the files that changed and stand still since settle. It
// tells whether anything is another than before, and which files are in motion.
func (f *findings) look(now time.Time) (changed bool, moving []string) {
	stamps, err := list(f.dir, f.owned)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return f.setTrouble(err.Error(), errors.Is(err, state.ErrNotOwned)), nil
	}
	changed = missing != f.missing
	f.missing = missing

	names := maps.Clone(stamps)
	if names == nil {
		names = make(map[string]stamp)
	}
	for name := range f.contents {
		names[name] = stamps[name] // the zero stamp for one that is gone, which must stand still too
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		did, still := f.follow(name, names[name], now)
		changed = changed || did
		if !still {
			moving = append(moving, name)
		}
	}
	maps.DeleteFunc(f.sightings, func(name string, _ sighting) bool { _, ok := names[name]; return !ok })
	for _, name := range slices.Sorted(maps.Keys(f.contents)) {
		if c := f.contents[name]; c.notOwned {
			return f.setTrouble(filepath.Join(f.dir, name)+": "+c.fault, true) || changed, moving
		}
	}
	return f.setTrouble("", false) || changed, moving
}

func (f *findings) setTrouble(trouble string, notOwned bool) (changed bool) {
	changed = trouble != f.trouble
	f.trouble, f.notOwned = trouble, notOwned
	return changed
}

// follow brings the content of one file up to its stamp, once that stands still.
func (f *findings) follow(name string, s stamp, now time.Time) (changed, still bool) {
	seen, ok := f.sightings[name]
	if !ok || seen.stamp != s {
		seen = f.sight(name, s, now)
	}
	old, read := f.contents[name]
	if read && old.stamp == s && (old.fault == "" || now.Sub(old.read) < rescan) {
		return false, true
	}
	if now.Sub(seen.since) < settle {
		return false, false
	}
	f.left = f.left.plus(1, old)
	if s == (stamp{}) {
		delete(f.contents, name)
		return true, true
	}
	c, stamp := f.read(name, s)
	if stamp != s { // written to since the folder was listed
		f.left = f.left.plus(-1, old)
		f.sight(name, stamp, now)
		return false, false
	}
	c.stamp, c.read, c.since, c.whole = s, now, seen.since, whole(old.stamp, s, now)
	f.left = f.left.plus(-1, c)
	f.contents[name] = c
	return !read || c.fault == "" || c.fault != old.fault, true
}

// sight notes that a file is another than before, so that neither it nor what was read of
// it stands still.
func (f *findings) sight(name string, s stamp, now time.Time) sighting {
	if c, ok := f.contents[name]; ok {
		c.since = now
		f.contents[name] = c
	}
	f.sightings[name] = sighting{s, now}
	return f.sightings[name]
}

// read reads a file that had the stamp s, and returns the one it has.
func (f *findings) read(name string, s stamp) (content, stamp) {
	path := filepath.Join(f.dir, name)
	switch {
	case s.fault != "":
		return content{fault: s.fault}, s
	case !s.mode.IsRegular(): // not even opened: to open a device can do things
		return content{fault: "not a regular file"}, s
	}
	data, now, err := readFile(path, max(f.left.bytes, 0), f.owned)
	switch {
	case errors.Is(err, errMoving):
		return content{}, now
	case errors.Is(err, fs.ErrNotExist):
		return content{}, stamp{}
	case err != nil:
		return content{fault: err.Error(), notOwned: errors.Is(err, state.ErrNotOwned)}, s
	}
	return decode(data, path, f.left), now
}

// giveUp makes files that would not stand still a fault, until they do.
func (f *findings) giveUp(moving []string) {
	for _, name := range moving {
		f.left = f.left.plus(1, f.contents[name])
		f.contents[name] = content{fault: errMoving.Error()}
	}
}
