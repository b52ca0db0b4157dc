package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

const (
	// maxVolumes bounds the image volumes of a container, each of which costs a call.
	maxVolumes = 32
	// maxMounts bounds the mounts that are looked through for them.
	maxMounts = 4096
	// volumesDir is where CRI mounts image volumes, below its state folder.
	volumesDir = "image-volumes"
)

// volume is an image volume as the source of a mount shows it.
type volume struct {
	key    string       // of its snapshot: the mount path as containerd writes it
	digest image.Digest // the target of some record of the image that was asked for
}

// bindVolumes binds each image volume among the mounts of a claim. They are known by where
// they are: NRI does not tell them from other mounts. A tenant who may mount that folder, or
// one above it, from the host sees the volumes of others as well; mounts of it or of what is
// in it are refused here, mounts from above are for whoever admits hostPath volumes.
func (ix *Index) bindVolumes(ctx context.Context, snapshotter string, claim Claim) []verifier.Image {
	volumes, err := ix.volumesOf(claim)
	if err != nil {
		return []verifier.Image{{Written: "image volume", Unbound: err.Error()}}
	}
	var images []verifier.Image
	for _, v := range volumes {
		img := verifier.Image{Written: "image volume " + string(v.digest)}
		if b, err := ix.identifyVolume(ctx, snapshotter, v); err != nil {
			img.Unbound = err.Error()
		} else {
			ix.describe(&img, b, nil)
		}
		images = append(images, img)
	}
	return images
}

// identifyVolume finds the config whose content is mounted. The path names the digest that
// its record had when it was asked for; what was mounted a moment later may be another
// image, so the snapshot decides which manifest of that digest it is, if any.
func (ix *Index) identifyVolume(ctx context.Context, snapshotter string, v volume) (bound, error) {
	s, err := ix.client.stat(ctx, snapshotter, v.key)
	if err != nil {
		return bound{}, err
	}
	points := ix.content(v.digest)
	if found := withContent(points, s.parent); len(found) == 1 {
		return found[0], nil
	}
	ix.want(wish{target: v.digest})
	if points, err = resolve(ctx, ix.client, v.digest); err != nil {
		return bound{}, err
	}
	found := withContent(points, s.parent)
	switch {
	case len(found) == 1:
		return found[0], nil
	case points.fault != "":
		return bound{}, fmt.Errorf("image volume %s: %s", v.digest, points.fault)
	case len(found) == 0:
		return bound{}, fmt.Errorf("what is mounted as image volume %s is not of that image: no config of it fits the snapshot's parent %s: its tag may just have moved", v.digest, orNone(s.parent))
	}
	return bound{}, fmt.Errorf("image volume %s: %d configs of it fit the snapshot's parent %s", v.digest, len(found), orNone(s.parent))
}

// withContent returns the configs of a content that have the content of a chain ID.
func withContent(c *content, chain image.Digest) []bound {
	if c == nil {
		return nil
	}
	var found []bound
	for i := range c.ways {
		if w := &c.ways[i]; w.usable() && w.chain == chain {
			found = append(found, bound{w.config, c})
		}
	}
	return found
}

// volumesOf finds the image volumes among the mounts of a claim, each once. A mount at or
// below the folder of image volumes that is none of this pod's is an error.
func (ix *Index) volumesOf(claim Claim) ([]volume, error) {
	if len(claim.Mounts) > maxMounts {
		return nil, fmt.Errorf("the container has %d mounts: at most %d are looked through for image volumes", len(claim.Mounts), maxMounts)
	}
	ix.mu.Lock()
	dir := filepath.Join(ix.settings.StateDir, volumesDir)
	ix.mu.Unlock()
	resolvedDir, err := resolvePath(dir)
	if err != nil {
		return nil, fmt.Errorf("resolve the folder of image volumes: %w", err)
	}
	var volumes []volume
	for _, source := range claim.Mounts {
		if !filepath.IsAbs(source) {
			continue // proc, tmpfs and the like
		}
		resolved, err := resolvePath(source)
		if err != nil {
			return nil, fmt.Errorf("resolve the source of a mount: %w", err)
		}
		below, inside := inFolder(resolvedDir, resolved)
		if !inside {
			if _, written := inFolder(dir, filepath.Clean(source)); written {
				return nil, fmt.Errorf("mount source %q leads out of the folder of image volumes", clip(source))
			}
			continue
		}
		v, err := parseVolume(dir, below, claim.SandboxID)
		if err != nil {
			return nil, fmt.Errorf("mount source %q is in the folder of image volumes, but %w", clip(source), err)
		}
		if slices.Contains(volumes, v) {
			continue
		}
		if volumes = append(volumes, v); len(volumes) > maxVolumes {
			return nil, fmt.Errorf("the container has more than %d image volumes", maxVolumes)
		}
	}
	return volumes, nil
}

// parseVolume reads <sandbox id>/<digest hex>[/sub/path], a path below the folder of image
// volumes. The hex has no algorithm; its length tells.
func parseVolume(dir, below, sandboxID string) (volume, error) {
	sandbox, rest, _ := strings.Cut(below, "/")
	encoded, _, _ := strings.Cut(rest, "/")
	if sandbox == "" || encoded == "" {
		return volume{}, errors.New("is not an image volume")
	}
	if sandbox != sandboxID {
		return volume{}, errors.New("belongs to another pod")
	}
	algorithm := "sha256:"
	if len(encoded) == 128 {
		algorithm = "sha512:"
	}
	digest, err := image.ParseDigest(algorithm + encoded)
	if err != nil {
		return volume{}, errors.New("does not name an image's digest")
	}
	return volume{key: dir + "/" + sandbox + "/" + encoded, digest: digest}, nil
}

// inFolder returns the path of p below dir, "" for dir itself; false if p is elsewhere.
// Both must be clean.
func inFolder(dir, p string) (string, bool) {
	if p == dir {
		return "", true
	}
	return strings.CutPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// resolvePath resolves the symlinks in an absolute path. The last part of it may not be
// there. Containerd has looked each source up before it calls the gate, so that a file
// system that hangs has stopped it already.
func resolvePath(p string) (string, error) {
	if strings.Contains(p+"/", "/../") {
		return "", fmt.Errorf("path %q has .. in it", clip(p))
	}
	p = filepath.Clean(p)
	rest := ""
	for {
		resolved, err := filepath.EvalSymlinks(p)
		if err == nil {
			return filepath.Join(resolved, rest), nil
		}
		if !errors.Is(err, fs.ErrNotExist) || p == "/" {
			return "", err
		}
		rest = filepath.Join(filepath.Base(p), rest)
		p = filepath.Dir(p)
	}
}
