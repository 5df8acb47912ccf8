package writer

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/weft-cdp/weft/pkg/stream"
)

// metrics of the service. Labels come from closed sets: our topics, our tables, partitions, and the reasons
// named in this package.
type metrics struct {
	rows      *prometheus.CounterVec   // table
	batches   *prometheus.CounterVec   // topic, ended_by
	doubled   *prometheus.CounterVec   // topic
	poisoned  *prometheus.CounterVec   // topic
	panicked  *prometheus.CounterVec   // topic
	commits   *prometheus.CounterVec   // topic, result
	failed    *prometheus.CounterVec   // topic
	seconds   *prometheus.HistogramVec // table
	lag       *prometheus.GaugeVec     // topic, partition
	lagTime   *prometheus.GaugeVec     // topic, partition
	reloads   prometheus.Counter
	reloadErr prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_writer_" + name, Help: help}, labels)
	}
	m := &metrics{
		rows:     counter("rows_total", "Rows confirmed by ClickHouse, repetitions of an insert included.", "table"),
		batches:  counter("batches_total", "Ranges announced, by what ended them.", "topic", "ended_by"),
		doubled:  counter("repeated_records_total", "Records dropped because their source position had been seen.", "topic"),
		poisoned: counter("poison_records_total", "Records that could not be read; they are in events_rejected.", "topic"),
		panicked: counter("record_panics_total", "Records on which the writer's code panicked; they are in events_rejected.", "topic"),
		commits:  counter("commits_total", "Announcements by outcome: done, fenced, unknown.", "topic", "result"),
		failed:   counter("insert_failures_total", "Inserts not confirmed and tried again.", "topic"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "weft_writer_insert_seconds",
			Help: "Time of an insert.", Buckets: prometheus.ExponentialBuckets(0.004, 2, 14)}, []string{"table"}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weft_writer_lag_records",
			Help: "Records not yet acknowledged, as of the last fetch."}, []string{"topic", "partition"}),
		lagTime: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weft_writer_lag_seconds",
			Help: "Time since the partition was last caught up."}, []string{"topic", "partition"}),
		reloads: prometheus.NewCounter(prometheus.CounterOpts{Name: "weft_writer_person_reloads_total",
			Help: "Loads of the dictionary of persons."}),
		reloadErr: prometheus.NewCounter(prometheus.CounterOpts{Name: "weft_writer_person_reload_failures_total",
			Help: "Loads of the dictionary of persons that failed and are tried again."}),
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.rows, m.batches, m.doubled, m.poisoned, m.panicked, m.commits, m.failed,
		m.seconds, m.lag, m.lagTime, m.reloads, m.reloadErr} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register the writer's metrics: %w", err)
	}
	return m, nil
}

// panicLogEvery spaces the log lines about panics on records of one partition: a defect that strikes every
// record must not write a stack for each. The counter counts all of them.
const panicLogEvery = 10 * time.Second

// panics counts records of a topic on which the code panics, and now and then logs one with its stack.
func (m *metrics) panics(topicName string, log *zap.Logger) func(r *stream.Record, v any) {
	rare := log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(c, panicLogEvery, 1, 0)
	}))
	return func(r *stream.Record, v any) {
		m.panicked.WithLabelValues(topicName).Inc()
		if line := rare.Check(zap.ErrorLevel, "record panicked, it is set aside in events_rejected"); line != nil {
			line.Write(zap.Int64("offset", r.Offset), zap.String("panic", fmt.Sprint(v)), zap.ByteString("stack", debug.Stack()))
		}
	}
}

// partitionMetrics is what one owner reports; it also tells Ready how far behind the partition is.
type partitionMetrics struct {
	m       *metrics
	topic   string
	part    string
	now     func() time.Time
	caught  time.Time    // when the partition was last caught up
	behind  atomic.Int64 // records; -1: not known yet
	lag     prometheus.Gauge
	lagTime prometheus.Gauge
}

func (m *metrics) partition(topicName string, partition int, now func() time.Time) *partitionMetrics {
	p := &partitionMetrics{m: m, topic: topicName, part: strconv.Itoa(partition), now: now, caught: now()}
	p.behind.Store(-1)
	p.lag, p.lagTime = m.lag.WithLabelValues(topicName, p.part), m.lagTime.WithLabelValues(topicName, p.part)
	return p
}

// seen notes how far the log goes beyond what is acknowledged.
func (p *partitionMetrics) seen(r *reader) {
	if r.high < 0 {
		return
	}
	n := r.behind()
	p.behind.Store(n)
	p.lag.Set(float64(n))
	if n == 0 {
		p.caught = p.now()
	}
	p.lagTime.Set(p.now().Sub(p.caught).Seconds())
}

// gone takes the partition out of the metrics: it is another's now.
func (p *partitionMetrics) gone() {
	p.m.lag.DeleteLabelValues(p.topic, p.part)
	p.m.lagTime.DeleteLabelValues(p.topic, p.part)
}

func (p *partitionMetrics) batch(endedBy string) { p.m.batches.WithLabelValues(p.topic, endedBy).Inc() }
func (p *partitionMetrics) double()              { p.m.doubled.WithLabelValues(p.topic).Inc() }
func (p *partitionMetrics) insertFailed()        { p.m.failed.WithLabelValues(p.topic).Inc() }
func (p *partitionMetrics) commit(result string) { p.m.commits.WithLabelValues(p.topic, result).Inc() }
