package suites

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"golang.org/x/sys/unix"

	"github.com/horkos/horkos/integration/harness"
)

// neverBoth tries the attested and the unattested image once each, and fails the test if
// either is created: while the gate is away nothing is.
func (f *fixture) neverBoth(pod *harness.Pod, when string, images ...harness.Pushed) {
	f.Helper()
	for _, i := range images {
		if id, err := f.create(pod, harness.ContainerConfig{Image: i.ByDigest()}); err == nil {
			f.Fatalf("%s: a container of %s was created (%s)", when, i.ByDigest(), id)
		} else if !strings.Contains(err.Error(), "NRI adjustment") {
			f.Fatalf("%s: not refused by NRI: %v", when, err)
		}
	}
}

// TestAFaultOfTheGateNeverAdmits has each fault strike the gate, at a containerd that
// requires it: the create that meets it and the next ones are refused, and once the gate
// is back attested images run and others do not.
func TestAFaultOfTheGateNeverAdmits(t *testing.T) {
	for _, version := range []string{harness.Containerd24, harness.Containerd22} {
		t.Run("containerd "+version, func(t *testing.T) {
			f := prepare(t, func(o *setup) {
				o.containerd.Version = version
				o.containerd.NRI.RequestTimeout = time.Second
			})
			good, evil := f.push(cart+":1", harness.Image{Seed: "good"}), f.push(miner+":1", harness.Image{Seed: "evil"})
			f.attest(good)
			pod := f.pod(shop)

			f.sub("never connected", func(t *testing.T, f *fixture) {
				f.neverBoth(pod, "before the gate was ever there", evil, good)
			})
			f.start()
			back := func(f *fixture) {
				f.Helper()
				f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
				f.refused(pod, harness.ContainerConfig{Image: evil.ByDigest()}, "no attestation found")
			}
			back(f)

			f.sub("hangs", func(t *testing.T, f *fixture) {
				f.signal(syscall.SIGSTOP)
				f.neverBoth(pod, "while the gate hangs", evil, good, evil)
				f.signal(syscall.SIGCONT)
				back(f)
			})
			f.sub("dies in flight", func(t *testing.T, f *fixture) {
				for _, i := range []harness.Pushed{evil, good} {
					f.signal(syscall.SIGSTOP)
					if n, err := unread(f.node.PID(), f.containerd.NRISocket); err != nil || n != 0 {
						t.Fatalf("before the create %d bytes wait for the gate: %v", n, err)
					}
					done := make(chan error, 1)
					go func() {
						_, err := f.create(pod, harness.ContainerConfig{Image: i.ByDigest()})
						done <- err
					}()
					f.waitInFlight()
					if err := f.node.Kill(); err != nil {
						t.Fatal(err)
					}
					if err := <-done; err == nil {
						t.Fatal("the create in flight was admitted when the gate died")
					}
					f.neverBoth(pod, "after the gate died in flight", evil, good)
					f.start()
					back(f)
				}
			})
			f.sub("idle disconnect", func(t *testing.T, f *fixture) {
				if err := f.node.Kill(); err != nil {
					t.Fatal(err)
				}
				f.neverBoth(pod, "after the gate was killed while idle", evil, good, evil)
				f.start()
				back(f)
			})
		})
	}
}

// waitInFlight waits until the runtime has asked the gate, which is stopped and reads
// nothing: until something waits in the gate's end of the NRI socket.
func (f *fixture) waitInFlight() {
	f.Helper()
	f.within("the runtime has asked the gate", func() bool {
		n, err := unread(f.node.PID(), f.containerd.NRISocket)
		if err != nil {
			f.Fatal(err)
		}
		return n > 0
	})
}

// unread is how many bytes wait for a process in its connections to a unix socket.
func unread(pid int, socket string) (int, error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(process)
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0, fmt.Errorf("list the files of process %d: %w", pid, err)
	}
	total, found := 0, false
	for _, file := range files {
		number, err := strconv.Atoi(file.Name())
		if err != nil {
			return 0, fmt.Errorf("list the files of process %d: %w", pid, err)
		}
		fd, err := unix.PidfdGetfd(process, number, 0)
		if err != nil {
			return 0, fmt.Errorf("take file %d of process %d: %w", number, pid, err)
		}
		peer, err := unix.Getpeername(fd)
		if at, ok := peer.(*unix.SockaddrUnix); err == nil && ok && at.Name == socket {
			n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
			if err != nil {
				unix.Close(fd)
				return 0, fmt.Errorf("ask what waits in file %d of process %d: %w", number, pid, err)
			}
			total, found = total+n, true
		}
		unix.Close(fd)
	}
	if !found {
		return 0, fmt.Errorf("process %d has no connection to %s", pid, socket)
	}
	return total, nil
}

func (f *fixture) signal(s syscall.Signal) {
	f.Helper()
	if err := f.node.Signal(s); err != nil {
		f.Fatal(err)
	}
}

// otherPlugin is another NRI plugin on the node.
type otherPlugin struct {
	slow    time.Duration
	started chan struct{} // told of each CreateContainer
}

func (n *otherPlugin) CreateContainer(ctx context.Context, _ *api.PodSandbox, _ *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	select {
	case n.started <- struct{}{}:
	default:
	}
	timer := time.NewTimer(n.slow)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	adjust := &api.ContainerAdjustment{}
	adjust.AddAnnotation("io.kubernetes.cri.image-name", cart+":1") // a name that lies, after the fact
	return adjust, nil, nil
}

