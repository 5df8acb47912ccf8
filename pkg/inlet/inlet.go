// Package inlet makes events of records that others write to Kafka.
//
// It owns: the formats a record may have (JSON, Debezium's envelope, Avro and JSON Schema in Confluent's wire format, a
// line of CSV), how each becomes JSON, the mapping of that to an event by paths and expressions, and the presets.
//
// It guarantees:
//   - The same record gives the same event, whoever reads it and when.
//   - An error is an *event.Error, which will be the same each time, unless it is of ErrHeld: then the record may be
//     fine, and only the schema registry cannot be asked. Nothing is ever judged by what cannot be asked.
//   - Numbers keep their digits, decimals included: 19.90 in Avro's decimal(8,2) is 19.90 in the event.
//   - Memory is bounded: a record by Kafka's limit, schemas by number and size.
//
// It must not know Kafka's protocol, topics of Weft, nor who a person is.
package inlet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/expr"
	"github.com/weft-cdp/weft/pkg/inlet/registry"
	"github.com/weft-cdp/weft/pkg/topic"
)

// ErrHeld says that a record cannot be read now, and may be later: its schema cannot be fetched.
var ErrHeld = registry.ErrUnavailable

// Reasons of events.rejected that are this package's.
const (
	ReasonEmpty    = "empty_record"     // a record without a value
	ReasonFormat   = "invalid_format"   // it is not in the format that the source names
	ReasonSchema   = "invalid_schema"   // its schema is not there, cannot be read, or does not allow it
	ReasonDebezium = "invalid_debezium" // it is no envelope of Debezium
	ReasonCSV      = "invalid_csv"      // it is no line with these columns
	reasonExpr     = event.ExpressionFailed
)

// Why a record gives no event although nothing is wrong with it.
const (
	SkippedTombstone = "tombstone" // the key was deleted; the record before said so
	SkippedOperation = "operation" // of Debezium: a truncated table, a message of the database
	SkippedWhen      = "when"      // the source's condition is false
)

// Record is one record of the topic.
type Record struct {
	Key, Value []byte
	Headers    []topic.Header
}

// Event is what a record gives.
type Event struct {
	Body       []byte // a JSON object; nil: the record is skipped
	Skipped    string // why
	Key        []byte // key on events.collected; nil: the event's own
	Historical bool   // the record says so: it is of a snapshot
	MessageID  string // for a body without one; empty: nothing in the record names what happened
}

// The names that expressions may use.
const (
	varRecord  = "record"  // the record; of Debezium the row: after, or before if it was deleted
	varKey     = "key"     // the record's key: JSON, or a text
	varHeaders = "headers" // the record's headers by name, as texts; of equal names the last
	varBefore  = "before"  // of Debezium: the row before the change
	varAfter   = "after"   // of Debezium: the row after the change
	varOp      = "op"      // of Debezium: c, u, d or r
	varSource  = "source"  // of Debezium: where the change comes from
	varTime    = "ts_ms"   // of Debezium: when the connector saw the change
)

// Variables are those names with what they hold.
func Variables() [][2]string {
	return [][2]string{
		{varRecord, "the record; of Debezium the row: `after`, or `before` if it was deleted"},
		{varKey, "the record's key: JSON, else a text"},
		{varHeaders, "the record's headers by name, as texts"},
		{varBefore, "of Debezium: the row before the change"},
		{varAfter, "of Debezium: the row after the change"},
		{varOp, "of Debezium: `c` created, `u` updated, `d` deleted, `r` read for a snapshot"},
		{varSource, "of Debezium: where the change comes from (`source.table`, `source.ts_ms`, ...)"},
		{varTime, "of Debezium: when the connector saw the change"},
	}
}

// read is a record on its way: JSON texts, nil where there is none.
type read struct {
	record, before, after, op, source, ts []byte

	skipped    string
	historical bool
	messageID  string
}

// format makes JSON of a record's value. The error is an *event.Error, or of ErrHeld.
type format interface {
	read(ctx context.Context, value []byte) (read, error)
}

