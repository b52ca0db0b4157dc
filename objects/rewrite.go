package objects

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/kritis"
)

// A file that is written in place (cp, an editor, a full disk) can pause where what is
// there already parses, and what is missing would look withdrawn. So a file that lost
// something that restricts is believed at once only when it came as a whole, by rename;
// else its last objects stay in force until it stood still for lossSettle.

// whole tells whether a file that is now read can be what somebody is writing in place no
// more: it took the name of another one, or, where none was read before, is old by the
// wall clock, which is what counts over a restart. old is zero when nothing is known.
func whole(old, now stamp, at time.Time) bool {
	if old.inode == 0 {
		return at.Sub(now.modified) >= lossSettle
	}
	return old.device != now.device || old.inode != now.inode
}

// believes tells whether what the file lost counts as withdrawn.
func (c content) believes(at time.Time) bool { return c.whole || at.Sub(c.since) >= lossSettle }

// loosens tells whether an object can only loosen, so that without it nothing opens.
func loosens(o crds.Object) bool {
	switch o.Kind {
	case kritis.KindAdmissionAllowlist, kritis.KindKritisConfig, horkos.KindImageAttestation:
		return !o.UnknownKind
	}
	return false
}

// lost names the objects of a file that restricted and are gone, or say less than they
// did: of what was written in one, a field, a value or an entry of a list is not there
// any more. A cut can fall in the middle of an object, too.
func lost(was, now []crds.Object) []string {
	type key struct{ kind, namespace, name string }
	at := make(map[key][]crds.Object)
	for _, o := range now {
		k := key{o.Kind, o.Namespace, o.Name}
		at[k] = append(at[k], o)
	}
	var names []string
	for _, o := range was {
		if loosens(o) {
			continue
		}
		// The first with the first, the second with the second: more than one of a name are
		// malformed, so that it does not matter which is which.
		k := key{o.Kind, o.Namespace, o.Name}
		if same := at[k]; len(same) > 0 {
			at[k] = same[1:]
			if saysAll(same[0], o) {
				continue
			}
		}
		names = append(names, o.ID())
	}
	return names
}

// saysAll tells whether an object says all that another one says, as they were written.
func saysAll(o, other crds.Object) bool {
	if bytes.Equal(o.Raw, other.Raw) {
		return true
	}
	has, wants, ok := parsed(o.Raw), parsed(other.Raw), true
	if has == nil || wants == nil {
		ok = false
	}
	return ok && covers(has, wants, maxCovered)
}

// parsed is JSON as Go values, with numbers as they are written; nil if it does not parse.
func parsed(text []byte) any {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var value any
	if dec.Decode(&value) != nil {
		return nil
	}
	return value
}

// maxCovered bounds how deep objects are compared: deeper than what any kind has.
const maxCovered = 16

// covers tells whether a value has every field, value and entry that another one has.
// Entries of a list may have moved; one that has more than before must be at its place.
func covers(has, wants any, depth int) bool {
	if depth == 0 {
		return false
	}
	switch wants := wants.(type) {
	case map[string]any:
		has, ok := has.(map[string]any)
		if !ok {
			return false
		}
		for name, want := range wants {
			value, ok := has[name]
			if !ok || !covers(value, want, depth-1) {
				return false
			}
		}
		return true
	case []any:
		has, ok := has.([]any)
		return ok && coversList(has, wants, depth-1)
	}
	switch has.(type) {
	case map[string]any, []any:
		return false
	}
	return has == wants
}

func coversList(has, wants []any, depth int) bool {
	if len(has) < len(wants) {
		return false
	}
	var known map[string]bool // the entries as JSON, once one is not at its place
	for i, want := range wants {
		if covers(has[i], want, depth) {
			continue
		}
		if known == nil {
			known = make(map[string]bool, len(has))
			for _, value := range has {
				known[asJSON(value)] = true
			}
		}
		if !known[asJSON(want)] {
			return false
		}
	}
	return true
}

func asJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return "" // what was parsed can be written
	}
	return string(text)
}

// doubted are the files that lost something that is not believed yet, by name.
func (h held) doubted() []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if len(h[name].lost) > 0 {
			names = append(names, name)
		}
	}
	return names
}

// doubt says which file lost what, and what comes of it.
func (f *Folder) doubt(h held) string {
	first := f.doubted[0]
	missing := h[first].lost
	text := fmt.Sprintf("%s is being rewritten, or lost %s", filepath.Join(f.options.Dir, first), strings.Join(missing[:min(len(missing), maxNamed)], ", "))
	if more := len(missing) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if more := len(f.doubted) - 1; more > 0 {
		text += fmt.Sprintf(" (and so with %d more files)", more)
	}
	return text + fmt.Sprintf("; what it held last stays in force until it stood still for %v", lossSettle)
}

// maxNamed bounds the objects that a message names.
const maxNamed = 3

// doubtOver tells whether a file that lost something is believed by now.
func (f *Folder) doubtOver(at time.Time) bool {
	return slices.ContainsFunc(f.doubted, func(name string) bool { return f.found.contents[name].believes(at) })
}
