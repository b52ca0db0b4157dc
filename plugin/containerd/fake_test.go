package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

const (
	testNamespace = "k8s.io"
	testSandbox   = "sandbox-1"
	testContainer = "container-1"
)

// fake is a containerd as far as this package asks one, on a unix socket.
type fake struct {
	t      *testing.T
	socket string
	server *grpc.Server

	mu          sync.Mutex
	calls       map[string]int // by method, without the service's package
	failing     map[string]error
	held        map[string]chan struct{}
	broken      map[image.Digest]error // blobs that cannot be read
	blobs       map[image.Digest][]byte
	records     map[string]image.Digest
	snapshots   map[string]*snapshotsapi.Info // by snapshotter and key
	containers  map[string]*containersapi.Container
	subscribers map[chan *types.Envelope]struct{}
	pods        []*criapi.PodSandbox
	ended       []string        // containers that have exited
	pinned      map[string]bool // records that are
	contentRoot string          // of the content store on disk; empty: it is not told
	stateDir    string
	handlers    map[string]string
}

func newFake(t *testing.T) *fake {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctd") // t.TempDir is too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	f := &fake{
		t:           t,
		socket:      filepath.Join(dir, "c.sock"),
		calls:       map[string]int{},
		failing:     map[string]error{},
		held:        map[string]chan struct{}{},
		broken:      map[image.Digest]error{},
		blobs:       map[image.Digest][]byte{},
		records:     map[string]image.Digest{},
		snapshots:   map[string]*snapshotsapi.Info{},
		containers:  map[string]*containersapi.Container{},
		subscribers: map[chan *types.Envelope]struct{}{},
		pinned:      map[string]bool{},
		stateDir:    filepath.Join(dir, "state"),
		handlers:    map[string]string{"runc": "", "kata": "devmapper", "lazy": "stargz"},
	}
	f.sandbox(testSandbox, "overlayfs", "", "")
	f.start()
	t.Cleanup(func() { f.stop() })
	return f
}

func (f *fake) start() {
	f.t.Helper()
	listener, err := net.Listen("unix", f.socket)
	if err != nil {
		f.t.Fatal(err)
	}
	server := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			if err := f.called(ctx, info.FullMethod); err != nil {
				return nil, err
			}
			return handle(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			if err := f.called(s.Context(), info.FullMethod); err != nil {
				return err
			}
			return handle(srv, s)
		}))
	imagesapi.RegisterImagesServer(server, fakeImages{fake: f})
	contentapi.RegisterContentServer(server, fakeContent{fake: f})
	snapshotsapi.RegisterSnapshotsServer(server, fakeSnapshots{fake: f})
	containersapi.RegisterContainersServer(server, fakeContainers{fake: f})
	eventsapi.RegisterEventsServer(server, fakeEvents{fake: f})
	introspectionapi.RegisterIntrospectionServer(server, fakeIntrospection{fake: f})
	versionapi.RegisterVersionServer(server, fakeVersion{})
	criapi.RegisterRuntimeServiceServer(server, fakeRuntime{fake: f})
	f.server = server
	go func() { _ = server.Serve(listener) }()
}

func (f *fake) stop() { f.server.Stop() }

// called counts a call, and fails it if it is to fail.
func (f *fake) called(ctx context.Context, method string) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if !slices.Equal(md.Get(namespaceHeader), []string{testNamespace}) {
		return status.Error(codes.InvalidArgument, "no namespace")
	}
	service := method[strings.LastIndex(method[:strings.LastIndex(method, "/")], ".")+1:]
	f.mu.Lock()
	f.calls[service]++
	held, err := f.held[service], f.failing[service]
	f.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
		}
	}
	return err
}

// hold keeps calls waiting until what it returns is called.
func (f *fake) hold(method string) (release func()) {
	held := make(chan struct{})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[method] = held
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.held, method)
		close(held)
	}
}

// counted returns the calls since it was last called.
func (f *fake) counted() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.calls
	f.calls = map[string]int{}
	return out
}

func (f *fake) fail(method string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failing[method] = err
}

// blob stores a blob and returns its digest.
func (f *fake) blob(data []byte) image.Digest {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := image.SHA256(data)
	f.blobs[d] = data
	return d
}

func (f *fake) dropBlob(d image.Digest) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	data := f.blobs[d]
	delete(f.blobs, d)
	return data
}

func (f *fake) json(v any) image.Digest {
	f.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		f.t.Fatal(err)
	}
	return f.blob(data)
}

