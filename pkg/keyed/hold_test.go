package keyed

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

func contains(err error, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			return false
		}
	}
	return true
}

// heldNow reads the metric of holds: reason and since when, by partition.
func heldNow(t *testing.T, reg *prometheus.Registry) (reasons map[string]string, since map[string]float64) {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	reasons, since = map[string]string{}, map[string]float64{}
	for _, f := range families {
		if f.GetName() != "weft_stage_held_since_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			reasons[labels["partition"]], since[labels["partition"]] = labels["reason"], m.GetGauge().GetValue()
		}
	}
	return reasons, since
}

// TestHoldSaysWhyAndSinceWhen: in the metric and in what /readyz shows, through several attempts, and no longer
// than it lasts.
func TestHoldSaysWhyAndSinceWhen(t *testing.T) {
	e := newEnv(t)
	reg := prometheus.NewRegistry()
	d := e.deps()
	d.Metrics = reg
	s := e.stage(nil, d)
	stop := run(t, s.Run)
	defer stop()
	e.send("a", topic.KindEvent, "1")
	e.settled()
	began := time.Now()
	e.redis.SetError("OOM command not allowed when used memory > 'maxmemory'.")
	e.send("a", topic.KindEvent, "2")
	p := fmt.Sprint(topic.Partition([]byte("a"), testPartitions))
	held := s.metrics.held.WithLabelValues(p)
	require.Eventually(t, func() bool { return value(t, held) >= 3 }, patience, time.Millisecond)
	reasons, since := heldNow(t, reg)
	require.Equal(t, "redis_memory", reasons[p])
	require.InDelta(t, float64(began.UnixMilli())/1000, since[p], time.Since(began).Seconds()+0.001)
	require.True(t, contains(s.Ready(), "partition "+p+" is held for", "redis_memory", "maxmemory"), s.Ready())
	e.redis.SetError("LOADING Redis is loading the dataset in memory")
	require.Eventually(t, func() bool { reasons, _ := heldNow(t, reg); return reasons[p] == "redis_loading" }, patience, time.Millisecond)
	_, again := heldNow(t, reg)
	require.InDelta(t, since[p], again[p], 0, "it is the same hold")
	e.redis.SetError("")
	e.settled()
	require.Eventually(t, func() bool { return s.Ready() == nil }, patience, time.Millisecond)
	require.Eventually(t, func() bool { reasons, _ := heldNow(t, reg); return len(reasons) == 0 }, patience, time.Millisecond)
	_, a := e.read("a")
	require.Equal(t, map[string]int{"1": 1, "2": 1}, a.N)
}

// TestHoldReasons: every error that can hold has one of the closed set.
func TestHoldReasons(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("publish 3 records: %w", err) }
	for want, err := range map[string]error{
		"redis_memory": wrap(store.ErrMemory), "redis_unreachable": wrap(store.ErrUnreachable), "redis_other": errors.New("what"),
		holdKafka: wrap(fmt.Errorf("%w: %w", errKafka, stream.ErrPermanent)), holdStateLost: wrap(ErrStateLost),
		holdNewer: wrap(topic.ErrNewerSchema), holdContention: wrap(errRefused), holdOutOfLog: wrap(stream.ErrOffsetOutOfRange),
		holdPlanner: wrap(fmt.Errorf("%w: %w", errDecision, errors.New("a channel"))), holdRebuilding: wrap(ErrRebuilding),
	} {
		require.Equal(t, want, holdReason(err))
	}
	require.Equal(t, "redis_disk", holdReason(fmt.Errorf("%w: %w", errDecision, store.ErrDisk)), "what a planner asks of Redis is Redis")
}

// TestWaitInsideACallIsAHold: Fetch and Produce try again by themselves, so no error says that Kafka is away.
func TestWaitInsideACallIsAHold(t *testing.T) {
	long := time.Now().Add(-2 * kafkaPatience)
	for _, x := range []struct {
		what waiting
		want string
	}{{waitFetch, holdKafka}, {waitSend, holdKafka}, {waitRecover, holdRecovering}, {waitFence, holdFence}} {
		var h hold
		h.wait(x.what, time.Now())
		_, _, ok, _ := h.now()
		require.False(t, ok, "it is not long yet")
		h.wait(x.what, long)
		reason, since, ok, _ := h.now()
		require.True(t, ok)
		require.Equal(t, x.want, reason)
		require.Equal(t, long, since)
		require.Equal(t, x.what == waitFence, h.text() == "", "what waits for the fence is ready for all else")
		h.wait(x.what, time.Time{})
		_, _, ok, _ = h.now()
		require.False(t, ok)
	}
}

// TestHotKeyIsSeen: a key above its share is named once per window, others are not, and few keys are counted.
func TestHotKeyIsSeen(t *testing.T) {
	var h hotWatch
	now := time.Now()
	_, _, over := h.hottest(now)
	require.False(t, over)
	slot := Slot{tag: "{x}"}
	batch := func(hot int) {
		var in intake
		in.reset()
		for i := range 500 {
			r := Record{}
			if r.Key = fmt.Appendf(nil, "k%d", i); i < hot {
				r.Key = []byte("hot")
			}
			in.add(r, &slot)
		}
		h.batch(&in)
	}
	for range 10 {
		batch(150)
	}
	key, share, over := h.hottest(now.Add(hotWindow))
	require.True(t, over)
	require.Equal(t, "hot", key)
	require.InDelta(t, 0.3, share, 0.001)
	require.Empty(t, h.counts, "a new window begins")
	batch(0)
	batch(0)
	_, share, over = h.hottest(now.Add(2 * hotWindow))
	require.True(t, over)
	require.Zero(t, share, "no key had enough of a batch to be counted")
	batch(400)
	_, share, _ = h.hottest(now.Add(3 * hotWindow))
	require.Zero(t, share, "too few records to judge")
}
