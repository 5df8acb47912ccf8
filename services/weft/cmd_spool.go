package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/spool"
	"github.com/weft-cdp/weft/pkg/spool/registry"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/services/collector"
)

// spoolTimeout bounds the commands that only talk to Redis.
const spoolTimeout = 10 * time.Second

func newSpoolCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "spool",
		Short: "See to events that collectors keep on disk while Kafka is away",
		Long: `See to the collectors' spools: what Kafka did not take in time is kept below collector.spool_dir of each collector's machine,
and drained by the collector when Kafka is back. While a spool is registered in Redis no timer fires anywhere, because an order
may be in it.`,
		GroupID: groupTools,
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSpoolShowCommand(a), newSpoolDrainCommand(a), newSpoolOverrideCommand(a), newSpoolForgetCommand(a))
	return cmd
}

func newSpoolShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show this machine's spools, and the registrations of all",
		Long: `Show what the spools of this machine hold, and every registration that timers wait for, of whatever machine, and those that
were forgotten. It changes nothing and may be run at any time.`,
		Example: "  weft spool show --config weft.yaml",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			contents, err := spool.Look(cfg.Collector.SpoolDir)
			if err != nil {
				return fmt.Errorf("collector.spool_dir: %w", err)
			}
			if err := printSpools(cmd.OutOrStdout(), cfg.Collector.SpoolDir, contents); err != nil || len(cfg.Redis.Addresses) == 0 {
				return err
			}
			return withRegistry(cmd.Context(), cfg, func(ctx context.Context, reg *registry.Registry) error {
				entries, err := reg.List(ctx)
				if err != nil {
					return err
				}
				forgotten, err := reg.Forgotten(ctx)
				if err != nil {
					return err
				}
				return errors.Join(printRegistrations(cmd.OutOrStdout(), entries), printForgotten(cmd.OutOrStdout(), forgotten))
			})
		},
	}
}

func printSpools(out io.Writer, dir string, contents []spool.Content) error {
	if len(contents) == 0 {
		_, err := fmt.Fprintf(out, "no spool below %s\n", dir)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SPOOL\tIN USE\tBYTES\tWAITING\tNOTE")
	for _, c := range contents {
		waiting, note := "", ""
		for _, name := range sortedKeys(c.Waiting) {
			waiting += fmt.Sprintf("%s %d ", name, c.Waiting[name])
		}
		if waiting == "" {
			waiting = "nothing"
		}
		if c.Damaged+len(c.SetAside) > 0 {
			note = fmt.Sprintf("%d damaged segments: acknowledged events in them do not read any more", c.Damaged+len(c.SetAside))
		}
		fmt.Fprintf(w, "%s\t%t\t%d\t%s\t%s\n", c.Dir, c.InUse, c.Bytes, waiting, note)
	}
	return w.Flush()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func printRegistrations(out io.Writer, entries []registry.Entry) error {
	if len(entries) == 0 {
		_, err := fmt.Fprintln(out, "\nno spool is registered: timers fire")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nREGISTRATION\tMACHINE\tDIRECTORY\tLAST ASSERTED\tTIMERS")
	for _, e := range entries {
		timers := "wait for it"
		if e.Override != nil {
			timers = "do not wait: " + e.Override.Reason
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.ID, e.Host, e.Dir, e.Since.Format(time.RFC3339), timers)
	}
	return w.Flush()
}

// printForgotten says what was given up, and why: the events of it are missing, and somebody may ask.
func printForgotten(out io.Writer, notes map[string]registry.Note) error {
	if len(notes) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nFORGOTTEN\tMACHINE\tDIRECTORY\tAT\tREASON")
	for _, id := range sortedKeys(notes) {
		n := notes[id]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", id, n.Entry.Host, n.Entry.Dir, n.At.Format(time.RFC3339), n.Reason)
	}
	return w.Flush()
}

func newSpoolDrainCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "drain",
		Short: "Hand on what the spools of this machine hold, where no collector runs",
		Long: `Hand what the spools below collector.spool_dir hold to Kafka, and end their registrations. For a machine whose collectors do not
run any more, or for a directory that was brought from another one. Those that a running collector uses are left to it.
Ends when all others are empty; Ctrl-C leaves the rest for the next time.`,
		Example: `  weft spool drain --config weft.yaml
  WEFT_COLLECTOR_SPOOL_DIR=/mnt/of-door-3/spool weft spool drain`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			ctx, unregister := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer unregister()
			return drainSpools(ctx, cfg, cmd.OutOrStdout())
		},
	}
}

