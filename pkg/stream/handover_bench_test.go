package stream

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
)

const (
	handoverPartitions = 6
	// handoverTick is how often a record is written to each partition.
	handoverTick = 10 * time.Millisecond
	// handoverQuiet is how long a phase goes on after the group is at rest again.
	handoverQuiet = time.Second
	// Each phase is repeated, and the median told beside the worst: one scheduling pause of a busy machine is longer
	// than what is measured.
	handoverRounds, handoverKills = 5, 3
)

// deliveries notes which member got records of which partition, and how long a partition delivered nothing although
// there was something: what the writers or the broker are slow with does not count.
type deliveries struct {
	mu     sync.Mutex
	there  [handoverPartitions][]time.Time // by offset: when the broker had acknowledged it
	last   [handoverPartitions]time.Time
	pause  [handoverPartitions]time.Duration
	by     [handoverPartitions]string
	begins [handoverPartitions]int // of owners
}

func (d *deliveries) wrote(partition int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.there[partition] = append(d.there[partition], time.Now())
}

func (d *deliveries) note(partition int, offset int64, by string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	since := d.last[partition]
	switch there := d.there[partition]; {
	case int(offset) >= len(there): // its writer does not know yet
		since = now
	case there[offset].After(since):
		since = there[offset]
	}
	d.pause[partition] = max(d.pause[partition], now.Sub(since))
	d.last[partition], d.by[partition] = now, by
}

// handed is what a phase did to the partitions whose owner stayed the same, and to the others.
type handed struct {
	same, moved time.Duration
	begun       int // owners that began anew although the partition stayed
	moves       int
}

// measure begins a measurement; the function that it returns ends it.
func (d *deliveries) measure() func() handed {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pause = [handoverPartitions]time.Duration{}
	before, begins := d.by, d.begins
	return func() handed {
		d.mu.Lock()
		defer d.mu.Unlock()
		var h handed
		for p := range before {
			if d.by[p] == before[p] {
				h.same = max(h.same, d.pause[p])
				h.begun += d.begins[p] - begins[p]
			} else {
				h.moved = max(h.moved, d.pause[p])
				h.moves++
			}
		}
		return h
	}
}

// own delivers as the stages do: fetch, then commit.
func (d *deliveries) own(c *Client, by string) own {
	return func(ctx context.Context, cl *Claim) error {
		d.mu.Lock()
		d.begins[cl.Partition]++
		d.mu.Unlock()
		f := c.NewFetcher(cl.Topic, cl.Partition, max(cl.Offset, 0), FetchOptions{})
		defer f.Close()
		for ctx.Err() == nil {
			batch, err := f.Fetch(ctx, 100*time.Millisecond)
			if err != nil {
				return err
			}
			if len(batch.Records) > 0 {
				d.note(cl.Partition, batch.Records[0].Offset, by)
			}
			if err := cl.Commit(ctx, batch.Next, ""); err != nil {
				return err
			}
		}
		return nil
	}
}

// handover is three members of a group, and writers to all partitions.
type handover struct {
	b       *testing.B
	brokers []string
	run     runGroup
	opt     GroupOptions
	d       deliveries
	phases  map[string][]handed
}

// join starts a member; kill closes its connections, leave ends it as planned.
func (h *handover) join(by, instance string) (leave, kill func()) {
	c, err := New(config.Kafka{
		Brokers: h.brokers, ClientID: by, InstanceID: instance, SessionTimeout: shortSession, RebalanceTime: shortSession,
	}, zap.NewNop())
	require.NoError(h.b, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.run(c, ctx, h.opt, h.d.own(c, by)) }()
	end := sync.OnceFunc(func() {
		cancel()
		<-ended
		c.Close()
	})
	h.b.Cleanup(end)
	return end, func() {
		c.Close()
		end()
	}
}

// settle waits until so many members deliver equally many partitions each, and then for a quiet time.
func (h *handover) settle(members int) {
	require.Eventually(h.b, func() bool {
		h.d.mu.Lock()
		defer h.d.mu.Unlock()
		has := map[string]int{}
		for p, by := range h.d.by {
			if time.Since(h.d.last[p]) < time.Second {
				has[by]++
			}
		}
		for _, n := range has {
			if n != handoverPartitions/members {
				return false
			}
		}
		return len(has) == members
	}, patience, handoverTick)
	time.Sleep(handoverQuiet) // the measurement goes on
}

