package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/stream"
)

func segmentsIn(t testing.TB, dir string) []string {
	found, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	require.NoError(t, err)
	return found
}

// With Kafka there, nothing is spooled, and nobody is asked whether it could be.
func TestWithKafkaNothingIsSpooled(t *testing.T) {
	e := newEnv(t).start()
	e.reg.mu.Lock()
	e.reg.away = true
	e.reg.mu.Unlock()
	require.NoError(t, e.send(0, "k", "1", "2"))
	require.Equal(t, 2, e.kafka.direct)
	require.Empty(t, segmentsIn(t, e.opt.Dir))
	require.NoError(t, e.senders[0].SendAll(e.context(), nil))
}

func TestSpoolsWhileKafkaIsAwayAndDrainsInOrder(t *testing.T) {
	e := newEnv(t).start()
	e.kafka.set(true)
	var want []string
	for i := range 50 {
		v := fmt.Sprint("v", i)
		require.NoError(t, e.send(i%2, "k", v))
		if i%2 == 0 {
			want = append(want, v)
		}
	}
	require.Equal(t, 50, e.Behind())
	require.Equal(t, 1, e.reg.count(), "the fence knows")
	require.NotEmpty(t, segmentsIn(t, e.opt.Dir))
	require.Empty(t, e.kafka.all())
	e.kafka.set(false)
	e.drained()
	require.Equal(t, want, e.kafka.log("a", partitionOf("k")))
	e.eventually("the disk is free", func() bool { return len(segmentsIn(t, e.opt.Dir)) == 0 })
	require.NoError(t, e.send(0, "k", "direct"))
	require.Equal(t, 1, e.kafka.direct)
}

// What one process has left, the next one finds, drains and unregisters, whatever the registration of the first was.
func TestTheNextProcessDrains(t *testing.T) {
	e := newEnv(t).start()
	e.kafka.set(true)
	for i := range 20 {
		require.NoError(t, e.send(0, fmt.Sprint("k", i), fmt.Sprint("v", i)))
	}
	e.stop()
	require.Equal(t, 1, e.reg.count(), "it stays registered while nobody runs")
	e.start()
	require.Equal(t, 20, e.Behind())
	require.NoError(t, e.send(0, "k3", "later"), "goes behind what was left")
	e.kafka.set(false)
	e.drained()
	require.Len(t, e.kafka.all(), 21)
	log := e.kafka.log("a", partitionOf("k3"))
	require.Equal(t, "later", log[len(log)-1])
}

// A partition without a leader makes no other spool, and holds up no other's draining.
func TestPartitionsGoTheirOwnWay(t *testing.T) {
	e := newEnv(t).start()
	e.kafka.mu.Lock()
	e.kafka.stuck[1] = true
	e.kafka.mu.Unlock()
	for i := range 5 {
		for p := range partitions {
			require.NoError(t, e.send(0, keyFor(p), fmt.Sprint(p, "-", i)))
		}
	}
	require.Equal(t, 10, e.kafka.direct)
	require.Equal(t, 5, e.Behind())
	e.kafka.set(true)
	for p := range partitions {
		require.NoError(t, e.send(0, keyFor(p), fmt.Sprint(p, "-", 5)))
	}
	e.kafka.set(false) // but for partition 1
	e.eventually("the others are drained", func() bool { return len(e.kafka.log("a", 0)) == 6 && len(e.kafka.log("a", 2)) == 6 })
	e.eventually("and go on directly", func() bool {
		e.kafka.mu.Lock()
		before := e.kafka.direct
		e.kafka.mu.Unlock()
		require.NoError(t, e.send(1, keyFor(0), "x"))
		e.kafka.mu.Lock()
		defer e.kafka.mu.Unlock()
		return e.kafka.direct > before
	})
	e.eventually("only those of partition 1 are left", func() bool { return e.Behind() == 6 }) // counted a little after Kafka has them
	require.Equal(t, 1, e.reg.count())
	e.kafka.mu.Lock()
	e.kafka.stuck[1] = false
	e.kafka.mu.Unlock()
	e.drained()
	require.Equal(t, []string{"1-0", "1-1", "1-2", "1-3", "1-4", "1-5"}, e.kafka.log("a", 1))
}

