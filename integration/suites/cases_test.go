package suites

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/integration/harness"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/cases"
	"github.com/horkos/horkos/verifier/image"
)

// The digests that stand for images in the table, by what they are. The first two lead to
// one config, and so does the twin.
var (
	symIndex, symManifest, symConfig = symbol("a0"), symbol("a1"), symbol("ac")
	symOther, symOtherConfig         = symbol("b1"), symbol("bc")
	symTwin                          = symbol("d1")
)

func symbol(hex string) string { return "sha256:" + strings.Repeat(hex, 32) }

// The images themselves.
var (
	tableImage = harness.Image{Seed: "a"}
	tableOther = harness.Image{Seed: "b"}
	tableTwin  = harness.Image{Seed: "a", Annotations: map[string]string{"twin": "yes"}}
)

// TestEveryCaseOfTheTableIsDecidedOnTheNodeAsItSays runs the table that Decide and the
// command line run, with real images in place of the digests it names.
func TestEveryCaseOfTheTableIsDecidedOnTheNodeAsItSays(t *testing.T) {
	for _, action := range []string{"deny", "allow"} {
		t.Run("by default "+action, func(t *testing.T) {
			f := prepare(t, func(o *setup) { o.node.DefaultAction = action })
			replace := f.tableImages()
			table, err := cases.Load("../../verifier/testdata/cases", replace)
			if err != nil {
				t.Fatal(err)
			}
			ran := 0
			for _, c := range table {
				if (c.Request.DefaultAction == "allow") != (action == "allow") {
					continue
				}
				if why := notOnANode(c); why != "" {
					t.Logf("not for a node, %s: %s", why, c.Name)
					continue
				}
				ran++
				f.sub(c.Name, func(t *testing.T, f *fixture) { f.decideCase(t, c, action, replace) })
			}
			t.Logf("%d cases ran", ran)
			if least := map[string]int{"deny": 200, "allow": 60}[action]; ran < least {
				t.Errorf("%d cases ran, want %d at least", ran, least)
			}
		})
	}
}

// tableImages finds what the digests of the table are here.
func (f *fixture) tableImages() func(string) string {
	f.Helper()
	index := tableImage
	index.Index = true
	indexed := f.push(cart+":index", index)
	single := f.push(cart+":single", tableImage)
	other := f.push(cart+":other", tableOther)
	twin := f.push("registry.example.com/mirror/cart:1", tableTwin)
	if single.Digest != indexed.Manifest || single.Config != twin.Config || single.Digest == twin.Digest {
		f.Fatalf("the images are not what the table needs: %+v %+v %+v", indexed, single, twin)
	}
	pairs := []string{symIndex, indexed.Digest, symManifest, single.Digest, symConfig, single.Config,
		symOther, other.Digest, symOtherConfig, other.Config, symTwin, twin.Digest}
	for _, text := range pairs { // some cases shout
		pairs = append(pairs, strings.ToUpper(text))
	}
	return strings.NewReplacer(pairs...).Replace
}

// notOnANode says why a case is of gates without a node.
func notOnANode(c cases.Case) string {
	switch {
	case len(c.Cluster) > 0:
		return "it has objects of the cluster"
	case !c.Request.At.IsZero():
		return "it has a time of its own"
	case c.Want.Result == verifier.Unresolved:
		return "it is about what cannot be bound"
	}
	for _, i := range c.Request.Images {
		if len(i.Digests) == 0 && !strings.Contains(i.Name, "@") && !taggedForANode(i.Name) {
			return "it names a tag that was never resolved"
		}
	}
	return ""
}

// taggedForANode tells tags that a node resolves as well as any.
func taggedForANode(name string) bool { return strings.Contains(name, ":") }

