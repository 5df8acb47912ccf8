package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// metrics of a spool. Labels come from closed sets.
type metrics struct {
	spooled prometheus.Counter
	drained prometheus.Counter
	seconds prometheus.Histogram
	refused *prometheus.CounterVec
}

// Reasons why something was not spooled, as labels.
const (
	reasonFull         = "full"
	reasonDisk         = "disk"
	reasonUnregistered = "unregistered"
	reasonClosed       = "closed"
)

// newMetrics makes the metrics of s; nobody sees them if reg is nil.
func newMetrics(reg prometheus.Registerer, s *Spool) (*metrics, error) {
	m := &metrics{
		spooled: prometheus.NewCounter(prometheus.CounterOpts{Name: "weft_spool_records_total",
			Help: "Records acknowledged because they are on this disk, since Kafka did not take them in time."}),
		drained: prometheus.NewCounter(prometheus.CounterOpts{Name: "weft_spool_drained_records_total",
			Help: "Spooled records that Kafka has acknowledged since."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "weft_spool_write_seconds",
			Help: "Time of one write and fsync, which serves all calls that wait.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 15)}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_spool_refused_total",
			Help: "Calls that were not spooled, by reason: full, disk, unregistered, closed."}, []string{"reason"}),
	}
	if reg == nil {
		return m, nil
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return value()
		})
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.spooled, m.drained, m.seconds, m.refused,
		gauge("weft_spool_waiting_records", "Acknowledged records that are on this disk and not in Kafka yet; no timer fires while there are any.",
			func() float64 {
				return float64(s.behind) + float64(s.ofAdopted(func(o *Spool) int64 { return int64(o.behind) }))
			}),
		gauge("weft_spool_bytes", "What the spool takes on the disk.", func() float64 { return float64(s.used()) }),
		gauge("weft_spool_max_bytes", "What it may take.", func() float64 { return float64(s.opt.MaxBytes) }),
		gauge("weft_spool_damaged_segments", "Segments of this machine's spools that hold acknowledged records which do not read any more, those included that are set aside.",
			func() float64 { return float64(s.damaged() + s.ofAdopted((*Spool).damaged) + s.setAsideHere()) }),
	} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

// setAsideHere is how many damaged segments lie on this machine for a person to look at, and to remove. Those in other
// directories count too, for nobody may come who takes that one again.
func (s *Spool) setAsideHere() int64 {
	dirs := []string{s.opt.Dir}
	if s.base != "" {
		dirs = nil
		for i := range maxDirs {
			dirs = append(dirs, filepath.Join(s.base, strconv.Itoa(i)))
		}
	}
	n := 0
	for _, dir := range dirs {
		found, err := setAside(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.opt.Log.Warn("damaged segments of a spool are not counted", zap.Error(err))
		}
		n += len(found)
	}
	return int64(n)
}

// damaged is how many segments have lost something. The lock is held.
func (s *Spool) damaged() int64 {
	n := int64(0)
	for _, g := range s.segments {
		if g.damaged {
			n++
		}
	}
	return n
}

func (m *metrics) wrote(items []*item, took time.Duration) {
	n := 0
	for _, it := range items {
		n += it.count
	}
	m.spooled.Add(float64(n))
	m.seconds.Observe(took.Seconds())
}

func (m *metrics) refuse(err error) {
	reason := reasonClosed
	switch {
	case errors.Is(err, ErrFull):
		reason = reasonFull
	case errors.Is(err, ErrDisk):
		reason = reasonDisk
	case errors.Is(err, ErrUnregistered):
		reason = reasonUnregistered
	}
	m.refused.WithLabelValues(reason).Inc()
}