func drainSpools(ctx context.Context, cfg config.Config, out io.Writer) error {
	if len(cfg.Kafka.Brokers) == 0 {
		return missing("kafka.brokers")
	}
	if len(cfg.Redis.Addresses) == 0 {
		return missing("redis.addresses")
	}
	contents, err := spool.Look(cfg.Collector.SpoolDir)
	if err != nil {
		return fmt.Errorf("collector.spool_dir: %w", err)
	}
	client, err := stream.New(cfg.Kafka, zap.NewNop())
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	defer client.Close()
	st, err := store.New(cfg.Redis, zap.NewNop())
	if err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	defer func() { _ = st.Close() }() // nothing is in flight
	for _, c := range contents {
		opt := collector.SpoolOptions(cfg, registry.New(st, cfg.Topics.Set()), client, zap.NewNop())
		opt.Dir = c.Dir
		s, err := spool.Open(opt)
		if errors.Is(err, spool.ErrLocked) {
			fmt.Fprintf(out, "%s: in use, its collector drains it\n", c.Dir)
			continue
		}
		if err != nil {
			return err
		}
		n := s.Behind()
		if err := errors.Join(s.DrainAll(ctx), s.Close()); err != nil {
			return fmt.Errorf("%s: %d of %d events are left: %w", c.Dir, s.Behind(), n, err)
		}
		fmt.Fprintf(out, "%s: %d events handed on\n", c.Dir, n)
	}
	return nil
}

func newSpoolOverrideCommand(a *app) *cobra.Command {
	return noteCommand(a, &cobra.Command{
		Use:   "override [REGISTRATION...]",
		Short: "Let timers fire although spools are registered",
		Long: `Let timers fire although these registrations stand (without any: all that there are now). Messages may then go out about
carts that an order in a spool has bought; the receipts of what is decided meanwhile say "unfenced". An override ends with
its registration.`,
		Example: "  weft spool override --reason 'Black Friday'",
	}, (*registry.Registry).Override)
}

func newSpoolForgetCommand(a *app) *cobra.Command {
	return noteCommand(a, &cobra.Command{
		Use:   "forget REGISTRATION...",
		Short: "Give up the registration of a spool that will never be drained",
		Long: `Take away registrations of spools whose machines are gone: the events in them are lost, unless their disks come back and
are drained. Why is kept in Redis. A collector that still runs registers again.`,
		Example: "  weft spool forget --reason 'the disk of door-3 is gone' 5e1f0c3a-7d5c-4f0e-9a41-0f3c1e2d4b5a",
		Args:    args(cobra.MinimumNArgs(1)),
	}, (*registry.Registry).Forget)
}

// noteCommand completes a command by which an operator says something of registrations, and why.
func noteCommand(a *app, cmd *cobra.Command, note func(*registry.Registry, context.Context, registry.Entry, registry.Note) error) *cobra.Command {
	var reason string
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		if reason == "" {
			return usageError{errors.New("--reason: say why")}
		}
		cfg, err := a.load()
		if err != nil {
			return err
		}
		return withRegistry(cmd.Context(), cfg, func(ctx context.Context, reg *registry.Registry) error {
			n := registry.Note{Reason: reason, At: time.Now().UTC()}
			return noteSpools(ctx, reg, ids, cmd, func(e registry.Entry) error { return note(reg, ctx, e, n) })
		})
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; it is kept")
	return cmd
}

func noteSpools(ctx context.Context, reg *registry.Registry, ids []string, cmd *cobra.Command, note func(registry.Entry) error) error {
	entries, err := reg.List(ctx)
	if err != nil {
		return err
	}
	done := map[string]bool{}
	for _, e := range entries {
		if len(ids) > 0 && !slices.Contains(ids, e.ID) {
			continue
		}
		if err := note(e); err != nil {
			return err
		}
		done[e.ID] = true
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s of %s, %s\n", cmd.Name(), e.ID, e.Host, e.Dir)
	}
	for _, id := range ids {
		if !done[id] {
			return fmt.Errorf("no spool is registered as %s; 'weft spool show' lists them", id)
		}
	}
	if len(done) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "no spool is registered")
	}
	return nil
}

func withRegistry(ctx context.Context, cfg config.Config, f func(ctx context.Context, reg *registry.Registry) error) error {
	if len(cfg.Redis.Addresses) == 0 {
		return missing("redis.addresses")
	}
	ctx, cancel := context.WithTimeout(ctx, spoolTimeout)
	defer cancel()
	st, err := store.New(cfg.Redis, zap.NewNop())
	if err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	defer func() { _ = st.Close() }() // nothing is in flight
	return f(ctx, registry.New(st, cfg.Topics.Set()))
}
