package main

import (
	"context"
	"fmt"
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
	var since string
	var wait time.Duration
	var minutes bool
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Check that accepted = stored + rejected + duplicate",
		Long: `Check the conservation law: per source and minute of receipt, every event that was accepted is stored, rejected with a
reason, or a duplicate; and no record was stored twice. Accepted is counted from Kafka, the others from ClickHouse; no
counter of a service is asked. All of what Kafka still holds is read.

Waits up to --wait until the stages have caught up. Minutes for which events are still arriving are shown as open and not
judged. Exit status 0 if it closes, else 1.`,
		Example: `  weft audit --config weft.yaml
  weft audit --since 24h --minutes
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
			report, err := runAudit(cmd.Context(), cfg, audit.Options{Topics: cfg.Topics.Set(), Since: from, Wait: wait})
			if err != nil {
				return err
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

func runAudit(ctx context.Context, cfg config.Config, opt audit.Options) (audit.Report, error) {
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
	return audit.Run(ctx, opt, audit.FromStream(client), wh)
}
