package containerd

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// catalog is what is known of containerd's image records: by name, by target, and the
// other way round by config and by chain ID, so that no look-up scans the records.
// It does no I/O and has no lock; Index has both.
type catalog struct {
	records map[string]*record
	targets map[image.Digest]*target
	configs map[image.Digest]*running
	chains  map[image.Digest][]*running // usable ones only
	// absent leads from what the node does not have to the targets that list it.
	absent map[mark][]*target
	// outdated are targets that list what arrived since they were resolved.
	// They are resolved again one at a time, when nothing else is to be done.
	outdated map[image.Digest]struct{}
	// pinned are the names of the records that CRI has pinned.
	pinned map[string]struct{}
	// tried is when claims last had targets resolved again; never is not there.
	tried map[image.Digest]time.Time
}

// record is one image record.
type record struct {
	name   string
	target *target
	// named is how many bytes of name are its repository; none where name is not a name in its
	// normal form, as with the records that CRI keeps under image ids.
	named int
}

// repository is empty for a record whose name is not one.
func (r *record) repository() string { return r.name[:r.named] }

// target is content that records point to.
type target struct {
	*content
	records int // how many
}

// running is a config that containers may run, and all that leads to it.
type running struct {
	config  image.Digest
	records records // those under which the config is usable
	counts  counts  // how many records lead here over each digest
}

func newCatalog() *catalog {
	return &catalog{
		records:  map[string]*record{},
		targets:  map[image.Digest]*target{},
		configs:  map[image.Digest]*running{},
		chains:   map[image.Digest][]*running{},
		absent:   map[mark][]*target{},
		outdated: map[image.Digest]struct{}{},
		pinned:   map[string]struct{}{},
		tried:    map[image.Digest]time.Time{},
	}
}

// content returns what is known of a digest that some record points to, or nil.
func (c *catalog) content(d image.Digest) *content {
	if t := c.targets[d]; t != nil {
		return t.content
	}
	return nil
}

// named returns the content of the record of a name, or nil.
func (c *catalog) named(name string) *content {
	if r := c.records[name]; r != nil {
		return r.target.content
	}
	return nil
}

// put notes that the record of a name points to content. It returns the record if that is
// news, or nil.
func (c *catalog) put(name string, points *content) *record {
	old := c.records[name]
	if old != nil && old.target.content == points {
		return nil
	}
	// The new one is linked first, so that what both lead to stays in place.
	r := &record{name: name, target: c.intern(points), named: len(repositoryOf(name))}
	if w := points.to(image.Digest(name)); w != nil {
		r.name = string(w.config) // CRI's record under the image id: one string for both
	}
	c.records[r.name] = r
	c.link(r)
	if old != nil {
		c.unlink(old)
	}
	return r
}

// remove forgets the record of a name.
func (c *catalog) remove(name string) {
	if r := c.records[name]; r != nil {
		delete(c.records, name)
		delete(c.pinned, name)
		c.unlink(r)
	}
}

// pin notes whether a record that is there is pinned.
func (c *catalog) pin(e entry) {
	if e.pinned {
		c.pinned[e.name] = struct{}{}
	} else {
		delete(c.pinned, e.name)
	}
}

// replace takes a new reading of a target for all records that point to it, and returns
// them if that is news. What others list and the new reading has is not looked at again:
// it arrived with a record of its own.
func (c *catalog) replace(points *content) []*record {
	old := c.targets[points.digest]
	if old == nil || old.content == points {
		return nil
	}
	outdated := maps.Clone(c.outdated)
	delete(c.targets, points.digest)
	var news []*record
	for name, r := range c.records { // seldom enough to need no list with each target
		if r.target == old {
			news = append(news, c.put(name, points))
		}
	}
	c.outdated = outdated
	delete(c.outdated, points.digest)
	return news
}

// takeOutdated returns one of the targets to resolve again; false means that there is none.
func (c *catalog) takeOutdated() (image.Digest, bool) {
	for d := range c.outdated {
		delete(c.outdated, d)
		return d, true
	}
	return "", false
}

// outdate has what is known of a digest resolved again if it may be more by now.
func (c *catalog) outdate(d image.Digest) {
	if known := c.content(d); known != nil && (known.fault != "" || len(known.absent) > 0) {
		c.outdated[d] = struct{}{}
	}
}

// candidates are what a record offers, one for each config that it leads to.
func (r *record) candidates() []verifier.Candidate {
	if r.named == 0 {
		return nil
	}
	var out []verifier.Candidate
	for i := range r.target.ways {
		if w := &r.target.ways[i]; w.usable() {
			out = append(out, verifier.Candidate{Repository: r.repository(), Digests: slices.Clone(w.offered)})
		}
	}
	return out
}

// all returns a config and every digest that leads to it.
func (r *running) all() []image.Digest {
	return append([]image.Digest{r.config}, r.counts.digests()...)
}

// args are the config's, whatever leads to it. There is a record under which it is usable.
func (r *running) args() argsSum { return r.records[0].target.to(r.config).args }

