package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"

	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/profile"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// dying is a network that goes away, with the process behind it, after so many writes to Redis.
func dying(writes int64, die func()) store.Option {
	var left atomic.Int64
	left.Store(writes)
	return store.WithDial(func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return &dyingConn{c, &left, die}, err
	})
}

type dyingConn struct {
	net.Conn
	left *atomic.Int64
	die  func()
}

func (c *dyingConn) Write(b []byte) (int, error) {
	if c.left.Add(-1) < 0 {
		c.die()
		return 0, errors.New("the process is dead")
	}
	return c.Conn.Write(b)
}

// rebuild runs a rebuild as a process of its own, which dies after so many writes to Redis; 0: it lives.
func (e *env) rebuild(from topic.Set, writes int64) (keyed.RebuildReport, error) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	log := zaptest.NewLogger(e.t, zaptest.Level(zapcore.FatalLevel))
	sc, err := stream.New(e.cfg.Kafka, log)
	require.NoError(e.t, err)
	defer sc.Close()
	var opts []store.Option
	if writes > 0 {
		opts = append(opts, dying(writes, cancel))
	}
	st, err := store.New(e.cfg.Redis, log, opts...)
	require.NoError(e.t, err)
	defer func() { require.NoError(e.t, st.Close()) }()
	ends, err := sc.EndOffsets(ctx, from.EventsIdentified())
	require.NoError(e.t, err)
	return Rebuild(ctx, e.cfg, Deps{Stream: sc, Store: st, Log: log, Metrics: prometheus.NewRegistry()}, keyed.RebuildOptions{
		Past: &keyed.LogPast{Stream: sc, End: sc.EndOffsets}, From: from, Ends: ends,
	})
}

// copyOf is a copy of a Redis, to go back to.
func copyOf(t *testing.T, r *miniredis.Miniredis) (restore func()) {
	t.Helper()
	var steps []func()
	for _, k := range r.Keys() {
		switch r.Type(k) {
		case "string":
			v, err := r.Get(k)
			require.NoError(t, err)
			steps = append(steps, func() { require.NoError(t, r.Set(k, v)) })
		case "hash":
			fields, err := r.HKeys(k)
			require.NoError(t, err)
			for _, f := range fields {
				v := r.HGet(k, f)
				steps = append(steps, func() { r.HSet(k, f, v) })
			}
		case "list":
			vs, err := r.List(k)
			require.NoError(t, err)
			steps = append(steps, func() {
				_, err := r.Push(k, vs...)
				require.NoError(t, err)
			})
		case "zset":
			vs, err := r.SortedSet(k)
			require.NoError(t, err)
			for m, score := range vs {
				steps = append(steps, func() {
					_, err := r.ZAdd(k, score, m)
					require.NoError(t, err)
				})
			}
		default:
			t.Fatalf("%s is a %s", k, r.Type(k))
		}
	}
	return func() {
		r.FlushAll()
		for _, s := range steps {
			s()
		}
	}
}

// alternate makes sure that no membership began or ended twice, and returns those that last.
func (e *env) alternate() map[string]bool {
	e.t.Helper()
	in := map[string]bool{}
	for _, r := range e.read(e.topics.AudiencesChanged()) {
		var c profile.AudienceChange
		require.NoError(e.t, json.Unmarshal(r.Value, &c))
		id := c.Profile + " in " + c.Audience
		require.NotEqual(e.t, c.Change == profile.Entered, in[id], "%s %s twice", id, c.Change)
		if in[id] = c.Change == profile.Entered; !in[id] {
			delete(in, id)
		}
	}
	return in
}

// whole makes sure that the profiles are those of an undisturbed run, and were told so.
func (e *env) whole(want map[string]*profile.State) {
	e.t.Helper()
	wanted := e.documents(want)
	require.Eventually(e.t, func() bool { return maps.Equal(wanted, e.latest(e.topics.ProfilesChanged())) }, patience, retry)
	members := map[string]bool{}
	for person, text := range wanted {
		var d profile.Document
		require.NoError(e.t, json.Unmarshal([]byte(text), &d))
		for _, a := range d.Audiences {
			members[person+" in "+a] = true
		}
	}
	require.Equal(e.t, members, e.alternate())
}

