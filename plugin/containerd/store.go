package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"

	"github.com/horkos/horkos/verifier/image"
)

// store reads blobs from the files of containerd's content store, which takes a tenth of
// asking for them: at the start there are two for each image of the node. A file is not
// believed more than an answer: it counts if its content has the digest, and containerd is
// asked for the blob in every other case.
type store struct {
	client *Client
	blobs  string // folder of the blobs; empty: all are asked for
}

// newStore asks containerd where its content store is. One that does not say, or says what
// cannot be reached from here, has its blobs asked for.
func newStore(ctx context.Context, c *Client) *store {
	s := &store{client: c}
	if root, err := c.contentRoot(ctx); err == nil {
		s.blobs = filepath.Join(root, "blobs")
	}
	return s
}

// workers is how many contents are worth resolving at once: files keep the processors busy,
// and answers are waited for.
func (s *store) workers() int {
	if s.blobs == "" {
		return resolvers
	}
	return runtime.GOMAXPROCS(0)
}

// Blob implements image.Provider.
func (s *store) Blob(ctx context.Context, d image.Digest, limit int64) ([]byte, error) {
	if blob, err := s.file(d, limit); err == nil {
		return blob, nil
	}
	return s.client.Blob(ctx, d, limit)
}

// file reads the file of a digest, and fails unless its content has that digest.
func (s *store) file(d image.Digest, limit int64) ([]byte, error) {
	if s.blobs == "" {
		return nil, errors.New("the content store is not within reach")
	}
	if _, err := image.ParseDigest(string(d)); err != nil {
		return nil, err // it is about to be a path
	}
	algorithm, encoded, _ := strings.Cut(string(d), ":")
	// Not a link, and no waiting for the other end of a pipe.
	f, err := os.OpenFile(filepath.Join(s.blobs, algorithm, encoded), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s is no regular file of at most %d bytes", f.Name(), limit)
	}
	blob := make([]byte, info.Size())
	if _, err := io.ReadFull(f, blob); err != nil {
		return nil, err
	}
	return blob, d.Verify(blob)
}

// contentRoot returns the folder of containerd's own content store.
func (c *Client) contentRoot(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := c.introspect.Plugins(ctx, &introspectionapi.PluginsRequest{Filters: []string{"type==io.containerd.content.v1,id==content"}})
	if err != nil {
		return "", fmt.Errorf("ask containerd for its plugins: %w", err)
	}
	for _, p := range r.GetPlugins() {
		if root := p.GetExports()["root"]; p.GetID() == "content" && filepath.IsAbs(root) {
			return root, nil
		}
	}
	return "", errors.New("containerd does not say where its content store is")
}
