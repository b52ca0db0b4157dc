package webhook

import "github.com/prometheus/client_golang/prometheus"

// Metrics are those of the server and of its certificates. No client is in a label.
type Metrics struct {
	connections prometheus.Gauge
	requests    prometheus.Gauge
	refused     *prometheus.CounterVec
	panics      prometheus.Counter
	events      *prometheus.CounterVec

	expiry     prometheus.Gauge
	failing    prometheus.Gauge
	writes     prometheus.Counter
	injections prometheus.Counter
}

// Causes of horkos_webhook_refused_total.
const (
	causeConnections = "connections" // too many
	causeRequests    = "requests"    // too many at once
	causeMemory      = "memory"      // too many bytes at once
	causeTooLarge    = "too_large"   // one body
	causeUnread      = "unread"      // a body that did not come
)

// NewMetrics makes the metrics and registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "horkos_webhook_connections", Help: "Connections to the webhook that are open.",
		}),
		requests: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "horkos_webhook_requests", Help: "Requests to the webhook that are read or answered.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "horkos_webhook_refused_total", Help: "Connections and requests that were refused unread, by cause.",
		}, []string{"cause"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "horkos_webhook_panics_total", Help: "Requests that ended by a panic, and were refused.",
		}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "horkos_webhook_events_total", Help: "Events of the webhook, by outcome: written, failed, or dropped since too many were told.",
		}, []string{"outcome"}),
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "horkos_webhook_certificate_expiry_timestamp_seconds", Help: "When the certificate that is shown expires.",
		}),
		failing: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "horkos_webhook_certificate_failing", Help: "1 while the certificates cannot be kept: read, renewed or made known.",
		}),
		writes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "horkos_webhook_certificate_writes_total", Help: "Times this replica has written the Secret of the certificates.",
		}),
		injections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "horkos_webhook_bundle_writes_total", Help: "Times this replica has given a configuration the bundle.",
		}),
	}
	for _, cause := range []string{causeConnections, causeRequests, causeMemory, causeTooLarge, causeUnread} {
		m.refused.WithLabelValues(cause)
	}
	for _, outcome := range []string{"written", "failed", "dropped"} {
		m.events.WithLabelValues(outcome)
	}
	r.MustRegister(m.connections, m.requests, m.refused, m.panics, m.events, m.expiry, m.failing, m.writes, m.injections)
	return m
}
