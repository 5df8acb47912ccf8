package commerce

import (
	"strings"
	"testing"

	"github.com/shopspring/decimal"
	"github.com/stretchr/testify/require"
)

func TestParseDecimal(t *testing.T) {
	for _, tc := range []struct{ in, want, err string }{
		{in: "0", want: "0.0000"},
		{in: "-0", want: "0.0000"},
		{in: "12.5", want: "12.5000"},
		{in: " 12.50 ", want: "12.5000"},
		{in: "19.99", want: "19.9900"},
		{in: "0.1000000000000000055511151231257827", want: "0.1000"},
		{in: "1.00005", want: "1.0000"}, // half to even
		{in: "1.00015", want: "1.0002"},
		{in: "1.000050001", want: "1.0001"},
		{in: "-1.00015", want: "-1.0002"},
		{in: "0.00005", want: "0.0000"},
		{in: "0.00006", want: "0.0001"},
		{in: "0.00000000000000000009", want: "0.0000"},
		{in: "1e2", want: "100.0000"},
		{in: "1.5E+3", want: "1500.0000"},
		{in: "25e-1", want: "2.5000"},
		{in: "1e-999999999999", want: "0.0000"},
		{in: "0e999999999999", want: "0.0000"},
		{in: "99999999999999.9999", want: "99999999999999.9999"},
		{in: "99999999999999.99996", err: "more than 14 digits"},
		{in: "100000000000000", err: "more than 14 digits"},
		{in: "1e999999", err: "more than 14 digits"},
		{in: "1e999999999999999999999999", err: "more than 14 digits"},
		{in: "", err: "not a number"},
		{in: "1,299.00", err: "not a number"},
		{in: "12.", err: "not a number"},
		{in: ".5", err: "not a number"},
		{in: "$12", err: "not a number"},
		{in: "1e", err: "not a number"},
		{in: "1e2e3", err: "not a number"},
		{in: "--1", err: "not a number"},
		{in: "+1", err: "not a number"},
		{in: "nan", err: "not a number"},
		{in: "Infinity", err: "not a number"},
		{in: "0x10", err: "not a number"},
		{in: "1_000", err: "not a number"},
		{in: "\u0663", err: "not a number"}, // a digit, but not one of JSON's
		{in: strings.Repeat("1", 1000), err: "not a number"},
	} {
		t.Run(tc.in, func(t *testing.T) {
			d, err := ParseDecimal(tc.in)
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				require.Less(t, len(err.Error()), 120)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, d.StringFixed(Places))
			require.EqualValues(t, -Places, d.Exponent(), "one value, one struct")
		})
	}
}

// FuzzParseDecimal compares with the decimal library, whose rounding is the reference.
func FuzzParseDecimal(f *testing.F) {
	for _, s := range []string{"1.00005", "-0.00015", "1e13", "123456789012345e-5", "0.000050000000001", "9e999", "007.10", "-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseDecimal(s)
		if err != nil || len(s) > 60 || strings.ContainsAny(s, "eE") && len(s) > 20 {
			return
		}
		e := strings.IndexAny(s, "eE")
		if e >= 0 && len(s)-e > 4 {
			return // the library is slow on large exponents
		}
		want, err := decimal.NewFromString(strings.TrimSpace(s))
		require.NoError(t, err)
		require.True(t, want.RoundBank(Places).Equal(got), "%s: want %s, got %s", s, want.RoundBank(Places), got)
	})
}
