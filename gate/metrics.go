package gate

import (
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/horkos/horkos/verifier"
)

// Metrics are those of a gate; docs/metrics.md tells each. No image, namespace or pod is in a label.
type Metrics struct {
	Decisions    *prometheus.CounterVec
	Duration     *prometheus.HistogramVec
	Revision     *prometheus.GaugeVec
	Connected    prometheus.Gauge
	Synchronized prometheus.Gauge
	SyncBytes    prometheus.Gauge
	AuditHead    prometheus.Gauge

	Synced          *prometheus.GaugeVec
	Lookups         *prometheus.CounterVec
	Requests        *prometheus.CounterVec
	RequestDuration *prometheus.HistogramVec

	results [verifier.Allowed + 1]atomic.Int64
}

// Count is how often a result was decided since the start.
func (m *Metrics) Count(r verifier.Result) int64 { return m.results[r].Load() }

// NewMetrics makes the metrics and registers them.
func NewMetrics(r prometheus.Registerer, version string) *Metrics {
	m := &Metrics{
		Decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "horkos_decisions_total", Help: "Decisions, by gate, result, reason and what the gate does with them.",
		}, []string{"gate", "result", "reason", "enforcement"}),
		Duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "horkos_decision_duration_seconds", Help: "Time from a request to its answer.",
			Buckets: []float64{50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1},
		}, []string{"gate"}),
		Revision: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "horkos_policy_revision_info", Help: "1 for the revision of the policies in force.",
		}, []string{"revision"}),
		Connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "horkos_nri_connected", Help: "1 while the plugin is registered with the runtime.",
		}),
		Synchronized: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "horkos_nri_synchronized", Help: "1 while the plugin is registered and was told of all that runs.",
		}),
		SyncBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "horkos_sync_bytes", Help: "Bytes that the runtime would send to synchronise the plugin.",
		}),
		AuditHead: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "horkos_audit_head_seq", Help: "Number of the last record of the audit log.",
		}),
	}
	m.Synced = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "horkos_objects_synced_timestamp_seconds", Help: "When what is in force was last known to be what its origin holds.",
	}, []string{"layer"})
	m.Lookups = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "horkos_evidence_lookups_total", Help: "Looks of decisions at what a source is known to hold, by how well it is known.",
	}, []string{"source", "state"})
	m.Requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "horkos_source_requests_total", Help: "Questions put to a source, by how it answered.",
	}, []string{"source", "outcome"})
	m.RequestDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "horkos_source_request_duration_seconds", Help: "Time from a question to the answer of a source.",
		Buckets: []float64{5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 2.5, 5, 10, 30, 60},
	}, []string{"source"})
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "horkos_build_info", Help: "1 for the version that runs.",
	}, []string{"version", "go"})
	goVersion := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		goVersion = info.GoVersion
	}
	build.WithLabelValues(version, goVersion).Set(1)
	r.MustRegister(m.Decisions, m.Duration, m.Revision, m.Connected, m.Synchronized, m.SyncBytes, m.AuditHead, build,
		m.Synced, m.Lookups, m.Requests, m.RequestDuration)
	return m
}

// InForce tells the revision of the policies in force.
func (m *Metrics) InForce(revision string) {
	m.Revision.Reset()
	m.Revision.WithLabelValues(revision).Set(1)
}

// Fetched tells how a source answered a question, and after how long.
func (m *Metrics) Fetched(source, outcome string, took time.Duration) {
	m.Requests.WithLabelValues(source, outcome).Inc()
	m.RequestDuration.WithLabelValues(source).Observe(took.Seconds())
}
