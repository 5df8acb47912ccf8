package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/scripts/chaos/ledger"
	"github.com/weft-cdp/weft/scripts/chaos/load"
	"github.com/weft-cdp/weft/scripts/chaos/oracle"
	"github.com/weft-cdp/weft/scripts/chaos/servers"
	"github.com/weft-cdp/weft/scripts/chaos/strikes"
	"github.com/weft-cdp/weft/services/weft/demo"
)

const (
	// readyLimit is how long the services may take to be ready for the first time.
	readyLimit = 2 * time.Minute
	// loadShare is the part of a run in which visitors come in; in the rest their carts come due and are struck too.
	loadShare = 0.8
	// progressEvery is the pause between lines of progress.
	progressEvery = 15 * time.Second
	// lookEvery is the pause between looks while everything comes to rest.
	lookEvery = 3 * time.Second
	// restLooks is how many looks one after the other must find nothing under way and nothing wrong.
	restLooks = 2
)

// chaos is one run.
type chaos struct {
	options
	plan     ledger.Plan
	resumed  bool
	opened   time.Time // by the shop's clock, which stands while nobody is there
	ledger   *ledger.Ledger
	d        *servers.Deployment
	load     *load.Load
	mailbox  *demo.Mailbox
	visitors []demo.Visitor
	eyes     oracle.Eyes
}

// run does all of it.
func run(ctx context.Context, opt options) (err error) {
	c := &chaos{options: opt}
	unlock, err := lock(opt.dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.ledger.Close()) }()
	kept := true // logs and data stay unless everything is right
	defer func() { err = errors.Join(err, c.d.Close(kept && ctx.Err() != nil)) }()
	stop, err := c.start(ctx)
	defer stop()
	if err != nil {
		return err
	}
	if err := c.strike(ctx); err != nil {
		return err
	}
	verdict, err := c.rest(ctx)
	if err != nil {
		return err
	}
	kept = false
	return c.report(verdict)
}

// lock keeps a second run out of the directory.
func lock(dir string) (func(), error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the caller's directory
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is in use by another run: %w", dir, err), f.Close())
	}
	return func() { _ = f.Close() }, nil // frees the lock
}

// open opens the ledger: a killed run's goes on, else a new one begins.
func (c *chaos) open() error {
	var err error
	if c.ledger, err = ledger.Open(c.dir, false); err != nil {
		return err
	}
	c.ledger.Read(func(b *ledger.Book) {
		if b.Under() && !c.fresh {
			c.resumed, c.plan = true, *b.Plan
		}
	})
	if !c.resumed {
		if err := c.ledger.Close(); err != nil {
			return err
		}
		if c.ledger, err = ledger.Open(c.dir, true); err != nil {
			return err
		}
		if err := servers.Discard(c.dir); err != nil {
			return err
		}
		over := time.Duration(c.minutes * loadShare * float64(time.Minute))
		c.plan = ledger.Plan{
			Seed: c.seed, Run: demo.RunID(time.Now()), Visitors: max(20, int(c.rate*over.Seconds())), Over: over, Delay: c.delay, Cluster: c.cluster,
			Static: c.seed%2 == 0,
		}
	}
	c.visitors = demo.Generate(demo.Plan{Seed: c.plan.Seed, Visitors: c.plan.Visitors, Run: c.plan.Run, Delay: c.plan.Delay, Over: c.plan.Over})
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this binary: %w", err)
	}
	journey, err := demo.Journey(c.plan.Delay)
	if err != nil {
		return err
	}
	if c.mailbox, err = demo.OpenMailbox("127.0.0.1:0"); err != nil {
		return err
	}
	c.d = &servers.Deployment{Dir: c.dir, Binary: c.binary, Self: self, Cluster: c.plan.Cluster, Static: c.plan.Static, Mail: c.mailbox.Addr(), Journey: journey}
	how := "begins"
	if c.resumed {
		how = "goes on after it was killed"
	}
	fmt.Printf("chaos: the run of seed %d %s: %d visitors over %s, Redis Cluster: %t, static membership: %t; data and logs in %s\n",
		c.plan.Seed, how, c.plan.Visitors, c.plan.Over, c.plan.Cluster, c.plan.Static, c.dir)
	return nil
}

// start brings everything up, unhurt. stop is to be called in any case.
func (c *chaos) start(ctx context.Context) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var closers []func()
	stop = func() {
		for _, f := range closers {
			f()
		}
		cancel()
	}
	c.mailbox.Notify(func(m demo.Mail) {
		id, _, _ := strings.Cut(strings.Trim(m.MessageID, "<>"), "@")
		if err := c.ledger.Append(ledger.Entry{Kind: ledger.Mailed, Message: id, To: m.To}); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
		}
	})
	ended := make(chan struct{})
	mailing, endMail := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(ended)
		if err := c.mailbox.Run(mailing); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
		}
	}()
	closers = append(closers, func() { endMail(); <-ended })
	begun := time.Now()
	if err := c.d.Prepare(ctx); err != nil {
		return stop, err
	}
	if err := c.d.Up(ctx); err != nil {
		return stop, err
	}
	cfg := config.Defaults()
	cfg.Kafka.Brokers, cfg.ClickHouse.Addresses, cfg.ClickHouse.Database = c.d.KafkaDirect, []string{c.d.ClickHouseDirect}, servers.Database
	kafka, err := stream.New(cfg.Kafka, zap.NewNop())
	if err != nil {
		return stop, err
	}
	closers = append(closers, kafka.Close)
	wh, err := warehouse.Open(cfg.ClickHouse)
	if err != nil {
		return stop, err
	}
	closers = append(closers, func() { _ = wh.Close() }) // was only read
	c.eyes = oracle.Eyes{Kafka: kafka, Warehouse: wh, Topics: c.d.Topics()}
	copies := config.Topics{Prefix: servers.Prefix, Partitions: servers.Partitions, ReplicationFactor: 3, MinInsyncReplicas: 2, Retention: cfg.Topics.Retention}
	if err := kafka.EnsureTopics(ctx, []topic.Spec{{Name: demo.TillTopic, Partitions: demo.TillPartitions}}, copies); err != nil {
		return stop, err
	}
	if _, err := c.d.Command(ctx, "topics"); err != nil {
		return stop, err
	}
	for _, s := range c.d.Services {
		if err := s.Start(); err != nil {
			return stop, err
		}
	}
	for _, s := range c.d.Services {
		if err := s.Await(ctx, readyLimit); err != nil {
			return stop, err
		}
	}
	c.load, err = load.New(c.visitors, c.d.Doors, kafka, c.ledger)
	fmt.Printf("chaos: everything is up after %s\n", time.Since(begun).Round(time.Second))
	return stop, err
}

