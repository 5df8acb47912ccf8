package keyed

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// alarm is a state with nothing but a timer, 16 bytes in Redis.
type alarm struct{ at, fired int64 }

func (a *alarm) AppendBinary(b []byte) ([]byte, error) {
	return strconv.AppendInt(append(strconv.AppendInt(b, a.at, 10), ' '), a.fired, 10), nil
}

func (a *alarm) UnmarshalBinary(b []byte) error {
	_, err := fmt.Sscan(string(b), &a.at, &a.fired)
	return err
}

// alarmFold fires and says so.
type alarmFold struct {
	topics topic.Set
	fired  *atomic.Int64
}

func (f alarmFold) Apply(string, *alarm, Record, time.Time) []Output { return nil }

func (f alarmFold) Due(a *alarm) (time.Time, bool) {
	return time.UnixMilli(a.at), a.at > 0 && a.fired == 0
}

func (f alarmFold) Timer(key string, a *alarm, _ time.Time) []Output {
	a.fired++
	f.fired.Add(1)
	return []Output{{Topic: f.topics.ActivationsRequested(), Key: key, Value: []byte("1")}}
}

func (f alarmFold) Merge(string, *alarm, alarm, time.Time) []Output { return nil }

// setAlarms writes n states with a timer straight into the slots.
func (e *env) setAlarms(s *Stage, n int, at func(i int) time.Time) {
	e.t.Helper()
	d := newFoldDecider(s, Fold[alarm](alarmFold{e.topics, new(atomic.Int64)}))
	ctx := context.Background()
	bySlot := make([][]stateWrite, e.topics.Partitions)
	flush := func(p int) {
		slot := newSlot(e.store, e.topics, s.opt.Stage, p, s.script)
		r, err := slot.commit(ctx, commitArgs{applied: "0", states: bySlot[p]})
		require.NoError(e.t, err)
		require.True(e.t, r.ok)
		bySlot[p] = bySlot[p][:0]
	}
	for i := range n {
		key := fmt.Sprintf("%08d-0000-8000-8000-000000000000", i)
		w, err := d.write(&held[alarm]{cell: &cell{}, key: key, s: &alarm{at: at(i).UnixMilli()}}, defaultMaxState)
		require.NoError(e.t, err)
		p := topic.Partition([]byte(key), e.topics.Partitions)
		if bySlot[p] = append(bySlot[p], w); len(bySlot[p]) == 1000 {
			flush(p)
		}
	}
	for p := range bySlot {
		flush(p)
	}
}

func (e *env) alarms(stage string, fired *atomic.Int64, fence *Fence) *Stage {
	e.t.Helper()
	d := Deps{Stream: e.stream, Store: e.store, Log: zap.NewNop()}
	s, err := NewFold(Options{
		Stage: stage, Input: e.topics.EventsIdentified(), Topics: e.topics, Fence: fence, StateVersion: 1,
	}, Fold[alarm](alarmFold{e.topics, fired}), d)
	require.NoError(e.t, err)
	return s
}

// messages counts what was published per key, as a reader by rule 1 does.
func (e *env) messages(name string) map[string]int {
	e.t.Helper()
	got := map[string]int{}
	ends, err := e.stream.EndOffsets(context.Background(), name)
	require.NoError(e.t, err)
	for p, end := range ends {
		high := map[string]int64{}
		f := e.stream.NewFetcher(name, p, 0, stream.FetchOptions{})
		for next := int64(0); next < end; {
			b, err := f.Fetch(context.Background(), time.Second)
			require.NoError(e.t, err)
			next = b.Next
			for _, sr := range b.Records {
				r, err := parseRecord(sr)
				require.NoError(e.t, err)
				if !repeated(high, r.Position) {
					got[string(r.Key)]++
				}
			}
		}
		f.Close()
	}
	return got
}