// A call with records of several partitions spools only those that were not acknowledged.
func TestOneCallGoesBothWays(t *testing.T) {
	e := newEnv(t).start()
	e.kafka.mu.Lock()
	e.kafka.stuck[1] = true
	e.kafka.mu.Unlock()
	for range 2 { // the second time it is known before
		require.NoError(t, e.senders[0].SendAll(e.context(), recordsOf(keyFor(0), keyFor(1), keyFor(2))))
	}
	require.Equal(t, 2, e.Behind())
	require.Equal(t, 4, e.kafka.direct)
}

// Under load that never pauses, draining comes to an end all the same, and each sender's order is kept.
func TestDrainingEndsUnderLoad(t *testing.T) {
	e := newEnv(t).start()
	e.kafka.set(true)
	var stop atomic.Bool
	var sent sync.WaitGroup
	const senders = 6
	counts := make([]int, senders)
	for i := range senders {
		sent.Go(func() {
			for !stop.Load() {
				if !assertNoError(t, e.send(0, fmt.Sprint("s", i), fmt.Sprintf("s%d:%d", i, counts[i]))) {
					return
				}
				counts[i]++
			}
		})
	}
	e.eventually("some are spooled", func() bool { return e.Behind() > 100 })
	e.kafka.set(false)
	e.eventually("all lanes go directly", func() bool { return e.Behind() == 0 && e.reg.count() == 0 })
	stop.Store(true)
	sent.Wait()
	e.drained()
	got := e.kafka.all()
	for i := range senders {
		var own []string
		for _, v := range e.kafka.log("a", partitionOf(fmt.Sprint("s", i))) {
			if strings.HasPrefix(v, fmt.Sprintf("s%d:", i)) {
				own = append(own, v)
			}
		}
		require.Len(t, own, counts[i])
		for n, v := range own {
			require.Equal(t, fmt.Sprintf("s%d:%d", i, n), v)
			require.Equal(t, 1, got[v])
		}
	}
}

func TestFullSpoolRefuses(t *testing.T) {
	e := newEnv(t)
	e.opt.MaxBytes = 4000
	e.start()
	e.kafka.set(true)
	taken := 0
	var err error
	for err == nil {
		if err = e.send(0, "k", strings.Repeat("x", 100)+fmt.Sprint(taken)); err == nil {
			taken++
		}
		require.Less(t, taken, 100)
	}
	require.ErrorIs(t, err, ErrFull)
	require.Greater(t, taken, 10)
	size := int64(0)
	for _, s := range segmentsIn(t, e.opt.Dir) {
		info, err := os.Stat(s)
		require.NoError(t, err)
		size += info.Size()
	}
	require.LessOrEqual(t, size, e.opt.MaxBytes)
	e.kafka.set(false)
	e.drained()
	require.Len(t, e.kafka.all(), taken)
	require.NoError(t, e.send(0, "k", "again"))
}

// Without the registration nothing is acknowledged, and nothing that was refused is taken for acknowledged later.
func TestWithoutRedisItRefuses(t *testing.T) {
	e := newEnv(t).start()
	e.kafka.set(true)
	e.reg.mu.Lock()
	e.reg.away = true
	e.reg.mu.Unlock()
	require.ErrorIs(t, e.send(0, "k", "1"), ErrUnregistered)
	require.ErrorIs(t, e.send(0, "k", "2"), ErrUnregistered)
	require.Zero(t, e.Behind())
	require.Empty(t, segmentsIn(t, e.opt.Dir))
	e.reg.mu.Lock()
	e.reg.away = false
	e.reg.mu.Unlock()
	e.eventually("it spools", func() bool { return e.send(0, "k", "3") == nil })
	e.reg.mu.Lock()
	e.reg.away = true // once registered, it needs Redis no more
	e.reg.mu.Unlock()
	require.NoError(t, e.send(0, "k", "4"))
	e.kafka.set(false)
	e.eventually("drained", func() bool { return e.Behind() == 0 })
	require.Equal(t, 1, e.reg.count(), "and it stays registered until Redis is there")
	e.reg.mu.Lock()
	e.reg.away = false
	e.reg.mu.Unlock()
	e.drained()
}

