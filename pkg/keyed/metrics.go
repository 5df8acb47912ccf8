package keyed

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one stage. The label sets are closed: stages, partitions and the reasons named here.
type metrics struct {
	records  prometheus.Counter
	repeated prometheus.Counter
	batches  prometheus.Counter
	outputs  prometheus.Counter
	moves    prometheus.Counter
	timers   prometheus.Counter
	gone     prometheus.Counter
	refused  *prometheus.CounterVec // reason
	held     *prometheus.CounterVec // partition
	poison   *prometheus.CounterVec // reason
	hot      prometheus.Counter
	lateness prometheus.Histogram
	lag      *prometheus.GaugeVec // partition
	hotShare *prometheus.GaugeVec // partition
	aside    *prometheus.GaugeVec // partition
	stuck    *prometheus.GaugeVec // partition
}

// latenessBuckets are around what a timer may be late: a quarter of a second at the 99th percentile.
var latenessBuckets = []float64{.01, .025, .05, .1, .15, .2, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800}

func newMetrics(reg prometheus.Registerer, stage string, holds prometheus.Collector) (*metrics, error) {
	labels := prometheus.Labels{"stage": stage}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "weft_stage_" + name, Help: help, ConstLabels: labels})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_stage_" + name, Help: help, ConstLabels: labels}, []string{label})
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weft_stage_" + name, Help: help, ConstLabels: labels}, []string{"partition"})
	}
	m := &metrics{
		records:  counter("records_total", "Records of the input that were applied."),
		repeated: counter("repeated_records_total", "Records dropped because their source position had been seen."),
		batches:  counter("batches_total", "Scripts accepted."),
		outputs:  counter("outputs_total", "Outputs published, repetitions after a crash included."),
		moves:    counter("moves_total", "Changes brought home to keys that others were merged into."),
		timers:   counter("timers_total", "Timers fired behind the fence."),
		gone:     counter("gone_total", "Records and changes dropped because their key was split or erased."),
		refused:  vec("refusals_total", "Scripts refused because somebody else had written.", "reason"),
		held:     vec("held_total", "Times a partition was held after an error.", "partition"),
		poison:   vec("poison_total", "What was set aside because the code fails on it: records (on events.rejected), timers, merges.", "reason"),
		hot:      counter("hot_key_windows_total", "Times that one key took a large share of a partition's records; the log names it."),
		lag:      gauge("lag_records", "Records of the input not yet applied."),
		hotShare: gauge("hottest_key_share", "Share of the busiest key in a partition's records of the last window."),
		aside:    gauge("timers_aside", "Keys whose timer panics or waits for a merge that does; they are tried again with growing pauses."),
		stuck:    gauge("merges_stuck", "Keys whose merge into another panics; it is tried again with growing pauses."),
		lateness: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "weft_stage_timer_lateness_seconds", Help: "How long after its time a timer fired.", ConstLabels: labels, Buckets: latenessBuckets,
		}),
	}
	for _, reason := range poisonReasons {
		m.poison.WithLabelValues(reason)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.records, m.repeated, m.batches, m.outputs, m.moves, m.timers, m.gone, m.refused, m.held, m.lag,
		m.poison, m.hot, m.hotShare, m.aside, m.stuck, m.lateness, holds} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}
