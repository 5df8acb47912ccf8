package keyed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// passPlanner passes bodies through and remembers ids.
type passPlanner struct {
	out  string
	at   time.Time // its clock; zero: the real one
	fail func() error
	mu   sync.Mutex
	pub  map[int64]int
}

func (p *passPlanner) Plan(ctx context.Context, slot Slot, recs []Record) (Change, error) {
	if err := p.fail(); err != nil {
		return Change{}, err
	}
	var ids [][]byte
	for i := range recs {
		ids = append(ids, recs[i].Value)
	}
	now := p.at
	if now.IsZero() {
		now = time.Now()
	}
	seen, err := slot.Seen(ctx, ids, now, time.Hour)
	if err != nil {
		return Change{}, err
	}
	c := Change{SeenAt: now, SeenWindow: time.Hour}
	in := map[string]bool{}
	for i := range recs {
		if seen[i] || in[string(ids[i])] {
			continue
		}
		in[string(ids[i])] = true
		c.SeenIDs = append(c.SeenIDs, ids[i])
		c.Outputs = append(c.Outputs, Output{Topic: p.out, Key: string(recs[i].Key), PassThrough: true, Offset: recs[i].Offset})
	}
	return c, nil
}

func (p *passPlanner) Published(_ context.Context, _ Slot, outs []Output) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range outs {
		p.pub[o.Offset]++
	}
	return p.fail()
}

func TestPlannerPassesBodiesThroughOnce(t *testing.T) {
	e := newEnv(t)
	rng := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // reproducible
	var mu sync.Mutex
	fail := func() error {
		mu.Lock()
		defer mu.Unlock()
		if rng.IntN(4) == 0 {
			return errors.New("injected")
		}
		return nil
	}
	p := &passPlanner{out: e.topics.ProfilesChanged(), fail: fail, pub: map[int64]int{}}
	s, err := NewPlan(Options{Stage: topic.StageStitcher, Input: e.topics.EventsIdentified(), Topics: e.topics, BatchRecords: 3}, p, e.deps())
	require.NoError(t, err)
	stop := run(t, s.Run)
	defer stop()
	want := map[string]int{}
	for i := range 40 {
		v := fmt.Sprint(i % 30) // ten come twice, in the same partition
		e.send("k"+v, topic.KindEvent, v)
		want[v] = 1
	}
	ctx := context.Background()
	require.Eventually(t, func() bool {
		ends, err := e.stream.EndOffsets(ctx, e.topics.EventsIdentified())
		require.NoError(t, err)
		got, err := e.stream.Committed(ctx, e.topics.Group(topic.StageStitcher, e.topics.EventsIdentified()), e.topics.EventsIdentified())
		require.NoError(t, err)
		return slices.EqualFunc(ends, got, func(end int64, c stream.Committed) bool { return end == 0 || c.Offset == end })
	}, patience, 10*time.Millisecond)
	e.outputsOnce(want)
	require.NoError(t, err)
	require.NotEmpty(t, maps.Keys(p.pub))
}
