package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/plan"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/services/weft/feed"
	"github.com/weft-cdp/weft/services/weft/rebuild"
)

func newPlanCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Tracking plans: learn one from traffic, compare",
		Long: `A tracking plan says which events a source sends and what they look like; a source names its plan in its configuration.
Learn a first one from what comes, and compare a plan with what comes or with another plan.`,
		GroupID: groupTools,
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPlanInferCommand(a), newPlanDiffCommand(a))
	return cmd
}

// trafficFlags say which events are looked at.
type trafficFlags struct {
	file, since, until string
	sources            []string
	stored             bool
	perKind            int
}

// defaultTraffic is how far back in Kafka traffic is read by default.
const defaultTraffic = "1h"

// The newest so many stored events of each kind are read: enough for every field that is not very rare, also of events
// that are themselves rare, and little enough for 500 names.
const (
	defaultPerKind = 2000
	maxPerKind     = 50_000
)

func (o *trafficFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.file, "file", "", "read events of this file, one JSON object per line, instead of events.collected; -: standard input")
	f.StringVar(&o.since, "since", defaultTraffic, "read what was collected since then: a time, or a duration back from now")
	f.StringVar(&o.until, "until", "", "with --stored: read what was collected before then; now if left out")
	f.BoolVar(&o.stored, "stored", false, "read the events that ClickHouse holds, of any time, instead of events.collected")
	f.IntVar(&o.perKind, "per-kind", defaultPerKind, "with --stored: the newest so many of each call and track name")
	f.StringSliceVar(&o.sources, "source", nil, "only events of this source (not with --file)")
}

// maxEventLine is the longest line of a file of events: above any event that is accepted.
const maxEventLine = 4 << 20

// each calls do for every event of the traffic, and says how many there were.
func (o *trafficFlags) each(ctx context.Context, a *app, in io.Reader, do func(e *event.Event)) (n int, err error) {
	switch {
	case o.file != "" && o.stored:
		return 0, usageError{errors.New("--file or --stored, not both")}
	case !o.stored && o.until != "":
		return 0, usageError{errors.New("--until is for --stored")}
	case o.file != "":
		return o.eachLine(in, do)
	}
	since, err := parseSince(o.since, time.Now())
	if err != nil {
		return 0, usageError{err}
	}
	if o.stored {
		return o.eachStored(ctx, a, since, do)
	}
	err = withKafka(ctx, a, func(ctx context.Context, cfg config.Config, c *stream.Client) error {
		return feed.Read(ctx, c, cfg.Topics.Set().EventsCollected(), feed.Options{Since: since}, func(r *stream.Record) error {
			meta, err := topic.ParseMeta(r.Headers)
			if err != nil || len(o.sources) > 0 && !slices.Contains(o.sources, meta.Source) {
				return nil
			}
			if e, err := event.Decode(r.Value, meta); err == nil {
				n++
				do(e)
			}
			return nil
		})
	})
	return n, err
}

// eachStored reads ClickHouse.
func (o *trafficFlags) eachStored(ctx context.Context, a *app, since time.Time, do func(e *event.Event)) (int, error) {
	until, err := parseSince(o.until, time.Now())
	if err != nil {
		return 0, usageError{fmt.Errorf("--until: %w", err)}
	}
	if o.perKind < 1 || o.perKind > maxPerKind {
		return 0, usageError{fmt.Errorf("--per-kind: want 1 to %d, found %d", maxPerKind, o.perKind)}
	}
	ctx, unregister := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer unregister()
	cfg, err := a.load()
	if err != nil {
		return 0, err
	}
	if len(cfg.ClickHouse.Addresses) == 0 {
		return 0, missing("clickhouse.addresses")
	}
	wh, err := warehouse.Open(cfg.ClickHouse)
	if err != nil {
		return 0, err
	}
	defer func() { _ = wh.Close() }() // was only read
	return rebuild.Stored(ctx, wh, rebuild.Selection{Since: since, Until: until, Sources: o.sources, PerKind: o.perKind}, do)
}

