package stitcher

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count decisions as they are made. A batch that is decided again after a crash or a refusal counts
// again; exact numbers are in the topics (see weft audit).
type metrics struct {
	events     prometheus.Counter
	merges     prometheus.Counter
	duplicates *prometheus.CounterVec
	rejected   *prometheus.CounterVec
	ignored    *prometheus.CounterVec
	setAside   *prometheus.CounterVec
	suspended  *prometheus.CounterVec
	devices    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weft_stitcher_events_total", Help: "Events passed on to a profile."}),
		merges: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weft_stitcher_merges_total", Help: "Merges published, repeats included."}),
		duplicates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weft_stitcher_duplicates_total", Help: "Events dropped because their source had sent the message id before."}, []string{"source"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weft_stitcher_rejected_total", Help: "Records that cannot be read, sent to events.rejected."}, []string{"reason"}),
		ignored: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weft_stitcher_identifiers_ignored_total", Help: "Identifiers that name nobody."}, []string{"reason"}),
		setAside: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weft_stitcher_set_aside_total", Help: "Identifiers that an event was resolved without, by type and reason."}, []string{"type", "reason"}),
		suspended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weft_stitcher_suspended_total", Help: "Links that a cap of the governor has stopped, repeats of a pair not included."}, []string{"cap"}),
		devices: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weft_stitcher_devices_total", Help: "Devices that were found to be shared, or whose owner has logged out or in again."}, []string{"state"}),
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.events, m.merges, m.duplicates, m.rejected, m.ignored, m.setAside, m.suspended, m.devices} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}
