package objects

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/state"
)

// DefaultMaximumAge is how long what a cluster held last is used without the API server.
const DefaultMaximumAge = 7 * 24 * time.Hour

const (
	// gather is how long changes are gathered before they are put in force together.
	gather = 50 * time.Millisecond
	// keepEvery is how often the time of the kept copy is brought up to date.
	keepEvery = 10 * time.Minute
	// lapse is how long nothing of a collection may be heard before it is listed anew, and
	// twice that before it is told. An API server sends a bookmark every minute.
	lapse = 3 * time.Minute
	// partialLapse is how often a collection is listed anew, at most, for objects that are to be
	// had whole again: who makes a namespace hold too much and less by turns costs no more.
	partialLapse = time.Minute
)

// ClusterOptions say which cluster to follow and how.
type ClusterOptions struct {
	StateDir   string // keeps a copy of what was last in force
	Owned      bool   // as of FolderOptions
	Node       string // the copy is of this node alone
	MaximumAge time.Duration

	// OnSynced, when it is not nil, is told when what is in force was last known to be what
	// the cluster holds. It must not wait.
	OnSynced func(time.Time)

	Now func() time.Time
	Log *slog.Logger
}

// Cluster follows the objects of a cluster. What the API server tells and what is in force
// are two things: the first is believed as far as the rules of absence allow (replica).
type Cluster struct {
	options  ClusterOptions
	accepted acceptance
	changed  chan struct{}

	mu        sync.Mutex
	replica   *replica
	met       string // the cluster that answered since the start
	stale     string
	unproven  string // why the kept copy could not be read; empty once another took its place
	expired   bool
	trouble   map[string]string // why a collection cannot be asked for, by its name
	restarts  map[string]chan struct{}
	listened  map[string]time.Time // when a collection was listed anew for want of news
	missed    bool                 // changes of the definitions may have gone unheard
	relisting bool                 // and they are listed anew for that
	defined   chan struct{}        // closed while the definitions are those of now
	asks      chan string          // definitions to ask for
	told      time.Time            // when something was last told of the definitions

	unkept  bool
	kept    time.Time // when the kept copy was written last
	unsaved string
}

// ClusterStatus is how things stand between a node and its cluster.
type ClusterStatus struct {
	Synced  time.Time // when what is in force was last known to be what the cluster holds; zero: never
	Problem string    // why it is not known now
}

// OpenCluster reads the kept copy, and gives what is in force by it; Run tells what comes
// after. A copy of another node, or one that cannot be read, is none, and reported.
func OpenCluster(o ClusterOptions) (*Cluster, crds.Set, error) {
	if err := makeStateDir(o.StateDir, o.Owned); err != nil {
		return nil, crds.Set{}, fmt.Errorf("state folder: %w", err)
	}
	c := &Cluster{
		options: o, changed: make(chan struct{}, 1), replica: newReplica(),
		defined: make(chan struct{}), asks: make(chan string, len(resources())),
		trouble: make(map[string]string), restarts: make(map[string]chan struct{}), listened: make(map[string]time.Time),
		accepted: acceptance{path: filepath.Join(o.StateDir, acceptClusterName), owned: o.Owned, log: o.Log},
	}
	for _, k := range c.replica.kinds {
		c.restarts[k.name()] = make(chan struct{}, 1)
	}
	c.restarts[definitions.GroupResource().String()] = make(chan struct{}, 1)
	r, node, err := readReplica(o.StateDir, o.Owned)
	switch {
	case err == nil && node == o.Node:
		c.replica = r
	case err == nil:
		o.Log.Error("the kept copy of the cluster's objects is of another node, and is not used", "file", c.keptPath(), "node", node)
	case !errors.Is(err, fs.ErrNotExist):
		c.unproven = err.Error()
		o.Log.Error("the kept copy of the cluster's objects cannot be read", "file", c.keptPath(), "error", err)
	}
	c.expire()
	return c, c.set(), nil
}

func (c *Cluster) keptPath() string { return filepath.Join(c.options.StateDir, keptClusterName) }