type object map[string]any

// config stores an image config with one layer a word; note tells twins apart.
func (f *fake) config(note string, layers ...string) image.Digest {
	diffIDs := []image.Digest{}
	for _, l := range layers {
		diffIDs = append(diffIDs, image.SHA256([]byte(l)))
	}
	return f.json(object{
		"architecture": "amd64", "os": "linux", "author": note,
		"config": object{"Entrypoint": []string{"/" + note}, "Cmd": []string{"run"}},
		"rootfs": object{"type": "layers", "diff_ids": diffIDs},
	})
}

func (f *fake) manifest(config image.Digest, layers int, note string) image.Digest {
	list := []object{}
	for i := range layers {
		list = append(list, descriptor("application/vnd.oci.image.layer.v1.tar", image.SHA256(fmt.Append(nil, note, i))))
	}
	return f.json(object{
		"schemaVersion": 2, "mediaType": manifestType, "annotations": object{"note": note},
		"config": descriptor("application/vnd.oci.image.config.v1+json", config), "layers": list,
	})
}

func (f *fake) index(note string, manifests ...image.Digest) image.Digest {
	list := []object{}
	for _, m := range manifests {
		list = append(list, descriptor(manifestType, m))
	}
	return f.json(object{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "annotations": object{"note": note}, "manifests": list})
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

func descriptor(mediaType string, d image.Digest) object {
	return object{"mediaType": mediaType, "digest": d, "size": 1}
}

// chain is the chain ID of layers, made as the OCI specification says.
func chain(layers ...string) image.Digest {
	var id image.Digest
	for i, l := range layers {
		if diff := image.SHA256([]byte(l)); i == 0 {
			id = diff
		} else {
			id = image.SHA256([]byte(id + " " + diff))
		}
	}
	return id
}

// built is an image of one manifest, in an index or not.
type built struct{ index, manifest, config, chain image.Digest }

// hostile stores an index of one image that also lists absent manifests, and, last, the
// image's manifest as what it is not: it has a fault that shows after everything was read.
func (f *fake) hostile(note string, b built, absent int) image.Digest {
	list := []object{descriptor(manifestType, b.manifest)}
	for i := range absent {
		list = append(list, descriptor(manifestType, image.SHA256(fmt.Append(nil, "nowhere", note, i))))
	}
	list = append(list, descriptor("application/vnd.oci.image.index.v1+json", b.manifest))
	return f.json(object{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "annotations": object{"note": note}, "manifests": list})
}

// malformed stores a manifest like that of an image, with a key that is there twice.
func (f *fake) malformed(b built) image.Digest {
	f.mu.Lock()
	data := f.blobs[b.manifest]
	f.mu.Unlock()
	return f.blob(append([]byte(`{"mediatype":"`+manifestType+`",`), data[1:]...))
}

// simple builds an image without an index; note makes its manifest and config its own.
func (f *fake) simple(note string, layers ...string) built {
	b := built{config: f.config(note, layers...), chain: chain(layers...)}
	b.manifest = f.manifest(b.config, len(layers), note)
	return b
}

// multi builds an image in an index that also lists a platform the node does not have.
func (f *fake) multi(note string, layers ...string) built {
	b := f.simple(note, layers...)
	b.index = f.index(note, b.manifest, image.SHA256([]byte("other platform of "+note)))
	return b
}

// record sets an image record without an event.
func (f *fake) record(name string, target image.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records[name] = target
}

// pull records an image as CRI does: tag, digest and image id, each with an event.
func (f *fake) pull(repository, tag string, b built) {
	target := b.index
	if target == "" {
		target = b.manifest
	}
	for _, name := range []string{repository + ":" + tag, repository + "@" + string(target), string(b.config)} {
		f.record(name, target)
		f.publish("/images/create", name)
	}
}

func (f *fake) untag(name string) {
	f.mu.Lock()
	delete(f.records, name)
	f.mu.Unlock()
	f.publish("/images/delete", name)
}

func (f *fake) publish(topic, name string) {
	// The event types have the name in field 1, as this request has.
	event, err := proto.Marshal(&imagesapi.GetImageRequest{Name: name})
	if err != nil {
		f.t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subscribers {
		s <- &types.Envelope{Namespace: testNamespace, Topic: topic, Event: &anypb.Any{Value: event}}
	}
}

func (f *fake) snapshot(snapshotter, key string, parent image.Digest, labels map[string]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.snapshots[snapshotter+" "+key] = &snapshotsapi.Info{Name: key, Parent: string(parent), Labels: labels}
}

func (f *fake) sandbox(id, snapshotter, imageName, spec string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.containers[id] = &containersapi.Container{ID: id, Image: imageName, Snapshotter: snapshotter, SnapshotKey: id,
		Spec: &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: []byte(spec)}}
}

type fakeImages struct {
	imagesapi.UnimplementedImagesServer
	*fake
}

func (f fakeImages) Get(_ context.Context, r *imagesapi.GetImageRequest) (*imagesapi.GetImageResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	target, ok := f.records[r.GetName()]
	if !ok {
		return nil, status.Error(codes.NotFound, "not found")
	}
	return &imagesapi.GetImageResponse{Image: f.imageOf(r.GetName(), target)}, nil
}

func (f fakeImages) List(context.Context, *imagesapi.ListImagesRequest) (*imagesapi.ListImagesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &imagesapi.ListImagesResponse{}
	for _, name := range slices.Sorted(maps.Keys(f.records)) {
		r.Images = append(r.Images, f.imageOf(name, f.records[name]))
	}
	return r, nil
}

// imageOf is a record as it is told; the lock is held.
func (f *fake) imageOf(name string, target image.Digest) *imagesapi.Image {
	i := &imagesapi.Image{Name: name, Target: &types.Descriptor{Digest: string(target)}}
	if f.pinned[name] {
		i.Labels = map[string]string{"io.cri-containerd.pinned": "pinned"}
	}
	return i
}

// pin sets whether a record is pinned, without an event.
func (f *fake) pin(name string, pinned bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pinned[name] = pinned
}

type fakeContent struct {
	contentapi.UnimplementedContentServer
	*fake
}

func (f fakeContent) Read(r *contentapi.ReadContentRequest, s contentapi.Content_ReadServer) error {
	f.mu.Lock()
	data, ok := f.blobs[image.Digest(r.GetDigest())]
	bad := f.broken[image.Digest(r.GetDigest())]
	f.mu.Unlock()
	if bad != nil {
		return bad
	}
	if !ok {
		return status.Error(codes.NotFound, "not found")
	}
	if r.GetSize() > 0 && int64(len(data)) > r.GetSize() {
		data = data[:r.GetSize()]
	}
	for len(data) > 0 {
		n := min(len(data), 100)
		if err := s.Send(&contentapi.ReadContentResponse{Data: data[:n]}); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

type fakeSnapshots struct {
	snapshotsapi.UnimplementedSnapshotsServer
	*fake
}

func (f fakeSnapshots) Stat(_ context.Context, r *snapshotsapi.StatSnapshotRequest) (*snapshotsapi.StatSnapshotResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, ok := f.snapshots[r.GetSnapshotter()+" "+r.GetKey()]
	if !ok {
		return nil, status.Error(codes.NotFound, "not found")
	}
	return &snapshotsapi.StatSnapshotResponse{Info: info}, nil
}

type fakeContainers struct {
	containersapi.UnimplementedContainersServer
	*fake
}

func (f fakeContainers) Get(_ context.Context, r *containersapi.GetContainerRequest) (*containersapi.GetContainerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.containers[r.GetID()]
	if !ok {
		return nil, status.Error(codes.NotFound, "not found")
	}
	return &containersapi.GetContainerResponse{Container: c}, nil
}

func (f fakeContainers) ListStream(_ *containersapi.ListContainersRequest, s containersapi.Containers_ListStreamServer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(f.containers)) {
		if err := s.Send(&containersapi.ListContainerMessage{Container: f.containers[id]}); err != nil {
			return err
		}
	}
	return nil
}

type fakeEvents struct {
	eventsapi.UnimplementedEventsServer
	*fake
}

func (f fakeEvents) Subscribe(r *eventsapi.SubscribeRequest, s eventsapi.Events_SubscribeServer) error {
	if want := `topic~="^/images/",namespace=="k8s.io"`; !slices.Equal(r.GetFilters(), []string{want}) {
		return status.Errorf(codes.InvalidArgument, "filters %q, want %q", r.GetFilters(), want)
	}
	queue := make(chan *types.Envelope, 1<<16)
	f.mu.Lock()
	f.subscribers[queue] = struct{}{}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.subscribers, queue)
		f.mu.Unlock()
	}()
	for {
		select {
		case e := <-queue:
			if err := s.Send(e); err != nil {
				return err
			}
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

type fakeIntrospection struct {
	introspectionapi.UnimplementedIntrospectionServer
	*fake
}

func (f fakeIntrospection) Plugins(_ context.Context, r *introspectionapi.PluginsRequest) (*introspectionapi.PluginsResponse, error) {
	if want := "type==io.containerd.content.v1,id==content"; !slices.Equal(r.GetFilters(), []string{want}) {
		return nil, status.Errorf(codes.InvalidArgument, "filters %q, want %q", r.GetFilters(), want)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return &introspectionapi.PluginsResponse{Plugins: []*introspectionapi.Plugin{
		{Type: "io.containerd.content.v1", ID: "content", Exports: map[string]string{"root": f.contentRoot}},
	}}, nil
}

type fakeVersion struct {
	versionapi.UnimplementedVersionServer
}

func (fakeVersion) Version(context.Context, *emptypb.Empty) (*versionapi.VersionResponse, error) {
	return &versionapi.VersionResponse{Version: "v2.4.2"}, nil
}

type fakeRuntime struct {
	criapi.UnimplementedRuntimeServiceServer
	*fake
}

func (f fakeRuntime) Status(_ context.Context, r *criapi.StatusRequest) (*criapi.StatusResponse, error) {
	if !r.GetVerbose() {
		return &criapi.StatusResponse{}, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	runtimes := object{}
	for name, snapshotter := range f.handlers {
		runtimes[name] = object{"snapshotter": snapshotter, "runtimeType": "io.containerd.runc.v2"}
	}
	config, err := json.Marshal(object{"stateDir": f.stateDir, "containerd": object{"defaultRuntimeName": "runc", "runtimes": runtimes}})
	return &criapi.StatusResponse{Info: map[string]string{"config": string(config)}}, err
}

func (f fakeRuntime) ListPodSandbox(context.Context, *criapi.ListPodSandboxRequest) (*criapi.ListPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &criapi.ListPodSandboxResponse{Items: f.pods}, nil
}

func (f fakeRuntime) ListContainers(_ context.Context, r *criapi.ListContainersRequest) (*criapi.ListContainersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &criapi.ListContainersResponse{}
	if r.GetFilter().GetState().GetState() != criapi.ContainerState_CONTAINER_EXITED {
		return nil, status.Error(codes.InvalidArgument, "the exited ones are wanted")
	}
	for _, id := range f.ended {
		out.Containers = append(out.Containers, &criapi.Container{Id: id, State: criapi.ContainerState_CONTAINER_EXITED})
	}
	return out, nil
}

// dial makes a client of the fake.
func (f *fake) dial() *Client {
	f.t.Helper()
	c, err := Dial(f.socket, testNamespace)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return c
}

// follow runs an index until the test ends, and waits until it is current and subscribed.
func (f *fake) follow(o Options) *Index {
	f.t.Helper()
	ix := NewIndex(f.dial(), o)
	f.run(ix)
	return ix
}

// run is follow for an index that is made already.
func (f *fake) run(ix *Index) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = ix.Run(ctx)
	}()
	f.t.Cleanup(func() { cancel(); <-done })
	f.current(ix)
}

// current waits until the index is current and the fake sends it events.
func (f *fake) current(ix *Index) {
	f.t.Helper()
	eventually(f.t, "the index is current", func() bool {
		f.mu.Lock()
		subscribed := len(f.subscribers) > 0
		f.mu.Unlock()
		return subscribed && ix.Ready()
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// knows waits until the records of names lead somewhere in the index.
func knows(t *testing.T, ix *Index, names ...string) {
	t.Helper()
	eventually(t, "the index knows "+strings.Join(names, ", "), func() bool {
		ix.mu.Lock()
		defer ix.mu.Unlock()
		return !slices.ContainsFunc(names, func(n string) bool { return ix.catalog.named(n) == nil })
	})
}

// claimOf is the claim for a container of an image, with its snapshot in place.
func (f *fake) claimOf(requested string, b built) Claim {
	f.snapshot("overlayfs", testContainer, b.chain, nil)
	digest := b.index
	if digest == "" {
		digest = b.manifest
	}
	return Claim{ContainerID: testContainer, SandboxID: testSandbox, Requested: requested,
		Digest: string(digest), ConfigDigest: string(b.config)}
}

func bindOne(t *testing.T, ix *Index, claim Claim) verifier.Image {
	t.Helper()
	images := ix.Bind(t.Context(), claim)
	if len(images) != 1 {
		t.Fatalf("%d images, want 1: %+v", len(images), images)
	}
	return images[0]
}
