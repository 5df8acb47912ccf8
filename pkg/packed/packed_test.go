package packed_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/packed"
)

func TestWhatWasAppendedIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u, n, h := rapid.Uint64().Draw(t, "u"), rapid.Int64().Draw(t, "n"), rapid.Uint64().Draw(t, "h")
		s, p := rapid.String().Draw(t, "s"), rapid.SliceOf(rapid.Byte()).Draw(t, "p")
		b := packed.AppendUint([]byte{7}, u)
		b = packed.AppendInt(b, n)
		b = packed.AppendHash(b, h)
		b = packed.AppendString(b, s)
		b = packed.AppendString(b, p)
		b = append(b, "text"...)
		b = packed.AppendLen(b, len(p))
		b = append(b, p...)
		for _, r := range []packed.Reader{packed.Read(b), packed.ReadShared(b)} {
			require.Equal(t, byte(7), r.Byte())
			require.Equal(t, u, r.Uint())
			require.Equal(t, n, r.Int())
			require.Equal(t, h, r.Hash())
			require.Equal(t, s, r.String())
			require.Equal(t, string(p), string(r.Bytes()))
			require.Equal(t, "text", r.Text(4))
			require.Equal(t, len(p), r.Len(1))
			require.Equal(t, string(p), string(r.Rest()))
			require.Zero(t, r.Left())
			require.NoError(t, r.Err())
			require.Zero(t, r.Byte(), "and behind the end is nothing")
			require.ErrorIs(t, r.Err(), packed.ErrCorrupt)
		}
	})
}

func TestSharedStringsOutliveTheirBytes(t *testing.T) {
	b := packed.AppendString(nil, "kept")
	r := packed.ReadShared(b)
	s := r.String()
	b[1] = 'X'
	require.Equal(t, "kept", s)
}

func TestExtremeNumbers(t *testing.T) {
	for _, n := range []int64{math.MinInt64, -1, 0, 1, math.MaxInt64} {
		r := packed.Read(packed.AppendInt(nil, n))
		require.Equal(t, n, r.Int())
	}
}

// FuzzReader reads garbage by a program of garbage.
func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7}, []byte("\x05hello\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, program, b []byte) {
		for _, r := range []packed.Reader{packed.Read(b), packed.ReadShared(b)} {
			for _, op := range program {
				switch op % 9 {
				case 0:
					r.Byte()
				case 1:
					r.Uint()
				case 2:
					r.Int()
				case 3:
					r.Hash()
				case 4:
					if n := r.Len(2); n > len(b)/2 {
						t.Fatalf("room for %d pairs in %d bytes", n, len(b))
					}
				case 5:
					_ = r.String()
				case 6:
					r.Bytes()
				case 7:
					r.Rest()
				case 8:
					_ = r.Text(uint64(op))
				}
				if r.Err() != nil && r.Left() != 0 {
					t.Fatal("a fault does not stick")
				}
			}
		}
	})
}
