package objects

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/kritis"
)

// held is what an origin of files has in force, by the name of the file.
type held map[string]heldFile

// heldFile is a file in force: its objects, or a fault beside the objects it last held.
type heldFile struct {
	objects []crds.Object
	fault   string
	lost    []string // what the file does not hold any more, which is not believed: these are its last objects
}

// next is what would be in force with the contents found by then, last having been in force.
// A file that cannot be read, or that holds nothing where it held something, is a fault;
// one that may be half written keeps its last objects.
func (last held) next(found map[string]content, at time.Time) held {
	next := make(held, len(found))
	for name, c := range found {
		was := last[name].objects
		switch {
		case c.fault != "":
			next[name] = heldFile{objects: was, fault: c.fault}
		case len(c.objects) == 0 && len(was) > 0:
			next[name] = heldFile{objects: was, fault: "holds no object any more; to withdraw what it held, remove the file"}
		default:
			next[name] = heldFile{objects: c.objects}
			if c.believes(at) {
				continue
			}
			if missing := lost(was, c.objects); len(missing) > 0 {
				next[name] = heldFile{objects: was, lost: missing}
			}
		}
	}
	return next
}

// withRevocations adds the revocations found now to what stays in force, since they can
// only tighten, and tells whether there were any more.
func (last held) withRevocations(found map[string]content) (with held, more bool) {
	known := make(map[string]bool)
	for _, o := range last.objects(true) {
		known[string(o.Canonical())] = true
	}
	with = maps.Clone(last)
	for name, c := range found {
		for _, o := range c.objects {
			if !revokes(o) || known[string(o.Canonical())] {
				continue
			}
			f := with[name]
			f.objects = append(slices.Clone(f.objects), o)
			with[name] = f
			more = true
		}
	}
	return with, more
}

// objects are those of all files, with the last ones of files that are a fault, or without.
func (h held) objects(withFaulty bool) []crds.Object {
	var objects []crds.Object
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if h[name].fault == "" || withFaulty {
			objects = append(objects, h[name].objects...)
		}
	}
	return objects
}

// certain are the objects of the files that are read and believed.
func (h held) certain() []crds.Object {
	sure := maps.Clone(h)
	maps.DeleteFunc(sure, func(_ string, f heldFile) bool { return f.fault != "" || len(f.lost) > 0 })
	return sure.objects(false)
}

// set is what is in force as others see it. path makes the path of a file of its name.
func (h held) set(path func(name string) string) crds.Set {
	set := crds.Set{Origin: crds.Folder, Objects: h.objects(false)}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		f := h[name]
		if f.fault == "" {
			continue
		}
		// The messages of errors about a file begin with its path.
		message := strings.TrimPrefix(f.fault, path(name)+": ")
		set.Faults = append(set.Faults, crds.Fault{Source: path(name), Namespaces: governed(f.objects), Message: message})
		for _, o := range f.objects {
			if revokes(o) {
				set.Objects = append(set.Objects, o)
			}
		}
	}
	return set
}

// governed are the namespaces in which objects that cannot be read any more could restrict:
// nil, which is all, when nobody knows or one of them speaks of all; empty when they could
// only loosen.
func governed(objects []crds.Object) []string {
	if len(objects) == 0 {
		return nil
	}
	namespaces := []string{}
	for _, o := range objects {
		switch {
		case o.UnknownKind:
			return nil
		case o.Kind == horkos.KindClusterAttestationPolicy || o.Kind == crds.KindTrustPolicy || o.Kind == crds.KindTrustStore:
			return nil
		case o.Kind == kritis.KindAttestationAuthority, o.Kind == kritis.KindGenericAttestationPolicy, o.Kind == kritis.KindImageSecurityPolicy:
			namespaces = append(namespaces, o.Namespace)
		}
	}
	slices.Sort(namespaces)
	return slices.Compact(namespaces)
}
