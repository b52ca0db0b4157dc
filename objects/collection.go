package objects

import (
	"bytes"
	"time"

	"github.com/horkos/horkos/crds"
)

// Limits of what a cluster's namespace holds of one kind. What is over them is its own
// trouble: nothing is kept of it but that it is there.
const (
	maxNamespaceObjects = 1024
	maxNamespaceBytes   = 4 << 20
)

// collection is what is known of one resource.
type collection struct {
	resource
	held       map[key]crds.Object
	found      map[key]crds.Object // nil until it was listed
	load       map[string]burden   // of found, by namespace
	sizes      map[key]int         // of found, as it was told
	missing    map[key]time.Time   // of held, since when it is not found
	freed      map[key]time.Time   // of missing, since when there are others in its place
	version    uint64              // the highest resource version that was ever told
	told       uint64              // the resource version of found
	definition string              // UID of that under which all of held was found
	under      string              // UID of that under which found was listed
	confirmed  confirmation
	seen       map[key]bool // what was found since an absence is over; nil but for the minute after it
	partial    bool         // stubs are found of namespaces that hold no more than they may
	unserved   bool         // the API server does not know the resource
	heard      time.Time    // when the API server last told anything of it
}

type key struct{ namespace, name string }

// burden is what a namespace holds of a kind.
type burden struct{ objects, bytes int }

func (l burden) over() bool { return l.objects > maxNamespaceObjects || l.bytes > maxNamespaceBytes }

// definition is what counts of a CustomResourceDefinition.
type definition struct {
	uid   string // empty: there is none
	going bool
}

// confirmation is what the API server answered, when asked after objects were gone, about
// the definition of their kind.
type confirmation struct {
	definition
	asked time.Time // when it was asked; zero: it was not
}

func (k *collection) empty() {
	k.held, k.version, k.definition = make(map[key]crds.Object), 0, ""
	k.missing, k.freed = make(map[key]time.Time), make(map[key]time.Time)
}

// unfind makes a collection one that was not listed.
func (k *collection) unfind() {
	k.found, k.told, k.under, k.confirmed, k.partial = nil, 0, "", confirmation{}, false
}

// list begins to take what a collection holds, listed under what is known of its definition.
func (k *collection) list(version uint64, under definition) {
	k.unfind()
	k.found, k.load, k.sizes = make(map[key]crds.Object), make(map[string]burden), make(map[key]int)
	k.told, k.under, k.unserved = version, under.uid, false
}

// put takes an object, of so many bytes as it was told.
func (k *collection) put(o crds.Object, size int) {
	at := key{o.Namespace, o.Name}
	before := k.load[at.namespace].over()
	k.take(at)
	l := k.load[at.namespace]
	was := l.over()
	l.objects, l.bytes = l.objects+1, l.bytes+size
	k.load[at.namespace], k.sizes[at] = l, size
	k.found[at] = o
	k.partial = k.partial || (before && at.namespace != "" && !l.over())
	switch {
	case at.namespace == "" || !l.over():
	case was:
		k.found[at] = stub(o)
	default:
		for other, o := range k.found {
			if other.namespace == at.namespace {
				k.found[other] = stub(o)
			}
		}
	}
}

// drop takes out an object, and notes whether others of its namespace can be had whole again.
func (k *collection) drop(at key) {
	was := k.load[at.namespace].over()
	k.take(at)
	k.partial = k.partial || (was && at.namespace != "" && !k.load[at.namespace].over())
}

func (k *collection) take(at key) {
	if _, ok := k.found[at]; !ok {
		return
	}
	l := k.load[at.namespace]
	l.objects, l.bytes = l.objects-1, l.bytes-k.sizes[at]
	if l.objects == 0 {
		delete(k.load, at.namespace)
	} else {
		k.load[at.namespace] = l
	}
	delete(k.sizes, at)
	delete(k.found, at)
}

// believe puts in force what was found and is new or other than before. It tells whether a
// policy came that ends an absence: one that enforces, or one that was missing or enforced,
// whatever it says now; a revocation, where no policy was demanded. What was missing is not known after a start.
func (k *collection) believe(absent, demanded bool) (back bool) {
	for at, o := range k.found {
		_, missed := k.missing[at]
		old, ok := k.held[at]
		if !ok || !bytes.Equal(old.Raw, o.Raw) {
			k.held[at] = o
			back = back || (absent && ok && demands(old))
		}
		if absent {
			back = back || (isPolicy(o) && missed) || demands(o) || (revokes(o) && !demanded)
		}
		if missed {
			delete(k.missing, at)
			delete(k.freed, at)
		}
	}
	return back
}

// settle notes under which definition all of held is, once that is one.
func (k *collection) settle(r *replica) (other bool) {
	if k.found == nil || k.under == "" || !r.current || r.definitions[k.name()].uid != k.under || k.under == k.definition || len(k.missing) > 0 {
		return false
	}
	k.definition = k.under
	return true
}

func (k *collection) lose(at key) {
	delete(k.held, at)
	delete(k.missing, at)
	delete(k.freed, at)
}

// withdrawn tells whether an object that is gone was deleted by itself, and not with its
// kind: the definition, asked for since, is the one that it was held under. Where the kind went and
// came back, what is gone is withdrawn when others are in its place, in its namespace, for a while.
func (k *collection) withdrawn(at key, since, now time.Time, inPlace bool) (gone bool, due time.Time) {
	c := k.confirmed
	switch {
	case c.asked.Before(since) || c.uid == "" || c.going:
		return false, due
	case c.uid == k.definition:
		return true, due
	case !inPlace:
		delete(k.freed, at)
		return false, due
	}
	freed, ok := k.freed[at]
	if !ok {
		freed = now
		k.freed[at] = now
	}
	due = freed.Add(deletesTogether)
	return !now.Before(due), due
}
