package inlet

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/avro"

	"github.com/weft-cdp/weft/pkg/event"
)

// rawJSON is a value that is JSON text already.
type rawJSON []byte

// maxAvroJSON bounds the JSON text of one value. A few bytes of Avro can say "a million empty records".
const maxAvroJSON = 8 << 20

var errAvroSize = fmt.Errorf("the value is more than %d bytes as JSON", maxAvroJSON)

// avroTypes are the types whose meaning is in the schema and that JSON has no form for: decimals keep their digits,
// dates are dates, and what Connect calls a time is one.
func avroTypes() []avro.SchemaOpt {
	decimal := func(v any, s *avro.SchemaNode) (any, error) {
		b, ok := v.([]byte)
		if !ok {
			return nil, avro.ErrSkipCustomType
		}
		text := decimalText(b, s.Scale)
		if text == nil {
			return nil, fmt.Errorf("a decimal of %d bytes and scale %d", len(b), s.Scale)
		}
		return rawJSON(text), nil
	}
	connect := func(v any, s *avro.SchemaNode) (any, error) {
		name, ok := s.Props["connect.name"].(string)
		if !ok {
			return nil, avro.ErrSkipCustomType
		}
		convert := semantic(name, 0)
		n, whole := wholeNumber(v)
		if convert == nil || !whole {
			return nil, avro.ErrSkipCustomType
		}
		text := convert(strconv.AppendInt(nil, n, 10))
		if text == nil {
			return nil, avro.ErrSkipCustomType
		}
		return rawJSON(text), nil
	}
	opts := []avro.SchemaOpt{
		avro.CustomType{LogicalType: "decimal", AvroType: "bytes", Decode: decimal},
		avro.CustomType{LogicalType: "decimal", AvroType: "fixed", Decode: decimal},
	}
	for logical, name := range map[string]string{
		"date": "io.debezium.time.Date", "timestamp-millis": "io.debezium.time.Timestamp", "timestamp-micros": "io.debezium.time.MicroTimestamp",
		"timestamp-nanos": "io.debezium.time.NanoTimestamp", "local-timestamp-millis": "io.debezium.time.Timestamp",
		"local-timestamp-micros": "io.debezium.time.MicroTimestamp", "local-timestamp-nanos": "io.debezium.time.NanoTimestamp",
	} {
		convert := semantic(name, 0)
		opts = append(opts, avro.CustomType{LogicalType: logical, Decode: func(v any, _ *avro.SchemaNode) (any, error) {
			n, _ := wholeNumber(v)
			if text := convert(strconv.AppendInt(nil, n, 10)); text != nil {
				return rawJSON(text), nil
			}
			return v, nil
		}})
	}
	return append(opts, // behind the others: of several that fit the first counts
		avro.CustomType{AvroType: "long", Decode: connect}, avro.CustomType{AvroType: "int", Decode: connect}, avro.WithLaxNames(nil))
}

func wholeNumber(v any) (int64, bool) {
	switch n := v.(type) {
	case int32:
		return int64(n), true
	case int64:
		return n, true
	}
	return 0, false
}

// appendAvro writes what the decoder made: records and maps with their members in order of name, bytes as base64,
// times as text.
func appendAvro(dst []byte, v any, depth int) ([]byte, error) {
	if depth > event.MaxDepth {
		return nil, fmt.Errorf("nested deeper than %d", event.MaxDepth)
	}
	if len(dst) > maxAvroJSON {
		return nil, errAvroSize
	}
	switch x := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case rawJSON:
		return append(dst, x...), nil
	case bool:
		return strconv.AppendBool(dst, x), nil
	case int32:
		return strconv.AppendInt(dst, int64(x), 10), nil
	case int64:
		return strconv.AppendInt(dst, x, 10), nil
	case float32:
		return appendFloat(dst, float64(x), 32)
	case float64:
		return appendFloat(dst, x, 64)
	case string:
		return event.AppendJSONString(dst, x), nil
	case []byte:
		return event.AppendJSONString(dst, base64.StdEncoding.EncodeToString(x)), nil
	case time.Duration: // a time of day
		return strconv.AppendInt(dst, x.Milliseconds(), 10), nil
	case avro.Duration:
		return event.AppendJSONString(dst, x.String()), nil
	case [16]byte:
		h := hex.EncodeToString(x[:])
		return event.AppendJSONString(dst, h[:8]+"-"+h[8:12]+"-"+h[12:16]+"-"+h[16:20]+"-"+h[20:]), nil
	case []any:
		return appendAvroList(dst, x, depth)
	case map[string]any:
		return appendAvroMap(dst, x, depth)
	}
	return nil, fmt.Errorf("a value of Go's type %T", v)
}

func appendAvroList(dst []byte, list []any, depth int) (_ []byte, err error) {
	dst = append(dst, '[')
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendAvro(dst, v, depth+1); err != nil {
			return nil, err
		}
	}
	return append(dst, ']'), nil
}

func appendAvroMap(dst []byte, m map[string]any, depth int) (_ []byte, err error) {
	dst = append(dst, '{')
	for i, name := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(event.AppendJSONString(dst, name), ':')
		if dst, err = appendAvro(dst, m[name], depth+1); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

func appendFloat(dst []byte, f float64, bits int) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, errors.New("a number that is not finite has no form in JSON")
	}
	form := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) { // as encoding/json
		form = 'e'
	}
	return strconv.AppendFloat(dst, f, form, -1, bits), nil
}
