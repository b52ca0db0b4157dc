package objects

import (
	"context"
	"errors"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/horkos/horkos/crds"
)

// running is a folder that is followed on the real clock.
type running struct {
	*bench
	sets chan crds.Set
}

func startRunning(t *testing.T, b *bench) *running {
	t.Helper()
	folder, _, err := OpenFolder(b.options())
	b.must(err)
	r := &running{bench: b, sets: make(chan crds.Set, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- folder.Run(ctx, func(s crds.Set) { r.sets <- s }) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run did not end with its context")
		}
	})
	return r
}

// inForce waits for a set and tells how long it took; 10 s is for machines that are busy.
func (r *running) inForce(want ...string) time.Duration {
	r.Helper()
	start := time.Now()
	deadline := time.After(10 * time.Second)
	var last crds.Set
	for {
		select {
		case last = <-r.sets:
			if reflect.DeepEqual(brief(last), want) {
				return time.Since(start)
			}
		case <-deadline:
			r.Fatalf("got %q, want %q (%s)", brief(last), want, describe(last))
		}
	}
}

func TestAChangeIsInForceWithinASecond(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", enforcing)
	r := startRunning(t, b)
	within := func(what string, took time.Duration) {
		t.Helper()
		t.Logf("%s: %v", what, took)
		if took > time.Second {
			t.Errorf("%s: in force after %v", what, took)
		}
	}
	r.write("b.yaml", elsewhere)
	within("a file added", r.inForce(isPolicyProd, isPolicyTest))
	r.replace("a.yaml", authority)
	within("a file replaced", r.inForce(isAuthority, isPolicyTest))
	r.remove("a.yaml")
	within("a file removed", r.inForce(isPolicyTest))
	r.must(os.Rename(r.dir, r.dir+".old"))
	within("the folder moved away", r.inForce(isPolicyTest, "stale"))
	r.must(os.Mkdir(r.dir, 0o755))
	r.write("a.yaml", enforcing)
	within("another in its place", r.inForce(isPolicyProd))
	r.write("a.yaml", broken)
	within("a file broken in it", r.inForce("fault of a.yaml in prod"))
	r.must(os.RemoveAll(r.dir))
	within("the folder removed", r.inForce("fault of a.yaml in prod", "stale"))
	r.must(os.Rename(r.dir+".old", r.dir))
	within("the first one back", r.inForce(isPolicyTest))
	r.replace("b.yaml", auditing)
	within("and followed", r.inForce(isPolicyProd))
}

func TestAFileThatIsWrittenAllTheTimeHidesNoOther(t *testing.T) {
	b := newBench(t)
	b.write("a.yaml", enforcing)
	r := startRunning(t, b)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				_ = os.WriteFile(b.path("a.yaml"), []byte(enforcing[:n%len(enforcing)]), 0o644)
			}
		}
	}()
	r.write("b.yaml", elsewhere)
	took := r.inForce(isPolicyProd, isPolicyTest)
	close(stop)
	<-done
	if took > time.Second {
		t.Errorf("in force after %v", took)
	}
}

func TestWithoutReportsOfTheKernelTheFolderIsLookedAtOften(t *testing.T) {
	w := &watch{dir: t.TempDir()}
	if w.renew() {
		t.Error("without a watcher it says that changes are reported")
	}
	w.close()
}
