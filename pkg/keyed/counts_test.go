package keyed

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// wire counts what goes to Redis: commands by name, and turns from writing to reading.
type wire struct {
	mu       sync.Mutex
	commands map[string]int
	trips    int
}

func (w *wire) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.commands, w.trips = map[string]int{}, 0
}

func (w *wire) counts() (map[string]int, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.commands), w.trips
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	return &countedConn{Conn: c, w: w}, err
}

// countedConn reads along what is written, in Redis' protocol: arrays of strings.
type countedConn struct {
	net.Conn
	w       *wire
	rest    []byte
	args    int // of the command under way, still to come
	first   bool
	wrote   bool
	skipped int // bytes of a long argument still to come
}

func (c *countedConn) Read(b []byte) (int, error) {
	c.w.mu.Lock()
	if c.wrote {
		c.w.trips++
		c.wrote = false
	}
	c.w.mu.Unlock()
	return c.Conn.Read(b)
}

func (c *countedConn) Write(b []byte) (int, error) {
	c.w.mu.Lock()
	c.wrote = true
	c.rest = append(c.rest, b...)
	for c.next() {
	}
	c.w.mu.Unlock()
	return c.Conn.Write(b)
}

// next reads one header or argument; false: more must come first.
func (c *countedConn) next() bool {
	if c.skipped > 0 {
		n := min(c.skipped, len(c.rest))
		c.rest, c.skipped = c.rest[n:], c.skipped-n
		return c.skipped == 0 && len(c.rest) > 0
	}
	line, rest, ok := bytes.Cut(c.rest, []byte("\r\n"))
	if !ok {
		return false
	}
	n, err := strconv.Atoi(string(line[1:]))
	if err != nil {
		panic(fmt.Sprintf("not Redis' protocol: %q", line))
	}
	if line[0] == '*' {
		c.args, c.first, c.rest = n, true, rest
		return true
	}
	if c.first {
		if len(rest) < n {
			return false
		}
		c.w.commands[string(bytes.ToUpper(rest[:n]))]++
		c.first = false
	}
	c.rest, c.skipped, c.args = rest, n+2, c.args-1
	return true
}

// counted is an env whose traffic with Redis and Kafka is counted.
type counted struct {
	*env
	wire  wire
	kafka map[string]int
	mu    sync.Mutex
}

func newCounted(t testing.TB, partitions int) *counted {
	t.Helper()
	c := &counted{env: newEnvOf(t, partitions), kafka: map[string]int{}}
	c.wire.reset()
	st, err := store.New(config.Redis{Addresses: []string{c.redis.Addr()}, AllowNonDurable: true}, zap.NewNop(), store.WithDial(c.wire.dial), store.WithPatience(patience))
	require.NoError(t, err)
	t.Cleanup(func() { _ = st.Close() })
	c.store = st
	c.env.kafka.Control(func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.env.kafka.KeepControl()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.kafka[kmsg.NameForKey(r.Key())]++
		return nil, nil, false
	})
	return c
}

func (c *counted) requests() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.kafka
	c.kafka = map[string]int{}
	return got
}

// owned is a worker that its test drives by hand: nothing happens by the clock.
func (e *env) owned(s *Stage, partition int) *worker {
	e.t.Helper()
	w := newWorker(s, &stream.Claim{Topic: s.opt.Input, Partition: partition, Offset: -1})
	e.t.Cleanup(w.close)
	require.NoError(e.t, w.recover(context.Background()))
	return w
}

