package suites

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/integration/harness"
	"github.com/horkos/horkos/objects"
)

// TestFollowingOutlivesCutsAndRestartsAndDoesNotGrow: what follows a cluster loses its
// connections again and again, and the API server, whose watches then have expired. Each time a
// change is in force soon after, and neither memory nor goroutines grow.
func TestFollowingOutlivesCutsAndRestartsAndDoesNotGrow(t *testing.T) {
	harness.RequireCluster(t)
	run := harness.New(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	plane, err := run.StartControlPlane(ctx, harness.ControlPlaneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"apply", "-k", "crds/manifests"}, {"wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"}} {
		if _, _, err := plane.Kubectl(ctx, args...); err != nil {
			t.Fatal(err)
		}
	}
	connect := func() apiserver.Clients {
		config, err := apiserver.Config(plane.AdminKubeconfig, "test")
		if err != nil {
			t.Fatal(err)
		}
		clients, err := apiserver.Connect(config)
		if err != nil {
			t.Fatal(err)
		}
		return clients
	}
	clients, admin := connect(), connect()
	defer admin.Close()
	follower, _, err := objects.OpenCluster(objects.ClusterOptions{StateDir: t.TempDir(), Node: "n", MaximumAge: time.Hour, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var inForce atomic.Pointer[crds.Set]
	ended := make(chan error, 2)
	following, stop := context.WithCancel(ctx)
	go func() { ended <- follower.Follow(following, clients) }()
	go func() { ended <- follower.Run(following, func(set crds.Set) { inForce.Store(&set) }) }()
	defer func() {
		stop()
		for range 2 {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("it ended: %v", err)
			}
		}
		clients.Close()
	}()

	revocations := resourceIn(t, admin, "imagerevocations")
	put := func(n int) string {
		t.Helper()
		digest := fmt.Sprintf("sha256:%064x", n)
		var o unstructured.Unstructured
		if err := yaml.Unmarshal([]byte(strings.TrimPrefix(revocation("last", digest), "---\n")), &o.Object); err != nil {
			t.Fatal(err)
		}
		if err := harness.Poll(ctx, "a revocation to be applied", func(ctx context.Context) error {
			_, err := revocations.Apply(ctx, "last", &o, metav1.ApplyOptions{FieldManager: "test", Force: true})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return digest
	}
	seen := func(digest string) time.Duration {
		t.Helper()
		began := time.Now()
		if err := harness.Poll(ctx, "a change to be in force", func(context.Context) error {
			if set := inForce.Load(); set != nil && set.Unknown == nil {
				for _, o := range set.Objects {
					if strings.Contains(string(o.Raw), digest) {
						return nil
					}
				}
			}
			return fmt.Errorf("%+v", follower.Status())
		}); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	// Ten collections take some six goroutines each while they are watched; what one left
	// behind at each cut would be more.
	small := func(when string) {
		t.Helper()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if n := runtime.NumGoroutine(); n > 110 || m.HeapAlloc > 24<<20 {
			var profile strings.Builder
			_ = pprof.Lookup("goroutine").WriteTo(&profile, 1)
			t.Errorf("%s there are %d goroutines and %d bytes\n%s", when, n, m.HeapAlloc, profile.String())
		}
		t.Logf("%s: %d goroutines, %d kB", when, runtime.NumGoroutine(), m.HeapAlloc>>10)
	}
	seen(put(0))
	var worst time.Duration
	cut := func(from, to int) {
		for n := from; n < to; n++ {
			clients.Close()
			worst = max(worst, seen(put(n)))
		}
	}
	cut(1, 21)
	small("after 20 cuts")
	t.Logf("20 cuts; a change was in force after %v at most", worst.Round(time.Millisecond))
	if worst > 5*time.Second {
		t.Errorf("it took %v", worst)
	}
	for n := range 3 {
		if err := plane.APIServer.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := plane.APIServer.Start(ctx); err != nil {
			t.Fatal(err)
		}
		took := seen(put(1000 + n))
		t.Logf("API server killed and back: the next change was in force after %v", took.Round(time.Millisecond))
		if took > 15*time.Second {
			t.Errorf("it took %v", took)
		}
	}
	small("after three restarts")
}

// resourceIn is a collection of horkos.dev.
func resourceIn(t *testing.T, clients apiserver.Clients, plural string) dynamic.NamespaceableResourceInterface {
	t.Helper()
	return clients.Objects.Resource(schema.GroupVersionResource{Group: "horkos.dev", Version: "v1alpha1", Resource: plural})
}
