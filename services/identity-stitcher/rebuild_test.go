package stitcher

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"

	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/topic"
)

func (e *env) rebuild() (keyed.RebuildReport, error) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sc, st := e.connect()
	ends, err := sc.EndOffsets(ctx, e.topics.EventsCollected())
	require.NoError(e.t, err)
	return Rebuild(ctx, e.cfg, Deps{Stream: sc, Store: st, Log: zaptest.NewLogger(e.t, zaptest.Level(zapcore.ErrorLevel))},
		keyed.RebuildOptions{Past: &keyed.LogPast{Stream: sc, End: sc.EndOffsets}, From: e.topics, Ends: ends})
}

// TestRebuildOfTheGraph loses all of Redis twice while people turn out to be the same: who is who, what is a
// duplicate and what was published are as of one undisturbed stitcher.
func TestRebuildOfTheGraph(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			e := newEnv(t)
			e.received = time.Now()
			rng := rand.New(rand.NewPCG(seed, 7)) //nolint:gosec // a seed reproduces
			when := map[int]bool{20 + rng.IntN(50): true, 80 + rng.IntN(60): true}
			nothingLost(t, e, seed, func(i int, stops []func()) []func() {
				if when[i+5] { // from here on much is published, or half published, and not committed
					e.deaf(rng)
				}
				if !when[i] {
					return stops
				}
				time.Sleep(time.Duration(rng.IntN(50)) * time.Millisecond) // some moment: any will do
				if rng.IntN(2) == 0 {                                      // what is under way does not end in order
					e.redis.SetError("LOADING injected")
				}
				for _, stop := range stops {
					stop()
				}
				e.redis.SetError("")
				e.hear()
				e.redis.FlushAll()
				if committed := e.committed(); committed > 0 {
					require.ErrorIs(t, e.service().Run(context.Background()), keyed.ErrStateLost)
				}
				_, err := e.rebuild()
				require.NoError(t, err)
				return []func(){e.start(), e.start()}
			})
		})
	}
}

// deaf has Kafka cut the connection of who commits, and of some who publish.
func (e *env) deaf(rng *rand.Rand) {
	e.silent.Store(true)
	cut := func(kmsg.Request) (kmsg.Response, error, bool) {
		e.kafka.KeepControl()
		if !e.silent.Load() {
			return nil, nil, false
		}
		return nil, errors.New("cut off"), true
	}
	e.kafka.ControlKey(int16(kmsg.OffsetCommit), cut)
	some := rng.IntN(testPartitions)
	name := []string{e.topics.EventsIdentified(), e.topics.IdentitiesLinked(), "none of them"}[rng.IntN(3)]
	e.kafka.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		e.kafka.KeepControl()
		for _, t := range req.(*kmsg.ProduceRequest).Topics {
			for _, p := range t.Partitions {
				if t.Topic == name && int(p.Partition) == some && e.silent.Load() {
					return nil, errors.New("cut off"), true
				}
			}
		}
		return nil, nil, false
	})
}

// hear ends what deaf began.
func (e *env) hear() { e.silent.Store(false) }

// committed is how many records the stage has told Kafka of.
func (e *env) committed() int64 {
	e.t.Helper()
	var n int64
	got, err := e.stream.Committed(context.Background(), e.topics.Group("identity-stitcher", e.topics.EventsCollected()), e.topics.EventsCollected())
	require.NoError(e.t, err)
	for _, c := range got {
		n += max(0, c.Offset)
	}
	return n
}

// The first batch of all dies between its two topics: the link is published, the merge is not, and
// events.identified holds nothing. A rebuild must not take that for a past that retention has cut.
func TestRebuildPublishesTheMergeOfTheFirstLink(t *testing.T) {
	e := newEnv(t)
	e.received = time.Now()
	e.silent.Store(true)
	e.kafka.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		e.kafka.KeepControl()
		for _, to := range req.(*kmsg.ProduceRequest).Topics {
			if to.Topic == e.topics.EventsIdentified() && e.silent.Load() {
				return nil, errors.New("cut off"), true
			}
		}
		return nil, nil, false
	})
	stop := e.start()
	e.send("a1", "web", "m1", "", `{"type":"identify","anonymousId":"a1","userId":"u1"}`)
	require.Eventually(t, func() bool { return len(e.read(e.topics.IdentitiesLinked())) > 0 }, patience, 5*time.Millisecond)
	stop()
	require.Empty(t, e.read(e.topics.EventsIdentified()))
	e.hear()
	e.redis.FlushAll()
	_, err := e.rebuild()
	require.NoError(t, err)
	stop = e.start()
	e.settled()
	stop()
	identified := e.read(e.topics.EventsIdentified())
	require.Len(t, ofKind(identified, topic.KindMerge), 1)
	require.Len(t, ofKind(identified, topic.KindEvent), 1)
}

// Only a past that was cut can have held a merge that is not there.
func TestMergesOfAWholePastAreThereOrNeverWere(t *testing.T) {
	at := func(seq int64) topic.Position {
		return topic.Position{Stage: topic.StageStitcher, Partition: 1, Seq: seq}
	}
	for name, tc := range map[string]struct {
		cut   bool
		first map[int]int64
		want  bool
	}{
		"whole and empty":    {false, nil, false},
		"whole, and later":   {false, map[int]int64{1: 9}, false},
		"cut and empty":      {true, nil, true},
		"cut, and later":     {true, map[int]int64{1: 9}, true},
		"cut, and earlier":   {true, map[int]int64{1: 3}, false},
		"cut, of others":     {true, map[int]int64{0: 3}, true},
		"whole, and earlier": {false, map[int]int64{1: 3}, false},
	} {
		m := &merges{losers: map[string]bool{"there": true}, cut: tc.cut, first: tc.first}
		require.Equal(t, tc.want, m.has("gone", at(5)), name)
		require.True(t, m.has("there", at(5)), name)
	}
}

// What ClickHouse brings back has no positions: such a past reaches to its beginning, but the topic was cut.
func TestRowsOfClickHouseMeanThatTheTopicWasCut(t *testing.T) {
	link := topic.Position{Stage: topic.StageStitcher, Partition: 1, Seq: 5}
	published := keyed.Record{Kind: topic.KindMerge, Position: topic.Position{Stage: topic.StageStitcher, Partition: 1, Seq: 9}}
	for want, recs := range map[bool][]keyed.Record{
		true:  {{Kind: topic.KindMerge}, published},
		false: {published},
	} {
		p := &replanner{from: topic.Set{Prefix: "t.", Partitions: 2}, published: map[place]bool{}, unnamed: map[string]bool{}}
		seen, err := p.readIdentified(t.Context(), func(_ context.Context, _ string, partition int, see func(keyed.Record) error) (bool, error) {
			for _, r := range recs {
				if partition == 0 {
					require.NoError(t, see(r))
				}
			}
			return true, nil
		})
		require.NoError(t, err)
		require.Equal(t, want, seen.has("gone", link))
	}
	p := &replanner{from: topic.Set{Prefix: "t.", Partitions: 2}}
	seen, err := p.readIdentified(t.Context(), func(_ context.Context, _ string, partition int, _ func(keyed.Record) error) (bool, error) {
		return partition == 0, nil
	})
	require.NoError(t, err)
	require.True(t, seen.has("gone", link), "one partition was cut")
}
