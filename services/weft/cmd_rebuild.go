package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/daemon"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/services/activator"
	stitcher "github.com/weft-cdp/weft/services/identity-stitcher"
	writer "github.com/weft-cdp/weft/services/journey-writer"
	builder "github.com/weft-cdp/weft/services/profile-builder"
	"github.com/weft-cdp/weft/services/weft/rebuild"
)

// rebuildDeps are what a stage is rebuilt with.
type rebuildDeps struct {
	stream    *stream.Client
	store     *store.Client
	warehouse *warehouse.Client // nil: none is configured
	log       *zap.Logger
}

// A rebuilder rebuilds one stage.
type rebuilder func(ctx context.Context, cfg config.Config, d rebuildDeps, opt keyed.RebuildOptions) (keyed.RebuildReport, error)

// rebuilders are the stages that can be rebuilt.
func rebuilders() map[string]rebuilder {
	return map[string]rebuilder{
		topic.StageBuilder: func(ctx context.Context, cfg config.Config, d rebuildDeps, opt keyed.RebuildOptions) (keyed.RebuildReport, error) {
			return builder.Rebuild(ctx, cfg, builder.Deps{Stream: d.stream, Store: d.store, Log: d.log}, opt)
		},
		topic.StageStitcher: func(ctx context.Context, cfg config.Config, d rebuildDeps, opt keyed.RebuildOptions) (keyed.RebuildReport, error) {
			return stitcher.Rebuild(ctx, cfg, stitcher.Deps{Stream: d.stream, Store: d.store, Log: d.log}, opt)
		},
		topic.StageDecide: func(ctx context.Context, cfg config.Config, d rebuildDeps, opt keyed.RebuildOptions) (keyed.RebuildReport, error) {
			return activator.Rebuild(ctx, cfg, activator.Deps{Stream: d.stream, Store: d.store, Log: d.log}, opt)
		},
		topic.StageDeliver: func(ctx context.Context, cfg config.Config, d rebuildDeps, opt keyed.RebuildOptions) (keyed.RebuildReport, error) {
			return activator.RebuildDelivery(ctx, cfg, activator.Deps{Stream: d.stream, Store: d.store, Log: d.log}, opt)
		},
	}
}

// rebuildInput is the topic that a stage reads.
func rebuildInput(set topic.Set, stage string) string {
	switch stage {
	case topic.StageStitcher:
		return set.EventsCollected()
	case topic.StageDeliver:
		return set.ActivationsRequested()
	}
	return set.EventsIdentified()
}

func newRebuildCommand(a *app) *cobra.Command {
	var prefix, from string
	names := slices.Sorted(maps.Keys(rebuilders()))
	cmd := &cobra.Command{
		Use:   "rebuild STAGE",
		Short: "Fold history again for a stage that has lost its state",
		Long: `Rebuild a stage that has stopped because Redis lost what it had acknowledged: empty its slots and fold its history again.
STAGE is one of ` + strings.Join(names, ", ") + `.

Stop every process of the stage first; the command refuses as long as its group has members. The others may run. Nothing is
published: what the stage decides again is compared with what stands in its topics, and only what was never published
waits in its outboxes for the stage's next start. If the command fails or is killed, the stage does not start; run it again.

With --history-prefix the history of another deployment is folded into this one, whose partition count may be another: the
way to more partitions. That deployment must have come to rest: all its records read, none arriving.`,
		Example: `  weft rebuild profile-builder --config weft.yaml
  weft rebuild profile-builder --history-prefix weft. --config wider.yaml`,
		GroupID: groupTools,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			f, ok := rebuilders()[given[0]]
			if !ok {
				return usageError{fmt.Errorf("unknown stage %q; it is one of %s", given[0], strings.Join(names, ", "))}
			}
			if !slices.Contains([]string{rebuild.Auto, rebuild.Kafka, rebuild.ClickHouse}, from) {
				return usageError{fmt.Errorf("--from: want auto, kafka or clickhouse, found %q", from)}
			}
			cfg, err := a.load()
			if err != nil {
				return err
			}
			ctx, unregister := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer unregister()
			return runRebuild(ctx, cfg, given[0], f, prefix, from, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&from, "from", rebuild.Auto, "where history comes from: kafka, clickhouse (as far as it reaches, then Kafka), or auto (Kafka, and ClickHouse where Kafka's retention has cut it)")
	cmd.Flags().StringVar(&prefix, "history-prefix", "", "fold the history of the deployment with this topics.prefix (default: its own)")
	return cmd
}

func runRebuild(ctx context.Context, cfg config.Config, stage string, f rebuilder, prefix, from string, out, errOut io.Writer) error {
	if len(cfg.Kafka.Brokers) == 0 {
		return missing("kafka.brokers")
	}
	if len(cfg.Redis.Addresses) == 0 {
		return missing("redis.addresses")
	}
	log, err := daemon.Logger(cfg.Log, errOut)
	if err != nil {
		return err
	}
	d := rebuildDeps{log: log}
	if d.stream, err = stream.New(cfg.Kafka, d.log); err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	defer d.stream.Close()
	if d.store, err = store.New(cfg.Redis, d.log); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	defer func() { _ = d.store.Close() }() // all that counts was answered
	if len(cfg.ClickHouse.Addresses) > 0 && from != rebuild.Kafka {
		if d.warehouse, err = warehouse.Open(cfg.ClickHouse); err != nil {
			return fmt.Errorf("clickhouse: %w", err)
		}
		defer func() { _ = d.warehouse.Close() }() // was only read
	} else if from == rebuild.ClickHouse {
		return missing("clickhouse.addresses")
	}
	opt, err := rebuildOptions(ctx, cfg, d, stage, prefix, from)
	if err != nil {
		return err
	}
	began, said := time.Now(), time.Now()
	opt.Progress = func(done, total int64) {
		if time.Since(said) >= rebuildWord {
			said = time.Now()
			_, _ = fmt.Fprintf(out, "%s: folded %d of about %d records\n", stage, done, total) // the work counts, not the word
		}
	}
	report, err := f(ctx, cfg, d, opt)
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted: the stage does not start before 'weft rebuild %s' was run again", stage)
	case err != nil:
		return err
	}
	_, err = fmt.Fprintf(out, "%s is rebuilt from %d records in %s. Start it again. Waiting to be published for the first time: %d\n",
		stage, report.Records, time.Since(began).Truncate(time.Millisecond), report.Untold)
	return err
}

