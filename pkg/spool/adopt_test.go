package spool

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/spool/registry"
)

// newFleet is several processes of one configuration: each start of one of its members takes a free directory.
func newFleet(t testing.TB, n int) []*env {
	base := t.TempDir()
	first := newEnv(t)
	all := []*env{first}
	for range n - 1 {
		e := newEnv(t)
		e.kafka, e.reg = first.kafka, first.reg
		e.opt.Producer, e.opt.Registry = e.kafka, e.reg
		all = append(all, e)
	}
	for _, e := range all {
		e.opt.Dir, e.opt.adoptEvery, e.opener = base, 10*time.Millisecond, OpenFree
	}
	return all
}

// Processes are replaced while Kafka is away, and one of them does not come again: the other drains what it has left.
func TestWhatNobodyTakesIsDrained(t *testing.T) {
	fleet := newFleet(t, 2)
	a, b := fleet[0].start(), fleet[1].start()
	a.kafka.set(true)
	for i := range 20 {
		require.NoError(t, a.send(0, fmt.Sprint("a", i), fmt.Sprint("a", i)))
		require.NoError(t, b.send(1, fmt.Sprint("b", i), fmt.Sprint("b", i)))
	}
	require.Equal(t, 2, a.reg.count())
	a.stop()
	b.stop()
	reg := prometheus.NewRegistry()
	a.opt.Metrics = reg
	a.start()
	require.Equal(t, 20, a.Behind())
	value := func(name string) float64 {
		families, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range families {
			if f.GetName() == name {
				return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
			}
		}
		return -1
	}
	waiting := func() float64 { return value("weft_spool_waiting_records") }
	a.eventually("the other's are its own", func() bool { return waiting() == 40 })
	a.kafka.set(false)
	a.eventually("all is drained and unregistered", func() bool { return waiting() == 0 && a.reg.count() == 0 })
	require.Len(t, a.kafka.all(), 40)
	require.InDelta(t, 40, value("weft_spool_drained_records_total"), 0)
	require.Eventually(t, func() bool { return len(segmentsIn(t, filepath.Join(a.base, "1"))) == 0 }, patience, time.Millisecond)
	a.eventually("its lock is given back, too", func() bool {
		a.Spool.mu.Lock()
		defer a.Spool.mu.Unlock()
		return len(a.adopted) == 0
	})
	b.start()
	require.Equal(t, filepath.Join(b.base, "1"), b.Spool.opt.Dir, "it is given back")
}

// One that dies beside others is drained by them, in its order; the directories of those that live are left alone.
func TestTheDeadAreDrainedByTheLiving(t *testing.T) {
	fleet := newFleet(t, 3)
	a, b, c := fleet[0].start(), fleet[1].start(), fleet[2].start()
	a.kafka.mu.Lock()
	a.kafka.stuck[1] = true
	a.kafka.mu.Unlock()
	var want []string
	for i := range 10 {
		want = append(want, fmt.Sprint("b", i))
		require.NoError(t, b.send(0, keyFor(1), want[i]))
	}
	require.NoError(t, a.send(1, keyFor(1), "a"))
	require.NoError(t, c.send(1, keyFor(1), "c"))
	b.stop()
	a.kafka.mu.Lock()
	a.kafka.stuck[1] = false
	a.kafka.mu.Unlock()
	a.eventually("all is drained and unregistered", func() bool { return a.reg.count() == 0 })
	require.Equal(t, want, a.kafka.log("a", 1))
	require.ElementsMatch(t, []string{"a", "c"}, a.kafka.log("b", 1))
}

// A process that died between its registration and its first write, or before it had taken the registration away,
// holds nothing: its registration ends all the same. A torn end that nobody got an answer for goes with it.
func TestRegistrationWithoutRecordsEnds(t *testing.T) {
	fleet := newFleet(t, 2)
	a, b := fleet[0], fleet[1]
	a.start()
	b.open()
	require.NoError(t, b.reg.Register(b.context(), registry.Entry{ID: "left", Spool: b.ID()}))
	require.NoError(t, b.Close())
	a.eventually("it is taken away", func() bool { return a.reg.count() == 0 })
	torn := segmentPath(filepath.Join(a.base, "1"), 7)
	require.NoError(t, os.WriteFile(torn, []byte(groupMagic+"torn"), 0o600))
	a.eventually("it is gone", func() bool { _, err := os.Stat(torn); return os.IsNotExist(err) })
}

// What a restarted process left goes before what it takes now: it comes into the directory again that holds something.
func TestDirectoriesThatHoldSomethingGoFirst(t *testing.T) {
	fleet := newFleet(t, 2)
	a, b := fleet[0].start(), fleet[1].start()
	a.kafka.set(true)
	require.NoError(t, b.send(0, "k", "first"))
	a.stop()
	b.stop()
	b.start()
	require.Equal(t, 1, b.Behind())
	require.NoError(t, b.send(0, "k", "second"))
	b.kafka.set(false)
	b.drained()
	require.Equal(t, []string{"first", "second"}, b.kafka.log("a", partitionOf("k")))
}

// The bound is one process's, with what it has adopted: however often processes are replaced during an outage.
func TestAdoptedSpoolsCountForTheBound(t *testing.T) {
	fleet := newFleet(t, 2)
	for _, e := range fleet {
		e.opt.MaxBytes = 4000
	}
	a, b := fleet[0].start(), fleet[1].start()
	a.kafka.set(true)
	var err error
	taken := 0
	for err == nil {
		if err = b.send(0, "k", strings.Repeat("x", 100)+fmt.Sprint(taken)); err == nil {
			taken++
		}
		require.Less(t, taken, 100)
	}
	require.NoError(t, a.send(0, "k", "there is room"))
	b.stop()
	a.eventually("no more", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.used() > a.opt.MaxBytes/2
	})
	require.ErrorIs(t, a.send(0, "k", strings.Repeat("x", 1000)), ErrFull)
	a.kafka.set(false)
	a.drained()
	require.Len(t, a.kafka.all(), taken+1)
	require.NoError(t, a.send(0, "k", "again"))
}
