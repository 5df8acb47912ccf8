package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/services/weft/feed"
	"github.com/weft-cdp/weft/services/weft/tail"
)

// tailOptions are the flags of 'weft tail'.
type tailOptions struct {
	filter     tail.Filter
	since      string
	identified bool
	noFollow   bool
	json       bool
	count      int
}

func newTailCommand(a *app) *cobra.Command {
	var o tailOptions
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show events as they come",
		Long: `Show the events that the collector has taken, as they come: one line each, or one JSON object each with --json. Without
--since it begins with what comes from now on. It reads events.collected, or with --identified events.identified, where the
key is the profile, and is in no consumer group: nobody else notices.

--person is any identifier of the event (e-mail, user id, anonymous id, phone, external id), or the profile id.
Filters that are given several times, or with commas, show events that fit one of them.

Lines have the time of receipt in UTC, the source, the event, who it is about, its flags and the first of its properties;
they are coloured on a terminal, unless NO_COLOR is set.`,
		Example: `  weft tail --config weft.yaml
  weft tail --source shop-web --name "Order Completed"
  weft tail --person ann@example.com --since 2h
  weft tail --since 10m --no-follow --json`,
		GroupID: groupTools,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runTail(cmd.Context(), a, o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.filter.Sources, "source", nil, "only events of this source")
	f.StringSliceVar(&o.filter.Names, "name", nil, "only events with this name")
	f.StringSliceVar(&o.filter.Types, "type", nil, "only calls of this type: track, identify, page, screen, group, alias")
	f.StringVar(&o.filter.Person, "person", "", "only events of this person: an identifier, or a profile id")
	f.StringVar(&o.filter.Flag, "flag", "", "only events with this flag: "+strings.Join(event.AllFlags(), ", "))
	f.StringVar(&o.since, "since", "", "begin with what came since then: a time, or a duration back from now")
	f.BoolVar(&o.identified, "identified", false, "read events.identified instead of events.collected")
	f.BoolVar(&o.noFollow, "no-follow", false, "end at what is there now (with --since)")
	f.BoolVar(&o.json, "json", false, "one JSON object per event")
	f.IntVar(&o.count, "count", 0, "end after so many events (default: never)")
	return cmd
}

// check refuses flags that cannot be meant.
func (o *tailOptions) check() error {
	for _, t := range o.filter.Types {
		if _, ok := event.ParseType(t); !ok {
			return usageError{fmt.Errorf("--type: want track, identify, page, screen, group or alias, found %q", t)}
		}
	}
	if o.noFollow && o.since == "" {
		return usageError{errors.New("--no-follow: give --since, too")}
	}
	return nil
}

func runTail(ctx context.Context, a *app, o tailOptions, out io.Writer) error {
	ctx, unregister := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer unregister()
	if err := o.check(); err != nil {
		return err
	}
	since, err := parseSince(o.since, time.Now())
	if err != nil {
		return usageError{err}
	}
	cfg, client, err := a.kafka()
	if err != nil {
		return err
	}
	defer client.Close()
	name := cfg.Topics.Set().EventsCollected()
	if o.identified {
		name = cfg.Topics.Set().EventsIdentified()
	}
	p := &tail.Printer{Out: out, Filter: o.filter, JSON: o.json, Colour: isTerminal(out) && a.getenv("NO_COLOR") == ""}
	return feed.Read(ctx, client, name, feed.Options{Since: since, Newest: o.since == "", Follow: !o.noFollow}, func(r *stream.Record) error {
		if err := p.Record(r); err != nil {
			return err
		}
		if o.count > 0 && p.Shown >= o.count {
			return feed.ErrEnough
		}
		return nil
	})
}

// kafka loads the configuration and makes a client for tools that look at topics.
func (a *app) kafka() (config.Config, *stream.Client, error) {
	cfg, err := a.load()
	if err != nil {
		return cfg, nil, err
	}
	if len(cfg.Kafka.Brokers) == 0 {
		return cfg, nil, missing("kafka.brokers")
	}
	client, err := stream.New(cfg.Kafka, zap.NewNop())
	return cfg, client, err
}

// isTerminal says whether somebody looks at w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
