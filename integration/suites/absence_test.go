package suites

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/horkos/horkos/integration/harness"
)

// TestWhateverHappensToThePoliciesNothingOpens breaks, empties and removes what the gate
// decides by, in a namespace that would be open without it, and again over a restart.
func TestWhateverHappensToThePoliciesNothingOpens(t *testing.T) {
	// Without a policy every namespace is open here, so that a policy lost would show.
	f := newFixture(t, func(o *setup) { o.node.DefaultAction = "allow" })
	good, evil := f.push(cart+":1", harness.Image{Seed: "good"}), f.push(miner+":1", harness.Image{Seed: "evil"})
	whole := authority(shop, "release", f.release) + policy(shop, "release", "release")
	attestation := attested(t, f.release, good.Repository, good.Digest)
	pod, open := f.pod(shop), f.pod("open")

	restore := func(t *testing.T) {
		t.Helper()
		clearFolder(t, f.node.PolicyDir)
		f.policy("policy.yaml", whole)
		f.policy("attested.yaml", attestation)
		f.eventually("the gate is ready again", func() error {
			_, err := f.node.Get(f.ctx, "/readyz")
			return err
		})
		f.created(pod, harness.ContainerConfig{Image: good.ByDigest()})
	}
	file := func(name string) string { return filepath.Join(f.node.PolicyDir, name) }

	for _, c := range []struct {
		name     string
		harm     func(t *testing.T)
		undo     func(t *testing.T)
		notReady bool
		text     string // of the refusal
	}{
		{name: "a file that is broken", text: "cannot be understood", harm: func(t *testing.T) {
			f.policy("policy.yaml", whole+"---\n{broken: [")
		}},
		{name: "a file that is half written", text: "cannot be understood", harm: func(t *testing.T) {
			write(t, file("policy.yaml"), whole[:len(whole)-5]) // within a list: it does not parse
		}},
		{name: "a file that is emptied", text: "cannot be understood", harm: func(t *testing.T) {
			write(t, file("policy.yaml"), "")
		}},
		{name: "a file that holds only comments", text: "cannot be understood", harm: func(t *testing.T) {
			write(t, file("policy.yaml"), "# nothing here\n")
		}},
		{name: "the last file of policies removed", notReady: true, text: "no attestation found", harm: func(t *testing.T) {
			remove(t, file("policy.yaml"))
		}},
		{name: "every file removed", notReady: true, text: "no attestation found", harm: func(t *testing.T) {
			clearFolder(t, f.node.PolicyDir)
		}},
		{name: "the folder removed", notReady: true, text: "no attestation found", harm: func(t *testing.T) {
			if err := os.RemoveAll(f.node.PolicyDir); err != nil {
				t.Fatal(err)
			}
		}, undo: func(t *testing.T) {
			if err := os.Mkdir(f.node.PolicyDir, 0o700); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "an empty file system mounted over the folder", notReady: true, text: "no attestation found", harm: func(t *testing.T) {
			if err := syscall.Mount("tmpfs", f.node.PolicyDir, "tmpfs", 0, "mode=700"); err != nil {
				t.Fatal(err)
			}
		}, undo: func(t *testing.T) {
			if err := syscall.Unmount(f.node.PolicyDir, syscall.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "the folder handed to somebody else", notReady: true, text: "no attestation found", harm: func(t *testing.T) {
			if err := os.Chown(f.node.PolicyDir, 65534, 65534); err != nil {
				t.Fatal(err)
			}
		}, undo: func(t *testing.T) {
			if err := os.Chown(f.node.PolicyDir, 0, 0); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		f.sub(c.name, func(t *testing.T, f *fixture) {
			restore(t)
			c.harm(t)
			check := func(t *testing.T) {
				t.Helper()
				f.eventually("the gate has seen it", func() error {
					if ready, _ := f.ready(); c.notReady && ready {
						return errNotYet
					}
					if _, err := f.create(pod, harness.ContainerConfig{Image: evil.ByDigest()}); err == nil {
						t.Fatal("the unattested image was created")
					} else if !strings.Contains(err.Error(), c.text) {
						return err
					}
					return nil
				})
				if _, err := f.create(open, harness.ContainerConfig{Image: evil.ByDigest()}); err != nil {
					t.Errorf("a namespace that no policy speaks of is refused as well: %v", err)
				}
			}
			check(t)
			f.sub("and over a restart of the daemon", func(t *testing.T, f *fixture) {
				if err := f.node.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := f.node.Launch(); err != nil {
					t.Fatal(err)
				}
				f.refusedFor(pod, evil, c.text, c.notReady)
			})
			if c.undo != nil {
				c.undo(t)
			}
			if alive(f.node) {
				return
			}
			f.start()
		})
	}
}

// refusedFor waits until a daemon that was started again refuses an image with the
// text, or has itself refused to start: both create nothing.
func (f *fixture) refusedFor(pod *harness.Pod, image harness.Pushed, text string, mayStayAway bool) {
	f.Helper()
	f.eventually("the image is refused after the restart", func() error {
		_, err := f.create(pod, harness.ContainerConfig{Image: image.ByDigest()})
		switch {
		case err == nil:
			f.Fatal("the unattested image was created after a restart of the daemon")
		case strings.Contains(err.Error(), text), mayStayAway && !alive(f.node):
			return nil
		}
		return err
	})
}

func alive(n *harness.Node) bool {
	select {
	case <-n.Exited():
		return false
	default:
		return true
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func clearFolder(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		remove(t, filepath.Join(dir, e.Name()))
	}
}

// TestAPolicyFileRewrittenInPlaceThatPausesOpensNothing: what is written until then parses,
// and the policy in the rest of the file is no less in force, also over a restart.
func TestAPolicyFileRewrittenInPlaceThatPausesOpensNothing(t *testing.T) {
	f := newFixture(t, func(o *setup) { o.node.DefaultAction = "allow" })
	evil := f.push(miner+":1", harness.Image{Seed: "evil"})
	first := authority(shop, "release", f.release) + policy(shop, "release", "release")
	rest := authority("bank", "release", f.release) + policy("bank", "release", "release")
	f.inForce("policy.yaml", first+rest)
	bank := f.pod("bank")
	refusedHalfWritten := func(f *fixture) {
		f.Helper()
		f.eventually("the gate says that it is not ready", func() error {
			if ready, body := f.ready(); ready || !strings.Contains(body, "policy.yaml is being rewritten, or lost ") {
				return fmt.Errorf("ready %v: %s", ready, body)
			}
			return nil
		})
		f.refused(bank, harness.ContainerConfig{Image: evil.ByDigest()}, "no attestation found")
	}

	file, err := os.Create(filepath.Join(f.node.PolicyDir, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(first); err != nil {
		t.Fatal(err)
	}
	refusedHalfWritten(f)
	if _, err := file.WriteString("# slowly\n"); err != nil { // however slow this machine is
		t.Fatal(err)
	}
	f.sub("and over a restart of the daemon", func(t *testing.T, f *fixture) {
		if err := f.node.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := f.node.Launch(); err != nil {
			t.Fatal(err)
		}
		refusedHalfWritten(f)
	})
	if _, err := file.WriteString(rest); err != nil {
		t.Fatal(err)
	}
	f.eventually("the whole file is in force, and the gate ready", func() error {
		_, err := f.node.Get(f.ctx, "/readyz")
		return err
	})
	f.refused(bank, harness.ContainerConfig{Image: evil.ByDigest()}, "no attestation found")
}

// TestPoliciesSetToAuditMayGo: the way to stop on purpose.
func TestPoliciesSetToAuditMayGo(t *testing.T) {
	f := newFixture(t, func(o *setup) { o.node.DefaultAction = "allow" })
	evil := f.push(miner+":1", harness.Image{Seed: "evil"})
	pod := f.pod(shop)
	f.refused(pod, harness.ContainerConfig{Image: evil.ByDigest()}, "is not attested")
	f.policy("policy.yaml", authority(shop, "release", f.release)+
		strings.Replace(policy(shop, "release", "release"), "spec: {", "spec: {enforcement: Audit, ", 1))
	f.created(pod, harness.ContainerConfig{Image: evil.ByDigest()})
	remove(t, filepath.Join(f.node.PolicyDir, "policy.yaml"))
	f.eventually("the empty folder is in force, and the gate ready", func() error {
		_, err := f.node.Get(f.ctx, "/readyz")
		return err
	})
	f.created(pod, harness.ContainerConfig{Image: evil.ByDigest()})
}

// TestAnAttestationDropsInWhileRunning: in force within a second, with nothing restarted.
func TestAPolicyIsInForceWithinASecond(t *testing.T) {
	f := newFixture(t, func(o *setup) { o.node.DefaultAction = "allow" })
	evil := f.push(miner+":1", harness.Image{Seed: "evil"})
	pod := f.pod("late")
	f.created(pod, harness.ContainerConfig{Image: evil.ByDigest()})
	before := f.revision()
	f.policy("late.yaml", authority("late", "release", f.release)+policy("late", "release", "release"))
	took := f.within("the new policy is in force", func() bool { return f.revision() != before })
	t.Logf("in force after %s", took)
	if took.Seconds() > 1 {
		t.Errorf("in force after %s, want within a second", took)
	}
	f.refused(pod, harness.ContainerConfig{Image: evil.ByDigest()}, "is not attested")
}