// phase measures what something does to the partitions.
func (h *handover) phase(what string, members int, do func()) {
	end := h.d.measure()
	do()
	h.settle(members)
	h.phases[what] = append(h.phases[what], end())
}

// report prints the medians, and the worst in brackets.
func (h *handover) report() {
	for _, what := range slices.Sorted(maps.Keys(h.phases)) {
		of := h.phases[what]
		figure := func(f func(handed) time.Duration) (median, worst time.Duration) {
			all := make([]time.Duration, len(of))
			for i := range of {
				all[i] = f(of[i]).Round(time.Millisecond / 10)
			}
			slices.Sort(all)
			return all[len(all)/2], all[len(all)-1]
		}
		same, worstSame := figure(func(x handed) time.Duration { return x.same })
		moved, worstMoved := figure(func(x handed) time.Duration { return x.moved })
		begun, moves := 0, 0
		for _, x := range of {
			begun, moves = begun+x.begun, moves+x.moves
		}
		h.b.ReportMetric(float64(same.Microseconds())/1e3, strings.ReplaceAll(what, " ", "-")+"-same-ms")
		h.b.ReportMetric(float64(moved.Microseconds())/1e3, strings.ReplaceAll(what, " ", "-")+"-moved-ms")
		h.b.Logf("%-14s %d times; longest pause: owner stays %s (%s), begun anew %d; owner changes %s (%s), %d of %d", what, len(of),
			same, worstSame, begun, moved, worstMoved, moves, len(of)*handoverPartitions)
	}
}

// BenchmarkHandOver prints how long a partition of a group of two or three members delivers nothing while the group
// changes, with a session time-out of six seconds; "none" is the same time without any change. The reference is
// kafka-go's ConsumerGroup. It runs on the Kafka at WEFT_TEST_KAFKA, or on kfake.
func BenchmarkHandOver(b *testing.B) {
	brokers := []string{os.Getenv("WEFT_TEST_KAFKA")}
	if brokers[0] == "" {
		brokers = fake(b).ListenAddrs()
	}
	for _, of := range []string{"weft", "reference"} {
		b.Run(of, func(b *testing.B) {
			for range b.N {
				benchHandOver(b, brokers, memberships()[of], of == "weft")
			}
		})
	}
}

func benchHandOver(b *testing.B, brokers []string, run runGroup, static bool) {
	c := client(b, brokers)
	n := newTopic(b, c, "handover", handoverPartitions)
	h := &handover{b: b, brokers: brokers, run: run, phases: map[string][]handed{}, opt: GroupOptions{Group: name("group"), Topics: []string{n}}}
	ctx, stop := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop()
	for p := range handoverPartitions {
		writers.Go(func() {
			for tick := time.NewTicker(handoverTick); ctx.Err() == nil; <-tick.C {
				if err := c.Produce(ctx, n, p, []Record{{Value: fmt.Append(nil, p)}}); err != nil {
					if ctx.Err() == nil {
						b.Error(err)
					}
					return
				}
				h.d.wrote(p)
			}
		})
	}
	h.join("a", "")
	h.join("b", "")
	h.settle(2)
	for range handoverRounds {
		h.phase("none", 2, func() {})
		var leave func()
		h.phase("join", 3, func() { leave, _ = h.join("c", "") })
		h.phase("leave", 2, leave)
	}
	for range handoverKills {
		_, kill := h.join("d", "")
		h.settle(3)
		h.phase("kill", 2, kill)
	}
	if static {
		leave, _ := h.join("e", "pod-e")
		h.settle(3)
		generation := func() int32 { return restful(b, brokers, h.opt.Group, 3) }
		at := generation()
		for range handoverRounds {
			h.phase("static restart", 3, func() {
				leave()
				leave, _ = h.join("e", "pod-e")
			})
		}
		b.Logf("%d planned restarts of a static member made %d generations", handoverRounds, generation()-at)
	}
	h.report()
}
