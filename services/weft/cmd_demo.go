package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/daemon"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/services/weft/audit"
	"github.com/weft-cdp/weft/services/weft/demo"
)

// demoOptions are the flags of 'weft demo'.
type demoOptions struct {
	keep     bool
	against  bool
	visitors int
	seed     uint64
	delay    time.Duration
	over     time.Duration
	patience time.Duration
	dataDir  string
	door     string
	profiles string
	mailbox  string
	till     string
}

const (
	// demoVisitors, demoDelay and demoOver make a run of about two minutes on two cores.
	demoVisitors = 3000
	demoDelay    = 6 * time.Second
	demoOver     = 60 * time.Second
	// demoPatience is how long Weft may take to finish after the last event.
	demoPatience = 2 * time.Minute
	// minDemoDelay leaves room between an order just before the reminder and the cart's last change.
	minDemoDelay = 3 * time.Second
)

func newDemoCommand(a *app) *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch a simulated shop's events become people, carts and one well-timed reminder",
		Long: `Start all of Weft on parts of its own, as 'weft up' does, in a fresh temporary directory, and send a simulated shop
through the public doors: HTTP for the web shop and the app, a Kafka topic for the tills. A few thousand visitors on
several devices look around, log in, fill carts, leave them, buy, some of them on another device or at the till just
before the reminder is due. Then print what Weft made of it, held against the simulator's own truth.

Exit status 0 if everything is as the truth has it, else 1: a lost event, a wrong person, a message after a purchase.

With --against the shop is sent to a Weft that runs already, such as that of docker-compose.yml: addresses and write
keys come from the configuration (kafka.brokers, clickhouse.addresses, collector.sources), the door from --door. Then
nothing is started, nothing is removed, and what others send meanwhile is left out of the comparison. For the mails to be seen
that Weft's mail server must be --mailbox.`,
		Example: `  weft demo
  weft demo --keep                       stays up until Ctrl-C, to look around
  weft demo --visitors 500 --seed 7
  weft demo --against --config compose.yaml --door http://localhost:8080`,
		GroupID: groupRun,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.delay != 0 && o.delay < minDemoDelay || o.visitors < 1 || o.over <= 0 {
				return usageError{fmt.Errorf("want --visitors of 1 or more, --over above 0 and --delay of at least %s", minDemoDelay)}
			}
			if o.against {
				return demoAgainst(cmd.Context(), a, o, cmd.OutOrStdout())
			}
			return demoEmbedded(cmd.Context(), a, o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.keep, "keep", false, "stay up afterwards, until Ctrl-C")
	f.IntVar(&o.visitors, "visitors", demoVisitors, "how many visitors come in")
	f.Uint64Var(&o.seed, "seed", 1, "the same seed tells the same stories")
	f.DurationVar(&o.delay, "delay", 0, "the journey's delay after the last activity (default 6s; with --against that of the journey file)")
	f.DurationVar(&o.over, "over", demoOver, "the time over which visitors come in")
	f.DurationVar(&o.patience, "patience", demoPatience, "how long Weft may take to finish after the last event")
	f.StringVar(&o.dataDir, "data-dir", "", "keep all data here instead of in a temporary directory that is removed")
	f.BoolVar(&o.against, "against", false, "send the shop to a Weft that runs already")
	f.StringVar(&o.door, "door", "", "with --against: the HTTP door (default: activator.public_url)")
	f.StringVar(&o.profiles, "profiles", "", "with --against: the profile API (default: builder.listen)")
	f.StringVar(&o.mailbox, "mailbox", "", "with --against: listen here as the mail server, such as 0.0.0.0:2525")
	f.StringVar(&o.till, "till-topic", "", "with --against: topic of the tills (default: that of the first inlet)")
	return cmd
}

// demoDir is where the demo keeps its data, and whether that is a directory of its own, to be removed.
func demoDir(o demoOptions) (dir string, own bool, err error) {
	if o.dataDir != "" {
		if err := os.MkdirAll(o.dataDir, 0o700); err != nil {
			return "", false, fmt.Errorf("data directory of the demo: %w", err)
		}
		return o.dataDir, false, nil
	}
	if dir, err = os.MkdirTemp("", "weft-demo-"); err != nil {
		return "", false, fmt.Errorf("data directory of the demo: %w", err)
	}
	return dir, true, nil
}

