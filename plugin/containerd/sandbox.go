package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// maxSpec bounds the runtime specification of a sandbox that is decoded; a pod's
// annotations are in it.
const maxSpec = 2 << 20

// BindSandbox ties a sandbox's pause container, which already runs, to content: the configs
// whose content its snapshot has and whose entrypoint and command it was started with.
// Digests are those of all of them; Config is set if there is one only. There is no name and
// there are no candidates: nobody asked for a pause image. What cannot be tied down has
// Unbound set.
func (ix *Index) BindSandbox(ctx context.Context, sandboxID string) verifier.Image {
	img := verifier.Image{Written: "pause image of sandbox " + clip(sandboxID)}
	if !ix.await(ctx, patience) {
		img.Unbound = notCurrent
		return img
	}
	found, err := ix.identifySandbox(ctx, sandboxID)
	if err != nil {
		img.Unbound = err.Error()
		return img
	}
	all := map[image.Digest]struct{}{}
	for _, b := range found {
		var one verifier.Image
		ix.describe(&one, b, nil)
		for _, d := range one.Digests {
			all[d] = struct{}{}
		}
	}
	img.Digests = slices.Sorted(maps.Keys(all))
	if len(found) == 1 {
		img.Config = found[0].config
	}
	return img
}

func (ix *Index) identifySandbox(ctx context.Context, sandboxID string) ([]bound, error) {
	rec, err := ix.client.containerOf(ctx, sandboxID)
	if err != nil {
		return nil, err
	}
	args, err := processArgs(rec.spec)
	if err != nil {
		return nil, fmt.Errorf("read the runtime specification of sandbox %q: %w", clip(sandboxID), err)
	}
	s, err := ix.client.stat(ctx, rec.snapshotter, rec.snapshotKey)
	if err != nil {
		return nil, err
	}
	chain, err := ix.client.chainOf(ctx, rec.snapshotter, s)
	if err != nil {
		return nil, err
	}
	sum := sumArgs(args)
	found := ix.started(chain, sum)
	if len(found) > 0 {
		return found, nil
	}
	// Perhaps it was pulled a moment ago.
	points, _, err := ix.newBinding().record(ctx, rec.image)
	if err != nil {
		return nil, err
	}
	for _, b := range withContent(points, chain) {
		if points.to(b.config).args == sum {
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no image on the node has both the content of the pause container's snapshot, whose parent is %s, and its command", orNone(s.parent))
	}
	return found, nil
}

// started returns the known configs that have the content of a chain ID and a command.
func (ix *Index) started(chain image.Digest, args argsSum) []bound {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	var found []bound
	for _, run := range ix.catalog.chains[chain] {
		if run.args() == args {
			found = append(found, bound{config: run.config, points: run.records[0].target.content})
		}
	}
	return found
}

// processArgs reads process.args of an OCI runtime specification.
func processArgs(spec []byte) ([]string, error) {
	if len(spec) > maxSpec {
		return nil, fmt.Errorf("it has %d bytes: at most %d are read", len(spec), maxSpec)
	}
	var doc struct {
		Process struct {
			Args []string `json:"args"`
		} `json:"process"`
	}
	if err := json.Unmarshal(spec, &doc); err != nil {
		return nil, err
	}
	if len(doc.Process.Args) == 0 {
		return nil, errors.New("it has no process.args")
	}
	return doc.Process.Args, nil
}
