package admission

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/objects"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/cases"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
	source "github.com/horkos/horkos/verifier/source/objects"
)

// TestEveryCaseOfTheTableIsAnsweredByTheWebhookAsItSays runs the table that Decide, the node
// and the command line run, each case as the creation of a pod. What is skipped, by rule,
// only a node can see.
func TestEveryCaseOfTheTableIsAnsweredByTheWebhookAsItSays(t *testing.T) {
	table, err := cases.Load("../../verifier/testdata/cases", nil)
	if err != nil {
		t.Fatal(err)
	}
	ran, left := 0, make(map[string]int)
	for _, c := range table {
		at := c.Request.At
		if at.IsZero() {
			at = noon
		}
		w, manifests := worldOf(t, &c, at)
		if why := c.OnlyOnANode([]byte(manifests)); why != "" {
			left[why]++
			continue
		}
		ran++
		t.Run(c.Name, func(t *testing.T) { answerCase(t, &c, w, at) })
	}
	t.Logf("%d of %d cases ran; not expressed: %v", ran, len(table), left)
	if ran < 400 {
		t.Errorf("only %d cases ran of %d; not expressed: %v", ran, len(table), left)
	}
}

// worldOf is what a case decides by, and its manifests.
func worldOf(t *testing.T, c *cases.Case, at time.Time) (*world, string) {
	t.Helper()
	folder, err := c.Manifests(at)
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := c.ClusterManifests()
	if err != nil {
		t.Fatal(err)
	}
	set := loaded(t, crds.Folder, folder)
	records, _ := source.Records(set.Objects)
	w := &world{snap: policy.Compile(set, loaded(t, crds.Cluster, cluster)), memory: evidence.NewMemory(),
		decider: verifier.Decider{Default: verifier.DefaultAction(c.Request.DefaultAction == "allow"), Sources: []evidence.Question{{Source: "folder"}}}}
	w.memory.Replace("folder", records)
	return w, string(folder) + string(cluster)
}

func loaded(t *testing.T, origin crds.Origin, manifests []byte) crds.Set {
	t.Helper()
	file := filepath.Join(t.TempDir(), "case.yaml")
	if err := os.WriteFile(file, manifests, 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := objects.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	set.Origin = origin
	return set
}

func answerCase(t *testing.T, c *cases.Case, w *world, at time.Time) {
	var names []string
	for _, i := range c.Request.Images {
		names = append(names, i.Name)
	}
	d := newDoor(t, w, func(o *Options) { o.Shell.Now = func() time.Time { return at } })
	o := anObject("Pod", podOf(names...))
	o["metadata"].(m)["namespace"] = c.Request.Namespace
	resp := d.ask(aReview("CREATE", "Pod", nil).with(review{"namespace": c.Request.Namespace, "object": o}))

	// What verify says of the same names.
	req := &verifier.Request{Namespace: c.Request.Namespace, Time: at, Once: true}
	for _, name := range names {
		img, err := verifier.AsWritten(name)
		if err != nil {
			t.Fatal(err)
		}
		req.Images = append(req.Images, img)
	}
	dec, err := w.Verify(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{resp.AuditAnnotations["result"], resp.AuditAnnotations["reason"], fmt.Sprint(resp.Allowed)}
	want := []string{c.Want.Result.String(), string(c.Want.Reason), fmt.Sprint(c.Want.Result == verifier.Allowed)}
	verify := []string{dec.Result.String(), string(dec.Reason), fmt.Sprint(dec.Result == verifier.Allowed)}
	if !slices.Equal(got, want) || !slices.Equal(got, verify) {
		t.Errorf("got %v, want %v, verify says %v\n%+v", got, want, verify, resp.Result)
	}
	if resp.Allowed {
		if !strings.Contains(d.records[0].Message, c.Want.Message) {
			t.Errorf("recorded %q, want %q in it", d.records[0].Message, c.Want.Message)
		}
		return
	}
	if resp.Result.Message != dec.Message() || !strings.Contains(resp.Result.Message, c.Want.Message) {
		t.Errorf("message %q, want %q in it; verify says %q", resp.Result.Message, c.Want.Message, dec.Message())
	}
}
