package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// metrics counts what goes over the wire. The labels of errors are the classes, a closed set.
type metrics struct {
	trips    prometheus.Counter
	commands prometheus.Counter
	seconds  prometheus.Histogram
	errors   *prometheus.CounterVec // class
}

var _ redis.Hook = (*metrics)(nil)

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		trips:    prometheus.NewCounter(prometheus.CounterOpts{Name: "weft_store_round_trips_total", Help: "Requests to Redis that were waited for, one per node."}),
		commands: prometheus.NewCounter(prometheus.CounterOpts{Name: "weft_store_commands_total", Help: "Commands sent to Redis."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "weft_store_round_trip_seconds", Help: "Time of a round trip to Redis.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .5, 2.5},
		}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_store_errors_total", Help: "Commands that Redis answered with an error, or not at all."}, []string{"class"}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.trips, m.commands, m.seconds, m.errors} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// DialHook is part of redis.Hook: connections are not counted.
func (m *metrics) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

// ProcessHook is part of redis.Hook.
func (m *metrics) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "hello" { // go-redis's greeting on a new connection, not ours
			return next(ctx, cmd)
		}
		start := time.Now()
		err := next(ctx, cmd)
		m.trip(start, 1)
		m.failed(err)
		return err
	}
}

// ProcessPipelineHook is part of redis.Hook.
func (m *metrics) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		start := time.Now()
		err := next(ctx, cmds)
		m.trip(start, len(cmds))
		m.failed(err)
		return err
	}
}

func (m *metrics) trip(start time.Time, commands int) {
	m.trips.Inc()
	m.commands.Add(float64(commands))
	m.seconds.Observe(time.Since(start).Seconds())
}

// failed counts an error. A key that is not there is none, nor is a script that Redis wants in full.
func (m *metrics) failed(err error) {
	if err == nil || errors.Is(err, redis.Nil) || redis.HasErrorPrefix(err, "NOSCRIPT") {
		return
	}
	m.errors.WithLabelValues(Class(classified(err))).Inc()
}
