package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Register adds what a report says to a registry, as metrics; at is when it ended.
func (r Report) Register(reg prometheus.Registerer, at time.Time) {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weft_audit_" + name, Help: help}, labels)
		reg.MustRegister(g)
		return g
	}
	closes := gauge("closes", "1 if the last audit closed: every minute that is over balances, and nothing was stored twice.").WithLabelValues()
	if r.Closes() {
		closes.Set(1)
	}
	gauge("timestamp_seconds", "When the last audit ended, in Unix time.").WithLabelValues().Set(float64(at.UnixMilli()) / 1000)
	events := gauge("events", "Events that were judged, by what became of them; accepted is the sum of the others.", "brand", "source", "outcome")
	lost := gauge("missing_events", "Accepted events of minutes that are over which are nowhere; negative: more are there than were accepted.", "brand", "source")
	for _, l := range r.Lines {
		if l.Open {
			continue
		}
		for outcome, n := range map[string]uint64{"accepted": l.Accepted, "stored": l.Stored, "rejected": l.Rejected, "duplicate": l.Duplicate} {
			events.WithLabelValues(l.Brand, l.Source, outcome).Add(float64(n))
		}
		lost.WithLabelValues(l.Brand, l.Source).Add(float64(l.Missing()))
	}
	doubles := gauge("double_records", "Records that are stored more than once: at most the twenty that a report names are counted.", "table")
	for _, d := range r.Doubles {
		doubles.WithLabelValues(d.Table).Inc()
	}
	lag := gauge("lag_records", "Records that a stage had not read yet when the audit judged.", "stage", "topic")
	for _, l := range r.Lags {
		lag.WithLabelValues(l.Stage, l.Topic).Set(float64(l.Records))
	}
}

// WriteMetrics writes the report to a file in Prometheus' text format, for node_exporter's textfile collector,
// all at once: who reads it meanwhile sees the one before.
func (r Report) WriteMetrics(file string, at time.Time) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return fmt.Errorf("write the audit's metrics: %w", err)
	}
	reg := prometheus.NewRegistry()
	r.Register(reg, at)
	if err := prometheus.WriteToTextfile(file, reg); err != nil {
		return fmt.Errorf("write the audit's metrics: %w", err)
	}
	return nil
}
