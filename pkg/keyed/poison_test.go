package keyed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// touchyFold is a tally that fails where a state or a record tells it to.
type touchyFold struct {
	tallyFold
	healed func(string) bool // what fails no more
}

func (f touchyFold) fails(s *tally, what string) {
	if s.N[what] > 0 && (f.healed == nil || !f.healed(what)) {
		panic("told to: " + what)
	}
}

func (f touchyFold) Apply(key string, s *tally, r Record, now time.Time) []Output {
	if strings.HasPrefix(string(r.Value), "boom") {
		s.N = map[string]int{"half": 1} // a panic leaves a state half changed
		panic(string(r.Value))
	}
	if n, ok := strings.CutPrefix(string(r.Value), "grow:"); ok {
		var size int
		_, _ = fmt.Sscan(n, &size)
		s.Pad += strings.Repeat("x", size)
	}
	return f.tallyFold.Apply(key, s, r, now)
}

func (f touchyFold) Due(s *tally) (time.Time, bool) {
	f.fails(s, "bad due")
	return f.tallyFold.Due(s)
}

func (f touchyFold) Timer(key string, s *tally, now time.Time) []Output {
	f.fails(s, "bad timer")
	return f.tallyFold.Timer(key, s, now)
}

func (f touchyFold) Merge(key string, into *tally, from tally, now time.Time) []Output {
	f.fails(&from, "bad merge")
	return f.tallyFold.Merge(key, into, from, now)
}

func (f touchyFold) Settle(_ string, s *tally, _ time.Time) []Output {
	f.fails(s, "bad settle")
	return nil
}

func (f touchyFold) Freeze(_, _ string, s *tally, _ time.Time) []Output {
	f.fails(s, "bad freeze")
	return nil
}

func (e *env) touchy(f touchyFold, fence *Fence, deps Deps) *Stage {
	e.t.Helper()
	f.tallyFold = tallyFold{e.topics}
	s, err := NewFold(Options{
		Stage: topic.StageBuilder, Input: e.topics.EventsIdentified(), Topics: e.topics, Fence: fence, StateVersion: 1, MaxState: 1000,
	}, Fold[tally](f), deps)
	require.NoError(e.t, err)
	return s
}

// all reads a topic: value and reason of each record, as a reader by rule 1 does.
func (e *env) all(name string) map[string]string {
	e.t.Helper()
	got := map[string]string{}
	ends, err := e.stream.EndOffsets(context.Background(), name)
	require.NoError(e.t, err)
	for p, end := range ends {
		f := e.stream.NewFetcher(name, p, 0, stream.FetchOptions{})
		for next := int64(0); next < end; {
			b, err := f.Fetch(context.Background(), time.Second)
			require.NoError(e.t, err)
			next = b.Next
			for _, r := range b.Records {
				reason, _ := topic.Get(r.Headers, topic.HeaderReason)
				got[string(r.Value)] = reason
			}
		}
		f.Close()
	}
	return got
}

// TestPoisonIsRejectedAlone: what a fold fails on goes to events.rejected, with its reason; all before and behind
// it, of its own key too, is folded once.
func TestPoisonIsRejectedAlone(t *testing.T) {
	e := newEnv(t)
	core, logs := observer.New(zap.ErrorLevel)
	reg := prometheus.NewRegistry()
	d := Deps{Stream: e.stream, Store: e.store, Log: zap.New(core), Metrics: reg}
	for i := range 3 { // all in one batch, before the stage runs
		e.send("a", topic.KindEvent, fmt.Sprint("a", i))
		e.send("a", topic.KindEvent, fmt.Sprint("boom", i))
		e.send("b", topic.KindEvent, fmt.Sprint("b", i))
	}
	e.send("a", topic.KindEvent, "grow:2000")
	e.send("a", topic.KindEvent, "a4")
	e.send("a", topic.KindEvent, "bad settle")
	e.send("a", topic.KindEvent, "a5")
	e.send("a", topic.KindEvent, "bad due")
	e.send("a", topic.KindEvent, "a6")
	e.send("a", topic.KindMerge, "not JSON")
	f := e.touchy(touchyFold{}, NewFence(nil, e.topics, 0, e.deps()), d)
	stop := run(t, f.Run)
	e.settled()
	require.Eventually(t, func() bool { return f.Ready() == nil }, patience, 5*time.Millisecond)
	_, a := e.read("a")
	_, b := e.read("b")
	require.Equal(t, map[string]int{"a0": 1, "a1": 1, "a2": 1, "a4": 1, "a5": 1, "a6": 1}, a.N)
	require.Equal(t, map[string]int{"b0": 1, "b1": 1, "b2": 1}, b.N)
	require.Equal(t, map[string]string{
		"boom0": ReasonFoldPanic, "boom1": ReasonFoldPanic, "boom2": ReasonFoldPanic, "bad settle": ReasonFoldPanic,
		"bad due": ReasonFoldPanic, "grow:2000": ReasonStateTooLarge, "not JSON": ReasonInvalidMerge,
	}, e.all(e.topics.EventsRejected()))
	changed := e.all(e.topics.ProfilesChanged())
	require.Len(t, changed, 9, "what a poisoned record put out is not published: %v", changed)
	stop()
	require.Equal(t, 1, logs.FilterMessage("poison is set aside").Len(), "one stack, not one per record")
	require.Contains(t, fmt.Sprint(logs.All()[0].ContextMap()), "touchyFold", "with the stack")
	require.GreaterOrEqual(t, value(t, f.metrics.poison.WithLabelValues(ReasonFoldPanic)), 5.0)
}

