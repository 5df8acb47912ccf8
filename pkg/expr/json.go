package expr

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/weft-cdp/weft/pkg/event"
)

// timeLayout is how times are written: UTC, with the milliseconds that Weft keeps.
const timeLayout = "2006-01-02T15:04:05.000Z"

var errOutput = fmt.Errorf("the result is longer than %d bytes", maxOutput)

// Value is the result of an evaluation.
type Value struct{ v ref.Val }

// Present says that there is a value; null is one.
func (v Value) Present() bool { return v.v != nil && v.v != absent }

// Null says that it is null or absent.
func (v Value) Null() bool { return v.v == nil || isNothing(v.v) }

// Text is a text, number, truth value or time as text; false for anything else.
func (v Value) Text() (string, bool) {
	if v.v == nil {
		return "", false
	}
	return textOf(v.v)
}

// AppendJSON appends the value as JSON; absent is null.
func (v Value) AppendJSON(dst []byte) ([]byte, error) {
	if v.v == nil {
		return append(dst, "null"...), nil
	}
	return appendJSON(dst, v.v)
}

func appendJSON(dst []byte, v ref.Val) ([]byte, error) {
	mark := len(dst)
	out, err := writeJSON(dst, v, 0, mark+maxOutput)
	if err == nil && len(out)-mark > maxOutput {
		err = errOutput
	}
	if err != nil {
		return dst[:mark], err
	}
	return out, nil
}

func writeJSON(dst []byte, v ref.Val, depth, limit int) ([]byte, error) {
	if len(dst) > limit {
		return dst, errOutput
	}
	if depth > event.MaxDepth {
		return dst, fmt.Errorf("the result is nested deeper than %d", event.MaxDepth)
	}
	switch x := v.(type) {
	case *object:
		return append(dst, x.raw...), nil
	case *array:
		return append(dst, x.raw...), nil
	case *number:
		return append(dst, x.String()...), nil
	case *nothing, types.Null:
		return append(dst, "null"...), nil
	case types.String:
		return event.AppendJSONString(dst, string(x)), nil
	case types.Bool:
		return strconv.AppendBool(dst, bool(x)), nil
	case types.Int:
		return strconv.AppendInt(dst, int64(x), 10), nil
	case types.Uint:
		return strconv.AppendUint(dst, uint64(x), 10), nil
	case types.Double:
		return appendDouble(dst, float64(x))
	case types.Timestamp:
		return append(x.Time.UTC().AppendFormat(append(dst, '"'), timeLayout), '"'), nil
	case types.Duration:
		return strconv.AppendInt(dst, int64(x.Duration/time.Millisecond), 10), nil
	case types.Bytes:
		return event.AppendJSONString(dst, string(x)), nil
	case traits.Lister:
		return writeList(dst, x, depth, limit)
	case traits.Mapper:
		return writeMap(dst, x, depth, limit)
	}
	return dst, fmt.Errorf("a %s cannot be written as JSON", nameOf(v))
}

func appendDouble(dst []byte, f float64) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return dst, errors.New("a number that is not finite cannot be written as JSON")
	}
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) { // as encoding/json
		return strconv.AppendFloat(dst, f, 'e', -1, 64), nil
	}
	return strconv.AppendFloat(dst, f, 'f', -1, 64), nil
}

func writeList(dst []byte, list traits.Lister, depth, limit int) ([]byte, error) {
	dst = append(dst, '[')
	for i, it := 0, list.Iterator(); it.HasNext() == types.True; i++ {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = writeJSON(dst, it.Next(), depth+1, limit); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

// writeMap writes members in order of name, and leaves out those that are absent.
func writeMap(dst []byte, m traits.Mapper, depth, limit int) ([]byte, error) {
	type entry struct {
		name  string
		value ref.Val
	}
	var entries []entry
	for it := m.Iterator(); it.HasNext() == types.True; {
		key := it.Next()
		name, ok := textOf(key)
		if !ok {
			return dst, fmt.Errorf("the name of a member is a %s", nameOf(key))
		}
		if v, found := m.Find(key); found && v != absent {
			entries = append(entries, entry{name, v})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int {
		switch {
		case a.name < b.name:
			return -1
		case a.name > b.name:
			return 1
		}
		return 0
	})
	dst = append(dst, '{')
	for i, e := range entries {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(event.AppendJSONString(dst, e.name), ':')
		var err error
		if dst, err = writeJSON(dst, e.value, depth+1, limit); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}