// intern returns the one target of a content.
func (c *catalog) intern(points *content) *target {
	if t := c.targets[points.digest]; t != nil && t.content == points {
		return t
	}
	t := &target{content: points}
	c.targets[points.digest] = t
	for _, d := range points.absent {
		c.absent[d] = append(c.absent[d], t)
	}
	c.arrived(points.digest)
	for _, w := range points.ways {
		c.arrived(w.config)
		for _, d := range w.digests {
			c.arrived(d)
		}
	}
	return t
}

func (c *catalog) arrived(d image.Digest) {
	for _, t := range c.absent[markOf(d)] {
		c.outdated[t.digest] = struct{}{}
	}
}

func (c *catalog) link(r *record) {
	r.target.records++
	for i := range r.target.ways {
		w := &r.target.ways[i]
		run := c.configs[w.config]
		if run == nil {
			run = &running{config: w.config}
			c.configs[w.config] = run
		}
		for _, d := range w.digests {
			run.counts.add(d, 1)
		}
		if !w.usable() {
			continue
		}
		if len(run.records) == 0 {
			c.chains[w.chain] = append(c.chains[w.chain], run)
		}
		run.records.add(r)
	}
}

func (c *catalog) unlink(r *record) {
	for i := range r.target.ways {
		w := &r.target.ways[i]
		run := c.configs[w.config]
		for _, d := range w.digests {
			run.counts.add(d, -1)
		}
		if run.counts.none() {
			delete(c.configs, w.config)
		}
		if !w.usable() {
			continue
		}
		run.records.remove(r)
		if len(run.records) == 0 {
			removeFrom(c.chains, w.chain, run)
		}
	}
	if r.target.records--; r.target.records == 0 {
		c.drop(r.target)
	}
}

// drop forgets a target that no record points to any more.
func (c *catalog) drop(t *target) {
	if c.targets[t.digest] == t {
		delete(c.targets, t.digest)
		delete(c.outdated, t.digest)
		delete(c.tried, t.digest)
	}
	for _, d := range t.absent {
		removeFrom(c.absent, d, t)
	}
}

// removeFrom takes one element out of a map of lists.
func removeFrom[K, E comparable](m map[K][]E, key K, gone E) {
	list := slices.DeleteFunc(m[key], func(x E) bool { return x == gone })
	if len(list) == 0 {
		delete(m, key)
		return
	}
	m[key] = list
}

// records are sorted by name.
type records []*record

func byName(a, b *record) int { return strings.Compare(a.name, b.name) }

func (l *records) add(r *record) {
	at, _ := slices.BinarySearchFunc(*l, r, byName)
	*l = slices.Insert(*l, at, r)
}

// remove takes out a record; for a moment two of one name may be there.
func (l *records) remove(gone *record) {
	at, _ := slices.BinarySearchFunc(*l, gone, byName)
	for ; at < len(*l); at++ {
		if (*l)[at] == gone {
			*l = slices.Delete(*l, at, at+1)
			return
		}
	}
}

// counts say how often digests are there. Most configs have one or two, for which a map
// would take more memory than all else that is known of the image.
type counts struct {
	few  []count // up to maxFew
	many *tally  // in place of few
}

type count struct {
	digest image.Digest
	n      int
}

const maxFew = 8

type tally struct {
	by     map[image.Digest]int
	sorted []image.Digest // the keys of by; nil: to be made
}

// add changes how often a digest is there.
func (c *counts) add(d image.Digest, n int) {
	if c.many != nil {
		c.many.add(d, n)
		return
	}
	at := slices.IndexFunc(c.few, func(x count) bool { return x.digest == d })
	switch {
	case at < 0 && len(c.few) < maxFew:
		c.few = append(c.few, count{d, n})
	case at < 0:
		c.many = &tally{by: map[image.Digest]int{d: n}}
		for _, x := range c.few {
			c.many.by[x.digest] = x.n
		}
		c.few = nil
	case c.few[at].n+n == 0:
		c.few = slices.Delete(c.few, at, at+1)
	default:
		c.few[at].n += n
	}
}

func (t *tally) add(d image.Digest, n int) {
	before := len(t.by)
	if t.by[d] += n; t.by[d] == 0 {
		delete(t.by, d)
	}
	if len(t.by) != before {
		t.sorted = nil
	}
}

func (c *counts) none() bool { return len(c.few) == 0 && (c.many == nil || len(c.many.by) == 0) }

// digests are those that are there, sorted. The slice must not be changed.
func (c *counts) digests() []image.Digest {
	if c.many == nil {
		all := make([]image.Digest, len(c.few))
		for i := range c.few {
			all[i] = c.few[i].digest
		}
		slices.Sort(all)
		return all
	}
	if c.many.sorted == nil {
		c.many.sorted = slices.Sorted(maps.Keys(c.many.by))
	}
	return c.many.sorted
}

// repositoryOf returns the repository of a record's name, or "" where the name is not in
// the normal form in which CRI writes names: then nobody has asked for it by that name.
func repositoryOf(name string) string {
	ref, err := image.Parse(name)
	if err != nil || ref.String() != name {
		return ""
	}
	return name[:len(ref.Repository)] // shares the name's memory
}
