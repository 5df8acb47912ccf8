package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/weft-cdp/weft/scripts/chaos/ledger"
)

const (
	// outageAfter is how long the shop is open before Kafka goes away.
	outageAfter = 15 * time.Second
	// outageLooks is the pause between looks while it is away and while the backlog drains.
	outageLooks = 250 * time.Millisecond
)

// outage takes all brokers away at once, for as long as asked, and tells what the door said and how fast it was over.
// Nothing else is hurt: it is a measurement as much as a proof.
func (c *chaos) outage(ctx context.Context) error {
	if !wait(ctx, outageAfter) {
		return ctx.Err()
	}
	before, memory := c.load.Answers(), c.doorMemory()
	if err := c.ledger.Append(ledger.Entry{Kind: ledger.Struck, Stage: "kafka", What: "all brokers killed", Target: c.away.String()}); err != nil {
		return err
	}
	for _, p := range c.d.Kafka {
		p.Kill()
	}
	gone := time.Now()
	wait(ctx, c.away)
	during := c.load.Answers()
	_, lost := c.acked(gone)
	fmt.Printf("outage: all brokers gone for %s; the door answered %v before and %v meanwhile (503 and 429 without Retry-After: %d); %d acknowledged meanwhile\n",
		c.away, before, minus(during, before), c.load.Bare.Load(), lost)
	back := time.Now()
	acked, _ := c.acked(back)
	backlog := c.due(back) - acked
	fmt.Printf("outage: %d events wait at their senders; memory of the collectors at most %s before, %s until now\n", backlog, memory, c.doorMemory())
	for _, p := range c.d.Kafka {
		if err := p.Start(); err != nil {
			return err
		}
	}
	for _, p := range c.d.Kafka {
		if err := p.Await(ctx, readyLimit); err != nil {
			return err
		}
	}
	listening := time.Now()
	first := time.Time{}
	for {
		_, since := c.acked(back)
		if first.IsZero() && since > 0 {
			first = time.Now()
		}
		if since >= backlog && !first.IsZero() {
			fmt.Printf("outage: brokers answer %s after their start, the first event is acknowledged %s after it, as many as had waited %s after it: %.0f events/s from the first on\n",
				listening.Sub(back).Round(time.Millisecond), first.Sub(back).Round(time.Millisecond), time.Since(back).Round(time.Millisecond),
				float64(since)/max(time.Since(first), outageLooks).Seconds())
			return nil
		}
		if !wait(ctx, outageLooks) {
			return ctx.Err()
		}
		if time.Since(back) > c.patience {
			return errors.New("the backlog of an outage is not acknowledged")
		}
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// acked are the events acknowledged, and those since a moment.
func (c *chaos) acked(since time.Time) (all, after int) {
	c.ledger.Read(func(b *ledger.Book) {
		all = len(b.Acked)
		for _, at := range b.Acked {
			if at.After(since) {
				after++
			}
		}
	})
	return all, after
}

// due are the events that visitors have had to send until a moment.
func (c *chaos) due(until time.Time) int {
	n := 0
	for i := range c.visitors {
		for _, p := range c.visitors[i].Parts {
			for k := range p.Actions {
				if !c.opened.Add(c.visitors[i].Start + p.Actions[k].At).After(until) {
					n++
				}
			}
		}
	}
	return n
}

func minus(a, b map[int]int64) map[int]int64 {
	out := map[int]int64{}
	for status, n := range a {
		if d := n - b[status]; d > 0 {
			out[status] = d
		}
	}
	return out
}

// doorMemory is the most memory that a collector has had resident so far.
func (c *chaos) doorMemory() string {
	var all []int
	for _, s := range c.d.Services {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
		if s.Stage != "collector" || err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), "VmHWM:")
		var kb int
		if _, err := fmt.Sscan(rest, &kb); err == nil {
			all = append(all, kb)
		}
	}
	if len(all) == 0 {
		return "unknown"
	}
	return fmt.Sprintf("%d MiB", slices.Max(all)>>10)
}
