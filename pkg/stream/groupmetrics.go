package stream

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// groupMetricsOf are those of one group.
type groupMetricsOf struct {
	generation, partitions prometheus.Gauge
	rebalances, lost       prometheus.Counter
}

// groupMetrics are those of all groups that a client's process is in.
type groupMetrics struct {
	generation, partitions *prometheus.GaugeVec
	rebalances, lost       *prometheus.CounterVec
}

func newGroupMetrics(reg prometheus.Registerer) (*groupMetrics, error) {
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weft_stream_group_" + name, Help: help}, []string{"group"})
	}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_stream_group_" + name, Help: help}, []string{"group"})
	}
	m := &groupMetrics{
		generation: gauge("generation", "Generation of the consumer group that this process is in."),
		partitions: gauge("partitions", "Partitions that the group has given to this process."),
		rebalances: counter("rebalances_total", "Generations that this process has joined."),
		lost: counter("lost_seconds_total",
			"Time during which this process had lost its partitions and was not yet back in the group."),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.generation, m.partitions, m.rebalances, m.lost} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *groupMetrics) of(group string) groupMetricsOf {
	return groupMetricsOf{
		generation: m.generation.WithLabelValues(group), partitions: m.partitions.WithLabelValues(group),
		rebalances: m.rebalances.WithLabelValues(group), lost: m.lost.WithLabelValues(group),
	}
}
