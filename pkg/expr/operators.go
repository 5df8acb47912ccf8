package expr

import (
	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"github.com/shopspring/decimal"
)

// operators declares the functions that rewrite puts in the place of CEL's operators.
func operators() []cel.EnvOption {
	unary := func(name string, result *cel.Type, f func(ref.Val) ref.Val) cel.EnvOption {
		return cel.Function(name, cel.Overload(name, []*cel.Type{cel.DynType}, result), cel.SingletonUnaryBinding(f))
	}
	binary := func(name string, result *cel.Type, f func(a, b ref.Val) ref.Val) cel.EnvOption {
		return cel.Function(name, cel.Overload(name, []*cel.Type{cel.DynType, cel.DynType}, result), cel.SingletonBinaryBinding(f))
	}
	return []cel.EnvOption{
		unary("@plain", cel.DynType, plain),
		unary("@truth", cel.DynType, func(v ref.Val) ref.Val {
			if isNothing(v) {
				return types.False
			}
			return v
		}),
		unary("@some", cel.BoolType, func(v ref.Val) ref.Val { return types.Bool(!isNothing(v)) }),
		unary("@negate", cel.DynType, negate),
		binary("@add", cel.DynType, arithmetic("add", decimal.Decimal.Add, func(a, b ref.Val) ref.Val {
			if x, ok := a.(traits.Adder); ok {
				return x.Add(b)
			}
			return nil
		})),
		binary("@subtract", cel.DynType, arithmetic("subtract", decimal.Decimal.Sub, func(a, b ref.Val) ref.Val {
			if x, ok := a.(traits.Subtractor); ok {
				return x.Subtract(b)
			}
			return nil
		})),
		binary("@multiply", cel.DynType, arithmetic("multiply", decimal.Decimal.Mul, func(a, b ref.Val) ref.Val {
			if x, ok := a.(traits.Multiplier); ok {
				return x.Multiply(b)
			}
			return nil
		})),
		binary("@divide", cel.DynType, divides("divide", func(a, b decimal.Decimal) decimal.Decimal { return a.DivRound(b, quotientDigits) },
			func(a, b ref.Val) ref.Val {
				if x, ok := a.(traits.Divider); ok {
					return x.Divide(b)
				}
				return nil
			})),
		binary("@modulo", cel.DynType, divides("take the remainder of", decimal.Decimal.Mod, func(a, b ref.Val) ref.Val {
			if x, ok := a.(traits.Modder); ok {
				return x.Modulo(b)
			}
			return nil
		})),
		binary("@equal", cel.BoolType, func(a, b ref.Val) ref.Val { return types.Bool(equal(a, b)) }),
		binary("@unequal", cel.BoolType, func(a, b ref.Val) ref.Val { return types.Bool(!equal(a, b)) }),
		binary("@less", cel.BoolType, compares(func(n int) bool { return n < 0 })),
		binary("@atmost", cel.BoolType, compares(func(n int) bool { return n <= 0 })),
		binary("@greater", cel.BoolType, compares(func(n int) bool { return n > 0 })),
		binary("@atleast", cel.BoolType, compares(func(n int) bool { return n >= 0 })),
		binary("@within", cel.BoolType, within),
		binary("@member", cel.DynType, member),
		binary("@has", cel.BoolType, func(a, b ref.Val) ref.Val {
			x := member(a, b)
			if types.IsError(x) {
				return x
			}
			return types.Bool(x != absent)
		}),
	}
}

// native says that CEL's own operator is meant: for two ints, or two uints, its arithmetic is exact.
func native(a, b ref.Val) bool {
	switch a.(type) {
	case types.Int:
		_, ok := b.(types.Int)
		return ok
	case types.Uint:
		_, ok := b.(types.Uint)
		return ok
	}
	return false
}

// arithmetic reckons with decimals where both sides are numbers, and leaves ints among themselves, texts, lists and
// times to CEL.
func arithmetic(verb string, f func(a, b decimal.Decimal) decimal.Decimal, other func(a, b ref.Val) ref.Val) func(a, b ref.Val) ref.Val {
	return func(a, b ref.Val) ref.Val {
		if !native(a, b) {
			x, isNumber, err := decimalOf(a)
			y, both, errB := decimalOf(b)
			switch {
			case !isNumber || !both:
			case err != nil:
				return types.WrapErr(err)
			case errB != nil:
				return types.WrapErr(errB)
			default:
				return computed(f(x, y))
			}
			if isNumber != both || isNothing(a) || isNothing(b) {
				return types.NewErr("cannot %s a %s and a %s", verb, nameOf(a), nameOf(b))
			}
		}
		v := other(a, b)
		if v == nil || v.Type() == types.ErrType && !native(a, b) {
			return types.NewErr("cannot %s a %s and a %s", verb, nameOf(a), nameOf(b))
		}
		return v
	}
}

