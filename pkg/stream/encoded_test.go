package stream

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
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
