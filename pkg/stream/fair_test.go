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
