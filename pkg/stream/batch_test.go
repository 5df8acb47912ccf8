package stream

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/compress/snappy"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/topic"
)

// parse returns all records of an answer at once.
func (p *parser) parse(data []byte, aborted []abortedTxn, from int64) ([]Record, int64, error) {
	p.start(data, aborted, from)
	recs, next, err := p.more(math.MaxInt)
	if err != nil {
		return nil, from, err
	}
	if got := behind(data, from); got != next {
		panic(fmt.Sprintf("headers of the batches end at %d, the records at %d", got, next))
	}
	return recs, next, nil
}

// encoded is recs as one batch of no producer.
func encoded(recs []Record, now time.Time) []byte {
	e := encoder{compressAbove: compressAbove}
	e.batch(&lane{producer: noProducer, epoch: -1, sequence: -1, limit: math.MaxInt}, unencoded(recs), 0, now)
	return e.frame
}

// shape alters a batch that encode made, as a broker, a compaction or another producer would have it.
type shape struct {
	base       int64
	producer   int64
	attributes uint16
	drop       []int
}

func shaped(recs []Record, s shape) []byte {
	b := encoded(recs, time.UnixMilli(1_700_000_000_000))
	if len(s.drop) > 0 { // compaction takes records out and leaves the offsets of the others
		body := []byte{}
		for i := range recs {
			if !slices.Contains(s.drop, i) {
				body = appendRecord(body, &recs[i], i)
			}
		}
		b = append(b[:batchHeader:batchHeader], body...)
		b[atAttributes+1] = 0
		binary.BigEndian.PutUint32(b[atCount:], u32(len(recs)-len(s.drop)))
		binary.BigEndian.PutUint32(b[atLength:], u32(len(b)-12))
	}
	binary.BigEndian.PutUint64(b, uint64(s.base))                  //nolint:gosec // bits
	binary.BigEndian.PutUint64(b[atProducer:], uint64(s.producer)) //nolint:gosec // bits
	attributes := binary.BigEndian.Uint16(b[atAttributes:]) | s.attributes
	binary.BigEndian.PutUint16(b[atAttributes:], attributes)
	return sealed(b)
}

// putLengths writes the header fields of a batch that holds all of n records.
func putLengths(b []byte, n int) {
	binary.BigEndian.PutUint32(b[atLength:], u32(len(b)-12))
	binary.BigEndian.PutUint32(b[atLastDelta:], u32(n-1))
	binary.BigEndian.PutUint32(b[atCount:], u32(n))
}

