package collector

import (
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/spool/registry"
)

// noKafka is an address on which nobody listens: that of a Kafka which is away.
const noKafka = "127.0.0.1:1"

// seenThenAway is a deployment whose topics a collector has seen, and whose Kafka is away since.
func seenThenAway(t *testing.T) (b *broker, r *miniredis.Miniredis, reg *registry.Registry, back func()) {
	b, r, reg = newSpoolingBroker(t)
	s := b.ready()
	require.Eventually(t, func() bool {
		n, err := reg.Partitions(b.context())
		return err == nil && n == b.cfg.Topics.Partitions
	}, patience, 10*time.Millisecond)
	require.NoError(t, s.stop())
	brokers := b.cfg.Kafka.Brokers
	b.cfg.Kafka.Brokers = []string{noKafka}
	return b, r, reg, func() { b.cfg.Kafka.Brokers = brokers }
}

// A collector that starts while Kafka is away takes events as one does that was there before, and says so to balancers.
func TestReadyWithoutKafkaFromTheStart(t *testing.T) {
	b, r, reg, back := seenThenAway(t)
	s := b.start()
	require.Eventually(t, func() bool { return s.Ready() == nil }, patience, 10*time.Millisecond)
	status, text := post(t, "http://"+s.Addr()+"/v1/page", basic("wk_demo"), `{"userId":"u","messageId":"m"}`)
	require.Equal(t, 200, status, text)
	require.Equal(t, 1, s.spool.Behind())
	r.Close() // it is registered, and needs Redis no more
	require.NoError(t, s.spool.Usable(b.context()))
	require.NoError(t, r.Start())
	require.NoError(t, s.stop())
	back()
	s = b.ready()
	b.drained(s, reg)
	require.Len(t, flat(b.read(b.cfg.Topics.Set().EventsCollected())), 1)
}

// It is not ready, and says why, when it could not acknowledge anything, or when what it acknowledged might go wrong.
func TestNotReadyWithoutKafka(t *testing.T) {
	says := func(s *running, what string) {
		t.Helper()
		require.Eventually(t, func() bool { err := s.Ready(); return err != nil && strings.Contains(err.Error(), what) }, patience, 10*time.Millisecond)
		require.NoError(t, s.stop())
	}
	t.Run("Redis away", func(t *testing.T) {
		b, r, _, _ := seenThenAway(t)
		s := b.start()
		require.Eventually(t, func() bool { return s.Ready() == nil }, patience, 10*time.Millisecond)
		r.Close()
		says(s, "cannot be registered")
	})
	t.Run("no spool", func(t *testing.T) {
		b, _, _, _ := seenThenAway(t)
		b.cfg.Collector.SpoolMaxBytes = 0
		says(b.start(), "look for topic")
	})
	t.Run("spool full", func(t *testing.T) {
		b, _, _, _ := seenThenAway(t)
		b.cfg.Collector.SpoolMaxBytes = 30_000
		s := b.start()
		status := 200
		for i := 0; status == 200; i++ {
			status, _ = post(t, "http://"+s.Addr()+"/v1/page", basic("wk_demo"), `{"userId":"u","name":"`+strings.Repeat("x", 10_000)+`"}`)
			require.Less(t, i, 10)
		}
		require.Equal(t, 503, status)
		require.NoError(t, s.stop())
		b.cfg.Collector.SpoolMaxBytes = 10_000 // what it holds is above that
		says(b.start(), "spool is full")
	})
	t.Run("topics never seen", func(t *testing.T) {
		b, _, _ := newSpoolingBroker(t)
		b.cfg.Kafka.Brokers = []string{noKafka}
		says(b.start(), errNeverSeen.Error())
	})
	t.Run("topic missing", func(t *testing.T) {
		b, _, _, back := seenThenAway(t)
		back()
		b.cfg.Topics.Prefix, b.cfg.Collector.SpoolDir = "other.", t.TempDir()
		require.NoError(t, registry.New(b.store, b.cfg.Topics.Set()).NotePartitions(b.context(), b.cfg.Topics.Partitions))
		says(b.start(), "look for topic other.events.collected")
	})
}

// What is spooled by a wrong partition count would go to wrong partitions: it ends, as when it sees the topics.
func TestAnotherPartitionCountIsRefusedWithoutKafka(t *testing.T) {
	b, _, _, _ := seenThenAway(t)
	b.cfg.Topics.Partitions, b.cfg.Collector.SpoolDir, b.cfg.Collector.DrainDelay = 4, t.TempDir(), patience
	began := time.Now()
	require.ErrorContains(t, b.start().wait(), "another collector has seen topics of 3 partitions, topics.partitions says 4")
	require.Less(t, time.Since(began), patience, "nobody is waited for")
}