func divides(verb string, f func(a, b decimal.Decimal) decimal.Decimal, other func(a, b ref.Val) ref.Val) func(a, b ref.Val) ref.Val {
	g := arithmetic(verb, f, other)
	return func(a, b ref.Val) ref.Val {
		if d, ok, err := decimalOf(b); ok && err == nil && d.IsZero() {
			return types.NewErr("division by zero")
		}
		return g(a, b)
	}
}

func negate(v ref.Val) ref.Val {
	if n, ok := v.(*number); ok {
		d, err := n.decimal()
		if err != nil {
			return types.WrapErr(err)
		}
		return computed(d.Neg())
	}
	if n, ok := v.(traits.Negater); ok && !types.IsBool(v) {
		return n.Negate()
	}
	return types.NewErr("cannot negate a %s", nameOf(v))
}

// equal compares numbers by value, whatever their kind, null and absent as one, and lists and maps by what is in them.
func equal(a, b ref.Val) bool {
	if isNothing(a) || isNothing(b) {
		return isNothing(a) && isNothing(b)
	}
	if n, both, err := compareNumbers(a, b); both {
		return err == nil && n == 0
	}
	switch x := a.(type) {
	case *number:
		return false
	case traits.Lister:
		y, ok := b.(traits.Lister)
		if !ok || x.Size() != y.Size() {
			return false
		}
		for i, j := x.Iterator(), y.Iterator(); i.HasNext() == types.True; {
			if !equal(i.Next(), j.Next()) {
				return false
			}
		}
		return true
	case traits.Mapper:
		y, ok := b.(traits.Mapper)
		if !ok || x.Size() != y.Size() {
			return false
		}
		for i := x.Iterator(); i.HasNext() == types.True; {
			key := i.Next()
			of, _ := x.Find(key)
			other, found := y.Find(key)
			if !found || !equal(of, other) {
				return false
			}
		}
		return true
	}
	return types.Equal(a, b) == types.True
}

// compareNumbers compares as decimals; both is false if one side is no number.
func compareNumbers(a, b ref.Val) (n int, both bool, err error) {
	if x, ok := a.(types.Int); ok {
		if y, ok := b.(types.Int); ok {
			return int(x.Compare(y).(types.Int)), true, nil //nolint:errcheck // CEL's own answer for two ints
		}
	}
	x, ok, err := decimalOf(a)
	if !ok {
		return 0, false, nil
	}
	y, ok, errB := decimalOf(b)
	switch {
	case !ok:
		return 0, false, nil
	case err != nil:
		return 0, true, err
	case errB != nil:
		return 0, true, errB
	}
	return x.Cmp(y), true, nil
}

// compares is an order; a comparison with what is not there is false.
func compares(holds func(n int) bool) func(a, b ref.Val) ref.Val {
	return func(a, b ref.Val) ref.Val {
		if isNothing(a) || isNothing(b) {
			return types.False
		}
		n, both, err := compareNumbers(a, b)
		if err != nil {
			return types.WrapErr(err)
		}
		if !both {
			x, ok := a.(traits.Comparer)
			if !ok || a.Type() != b.Type() {
				return types.NewErr("cannot compare a %s with a %s", nameOf(a), nameOf(b))
			}
			order, ok := x.Compare(b).(types.Int)
			if !ok {
				return types.NewErr("cannot compare a %s with a %s", nameOf(a), nameOf(b))
			}
			n = int(order)
		}
		return types.Bool(holds(n))
	}
}

// within is the operator in: an element of a list, or the name of a member.
func within(v, of ref.Val) ref.Val {
	switch x := of.(type) {
	case *nothing, types.Null:
		return types.False
	case *array:
		return x.Contains(v)
	case traits.Lister:
		for i := x.Iterator(); i.HasNext() == types.True; {
			if equal(v, i.Next()) {
				return types.True
			}
		}
		return types.False
	case traits.Mapper:
		_, found := x.Find(plain(v))
		return types.Bool(found)
	}
	return types.NewErr("in wants a list or a map, this is a %s", nameOf(of))
}

// member is a.name, a["name"] and a[0]; what is not there is absent.
func member(of, key ref.Val) ref.Val {
	switch x := of.(type) {
	case *object:
		if name, ok := key.(types.String); ok {
			return x.member(string(name))
		}
		return absent
	case traits.Lister:
		i, ok := plain(key).(types.Int)
		if !ok {
			return absent
		}
		if a, ok := x.(*array); ok {
			return a.at(int64(i))
		}
		if n, ok := x.Size().(types.Int); !ok || i < 0 || i >= n {
			return absent
		}
		return x.Get(i)
	case traits.Mapper:
		if v, found := x.Find(plain(key)); found {
			return v
		}
		return absent
	}
	return absent // of a text, a number, null and what is absent itself
}
