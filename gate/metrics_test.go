package gate

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/horkos/horkos/verifier/policy"
)

func noPolicies() *policy.Snapshot { return policy.Compile() }

// TestThePageOfMetricsNamesThemAllAndNoOther keeps docs/metrics.md in step: a heading a
// metric, with its labels. Those of the webhook alone a test of package webhook looks at.
func TestThePageOfMetricsNamesThemAllAndNoOther(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := NewMetrics(registry, "v1")
	m.Decisions.WithLabelValues("node", "denied", "NotAttested", "enforce").Inc()
	m.Duration.WithLabelValues("node").Observe(1)
	m.InForce("0123456789ab")
	m.Synced.WithLabelValues("cluster")
	m.Lookups.WithLabelValues("folder", "fresh").Inc()
	for _, outcome := range []string{"ok", "empty", "failed", "timeout"} { // those of evidence.Fetcher
		m.Fetched("folder", outcome, time.Second)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, f := range families {
		heading := "## `" + f.GetName()
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
			if slices.Contains([]string{"image", "namespace", "pod", "container", "digest"}, l.GetName()) {
				t.Errorf("%s has label %s", f.GetName(), l.GetName())
			}
		}
		if len(labels) > 0 {
			heading += "{" + strings.Join(labels, ",") + "}"
		}
		want = append(want, heading+"`")
	}
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "## ") && !strings.HasPrefix(line, "## `horkos_webhook_") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the page has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestOneRevisionIsInForce(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := NewMetrics(registry, "v1")
	m.InForce("one")
	m.InForce("two")
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "horkos_policy_revision_info" && (len(f.GetMetric()) != 1 || f.GetMetric()[0].GetLabel()[0].GetValue() != "two") {
			t.Errorf("in force: %v", f.GetMetric())
		}
	}
}