// demoEmbedded runs the demo on a Weft of its own.
func demoEmbedded(ctx context.Context, a *app, o demoOptions, out io.Writer) (err error) {
	dir, own, err := demoDir(o)
	if err != nil {
		return err
	}
	logs := filepath.Join(dir, "weft.log")
	keepDir := !own
	defer func() {
		switch {
		case !keepDir:
			err = errors.Join(err, os.RemoveAll(dir))
		case own:
			_, _ = fmt.Fprintf(out, "Kept to look into: %s\n", dir)
		}
	}()
	used, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("data directory of the demo: %w", err)
	}
	cfg, err := a.load(alone)
	if err != nil {
		return err
	}
	plan := demo.Plan{
		Seed: o.seed, Visitors: o.visitors, Run: "demo", Delay: cmp.Or(o.delay, demoDelay), Over: o.over, Mailbox: true, List: true,
	}
	if len(used) > 0 { // a second run into the same data
		plan.Run = demo.RunID(time.Now())
	}
	mailbox, err := demo.OpenMailbox("127.0.0.1:0")
	if err != nil {
		return err
	}
	visitors := demo.Generate(plan)
	if err := demo.Configure(&cfg, dir, plan, visitors, mailbox.Addr()); err != nil {
		return err
	}
	log, closeLog, err := fileLogger(cfg.Log, logs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeLog()) }()
	_, _ = fmt.Fprintf(out, "Starting Kafka, Redis, ClickHouse and all of Weft in %s\n", dir)

	signalled, unregister := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer unregister()
	context.AfterFunc(signalled, unregister) // a second one ends the process
	ctx, stop := context.WithCancel(signalled)
	defer stop()
	show := &show{opt: o, plan: plan, visitors: visitors, mailbox: mailbox, fresh: len(used) == 0, logs: logs, out: out, stop: stop}
	opt := daemon.Options{Config: cfg, Name: "demo", Version: version(), Log: log}
	err = daemon.Run(ctx, opt, func(ctx context.Context, f *daemon.Frame) ([]daemon.Named, error) {
		p, err := newPipeline(ctx, f, cfg)
		if err != nil {
			return nil, err
		}
		show.frame, show.pipeline = f, p
		return append([]daemon.Named{{Name: "demo", Service: show}}, append(p.services, daemon.Named{Name: "mailbox", Service: mailbox})...), nil
	})
	var reported daemon.Reported
	if errors.As(err, &reported) { // was logged to the file, where nobody has seen it
		err = reported.Err
	}
	interrupted := signalled.Err() != nil && !show.finished
	keepDir = keepDir || err != nil && !interrupted || show.finished && !show.verdict.OK()
	switch {
	case interrupted:
		return errors.New("the demo was interrupted")
	case err != nil:
		return err
	case !show.verdict.OK():
		return errSilent
	}
	return nil
}

// fileLogger writes the services' log beside the data: the terminal is for the shop.
func fileLogger(cfg config.Log, path string) (*zap.Logger, func() error, error) {
	f, err := os.OpenFile(filepath.Clean(path), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("log of the demo: %w", err)
	}
	log, err := daemon.Logger(cfg, f)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return log, f.Close, nil
}

// show is the shop as a service beside those of Weft.
type show struct {
	opt      demoOptions
	plan     demo.Plan
	visitors []demo.Visitor
	mailbox  *demo.Mailbox
	fresh    bool
	logs     string
	out      io.Writer
	stop     func()
	frame    *daemon.Frame
	pipeline *pipeline

	verdict  demo.Verdict
	finished bool
}

