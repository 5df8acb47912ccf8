package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/services/weft/audit"
)

// auditWait is how long the stages may take to catch up by default.
const auditWait = 30 * time.Second

func newAuditCommand(a *app) *cobra.Command {
	var since, metrics string
	var wait time.Duration
	var minutes, repair, dry bool
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Check that accepted = stored + rejected + duplicate",
		Long: `Check the conservation law: per source and minute of receipt, every event that was accepted is stored, rejected with a
reason, or a duplicate; and no record was stored twice. Accepted is counted from Kafka, the others from ClickHouse; no
counter of a service is asked. All of what Kafka still holds is read.

Waits up to --wait until the stages have caught up. Minutes for which events are still arriving are shown as open and not
judged. Exit status 0 if it closes, else 1.

--repair first removes what was stored more than once and keeps one row of each, the one that was inserted first; with
--dry-run it only says what would go. It may run while events keep coming, but once at a time.

--metrics writes the result in Prometheus' text format, for node_exporter's textfile collector.`,
		Example: `  weft audit --config weft.yaml
  weft audit --since 24h --minutes
  weft audit --repair --dry-run
  weft audit --since 24h --metrics /var/lib/node_exporter/textfile/audit.prom
  weft audit --since 2026-05-01T00:00:00Z`,
		GroupID: groupTools,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := parseSince(since, time.Now())
			if err != nil {
				return usageError{err}
			}
			cfg, err := a.load()
			if err != nil {
				return err
			}
			if dry && !repair {
				return usageError{errors.New("--dry-run: give --repair, too")}
			}
			run := auditRun{
				Options: audit.Options{Topics: cfg.Topics.Set(), Since: from, Wait: wait}, repair: repair, dry: dry, out: cmd.OutOrStdout(),
			}
			report, err := run.run(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if metrics != "" {
				if err := report.WriteMetrics(metrics, time.Now()); err != nil {
					return err
				}
			}
			if err := report.Print(cmd.OutOrStdout(), minutes); err != nil {
				return err
			}
			if !report.Closes() {
				return errSilent
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&since, "since", "", "judge what was received since then: a time, or a duration back from now (default: all that Kafka holds)")
	f.DurationVar(&wait, "wait", auditWait, "how long the stages may take to catch up")
	f.BoolVar(&minutes, "minutes", false, "show every minute, not only those that do not balance")
	f.BoolVar(&repair, "repair", false, "remove rows that were stored more than once, all but one of each")
	f.BoolVar(&dry, "dry-run", false, "with --repair: only say what would be removed")
	f.StringVar(&metrics, "metrics", "", "write the result to this file, too, in Prometheus' text format")
	return cmd
}

func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--since: want a time such as 2026-05-01T00:00:00Z or a duration such as 24h, found %q", text)
}

// auditRun is one run of the command.
type auditRun struct {
	audit.Options
	repair, dry bool
	out         io.Writer
}

func (r auditRun) run(ctx context.Context, cfg config.Config) (audit.Report, error) {
	ctx, unregister := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer unregister()
	if len(cfg.Kafka.Brokers) == 0 {
		return audit.Report{}, missing("kafka.brokers")
	}
	if len(cfg.ClickHouse.Addresses) == 0 {
		return audit.Report{}, missing("clickhouse.addresses")
	}
	client, err := stream.New(cfg.Kafka, zap.NewNop())
	if err != nil {
		return audit.Report{}, err
	}
	defer client.Close()
	wh, err := warehouse.Open(cfg.ClickHouse)
	if err != nil {
		return audit.Report{}, err
	}
	defer func() { _ = wh.Close() }() // was only read
	if r.repair {
		n, err := audit.Repair(ctx, wh, r.dry, r.out)
		if err != nil {
			return audit.Report{}, err
		}
		if n == 0 {
			fmt.Fprintln(r.out, "nothing was stored more than once")
		}
	}
	return audit.Run(ctx, r.Options, audit.FromStream(client), wh)
}
