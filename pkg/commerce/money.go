package commerce

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/shopspring/decimal"
)

// Places is the number of decimal places of money and quantities: ClickHouse keeps them as Decimal(18,4).
const Places = 4

const (
	// maxDigits is what Decimal(18,4) and an int64 both hold.
	maxDigits = 18
	// maxNumberText bounds the text of a number; a double never prints longer.
	maxNumberText = 400
	// maxExponent bounds scientific notation, so that 1e999999999 costs nothing. Anything near it is out
	// of range anyway.
	maxExponent = 400
)

var (
	errNotNumber = errors.New("is not a number")
	errTooLarge  = errors.New("has more than 14 digits before the point")
)

// ParseDecimal reads a number in JSON's notation, surrounding spaces allowed, and rounds it to four
// places, half to even. The result always has exponent -4, so equal values are equal structs. Values of
// 10^14 and beyond do not fit Decimal(18,4) and are an error, as is everything that is not a number.
func ParseDecimal(text string) (decimal.Decimal, error) {
	n, err := ParseUnits(text)
	if err != nil {
		return decimal.Decimal{}, err
	}
	return fromUnits(n), nil
}

func fromUnits(n int64) decimal.Decimal { return decimal.New(n, -Places) }

// ParseUnits is ParseDecimal in units of 1/10000.
func ParseUnits(text string) (int64, error) {
	n, err := parseUnits(text)
	if err != nil {
		return 0, fmt.Errorf("%q %w", clip(text), err)
	}
	return n, nil
}

func parseUnits(text string) (int64, error) {
	s := strings.TrimSpace(text)
	if s == "" || len(s) > maxNumberText {
		return 0, errNotNumber
	}
	neg := s[0] == '-'
	if neg {
		s = s[1:]
	}
	exp := 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		e, err := strconv.Atoi(s[i+1:])
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return 0, errNotNumber
		}
		exp, s = max(-maxExponent, min(maxExponent, e)), s[:i]
	}
	whole, frac, point := strings.Cut(s, ".")
	if whole == "" || point && frac == "" || !digits(whole) || !digits(frac) {
		return 0, errNotNumber
	}
	n, err := scale(strings.TrimLeft(whole+frac, "0"), Places+exp-len(frac))
	if neg {
		n = -n
	}
	return n, err
}

func digits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// scale is d times ten to the shift, rounded half to even; d has digits only and no leading zero.
func scale(d string, shift int) (int64, error) {
	if d == "" {
		return 0, nil
	}
	if len(d)+shift > maxDigits {
		return 0, errTooLarge
	}
	if shift >= 0 {
		return strconv.ParseInt(d+strings.Repeat("0", shift), 10, 64)
	}
	cut := len(d) + shift
	if cut < 0 {
		return 0, nil
	}
	var n int64
	if cut > 0 {
		var err error
		if n, err = strconv.ParseInt(d[:cut], 10, 64); err != nil {
			return 0, err
		}
	}
	tail := d[cut:]
	half := tail[0] == '5' && strings.Trim(tail[1:], "0") == ""
	if tail[0] > '5' || tail[0] == '5' && !half || half && n%2 == 1 {
		n++
	}
	if n >= 1_000_000_000_000_000_000 { // 10^maxDigits, by rounding up
		return 0, errTooLarge
	}
	return n, nil
}

// clip keeps error messages short.
func clip(s string) string {
	const most = 40
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
