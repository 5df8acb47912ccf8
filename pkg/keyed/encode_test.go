package keyed

import (
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/topic"
)

func TestCellRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &cell{
			frozen: rapid.Bool().Draw(t, "frozen"),
			notes:  rapid.MapOf(rapid.String(), rapid.Int64()).Draw(t, "notes"),
			body:   rapid.SliceOf(rapid.Byte()).Draw(t, "body"), bodyVer: rapid.IntRange(0, 1000).Draw(t, "ver"),
		}
		if c.frozen {
			c.delivered = rapid.Bool().Draw(t, "delivered")
			c.forward, c.moveSeq = rapid.String().Draw(t, "fwd"), rapid.Int64().Draw(t, "mov")
		}
		b := c.encode()
		got, err := decodeCell(b)
		if err != nil {
			t.Fatal(err)
		}
		if got.frozen != c.frozen || got.delivered != c.delivered || got.forward != c.forward || got.moveSeq != c.moveSeq ||
			!maps.Equal(got.notes, c.notes) || string(got.body) != string(c.body) || got.bodyVer != c.bodyVer {
			t.Fatalf("got %+v, want %+v", got, c)
		}
		if got.rev != string(b[1:1+revLen]) {
			t.Fatal("the revision must stand where the script compares it")
		}
	})
}

func TestEntriesRoundTrip(t *testing.T) {
	hs := []topic.Header{{Key: "a", Value: []byte("1")}, {Key: "b", Value: nil}}
	for _, o := range []Output{
		{Topic: "t", Key: "k", Headers: hs, Value: []byte("v")},
		{Topic: "t", Key: "", Value: []byte{}},
		{Topic: "t", Key: "k"},
		{Topic: "t", Key: "k", PassThrough: true, Offset: 1 << 40},
	} {
		got, err := decodeOutput(encodeOutput(&o, nil))
		require.NoError(t, err)
		require.Equal(t, o.Value == nil, got.Value == nil)
		require.Equal(t, string(o.Value), string(got.Value))
		require.Equal(t, o.PassThrough, got.PassThrough)
		require.Equal(t, o.Offset, got.Offset)
		require.Len(t, got.Headers, len(o.Headers))
	}
	in := &Record{}
	in.Headers = hs
	b := encodeOutput(&Output{Topic: "t", PassThrough: true, Headers: append(hs, topic.Header{Key: "c", Value: []byte("3")})}, in)
	got, err := decodeOutput(b)
	require.NoError(t, err)
	require.Equal(t, []topic.Header{{Key: "c", Value: []byte("3")}}, got.Headers, "headers of the input are not stored again")

	m := &move{origin: "o"}
	gm, err := decodeMove(encodeMove(m))
	require.NoError(t, err)
	require.Equal(t, m, gm)
	late := &Record{Kind: topic.KindEvent}
	late.Topic, late.Partition, late.Offset, late.Value = "t", 3, 9, []byte("x")
	gm, err = decodeMove(encodeMove(&move{origin: "o", late: late}))
	require.NoError(t, err)
	require.Equal(t, "x", string(gm.late.Value))
	require.Equal(t, int64(9), gm.late.Offset)
	require.Equal(t, "o", string(gm.late.Key))
}

func TestNewerVersionsAreRefused(t *testing.T) {
	_, err := decodeCell([]byte{cellVersion + 1, 0, 0})
	require.ErrorIs(t, err, ErrNewerState)
	_, err = decodeOutput([]byte{entryVersion + 1, 0})
	require.ErrorIs(t, err, ErrNewerState)
	_, err = decodeMove([]byte{entryVersion + 1})
	require.ErrorIs(t, err, ErrNewerState)
	_, err = decodeBody[struct{}](nil, 2, 1)
	require.ErrorIs(t, err, ErrNewerState)
}

func FuzzDecode(f *testing.F) {
	f.Add((&cell{frozen: true, forward: "x", notes: map[string]int64{"a": 1}}).encode())
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = decodeCell(b)
		_, _ = decodeOutput(b)
		_, _ = decodeMove(b)
	})
}
