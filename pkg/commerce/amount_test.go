package commerce

import (
	"testing"

	"github.com/shopspring/decimal"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/packed"
)

// TestAmountsAreDecimals compares every operation with the same on decimal.Decimal.
func TestAmountsAreDecimals(t *testing.T) {
	const most = 999_999_999_999_999_999 // 18 digits, as ParseDecimal allows
	rapid.Check(t, func(t *rapid.T) {
		small := rapid.Int64Range(-most, most)
		draw := func(name string) (Amount, decimal.Decimal) {
			n, m := small.Draw(t, name), rapid.SampledFrom([]int64{1, 1, 10_000, most}).Draw(t, name+" times")
			return times(n, m).Add(Units(n)), fromUnits(n).Mul(fromUnits(m)).RoundBank(Places).Add(fromUnits(n))
		}
		a, da := draw("a")
		b, db := draw("b")
		n := rapid.Int64Range(1, 100_000).Draw(t, "n")
		same := func(want decimal.Decimal, got Amount) {
			require.Equal(t, want.StringFixed(Places), string(got.AppendMoney(nil)))
			require.Equal(t, want.StringFixed(Places), got.Decimal().StringFixed(Places))
			require.Equal(t, want.String(), string(got.AppendQuantity(nil)))
			require.Equal(t, want.InexactFloat64(), got.Float64())
			back, ok := AmountOf(want)
			require.True(t, ok)
			require.Equal(t, got, back, "equal amounts are equal structs")
			r := packed.Read(got.AppendPacked(nil))
			require.Equal(t, got, ReadAmount(&r))
			require.NoError(t, r.Err())
			require.Equal(t, want.IsZero(), got.IsZero())
		}
		same(da, a)
		same(da.Add(db), a.Add(b))
		same(da.Sub(db), a.Sub(b))
		require.Equal(t, da.LessThan(db), a.Less(b))
		// |a/n - got| is at most half a unit, and on a tie the last digit is even: checked without division.
		got := a.Over(n)
		diff := da.Sub(got.Decimal().Mul(decimal.NewFromInt(n))).Abs().Mul(decimal.NewFromInt(2))
		switch diff.Cmp(decimal.New(n, -Places)) {
		case 1:
			t.Fatalf("%s / %d = %s is not the nearest", da, n, got.Decimal())
		case 0:
			require.Zero(t, got.lo%2)
		}
	})
	for _, too := range []string{"1e40", "-1e40"} {
		_, ok := AmountOf(decimal.RequireFromString(too))
		require.False(t, ok, too)
	}
	for text, want := range map[string]string{"0": "0", "-0.5": "-0.5", "12.50": "12.5", "1000": "1000", "0.00005": "0", "0.00015": "0.0002"} {
		a, ok := AmountOf(decimal.RequireFromString(text))
		require.True(t, ok)
		require.Equal(t, want, string(a.AppendQuantity(nil)))
	}
}
