package warehouse

import "github.com/shopspring/decimal"

// places is the decimal places of a Decimal(18, 4).
const places = 4

// timeText is how ClickHouse prints a DateTime64(3).
const timeText = "2006-01-02 15:04:05.000"

// Amount is a value of a Decimal(18,4), without garbage.
type Amount struct {
	Units int64 // of 1/10000
	Some  bool  // false: NULL, in a column that can be
}

// AmountOf is d cut to the places of the column; it must fit it.
func AmountOf(d decimal.Decimal) Amount {
	return Amount{Units: d.Shift(places).IntPart(), Some: true}
}

// String is the value as ClickHouse prints it.
func (a Amount) String() string { return decimal.New(a.Units, -places).String() }

// Money is an amount of one currency.
type Money struct {
	Currency string
	Amount   Amount
}
