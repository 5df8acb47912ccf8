package stream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
)

const (
	handoverPartitions = 6
	// handoverTick is how often a record is written to each partition: the resolution of the gaps.
	handoverTick = 10 * time.Millisecond
	// handoverQuiet is how long a phase goes on after the group is at rest again.
	handoverQuiet = 2 * time.Second
)

// deliveries notes when which member got a record of which partition, and the longest time without one.
type deliveries struct {
	mu   sync.Mutex
	last [handoverPartitions]time.Time
	gap  [handoverPartitions]time.Duration
	by   [handoverPartitions]string
}

func (d *deliveries) note(partition int, by string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if !d.last[partition].IsZero() {
		d.gap[partition] = max(d.gap[partition], now.Sub(d.last[partition]))
	}
	d.last[partition], d.by[partition] = now, by
}

// owners returns who got the last record of each partition, and begins a new measurement.
func (d *deliveries) owners() [handoverPartitions]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gap = [handoverPartitions]time.Duration{}
	return d.by
}

// worst returns the longest gaps since owners: of partitions whose owner is still the same, and of the others.
func (d *deliveries) worst(before [handoverPartitions]string) (same, moved time.Duration, moves int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for p := range before {
		if d.by[p] == before[p] {
			same = max(same, d.gap[p])
		} else {
			moved = max(moved, d.gap[p])
			moves++
		}
	}
	return same, moved, moves
}

// own delivers as the stages do: fetch, then commit.
func (d *deliveries) own(c *Client, by string) own {
	return func(ctx context.Context, cl *Claim) error {
		f := c.NewFetcher(cl.Topic, cl.Partition, max(cl.Offset, 0), FetchOptions{})
		defer f.Close()
		for ctx.Err() == nil {
			batch, err := f.Fetch(ctx, 100*time.Millisecond)
			if err != nil {
				return err
			}
			if len(batch.Records) > 0 {
				d.note(cl.Partition, by)
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
}

// join starts a member; kill closes its connections, leave ends it as planned.
func (h *handover) join(by, instance string) (leave, kill func()) {
	c, err := New(config.Kafka{
		Brokers: h.brokers, ClientID: by, InstanceID: instance, SessionTimeout: testSession, RebalanceTime: testSession,
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
	before := h.d.owners()
	do()
	h.settle(members)
	same, moved, moves := h.d.worst(before)
	h.b.ReportMetric(float64(same.Microseconds())/1e3, what+"-same-ms")
	h.b.ReportMetric(float64(moved.Microseconds())/1e3, what+"-moved-ms")
	h.b.ReportMetric(float64(moves), what+"-moves")
	h.b.Logf("%-16s longest gap: %8s where the owner stays, %8s where it changes (%d of %d)", what,
		same.Round(time.Millisecond), moved.Round(time.Millisecond), moves, handoverPartitions)
}

// BenchmarkHandOver prints the longest time between two deliveries of a partition while a group of three members
// changes, with a session time-out of six seconds, and without any change ("none") for comparison. The reference is
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
	h := &handover{b: b, brokers: brokers, run: run, opt: GroupOptions{Group: name("group"), Topics: []string{n}}}
	ctx, stop := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop()
	for p := range handoverPartitions {
		writers.Go(func() {
			for tick := time.NewTicker(handoverTick); ctx.Err() == nil; <-tick.C {
				if err := c.Produce(ctx, n, p, []Record{{Value: fmt.Append(nil, p)}}); err != nil && !errors.Is(err, context.Canceled) {
					b.Error(err)
					return
				}
			}
		})
	}
	h.join("a", "")
	h.join("b", "")
	h.settle(2)
	h.phase("none", 2, func() {})
	var leave, kill func()
	h.phase("join", 3, func() { leave, _ = h.join("c", "") })
	h.phase("leave", 2, func() { leave() })
	_, kill = h.join("d", "")
	h.settle(3)
	h.phase("kill", 2, func() { kill() })
	if static {
		leave, _ = h.join("e", "pod-e")
		h.settle(3)
		at := generationOf(b, brokers, h.opt.Group)
		h.phase("static-restart", 3, func() {
			leave()
			h.join("e", "pod-e")
		})
		b.ReportMetric(float64(generationOf(b, brokers, h.opt.Group)-at), "static-restart-rebalances")
	}
}
