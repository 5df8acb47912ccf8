package collector

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the collector. Labels come from closed sets: configured sources and inlets, endpoint names, status
// codes, reason codes.
type metrics struct {
	requests    *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	refused     *prometheus.CounterVec
	events      *prometheus.CounterVec
	rejected    *prometheus.CounterVec
	transformed *prometheus.CounterVec
	violations  *prometheus.CounterVec
	listed      prometheus.Gauge
	inFlight    prometheus.Gauge
	lag         *prometheus.GaugeVec
	down        *prometheus.GaugeVec
	held        *prometheus.GaugeVec
	discarded   *prometheus.CounterVec
	hooks       *prometheus.CounterVec

	taken sync.Map // by endpoint, *taken
}

// taken is the series of an endpoint's answers 200, found once: to look them up costs a tenth of what the door does for a
// small request.
type taken struct {
	requests prometheus.Counter
	seconds  prometheus.Observer
}

// answered counts an answer.
func (m *metrics) answered(endpoint string, status int, after time.Duration) {
	if status != http.StatusOK {
		m.requests.WithLabelValues(endpoint, strconv.Itoa(status)).Inc()
		m.seconds.WithLabelValues(endpoint).Observe(after.Seconds())
		return
	}
	t, ok := m.taken.Load(endpoint)
	if !ok {
		t, _ = m.taken.LoadOrStore(endpoint, &taken{m.requests.WithLabelValues(endpoint, "200"), m.seconds.WithLabelValues(endpoint)})
	}
	if t, ok := t.(*taken); ok {
		t.requests.Inc()
		t.seconds.Observe(after.Seconds())
	}
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_collector_requests_total",
			Help: "HTTP requests by endpoint and status code."}, []string{"endpoint", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "weft_collector_request_seconds",
			Help: "Time to answer, from the first byte of the header.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}, []string{"endpoint"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_collector_refused_requests_total",
			Help: "Requests that a source may not make, whatever is in them, by source and code: disabled, not from this origin, too fast, or that there is no room for (overloaded; without a source, while it is not known who sends)."}, []string{"source", "code"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_collector_events_total",
			Help: "Events answered for, by source and whether they are on events.collected (stored), on events.rejected (rejected), must not be kept (suppressed), were dropped by a transformation (dropped), are no event by the rules of their inlet (skipped), or cannot be one and are not to be kept (discarded)."}, []string{"source", "result"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_collector_rejected_total",
			Help: "Events and requests on events.rejected by source and reason."}, []string{"source", "reason"}),
		transformed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_collector_transformations_total",
			Help: "Events that a transformation dropped, or could not be done with (failed), by source and rule."}, []string{"source", "rule", "result"}),
		violations: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_collector_plan_violations_total",
			Help: "Violations of tracking plans by source, rule and what happens to the event (allow, flag, block)."}, []string{"source", "rule", "action"}),
		listed: prometheus.NewGauge(prometheus.GaugeOpts{Name: "weft_collector_suppressed_people",
			Help: "Identifiers on the suppression list."}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "weft_collector_in_flight_bytes",
			Help: "Request bytes held in memory now."}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weft_collector_inlet_lag_records",
			Help: "Records of an inlet partition that are not passed on yet, as of the last fetch."}, []string{"topic", "partition"}),
		down: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weft_collector_inlet_down",
			Help: "1 if an inlet of this process has stopped for good, for instance behind its topic's retention; else 0."}, []string{"inlet"}),
		held: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weft_collector_inlet_held_partitions",
			Help: "Partitions of an inlet in this process whose next record cannot be read now, because the schema registry does not answer."}, []string{"inlet"}),
		discarded: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_collector_discarded_total",
			Help: "Records of inlets with dead_letter: drop that cannot be events, by source and reason."}, []string{"source", "reason"}),
		hooks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_collector_hooks_total",
			Help: "What became of webhooks, by source: events made of them, items ignored because they are nothing of a customer's, items refused (on events.rejected), and deliveries without a valid signature (unsigned)."}, []string{"source", "result"}),
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.refused, m.events, m.rejected, m.transformed, m.violations, m.listed, m.inFlight, m.lag, m.down, m.held, m.discarded, m.hooks} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register the collector's metrics: %w", err)
	}
	return m, nil
}

// erasedIdentifiers is the gauge of how many identifiers of people who were erased are left out.
func erasedIdentifiers(count func() int) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weft_collector_erased_identifiers", Help: "Identifiers of people who were erased, whose events are counted and not stored.",
	}, func() float64 { return float64(count()) })
}
