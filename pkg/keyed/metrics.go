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
	refused  *prometheus.CounterVec // reason
	held     *prometheus.CounterVec // partition
	lag      *prometheus.GaugeVec   // partition
}

func newMetrics(reg prometheus.Registerer, stage string) (*metrics, error) {
	labels := prometheus.Labels{"stage": stage}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "weft_stage_" + name, Help: help, ConstLabels: labels})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_stage_" + name, Help: help, ConstLabels: labels}, []string{label})
	}
	m := &metrics{
		records:  counter("records_total", "Records of the input that were applied."),
		repeated: counter("repeated_records_total", "Records dropped because their source position had been seen."),
		batches:  counter("batches_total", "Scripts accepted."),
		outputs:  counter("outputs_total", "Outputs published, repetitions after a crash included."),
		moves:    counter("moves_total", "Changes brought home to keys that others were merged into."),
		timers:   counter("timers_total", "Timers fired behind the fence."),
		refused:  vec("refusals_total", "Scripts refused because somebody else had written.", "reason"),
		held:     vec("held_total", "Times a partition was held after an error.", "partition"),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "weft_stage_lag_records", Help: "Records of the input not yet applied.", ConstLabels: labels,
		}, []string{"partition"}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.records, m.repeated, m.batches, m.outputs, m.moves, m.timers, m.refused, m.held, m.lag} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}
