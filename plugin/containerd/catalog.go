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
}

// record is one image record.
type record struct {
	name string
	// repository is empty where name is not a name in its normal form, as with the records
	// that CRI keeps under image ids.
	repository string
	target     *target
}

// target is content that records point to.
type target struct {
	*content
	records map[*record]struct{}
	tried   time.Time // when a claim last had it resolved again
}

// running is a config that containers may run, and all that leads to it.
type running struct {
	config  image.Digest
	chain   image.Digest
	args    argsSum
	records []*record            // those under which the config is usable, sorted by name
	counts  map[image.Digest]int // how many records lead here over each digest
	digests []image.Digest       // config and the keys of counts; nil: to be made
}

func newCatalog() *catalog {
	return &catalog{
		records:  map[string]*record{},
		targets:  map[image.Digest]*target{},
		configs:  map[image.Digest]*running{},
		chains:   map[image.Digest][]*running{},
		absent:   map[mark][]*target{},
		outdated: map[image.Digest]struct{}{},
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
	r := &record{name: name, repository: repositoryOf(name), target: c.intern(points)}
	c.records[name] = r
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
		c.unlink(r)
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
	for r := range old.records {
		news = append(news, c.put(r.name, points))
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
	if r.repository == "" {
		return nil
	}
	var out []verifier.Candidate
	for i := range r.target.ways {
		if w := &r.target.ways[i]; w.usable() {
			out = append(out, verifier.Candidate{Repository: r.repository, Digests: slices.Clone(w.offered)})
		}
	}
	return out
}

// all returns a config and every digest that leads to it. The slice must not be changed.
func (r *running) all() []image.Digest {
	if r.digests == nil {
		r.digests = make([]image.Digest, 0, len(r.counts)+1)
		for d := range r.counts {
			r.digests = append(r.digests, d)
		}
		slices.Sort(r.digests)
		r.digests = slices.Insert(r.digests, 0, r.config)
	}
	return r.digests
}

// forget takes out a record; for a moment two of one name may be there.
func (r *running) forget(gone *record) {
	at, _ := slices.BinarySearchFunc(r.records, gone, byName)
	for ; at < len(r.records); at++ {
		if r.records[at] == gone {
			r.records = slices.Delete(r.records, at, at+1)
			return
		}
	}
}

// intern returns the one target of a content.
func (c *catalog) intern(points *content) *target {
	if t := c.targets[points.digest]; t != nil && t.content == points {
		return t
	}
	t := &target{content: points, records: map[*record]struct{}{}}
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
	r.target.records[r] = struct{}{}
	for i := range r.target.ways {
		w := &r.target.ways[i]
		run := c.configs[w.config]
		if run == nil {
			run = &running{config: w.config, counts: map[image.Digest]int{}}
			c.configs[w.config] = run
		}
		for _, d := range w.digests {
			if run.counts[d]++; run.counts[d] == 1 {
				run.digests = nil
			}
		}
		if !w.usable() {
			continue
		}
		if len(run.records) == 0 {
			run.chain, run.args = w.chain, w.args
			c.chains[run.chain] = append(c.chains[run.chain], run)
		}
		at, _ := slices.BinarySearchFunc(run.records, r, byName)
		run.records = slices.Insert(run.records, at, r)
	}
}

func (c *catalog) unlink(r *record) {
	for i := range r.target.ways {
		w := &r.target.ways[i]
		run := c.configs[w.config]
		for _, d := range w.digests {
			if run.counts[d]--; run.counts[d] == 0 {
				delete(run.counts, d)
				run.digests = nil
			}
		}
		if len(run.counts) == 0 {
			delete(c.configs, w.config)
		}
		if !w.usable() {
			continue
		}
		run.forget(r)
		if len(run.records) == 0 {
			removeFrom(c.chains, run.chain, run)
		}
	}
	delete(r.target.records, r)
	if len(r.target.records) == 0 {
		c.drop(r.target)
	}
}

// drop forgets a target that no record points to any more.
func (c *catalog) drop(t *target) {
	if c.targets[t.digest] == t {
		delete(c.targets, t.digest)
		delete(c.outdated, t.digest)
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

func byName(a, b *record) int { return strings.Compare(a.name, b.name) }

// repositoryOf returns the repository of a record's name, or "" where the name is not in
// the normal form in which CRI writes names: then nobody has asked for it by that name.
func repositoryOf(name string) string {
	ref, err := image.Parse(name)
	if err != nil || ref.String() != name {
		return ""
	}
	return name[:len(ref.Repository)] // shares the name's memory
}
