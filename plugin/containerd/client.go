package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/horkos/horkos/verifier/image"
)

const (
	// namespaceHeader carries containerd's namespace on every call.
	namespaceHeader = "containerd-namespace"

	callTimeout = 5 * time.Second
	listTimeout = 30 * time.Second

	// messageSize bounds one answer; listSize is what containerd itself sends at most.
	messageSize = 4 << 20
	listSize    = 16 << 20
)

// Client speaks to one containerd over its unix socket, in one namespace. It survives
// containerd's restarts: calls fail while it is away. Safe for concurrent use.
type Client struct {
	namespace  string
	conn       *grpc.ClientConn
	images     imagesapi.ImagesClient
	content    contentapi.ContentClient
	snapshots  snapshotsapi.SnapshotsClient
	containers containersapi.ContainersClient
	events     eventsapi.EventsClient
	version    versionapi.VersionClient
	runtime    criapi.RuntimeServiceClient
	introspect introspectionapi.IntrospectionClient
}

// Dial makes a client for the unix socket at path. It does not wait for containerd.
func Dial(path, namespace string) (*Client, error) {
	if namespace == "" {
		return nil, errors.New("containerd's namespace must not be empty")
	}
	withNamespace := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, namespaceHeader, namespace)
	}
	conn, err := grpc.NewClient("unix://"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageSize)),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return call(withNamespace(ctx), method, req, reply, cc, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(withNamespace(ctx), desc, cc, method, opts...)
		}))
	if err != nil {
		return nil, fmt.Errorf("dial containerd at %s: %w", path, err)
	}
	return &Client{
		namespace:  namespace,
		conn:       conn,
		images:     imagesapi.NewImagesClient(conn),
		content:    contentapi.NewContentClient(conn),
		snapshots:  snapshotsapi.NewSnapshotsClient(conn),
		containers: containersapi.NewContainersClient(conn),
		events:     eventsapi.NewEventsClient(conn),
		version:    versionapi.NewVersionClient(conn),
		runtime:    criapi.NewRuntimeServiceClient(conn),
		introspect: introspectionapi.NewIntrospectionClient(conn),
	}, nil
}

// Close ends the connection; calls in flight fail.
func (c *Client) Close() error { return c.conn.Close() }

// Version returns the version containerd says it has, as it was built: v2.4.2, or
// 2.4.2+unknown without the v.
func (c *Client) Version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	v, err := c.version.Version(ctx, &emptypb.Empty{})
	if err != nil {
		return "", fmt.Errorf("ask containerd for its version: %w", err)
	}
	return v.GetVersion(), nil
}

// Blob reads a whole blob of the content store, as image.Provider wants it. It does not
// check the hash: image.Resolve does.
func (c *Client) Blob(ctx context.Context, d image.Digest, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// One byte more than allowed is asked for, so that too long shows without reading on.
	stream, err := c.content.Read(ctx, &contentapi.ReadContentRequest{Digest: string(d), Size: limit + 1})
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d, err)
	}
	var blob []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return blob, nil
		}
		if isNotFound(err) {
			return nil, fmt.Errorf("read blob %s: %w in containerd's content store", d, image.ErrNotFound)
		}
		if err != nil {
			return nil, fmt.Errorf("read blob %s: %w", d, err)
		}
		if int64(len(blob)+len(part.GetData())) > limit {
			return nil, fmt.Errorf("read blob %s: %w: over %d bytes", d, errTooLong, limit)
		}
		blob = append(blob, part.GetData()...)
	}
}

// errTooLong says that a blob is there and over its limit: reading it again cannot help.
var errTooLong = errors.New("too long")

// entry is an image record as containerd keeps it.
type entry struct {
	name   string
	target image.Digest
	pinned bool // CRI keeps the image from being collected
}

func entryOf(i *imagesapi.Image) entry {
	return entry{i.GetName(), image.Digest(i.GetTarget().GetDigest()), i.GetLabels()[pinnedLabel] == "pinned"}
}

// pinnedLabel is how CRI labels the images that it keeps: that of the sandboxes.
const pinnedLabel = "io.cri-containerd.pinned"

// record gets the image record of a name; false means there is none.
func (c *Client) record(ctx context.Context, name string) (entry, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := c.images.Get(ctx, &imagesapi.GetImageRequest{Name: name})
	if isNotFound(err) {
		return entry{}, false, nil
	}
	if err != nil {
		return entry{}, false, fmt.Errorf("get image record %q: %w", clip(name), err)
	}
	e := entryOf(r.GetImage())
	e.name = name
	return e, true, nil
}

// list gets all image records.
func (c *Client) list(ctx context.Context) ([]entry, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	r, err := c.images.List(ctx, &imagesapi.ListImagesRequest{}, grpc.MaxCallRecvMsgSize(listSize))
	if err != nil {
		return nil, fmt.Errorf("list image records: %w", err)
	}
	entries := make([]entry, 0, len(r.GetImages()))
	for _, i := range r.GetImages() {
		entries = append(entries, entryOf(i))
	}
	return entries, nil
}

// isNotFound tells "it is not there" from "asking failed".
func isNotFound(err error) bool { return status.Code(err) == codes.NotFound }

// isAway tells "containerd does not answer" from "it cannot read this", such as a blob on
// a bad sector.
func isAway(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return true
	}
	return false
}

// clip shortens what others wrote, for messages.
func clip(s string) string {
	const limit = 128
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "..."
}