// dueAtOnce fires n timers that are all due, and says how long that took and what the heap grew to meanwhile.
func (e *env) dueAtOnce(stage string, n int) (took time.Duration, heap uint64) {
	e.t.Helper()
	fence := NewFence([]Edge{{Inputs: []string{e.topics.EventsIdentified()}, Stage: stage}}, e.topics, time.Millisecond, e.deps())
	var fired atomic.Int64
	s := e.alarms(stage, &fired, fence)
	e.setAlarms(s, n, func(int) time.Time { return time.Now().Add(-time.Minute) })
	base := heapInUse()
	stopFence := run(e.t, fence.Run)
	defer stopFence()
	began := time.Now()
	stop := run(e.t, s.Run)
	defer stop()
	most := 0
	require.Eventually(e.t, func() bool {
		heap = max(heap, heapInUse())
		s.mu.Lock()
		defer s.mu.Unlock()
		most = max(most, len(s.workers))
		return fired.Load() >= int64(n)
	}, 10*time.Minute, 20*time.Millisecond)
	took = time.Since(began)
	e.outboxesEmpty(s)
	return took, max(heap, base) - base
}

// outboxesEmpty waits until all is published and trimmed.
func (e *env) outboxesEmpty(s *Stage) {
	e.t.Helper()
	require.Eventually(e.t, func() bool {
		for p := range e.topics.Partitions {
			m, err := newSlot(e.store, e.topics, s.opt.Stage, p, s.script).meta(context.Background())
			if err != nil || m.pubSeq < m.nextSeq {
				return false
			}
		}
		return true
	}, patience, 5*time.Millisecond)
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// TestManyTimersFireOnce: all of them due at once, more than one look sees, each fires once; an owner that is
// replaced in the middle changes nothing. BenchmarkTimers does it with a million.
func TestManyTimersFireOnce(t *testing.T) {
	e := newEnv(t)
	const n = 3 * (ticketsPerLook + 1000)
	fence := NewFence([]Edge{{Inputs: []string{e.topics.EventsIdentified()}, Stage: topic.StageDecide}}, e.topics, time.Millisecond, e.deps())
	stopFence := run(t, fence.Run)
	defer stopFence()
	var fired atomic.Int64
	e.setAlarms(e.alarms(topic.StageDecide, &fired, fence), n, func(int) time.Time { return time.Now().Add(-time.Minute) })
	for _, until := range []int64{n / 3, n / 2, n} {
		s := e.alarms(topic.StageDecide, &fired, fence)
		stop := run(t, s.Run)
		require.Eventually(t, func() bool { return fired.Load() >= until }, patience, time.Millisecond)
		if until == n {
			require.Eventually(t, func() bool { return len(e.messages(e.topics.ActivationsRequested())) == n }, patience, 50*time.Millisecond)
		}
		stop()
	}
	for k, times := range e.messages(e.topics.ActivationsRequested()) {
		require.Equal(t, 1, times, k)
	}
}

// TestTicketsAreBounded: however many are due, a partition remembers as many as one look and a bit.
func TestTicketsAreBounded(t *testing.T) {
	e := newEnv(t)
	fence := NewFence(nil, e.topics, time.Millisecond, e.deps()) // nobody runs it: no walk ever ends
	var fired atomic.Int64
	s := e.alarms("bounded", &fired, fence)
	e.setAlarms(s, 7*ticketsPerLook/2, func(int) time.Time { return time.Now().Add(-time.Minute) })
	w := e.owned(s, 0)
	for range 5 {
		w.timers.looked = time.Time{}
		require.NoError(t, w.step(context.Background()))
	}
	require.Len(t, w.timers.held, ticketsPerLook)
	require.Len(t, w.timers.cohorts, 1)
	require.Zero(t, fired.Load())

	stopFence := run(t, fence.Run)
	defer stopFence()
	index := func() int {
		n, err := e.redis.ZMembers(w.slot.timersKey())
		if err != nil {
			return 0 // the last one takes the key with it
		}
		return len(n)
	}
	require.Eventually(t, func() bool {
		require.NoError(t, w.step(context.Background()))
		require.LessOrEqual(t, len(w.timers.held), ticketsPerLook+ticketsLow)
		return index() == 0
	}, patience, time.Microsecond)
	require.Empty(t, w.timers.held, "what has fired is forgotten")
	require.Empty(t, w.timers.cohorts)
}

const timersAll = 1_000_000

// BenchmarkTimers fires a million due timers (or those of WEFT_BENCH_TIMERS), and then tells how late a timer
// fires while the stage is under load.
func BenchmarkTimers(b *testing.B) {
	n := timersAll
	if v := os.Getenv("WEFT_BENCH_TIMERS"); v != "" {
		var err error
		n, err = strconv.Atoi(v)
		require.NoError(b, err)
	}
	for b.Loop() {
		e := newBench(b)
		stage := fmt.Sprintf("timers-%d-%d", os.Getpid(), time.Now().UnixNano())
		took, heap := e.dueAtOnce(stage, n)
		b.ReportMetric(float64(n)/took.Seconds(), "timers/s")
		b.ReportMetric(float64(heap)/(1<<20), "heap-MiB")
		late := e.lateness(stage + "-late")
		b.ReportMetric(float64(late[len(late)/2].Milliseconds()), "p50-late-ms")
		b.ReportMetric(float64(late[len(late)*99/100].Milliseconds()), "p99-late-ms")
		if e.info != nil {
			e.reportMemory(b, stage+"-mem")
		}
	}
	b.ReportMetric(0, "ns/op")
}

// reportMemory tells what a timer that waits takes in Redis: its entry in the index alone, and with its state.
func (e *bench) reportMemory(b *testing.B, stage string) {
	const n = 100_000
	var fired atomic.Int64
	s := e.alarms(stage, &fired, nil)
	e.setAlarms(s, n, func(i int) time.Time { return time.Now().Add(time.Hour + time.Duration(i)*time.Millisecond) })
	var index int64
	for p := range e.topics.Partitions {
		m, err := e.info.MemoryUsage(context.Background(), newSlot(e.store, e.topics, stage, p, nil).timersKey(), 1000).Result()
		require.NoError(b, err)
		index += m
	}
	b.ReportMetric(float64(index)/n, "index-B/timer")
}

// lateness fires timers that are due one after the other while records keep coming, and sorts how late each was.
func (e *bench) lateness(stage string) []time.Duration {
	const n, over = 5_000, 10 * time.Second
	fence := NewFence([]Edge{{Inputs: []string{e.topics.EventsIdentified()}, Stage: stage}}, e.topics, 100*time.Millisecond, e.deps())
	stopFence := run(e.t, fence.Run)
	defer stopFence()
	var fired atomic.Int64
	late := make(chan time.Duration, n)
	d := Deps{Stream: e.stream, Store: e.store, Log: zap.NewNop()}
	s, err := NewFold(Options{
		Stage: stage, Input: e.topics.EventsIdentified(), Topics: e.topics, Fence: fence, StateVersion: 1,
	}, Fold[alarm](lateFold{alarmFold{e.topics, &fired}, late}), d)
	require.NoError(e.t, err)
	begin := time.Now().Add(3 * time.Second)
	e.setAlarms(s, n, func(i int) time.Time { return begin.Add(over * time.Duration(i) / n) })
	stop := run(e.t, s.Run)
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan struct{})
	go func() { // about 2,000 records a second
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			p := i % testPartitions
			recs := make([]stream.Record, 10)
			for j := range recs {
				recs[j] = stream.Record{Key: fmt.Appendf(nil, "load-%d-%d", p, j), Value: make([]byte, benchBody)}
			}
			if e.stream.Produce(ctx, e.topics.EventsIdentified(), p, recs) != nil {
				return
			}
		}
	}()
	all := make([]time.Duration, 0, n)
	for range n {
		all = append(all, <-late)
	}
	cancel()
	<-done
	slices.Sort(all)
	return all
}

// lateFold tells how late its timers are.
type lateFold struct {
	alarmFold
	late chan time.Duration
}

func (f lateFold) Timer(key string, a *alarm, now time.Time) []Output {
	f.late <- time.Since(time.UnixMilli(a.at))
	return f.alarmFold.Timer(key, a, now)
}
