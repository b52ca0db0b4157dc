package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	apitypes "github.com/containerd/containerd/api/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"google.golang.org/grpc/metadata"
)

// importers is how many images are imported at once: containerd writes one after the
// other, and reads the next meanwhile.
const importers = 8

// Import puts n images under names of their own, repository-00000:1 and so on, without
// pulling: as records, manifests and configs of their own, like n images that were pulled
// long ago. Their layers are nowhere, so that no container can be made of one.
func (c *Containerd) Import(ctx context.Context, repository string, n int) ([]Pushed, error) {
	ctx, cancel := context.WithCancelCause(metadata.AppendToOutgoingContext(ctx, "containerd-namespace", Namespace))
	defer cancel(nil)
	all := make([]Pushed, n)
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	var workers sync.WaitGroup
	for range importers {
		workers.Go(func() {
			for i := range next {
				p, err := c.importOne(ctx, fmt.Sprintf("%s-%05d", repository, i))
				if err != nil {
					cancel(fmt.Errorf("import image %d of %s: %w", i, repository, err))
					return
				}
				all[i] = p
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return all, nil
}

func (c *Containerd) importOne(ctx context.Context, repository string) (Pushed, error) {
	config := Image{Labels: map[string]string{"of": repository}}.config(runtime.GOARCH)
	layer, err := describe(types.OCIUncompressedLayer, digestOf([]byte(repository)), nil)
	if err != nil {
		return Pushed{}, err
	}
	config.RootFS.DiffIDs = []v1.Hash{layer.Digest}
	configBytes, err := json.Marshal(config)
	if err != nil {
		return Pushed{}, err
	}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{layer}}
	if manifest.Config, err = describe(types.OCIConfigJSON, digestOf(configBytes), configBytes); err != nil {
		return Pushed{}, err
	}
	manifestBytes, err := json.Marshal(manifest)
	if err != nil {
		return Pushed{}, err
	}
	p := Pushed{Repository: repository, Tag: "1", Digest: digestOf(manifestBytes), Manifest: digestOf(manifestBytes), Config: digestOf(configBytes)}
	for _, blob := range [][]byte{configBytes, manifestBytes} {
		if err := c.writeBlob(ctx, blob); err != nil {
			return Pushed{}, err
		}
	}
	_, err = imagesapi.NewImagesClient(c.Conn).Create(ctx, &imagesapi.CreateImageRequest{Image: &imagesapi.Image{
		Name:   p.ByTag(),
		Target: &apitypes.Descriptor{MediaType: string(types.OCIManifestSchema1), Digest: p.Digest, Size: int64(len(manifestBytes))},
	}})
	return p, err
}

// writeBlob writes to the content store what its garbage collector leaves alone.
func (c *Containerd) writeBlob(ctx context.Context, blob []byte) error {
	stream, err := contentapi.NewContentClient(c.Conn).Write(ctx)
	if err != nil {
		return err
	}
	digest := digestOf(blob)
	err = stream.Send(&contentapi.WriteContentRequest{
		Action: contentapi.WriteAction_COMMIT, Ref: digest, Total: int64(len(blob)), Expected: digest, Data: blob,
		Labels: map[string]string{"containerd.io/gc.root": "yes"},
	})
	if err != nil && !errors.Is(err, io.EOF) { // at EOF the answer says why
		return err
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	return stream.CloseSend()
}
