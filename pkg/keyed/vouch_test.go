package keyed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// shared is what all partitions of all processes decide on: a number that only grows.
type shared struct {
	mu  sync.Mutex
	n   int64
	err error // instead of an answer
}

func (d *shared) add(n int64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n += n
	return d.n
}

func (d *shared) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// sharer is a planner on shared: each batch counts it up.
type sharer struct {
	data *shared
	out  string

	mu       sync.Mutex
	seen     int64
	verified int // how often it compared
}

func (p *sharer) Plan(_ context.Context, _ Slot, recs []Record) (Change, error) {
	n := p.data.add(1)
	p.mu.Lock()
	p.seen = max(p.seen, n)
	p.mu.Unlock()
	var c Change
	for i := range recs {
		c.Outputs = append(c.Outputs, Output{Topic: p.out, Key: string(recs[i].Key), Value: recs[i].Value})
	}
	return c, nil
}

func (p *sharer) Published(context.Context, Slot, []Output) error { return nil }

func (p *sharer) Vouch() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strconv.AppendInt(nil, p.seen, 10)
}

func (p *sharer) Verify(_ context.Context, vouched [][]byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.verified++
	if len(vouched) != testPartitions {
		return fmt.Errorf("%d slots vouch: %w", len(vouched), ErrStateLost)
	}
	p.data.mu.Lock()
	defer p.data.mu.Unlock()
	for _, text := range vouched {
		if n, err := strconv.ParseInt(string(text), 10, 64); err == nil && n > p.data.n {
			return fmt.Errorf("%d of %d: %w", p.data.n, n, ErrStateLost)
		}
	}
	return p.data.err
}

func (p *sharer) times() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.verified
}

func (e *env) sharing(data *shared) (*Stage, *sharer) {
	e.t.Helper()
	p := &sharer{data: data, out: e.topics.ProfilesChanged()}
	s, err := NewPlan(Options{Stage: topic.StageBuilder, Input: e.topics.EventsIdentified(), Topics: e.topics}, p, e.deps())
	require.NoError(e.t, err)
	return s, p
}

// begun runs a stage that is to stop by itself, and waits until it works.
func (e *env) begun(s *Stage) <-chan error {
	ctx, cancel := context.WithCancel(context.Background())
	e.t.Cleanup(cancel)
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	require.Eventually(e.t, func() bool { return s.Ready() == nil }, patience, 5*time.Millisecond)
	return done
}

func lost(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		require.ErrorIs(t, err, ErrStateLost)
	case <-time.After(patience):
		t.Fatal("nobody stopped")
	}
}

// TestWhatSlotsVouchForIsCompared: a stage whose slots are whole stops when what they vouch for is not there any more,
// whoever runs then, and publishes nothing that was decided on it.
func TestWhatSlotsVouchForIsCompared(t *testing.T) {
	t.Run("while idle", func(t *testing.T) {
		e, data := newEnv(t), new(shared)
		s, _ := e.sharing(data)
		done := e.begun(s)
		e.send("a", topic.KindEvent, "1")
		e.settled()
		data.add(-1)
		lost(t, done)
		e.outputsOnce(map[string]int{"1": 1})
	})
	t.Run("by a process that has never seen it", func(t *testing.T) {
		e, data := newEnv(t), new(shared)
		s, _ := e.sharing(data)
		stop := run(t, s.Run)
		e.send("a", topic.KindEvent, "1")
		e.settled()
		stop()
		data.add(-1)
		e.send("a", topic.KindEvent, "2")
		s, _ = e.sharing(data)
		require.ErrorIs(t, s.Run(context.Background()), ErrStateLost)
		e.outputsOnce(map[string]int{"1": 1})
	})
	t.Run("by a process that runs on beside", func(t *testing.T) {
		e, data := newEnv(t), new(shared)
		s, _ := e.sharing(data)
		done := e.begun(s)
		e.redis.HSet(e.slot(testPartitions-1).metaKey(), "vouch", "7") // by a process that is no more
		lost(t, done)
	})
}

// TestAComparisonThatIsNotAnsweredHolds: it is no loss, and passes.
func TestAComparisonThatIsNotAnsweredHolds(t *testing.T) {
	e, data := newEnv(t), new(shared)
	data.fail(errors.New("injected"))
	s, p := e.sharing(data)
	stop := run(t, s.Run)
	e.send("a", topic.KindEvent, "1")
	require.Eventually(t, func() bool { return p.times() > 3 }, patience, 5*time.Millisecond)
	e.outputsOnce(map[string]int{})
	data.fail(nil)
	e.settled()
	data.fail(errors.New("injected")) // of no harm once the slots are taken over
	before := p.times()
	require.Eventually(t, func() bool { return p.times() > before+1 }, patience, 5*time.Millisecond)
	e.send("a", topic.KindEvent, "2")
	data.fail(nil)
	e.settled()
	stop()
	e.outputsOnce(map[string]int{"1": 1, "2": 1})
}

// TestVouchingGoesWithTheDecision: in the same script, and only where it says something new.
func TestVouchingGoesWithTheDecision(t *testing.T) {
	e := newEnv(t)
	ctx, slot := context.Background(), e.slot(0)
	for _, x := range []struct {
		args commitArgs
		want string
	}{
		{commitArgs{expect: "none", applied: "1", vouch: []byte("a\x00")}, "a\x00"},
		{commitArgs{expect: "7", applied: "8", vouch: []byte("b")}, "a\x00"}, // refused
		{commitArgs{expect: "1", applied: "2"}, "a\x00"},
		{commitArgs{expect: trimOnly, pub: 1, vouch: []byte("b")}, "a\x00"},
		{commitArgs{expect: "2", applied: "3", vouch: []byte("b")}, "b"},
	} {
		_, err := slot.commit(ctx, x.args)
		require.NoError(t, err)
		s, _ := e.sharing(new(shared))
		got, err := s.vouched(ctx)
		require.NoError(t, err)
		require.Len(t, got, testPartitions)
		require.Equal(t, x.want, string(got[0]))
		require.Empty(t, got[1])
	}
}

// TestOneComparisonServesMany: all who asked before it began.
func TestOneComparisonServesMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := miniredis.NewMiniRedis()
		defer r.Close()
		dial := func(context.Context, string, string) (net.Conn, error) { return r.Dial() }
		st, err := store.New(config.Redis{Addresses: []string{"127.0.0.1:6379"}, AllowNonDurable: true}, zap.NewNop(), store.WithDial(dial))
		require.NoError(t, err)
		defer st.Close() //nolint:errcheck // nothing is pending
		p := &sharer{data: new(shared)}
		topics := topic.Set{Prefix: "test.", Partitions: testPartitions}
		s, err := NewPlan(Options{Stage: topic.StageBuilder, Input: topics.EventsIdentified(), Topics: topics}, p,
			Deps{Stream: new(stream.Client), Store: st, Log: zap.NewNop()})
		require.NoError(t, err)
		s.vouching.turn <- struct{}{}
		got := make(chan error)
		const many = 20
		for range many {
			go func() { got <- s.verify(context.Background()) }()
		}
		synctest.Wait() // all have asked
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(t, s.verify(ended), context.Canceled)
		<-s.vouching.turn
		for range many {
			require.NoError(t, <-got)
		}
		require.Equal(t, 1, p.times())
		require.NoError(t, s.verify(context.Background()))
		require.Equal(t, 2, p.times(), "it asked later")
	})
}
