package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/daemon"
)

func newUpCommand(a *app) *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run all of Weft in one process, on parts of its own",
		Long: `Run all services in one process. Kafka, Redis and ClickHouse are started on this machine (kfake in the process,
redis-server, libchdb) wherever the configuration names no address, with their data in data_dir, which survives a
restart. Nothing is left running afterwards, however the process ends. No root is needed; 'make deps' fetches what is
missing. Without redis-server an in-memory one is used, and nothing survives.

Where the configuration has no source, no access key or no journey files, some are made and kept in data_dir. When all is
ready, the addresses are printed.`,
		Example: `  weft up
  weft up --config weft.yaml --data-dir /var/lib/weft
  WEFT_KAFKA_BROKERS=localhost:9092 weft up        on a Kafka that is there already`,
		GroupID: groupRun,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dataDir != "" {
				a.setenv(config.EnvName("data_dir"), dataDir)
			}
			cfg, err := a.load(alone)
			if err != nil {
				return err
			}
			if err := completeForOne(&cfg); err != nil {
				return err
			}
			opt := daemon.Options{Config: cfg, Name: "up", Version: version()}
			return daemon.Run(cmd.Context(), opt, func(ctx context.Context, f *daemon.Frame) ([]daemon.Named, error) {
				p, err := newPipeline(ctx, f, cfg)
				if err != nil {
					return nil, err
				}
				return append([]daemon.Named{{Name: "announcement", Service: announcement{f, p, cmd.OutOrStdout()}}}, p.services...), nil
			})
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "where data is kept (data_dir of the configuration)")
	return cmd
}

// announcement prints the addresses once everything is ready.
type announcement struct {
	frame    *daemon.Frame
	pipeline *pipeline
	out      io.Writer
}

// readyPoll is the pause between looks at readiness: what a person does not notice.
const readyPoll = 100 * time.Millisecond

// Run implements daemon.Service.
func (a announcement) Run(ctx context.Context) error {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for a.frame.Ready() != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	if err := a.print(); err != nil {
		return fmt.Errorf("print addresses: %w", err)
	}
	<-ctx.Done()
	return nil
}

func (a announcement) print() error {
	p, cfg := a.pipeline, a.pipeline.cfg
	door := "http://" + cmp.Or(p.addr(nameCollector), cfg.Collector.Listen)
	profiles := "http://" + cmp.Or(p.addr(nameBuilder), cfg.Builder.Listen)
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			_, _ = fmt.Fprintf(w, "  %s\t%s\n", name, value) // Flush tells
		}
	}
	_, _ = fmt.Fprint(w, "\nWeft is up.\n\n")
	for _, s := range cfg.Collector.Sources {
		line("send events", fmt.Sprintf("curl -u %s: -d '{\"type\":\"track\",\"event\":\"Product Viewed\",\"userId\":\"u1\"}' %s/v1/track", s.WriteKey, door))
		break // the others are in the configuration
	}
	line("", "a line of JSON a record into the topic "+cfg.Topics.Set().EventsInbox())
	if len(cfg.Builder.AccessKeys) > 0 {
		line("read a profile", fmt.Sprintf("curl -H 'Authorization: Bearer %s' %s/v1/profiles/user_id/u1", cfg.Builder.AccessKeys[0], profiles))
	}
	if len(cfg.Builder.AdminKeys) > 0 {
		line("who is this, why", fmt.Sprintf("curl -H 'Authorization: Bearer %s' %s/v1/identity/show/user_id/u1", cfg.Builder.AdminKeys[0], profiles))
	}
	line("journeys", absolute(cfg.Activator.Journeys)+" (edit them, no restart needed)")
	line("health, metrics", "http://"+a.frame.AdminAddr()+"/readyz, /metrics")
	line("Kafka", strings.Join(cfg.Kafka.Brokers, ", "))
	line("Redis", strings.Join(cfg.Redis.Addresses, ", "))
	line("ClickHouse", strings.Join(cfg.ClickHouse.Addresses, ", ")+" (native), database "+cfg.ClickHouse.Database)
	if p.parts.ClickHouseHTTPAddr != "" {
		line("", "http://"+p.parts.ClickHouseHTTPAddr+" (HTTP; /play in a browser, as user analyst: read only)")
	}
	line("data", absolute(cfg.DataDir))
	_, _ = fmt.Fprint(w, "\nCtrl-C stops it.\n")
	return w.Flush()
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
