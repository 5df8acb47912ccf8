package builder

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Why an audience was not decided.
const (
	reasonAbsent = "absent" // it read something the profile does not have
	reasonFailed = "failed" // of another type, or too costly
)

// metrics of the service. Label sets are closed: the constants of this package and of package profile, and
// HTTP status codes that the API gives.
type metrics struct {
	profiles    prometheus.Counter
	memberships *prometheus.CounterVec // change
	evaluations *prometheus.CounterVec // reason
	commerce    prometheus.Counter
	rejected    prometheus.Counter
	ignored     prometheus.Counter
	unencoded   prometheus.Counter
	capped      *prometheus.CounterVec   // what
	requests    *prometheus.HistogramVec // code
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "weft_builder_" + name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_builder_" + name, Help: help}, []string{label})
	}
	m := &metrics{
		profiles:    counter("profiles_changed_total", "Profiles told on profiles.changed."),
		memberships: vec("memberships_changed_total", "Audiences entered and left.", "change"),
		evaluations: vec("undecided_audiences_total", "Audience conditions that failed for a profile and count as false.", "reason"),
		commerce:    counter("unreadable_commerce_total", "Order and cart events with a part that can not be read."),
		rejected:    counter("rejected_events_total", "Events that can not be read at all."),
		ignored:     counter("ignored_records_total", "Records of kinds that this version does not know."),
		unencoded:   counter("unencoded_changes_total", "Changes that can not be written as JSON, a defect."),
		capped:      vec("capped_profiles_total", "Profiles of which a limit began to leave something out, by what.", "what"),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "weft_builder_request_seconds", Help: "Time to answer a profile request.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5},
		}, []string{"code"}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.profiles, m.memberships, m.evaluations, m.commerce, m.rejected, m.ignored, m.unencoded, m.capped, m.requests} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}