// through brings all input up to end through the worker.
func through(ctx context.Context, w *worker, end int64) error {
	for w.m.applied < end {
		if err := further(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// further brings one batch of input through the worker.
func further(ctx context.Context, w *worker) error {
	if len(w.buf) == 0 {
		w.pump.ask()
		b := <-w.pump.got
		w.pump.asked = time.Time{}
		if b.err != nil {
			return b.err
		}
		w.buf, w.bufNext = b.Records, b.Next
	}
	return w.step(ctx)
}

// TestCountsPerThousandRecords is a gate: what a thousand records cost in Redis and Kafka, exactly. Each EVALSHA is
// a write, for which Redis with appendfsync always makes at most one fsync.
func TestCountsPerThousandRecords(t *testing.T) {
	const records, partitions = 1000, 12
	c := newCounted(t, partitions)
	body := make([]byte, benchBody)
	recs := make([]stream.Record, records)
	for i := range recs {
		pos := topic.Position{Stage: "upstream", Seq: int64(i) + 1}
		recs[i] = stream.Record{Key: fmt.Appendf(nil, "k%d", i%200), Value: body, Headers: []topic.Header{
			{Key: topic.HeaderKind, Value: []byte(topic.KindEvent)}, {Key: topic.HeaderPosition, Value: []byte(pos.String())},
		}}
	}
	ctx := context.Background()
	require.NoError(t, c.stream.Produce(ctx, c.topics.EventsIdentified(), 0, recs))
	fold := func(stage string, fence *Fence) *Stage {
		s, err := NewFold(Options{
			Stage: stage, Input: c.topics.EventsIdentified(), Topics: c.topics, StateVersion: 1, Fence: fence,
		}, Fold[tally](sumFold{tallyFold{c.topics}}), c.deps())
		require.NoError(t, err)
		return s
	}
	plan, err := NewPlan(Options{Stage: "plan", Input: c.topics.EventsIdentified(), Topics: c.topics},
		&passPlanner{out: c.topics.ProfilesChanged(), at: time.Now().UTC().Truncate(24 * time.Hour).Add(12 * time.Hour), // no window reaches over midnight
			fail: func() error { return nil }, pub: map[int64]int{}}, c.deps())
	require.NoError(t, err)
	for _, x := range []struct {
		name     string
		s        *Stage
		commands map[string]int
		trips    int
	}{
		{"fold", fold("fold", nil), map[string]int{"MGET": 2, "EVALSHA": 2}, 4},
		// The index of timers is looked at once at the beginning, in the same round trip; then when one is due.
		{"fold with timers", fold("timers", NewFence(nil, c.topics, 0, c.deps())), map[string]int{"MGET": 2, "ZRANGEBYSCORE": 2, "EVALSHA": 2}, 4},
		{"plan that asks for ids seen", plan, map[string]int{"SMISMEMBER": 2, "EVALSHA": 2}, 4},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := c.owned(x.s, 0)
			c.wire.reset()
			c.requests()
			began := time.Now()
			for w.m.applied < records {
				if w.timers != nil {
					w.timers.looked = time.Now().Add(time.Hour) // not by the clock, either
				}
				require.NoError(t, further(ctx, w))
			}
			commands, trips := c.wire.counts()
			require.Equal(t, x.commands, commands)
			require.Equal(t, x.trips, trips)
			kafka := c.requests()
			require.LessOrEqual(t, kafka["Produce"], 2*partitions, "one request per batch and target partition: %v", kafka)
			require.LessOrEqual(t, kafka["Fetch"], 3+int(time.Since(began)/fetchWait), "%v", kafka)
		})
	}
}

// TestIdleStageAsksLittle: what an idle stage costs per second, at most.
func TestIdleStageAsksLittle(t *testing.T) {
	const partitions = 12
	c := newCounted(t, partitions)
	s, err := NewFold(Options{
		Stage: topic.StageBuilder, Input: c.topics.EventsIdentified(), Topics: c.topics, StateVersion: 1,
		Fence: NewFence(nil, c.topics, 0, c.deps()),
	}, Fold[tally](tallyFold{c.topics}), Deps{Stream: c.stream, Store: c.store, Log: zap.NewNop()})
	require.NoError(t, err)
	stop := run(t, s.Run)
	defer stop()
	c.wire.reset()
	require.Eventually(t, func() bool {
		if s.Ready() != nil {
			return false
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.workers) == partitions
	}, patience, 10*time.Millisecond)
	looks := func(n int) {
		t.Helper()
		require.Eventually(t, func() bool { _, trips := c.wire.counts(); return trips >= n*partitions }, patience, 10*time.Millisecond)
	}
	looks(7) // by then the pauses between them, which double, are as long as they become
	c.requests()
	c.wire.reset()
	began := time.Now()
	looks(4)
	commands, trips := c.wire.counts()
	total := 0
	for _, n := range commands {
		total += n
	}
	kafka := c.requests()
	seconds := time.Since(began).Seconds() // behind the counts: what a slow machine does late is not taken for more
	t.Logf("per second: %.0f commands in %.0f round trips to Redis, %.0f fetches, %.0f commits to Kafka",
		float64(total)/seconds, float64(trips)/seconds, float64(kafka["Fetch"])/seconds, float64(kafka["OffsetCommit"])/seconds)
	require.LessOrEqual(t, float64(total), 3*partitions*(seconds+2), "%v", commands)
	require.LessOrEqual(t, float64(kafka["OffsetCommit"]), partitions*(seconds+2), "%v", kafka)
}
