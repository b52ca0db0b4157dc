package main

import (
	"cmp"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/horkos/horkos/objects"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/cases"
)

var update = flag.Bool("update", false, "write the golden files")

// TestTheTreeOfADecisionIsAsItWas holds the trees of the cases in testdata/explain.yaml to
// testdata/explain/*.txt; go test -update writes them anew, to be read before they are kept.
func TestTheTreeOfADecisionIsAsItWas(t *testing.T) {
	source, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	list, err := cases.LoadFile("testdata/explain.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		c := &list[i]
		t.Run(c.Name, func(t *testing.T) {
			manifests, err := c.Manifests(c.Request.At)
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(t.TempDir())
			if err := os.WriteFile("case.yaml", manifests, 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"verify", "--explain", "--policy", "case.yaml", "-n", c.Request.Namespace, "--at", c.Request.At.Format(time.RFC3339),
				"--default-action", cmp.Or(c.Request.DefaultAction, "deny")}
			for _, i := range c.Request.Images {
				args = append(args, i.Name)
			}
			got := program(args...)
			if got.out == "" {
				t.Fatal(got.errors)
			}
			if !strings.Contains(got.out, c.Want.Result.String()+", "+string(c.Want.Reason)) {
				t.Errorf("it is not %s, %s:\n%s", c.Want.Result, c.Want.Reason, got.out)
			}
			fitsColumns(t, got.out)
			golden := filepath.Join(source, "explain", strings.ReplaceAll(c.Name, " ", "-")+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got.out), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || got.out != string(want) {
				t.Errorf("%v: got\n%s\nwant\n%s", err, got.out, want)
			}
		})
	}
}

// fitsColumns allows a wide line for the advice below a tree only.
func fitsColumns(t *testing.T, text string) {
	t.Helper()
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		below := i > 0 && lines[i-1] == ""
		if n := utf8.RuneCountInString(line); n > columns && (!below || strings.HasPrefix(line, "image")) {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// TestTheTreeAddsUpToTheDecision holds the layers as they are drawn to what the verifier
// decided, over the whole table of cases.
func TestTheTreeAddsUpToTheDecision(t *testing.T) {
	table, err := cases.Load("../../verifier/testdata/cases", nil)
	if err != nil {
		t.Fatal(err)
	}
	drawn := 0
	for _, c := range table {
		t.Run(c.Name, func(t *testing.T) {
			at := c.Request.At
			if at.IsZero() {
				at = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
			}
			inline, err := c.Manifests(at)
			if err != nil {
				t.Fatal(err)
			}
			set, err := objects.Load(write1(t, "case.yaml", string(inline)))
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(c.Request.DefaultAction, set)
			for _, i := range c.Request.Images {
				img, err := verifier.AsWritten(i.Name)
				if err != nil {
					continue
				}
				req := &verifier.Request{Namespace: c.Request.Namespace, Time: at, Images: []verifier.Image{img}}
				dec, err := w.decider.Verify(context.Background(), req, w.snap, w.memory)
				if err != nil {
					t.Fatal(err)
				}
				e := explanation{world: w, namespace: c.Request.Namespace, now: at, action: "deny", decision: &dec.Images[0]}
				tree, err := e.tree(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				var b strings.Builder
				if err := draw(&b, tree); err != nil {
					t.Fatal(err)
				}
				fitsColumns(t, b.String())
				if len(tree.under) == 0 {
					continue // no policy was looked at
				}
				if got, decides := addUp(&e); decides && (got.result != dec.Result || got.reason != dec.Reason) {
					t.Errorf("the tree adds up to %s, the decision is %s, %s\n%s", got, dec.Result, dec.Reason, b.String())
				} else if !decides && dec.Reason != verifier.NoPolicy {
					t.Errorf("nothing in the tree decides, the decision is %s, %s\n%s", dec.Result, dec.Reason, b.String())
				}
				drawn++
			}
		})
	}
	if drawn < 350 {
		t.Errorf("only %d trees were drawn", drawn)
	}
}

// addUp is the worst of the layers as they are drawn.
func addUp(e *explanation) (s standing, decides bool) {
	var all []standing
	layers := e.snap.Layers(e.namespace)
	for i := range layers {
		if s, ok := e.layer(&branch{}, &layers[i]); ok {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return s, false
	}
	return combine(all, false), true
}

func TestATreeIsWrappedAndPrintable(t *testing.T) {
	root := &branch{text: "image " + strings.Repeat("x", 200), remarks: []string{"a remark \x1b[31m of " + strings.Repeat("word ", 40)}}
	under := root.add(strings.Repeat("registry.example.com/", 8)+"@sha256:"+strings.Repeat("ab", 32), "deep")
	for range 30 { // deeper than there is room for
		under = under.add("authority "+strings.Repeat("ä", 100), strings.Repeat("€", 100))
	}
	var b strings.Builder
	if err := draw(&b, root); err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(b.String(), "\n") {
		if n := utf8.RuneCountInString(line); n > columns && !strings.Contains(line, strings.Repeat("   ", 20)) {
			t.Errorf("line %d has %d columns: %s", i+1, n, line)
		}
		if strings.ContainsRune(line, 0x1b) {
			t.Errorf("line %d: %q", i+1, line)
		}
	}
}

func TestWrapping(t *testing.T) {
	tests := []struct {
		text  string
		width int
		want  string
	}{
		{"one two three", 20, "one two three"},
		{"one two three four five", 16, "one two three|four five"},
		{"a registry.example.com/shop/cart@sha256:0123456789", 34, "a registry.example.com/shop/cart@|sha256:0123456789"},
		{"abcdefghijklmnopqrstuvwxyz", 16, "abcdefghijklmnop|qrstuvwxyz"},
		{"sixteen letters: abcdefghijklmnopqrstuvwxyz", 16, "sixteen letters:|abcdefghijklmnop|qrstuvwxyz"},
		{"", 16, ""},
	}
	for _, tt := range tests {
		if got := strings.Join(wrap(tt.text, tt.width), "|"); got != tt.want {
			t.Errorf("%q in %d: %q, want %q", tt.text, tt.width, got, tt.want)
		}
	}
}

func TestTheJSONIsTheSameWithAndWithoutExplain(t *testing.T) {
	args := []string{"verify", cart + "@" + digestA, "-n", "shop", "--policy", write1(t, "p.yaml", unmet), "-o", "json", "--at", "2026-11-21T12:00:00Z"}
	if plain, explained := program(args...), program(append(args, "--explain")...); plain.out == "" || plain != explained {
		t.Errorf("got %s\nwant %s", explained.out, plain.out)
	}
}
