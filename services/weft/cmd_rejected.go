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

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/services/collector"
	"github.com/weft-cdp/weft/services/weft/rejected"
)

func newRejectedCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rejected",
		Short: "Work through what was rejected: list, show, repair and replay",
		Long: `Events that cannot be taken are kept on events.rejected with the reason, for as long as topics.retention says. This is the
work list of them: see what there is and why, repair it, and send it in again.`,
		GroupID: groupTools,
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRejectedListCommand(a), newRejectedShowCommand(a), newRejectedReplayCommand(a))
	return cmd
}

// rejectedFlags are the filters that list and replay share.
type rejectedFlags struct {
	filter       rejected.Filter
	since, until string
}

func (o *rejectedFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&o.filter.Reasons, "reason", nil, "only with this reason, such as invalid_json")
	f.StringSliceVar(&o.filter.Sources, "source", nil, "only of this source")
	f.StringSliceVar(&o.filter.Services, "service", nil, "only rejected by this service")
	f.StringVar(&o.filter.Text, "text-in", "", "only with this text in the error or the body, in any letter case")
	f.StringVar(&o.since, "since", "", "only received since then: a time, or a duration back from now")
	f.StringVar(&o.until, "until", "", "only received before then")
}

func (o *rejectedFlags) complete() error {
	now := time.Now()
	var err error
	if o.filter.Since, err = parseSince(o.since, now); err != nil {
		return usageError{err}
	}
	if o.filter.Until, err = parseSince(o.until, now); err != nil {
		return usageError{fmt.Errorf("--until: %w", err)}
	}
	return nil
}

// empty says that nothing is filtered.
func (o *rejectedFlags) empty() bool {
	f := o.filter
	return len(f.Reasons)+len(f.Sources)+len(f.Services) == 0 && f.Text == "" && o.since == "" && o.until == ""
}

// defaultItems is how many items a list shows.
const defaultItems = 20

func newRejectedListCommand(a *app) *cobra.Command {
	var o rejectedFlags
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what is rejected and not replayed yet",
		Long: `List what stands on events.rejected: how many items of each reason, source and service, then the newest of them with
their positions. What was replayed is left out, unless --replayed is given; so are the traces of duplicates, which are no
faults, unless --reason duplicate is.`,
		Example: `  weft rejected list --since 24h
  weft rejected list --source shop-web --reason plan_violation --limit 100
  weft rejected list --json --limit 0 > rejected.jsonl`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(); err != nil {
				return err
			}
			return withKafka(cmd.Context(), a, func(ctx context.Context, cfg config.Config, c *stream.Client) error {
				l, err := rejected.Read(ctx, c, cfg.Topics.Set(), o.filter, limit)
				if err != nil {
					return err
				}
				if asJSON {
					return l.PrintJSON(cmd.OutOrStdout())
				}
				return l.Print(cmd.OutOrStdout())
			})
		},
	}
	o.add(cmd)
	cmd.Flags().IntVar(&limit, "limit", defaultItems, "most items shown, the newest; 0: all")
	cmd.Flags().BoolVar(&o.filter.Replayed, "replayed", false, "also those that were replayed")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object per item")
	return cmd
}

func newRejectedShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show POSITION...",
		Short: "Show rejected records whole",
		Long: `Show records of events.rejected with all headers and the body, by the positions that 'weft rejected list' prints:
partition:offset, or topic:partition:offset.`,
		Example: `  weft rejected show 3:1704`,
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, positions []string) error {
			return withKafka(cmd.Context(), a, func(ctx context.Context, cfg config.Config, c *stream.Client) error {
				for _, p := range positions {
					i, err := rejected.Find(ctx, c, cfg.Topics.Set(), p)
					if err != nil {
						return err
					}
					if err := i.Show(cmd.OutOrStdout()); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

// defaultRate is how many events a second a replay sends: what was rejected was not urgent.
const defaultRate = 500

// replayRejected is one run of 'weft rejected replay'.
type replayRejected struct {
	rejectedFlags
	repair                      rejected.RepairOptions
	all, dry, again, historical bool
	rate                        int
	positions                   []string
}

func newRejectedReplayCommand(a *app) *cobra.Command {
	var o replayRejected
	cmd := &cobra.Command{
		Use:   "replay [POSITION...]",
		Short: "Repair rejected events and send them in again",
		Long: `Send rejected events in again, repaired if need be: by their positions, or those that fit the filters. Each goes to
events.inbox with the source, brand, message id and time of receipt that it had, and the collector takes it as that source's,
with its transformations and tracking plan. Nothing is taken twice: what was replayed before is left alone, and so is what the
source has sent again meanwhile; if two replays cross, the second copy is dropped as a duplicate (stitcher.duplicate_window).

Repairs, in this order: --text, a CEL expression over text that gives the new body, for what is no JSON; --repair, a file of
transformations as a source has them; --set and --rename and --remove for single fields. With --dry-run nothing is sent and
what would be is shown.

What a webhook brought is read by its provider's reader again, as it is now. What profile-builder or activator rejected is no
loss of the event: it is told how they take it up (weft rebuild). Exit status 1 if something could not be replayed.`,
		Example: `  weft rejected replay 3:1704 --set "userId=event.properties.customer" --dry-run
  weft rejected replay --reason plan_violation --source shop-web --set "properties.total=number(event.properties.total)"
  weft rejected replay --reason invalid_json --text "text.replace('NaN', 'null')"
  weft rejected replay --since 24h --repair repair.yaml --rate 100`,
		RunE: func(cmd *cobra.Command, positions []string) error {
			o.positions = positions
			return o.run(cmd.Context(), a, cmd.OutOrStdout())
		},
	}
	o.add(cmd)
	f := cmd.Flags()
	f.StringVar(&o.repair.Text, "text", "", "CEL expression over text that gives the new body")
	f.StringVar(&o.repair.File, "repair", "", "file with a list of transformations")
	f.StringArrayVar(&o.repair.Set, "set", nil, "PATH=EXPRESSION: set a field to the value of a CEL expression over event")
	f.StringArrayVar(&o.repair.Rename, "rename", nil, "PATH=PATH: give a field another path")
	f.StringArrayVar(&o.repair.Remove, "remove", nil, "PATH: take a field out")
	f.BoolVar(&o.all, "all", false, "everything that is rejected: needed where neither positions nor filters are given")
	f.BoolVar(&o.dry, "dry-run", false, "only show what would be sent")
	f.BoolVar(&o.again, "again", false, "also what was replayed before")
	f.BoolVar(&o.historical, "historical", false, "mark the events as history: they count, and trigger no message")
	f.IntVar(&o.rate, "rate", defaultRate, "events a second; 0: as fast as it goes")
	return cmd
}

// check refuses what cannot be meant.
func (o *replayRejected) check() error {
	switch {
	case len(o.positions) > 0 && (!o.empty() || o.all):
		return usageError{errors.New("give positions or filters, not both")}
	case len(o.positions) == 0 && o.empty() && !o.all:
		return usageError{errors.New("which? give positions, filters such as --reason, or --all")}
	case o.rate < 0:
		return usageError{fmt.Errorf("--rate: want 0 or more, found %d", o.rate)}
	}
	return o.complete()
}

func (o *replayRejected) run(ctx context.Context, a *app, out io.Writer) error {
	if err := o.check(); err != nil {
		return err
	}
	repair, err := rejected.NewRepair(o.repair)
	if err != nil {
		return usageError{err}
	}
	return withKafka(ctx, a, func(ctx context.Context, cfg config.Config, c *stream.Client) error {
		set := cfg.Topics.Set()
		items, err := o.items(ctx, cfg, c)
		if err != nil {
			return err
		}
		r := rejected.Replay{
			Client: c, Set: set, Repair: repair, DryRun: o.dry, Again: o.again, Historical: o.historical, Rate: o.rate,
			Reader: hookReaders(cfg.Collector.Sources), Out: out,
		}
		report, err := r.Run(ctx, items)
		verb := "sent"
		if o.dry {
			verb = "would be sent"
		}
		fmt.Fprintf(out, "%d items: %d events %s, %d replayed before, %d taken meanwhile, %d not replayed\n",
			len(items), report.Sent, verb, report.Before, report.Taken, report.Faulty)
		if err == nil && report.Faulty > 0 {
			return errSilent
		}
		return err
	})
}

// hookReaders finds the readers of webhooks, each made when it is wanted: with its source's secret, as the collector does.
func hookReaders(sources []config.Source) func(string) (rejected.Reader, error) {
	made := map[string]*collector.HookReader{}
	return func(name string) (rejected.Reader, error) {
		if r, ok := made[name]; ok {
			return r, nil
		}
		for _, s := range sources {
			if s.Name != name || s.KindOrDefault() != config.KindWebhook {
				continue
			}
			r, err := collector.NewHookReader(s)
			if err == nil {
				made[name] = r
			}
			return r, err
		}
		return nil, fmt.Errorf("there is no source %q of kind webhook in the configuration that could read it", name)
	}
}

// items are those of the positions, else of the filters.
func (o *replayRejected) items(ctx context.Context, cfg config.Config, c *stream.Client) ([]rejected.Item, error) {
	filter := o.filter
	filter.Replayed = true // to say what is left alone, and why
	if len(o.positions) == 0 {
		l, err := rejected.Read(ctx, c, cfg.Topics.Set(), filter, 0)
		return l.Items, err
	}
	return rejected.FindAll(ctx, c, cfg.Topics.Set(), o.positions)
}

// withKafka runs a tool that looks at topics, until it ends or is interrupted.
func withKafka(ctx context.Context, a *app, do func(ctx context.Context, cfg config.Config, c *stream.Client) error) error {
	ctx, unregister := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer unregister()
	cfg, client, err := a.kafka()
	if err != nil {
		return err
	}
	defer client.Close()
	return do(ctx, cfg, client)
}
