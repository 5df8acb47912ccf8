package commerce

import (
	"math"
	"math/big"
	"math/bits"
	"strconv"

	"github.com/shopspring/decimal"

	"github.com/weft-cdp/weft/pkg/packed"
)

// perOne is how many units of an amount are one.
const perOne = 10_000

// Amount is a sum of money or of pieces, exact, in units of 1/10000. It has 128 bits: prices and quantities
// have 18 digits each, so that neither their products nor the sums of any number of orders overflow. Equal
// amounts are equal structs, and it never allocates; decimal.Decimal is for what people compute with.
type Amount struct {
	hi int64
	lo uint64
}

// Units is n units of 1/10000.
func Units(n int64) Amount { return Amount{n >> 63, uint64(n)} } //nolint:gosec // two's complement

// AmountOf is d, rounded half to even; false if it does not fit.
func AmountOf(d decimal.Decimal) (Amount, bool) {
	n := d.RoundBank(Places).Shift(Places).BigInt()
	if n.BitLen() > 126 {
		return Amount{}, false
	}
	var b [16]byte
	new(big.Int).Abs(n).FillBytes(b[:])
	var a Amount
	for i := range 8 {
		a.hi = a.hi<<8 | int64(b[i])
		a.lo = a.lo<<8 | uint64(b[8+i])
	}
	if n.Sign() < 0 {
		a = a.neg()
	}
	return a, true
}

// Add is a + b.
func (a Amount) Add(b Amount) Amount {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	return Amount{a.hi + b.hi + int64(carry), lo} //nolint:gosec // 0 or 1
}

// Sub is a - b.
func (a Amount) Sub(b Amount) Amount { return a.Add(b.neg()) }

func (a Amount) neg() Amount {
	lo, carry := bits.Add64(^a.lo, 1, 0)
	return Amount{^a.hi + int64(carry), lo} //nolint:gosec // 0 or 1
}

// abs is the magnitude, and whether a is below zero.
func (a Amount) abs() (hi, lo uint64, negative bool) {
	if a.hi < 0 {
		a, negative = a.neg(), true
	}
	return uint64(a.hi), a.lo, negative //nolint:gosec // not negative
}

// times is the value of b pieces at a each, both in units, rounded half to even.
func times(a, b int64) Amount {
	x, y := Units(a), Units(b)
	_, xl, xn := x.abs()
	_, yl, yn := y.abs()
	hi, lo := bits.Mul64(xl, yl)
	p := Amount{int64(hi), lo} //nolint:gosec // both below 2^63: the product is below 2^126
	if xn != yn {
		p = p.neg()
	}
	return p.Over(perOne)
}

// Over is a divided by n, which is above zero, rounded half to even.
func (a Amount) Over(n int64) Amount {
	hi, lo, negative := a.abs()
	by := uint64(n) //nolint:gosec // above zero
	qhi := hi / by
	qlo, r := bits.Div64(hi%by, lo, by)
	q := Amount{int64(qhi), qlo} //nolint:gosec // at most hi
	if twice := r * 2; r > by/2 || twice == by && qlo%2 == 1 {
		q = q.Add(Units(1))
	}
	if negative {
		q = q.neg()
	}
	return q
}

// Less says whether a < b.
func (a Amount) Less(b Amount) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

// IsZero says whether it is nothing.
func (a Amount) IsZero() bool { return a == Amount{} }

// Decimal is a with exponent -4.
func (a Amount) Decimal() decimal.Decimal {
	if a == Units(int64(a.lo)) { //nolint:gosec // two's complement
		return decimal.New(int64(a.lo), -Places) //nolint:gosec // it fits, as just seen
	}
	hi, lo, negative := a.abs()
	n := new(big.Int).SetUint64(hi)
	n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(lo))
	if negative {
		n.Neg(n)
	}
	return decimal.NewFromBigInt(n, -Places)
}

// Float64 is the nearest double, for comparisons that people write.
func (a Amount) Float64() float64 {
	if a == Units(int64(a.lo)) && a.lo+1<<53 <= 1<<54 { //nolint:gosec // two's complement
		return float64(int64(a.lo)) / perOne //nolint:gosec // exact before the one division
	}
	f, _ := a.Decimal().Float64()
	return f
}

// AppendMoney appends a with four places: "12.5000".
func (a Amount) AppendMoney(b []byte) []byte {
	hi, lo, negative := a.abs()
	if hi != 0 || lo > math.MaxInt64 {
		return append(b, a.Decimal().StringFixedBank(Places)...)
	}
	if negative {
		b = append(b, '-')
	}
	b = strconv.AppendUint(b, lo/perOne, 10)
	f := lo % perOne
	return append(b, '.', byte('0'+f/1000), byte('0'+f/100%10), byte('0'+f/10%10), byte('0'+f%10))
}

// AppendQuantity appends a without zeros at the end: "2", "0.5".
func (a Amount) AppendQuantity(b []byte) []byte {
	b = a.AppendMoney(b)
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	if b[len(b)-1] == '.' {
		b = b[:len(b)-1]
	}
	return b
}

// AppendPacked appends a as it is stored.
func (a Amount) AppendPacked(b []byte) []byte {
	low := int64(a.lo) //nolint:gosec // two's complement
	return packed.AppendInt(packed.AppendInt(b, low), a.hi-low>>63)
}

// ReadAmount undoes AppendPacked.
func ReadAmount(r *packed.Reader) Amount {
	low := r.Int()
	return Amount{r.Int() + low>>63, uint64(low)} //nolint:gosec // two's complement
}