// TestUnreadableStateRejectsItsKeyOnly: a state that can not be decoded rejects the records of its key.
func TestUnreadableStateRejectsItsKeyOnly(t *testing.T) {
	e := newEnv(t)
	s := e.touchy(touchyFold{}, nil, e.deps())
	slot := newFoldDecider(s, Fold[tally](touchyFold{})).slotOf(Slot{}, "a")
	r, err := slot.commit(context.Background(), commitArgs{states: []stateWrite{{key: "a", val: (&cell{body: []byte("{"), bodyVer: 1}).encode()}}})
	require.NoError(t, err)
	require.True(t, r.ok)
	stop := run(t, s.Run)
	defer stop()
	e.send("a", topic.KindEvent, "1")
	e.send("b", topic.KindEvent, "2")
	e.send("c", topic.KindEvent, "3")
	e.send("c", topic.KindMerge, mergeInto("a")) // its payload waits; its late records too
	e.send("c", topic.KindEvent, "4")
	e.settled()
	_, b := e.read("b")
	require.Equal(t, map[string]int{"2": 1}, b.N)
	require.Equal(t, map[string]string{"1": ReasonStateUnreadable}, e.all(e.topics.EventsRejected()))
}

// TestTimerThatPanicsIsPutOff: others fire, nothing is held, and it fires once when it can.
func TestTimerThatPanicsIsPutOff(t *testing.T) {
	e := newEnv(t)
	fence := NewFence(nil, e.topics, time.Millisecond, e.deps())
	stopFence := run(t, fence.Run)
	defer stopFence()
	healed := make(chan struct{})
	f := e.touchy(touchyFold{healed: func(string) bool {
		select {
		case <-healed:
			return true
		default:
			return false
		}
	}}, fence, e.deps())
	stop := run(t, f.Run)
	defer stop()
	due := fmt.Sprintf("due:%d", time.Now().Add(-time.Second).UnixMilli())
	for _, k := range []string{"a", "b", "c", "d"} {
		if k == "b" {
			e.send(k, topic.KindEvent, "bad timer")
		}
		e.send(k, topic.KindEvent, due)
	}
	fired := func(k string) int { _, s := e.read(k); return s.Fired }
	e.settled()
	require.Eventually(t, func() bool { return fired("a") == 1 && fired("c") == 1 && fired("d") == 1 }, patience, 5*time.Millisecond)
	p := fmt.Sprint(topic.Partition([]byte("b"), testPartitions))
	require.Eventually(t, func() bool { return value(t, f.metrics.aside.WithLabelValues(p)) == 1 }, patience, 5*time.Millisecond)
	require.Eventually(t, func() bool { return f.Ready() == nil }, patience, 5*time.Millisecond, "the partition is not held")
	require.Zero(t, fired("b"))
	e.send("b", topic.KindEvent, "more") // the partition and the key go on
	e.settled()
	close(healed)
	require.Eventually(t, func() bool { return fired("b") == 1 }, patience, 10*time.Millisecond)
	require.Eventually(t, func() bool { return value(t, f.metrics.aside.WithLabelValues(p)) == 0 }, patience, 5*time.Millisecond)
	_, s := e.read("b")
	require.Equal(t, 1, s.N["more"])
}