// A registration that Redis has lost is written again while there is something to drain.
func TestRegistrationIsRepeated(t *testing.T) {
	e := newEnv(t).start()
	e.kafka.set(true)
	require.NoError(t, e.send(0, "k", "1"))
	e.reg.mu.Lock()
	clear(e.reg.entries)
	e.reg.mu.Unlock()
	e.eventually("registered again", func() bool { return e.reg.count() == 1 })
}

// breaking is a file that fails.
type breaking struct {
	File
	write, sync func() error
	after       int // bytes that are written before write fails
}

func (b breaking) Write(p []byte) (int, error) {
	if err := b.write(); err != nil {
		n, _ := b.File.Write(p[:min(b.after, len(p))])
		return n, err
	}
	return b.File.Write(p)
}

func (b breaking) Sync() error { return errors.Join(b.sync(), b.File.Sync()) }

func TestBrokenDiskRefuses(t *testing.T) {
	for name, fails := range map[string]func(*breaking, func() error){
		"write":      func(b *breaking, f func() error) { b.write = f },
		"torn write": func(b *breaking, f func() error) { b.write, b.after = f, 20 },
		"fsync":      func(b *breaking, f func() error) { b.sync = f },
		"create":     nil,
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			var broken atomic.Bool
			fault := func() error {
				if broken.Load() {
					return errors.New("no space left on device")
				}
				return nil
			}
			e.opt.Create = func(path string) (File, error) {
				if err := fault(); err != nil && fails == nil {
					return nil, err
				}
				f, err := createFile(path)
				none := func() error { return nil }
				b := &breaking{File: f, write: none, sync: none}
				if fails != nil {
					fails(b, fault)
				}
				return b, err
			}
			e.start()
			e.kafka.set(true)
			if fails != nil {
				require.NoError(t, e.send(0, "k", "before"))
			}
			broken.Store(true)
			require.ErrorIs(t, e.send(0, "k", "refused"), ErrDisk)
			require.ErrorIs(t, e.send(0, "k", "at once"), ErrDisk)
			broken.Store(false)
			e.eventually("it spools again", func() bool { return e.send(0, "k", "after") == nil })
			e.stop()
			e.start()
			e.kafka.set(false)
			e.drained()
			got := e.kafka.all()
			require.Equal(t, 1, got["after"])
			if fails != nil {
				require.Equal(t, 1, got["before"])
			}
			require.Zero(t, got["at once"])
		})
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	e := newEnv(t)
	base := e.opt.Dir
	first, err := OpenFree(e.opt)
	require.NoError(t, err)
	defer first.Close()
	second, err := OpenFree(e.opt)
	require.NoError(t, err)
	defer second.Close()
	require.NotEqual(t, first.ID(), second.ID())
	e.opt.Dir = filepath.Join(base, "0")
	_, err = Open(e.opt)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, first.Close())
	again, err := Open(e.opt)
	require.NoError(t, err)
	require.Equal(t, first.ID(), again.ID(), "the directory keeps its name")
	require.NoError(t, again.Close())
	e.opt.Partitions++
	_, err = Open(e.opt)
	require.ErrorContains(t, err, "it holds records of 3 partitions")
}

