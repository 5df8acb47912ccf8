package inlet

import (
	"bytes"
	"encoding/base64"
	"math/big"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weft-cdp/weft/pkg/event"
)

// Kafka Connect writes a decimal as base64 of its digits and a date as a count of days, and says in the schema
// what it means. Without a look at the schema nobody can use them.

// maxConversions bounds the schemas kept per source: a topic has one, and a new one when its table changes.
const maxConversions = 16

// conversion is how a value is written anew; nil: as it is.
type conversion struct {
	scalar func(raw []byte) []byte // nil is for what is not of that form: it stays
	fields map[string]*conversion  // of a struct
	items  *conversion             // of an array
}

// conversions are those of the schemas seen last. Safe for concurrent use.
type conversions struct {
	mu   sync.Mutex
	list []compiled // the last used first
}

type compiled struct {
	schema []byte
	by     *conversion
}

func newConversions() *conversions { return &conversions{} }

// convert is the payload with what its schema explains written as people read it.
func (c *conversions) convert(schema, payload []byte) []byte {
	if len(schema) == 0 || schema[0] != '{' {
		return payload
	}
	by := c.of(schema)
	if by == nil {
		return payload
	}
	return by.append(make([]byte, 0, len(payload)+64), payload)
}

func (c *conversions) of(schema []byte) *conversion {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.list {
		if bytes.Equal(c.list[i].schema, schema) {
			x := c.list[i]
			copy(c.list[1:i+1], c.list[:i])
			c.list[0] = x
			return x.by
		}
	}
	x := compiled{bytes.Clone(schema), compileConnect(schema)}
	if len(c.list) < maxConversions {
		c.list = append(c.list, compiled{})
	}
	copy(c.list[1:], c.list)
	c.list[0] = x
	return x.by
}

// compileConnect reads a schema of Connect's JsonConverter; nil: nothing is to be converted. The schema is part of a
// checked record, so its depth is bounded.
func compileConnect(schema []byte) *conversion {
	var o event.Object
	o.Read(schema)
	if f := semantic(o.Find("name").Text(), scaleOf(o.Find("parameters").Raw)); f != nil {
		return &conversion{scalar: f}
	}
	switch o.Find("type").Text() {
	case "array":
		if items := compileConnect(o.Find("items").Raw); items != nil {
			return &conversion{items: items}
		}
	case "struct":
		x := &conversion{fields: map[string]*conversion{}}
		for _, raw := range event.Elements(o.Find("fields").Raw) {
			var field event.Object
			field.Read(raw)
			if y := compileConnect(raw); y != nil {
				x.fields[field.Find("field").Text()] = y
			}
		}
		if len(x.fields) > 0 {
			return x
		}
	}
	return nil
}

func scaleOf(parameters []byte) int {
	var o event.Object
	o.Read(parameters)
	n, err := strconv.Atoi(o.Find("scale").Text())
	if err != nil {
		return 0
	}
	return n
}

// semantic is the conversion of a semantic type of Debezium or Connect.
// https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-temporal-types
func semantic(name string, scale int) func(raw []byte) []byte {
	switch name {
	case "io.debezium.time.Date", "org.apache.kafka.connect.data.Date":
		return counted(func(n int64) (time.Time, bool) {
			const most = 4_000_000 // days: the year 12,921
			return time.Unix(n*24*60*60, 0), n > -most && n < most
		}, time.DateOnly)
	case "io.debezium.time.Timestamp", "org.apache.kafka.connect.data.Timestamp":
		return counted(func(n int64) (time.Time, bool) { return time.UnixMilli(n), true }, timeLayout)
	case "io.debezium.time.MicroTimestamp":
		return counted(func(n int64) (time.Time, bool) { return time.UnixMicro(n), true }, timeLayout)
	case "io.debezium.time.NanoTimestamp":
		return counted(func(n int64) (time.Time, bool) { return time.Unix(0, n), true }, timeLayout)
	case "org.apache.kafka.connect.data.Decimal":
		return func(raw []byte) []byte { return base64Decimal(raw, scale) }
	case "io.debezium.data.VariableScaleDecimal":
		return func(raw []byte) []byte {
			var o event.Object
			o.Read(raw)
			n, err := strconv.Atoi(o.Find("scale").Text())
			if err != nil {
				return nil
			}
			return base64Decimal(o.Find("value").Raw, n)
		}
	}
	return nil
}

// timeLayout is how times are written: UTC, with the milliseconds that Weft keeps.
const timeLayout = "2006-01-02T15:04:05.000Z"

// counted makes a time of a count of days, milliseconds, ...
func counted(of func(n int64) (time.Time, bool), layout string) func(raw []byte) []byte {
	return func(raw []byte) []byte {
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			return nil
		}
		t, ok := of(n)
		if !ok {
			return nil
		}
		return t.UTC().AppendFormat(append(make([]byte, 0, len(layout)+2), '"'), layout+`"`)
	}
}

// base64Decimal reads a number that is base64 of the bytes of its digits, without the decimal point.
func base64Decimal(raw []byte, scale int) []byte {
	if len(raw) < 2 || raw[0] != '"' {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(event.RawText(raw))
	if err != nil {
		return nil
	}
	return decimalText(b, scale)
}

// Bounds of decimals: 128 bytes are 308 digits, as many as a double's exponent; databases keep 38 to 77, Oracle's
// NUMBER has scales from -84 to 127.
const (
	maxDecimalBytes = 128
	maxScale        = 308
)

// decimalText writes digits (big-endian two's complement) with a decimal point; nil if they are out of bounds.
func decimalText(b []byte, scale int) []byte {
	if len(b) == 0 || len(b) > maxDecimalBytes || scale > maxScale || scale < -maxScale {
		return nil
	}
	n := new(big.Int).SetBytes(b)
	if b[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(len(b))*8))
	}
	digits := new(big.Int).Abs(n).String()
	switch {
	case scale < 0 && n.Sign() != 0:
		digits += strings.Repeat("0", -scale)
	case scale > 0:
		if len(digits) <= scale {
			digits = strings.Repeat("0", scale-len(digits)+1) + digits
		}
		digits = digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
	}
	if n.Sign() < 0 {
		digits = "-" + digits
	}
	return []byte(digits)
}

// append writes a value.
func (c *conversion) append(dst, raw []byte) []byte {
	switch {
	case len(raw) == 0 || raw[0] == 'n':
		return append(dst, raw...)
	case c.scalar != nil:
		if text := c.scalar(raw); text != nil {
			return append(dst, text...)
		}
	case c.fields != nil && raw[0] == '{':
		var o event.Object
		o.Read(raw)
		dst = append(dst, '{')
		for i := range o.Len() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(event.AppendJSONString(dst, o.Name(i)), ':')
			if x := c.fields[o.Name(i)]; x != nil {
				dst = x.append(dst, o.Value(i).Raw)
			} else {
				dst = append(dst, o.Value(i).Raw...)
			}
		}
		return append(dst, '}')
	case c.items != nil && raw[0] == '[':
		dst = append(dst, '[')
		for i, x := range event.Elements(raw) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = c.items.append(dst, x)
		}
		return append(dst, ']')
	}
	return append(dst, raw...)
}
