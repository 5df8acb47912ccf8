package expr

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"github.com/shopspring/decimal"
)

const (
	// maxDigits bounds the digits that are reckoned with: twice those of the largest decimals that databases keep
	// (ClickHouse's Decimal256 has 76), so that a product of two of them is exact. Numbers that are only copied
	// may be longer.
	maxDigits = 152
	// maxExponent bounds the power of ten of such a number, as a double does: 1e999999999 is nine characters
	// to write and a gigabyte to add.
	maxExponent = 308
	// quotientDigits is how many decimals a quotient has at most: those of Weft's money, fourfold.
	quotientDigits = 16
)

var errTooLarge = fmt.Errorf("a number beyond %d digits or 1e%d", maxDigits, maxExponent)

// number is a JSON number: its text, and its value when it is reckoned with.
type number struct {
	text string // empty: computed, and written when it is asked for
	d    decimal.Decimal
	read bool
}

func computed(d decimal.Decimal) ref.Val {
	if bounded(d) != nil {
		return types.NewErr("the result is %s", errTooLarge)
	}
	return &number{d: d, read: true}
}

func bounded(d decimal.Decimal) error {
	if e := int(d.Exponent()); e > maxExponent || e < -maxExponent || d.NumDigits() > maxDigits {
		return errTooLarge
	}
	return nil
}

// String is the JSON text: of a number that was copied the one it had.
func (n *number) String() string {
	if n.text == "" {
		n.text = n.d.String()
	}
	return n.text
}

func (n *number) decimal() (decimal.Decimal, error) {
	if n.read {
		return n.d, nil
	}
	if len(n.text) > 2*maxDigits {
		return n.d, errTooLarge
	}
	d, err := decimal.NewFromString(n.text)
	if err == nil {
		err = bounded(d)
	}
	if err != nil {
		return d, errTooLarge
	}
	n.d, n.read = d, true
	return d, nil
}

// decimalOf is the value of any number; ok is false for what is none.
func decimalOf(v ref.Val) (d decimal.Decimal, ok bool, err error) {
	switch x := v.(type) {
	case *number:
		d, err = x.decimal()
		return d, true, err
	case types.Int:
		return decimal.NewFromInt(int64(x)), true, nil
	case types.Uint:
		return decimal.NewFromUint64(uint64(x)), true, nil
	case types.Double:
		if f := float64(x); math.IsNaN(f) || math.IsInf(f, 0) {
			return d, true, errors.New("a number that is not finite")
		}
		return decimal.NewFromFloat(float64(x)), true, nil // the shortest text that reads back
	}
	return d, false, nil
}

// plain is a value as CEL's own functions know it: a JSON number becomes an int, or else a double, and null and
// absent become CEL's null.
func plain(v ref.Val) ref.Val {
	switch x := v.(type) {
	case *number:
		if i, err := strconv.ParseInt(x.String(), 10, 64); err == nil {
			return types.Int(i)
		}
		f, err := strconv.ParseFloat(x.String(), 64)
		if err != nil {
			return types.NewErr("%s", errTooLarge)
		}
		return types.Double(f)
	case *nothing:
		return types.NullValue
	}
	return v
}

// ConvertToNative is part of ref.Val.
func (n *number) ConvertToNative(to reflect.Type) (any, error) { return plain(n).ConvertToNative(to) }

// ConvertToType is part of ref.Val. To int it cuts decimals off, as CEL does.
func (n *number) ConvertToType(to ref.Type) ref.Val {
	switch to {
	case types.StringType:
		return types.String(n.String())
	case types.TypeType:
		return types.DoubleType
	case types.DoubleType:
		if i, ok := plain(n).(types.Int); ok {
			return i.ConvertToType(types.DoubleType)
		}
	case types.IntType, types.UintType:
		d, err := n.decimal()
		if err != nil {
			return types.WrapErr(err)
		}
		whole := d.Truncate(0).String()
		if to == types.IntType {
			i, err := strconv.ParseInt(whole, 10, 64)
			if err != nil {
				return types.NewErr("%s is no int", strings.TrimSpace(n.text))
			}
			return types.Int(i)
		}
		u, err := strconv.ParseUint(whole, 10, 64)
		if err != nil {
			return types.NewErr("%s is no uint", strings.TrimSpace(n.text))
		}
		return types.Uint(u)
	}
	return plain(n).ConvertToType(to)
}

// Equal is part of ref.Val.
func (n *number) Equal(other ref.Val) ref.Val { return types.Bool(equal(n, other)) }

// Type is part of ref.Val.
func (n *number) Type() ref.Type { return types.DoubleType }

// Value is part of ref.Val.
func (n *number) Value() any { return n.String() }
