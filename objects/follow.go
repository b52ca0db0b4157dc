package objects

import (
	"context"
	"errors"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/crds"
)

// Follow has the API server tell of the cluster until the context ends, whose error it
// returns. It begins anew: what another API server told before is not what there is. Another
// cluster than the one that answered before ends it: nothing of that one holds there.
func (c *Cluster) Follow(ctx context.Context, clients apiserver.Clients) error {
	c.mu.Lock()
	c.replica.lose()
	c.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	defer all.Wait()
	through := newDoor(func(ctx context.Context) error {
		err := c.compare(ctx, clients)
		if errors.Is(err, errAnotherCluster) {
			cancel(err)
		}
		return err
	})
	for _, r := range resources() {
		ask := askObjects(clients, r.GroupVersionResource)
		if r.kind == crds.KindNamespace {
			ask = askMetadata(clients, r.GroupVersionResource)
		}
		to := &collected{mirrored: mirrored{c, r.name()}, resource: r}
		all.Go(func() { keepUp(ctx, ask, to, through, c.restarts[r.name()]) })
	}
	to := &definitionsMirror{mirrored{c, definitions.GroupResource().String()}}
	all.Go(func() { keepUp(ctx, askMetadata(clients, definitions), to, through, c.restarts[to.name]) })
	all.Go(func() { c.confirm(ctx, clients) })
	<-ctx.Done()
	return context.Cause(ctx)
}

// confirm asks for the definitions of kinds of which objects are gone: deleting a definition
// deletes its objects first, and what is asked for after they are gone tells that.
func (c *Cluster) confirm(ctx context.Context, clients apiserver.Clients) {
	tries := &patience{}
	for {
		var name string
		select {
		case name = <-c.asks:
		case <-ctx.Done():
			return
		}
		asked := c.options.Now()
		limited, cancel := context.WithTimeout(ctx, listTimeout)
		list, err := clients.Metadata.Resource(definitions).List(limited, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		cancel()
		tries.told(err)
		if err != nil {
			c.options.Log.Debug("a definition cannot be asked for", "name", name, "error", err)
			if pause(ctx, firstRetry) != nil || tries.wait(ctx) != nil {
				return
			}
		} else {
			var d definition
			for _, o := range list.Items {
				d = definition{string(o.UID), o.DeletionTimestamp != nil}
			}
			c.confirmed(name, confirmation{d, asked})
		}
		c.tell() // if it is still not known, it is asked for again
	}
}

func (c *Cluster) confirmed(name string, a confirmation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replica.kind(name).confirmed = a
}

// errAnotherCluster is in the chain of the error that ends following.
var errAnotherCluster = errors.New("another cluster answers")

// compare looks which cluster answers, before anything that it tells is taken. It has
// everything listed anew if the cluster is older than it was: an API server lets one go on
// watching from a version that it has not reached yet, and says nothing.
func (c *Cluster) compare(ctx context.Context, clients apiserver.Clients) error {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	list, err := clients.Metadata.Resource(namespaces.GroupVersionResource).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=kube-system"})
	if err != nil {
		return err
	}
	if len(list.Items) != 1 || list.Items[0].UID == "" {
		return errors.New("the cluster cannot be told from others: it has no namespace kube-system")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.meet(string(list.Items[0].UID)); err != nil {
		return err
	}
	if parseVersion(list.ResourceVersion) >= c.replica.newest() {
		return nil
	}
	c.options.Log.Warn("the cluster is older than it was: everything is listed anew", "resourceVersion", list.ResourceVersion, "before", c.replica.newest())
	for _, k := range c.replica.kinds {
		k.unfind() // what was found is of another time
	}
	for name := range c.restarts {
		c.restart(name)
	}
	c.tell()
	return nil
}

// meet learns which cluster answers.
func (c *Cluster) meet(uid string) error {
	switch {
	case c.met != "" && c.met != uid:
		return fmt.Errorf("%w: its namespace kube-system has UID %s, not %s", errAnotherCluster, uid, c.met)
	case c.met == "" && c.replica.cluster != "" && c.replica.cluster != uid:
		c.options.Log.Error("the kept copy is of another cluster, and is not used any more", "kept", c.replica.cluster, "cluster", uid)
		c.replica.forget()
	}
	c.met, c.replica.cluster = uid, uid
	return nil
}

// restart has a collection listed anew.
func (c *Cluster) restart(name string) {
	select {
	case c.restarts[name] <- struct{}{}:
	default:
	}
}
