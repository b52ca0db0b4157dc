package suites

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/integration/harness"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/source/web/webtest"
)

// sourced is a node that asks a web server for attestations, besides its folder.
func sourced(t *testing.T, server *webtest.Server) *fixture {
	t.Helper()
	config := filepath.Join(t.TempDir(), "node.yaml")
	text := fmt.Sprintf("sources:\n- {name: web, type: http, url: %q, fresh: 2s, timeout: 2s}\n", server.URL())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return newFixture(t, func(o *setup) { o.node.Config = config })
}

// vouch puts an attestation by authority release on the server.
func (f *fixture) vouch(server *webtest.Server, p harness.Pushed) {
	f.Helper()
	server.Put(image.Digest(p.Digest), []byte(attested(f, f.release, p.Repository, p.Digest)))
}

func TestWhatASourceSaidLastsLongerThanTheSource(t *testing.T) {
	server := webtest.New(t)
	f := sourced(t, server)
	good, evil := f.push(cart+":1", harness.Image{Seed: "good"}), f.push(miner+":1", harness.Image{Seed: "evil"})
	f.vouch(server, good)
	pod := f.pod(shop)
	f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
	f.refused(pod, harness.ContainerConfig{Image: evil.ByDigest()}, "no attestation found")

	server.Down()
	later := f.push(cart+":2", harness.Image{Seed: "later"})
	f.vouch(server, later)
	t.Run("what it said starts, what it did not is refused", func(t *testing.T) {
		f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
		f.refused(pod, harness.ContainerConfig{Image: later.ByDigest()}, "its source failed")
	})
	// Kept answers are written within a moment of being given.
	f.within("the answer is on disk", func() bool {
		files, err := filepath.Glob(filepath.Join(f.node.StateDir, "evidence", "*"))
		return err == nil && len(files) > 0
	})
	for i := range harness.Tries(t, 20) {
		t.Run(fmt.Sprintf("also after kill %d", i+1), func(t *testing.T) {
			if err := f.node.Kill(); err != nil {
				t.Fatal(err)
			}
			f.start()
			// Its signature was verified before the gate registered: the first try counts.
			if _, err := f.create(pod, harness.ContainerConfig{Image: good.ByDigest()}); err != nil {
				t.Errorf("what the source had said is refused: %v", err)
			}
			f.refused(pod, harness.ContainerConfig{Image: later.ByDigest()}, "not attested")
		})
	}
	server.Up()
	t.Run("and when it comes back it is asked again", func(t *testing.T) {
		f.created(pod, harness.ContainerConfig{Image: later.ByDigest()})
	})
	t.Run("what it withdraws is refused once that is known", func(t *testing.T) {
		server.Remove(image.Digest(good.Digest))
		f.eventually("it is refused", func() error {
			_, err := f.create(pod, harness.ContainerConfig{Image: good.ByDigest()})
			if err == nil || !strings.Contains(err.Error(), "no attestation found") {
				return fmt.Errorf("still %w", errors.Join(errNotYet, err))
			}
			return nil
		})
	})
}

// However a source misbehaves, the gate answers at once and lets nothing pass.
func TestASourceThatMisbehavesAdmitsNothingAndHoldsUpNothing(t *testing.T) {
	server := webtest.New(t)
	f := sourced(t, server)
	pod := f.pod(shop)
	folder := f.push(cart+":folder", harness.Image{Seed: "folder"})
	f.attest(folder)
	f.created(pod, harness.ContainerConfig{Image: folder.ByDigest()})
	other := f.push(cart+":other", harness.Image{Seed: "other"})
	var images []harness.Pushed
	truth := []byte(attested(t, f.release, other.Repository, other.Digest))
	for i, tt := range []struct {
		name string
		does webtest.Behaviour
	}{
		{"it hangs", webtest.Hangs()},
		{"it hangs halfway", webtest.HangsHalfway()},
		{"it answers garbage", webtest.Garbage()},
		{"it answers for another image", webtest.Says(truth)},
		{"its signatures are garbage", nil},
		{"it answers without end", webtest.Endless()},
		{"it answers with a bomb", webtest.GzipBomb()},
		{"it answers too late", webtest.Late(4 * time.Second)},
		{"it answers 10,000 times too much", webtest.Repeats(10_000)},
		{"it fails", webtest.Status(500)},
		{"it redirects elsewhere", webtest.Redirects("http://127.0.0.1:1/")},
	} {
		f.sub(tt.name, func(t *testing.T, f *fixture) {
			img := f.push(fmt.Sprintf("%s:bad-%d", cart, i), harness.Image{Seed: fmt.Sprint("bad", i)})
			does := tt.does
			if does == nil {
				does = webtest.Forges(image.Identity{Repository: img.Repository, Digest: image.Digest(img.Digest)}, 300)
			}
			forged := webtest.Object(image.Identity{Repository: img.Repository, Digest: image.Digest(img.Digest)}, 1)
			server.Put(image.Digest(img.Digest), forged) // what is there to be repeated, or told too late
			server.Do(does)
			defer server.Release()
			f.refused(pod, harness.ContainerConfig{Image: img.ByDigest()}, "is not attested")
			for range 5 {
				started := time.Now()
				if _, err := f.create(pod, harness.ContainerConfig{Image: img.ByDigest()}); err == nil {
					t.Fatal("created")
				}
				if took := time.Since(started); took > time.Second {
					t.Errorf("a refusal took %s", took)
				}
			}
			f.created(pod, harness.ContainerConfig{Image: folder.ByDigest()})
			f.vouch(server, img)
			images = append(images, img)
		})
	}
	server.Do(webtest.Honest())
	for _, img := range images { // asked again, and found
		f.created(pod, harness.ContainerConfig{Image: img.ByDigest()})
	}
}

func TestASuccessorWaitsForTheDaemonBeforeIt(t *testing.T) {
	f := newFixture(t, nil)
	good := f.push(cart+":1", harness.Image{Seed: "good"})
	f.attest(good)
	successor, err := f.run.NewNode(harness.NodeOptions{Containerd: f.containerd, DefaultAction: "deny",
		Args: []string{"--state-dir=" + f.node.StateDir, "--policy-dir=" + f.node.PolicyDir}})
	if err != nil {
		t.Fatal(err)
	}
	if err := successor.Launch(); err != nil {
		t.Fatal(err)
	}
	f.within("it says that it waits", func() bool {
		log, err := successor.Log()
		return err == nil && strings.Contains(log, "waiting for it to end")
	})
	pod := f.pod(shop)
	f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
	if err := f.node.Stop(f.ctx); err != nil {
		t.Fatal(err)
	}
	if err := successor.WaitReady(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
}