// TestMergeThatPanicsHoldsItsPeopleOnly: the target decides nothing without what waits for it (P6), the fence and
// all others go on, and everything comes home once when it can, in its order.
func TestMergeThatPanicsHoldsItsPeopleOnly(t *testing.T) {
	e := newEnv(t)
	fence := NewFence([]Edge{{Inputs: []string{e.topics.EventsIdentified()}, Stage: topic.StageBuilder}}, e.topics, time.Millisecond, e.deps())
	healed := make(chan struct{})
	fold := touchyFold{healed: func(string) bool {
		select {
		case <-healed:
			return true
		default:
			return false
		}
	}}
	f := e.touchy(fold, fence, e.deps())
	stop := run(t, f.Run)
	due := fmt.Sprintf("due:%d", time.Now().Add(-time.Second).UnixMilli())
	e.send("a", topic.KindEvent, due)
	e.send("x", topic.KindEvent, due)
	e.send("c", topic.KindEvent, "bad merge")
	e.send("c", topic.KindMerge, mergeInto("b"))
	e.send("c", topic.KindEvent, "cancel") // an order of c's: a must not fire without it
	e.send("f", topic.KindEvent, due)
	e.send("g", topic.KindEvent, "bad merge")
	e.send("g", topic.KindMerge, mergeInto("f")) // with nothing late behind it
	e.send("d", topic.KindEvent, "d1")
	e.send("d", topic.KindMerge, mergeInto("c")) // passes through c, whose payload waits
	e.settledCommit()
	e.send("b", topic.KindEvent, "b1")
	e.send("b", topic.KindMerge, mergeInto("a")) // the mark goes along
	e.settled()
	stopFence := run(t, fence.Run) // now all that is due may fire
	defer stopFence()
	fired := func(k string) int { _, s := e.read(k); return s.Fired }
	require.Eventually(t, func() bool { return fired("x") == 1 }, patience, 5*time.Millisecond)
	n := fence.Ticket()
	require.Eventually(t, func() bool { return fence.Done() >= n }, patience, time.Millisecond, "the fence is not held")
	require.Zero(t, fired("a"))
	require.Zero(t, fired("f"))
	stop() // a new owner finds it as it is
	f = e.touchy(fold, fence, e.deps())
	stop = run(t, f.Run)
	defer stop()
	e.send("a", topic.KindEvent, "a1")
	e.settled()
	_, s := e.read("a")
	require.Equal(t, map[string]int{due: 1, "a1": 1, "b1": 1}, s.N)
	require.Zero(t, s.Fired)
	close(healed)
	require.Eventually(t, func() bool { _, s := e.read("c"); return s.N["cancel"] == 1 && s.N["d1"] == 1 }, patience, 10*time.Millisecond)
	live, s := e.read("c")
	require.Equal(t, "a", live)
	require.Equal(t, map[string]int{due: 1, "a1": 1, "b1": 1, "bad merge": 1, "cancel": 1, "d1": 1}, s.N)
	require.Zero(t, s.Fired, "it was cancelled")
	require.Eventually(t, func() bool { return fired("f") == 1 }, patience, 10*time.Millisecond, "whole again, it is decided")
	c, err := e.cell("a")
	require.NoError(t, err)
	require.Empty(t, c.blocked)
}

func (e *env) cell(key string) (*cell, error) {
	slot := e.slot(topic.Partition([]byte(key), testPartitions))
	b, err := e.store.Get(context.Background(), slot.stateKey(key))
	if err != nil {
		return nil, err
	}
	return decodeCell(b)
}

// TestPlannerPanicIsFoundByHalving: one record on which Plan panics is rejected; all others are planned once.
func TestPlannerPanicIsFoundByHalving(t *testing.T) {
	e := newEnv(t)
	want, rejected := map[string]int{}, map[string]string{}
	for i := range 60 {
		v := fmt.Sprint(i)
		if i%20 == 7 {
			v = "boom" + v
			rejected[v] = ReasonPlanPanic
		} else {
			want[v] = 1
		}
		e.send("k"+v, topic.KindEvent, v)
	}
	p := &passPlanner{out: e.topics.ProfilesChanged(), fail: func() error { return nil }, pub: map[int64]int{}}
	s, err := NewPlan(Options{Stage: topic.StageBuilder, Input: e.topics.EventsIdentified(), Topics: e.topics}, panicPlanner{p}, e.deps())
	require.NoError(t, err)
	stop := run(t, s.Run)
	defer stop()
	e.settled()
	e.outputsOnce(want)
	require.Equal(t, rejected, e.all(e.topics.EventsRejected()))
}

// value is what a counter or gauge says.
func value(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var d dto.Metric
	require.NoError(t, m.Write(&d))
	return d.GetCounter().GetValue() + d.GetGauge().GetValue()
}

type panicPlanner struct{ *passPlanner }

func (p panicPlanner) Plan(ctx context.Context, slot Slot, recs []Record) (Change, error) {
	for i := range recs {
		if strings.HasPrefix(string(recs[i].Value), "boom") {
			panic(errors.New("a defect"))
		}
	}
	return p.passPlanner.Plan(ctx, slot, recs)
}
