package commands

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	ended   *prometheus.CounterVec
	running prometheus.Gauge
	held    prometheus.Gauge
	retries prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weft_commands_ended_total", Help: "Commands on identities that have ended, by kind and outcome."}, []string{"kind", "outcome"}),
		running: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weft_commands_running_since_seconds", Help: "Unix time since when a command on identities is carried out by this process; 0: none is."}),
		held: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weft_commands_held_since_seconds", Help: "Unix time since when a command has nothing decided about anybody; 0: none has."}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weft_commands_retries_total", Help: "Attempts to carry out a command that failed and are repeated."}),
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.ended), reg.Register(m.running), reg.Register(m.held), reg.Register(m.retries))
}