// join registers a neighbour until the test ends.
func (f *fixture) join(index string, n *otherPlugin) {
	f.Helper()
	st, err := stub.New(n, stub.WithPluginName("neighbour"+index), stub.WithPluginIdx(index), stub.WithSocketPath(f.containerd.NRISocket))
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := st.Start(ctx); err != nil {
		cancel()
		f.Fatal(err)
	}
	f.Cleanup(func() { cancel(); st.Stop() })
}

func TestASlowNeighbourChangesNothing(t *testing.T) {
	for _, index := range []string{"10", "50"} {
		t.Run("at index "+index, func(t *testing.T) {
			f := newFixture(t, func(o *setup) { o.containerd.NRI.RequestTimeout = 2 * time.Second })
			good, evil := f.push(cart+":1", harness.Image{Seed: "good"}), f.push(miner+":1", harness.Image{Seed: "evil"})
			f.attest(good)
			pod := f.pod(shop)
			f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
			slow := &otherPlugin{slow: time.Second, started: make(chan struct{}, 1)}
			f.join(index, slow)
			f.refused(pod, harness.ContainerConfig{Image: evil.ByDigest()}, "no attestation found")
			f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})

			f.sub("not even when the gate dies while the neighbour works", func(t *testing.T, f *fixture) {
				drain(slow.started)
				done := make(chan error, 1)
				go func() {
					_, err := f.create(pod, harness.ContainerConfig{Image: evil.ByDigest()})
					done <- err
				}()
				<-slow.started
				if err := f.node.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := <-done; err == nil {
					t.Fatal("an unattested container was created: the gate died while a neighbour worked")
				}
			})
		})
	}
}

func drain(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}

func TestContainerdRestartedDuringCreatesAdmitsNothingUnattested(t *testing.T) {
	f := newFixture(t, nil)
	good, evil := f.push(cart+":1", harness.Image{Seed: "good"}), f.push(miner+":1", harness.Image{Seed: "evil"})
	f.attest(good)
	pod := f.pod(shop)
	f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
	f.refused(pod, harness.ContainerConfig{Image: evil.ByDigest()}, "no attestation found")

	attack := f.attack(pod, evil)
	for range harness.Tries(t, 10) {
		if err := f.containerd.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := f.containerd.Start(f.ctx); err != nil {
			t.Fatal(err)
		}
		f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
		before := attack.denied.Load()
		f.within("the attack meets the gate", func() bool { return attack.denied.Load() > before })
	}
	attack.failed(t)
}

// attack is a stream of creates of an image that must not run.
type attack struct {
	tries, created atomic.Int64
	denied         atomic.Int64 // by the gate's own word
	missing        atomic.Int64 // by the runtime, because the gate was away

	stop func() // and wait for the last one
}

// attack creates containers of an image without a pause, until it is stopped.
func (f *fixture) attack(pod *harness.Pod, image harness.Pushed) *attack {
	ctx, cancel := context.WithCancel(f.ctx)
	done := make(chan struct{})
	a := &attack{stop: func() { cancel(); <-done }}
	f.Cleanup(a.stop)
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, err := f.containerd.CRI.CreateContainer(ctx, pod, harness.ContainerConfig{
				Name: fmt.Sprintf("attack-%d", a.tries.Add(1)), Image: image.ByDigest(), ImageRef: image.Config, PullPolicy: harness.PullNever})
			switch {
			case err == nil:
				a.created.Add(1)
			case strings.Contains(err.Error(), "is not attested"):
				a.denied.Add(1)
			case strings.Contains(err.Error(), "NRI adjustment"):
				a.missing.Add(1)
			}
		}
	}()
	return a
}

// failed stops it, and fails a test whose attack succeeded, or met neither the gate nor its absence.
func (a *attack) failed(t *testing.T) {
	t.Helper()
	a.stop()
	t.Logf("%d tries to create the unattested image, %d refused by the gate, %d for want of it", a.tries.Load(), a.denied.Load(), a.missing.Load())
	if n := a.created.Load(); n != 0 {
		t.Errorf("%d tries to create the unattested image succeeded", n)
	}
	if a.denied.Load() == 0 || a.missing.Load() == 0 {
		t.Error("the attack met the gate, or its absence, not once")
	}
}

func TestAGateKilledDuringAStreamOfCreatesAdmitsNothingUnattestedAndRecovers(t *testing.T) {
	f := newFixture(t, nil)
	good, evil := f.push(cart+":1", harness.Image{Seed: "good"}), f.push(miner+":1", harness.Image{Seed: "evil"})
	f.attest(good)
	pod := f.pod(shop)
	f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
	f.refused(pod, harness.ContainerConfig{Image: evil.ByDigest()}, "no attestation found")

	attack := f.attack(pod, evil)
	var recoveries []time.Duration
	for range harness.Tries(t, 50) {
		if err := f.node.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := f.node.Launch(); err != nil {
			t.Fatal(err)
		}
		restarted := time.Now()
		f.created(pod, harness.ContainerConfig{Image: good.ByDigest(), PullPolicy: harness.PullNever})
		recoveries = append(recoveries, time.Since(restarted))
	}
	attack.failed(t)
	slices.Sort(recoveries)
	soon := 0
	for _, r := range recoveries {
		if r <= time.Second {
			soon++
		}
	}
	t.Logf("after %d kills the attested image was created in %s (median), %s (worst), %d within 1 s",
		len(recoveries), recoveries[len(recoveries)/2].Round(time.Millisecond), recoveries[len(recoveries)-1].Round(time.Millisecond), soon)
	if soon*100 < len(recoveries)*95 {
		t.Errorf("%d of %d recoveries within 1 s, want 95%%", soon, len(recoveries))
	}
	if worst := recoveries[len(recoveries)-1]; worst > 6*time.Second {
		t.Errorf("the slowest recovery took %s, want at most 6 s", worst)
	}
}