func (f *fixture) decideCase(t *testing.T, c cases.Case, action string, replace func(string) string) {
	manifests, err := c.Manifests(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	node, err := f.run.NewNode(harness.NodeOptions{Containerd: f.containerd, DefaultAction: action})
	if err != nil {
		t.Fatal(err)
	}
	if err := node.WritePolicy("case.yaml", replace(string(manifests))); err != nil {
		t.Fatal(err)
	}
	if err := node.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := node.Kill(); err != nil {
			t.Error(err)
		}
	}()
	names := f.pullCase(t, c)
	defer f.removeImages(t, names)

	pod := f.pod(c.Request.Namespace)
	defer func() {
		if err := f.containerd.CRI.RemovePod(f.ctx, pod); err != nil {
			t.Error(err)
		}
	}()
	config := harness.ContainerConfig{Image: names[0], PullPolicy: harness.PullNever}
	for _, volume := range names[1:len(c.Request.Images)] {
		config.Volumes = append(config.Volumes, harness.ImageVolume{Image: volume, Path: "/" + fmt.Sprint(len(config.Volumes)), PullPolicy: harness.PullNever})
	}
	var refusal error
	f.eventually("the case is decided", func() error {
		config.Name = fmt.Sprintf("c-%d", f.serial.Add(1))
		if _, refusal = f.create(pod, config); again(refusal) {
			return refusal
		}
		return nil
	})
	if (refusal == nil) != (c.Want.Result == verifier.Allowed) {
		t.Fatalf("%v, want %s %s", refusal, c.Want.Result, c.Want.Reason)
	}
	records, err := node.Audit()
	if err != nil {
		t.Fatal(err)
	}
	worst, reason := verifier.Allowed, ""
	for _, r := range records {
		var result verifier.Result
		if err := result.UnmarshalText([]byte(r.Result)); err != nil {
			t.Fatal(err)
		}
		if r.Container == config.Name && (reason == "" || result < worst) {
			worst, reason = result, r.Reason
		}
	}
	if worst != c.Want.Result || reason != string(c.Want.Reason) {
		t.Errorf("recorded as %s %s, want %s %s", worst, reason, c.Want.Result, c.Want.Reason)
	}
	if refusal != nil && len(c.Request.Images) == 1 && !strings.Contains(refusal.Error(), c.Want.Message) {
		t.Errorf("refused with %q, want %q in it", refusal, c.Want.Message)
	}
}

// pullCase brings the images of a case and their twins onto the node, and returns the
// names: those of the request first.
func (f *fixture) pullCase(t *testing.T, c cases.Case) []string {
	t.Helper()
	var names, twins []string
	for _, i := range c.Request.Images {
		if image.IsID(i.Name) {
			f.pull(t, cart+"@"+string(i.Digests[len(i.Digests)-1]), i.Digests)
			twins = append(twins, cart+"@"+string(i.Digests[len(i.Digests)-1]))
		} else {
			f.pull(t, i.Name, i.Digests)
		}
		names = append(names, i.Name)
		for _, twin := range i.Twins {
			name := twin.Repository + "@" + string(twin.Digests[0])
			f.pull(t, name, twin.Digests)
			twins = append(twins, name)
		}
	}
	return append(names, twins...)
}

// pull puts the content that the digests stand for under a name, and pulls it.
func (f *fixture) pull(t *testing.T, name string, digests []image.Digest) {
	t.Helper()
	ref, err := image.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	tag := ref.Tag
	if tag == "" {
		tag = "pulled"
	}
	var want string
	if len(digests) > 0 {
		want = string(digests[0])
	}
	var tried []string
	index := tableImage
	index.Index = true
	for _, content := range []harness.Image{tableImage, tableOther, tableTwin, index} {
		pushed := f.push(ref.Repository+":"+tag, content)
		tried = append(tried, pushed.Digest)
		if want == "" || pushed.Digest == want {
			if _, err := f.containerd.CRI.Pull(f.ctx, name); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no image has digest %s: %v", want, tried)
}

// removeImages takes the images of a case off the node, so that the next has no twins of it.
func (f *fixture) removeImages(t *testing.T, names []string) {
	t.Helper()
	slices.Sort(names)
	var errs []error
	for _, name := range slices.Compact(names) {
		errs = append(errs, f.containerd.CRI.RemoveImage(f.ctx, name))
	}
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}