func sealed(b []byte) []byte {
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func marker(base, producer int64, commit bool) []byte {
	kind := byte(0)
	if commit {
		kind = 1
	}
	return shaped([]Record{{Key: []byte{0, 0, 0, kind}, Value: []byte{0, 0, 0, 0, 0, 0}}},
		shape{base: base, producer: producer, attributes: attrControl | attrTransactional})
}

func offsets(recs []Record) []int64 {
	out := []int64{}
	for _, r := range recs {
		out = append(out, r.Offset)
	}
	return out
}

func TestParseGaps(t *testing.T) {
	log := slices.Concat(
		shaped(text("a", 5), shape{base: 10, producer: -1, drop: []int{0, 2, 4}}), // 11, 13 are left; it ends at 14
		shaped(text("b", 3), shape{base: 20, producer: -1, drop: []int{0, 1, 2}}), // empty, kept for its producer
		marker(30, 9, true), // a control record
		shaped(text("c", 2), shape{base: 40, producer: 9, attributes: attrTransactional}), // committed
	)
	for _, tt := range []struct {
		from, next int64
		want       []int64
	}{
		{0, 42, []int64{11, 13, 40, 41}},
		{10, 42, []int64{11, 13, 40, 41}},
		{12, 42, []int64{13, 40, 41}},
		{14, 42, []int64{40, 41}},
		{15, 42, []int64{40, 41}},
		{41, 42, []int64{41}},
	} {
		p := newParser("t", 0)
		recs, next, err := p.parse(slices.Clone(log), nil, tt.from)
		require.NoError(t, err)
		require.Equal(t, tt.next, next)
		require.Equal(t, tt.want, offsets(recs), "from %d", tt.from)
	}
	// An answer that ends within a batch gives the whole ones before.
	for cutAt := range log {
		p := newParser("t", 0)
		recs, next, err := p.parse(slices.Clone(log[:cutAt]), nil, 0)
		if err != nil {
			require.ErrorIs(t, err, errCutShort)
			require.Equal(t, int64(0), next)
			continue
		}
		for _, r := range recs {
			require.Less(t, r.Offset, next)
		}
	}
	// A batch whose only content is gone still moves the reader on.
	p := newParser("t", 0)
	recs, next, err := p.parse(shaped(text("b", 3), shape{base: 20, producer: -1, drop: []int{0, 1, 2}}), nil, 18)
	require.NoError(t, err)
	require.Empty(t, recs)
	require.Equal(t, int64(23), next)
}

func TestParseAborted(t *testing.T) {
	const tx = attrTransactional
	log := slices.Concat(
		shaped(text("p", 1), shape{base: 0, producer: -1}),
		shaped(text("a", 2), shape{base: 1, producer: 1, attributes: tx}), // aborted
		shaped(text("b", 2), shape{base: 3, producer: 2, attributes: tx}), // committed
		shaped(text("a", 1), shape{base: 5, producer: 1, attributes: tx}), // aborted
		marker(6, 1, false),
		shaped(text("a", 1), shape{base: 7, producer: 1, attributes: tx}), // the same producer, committed
		marker(8, 2, true),
		marker(9, 1, true),
		shaped(text("n", 1), shape{base: 10, producer: 2}),                 // idempotent, in no transaction
		shaped(text("b", 1), shape{base: 11, producer: 2, attributes: tx}), // aborted
		shaped(text("n", 1), shape{base: 12, producer: 2}),                 // plain record of an aborting producer
		marker(13, 2, false),
	)
	aborted := []abortedTxn{{producer: 2, first: 11}, {producer: 1, first: 1}} // in no particular order
	for _, tt := range []struct {
		from int64
		want []int64
	}{
		{0, []int64{0, 3, 4, 7, 10, 12}},
		{2, []int64{3, 4, 7, 10, 12}},
		{5, []int64{7, 10, 12}},
		{11, []int64{12}},
	} {
		p := newParser("t", 0)
		recs, next, err := p.parse(slices.Clone(log), slices.Clone(aborted), tt.from)
		require.NoError(t, err)
		require.Equal(t, int64(14), next)
		require.Equal(t, tt.want, offsets(recs), "from %d", tt.from)
	}
}

func TestParseRefuses(t *testing.T) {
	good := shaped(text("a", 3), shape{producer: -1})
	broken := func(f func(b []byte) []byte) []byte { return f(slices.Clone(good)) }
	for name, tt := range map[string]struct {
		data []byte
		want error
	}{
		"flipped bit": {broken(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), errCorrupt},
		"old magic":   {broken(func(b []byte) []byte { b[atMagic] = 1; return b }), errOldFormat},
		"old message": {broken(func(b []byte) []byte { b[atMagic] = 0; return b[:30] }), errOldFormat},
		"new magic":   {broken(func(b []byte) []byte { b[atMagic] = 3; return b }), errCorrupt},
		"negative length": {broken(func(b []byte) []byte {
			binary.BigEndian.PutUint32(b[atLength:], 1<<31)
			return b
		}), errCorrupt},
		"more records than there are": {broken(func(b []byte) []byte {
			binary.BigEndian.PutUint32(b[atCount:], 4)
			return sealed(b)
		}), errCorrupt},
		"absurd count": {broken(func(b []byte) []byte {
			binary.BigEndian.PutUint32(b[atCount:], 1<<31-1)
			return sealed(b)
		}), errCorrupt},
		"unknown codec":   {broken(func(b []byte) []byte { b[atAttributes+1] = 6; return sealed(b) }), errCorrupt},
		"not gzip at all": {broken(func(b []byte) []byte { b[atAttributes+1] = 1; return sealed(b) }), errCorrupt},
		"record too long": {broken(func(b []byte) []byte { b[batchHeader] = 0x7e; return sealed(b) }), errCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParser("t", 0)
			recs, next, err := p.parse(tt.data, nil, 0)
			require.ErrorIs(t, err, tt.want)
			require.Empty(t, recs)
			require.Equal(t, int64(0), next)
		})
	}
}

func TestParseCompressed(t *testing.T) {
	recs := text("a", 50)
	plain := shaped(recs, shape{producer: -1})
	require.Zero(t, plain[atAttributes+1], "small batches are not compressed")
	for name, codec := range map[string]compress.Codec{
		"gzip": &compress.GzipCodec, "lz4": &compress.Lz4Codec, "zstd": &compress.ZstdCodec,
		"snappy in xerial frames": &compress.SnappyCodec, "snappy": &snappy.Codec{Framing: snappy.Unframed},
	} {
		t.Run(name, func(t *testing.T) {
			b := repacked(t, plain, codec)
			p := newParser("t", 0)
			got, next, err := p.parse(b, nil, 0)
			require.NoError(t, err)
			require.Equal(t, int64(50), next)
			require.Equal(t, values(recs), values(got))
		})
	}
	t.Run("bomb", func(t *testing.T) {
		bomb := append(slices.Clone(plain[:batchHeader]), make([]byte, maxInflated+1)...)
		p := newParser("t", 0)
		_, _, err := p.parse(repacked(t, bomb, &compress.ZstdCodec), nil, 0)
		require.ErrorIs(t, err, errCorrupt)
		require.ErrorContains(t, err, "more than")
	})
}

