package inlet

import (
	"context"
	"fmt"

	"github.com/weft-cdp/weft/pkg/event"
)

// debezium is the envelope of a change of a database's row: bare, or with its schema beside it as Kafka Connect's
// JsonConverter writes it, or in Confluent's wire format.
// https://debezium.io/documentation/reference/stable/tutorial.html#viewing-create-event
type debezium struct {
	confluent   *confluent // nil: records are JSON text
	conversions *conversions
}

func (d *debezium) read(ctx context.Context, value []byte) (read, error) {
	if len(value) == 0 {
		return read{skipped: SkippedTombstone}, nil
	}
	text := value
	if d.confluent != nil && value[0] == magic {
		var err error
		if text, err = d.confluent.json(ctx, value, ""); err != nil {
			return read{}, err
		}
	} else if err := event.CheckJSON(value); err != nil {
		return read{}, err
	}
	text = spaceless(text)
	if string(text) == "null" {
		return read{skipped: SkippedTombstone}, nil
	}
	var o event.Object
	o.Read(text)
	if schema, payload := o.Find("schema"), o.Find("payload"); payload.Raw != nil && o.Find("op").Raw == nil {
		if payload.Absent() {
			return read{skipped: SkippedTombstone}, nil
		}
		text = d.conversions.convert(schema.Raw, payload.Raw)
		o.Read(text)
	}
	return envelope(&o)
}

// envelope reads what is in one.
func envelope(o *event.Object) (read, error) {
	fail := func(path, format string, args ...any) (read, error) {
		return read{}, &event.Error{Reason: ReasonDebezium, Path: path, Detail: fmt.Sprintf(format, args...)}
	}
	op := o.Find("op")
	if op.Absent() {
		return fail("op", "is missing: this is no envelope of Debezium (unwrapped rows are of format json)")
	}
	in := read{op: op.Raw, before: present(o.Find("before")), after: present(o.Find("after")), source: present(o.Find("source")), ts: present(o.Find("ts_ms"))}
	switch name := op.Text(); name {
	case "c", "u", "r":
		in.record, in.historical = in.after, name == "r"
		if in.record == nil {
			return fail("after", "is missing, although op is %s", name)
		}
	case "d":
		if in.record = in.before; in.record == nil {
			return fail("before", "is missing, although op is d: let the table keep whole rows (PostgreSQL: REPLICA IDENTITY FULL)")
		}
	case "t", "m": // the table was truncated; a message of the database's own log
		return read{skipped: SkippedOperation}, nil
	default:
		return fail("op", "%q is none of c, u, d, r, t, m", name)
	}
	if in.record[0] != '{' {
		return fail("after", "is no row")
	}
	in.messageID = changeID(&in)
	return in, nil
}

func present(v event.Value) []byte {
	if v.Absent() {
		return nil
	}
	return v.Raw
}

func spaceless(text []byte) []byte {
	for len(text) > 0 && text[0] <= ' ' {
		text = text[1:]
	}
	for len(text) > 0 && text[len(text)-1] <= ' ' {
		text = text[:len(text)-1]
	}
	return text
}
