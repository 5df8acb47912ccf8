//go:build integration

package e2e

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"
)

// emptied is when the spool was empty for the first time after the outage.
func (o *outage) emptied() time.Time {
	for _, s := range o.sights {
		if s.at.After(o.answers) && s.waiting == 0 {
			return s.at
		}
	}
	return time.Time{}
}

// draining is how many records were handed on, and in what time, from the first one on.
func (o *outage) draining() (records float64, took time.Duration) {
	var from sight
	for _, s := range o.sights {
		switch {
		case s.at.Before(o.back):
			from = s
		case s.drained == from.drained:
			from.at = s.at // not begun
		case s.waiting == 0:
			return s.drained - from.drained, s.at.Sub(from.at)
		}
	}
	return 0, 0
}

// growth is the most that the collector had resident during the outage and the draining above what it had before, and
// by how much it grew a minute during the outage's second half, by least squares.
func (o *outage) growth() (before, most int64, perMinute float64) {
	var n, sumX, sumY, sumXX, sumXY float64
	half := o.gone.Add(*outageFor / 2)
	for _, s := range o.sights {
		switch {
		case s.at.Before(o.gone):
			before = max(before, s.resident)
		case s.at.Before(o.emptied()):
			most = max(most, s.resident)
		}
		if s.at.After(half) && s.at.Before(o.back) {
			x, y := s.at.Sub(half).Minutes(), float64(s.resident)
			n, sumX, sumY, sumXX, sumXY = n+1, sumX+x, sumY+y, sumXX+x*x, sumXY+x*y
		}
	}
	if d := n*sumXX - sumX*sumX; d > 0 {
		perMinute = (n*sumXY - sumX*sumY) / d
	}
	return before, most, perMinute
}

func (o *outage) mostBytes() (bytes, limit float64) {
	for _, s := range o.sights {
		bytes, limit = max(bytes, s.bytes), s.limit
	}
	return bytes, limit
}

func (o *outage) report() string {
	during := o.load.between(o.gone, o.back)
	before := o.load.between(time.Time{}, o.gone)
	due, sent := latenciesOf(during)
	dueBefore, _ := latenciesOf(before)
	records, took := o.draining()
	resident, most, slope := o.growth()
	bytes, limit := o.mostBytes()
	row := func(what string, ds []time.Duration) []string {
		return []string{what, fmt.Sprintf("%.2f, %.2f, %.2f ms of %d", ms(quantile(ds, 0.5)), ms(quantile(ds, 0.99)), ms(quantile(ds, 1)), len(ds))}
	}
	return fmt.Sprintf("Kafka was killed for %s under %d events/s in calls of %d, and answered again %s later\n", *outageFor, *outageRate, outageCall, o.answers.Sub(o.back).Round(time.Millisecond)) +
		table([]string{"", "p50, p99, max"}, [][]string{
			row("acknowledged before, from when it was due", dueBefore),
			row("acknowledged meanwhile, from when it was due", due),
			row("acknowledged meanwhile, from when it was sent", sent),
			row("append and fsync of a call's bytes meanwhile, by another process", o.fsyncs),
		}) +
		table([]string{"", "measured", "target"}, [][]string{
			{"answers before", fmt.Sprint(statuses(before)), ""},
			{"answers meanwhile", fmt.Sprint(statuses(during)), "200 until the spool is full"},
			{"answers afterwards", fmt.Sprint(statuses(o.load.between(o.back, time.Now()))), ""},
			{"p99 of acknowledgements to that of an fsync", fmt.Sprintf("%.2f", o.latencyRatio()), fmt.Sprint(targetLatency)},
			{"spool at most", fmt.Sprintf("%.0f of %.0f MiB", bytes/(1<<20), limit/(1<<20)), ""},
			{"drained, while the load went on", fmt.Sprintf("%.0f records in %s: %.0f/s", records, took.Round(time.Millisecond), o.drainRate()), ""},
			{"ready batches sent to the same broker", fmt.Sprintf("%.0f records/s", o.floorRecords), ""},
			{"draining to ready batches", fmt.Sprintf("%.2f", o.drainRate()/o.floorRecords), fmt.Sprint(targetDrain)},
			{"collector resident before, and at most until drained", fmt.Sprintf("%d, %d MiB", resident>>20, most>>20), fmt.Sprintf("+%d", targetMemory>>20)},
			{"its slope in the second half of the outage", fmt.Sprintf("%+.1f MiB a minute", slope/(1<<20)), "0"},
		})
}

func (o *outage) latencyRatio() float64 {
	due, _ := latenciesOf(o.load.between(o.gone, o.back))
	return float64(quantile(due, 0.99)) / float64(max(quantile(o.fsyncs, 0.99), 1))
}

func (o *outage) drainRate() float64 {
	records, took := o.draining()
	return records / max(took, outageLooks).Seconds()
}

// judge fails the run where a target is missed.
func (o *outage) judge() {
	o.t.Helper()
	before, most, _ := o.growth()
	if r := o.latencyRatio(); r > targetLatency {
		o.t.Errorf("missed: acknowledgements took %.2f times an fsync", r)
	}
	if r := o.drainRate() / o.floorRecords; r < targetDrain {
		o.t.Errorf("missed: draining is %.2f of ready batches", r)
	}
	if most-before > targetMemory {
		o.t.Errorf("missed: the collector grew by %d MiB", (most-before)>>20)
	}
	records, _ := o.draining()
	require.Positive(o.t, records, "nothing was drained: nothing was judged")
}
