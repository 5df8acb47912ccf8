package stream

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

func testSince(t *testing.T, brokers []string) {
	c, ctx := client(t, brokers), testContext(t)
	n := newTopic(t, c, "since", 2)
	k := foreign(t, brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	start := time.Now().Truncate(time.Second).Add(-time.Hour)
	for i := range 4 {
		r := &kgo.Record{Topic: n, Value: []byte("x"), Timestamp: start.Add(time.Duration(i) * time.Minute)}
		require.NoError(t, k.ProduceSync(ctx, r).FirstErr())
	}
	for after, want := range map[time.Duration]int64{
		-time.Hour: 0, 0: 0, time.Second: 1, time.Minute: 1, 150 * time.Second: 3, time.Hour - time.Minute: 4,
	} {
		got, err := c.OffsetsSince(ctx, n, start.Add(after))
		require.NoError(t, err)
		require.Equal(t, []int64{want, 0}, got, "since %s after the first", after)
	}
	got, err := c.OffsetsSince(ctx, n, time.Time{})
	require.NoError(t, err)
	require.Equal(t, []int64{0, 0}, got)
	_, err = c.OffsetsSince(ctx, name("none"), start)
	require.ErrorIs(t, err, ErrUnknownTopic)
}