// Status tells how things stand.
func (c *Cluster) Status() ClusterStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := ClusterStatus{Synced: c.replica.synced}
	names := []string{definitions.GroupResource().String()}
	unserved := false
	for _, k := range c.replica.kinds {
		names = append(names, k.name())
		unserved = unserved || k.unserved
	}
	for _, name := range names {
		if why := c.trouble[name]; why != "" && s.Problem == "" {
			s.Problem = name + ": " + why
		}
	}
	switch {
	case unserved:
		s.Problem = c.replica.unlisted()
	case s.Problem != "":
	case c.met == "":
		s.Problem = "the API server was not reached since the start"
	case !c.replica.complete():
		s.Problem = c.replica.unlisted()
	case c.options.Now().Sub(s.Synced) > 2*lapse:
		s.Problem = "nothing was heard of the API server for a while"
	}
	return s
}

// Run puts in force what is told until the context ends, whose error it returns. It calls
// take, one call at a time, with every set that comes in force after the one of OpenCluster.
func (c *Cluster) Run(ctx context.Context, take func(crds.Set)) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.changed:
			if err := pause(ctx, gather); err != nil {
				return err
			}
		case <-timer.C:
		}
		began := time.Now()
		set, changed, wait := c.step()
		if changed {
			take(set)
		}
		// Whoever changes objects all the time must not keep the node busy with it.
		if err := pause(ctx, min(5*time.Since(began), time.Second)); err != nil {
			return err
		}
		timer.Reset(wait)
	}
}

// step judges once. It gives the set in force and whether it is another than before, and
// when to judge again though nothing is told.
func (c *Cluster) step() (set crds.Set, changed bool, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select { // told before this: it is seen to now
	case <-c.changed:
	default:
	}
	now := c.options.Now()
	before, expired := c.set(), c.expired
	given := c.accepted.read()
	if given != "" {
		if err := c.replica.accept(given); err != nil {
			c.options.Log.Warn("giving up the cluster's objects is ignored", "hash", given, "error", err)
		} else {
			c.options.Log.Warn("the cluster's objects that stayed in force are given up by an operator", "hash", given)
			c.unproven = ""
		}
	}
	stale, again := c.stale, time.Time{}
	if c.met != "" { // until then one does not know whose objects these are
		var ask []string
		stale, ask, again = c.replica.judge(now)
		for _, name := range ask {
			select {
			case c.asks <- name:
			default: // as many wait as there are
			}
		}
	}
	if stale != "" && stale != c.stale {
		c.options.Log.Warn("the last objects of the cluster stay in force", "reason", stale)
	}
	c.stale = stale
	if c.replica.kept && c.replica.holdsPolicy() {
		c.unproven = ""
	}
	c.hear()
	c.listen(now)
	c.expire()
	set = c.set()
	changed = expired != c.expired || !sameSet(before, set)
	c.keep(changed || given != "" || c.replica.settled, !sameSet(withoutNamespaces(before), withoutNamespaces(set)), now)
	c.replica.settled = false
	if given != "" {
		c.accepted.useUp()
	}
	wait = keepEvery / 10
	if !again.IsZero() {
		wait = min(wait, max(again.Sub(now), 0))
	}
	if c.unkept {
		wait = min(wait, time.Second)
	}
	if c.stale != "" || c.unproven != "" {
		wait = min(wait, hurry)
	}
	return set, changed, wait
}

// hear notes up to when what is in force is known to be what the cluster holds.
func (c *Cluster) hear() {
	if c.met == "" {
		return
	}
	var oldest time.Time
	for _, k := range c.replica.kinds {
		if c.replica.kept && c.replica.uninstalled(k) {
			continue
		}
		if k.found == nil || c.trouble[k.name()] != "" {
			return
		}
		if oldest.IsZero() || k.heard.Before(oldest) {
			oldest = k.heard
		}
	}
	if oldest.After(c.replica.synced) {
		c.replica.synced = oldest
		if c.options.OnSynced != nil {
			c.options.OnSynced(oldest)
		}
	}
}

