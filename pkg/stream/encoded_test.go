package stream

import (
	"bytes"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/topic"
)

// What AppendEncoded writes comes out of a batch as it went in, in whatever portions it was added.
func TestEncodedProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		recs := rapid.SliceOfN(rapid.Custom(genRecord), 1, 200).Draw(t, "records")
		var e Encoded
		for i := 0; i < len(recs); {
			var part []byte
			for range rapid.IntRange(1, len(recs)-i).Draw(t, "portion") {
				before := len(part)
				part = AppendEncoded(part, &recs[i])
				require.Equal(t, EncodedSize(&recs[i]), len(part)-before)
				i++
			}
			require.NoError(t, e.Add(part))
		}
		require.Equal(t, len(recs), e.Len())
		for i := range recs {
			got, err := e.Record(i)
			require.NoError(t, err)
			require.Equal(t, recs[i], got)
		}
		from := rapid.IntRange(0, len(recs)-1).Draw(t, "from")
		enc := encoder{compressAbove: compressAbove}
		require.Equal(t, len(recs)-from, enc.batch(&lane{producer: noProducer, epoch: -1, sequence: -1, limit: maxProduceBytes}, &e, from, time.UnixMilli(5)))
		p := newParser("t", 3)
		got, _, err := p.parse(enc.frame, nil, 0)
		require.NoError(t, err)
		for i, want := range recs[from:] {
			want.Topic, want.Partition, want.Offset, want.Time = "t", 3, int64(i), time.UnixMilli(5).UTC()
			require.Equal(t, want, got[i])
		}
	})
}

// Bytes that AppendEncoded has not written are refused whole, and never panic.
func TestEncodedRefusesOtherBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e Encoded
		good := AppendEncoded(nil, &Record{Key: []byte("k"), Value: []byte("v")})
		require.NoError(t, e.Add(good))
		bad := rapid.SliceOfN(rapid.Byte(), 1, 60).Draw(t, "bytes")
		if err := e.Add(bad); err != nil {
			require.ErrorIs(t, err, errCorrupt)
			require.Equal(t, 1, e.Len())
			require.Equal(t, len(good), e.Bytes())
			return
		}
		for i := range e.Len() {
			_, _ = e.Record(i) // an error perhaps
		}
	})
	var e Encoded
	require.Error(t, e.Add(appendRecord(nil, &Record{}, 1)), "its delta is too narrow to be changed")
	require.Error(t, e.Add(AppendEncoded(nil, &Record{})[:3]))
}

// A broker takes batches of encoded records as others, and it is told which record it refuses.
func TestProduceEncoded(t *testing.T) {
	cluster := fake(t)
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	n := newTopic(t, c, "encoded", 1)
	c.compressAbove = math.MaxInt // the fault looks into the batch
	recs := text("x", 200)
	recs[150].Value = []byte("too much")
	var e Encoded
	for i := range recs {
		require.NoError(t, e.Add(AppendEncoded(nil, &recs[i])))
	}
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: n, Err: kerr.MessageTooLarge, Count: -1, When: func(r kmsg.Request) bool {
		req, ok := r.(*kmsg.ProduceRequest)
		return ok && bytes.Contains(req.Topics[0].Partitions[0].Records, []byte("too much"))
	}})
	var at *RecordError
	require.ErrorAs(t, c.ProduceEncoded(ctx, n, 0, &e, 0), &at)
	require.Equal(t, 150, at.Index)
	require.NoError(t, c.ProduceEncoded(ctx, n, 0, &e, 151))
	want := append(values(recs[:150]), values(recs[151:])...)
	require.Equal(t, want, values(readAll(t, c, n, 0, 0, end(t, c, n))))
	e.Reset()
	require.Zero(t, e.Len())
	require.NoError(t, c.ProduceEncoded(ctx, n, 0, &e, 0), "nothing to do")
}

// testEncoded is what a broker must do with records that were encoded before it was there: their offset deltas are longer
// varints than they need to be, which no other producer writes.
func testEncoded(t *testing.T, brokers []string) {
	c, ctx := client(t, brokers), testContext(t)
	n := newTopic(t, c, "encoded", 1)
	var e Encoded
	add := func(recs []Record) []Record {
		for i := range recs {
			require.NoError(t, e.Add(AppendEncoded(nil, &recs[i])))
		}
		return recs
	}
	// Every form of a record, a batch that is compressed, and several requests; between others, in one lane.
	want := text("before", 3)
	require.NoError(t, c.Produce(ctx, n, 0, want))
	want = append(want, add([]Record{
		{Key: []byte("k"), Value: []byte("v"), Headers: []topic.Header{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")}}},
		{Key: []byte("tombstone")}, {Value: []byte("no key"), Headers: []topic.Header{{Key: "null"}, {Key: "empty", Value: []byte{}}}}, {}, {Key: []byte{}, Value: []byte{}},
	})...)
	want = append(want, add(text("compressed", 2000))...)
	noise := incompressible(2_500_000)
	for i := range 250 {
		want = append(want, add([]Record{{Key: fmt.Append(nil, i), Value: noise[i*10_000:][:10_000]}})...)
	}
	require.NoError(t, c.ProduceEncoded(ctx, n, 0, &e, 0))
	require.NoError(t, c.ProduceEncoded(ctx, n, 0, &e, e.Len()), "nothing is left of it")
	behind := text("behind", 3)
	require.NoError(t, c.Produce(ctx, n, 0, behind))
	want = append(want, behind...)

	got := readAll(t, c, n, 0, 0, end(t, c, n))
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, int64(i), got[i].Offset)
		require.True(t, bytes.Equal(want[i].Key, got[i].Key) && (want[i].Key == nil) == (got[i].Key == nil), "key of %d", i)
		require.True(t, bytes.Equal(want[i].Value, got[i].Value) && (want[i].Value == nil) == (got[i].Value == nil), "value of %d", i)
		require.Equal(t, want[i].Headers, got[i].Headers, i)
	}

	// Others read it.
	k := foreign(t, brokers, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{n: {0: kgo.NewOffset().At(0)}}))
	var theirs []*kgo.Record
	for len(theirs) < len(want) {
		fs := k.PollFetches(ctx)
		require.NoError(t, fs.Err0())
		theirs = append(theirs, fs.Records()...)
	}
	for i := range want {
		require.Equal(t, int64(i), theirs[i].Offset)
		require.True(t, bytes.Equal(want[i].Value, theirs[i].Value), "value of %d", i)
	}

	// One that is too large is named by its place in all of them, and it goes on behind it.
	e.Reset()
	first := end(t, c, n)
	add(text("x", 5))
	add([]Record{{Value: incompressible(2 * maxMessageBytes)}})
	add(text("y", 5))
	var at *RecordError
	require.ErrorAs(t, c.ProduceEncoded(ctx, n, 0, &e, 2), &at)
	require.Equal(t, 5, at.Index)
	require.NoError(t, c.ProduceEncoded(ctx, n, 0, &e, at.Index+1))
	require.Equal(t, append(values(text("x", 5))[2:], values(text("y", 5))...), values(readAll(t, c, n, 0, first, end(t, c, n))))
}
