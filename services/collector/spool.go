package collector

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/spool"
	"github.com/weft-cdp/weft/pkg/spool/registry"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// SpoolOptions is what the collector's spool is made of, but for what it drains to. It needs Redis, where the fence
// looks; reg may be nil for a spool that is only read.
func SpoolOptions(cfg config.Config, reg spool.Registry, client *stream.Client, log *zap.Logger) spool.Options {
	set := cfg.Topics.Set()
	return spool.Options{
		Dir: cfg.Collector.SpoolDir, MaxBytes: int64(cfg.Collector.SpoolMaxBytes),
		Topics: []string{set.EventsCollected(), set.EventsRejected()}, Partitions: set.Partitions,
		Registry: reg, Producer: client, Refused: refusedFromSpool(cfg, client), Log: log,
	}
}

// openSpool opens the door's spool, or returns nil if there is to be none.
func openSpool(cfg config.Config, deps Deps, reg *registry.Registry) (*spool.Spool, error) {
	if cfg.Collector.SpoolMaxBytes == 0 {
		return nil, nil
	}
	if reg == nil {
		deps.Log.Info("no spool: without redis the fence can not be told of it; while kafka is away events are refused")
		return nil, nil
	}
	opt := SpoolOptions(cfg, reg, deps.Stream, deps.Log.Named("spool"))
	opt.Metrics, opt.Create = deps.Metrics, deps.SpoolFile
	s, err := spool.OpenFree(opt)
	if err != nil {
		return nil, fmt.Errorf("collector.spool_dir: %w", err)
	}
	return s, nil
}

// refusedFromSpool keeps on events.rejected the first bytes of a record that the broker refuses when it is drained,
// because its limit is below ours: the record was acknowledged.
func refusedFromSpool(cfg config.Config, client *stream.Client) func(context.Context, string, int, stream.Record, *stream.RecordError) error {
	set := cfg.Topics.Set()
	return func(ctx context.Context, name string, partition int, r stream.Record, why *stream.RecordError) error {
		kept := r.Value[:min(len(r.Value), maxKeptBytes)]
		if name == set.EventsRejected() {
			if len(kept) == len(r.Value) {
				return why // cannot be made smaller
			}
			r.Value = kept
			return client.Produce(ctx, name, partition, []stream.Record{r})
		}
		meta, err := topic.ParseMeta(r.Headers)
		if err != nil {
			return fmt.Errorf("headers of a spooled record: %w", err)
		}
		in := intake{cfg: cfg.Collector}
		rejected := in.reject(kept, meta, r.Key, &event.Error{Reason: reasonRefused, Detail: why.Error()}, "", place{})
		return client.Produce(ctx, set.EventsRejected(), partition, []stream.Record{rejected.Record})
	}
}

// throughSpool has what Kafka does not take in time spooled, if there is a spool.
func throughSpool(s *spool.Spool, topicIndex int, b *stream.Batcher, cfg config.Collector) sender {
	if s == nil {
		return b
	}
	return s.Sender(topicIndex, b, cfg.SpoolAfter)
}

// closeSpool ends the use of the directory.
func closeSpool(s *spool.Spool, err error) error {
	if s == nil {
		return err
	}
	return errors.Join(err, s.Close())
}