// listen has collections listed anew of which nothing was heard for long, not even a bookmark.
func (c *Cluster) listen(now time.Time) {
	again := func(name string, heard time.Time) {
		if now.Sub(heard) > lapse && (now.Sub(c.listened[name]) > lapse || now.Before(c.listened[name])) {
			c.listened[name] = now
			c.options.Log.Debug("nothing is heard of a collection: it is listed anew", "resource", name, "since", heard)
			c.restart(name)
		}
	}
	for _, k := range c.replica.kinds {
		if k.found == nil {
			continue
		}
		again(k.name(), k.heard)
		if at := c.listened[k.name()]; k.partial && (now.Sub(at) > partialLapse || now.Before(at)) {
			c.listened[k.name()] = now
			c.restart(k.name())
		}
	}
	if c.replica.definitions != nil {
		again(definitions.GroupResource().String(), c.told)
	}
}

// expire tells whether what is in force is too old to be used.
func (c *Cluster) expire() {
	if now := c.options.Now(); c.replica.synced.After(now) { // the clock has gone back
		c.replica.synced = now
	}
	c.expired = c.replica.kept && c.options.Now().Sub(c.replica.synced) > c.options.MaximumAge
}

// set is what is in force as others see it.
func (c *Cluster) set() crds.Set {
	set := c.replica.set()
	set.Stale = c.stale
	if c.expired {
		set.Unknown = &crds.Unknown{Expired: true, Message: fmt.Sprintf("what the cluster holds was last known at %s, which is over %v ago",
			c.replica.synced.UTC().Format(time.RFC3339), c.options.MaximumAge)}
	}
	if c.unproven != "" && c.replica.kept {
		set.Faults = append(set.Faults, crds.Fault{Source: c.keptPath(), Message: "the cluster holds no policy, and what it held before cannot be told: " +
			c.unproven + "; if it never held any, remove the file"})
	}
	if c.unsaved != "" {
		set.Faults = append(set.Faults, crds.Fault{Source: c.keptPath(), Namespaces: []string{}, Message: "cannot be written: " + c.unsaved})
	}
	return set
}

// withoutNamespaces is a set without what comes and goes in it.
func withoutNamespaces(set crds.Set) crds.Set {
	set.Objects = slices.DeleteFunc(slices.Clone(set.Objects), func(o crds.Object) bool { return o.Kind == crds.KindNamespace })
	return set
}

// keep writes what is in force to the kept copy, again until it is there; what is urgent
// before anybody decides by it.
func (c *Cluster) keep(changed, urgent bool, now time.Time) {
	c.unkept = c.unkept || changed
	if !c.replica.kept || c.replica.synced.IsZero() || (!c.unkept && now.Sub(c.kept) < keepEvery) {
		return
	}
	if c.unproven != "" {
		return // the old one says that something was there
	}
	pause := time.Second // namespaces may come and go all the time
	if c.unsaved != "" {
		pause = 10 * time.Second
	}
	if !urgent && now.Sub(c.kept) < pause && !now.Before(c.kept) {
		return
	}
	before := c.unsaved
	c.kept, c.unsaved = now, ""
	text, err := encodeReplica(c.replica, c.options.Node)
	if err == nil {
		err = state.Replace(c.options.StateDir, keptClusterName, text)
	}
	if err != nil {
		if c.unsaved = err.Error(); c.unsaved != before {
			c.options.Log.Error("the cluster's objects in force cannot be kept", "file", c.keptPath(), "error", err)
		}
	}
	c.unkept = c.unsaved != ""
}

// sameSet compares sets by what is in them.
func sameSet(a, b crds.Set) bool {
	if len(a.Objects) != len(b.Objects) || len(a.Faults) != len(b.Faults) || a.Stale != b.Stale || (a.Unknown == nil) != (b.Unknown == nil) {
		return false
	}
	if a.Unknown != nil && *a.Unknown != *b.Unknown {
		return false
	}
	for i := range a.Objects {
		if string(a.Objects[i].Raw) != string(b.Objects[i].Raw) {
			return false
		}
	}
	for i := range a.Faults {
		if a.Faults[i].Source != b.Faults[i].Source || a.Faults[i].Message != b.Faults[i].Message {
			return false
		}
	}
	return true
}

// tell has what was told judged soon.
func (c *Cluster) tell() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}