// TestRebuildAfterALoss loses Redis in the middle of many people's lives, as a whole or back to an earlier
// moment; the stage stops, is rebuilt by a process that dies again and again, and goes on.
func TestRebuildAfterALoss(t *testing.T) {
	refused := 0
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			e := newEnv(t)
			rnd := rand.New(rand.NewPCG(seed, 9)) //nolint:gosec // a reproducible test
			queue, want, of := e.lives(rnd)
			rnd.Shuffle(len(queue), func(i, j int) { queue[i], queue[j] = queue[j], queue[i] })
			renumber(queue)
			third := len(queue) / 3
			s, stop := e.start()
			for _, r := range queue[:third] {
				e.send(r)
			}
			require.Eventually(t, func() bool { return s.Ready() == nil && e.committed() == int64(third) }, patience, retry)
			_, err := e.rebuild(e.topics, 0)
			require.ErrorIs(t, err, keyed.ErrRunning)
			stop()
			earlier := copyOf(t, e.redis)
			_, stop = e.start()
			for _, r := range queue[third : 2*third] {
				e.send(r)
				if rnd.IntN(10) == 0 {
					e.send(r)
				}
			}
			require.Eventually(t, func() bool { return e.committed() > int64(third)+int64(rnd.IntN(third-1)) }, patience, retry)
			stop()
			if seed%2 == 0 {
				e.redis.FlushAll()
			} else {
				earlier()
			}
			require.ErrorIs(t, e.fails(), keyed.ErrStateLost)
			for n := int64(5); ; n += int64(5 + rnd.IntN(60)) {
				_, err := e.rebuild(e.topics, n)
				if err == nil {
					break
				}
				if e.marked() { // else it died before its first word, or after its last one
					// Slots that it had not come to yet are still missing: which partition speaks first is chance.
					err := e.fails()
					require.True(t, errors.Is(err, keyed.ErrRebuilding) || errors.Is(err, keyed.ErrStateLost), err)
					if errors.Is(err, keyed.ErrRebuilding) {
						refused++
					}
				}
			}
			s, _ = e.start()
			for _, r := range queue[2*third:] {
				e.send(r)
			}
			for key, person := range of {
				f := e.await(s, "profile", key, events(eventsEach))
				require.Equal(t, person, f.ID)
			}
			e.whole(want)
		})
	}
	require.Positive(t, refused)
}

// TestRebuildTellsNothingAnew rebuilds what has lost nothing: there is nothing to tell.
func TestRebuildTellsNothingAnew(t *testing.T) {
	e := newEnv(t)
	queue, want, _ := e.lives(rand.New(rand.NewPCG(1, 2))) //nolint:gosec // a reproducible test
	renumber(queue)
	_, stop := e.start()
	for _, r := range queue {
		e.send(r)
	}
	e.whole(want)
	require.Eventually(t, func() bool { return e.committed() == int64(len(queue)) }, patience, retry)
	stop()
	count := len(e.read(e.topics.ProfilesChanged())) + len(e.read(e.topics.AudiencesChanged()))
	report, err := e.rebuild(e.topics, 0)
	require.NoError(t, err)
	require.Equal(t, keyed.RebuildReport{Records: int64(len(queue))}, report)
	s, _ := e.start()
	e.send(e.event(e.node("anonymous_id", "new"), "last", 2000, `"type":"page"`))
	e.await(s, "anonymous_id", "new", events(1))
	require.Eventually(t, func() bool {
		return len(e.read(e.topics.ProfilesChanged()))+len(e.read(e.topics.AudiencesChanged())) == count+1
	}, patience, retry)
}

// TestRebuildUnderAnotherPrefix spreads the same people over more partitions.
func TestRebuildUnderAnotherPrefix(t *testing.T) {
	e := newEnv(t)
	rnd := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // a reproducible test
	queue, want, _ := e.lives(rnd)
	rnd.Shuffle(len(queue), func(i, j int) { queue[i], queue[j] = queue[j], queue[i] })
	renumber(queue)
	_, stop := e.start()
	half := len(queue) / 2
	for _, r := range queue[:half] {
		e.send(r)
	}
	require.Eventually(t, func() bool { return e.committed() == int64(half) }, patience, retry)
	stop()
	old := e.topics
	e.topics = topic.Set{Prefix: "wide.", Partitions: 2*old.Partitions + 1}
	e.cfg.Topics.Prefix, e.cfg.Topics.Partitions = e.topics.Prefix, e.topics.Partitions
	e.cfg.Topics.ReplicationFactor, e.cfg.Topics.MinInsyncReplicas = 1, 1
	require.NoError(t, e.stream.EnsureTopics(context.Background(), e.topics.Specs(), e.cfg.Topics))
	_, err := e.rebuild(old, 0)
	require.NoError(t, err)
	_, _ = e.start()
	for _, r := range queue[half:] {
		e.send(r)
	}
	wanted := e.documents(want)
	require.Eventually(t, func() bool { return maps.Equal(wanted, e.latest(e.topics.ProfilesChanged())) }, patience, retry)
}

// committed is how many records the stage has told Kafka of.
func (e *env) committed() int64 {
	var n int64
	got, err := e.stream.Committed(context.Background(), e.topics.Group(topic.StageBuilder, e.topics.EventsIdentified()), e.topics.EventsIdentified())
	require.NoError(e.t, err)
	for _, c := range got {
		n += max(0, c.Offset)
	}
	return n
}

// marked says whether a rebuild has begun and not ended in one of the slots.
func (e *env) marked() bool {
	for p := range e.topics.Partitions {
		if e.redis.HGet(keyed.SlotTag(e.topics, topic.StageBuilder, p)+"meta", "rebuild") != "" {
			return true
		}
	}
	return false
}

// fails starts the service and waits for the error that stops it.
func (e *env) fails() error {
	e.t.Helper()
	sc, st := e.connect()
	s, err := New(e.cfg, Deps{
		Stream: sc, Store: st, Log: zaptest.NewLogger(e.t, zaptest.Level(zapcore.FatalLevel)), Metrics: prometheus.NewRegistry(),
	})
	require.NoError(e.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = s.Run(ctx)
	require.NoError(e.t, ctx.Err(), "it did not stop")
	return err
}
