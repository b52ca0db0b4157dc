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
// in it are refused here, mounts from above, or through links, are for whoever admits
// hostPath volumes.
func (b *binding) bindVolumes(ctx context.Context, snapshotter string, claim Claim) []verifier.Image {
	volumes, err := b.volumesOf(claim)
	if err != nil {
		return []verifier.Image{{Written: "image volume", Unbound: err.Error()}}
	}
	var images []verifier.Image
	for _, v := range volumes {
		img := verifier.Image{Written: "image volume " + string(v.digest)}
		if found, err := b.identifyVolume(ctx, snapshotter, v); err != nil {
			img.Unbound = err.Error()
		} else {
			b.describe(&img, found, nil)
		}
		images = append(images, img)
	}
	return images
}

// identifyVolume finds the config whose content is mounted. The path names the digest that
// its record had when it was asked for; what was mounted a moment later may be another
// image, so the snapshot decides which manifest of that digest it is, if any.
//
// Where the digest is not usable, any record whose content is mounted speaks for it: the path
// has the first name of all that share a config, so that anybody can put one before it.
func (b *binding) identifyVolume(ctx context.Context, snapshotter string, v volume) (bound, error) {
	s, err := b.client.stat(ctx, snapshotter, v.key)
	if err != nil {
		return bound{}, err
	}
	points := b.content(v.digest)
	found := withContent(points, s.parent)
	if len(found) == 1 {
		return found[0], nil
	}
	b.want(wish{target: v.digest})
	if points == nil || points.fault == "" && len(points.absent) > 0 {
		if points, err = b.read(ctx, v.digest); err != nil {
			return bound{}, fmt.Errorf("image volume %s: %w", v.digest, err)
		}
		found = withContent(points, s.parent)
	}
	if len(found) == 0 && points.doubtful() {
		found = b.withChain(s.parent)
		for i := range found {
			found[i].reported = points
		}
	}
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
			found = append(found, bound{config: w.config, points: c})
		}
	}
	return found
}

// volumesOf finds the image volumes among the mounts of a claim, each once. A mount at or
// below the folder of image volumes that is none of this pod's is an error.
//
// It looks at how the sources are written and never at what is there: that may be a
// tenant's file system, which can hang. Containerd writes the path of an image volume below
// its state folder as configured, or, where a sub path ends in a link, with all links
// resolved.
func (ix *Index) volumesOf(claim Claim) ([]volume, error) {
	if len(claim.Mounts) > maxMounts {
		return nil, fmt.Errorf("the container has %d mounts: at most %d are looked through for image volumes", len(claim.Mounts), maxMounts)
	}
	ix.mu.Lock()
	dirs := ix.volumeDirs
	ix.mu.Unlock()
	var volumes []volume
	for _, source := range claim.Mounts {
		if !filepath.IsAbs(source) {
			continue // proc, tmpfs and the like
		}
		if strings.Contains(source+"/", "/../") {
			return nil, fmt.Errorf("mount source %q has .. in it", clip(source))
		}
		below, inside := inAny(dirs, source)
		if !inside {
			continue
		}
		v, err := parseVolume(dirs[0], below, claim.SandboxID)
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

// volumeDirs returns the spellings of the folder of image volumes: as containerd's
// configuration writes it, and with its links resolved. Nobody but root can change a part
// of that path, so that it may be looked at.
func volumeDirs(stateDir string) ([]string, error) {
	dir := filepath.Join(stateDir, volumesDir)
	resolved, err := resolvePath(dir)
	if err != nil {
		return nil, fmt.Errorf("resolve the folder of image volumes: %w", err)
	}
	return []string{dir, resolved}, nil
}

// inAny returns the path of a source below one of the folders; false if it is elsewhere.
func inAny(dirs []string, source string) (string, bool) {
	for _, dir := range dirs {
		if below, inside := inFolder(plain(dir), plain(source)); inside {
			return below, true
		}
	}
	return "", false
}

// plain is a path in its shortest form. /var/run is a link to /run wherever containerd
// runs, and people write either.
func plain(p string) string {
	p = filepath.Clean(p)
	if rest, ok := strings.CutPrefix(p, "/var/run/"); ok {
		return "/run/" + rest
	}
	return p
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

// resolvePath resolves the links in a clean absolute path, of which the last parts may not
// be there yet.
func resolvePath(p string) (string, error) {
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
