package stream

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// A sender whose records would fill many requests takes half of one while others wait, and keeps its order.
func TestHotKeyTakesItsShareOnly(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := client(t, fake(t).ListenAddrs(), WithMetrics(reg))
	b := c.NewBatcher("hot", 1, BatcherOptions{})
	l := b.lanes[0]
	add := func(key string, n, size int) {
		for i := range n {
			r := Record{Key: []byte(key), Value: append(filler(size), fmt.Sprintf(":%s:%d", key, i)...)}
			require.True(t, l.push(&pending{rec: r, size: recordSize(&r, 0)}))
		}
	}
	add("hot", 300, 10_000)
	add("a", 5, 100)
	add("b", 5, 100)
	next := map[string]int{}
	rounds := 0
	for {
		batch, _, _ := b.take(l)
		if len(batch) == 0 {
			break
		}
		size, of := 0, map[string]int{}
		for _, p := range batch {
			key := string(p.rec.Key)
			require.Contains(t, string(p.rec.Value), fmt.Sprintf(":%s:%d", key, next[key]))
			next[key]++
			size += p.size
			of[key] += p.size
		}
		require.LessOrEqual(t, size, maxProduceBytes)
		if rounds == 0 {
			require.LessOrEqual(t, of["hot"], hotShare)
			require.Equal(t, []int{5, 5}, []int{next["a"], next["b"]}, "they go with the first request")
			families, err := reg.Gather()
			require.NoError(t, err)
			deferred := 0.0
			for _, f := range families {
				if f.GetName() == "weft_stream_hot_key_deferred_total" {
					deferred = f.GetMetric()[0].GetCounter().GetValue()
				}
			}
			require.Positive(t, deferred)
		}
		if rounds == 1 {
			require.Greater(t, of["hot"], hotShare, "alone, it takes all")
		}
		rounds++
	}
	require.Equal(t, map[string]int{"hot": 300, "a": 5, "b": 5}, next)
}

// Others are looked for in a window only: a request costs the same however much is queued, and order is kept across it.
func TestHotKeyIsLookedPastInAWindowOnly(t *testing.T) {
	b := client(t, fake(t).ListenAddrs()).NewBatcher("hot", 1, BatcherOptions{})
	l := b.lanes[0]
	add := func(key string, n int) {
		for i := range n {
			r := Record{Key: []byte(key), Value: append(filler(10_000), fmt.Sprintf(":%d", i)...)}
			require.True(t, l.push(&pending{rec: r, size: recordSize(&r, 0)}))
		}
	}
	const hot = 3 * fairWindow / 10_000
	add("hot", hot/6) // half a window
	add("near", 1)
	add("hot2", hot)
	add("far", 2)
	l.queue[len(l.queue)-2].done = true
	next := map[string]int{"far": 1} // the first was given up
	for round := 0; ; round++ {
		batch, _, _ := b.take(l)
		if len(batch) == 0 {
			break
		}
		size := 0
		for _, p := range batch {
			key := string(p.rec.Key)
			size += p.size
			require.Contains(t, string(p.rec.Value[10_000:]), fmt.Sprintf(":%d", next[key]))
			next[key]++
		}
		require.LessOrEqual(t, size, maxProduceBytes)
		if round == 0 {
			require.Greater(t, size, maxProduceBytes*9/10, "and no room is wasted")
			require.Equal(t, 1, next["near"])
			require.Positive(t, next["hot2"], "it shares")
			require.True(t, l.queue[len(l.queue)-2].done, "what is far behind was not looked at")
		}
	}
	require.Equal(t, map[string]int{"hot": hot / 6, "near": 1, "hot2": hot, "far": 2}, next)
}