// Reader reads the records of one source. It is safe for concurrent use.
type Reader struct {
	format    format
	confluent *confluent // to read keys with; nil: none
	mapping   *Mapping   // nil: the records are events in Segment's shape
	when      *expr.Program
	key       *expr.Program
	// expressive says that there are expressions: without, a record need not be made ready for them.
	expressive bool
}

// New compiles a source's inlet. client is for the schema registry; nil: one of its own. The error names every field
// that is wrong.
func New(cfg config.KafkaInlet, client *http.Client) (*Reader, error) {
	r := &Reader{}
	var errs []error
	fail := func(path string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		}
	}
	if cfg.Registry.URL != "" {
		c, err := registry.New(cfg.Registry, client)
		fail("registry", err)
		r.confluent = newConfluent(c)
	}
	fields, err := mappingOf(cfg)
	fail("preset", err)
	r.expressive = cfg.When != "" || cfg.Key != ""
	for _, text := range fields {
		r.expressive = r.expressive || strings.HasPrefix(strings.TrimSpace(text), "=")
	}
	r.format, err = newFormat(cfg, r.confluent, r.expressive)
	fail("format", err)
	env, err := expr.NewEnv(expr.Options{Variables: names()})
	if err != nil {
		return nil, err
	}
	if len(fields) > 0 {
		r.mapping, err = compileMapping(env, fields)
		fail("mapping", err)
	}
	compile := func(path, text string) *expr.Program {
		if text == "" {
			return nil
		}
		p, err := env.Compile(expression(text))
		fail(path, err)
		return p
	}
	if cfg.When != "" || cfg.Key != "" {
		if r.mapping == nil {
			r.mapping = &Mapping{env: env} // for the variables
		}
		r.when, r.key = compile("when", cfg.When), compile("key", cfg.Key)
	}
	return r, errors.Join(errs...)
}

// expression is the text of when and key: an expression with or without the = in front.
func expression(text string) string {
	return strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), "="))
}

func names() []string {
	vs := Variables()
	list := make([]string, len(vs))
	for i := range vs {
		list[i] = vs[i][0]
	}
	return list
}

// mappingOf is the fields of the preset, those of the mapping in their place, and the time.
func mappingOf(cfg config.KafkaInlet) (map[string]string, error) {
	fields := map[string]string{}
	if cfg.Preset != "" {
		p, err := PresetNamed(cfg.Preset)
		if err != nil {
			return nil, err
		}
		maps.Copy(fields, p.Mapping)
		if cfg.Format == config.FormatDebezium {
			delete(fields, "messageId") // names the row, of which every change is to count
		}
	}
	maps.Copy(fields, cfg.Mapping)
	if len(fields) == 0 {
		if cfg.Time != "" {
			return nil, errors.New("time: needs a mapping or a preset (the timestamp of an event in Segment's shape is its own)")
		}
		return nil, nil
	}
	_, timed := cfg.Mapping["timestamp"]
	switch {
	case cfg.Time != "" && timed:
		return nil, errors.New("time: mapping.timestamp says already what it is")
	case cfg.Time != "":
		fields["timestamp"] = cfg.Time
	case cfg.Format == config.FormatDebezium && fields["timestamp"] == "":
		fields["timestamp"] = "= time(coalesce(source.ts_ms, ts_ms))"
	}
	return fields, nil
}