// A record that Kafka refuses for good was acknowledged: it is put elsewhere, and those behind it go on.
func TestRefusedRecordIsPutElsewhere(t *testing.T) {
	e := newEnv(t).start()
	e.kafka.set(true)
	e.kafka.refuses = "poison"
	require.NoError(t, e.send(0, "k", "1", "poison", "2"))
	e.kafka.set(false)
	e.drained()
	require.Equal(t, []string{"1", "2"}, e.kafka.log("a", partitionOf("k")))
	require.Equal(t, []string{"poison"}, e.kafka.others)
}

// Damage in the middle costs what it struck, is told, and the segment is kept.
func TestDamageIsTold(t *testing.T) {
	e := newEnv(t).start()
	e.kafka.set(true)
	for i := range 3 {
		require.NoError(t, e.send(0, "k", fmt.Sprintf("value %d", i)))
	}
	e.stop()
	path := segmentsIn(t, e.opt.Dir)[0]
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	b[strings.Index(string(b), "value 1")] ^= 1
	require.NoError(t, os.WriteFile(path, b, 0o600))
	e.start()
	require.Equal(t, 2, e.Behind())
	require.True(t, e.segments[0].damaged)
	e.kafka.set(false)
	e.drained()
	require.Equal(t, []string{"value 0", "value 2"}, e.kafka.log("a", partitionOf("k")))
	e.eventually("kept", func() bool { _, err := os.Stat(path + damagedSuffix); return err == nil })
}

// So does damage that is found while the process runs, in the middle and at the end: the registration ends without a
// restart, and the lane goes directly again.
func TestDamageWhileRunningIsTold(t *testing.T) {
	for _, struck := range []string{"value 1", "the end"} {
		t.Run(struck, func(t *testing.T) {
			e := newEnv(t).start()
			e.kafka.set(true)
			for i := range 3 {
				require.NoError(t, e.send(0, "k", fmt.Sprintf("value %d", i)))
			}
			require.NoError(t, e.send(1, "other", "the end"))
			path := segmentsIn(t, e.opt.Dir)[0]
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.WriteAt([]byte{'?'}, int64(strings.Index(string(b), struck)))
			require.NoError(t, errors.Join(err, f.Close()))
			e.kafka.set(false)
			e.drained()
			got := e.kafka.all()
			want := map[string]int{"value 0": 1, "value 1": 1, "value 2": 1, "the end": 1}
			delete(want, struck)
			require.Equal(t, want, got)
			e.eventually("kept", func() bool { _, err := os.Stat(path + damagedSuffix); return err == nil })
			e.kafka.mu.Lock()
			before := e.kafka.direct
			e.kafka.mu.Unlock()
			require.NoError(t, e.send(0, "k", "later"))
			e.kafka.mu.Lock()
			defer e.kafka.mu.Unlock()
			require.Equal(t, before+1, e.kafka.direct)
		})
	}
}

// counted is a Kafka that counts the bytes it is offered.
type counted struct {
	*kafka
	offered atomic.Int64
}

func (c *counted) ProduceEncoded(ctx context.Context, topic string, partition int, e *stream.Encoded, from int) error {
	c.offered.Add(int64(e.Bytes()))
	return c.kafka.ProduceEncoded(ctx, topic, partition, e, from)
}

// While Kafka takes nothing it is tried with little: what waits is not read and encoded again and again in vain.
func TestKafkaThatIsAwayIsTriedWithLittle(t *testing.T) {
	e := newEnv(t)
	c := &counted{kafka: e.kafka}
	e.opt.Producer = c
	e.start()
	e.kafka.set(true)
	const calls, size = 40, 50_000
	for i := range calls {
		require.NoError(t, e.send(0, "k", fmt.Sprint(i, strings.Repeat("x", size))))
	}
	tried := c.offered.Load()
	e.eventually("tried again", func() bool { return c.offered.Load() > tried })
	before := c.offered.Load()
	e.eventually("and again", func() bool { return c.offered.Load() > before })
	require.Less(t, c.offered.Load()-before, int64(2*(probe+2*size)), "of %d bytes that wait, in one try or two", calls*size)
	e.kafka.set(false)
	e.drained()
	require.Len(t, e.kafka.all(), calls)
}
