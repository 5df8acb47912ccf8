package keyed

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/topic"
)

func TestMergedKeysCountEachRecordOnce(t *testing.T) {
	e := newEnv(t)
	stop := run(t, e.stage(nil, e.deps()).Run)
	defer stop()
	e.send("c", topic.KindEvent, "1")
	e.send("b", topic.KindEvent, "2")
	e.send("c", topic.KindMerge, mergeInto("b"))
	e.send("c", topic.KindEvent, "late")
	e.send("b", topic.KindMerge, mergeInto("a"))
	e.send("c", topic.KindMerge, mergeInto("a")) // published by more than one
	e.send("b", topic.KindEvent, "late2")
	e.send("x", topic.KindMerge, mergeInto("a")) // never seen: only a pointer
	e.send("x", topic.KindEvent, "late3")
	e.send("a", topic.KindMerge, `{"winner":"a"}`) // poison
	e.settled()
	for _, k := range []string{"a", "b", "c", "x"} {
		live, s := e.read(k)
		require.Equal(t, "a", live)
		require.Equal(t, map[string]int{"1": 1, "2": 1, "late": 1, "late2": 1, "late3": 1}, s.N)
	}
}

func TestRepeatedSourcePositionsChangeNothing(t *testing.T) {
	e := newEnv(t)
	stop := run(t, e.stage(nil, e.deps()).Run)
	defer stop()
	e.send("a", topic.KindEvent, "1")
	e.seq--
	e.send("a", topic.KindEvent, "1")
	e.send("a", topic.KindEvent, "2")
	e.settled()
	_, s := e.read("a")
	require.Equal(t, map[string]int{"1": 1, "2": 1}, s.N)
}

// TestNothingLostNothingTwice runs several owners against each other, cuts them off at random, makes
// Redis fail at random, and compares plain counters.
func TestNothingLostNothingTwice(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			e := newEnv(t)
			rng := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a seed reproduces
			keys := []string{"a", "b", "c", "d", "e", "f", "g"}
			parent := map[string]string{}
			find := func(k string) string {
				for parent[k] != "" {
					k = parent[k]
				}
				return k
			}
			want := map[string]int{}
			start := func() (stop func()) {
				d := e.deps()
				d.Stream, d.Store = e.connect()
				return run(t, e.stage(nil, d).Run)
			}
			stops := []func(){start(), start()}
			for i := range 120 {
				k := keys[rng.IntN(len(keys))]
				switch rng.IntN(10) {
				case 0:
					o := keys[rng.IntN(len(keys))]
					l, w := find(k), find(o)
					if l < w {
						l, w = w, l
					}
					if l != w {
						parent[l] = w
						e.send(l, topic.KindMerge, mergeInto(w))
					}
				case 1:
					j := rng.IntN(len(stops))
					stops[j]()
					stops[j] = start()
				case 2:
					e.redis.SetError("LOADING injected")
					time.AfterFunc(time.Duration(rng.IntN(20))*time.Millisecond, func() { e.redis.SetError("") })
				default:
					v := fmt.Sprint(i)
					want[v]++
					e.send(k, topic.KindEvent, v)
				}
			}
			e.settled()
			got := map[string]int{}
			for _, k := range keys {
				f, err := ReadState[tally](context.Background(), e.store, e.topics, topic.StageBuilder, 1, k)
				require.NoError(t, err)
				require.Equal(t, find(k), f.Live)
				if f.State != nil && f.Live == k {
					for v, n := range f.State.N {
						got[v] += n
					}
				}
			}
			require.Equal(t, want, got)
			e.outputsOnce(want)
			for _, stop := range stops {
				stop()
			}
		})
	}
}

func TestLostRedisStopsTheStageLoudly(t *testing.T) {
	for name, lose := range map[string]func(*miniredis.Miniredis){
		"all": func(r *miniredis.Miniredis) { r.FlushAll() },
		"earlier": func(r *miniredis.Miniredis) {
			for _, k := range r.Keys() {
				if r.Exists(k) && r.Type(k) == "hash" {
					r.HSet(k, "applied", "0")
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			stop := run(t, e.stage(nil, e.deps()).Run)
			e.send("a", topic.KindEvent, "1")
			e.settled()
			stop()
			lose(e.redis)
			e.send("a", topic.KindEvent, "2")
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			d := e.deps()
			err := e.stage(nil, d).Run(ctx)
			require.ErrorIs(t, err, ErrStateLost)
			require.ErrorContains(t, err, "docs/operate.md")
		})
	}
}

func TestOtherPartitionCountRefusesToStart(t *testing.T) {
	e := newEnv(t)
	_, err := e.store.Fact(context.Background(), DeploymentKey(e.topics), "partitions", "12")
	require.NoError(t, err)
	require.ErrorIs(t, e.stage(nil, e.deps()).Run(context.Background()), ErrPartitionCount)
}

func TestRedisThatMayLoseWritesRefusesToStart(t *testing.T) {
	e := newEnv(t)
	st, err := store.New(config.Redis{Addresses: []string{e.redis.Addr()}}, zaptest.NewLogger(t)) // can not prove that it is durable
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	d := e.deps()
	d.Store = st
	require.ErrorIs(t, e.stage(nil, d).Run(context.Background()), store.ErrNonDurable)
}