func (o *trafficFlags) eachLine(in io.Reader, do func(e *event.Event)) (n int, err error) {
	if o.file != "-" {
		f, err := os.Open(filepath.Clean(o.file))
		if err != nil {
			return 0, err
		}
		defer func() { _ = f.Close() }() // read only
		in = f
	}
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, maxEventLine)
	for line := 1; sc.Scan(); line++ {
		if len(sc.Bytes()) == 0 {
			continue
		}
		e, err := event.Decode(sc.Bytes(), event.Meta{})
		if err != nil {
			return n, fmt.Errorf("%s: line %d: %w", o.file, line, err)
		}
		n++
		do(e)
	}
	return n, sc.Err()
}

var errNoTraffic = errors.New("there are no such events: look at --since and --source")

func newPlanInferCommand(a *app) *cobra.Command {
	var o trafficFlags
	cmd := &cobra.Command{
		Use:   "infer",
		Short: "Learn a tracking plan from events",
		Long: `Write a tracking plan that fits the events it was learnt from: the events, their fields and types, and as required what
stood in every one of at least 20. Violations are flagged and everything new is allowed, until you decide more.`,
		Example: `  weft plan infer --source shop-web --since 24h > plans/shop-web.yaml
  weft plan infer --source shop-web --stored --since 2026-01-01 --until 2026-04-01
  weft plan infer --file events.jsonl`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l := plan.NewLearner()
			n, err := o.each(cmd.Context(), a, cmd.InOrStdin(), l.Add)
			if err != nil {
				return err
			}
			if n == 0 {
				return errNoTraffic
			}
			text, err := yaml.Marshal(l.Plan())
			if err != nil {
				return fmt.Errorf("write the plan: %w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "# Learnt from %d events; %d more had too many names.\n%s", n-l.Left, l.Left, text)
			return err
		},
	}
	o.add(cmd)
	return cmd
}

func newPlanDiffCommand(a *app) *cobra.Command {
	var o trafficFlags
	cmd := &cobra.Command{
		Use:   "diff PLAN [NEWER]",
		Short: "Compare a tracking plan with traffic, or with a newer plan",
		Long: `With one plan: what of the traffic is not planned, what is planned and does not come, and how many events violate the plan,
by field. With two: what changes for senders when the newer one takes the older one's place. Each line says whether
it is additive or breaking. Exit status 1 if something is breaking.`,
		Example: `  weft plan diff plans/shop-web.yaml --source shop-web --since 24h
  weft plan diff plans/shop-web.yaml --source shop-web --stored --since 720h
  weft plan diff plans/shop-web.yaml plans/shop-web-next.yaml`,
		Args: args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, files []string) error {
			p, err := plan.Load(files[0])
			if err != nil {
				return err
			}
			if len(files) == 1 {
				return diffTraffic(cmd.Context(), a, o, p, cmd.InOrStdin(), cmd.OutOrStdout())
			}
			newer, err := plan.Load(files[1])
			if err != nil {
				return err
			}
			return printDifferences(cmd.OutOrStdout(), plan.Diff(p.File(), newer.File()))
		},
	}
	o.add(cmd)
	return cmd
}

func diffTraffic(ctx context.Context, a *app, o trafficFlags, p *plan.Plan, in io.Reader, out io.Writer) error {
	l := plan.NewLearner()
	violations := plan.NewTally()
	n, err := o.each(ctx, a, in, func(e *event.Event) {
		l.Add(e)
		violations.Add(p.Check(e))
	})
	if err != nil {
		return err
	}
	if n == 0 {
		return errNoTraffic
	}
	fmt.Fprintf(out, "%d events\n", n)
	return printDifferences(out, append(plan.DiffTraffic(p.File(), l.Plan()), violations.Differences()...))
}

func printDifferences(out io.Writer, list []plan.Difference) error {
	breaking := false
	for _, d := range list {
		breaking = breaking || d.Breaking
		fmt.Fprintln(out, d)
	}
	if len(list) == 0 {
		fmt.Fprintln(out, "no differences")
	}
	if breaking {
		return errSilent
	}
	return nil
}
