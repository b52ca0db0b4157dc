package containerd

import (
	"context"
	"fmt"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"google.golang.org/grpc"

	"github.com/horkos/horkos/verifier/image"
)

// Stocked is a containerd of this package's tests with many images, and an index that is
// current with it: for tests of what imports this package.
type Stocked struct {
	*Index
	Sandbox string
	Pause   image.Digest // what the sandbox runs
	fake    *fake
	images  []built
}

// NewStocked makes a containerd with n images and one sandbox.
func NewStocked(t *testing.T, n int) *Stocked {
	f := newFake(t)
	s := &Stocked{Sandbox: testSandbox, fake: f}
	pause := f.multi("pause", "pause")
	s.Pause = pause.config
	f.pull(pauseRef, "3.10", pause)
	f.record(pauseRef, pause.index)
	f.sandbox(testSandbox, "overlayfs", pauseRef, `{"process":{"args":["/pause","run"]}}`)
	f.snapshot("overlayfs", testSandbox, pause.chain, nil)
	for i := range n {
		b := f.multi(fmt.Sprint("app ", i), "base", fmt.Sprint(i))
		f.pull(repositoryOfImage(i), "1", b)
		s.images = append(s.images, b)
	}
	s.Index = f.follow(Options{})
	eventually(t, "the second list is over", f.idle)
	return s
}

func repositoryOfImage(i int) string { return fmt.Sprintf("registry.example.com/shop/app-%05d", i) }

// Identity is that of image i.
func (s *Stocked) Identity(i int) image.Identity {
	return image.Identity{Repository: repositoryOfImage(i), Digest: s.images[i].index}
}

// Container makes a snapshot for a container of image i, and gives the digests that
// containerd 2.4 tells of it.
func (s *Stocked) Container(id string, i int) (digest, config image.Digest) {
	s.fake.snapshot("overlayfs", id, s.images[i].chain, nil)
	return s.images[i].index, s.images[i].config
}

// Calls are those since the last Calls, by method.
func (s *Stocked) Calls() map[string]int { return s.fake.counted() }

// LeaveOutStat answers the snapshots' stat in place, without a call.
func (s *Stocked) LeaveOutStat() {
	s.Index.client.snapshots = statInPlace{s.Index.client.snapshots, fakeSnapshots{fake: s.fake}}
}

type statInPlace struct {
	snapshotsapi.SnapshotsClient
	fake fakeSnapshots
}

func (s statInPlace) Stat(ctx context.Context, r *snapshotsapi.StatSnapshotRequest, _ ...grpc.CallOption) (*snapshotsapi.StatSnapshotResponse, error) {
	return s.fake.Stat(ctx, r)
}