// strike sends the shop's events and hurts everything, until both are done.
func (c *chaos) strike(ctx context.Context) error {
	c.opened = time.Now()
	loaded := false
	c.ledger.Read(func(b *ledger.Book) {
		if !c.resumed {
			return
		}
		loaded = b.Loaded
		for _, at := range b.Done {
			if since := at.Sub(b.Opened); since > time.Since(c.opened) {
				c.opened = time.Now().Add(-since)
			}
		}
	})
	if loaded {
		return nil
	}
	if !c.resumed {
		if err := c.ledger.Append(ledger.Entry{Kind: ledger.Opened, At: c.opened.UnixMilli(), Plan: &c.plan}); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var both sync.WaitGroup
	var errLoad, errStrikes error
	both.Go(func() {
		if errLoad = c.load.Run(ctx, c.opened); errLoad != nil {
			cancel()
		}
	})
	both.Go(func() {
		if c.away > 0 {
			errStrikes = c.outage(ctx)
		} else {
			plan := strikes.Plan{Seed: c.plan.Seed, For: time.Duration(c.minutes * float64(time.Minute)), PerPart: c.strikes}
			errStrikes = strikes.New(plan, c.d, c.ledger).Run(ctx)
		}
		if err := c.d.Heal(context.WithoutCancel(ctx)); err != nil || errStrikes != nil {
			errStrikes = errors.Join(errStrikes, err)
			cancel()
			return
		}
		fmt.Println("chaos: all harm has ended")
	})
	over := make(chan struct{})
	go func() { both.Wait(); close(over) }()
	for begun := time.Now(); ; {
		select {
		case <-over:
			if err := errors.Join(errStrikes, errLoad); err != nil {
				return err
			}
			return c.ledger.Append(ledger.Entry{Kind: ledger.Loaded})
		case <-time.After(progressEvery):
			c.ledger.Read(func(b *ledger.Book) {
				fmt.Printf("%5ds  %5d done, %5d acknowledged, %4d mails, door %v; strikes: %s\n", int(time.Since(begun).Seconds()), len(b.Done), len(b.Acked),
					len(b.Mails), c.load.Answers(), inOneLine(b.Strikes))
			})
		}
	}
}

// rest waits until nothing is under way and everything is as promised, or patience ends; then it judges.
func (c *chaos) rest(ctx context.Context) (*oracle.Verdict, error) {
	begun := time.Now()
	last := begun
	c.ledger.Read(func(b *ledger.Book) {
		for _, at := range b.Done {
			if at.After(last) {
				last = at
			}
		}
	})
	deadline := last.Add(c.plan.Delay + c.patience)
	right := 0
	for {
		if err := strikes.Raise(c.d, c.ledger); err != nil {
			return nil, err
		}
		facts, err := c.eyes.Look(ctx)
		var v *oracle.Verdict
		if err == nil {
			c.ledger.Read(func(b *ledger.Book) { v = oracle.Judge(c.visitors, b, facts) })
			if right++; len(facts.Behind) > 0 || !v.OK() || time.Now().Before(last.Add(c.plan.Delay)) {
				right = 0
			}
		}
		over := time.Now().After(deadline)
		switch {
		case err != nil && (over || ctx.Err() != nil):
			return nil, err
		case right >= restLooks:
			fmt.Printf("chaos: everything is at rest %s after the last strike\n", time.Since(begun).Round(time.Second))
			return v, c.audit(ctx, v)
		case over && v != nil:
			for _, l := range facts.Behind {
				v.Violate("P2", "%s is %d records behind on %s, %s after all harm has ended", l.Stage, l.Records, l.Topic, time.Since(begun).Round(time.Second))
			}
			for _, s := range c.d.Services {
				if err := s.Ready(ctx); err != nil {
					v.Violate("P2", "not ready after all harm has ended: %v", err)
				}
			}
			return v, c.audit(ctx, v)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// audit runs 'weft audit' as an operator would: P8.
func (c *chaos) audit(ctx context.Context, v *oracle.Verdict) error {
	out, err := c.d.Command(ctx, "audit", "--wait", "60s")
	fmt.Print(out)
	v.Compared["P8"]++
	if err != nil {
		v.Violate("P8", "%v", err)
	}
	return ctx.Err()
}
