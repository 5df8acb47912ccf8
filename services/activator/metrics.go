package activator

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the service. Label sets are closed: package journey's outcomes and reasons, its channels, and
// package connector's classes.
type metrics struct {
	armed     prometheus.Counter
	capped    prometheus.Counter
	requested *prometheus.CounterVec // channel
	settled   *prometheus.CounterVec // outcome, reason
	attempts  *prometheus.CounterVec // channel, class
	seconds   *prometheus.HistogramVec
	commerce  prometheus.Counter
	rejected  prometheus.Counter
	ignored   prometheus.Counter
	faults    prometheus.Gauge
	journeys  prometheus.Gauge
	listed    prometheus.Gauge
	reloads   prometheus.Counter
}

// classTaken is the label of an attempt that succeeded, beside connector's classes.
const classTaken = "taken"

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Name: "weft_activator_" + name, Help: help}
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts(opts(name, help)))
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts(opts(name, help)), labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts(opts(name, help)))
	}
	m := &metrics{
		armed:     counter("armed_total", "Carts that a journey began to wait with."),
		capped:    counter("capped_carts_total", "Carts, or parts of them, that a limit has left out of a person's state."),
		requested: vec("requested_total", "Messages decided.", "channel"),
		settled:   vec("settled_total", "Receipts written.", "outcome", "reason"),
		attempts:  vec("delivery_attempts_total", "Attempts to hand a message to its channel, by how they ended.", "channel", "class"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "weft_activator_delivery_seconds", Help: "Time of one attempt to hand a message over.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"channel"}),
		commerce: counter("unreadable_commerce_total", "Order and cart events with a part that can not be read."),
		rejected: counter("rejected_records_total", "Records that can not be read at all."),
		ignored:  counter("ignored_records_total", "Records of kinds that this version does not know."),
		faults:   gauge("journey_faults", "Faults in the journey files as they are now; their last good versions run."),
		journeys: gauge("journeys", "Journeys that arm."),
		listed:   gauge("suppressed_addresses", "Addresses on the suppression list."),
		reloads:  counter("reloads_total", "Times that changed files were taken."),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.armed, m.capped, m.requested, m.settled, m.attempts, m.seconds, m.commerce, m.rejected, m.ignored, m.faults, m.journeys, m.listed, m.reloads,
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// erasedIdentifiers is the gauge of how many identifiers of people who were erased are never written to.
func erasedIdentifiers(count func() int) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weft_activator_erased_identifiers", Help: "Identifiers of people who were erased, who are never written to.",
	}, func() float64 { return float64(count()) })
}

// fenceWait is the gauge of how long the fence has got no further.
func fenceWait(waiting func() (time.Duration, string)) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weft_activator_fence_wait_seconds", Help: "How long the fence has waited at one place; 0 if it does not. Nothing is decided meanwhile.",
	}, func() float64 {
		d, _ := waiting()
		return d.Seconds()
	})
}
