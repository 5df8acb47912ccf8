//go:build integration

package keyed

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/embedded"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/topic"
)

// ownRedis is a redis-server of one test, which may fill it up: the one of WEFT_TEST_REDIS is everybody's.
func ownRedis(t *testing.T) (*store.Client, *redis.Client) {
	t.Helper()
	free, err := embedded.FreePort()
	require.NoError(t, err)
	port := strconv.Itoa(free)
	cmd := exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", t.TempDir(), "--save", "", //nolint:gosec // a test's own server
		"--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")
	require.NoError(t, cmd.Start(), "'make redis' installs it")
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	addr := "127.0.0.1:" + port
	raw := redis.NewClient(&redis.Options{Addr: addr, Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = raw.Close() })
	require.Eventually(t, func() bool { return raw.Ping(context.Background()).Err() == nil }, patience, 10*time.Millisecond)
	st, err := store.New(config.Redis{Addresses: []string{addr}}, zaptest.NewLogger(t))
	require.NoError(t, err)
	t.Cleanup(func() { _ = st.Close() })
	return st, raw
}

// fill makes Redis refuse what takes memory.
func fill(t *testing.T, raw *redis.Client) {
	t.Helper()
	require.NoError(t, raw.ConfigSet(context.Background(), "maxmemory", "1mb").Err()) // an empty one takes nearly as much
	require.ErrorContains(t, raw.Set(context.Background(), "any", "thing", 0).Err(), "OOM")
}

func empty(t *testing.T, raw *redis.Client) {
	t.Helper()
	require.NoError(t, raw.ConfigSet(context.Background(), "maxmemory", "0").Err())
}

// contents is all that a slot holds.
func contents(t *testing.T, raw *redis.Client, slot Slot) map[string]string {
	t.Helper()
	ctx := context.Background()
	all := map[string]string{}
	keys, err := raw.Keys(ctx, "*"+slot.tag[1:len(slot.tag)-1]+"*").Result()
	require.NoError(t, err)
	for _, k := range keys {
		all[k], err = raw.Dump(ctx, k).Result()
		require.NoError(t, err)
	}
	return all
}

// TestScriptUnderFullRedis: refused as a whole, with whatever it carries, while a trim alone goes through.
func TestScriptUnderFullRedis(t *testing.T) {
	st, raw := ownRedis(t)
	ctx := context.Background()
	slot := newSlot(st, topic.Set{Prefix: "test.", Partitions: 3}, "full", 0, store.NewScript(commitSource))
	state := func(rev string) stateWrite {
		return stateWrite{key: "k", old: rev, val: (&cell{body: make([]byte, 1000)}).encode(), due: time.UnixMilli(7)}
	}
	r, err := slot.commit(ctx, commitArgs{
		expect: "none", applied: "1", states: []stateWrite{state("")}, pos: map[string]int64{"up:0": 1},
		outputs: [][]byte{make([]byte, 1000), []byte("b")}, moves: [][]byte{[]byte("m")},
	})
	require.NoError(t, err)
	require.True(t, r.ok)
	fill(t, raw)
	before := contents(t, raw, slot)
	rev := string([]byte(raw.Get(ctx, slot.stateKey("k")).Val())[1 : 1+revLen])
	for name, a := range map[string]commitArgs{
		"batch":              {expect: "1", applied: "2", states: []stateWrite{state(rev)}},
		"batch with trim":    {expect: "1", applied: "2", pub: 2, mov: 1, states: []stateWrite{state(rev)}},
		"applied only":       {expect: "1", applied: "2", pub: 1},
		"foreign move":       {states: []stateWrite{state(rev)}, outputs: [][]byte{[]byte("c")}},
		"timer taken away":   {expect: "1", applied: "1", pub: 1, states: []stateWrite{{key: "k", old: rev, val: []byte("\x01")}}},
		"ids seen":           {expect: "1", applied: "2", pub: 1, seenIDs: [][]byte{[]byte("id")}, seenAt: time.Now(), seenFor: time.Hour},
		"positions and pass": {expect: "1", applied: "2", pub: 2, pos: map[string]int64{"up:1": 4}},
	} {
		_, err := slot.commit(ctx, a)
		require.ErrorIs(t, err, store.ErrMemory, name)
		require.Equal(t, before, contents(t, raw, slot), "%s: something was written", name)
	}
	_, err = slot.commit(ctx, commitArgs{expect: trimOnly, pub: 2, mov: 1})
	require.NoError(t, err)
	m, err := slot.meta(ctx)
	require.NoError(t, err)
	require.Equal(t, []int64{2, 1}, []int64{m.pubSeq, m.movDone})
	require.Zero(t, raw.LLen(ctx, slot.outboxKey()).Val()+raw.LLen(ctx, slot.movesKey()).Val())
}

// TestFullRedisHoldsAndGoesOn: a stage says why it is held, publishes what was decided, and goes on by itself.
func TestFullRedisHoldsAndGoesOn(t *testing.T) {
	e := newEnv(t)
	st, raw := ownRedis(t)
	e.store = st
	s := e.stage(nil, e.deps())
	stop := run(t, s.Run)
	defer stop()
	want := map[string]int{}
	send := func(from, to int) {
		for i := from; i < to; i++ {
			v := fmt.Sprint(i)
			want[v] = 1
			e.send("k"+v, topic.KindEvent, v)
		}
	}
	send(0, 30)
	e.settled()
	// What another partition's move left is published and trimmed although nothing can be written.
	slot := e.slot(0)
	out := Output{Topic: e.topics.ProfilesChanged(), Key: "k", Value: []byte("foreign")}
	want["foreign"] = 1
	r, err := slot.commit(context.Background(), commitArgs{outputs: [][]byte{encodeOutput(&out, nil)}})
	require.NoError(t, err)
	require.True(t, r.ok)
	fill(t, raw)
	send(30, 60)
	for p := range testPartitions {
		require.Eventually(t, func() bool {
			err := s.Ready()
			return err != nil && contains(err, fmt.Sprintf("partition %d is held", p), "redis_memory", "maxmemory")
		}, patience, 5*time.Millisecond)
	}
	require.Eventually(t, func() bool {
		m, err := slot.meta(context.Background())
		return err == nil && m.pubSeq == m.nextSeq
	}, patience, 5*time.Millisecond, "the outbox is emptied")
	require.Len(t, e.all(e.topics.ProfilesChanged()), 31)
	empty(t, raw)
	e.settled()
	require.Eventually(t, func() bool { return s.Ready() == nil }, patience, 5*time.Millisecond)
	e.outputsOnce(want)
}