// repacked compresses the records of a plain batch.
func repacked(t *testing.T, plain []byte, codec compress.Codec) []byte {
	t.Helper()
	var packed bytes.Buffer
	w := codec.NewWriter(&packed)
	_, err := w.Write(plain[batchHeader:])
	require.NoError(t, err)
	require.NoError(t, w.Close())
	b := append(slices.Clone(plain[:batchHeader]), packed.Bytes()...)
	b[atAttributes+1] = byte(codec.Code()) //nolint:gosec // 1 to 4
	binary.BigEndian.PutUint32(b[atLength:], u32(len(b)-12))
	return sealed(b)
}

func TestParseTimes(t *testing.T) {
	b := shaped(text("a", 1), shape{producer: -1, attributes: attrLogAppendTime})
	binary.BigEndian.PutUint64(b[atMaxTime:], 1_800_000_000_000)
	p := newParser("t", 0)
	recs, _, err := p.parse(sealed(b), nil, 0)
	require.NoError(t, err)
	require.Equal(t, int64(1_800_000_000_000), recs[0].Time.UnixMilli())

	// Each record of another producer may have a time of its own, also one before the first's.
	recs = text("a", 4)
	body := []byte{}
	for i, delta := range []int64{0, 5, 5, -7} {
		rec := binary.AppendVarint([]byte{0}, delta)
		rec = binary.AppendVarint(rec, int64(i))
		rec = append(rec, 1, byte(2*len(recs[i].Value))) // no key
		rec = append(append(rec, recs[i].Value...), 0)
		body = append(binary.AppendVarint(body, int64(len(rec))), rec...)
	}
	b = append(shaped(recs[:1], shape{producer: -1})[:batchHeader], body...)
	putLengths(b, 4)
	recs, _, err = p.parse(sealed(b), nil, 0)
	require.NoError(t, err)
	for i, delta := range []int64{0, 5, 5, -7} {
		require.Equal(t, 1_700_000_000_000+delta, recs[i].Time.UnixMilli())
	}
}

func genRecord(t *rapid.T) Record {
	nullable := rapid.Custom(func(t *rapid.T) []byte {
		if rapid.Bool().Draw(t, "null") {
			return nil
		}
		return rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")
	})
	r := Record{Key: nullable.Draw(t, "key"), Value: nullable.Draw(t, "value")}
	for range rapid.IntRange(0, 4).Draw(t, "headers") {
		r.Headers = append(r.Headers, topic.Header{Key: rapid.String().Draw(t, "name"), Value: nullable.Draw(t, "header")})
	}
	return r
}

// What encode writes, parse reads, and recordSize is its true size.
func TestEncodeParseProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		recs := rapid.SliceOfN(rapid.Custom(genRecord), 1, 60).Draw(t, "records")
		size := 0
		for i := range recs {
			got := len(appendRecord(nil, &recs[i], i))
			require.Equal(t, got, recordSize(&recs[i], i))
			size += got
		}
		b := encoded(recs, time.UnixMilli(1_700_000_000_123))
		require.LessOrEqual(t, len(b), batchHeader+size)
		p := newParser("t", 3)
		got, next, err := p.parse(b, nil, 0)
		require.NoError(t, err)
		require.Equal(t, int64(len(recs)), next)
		for i := range recs {
			want := recs[i]
			want.Topic, want.Partition, want.Offset, want.Time = "t", 3, int64(i), time.UnixMilli(1_700_000_000_123).UTC()
			require.Equal(t, want, got[i])
			recs[i] = want
		}
		kept := Clone(got)
		clear(b) // as the buffer would be used again
		clear(p.bodies.buf[:cap(p.bodies.buf)])
		require.Equal(t, recs, kept)
	})
}

// No bytes make the parser panic or deliver from a batch whose checksum differs.
func TestParseGarbageProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := shaped(rapid.SliceOfN(rapid.Custom(genRecord), 1, 5).Draw(t, "records"), shape{producer: -1})
		for range rapid.IntRange(1, 8).Draw(t, "edits") {
			b[rapid.IntRange(atLength, len(b)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "to")
		}
		if rapid.Bool().Draw(t, "sealed") {
			sealed(b)
		}
		p := newParser("t", 0)
		recs, next, err := p.parse(b, nil, 0)
		if err != nil {
			require.Empty(t, recs)
			require.Zero(t, next)
		}
	})
}

func TestBatchTakesWhatFits(t *testing.T) {
	recs := []Record{{Value: filler(500_000)}, {Value: filler(300_000)}, {Value: filler(200_000)}, {Value: filler(2_000_000)}, {}}
	var sizes []int
	for len(recs) > 0 {
		var e encoder
		n := e.batch(&lane{limit: maxProduceBytes}, unencoded(recs), 0, time.UnixMilli(1))
		sizes, recs = append(sizes, n), recs[n:]
	}
	require.Equal(t, "[2 1 1 1]", fmt.Sprint(sizes))
}
