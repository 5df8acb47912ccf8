package collector

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	inlets "github.com/weft-cdp/weft/pkg/inlet"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Preview says what the collector would make of records, by the collector's own code and without Kafka. It is for one
// goroutine.
type Preview struct{ inlet *inlet }

// Outcome is what would become of one record.
type Outcome struct {
	Result string // stored, rejected, or why it is on no topic: skipped, suppressed, dropped
	Key    []byte // on the topic; of stored and rejected ones
	Body   []byte // of a stored one
	Meta   event.Meta
	Time   time.Time // when it happened, as every stage sees it; of a stored one
	Reason string    // of a rejected one, and what is wrong in words
	Error  string
}

// NewPreview compiles a source; its error names every field that is wrong.
func NewPreview(cfg config.Collector, s config.Source, now func() time.Time) (*Preview, error) {
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	in, err := newIntake(cfg, now, m)
	if err != nil {
		return nil, err
	}
	return newPreview(in, s)
}

// newPreview is NewPreview for an intake.
func newPreview(in *intake, s config.Source) (*Preview, error) {
	src, err := newSource(in, s)
	if err != nil {
		return nil, err
	}
	r, err := inlets.New(s.Kafka, nil)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", s.Name, err)
	}
	return &Preview{&inlet{
		source: src, topic: s.Kafka.Topic, reader: r, intake: in, metrics: in.metrics, log: zap.NewNop(), rarely: zap.NewNop(),
		behind: map[int]bool{}, held: map[int]hold{},
	}}, nil
}

// Record makes of a record what the collector would. The error is that it cannot be read now.
func (p *Preview) Record(ctx context.Context, rec stream.Record) (Outcome, error) {
	r, err := p.inlet.guarded(ctx, &rec)
	if err != nil {
		return Outcome{}, err
	}
	o := Outcome{Result: r.left, Key: r.Key, Meta: r.meta, Reason: r.reason}
	switch {
	case r.left != "":
	case r.reason != "":
		text, _ := topic.Get(r.Headers, topic.HeaderError)
		o.Result, o.Error = "rejected", text
	default:
		e, err := event.Decode(r.Value, r.meta)
		if err != nil {
			return Outcome{}, fmt.Errorf("read the event again: %w", err)
		}
		o.Result, o.Body, o.Time = "stored", r.Value, e.Time
	}
	return o, nil
}
