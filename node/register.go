package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/plugin"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// listed is told of images that containerd reports. Before the evidence on disk is read,
// sources would be asked for what is there: those images are swept when policies are first in force.
func (n *Node) listed(candidates []verifier.Candidate) {
	if n.recalled.Load() {
		n.reported(candidates)
	}
}

// soonRest is told when all images were listed again, soon after the start for the first
// time, or swept.
func (n *Node) soonRest() {
	select {
	case n.worked <- struct{}{}:
	default:
	}
}

// restPercent is GOGC of a daemon that has started, where the environment has none. Nearly
// all of its heap is what it knows of the node's images, and stays: with Go's 100 as much
// again would lie unused on every node. At the start, when much is made and little kept, it
// would cost a fourth of the time.
const restPercent = 25

// restAfter is how long after that memory is given back: what was listed is verified first.
const restAfter = 2 * time.Second

// rest gives back the memory that listing or sweeping all images took.
func (n *Node) rest(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.worked:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(restAfter):
		}
		if os.Getenv("GOGC") == "" {
			debug.SetGCPercent(restPercent)
		}
		debug.FreeOSMemory()
		debug.FreeOSMemory() // what lies in pools is kept the first time
	}
}

// mayRegister holds the plugin back from a runtime that it could not gate, or could harm.
func (n *Node) mayRegister(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := n.ready(ctx)
	n.stayAway(err)
	return err
}

// stayAway reports why the plugin is kept from the runtime, once for each reason.
func (n *Node) stayAway(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	n.mu.Lock()
	changed := text != n.away
	n.away = text
	n.mu.Unlock()
	if !changed {
		return
	}
	if text != "" {
		n.log.Warn("the gate stays away from the runtime", "problem", text)
	}
	n.service.Changed()
}

func (n *Node) ready(ctx context.Context) error {
	if err := n.canEnforce(ctx); err != nil {
		return err
	}
	if !n.index.Wait(ctx) {
		return errNotListed
	}
	inventory, err := n.client.Inventory(ctx, plugin.MaxObjectBytes)
	if err != nil {
		return err
	}
	if len(inventory.Large) > 0 {
		return fmt.Errorf("registering could crash containerd, which would have to tell of objects over %d bytes: %s; remove them first",
			plugin.MaxObjectBytes, strings.Join(inventory.Large, ", "))
	}
	n.sweep(inventory.Images)
	n.settleRunning(ctx, inventory.Images)
	return nil
}

// settleFor is how long registering waits for the signatures about images that run.
// Nothing is created meanwhile; what is not verified then is refused at first, and the
// kubelet tries again only ten seconds later.
const settleFor = 300 * time.Millisecond

// settleRunning has the signatures about the images of the node's containers verified before the first create.
func (n *Node) settleRunning(ctx context.Context, images []string) {
	ctx, cancel := context.WithTimeout(ctx, settleFor)
	defer cancel()
	if err := n.fetcher.Settle(ctx, questions(n.decider.Sources, n.index.Named(images))); err != nil {
		n.log.Debug("not all signatures about images that run are verified yet", "error", err)
	}
}

// pauseOnFloor says which line the floor lacks: without the image that containerd pins
// for sandboxes on it, no pod starts. The error is errNoPause then.
func (n *Node) pauseOnFloor() error {
	pinned, err := n.index.Pinned()
	if err != nil {
		return err
	}
	var lines []string
	for _, p := range pinned {
		if n.floor.Floor().Has("", p.Digests) {
			return nil
		}
		if !image.IsID(p.Name) && len(p.Digests) > 0 {
			lines = append(lines, fmt.Sprintf("%s  # %s", p.Digests[0], p.Name))
		}
	}
	if len(lines) == 0 && n.floor.Floor().Len() > 0 {
		return nil // not pulled yet: containerd pulls it with the first pod, and it is judged then
	}
	if len(lines) == 0 {
		return fmt.Errorf("%w: %s holds no digest; crictl pull the pause image of containerd's configuration, and start again to see its line", errNoPause, n.config.Floor)
	}
	slices.Sort(lines)
	return fmt.Errorf("%w; when the digest is the one you expect (any pod's pull can move the tag), add to %s: %s",
		errNoPause, n.config.Floor, strings.Join(lines, " or "))
}

var errNotListed = errors.New("containerd's images are not listed yet")

var errNoPause = errors.New("the node's pause image is not on the floor, and no pod could start")

// start waits until containerd can be asked, and fails when the node could never be
// gated as it is configured: an operator is to see that at once.
func (n *Node) start(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := n.canEnforce(limited)
		cancel()
		if err == nil || errors.Is(err, errNoPause) || errors.Is(err, plugin.ErrCannotEnforce) {
			return err
		}
		n.stayAway(fmt.Errorf("ask containerd at %s: %w", n.config.ContainerdAddress, err))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// canEnforce tells whether the runtime of the moment can be made to fail closed, and pods could start.
func (n *Node) canEnforce(ctx context.Context) error {
	if n.shell.Mode != gate.Enforce {
		return nil
	}
	version, err := n.client.Version(ctx)
	if err != nil {
		return err
	}
	if err := plugin.CanEnforce("containerd", version); err != nil {
		return err
	}
	if !n.index.Wait(ctx) {
		return errNotListed
	}
	return n.pauseOnFloor()
}

// explain says which namespaces hold most of what a runtime would have to tell a plugin,
// for a node on which it does not get that done.
func (n *Node) explain() string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	inventory, err := n.client.Inventory(ctx, plugin.MaxObjectBytes)
	if err != nil {
		return ""
	}
	most := slices.SortedFunc(maps.Keys(inventory.Bytes), func(a, b string) int {
		return cmp.Or(inventory.Bytes[b]-inventory.Bytes[a], strings.Compare(a, b))
	})
	total := 0
	for _, bytes := range inventory.Bytes {
		total += bytes
	}
	text := fmt.Sprintf("it has about %d bytes to tell of pods and containers", total)
	for _, namespace := range most[:min(len(most), 3)] {
		text += fmt.Sprintf(", %d in namespace %s", inventory.Bytes[namespace], namespace)
	}
	return text + "; fewer or smaller pods there make it possible"
}