// Run implements daemon.Service: the shop, its report, and the end of everything unless it is to be kept.
func (s *show) Run(ctx context.Context) error {
	if !s.await(ctx) {
		return nil
	}
	cfg := s.pipeline.cfg
	address := "http://" + cmp.Or(s.pipeline.addr(nameCollector), cfg.Collector.Listen)
	doors, err := demo.NewDoors(ctx, address, cfg.Collector.Sources, s.pipeline.conns.stream, demo.TillTopic, cfg.Topics)
	if err != nil {
		return err
	}
	places := placesOf(cfg)
	places.Door, places.Admin, places.Logs = address, "http://"+s.frame.AdminAddr(), s.logs
	if addr := s.pipeline.parts.ClickHouseHTTPAddr; addr != "" {
		places.ClickHouseUI = "http://" + addr
	}
	places.Kept = s.opt.keep
	run := demo.NewRun(s.plan, demo.Options{
		Visitors: s.visitors, Doors: doors, Mailbox: s.mailbox, Log: audit.FromStream(s.pipeline.conns.stream),
		Warehouse: s.pipeline.conns.warehouse, Topics: cfg.Topics.Set(), Alone: s.fresh, Patience: s.opt.patience,
		Out: s.out, Places: places,
	})
	if s.verdict, err = run.Play(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	s.finished = true
	if s.opt.keep {
		_, _ = fmt.Fprint(s.out, "\nEverything stays up; Ctrl-C stops it.\n")
	} else {
		s.stop()
	}
	<-ctx.Done()
	return nil
}

// await returns false if ctx ends before everything is ready.
func (s *show) await(ctx context.Context) bool {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for s.frame.Ready() != nil {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

func placesOf(cfg config.Config) demo.Places {
	p := demo.Places{
		Profiles: "http://" + cfg.Builder.Listen, Database: cfg.ClickHouse.Database, Journeys: absolute(cfg.Activator.Journeys),
	}
	if len(cfg.ClickHouse.Addresses) > 0 {
		p.ClickHouse = cfg.ClickHouse.Addresses[0]
	}
	if len(cfg.Collector.Sources) > 0 {
		p.WriteKey = cfg.Collector.Sources[0].WriteKey
	}
	if len(cfg.Builder.AccessKeys) > 0 {
		p.AccessKey = cfg.Builder.AccessKeys[0]
	} else {
		p.Profiles = ""
	}
	return p
}

// demoAgainst sends the shop to a Weft that runs already.
func demoAgainst(ctx context.Context, a *app, o demoOptions, out io.Writer) (err error) {
	ctx, unregister := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer unregister()
	cfg, err := a.load()
	if err != nil {
		return err
	}
	for path, list := range map[string][]string{"kafka.brokers": cfg.Kafka.Brokers, "clickhouse.addresses": cfg.ClickHouse.Addresses} {
		if len(list) == 0 {
			return missing(path)
		}
	}
	if o.delay == 0 {
		if o.delay, err = delayOf(cfg.Activator.Journeys); err != nil {
			return err
		}
	}
	plan := demo.Plan{
		Seed: o.seed, Visitors: o.visitors, Run: demo.RunID(time.Now()), Delay: o.delay, Over: o.over, Mailbox: o.mailbox != "",
	}
	var mailbox *demo.Mailbox
	if plan.Mailbox {
		if mailbox, err = demo.OpenMailbox(o.mailbox); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(ctx)
		taking := make(chan error, 1)
		go func() { taking <- mailbox.Run(ctx) }()
		defer func() {
			cancel()
			err = errors.Join(err, <-taking)
		}()
	}
	client, err := stream.New(cfg.Kafka, zap.NewNop())
	if err != nil {
		return err
	}
	defer client.Close()
	wh, err := warehouse.Open(cfg.ClickHouse)
	if err != nil {
		return err
	}
	defer func() { _ = wh.Close() }() // was only read
	till := cmp.Or(o.till, demo.TillTopic)
	if o.till == "" && len(cfg.Collector.Inlets) > 0 {
		till = cfg.Collector.Inlets[0].Topic
	}
	places := placesOf(cfg)
	places.Kept = true
	places.Door, places.Profiles = cmp.Or(o.door, cfg.Activator.PublicURL), cmp.Or(o.profiles, places.Profiles)
	doors, err := demo.NewDoors(ctx, places.Door, cfg.Collector.Sources, client, till, cfg.Topics)
	if err != nil {
		return err
	}
	run := demo.NewRun(plan, demo.Options{
		Visitors: demo.Generate(plan), Doors: doors, Mailbox: mailbox, Log: audit.FromStream(client), Warehouse: wh,
		Topics: cfg.Topics.Set(), Patience: o.patience, Out: out, Places: places,
	})
	verdict, err := run.Play(ctx)
	if err == nil && !verdict.OK() {
		err = errSilent
	}
	return err
}

// delayOf is the delay of the abandoned-cart journey in dir.
func delayOf(dir string) (time.Duration, error) {
	j, faults := journey.Check(filepath.Join(dir, "abandoned-cart.yaml"))
	if len(faults) > 0 {
		return 0, fmt.Errorf("the journey's delay: %w; or give --delay", journey.Faults(faults))
	}
	return j.Delay, nil
}
