package webhook

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestThePageOfMetricsNamesThoseOfTheWebhookAndNoOther keeps docs/metrics.md in step, as a
// test of package gate does for those of every gate.
func TestThePageOfMetricsNamesThoseOfTheWebhookAndNoOther(t *testing.T) {
	registry := prometheus.NewRegistry()
	NewMetrics(registry)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	var want, got []string
	for _, f := range families {
		heading := "## `" + f.GetName()
		if labels := f.GetMetric()[0].GetLabel(); len(labels) > 0 {
			heading += "{" + labels[0].GetName() + "}"
		}
		want = append(want, heading+"`")
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !strings.Contains(page, "`"+l.GetValue()+"`") {
					t.Errorf("the page does not tell of %s %s", l.GetName(), l.GetValue())
				}
			}
		}
	}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "## `horkos_webhook_") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	slices.Sort(got)
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("the page has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
