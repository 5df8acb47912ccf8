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
	done, acked, lost := c.counts(gone)
	fmt.Printf("outage: all brokers gone for %s; the door answered %v before and %v meanwhile (503 and 429 without Retry-After: %d); %d acknowledged meanwhile\n",
		c.away, before, minus(during, before), c.load.Bare.Load(), lost)
	fmt.Printf("outage: %d events wait at their senders; memory of the collectors at most %s before, %s until now\n", done-acked, memory, c.doorMemory())
	back := time.Now()
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
	backlog := done - acked
	for {
		done, acked, since := c.counts(back)
		if first.IsZero() && since > 0 {
			first = time.Now()
		}
		if since >= backlog && !first.IsZero() {
			fmt.Printf("outage: brokers answer %s after their start, the first event is acknowledged %s after it, the backlog of %d events %s after it (%.0f events/s from the first on, new ones included); still open: %d\n",
				listening.Sub(back).Round(time.Millisecond), first.Sub(back).Round(time.Millisecond), backlog, time.Since(back).Round(time.Millisecond),
				float64(since)/max(time.Since(first), outageLooks).Seconds(), done-acked)
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

// counts are the events done and acknowledged, and acknowledged since a moment.
func (c *chaos) counts(since time.Time) (done, acked, after int) {
	c.ledger.Read(func(b *ledger.Book) {
		done, acked = len(b.Done), len(b.Acked)
		for _, at := range b.Acked {
			if at.After(since) {
				after++
			}
		}
	})
	return done, acked, after
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