// Read makes the event of a record.
func (r *Reader) Read(ctx context.Context, rec Record) (Event, error) {
	in, err := r.format.read(ctx, rec.Value)
	if err != nil || in.skipped != "" {
		return Event{Skipped: in.skipped}, err
	}
	if !r.expressive {
		out := Event{Body: in.record, Historical: in.historical, MessageID: in.messageID}
		if r.mapping != nil {
			out.Body, err = r.mapping.mapping.Event(in.record, nil)
		}
		return out, err
	}
	key, err := r.readKey(ctx, rec.Key)
	if err != nil {
		return Event{}, err
	}
	vars := r.mapping.take()
	defer r.mapping.give(vars)
	vars.SetJSON(varRecord, in.record)
	vars.SetJSON(varKey, key)
	vars.SetJSON(varHeaders, headersJSON(rec.Headers))
	vars.SetJSON(varBefore, in.before)
	vars.SetJSON(varAfter, in.after)
	vars.SetJSON(varOp, in.op)
	vars.SetJSON(varSource, in.source)
	vars.SetJSON(varTime, in.ts)
	if r.when != nil {
		ok, err := r.when.Bool(vars)
		if err != nil {
			return Event{}, &event.Error{Reason: reasonExpr, Path: "when", Detail: err.Error()}
		}
		if !ok {
			return Event{Skipped: SkippedWhen}, nil
		}
	}
	out := Event{Historical: in.historical, Body: in.record, MessageID: in.messageID}
	if r.key != nil {
		v, err := r.key.Eval(vars)
		if err != nil {
			return Event{}, &event.Error{Reason: reasonExpr, Path: "key", Detail: err.Error()}
		}
		if text, ok := v.Text(); ok && text != "" {
			out.Key = []byte(text)
		}
	}
	if r.mapping.mapping != nil {
		out.Body, err = r.mapping.mapping.Event(in.record, vars)
	}
	return out, err
}

// readKey is a record's key as JSON: what the registry's schema makes of it, JSON as it is, or a text.
func (r *Reader) readKey(ctx context.Context, key []byte) ([]byte, error) {
	if len(key) == 0 {
		return nil, nil
	}
	if r.confluent != nil && key[0] == magic {
		text, err := r.confluent.json(ctx, key, "")
		if err == nil || errors.Is(err, ErrHeld) {
			return text, err
		}
	}
	if event.CheckJSON(key) == nil {
		return key, nil
	}
	if !utf8.Valid(key) {
		return nil, nil // bytes that mean something to somebody else
	}
	return event.AppendJSONString(nil, string(key)), nil
}

func headersJSON(headers []topic.Header) []byte {
	if len(headers) == 0 {
		return nil
	}
	out := []byte{'{'}
	for i := len(headers) - 1; i >= 0; i-- { // of equal names the first counts in JSON
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(event.AppendJSONString(out, headers[i].Key), ':')
		out = event.AppendJSONString(out, string(headers[i].Value))
	}
	return append(out, '}')
}

// newFormat makes the reader of values.
func newFormat(cfg config.KafkaInlet, c *confluent, check bool) (format, error) {
	switch cfg.Format {
	case "", config.FormatJSON:
		return plainJSON{check}, nil
	case config.FormatCSV:
		return newLines(cfg.CSV)
	case config.FormatDebezium:
		return &debezium{confluent: c, conversions: newConversions()}, nil
	case config.FormatAvro, config.FormatJSONSchema:
		if c == nil {
			return nil, fmt.Errorf("%s needs registry.url", cfg.Format)
		}
		return framed{c, cfg.Format}, nil
	}
	return nil, fmt.Errorf("%q is none of %s", cfg.Format, strings.Join(config.Formats, ", "))
}

// plainJSON is JSON text. It is checked for expressions only: mappings and the collector do it themselves.
type plainJSON struct{ check bool }

func (p plainJSON) read(_ context.Context, value []byte) (read, error) {
	if len(value) == 0 {
		return read{}, &event.Error{Reason: ReasonEmpty, Detail: "the record has no value"}
	}
	if p.check {
		if err := event.CheckJSON(value); err != nil {
			return read{}, err
		}
	}
	return read{record: value}, nil
}

// framed is Confluent's wire format: a zero, four bytes of schema id, and the value.
type framed struct {
	confluent *confluent
	want      string // the format
}

func (f framed) read(ctx context.Context, value []byte) (read, error) {
	if len(value) == 0 {
		return read{}, &event.Error{Reason: ReasonEmpty, Detail: "the record has no value"}
	}
	text, err := f.confluent.json(ctx, value, f.want)
	return read{record: text}, err
}

// heldFor is how long a record is held before its source is not ready: longer than a registry takes to restart.
const heldFor = 30 * time.Second

// HeldFor is after how long a held partition is a reason not to be ready.
func HeldFor() time.Duration { return heldFor }
