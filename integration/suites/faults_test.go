package suites

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"

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

// waitInFlight gives a create time to reach the gate. Nothing shows from outside that it
// did: the gate is stopped. A create takes some 20 ms here.
func (f *fixture) waitInFlight() {
	timer := time.NewTimer(300 * time.Millisecond)
	defer timer.Stop()
	<-timer.C
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
	}
	a := attack()
	t.Logf("%d tries to create the unattested image: %d refused by the gate, %d for want of it, the others found no containerd", a.tries, a.denied, a.missing)
	a.failed(t)
}

// attacked is what became of an attack.
type attacked struct {
	tries, created int
	denied         int // by the gate's own word
	missing        int // by the runtime, because the gate was away
}

// failed fails a test whose attack succeeded, or met neither the gate nor its absence.
func (a attacked) failed(t *testing.T) {
	t.Helper()
	if a.created != 0 {
		t.Errorf("%d of %d tries to create the unattested image succeeded", a.created, a.tries)
	}
	if a.denied == 0 || a.missing == 0 {
		t.Errorf("%d tries were refused by the gate and %d for want of it: the attack missed one of the two", a.denied, a.missing)
	}
}

// attack creates containers of an image without a pause, until the function returned is
// called, which tells what became of it.
func (f *fixture) attack(pod *harness.Pod, image harness.Pushed) func() attacked {
	ctx, cancel := context.WithCancel(f.ctx)
	done := make(chan attacked, 1)
	go func() {
		var a attacked
		for ctx.Err() == nil {
			a.tries++
			_, err := f.containerd.CRI.CreateContainer(ctx, pod, harness.ContainerConfig{
				Name: fmt.Sprintf("attack-%d", a.tries), Image: image.ByDigest(), ImageRef: image.Config, PullPolicy: harness.PullNever})
			switch {
			case err == nil:
				a.created++
			case strings.Contains(err.Error(), "is not attested"):
				a.denied++
			case strings.Contains(err.Error(), "NRI adjustment"):
				a.missing++
			}
		}
		done <- a
	}()
	return func() attacked {
		cancel()
		return <-done
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
	a := attack()
	slices.Sort(recoveries)
	soon := 0
	for _, r := range recoveries {
		if r <= time.Second {
			soon++
		}
	}
	t.Logf("%d tries to create the unattested image, %d refused by the gate, %d for want of it; after %d kills the attested one was created in %s (median), %s (worst), %d within 1 s",
		a.tries, a.denied, a.missing, len(recoveries), recoveries[len(recoveries)/2].Round(time.Millisecond), recoveries[len(recoveries)-1].Round(time.Millisecond), soon)
	a.failed(t)
	if soon*100 < len(recoveries)*95 {
		t.Errorf("%d of %d recoveries within 1 s, want 95%%", soon, len(recoveries))
	}
	if worst := recoveries[len(recoveries)-1]; worst > 6*time.Second {
		t.Errorf("the slowest recovery took %s, want at most 6 s", worst)
	}
}