// rebuildWord is how often the command tells how far it is.
const rebuildWord = 5 * time.Second

// rebuildOptions find out what there is to fold.
func rebuildOptions(ctx context.Context, cfg config.Config, d rebuildDeps, stage, prefix, from string) (keyed.RebuildOptions, error) {
	opt := keyed.RebuildOptions{From: cfg.Topics.Set()}
	if prefix != "" && prefix != opt.From.Prefix {
		opt.From.Prefix = prefix
		n, err := d.stream.PartitionCount(ctx, opt.From.EventsIdentified())
		if err != nil {
			return opt, fmt.Errorf("--history-prefix: %w", err)
		}
		opt.From.Partitions = n
		if err := atRest(ctx, d, opt.From); err != nil {
			return opt, fmt.Errorf("--history-prefix: %w", err)
		}
	}
	past := &rebuild.Past{Stream: d.stream, Topics: opt.From, From: from}
	if d.warehouse != nil {
		past.Warehouse = d.warehouse
	}
	opt.Past = past
	var err error
	if opt.Ends, err = past.Ends(ctx, rebuildInput(opt.From, stage)); err != nil {
		return opt, err
	}
	opt.Seen, err = writer.Seen(ctx, d.stream, opt.From)
	return opt, err
}

// errNotAtRest means that another deployment still works.
var errNotAtRest = errors.New("that deployment has not come to rest")

// atRest makes sure that a deployment has read all it was sent, and that nobody works on it.
func atRest(ctx context.Context, d rebuildDeps, set topic.Set) error {
	client := d.stream
	for _, stage := range []string{topic.StageStitcher, topic.StageBuilder, topic.StageDecide, topic.StageDeliver} {
		input := rebuildInput(set, stage)
		group := set.Group(stage, input)
		n, err := client.GroupMembers(ctx, group)
		if err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("%w: %s is running: let it read all, then stop it", errNotAtRest, stage)
		}
		ends, err := client.EndOffsets(ctx, input)
		if err != nil {
			return err
		}
		got, err := client.Committed(ctx, group, input)
		if err != nil {
			return err
		}
		for p, end := range ends {
			if got[p].Offset < end {
				return fmt.Errorf("%w: %s has read %d of %d in partition %d of %s: start it without the collector until it has read all", errNotAtRest, stage, got[p].Offset, end, p, input)
			}
		}
		pending, err := keyed.Pending(ctx, d.store, set, stage)
		if err != nil {
			return err
		}
		if pending > 0 {
			return fmt.Errorf("%w: %s has %d outputs to publish: start it once more", errNotAtRest, stage, pending)
		}
	}
	return nil
}
