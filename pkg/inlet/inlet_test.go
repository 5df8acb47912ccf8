package inlet

import (
	"errors"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/avro"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/inlet/registry"
	"github.com/weft-cdp/weft/pkg/inlet/registry/registrytest"
	"github.com/weft-cdp/weft/pkg/topic"
)

func newReader(t testing.TB, cfg config.KafkaInlet) *Reader {
	r, err := New(cfg, nil)
	require.NoError(t, err)
	return r
}

func startRegistry(t testing.TB) *registrytest.Server {
	s := registrytest.New()
	t.Cleanup(s.Close)
	return s
}

// reads gives the body of a record that must be an event.
func reads(t testing.TB, r *Reader, value string) Event {
	e, err := r.Read(t.Context(), Record{Value: []byte(value)})
	require.NoError(t, err)
	return e
}

func fault(t testing.TB, r *Reader, value string) *event.Error {
	_, err := r.Read(t.Context(), Record{Value: []byte(value)})
	var e *event.Error
	require.ErrorAs(t, err, &e)
	require.NotErrorIs(t, err, ErrHeld)
	return e
}

func TestPathsLiteralsAndExpressionsInOneMapping(t *testing.T) {
	r := newReader(t, config.KafkaInlet{
		Mapping: map[string]string{
			"event": "'Order Completed'", "userId": "$.customer.id", "properties.total": "= record.cents / 100", "properties.raw": "$.total",
			"properties.products[].sku": "$.lines[*].sku", "properties.first": "= record.lines[0].price", "properties.shop": "= headers.shop", "properties.place": "= key.till",
			"traits.phone": "= record.phone", "traits.gone": "= record.gone", "properties.none": "$.none",
		},
		When: "record.cents > 0", Key: "key.till",
	})
	e, err := r.Read(t.Context(), Record{
		Key: []byte(`{"till":"T-7"}`), Headers: []topic.Header{{Key: "shop", Value: []byte("a")}, {Key: "shop", Value: []byte("b")}},
		Value: []byte(`{"customer":{"id":17},"cents":1999,"total":19.990,"lines":[{"sku":"A","price":1.10}],"gone":null}`),
	})
	require.NoError(t, err)
	require.JSONEq(t, `{"type":"track","event":"Order Completed","userId":17,"properties":{"total":19.99,"raw":19.990,"products":[{"sku":"A"}],"first":1.10,"shop":"b","place":"T-7"},"traits":{"gone":null}}`, string(e.Body))
	require.Contains(t, string(e.Body), `"raw":19.990`)
	require.Contains(t, string(e.Body), `"first":1.10`)
	require.Equal(t, "T-7", string(e.Key))
	require.Equal(t, Event{Skipped: SkippedWhen}, reads(t, r, `{"cents":0}`))
	require.Equal(t, Event{Skipped: SkippedWhen}, reads(t, r, `{}`))

	bad := fault(t, newReader(t, config.KafkaInlet{Mapping: map[string]string{"userId": "= record.a + 1"}}), `{"a":"x"}`)
	require.Equal(t, event.ExpressionFailed, bad.Reason)
	require.Equal(t, "userId", bad.Path)
	require.Equal(t, `1:10: cannot add a text and a number in "record.a + 1"`, bad.Detail)
}

func TestFaultsOfConfiguration(t *testing.T) {
	for want, cfg := range map[string]config.KafkaInlet{
		`mapping: userId: 1:8: Syntax error`:            {Mapping: map[string]string{"userId": "= record."}},
		`when: 1:1: undeclared reference to 'recor'`:    {When: "recor.x"},
		`preset: "nosuch" is none of`:                   {Preset: "nosuch"},
		`needs registry.url`:                            {Format: config.FormatAvro},
		`csv needs csv.columns`:                         {Format: config.FormatCSV},
		`there is no column "b"`:                        {Format: config.FormatCSV, CSV: config.CSVLines{Columns: []string{"a"}, Numbers: []string{"b"}}},
		`want one character`:                            {Format: config.FormatCSV, CSV: config.CSVLines{Columns: []string{"a"}, Separator: "ab"}},
		`"xml" is none of`:                              {Format: "xml"},
		`time: mapping.timestamp says`:                  {Time: "$.a", Mapping: map[string]string{"timestamp": "$.b"}},
		`time: needs a mapping`:                         {Time: "$.a"},
		`map it without []`:                             {Mapping: map[string]string{"properties.products[].a": "= record.a"}},
		`registry: url: want http://... or https://...`: {Format: config.FormatAvro, Registry: config.SchemaRegistry{URL: "x"}},
	} {
		_, err := New(cfg, nil)
		require.ErrorContains(t, err, want)
	}
}

func TestLines(t *testing.T) {
	r := newReader(t, config.KafkaInlet{
		Format: config.FormatCSV, CSV: config.CSVLines{Columns: []string{"card", "at", "total", "note"}, Separator: ";", Numbers: []string{"total"}},
		Mapping: map[string]string{"event": "'Sale'", "externalIds.card": "$.card", "timestamp": "$.at", "properties.total": "$.total", "properties.note": "$.note"},
	})
	e := reads(t, r, "\uFEFF007;2026-05-04;19.90;\"a;\"\"b\"\"\"\r\n")
	require.JSONEq(t, `{"type":"track","event":"Sale","timestamp":"2026-05-04","properties":{"total":19.90,"note":"a;\"b\""},"context":{"externalIds":[{"id":"007","type":"card"}]}}`, string(e.Body))
	require.Contains(t, string(e.Body), "19.90")
	require.Contains(t, string(reads(t, r, "1;;;").Body), `"total":null`)
	for line, want := range map[string]string{
		"1;2;3":       "has 3 columns, want 4",
		"1;2;x;4":     `column total: "x" is no number`,
		"1;2;1 ;4":    "is no number",
		"1;2;3;\"4":   "extraneous or missing",
		"1;2;3;4\n5":  "more than one line",
		"1;2;3;4\n\"": "more than one line",
		"\n":          "EOF",
	} {
		bad := fault(t, r, line)
		require.Equal(t, ReasonCSV, bad.Reason)
		require.Contains(t, bad.Detail, want, line)
	}
	require.Equal(t, event.InvalidUTF8, fault(t, r, "\xff;2;3;4").Reason)
	require.Equal(t, ReasonEmpty, fault(t, r, "").Reason)
}

const customers = `{"before":null,"after":{"id":7,"email":"Ann@Example.com"},"source":{"table":"customers","ts_ms":1777890672123,"snapshot":"false"},"op":"c","ts_ms":1777890673000}`

func customersReader(t testing.TB) *Reader {
	return newReader(t, config.KafkaInlet{Format: config.FormatDebezium, Mapping: map[string]string{
		"type": "'identify'", "userId": "$.id", "traits.email": "= email(record.email)", "traits.table": "= source.table", "traits.was": "= before.email", "traits.op": "= op",
	}})
}

func TestDebezium(t *testing.T) {
	r := customersReader(t)
	created := reads(t, r, customers)
	want := `{"type":"identify","userId":7,"timestamp":"2026-05-04T10:31:12.123Z","traits":{"email":"ann@example.com","table":"customers","op":"c"}}`
	require.JSONEq(t, want, string(created.Body))
	require.False(t, created.Historical)
	require.JSONEq(t, want, string(reads(t, r, ` {"schema":{"type":"struct"},"payload":`+customers+`} `).Body))
	require.JSONEq(t, want, string(reads(t, r, `{"schema":null,"payload":`+customers+`}`).Body))

	read := reads(t, r, strings.Replace(customers, `"op":"c"`, `"op":"r"`, 1))
	require.True(t, read.Historical, "a snapshot is history")
	updated := reads(t, r, `{"before":{"id":7,"email":"old@example.com"},"after":{"id":7,"email":"new@example.com"},"source":{},"op":"u","ts_ms":1777890673000}`)
	require.JSONEq(t, `{"type":"identify","userId":7,"timestamp":"2026-05-04T10:31:13.000Z","traits":{"email":"new@example.com","op":"u","was":"old@example.com"}}`, string(updated.Body))
	deleted := reads(t, r, `{"before":{"id":7,"email":"old@example.com"},"after":null,"source":{"ts_ms":1777890672123},"op":"d"}`)
	require.Contains(t, string(deleted.Body), `"userId":7`)

	for value, why := range map[string]string{
		"": SkippedTombstone, "null": SkippedTombstone, `{"schema":null,"payload":null}`: SkippedTombstone,
		`{"op":"t","source":{}}`: SkippedOperation, `{"op":"m","message":{}}`: SkippedOperation,
	} {
		require.Equal(t, Event{Skipped: why}, reads(t, r, value), value)
	}
	for value, path := range map[string]string{
		`{"id":7}`: "op", `{"op":"x"}`: "op", `{"op":"c"}`: "after", `{"op":"d","before":null}`: "before", `{"op":"u","after":3}`: "after", `[1]`: "op",
	} {
		bad := fault(t, r, value)
		require.Equal(t, ReasonDebezium, bad.Reason, value)
		require.Equal(t, path, bad.Path, value)
	}
	require.Equal(t, event.InvalidJSON, fault(t, r, `{"op":`).Reason)
}

// What Connect hides in its schema is as people read it.
func TestDebeziumWithItsSchema(t *testing.T) {
	row := `[{"field":"id","type":"int64"},{"field":"total","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}},
		{"field":"born","type":"int32","name":"io.debezium.time.Date"},{"field":"at","type":"int64","name":"io.debezium.time.MicroTimestamp"},
		{"field":"ms","type":"int64","name":"io.debezium.time.Timestamp"},{"field":"ns","type":"int64","name":"io.debezium.time.NanoTimestamp"},
		{"field":"any","type":"struct","name":"io.debezium.data.VariableScaleDecimal","fields":[{"field":"scale","type":"int32"},{"field":"value","type":"bytes"}]},
		{"field":"list","type":"array","items":{"type":"int32","name":"io.debezium.time.Date"}},{"field":"broken","type":"bytes","name":"org.apache.kafka.connect.data.Decimal"}]`
	schema := `{"type":"struct","fields":[{"field":"before","type":"struct","fields":` + row + `},{"field":"after","type":"struct","fields":` + row + `},{"field":"op","type":"string"}]}`
	payload := `{"after":{"id":1,"total":"B8Y=","born":20577,"at":1777890672123456,"ms":1000,"ns":1777890672123456789,"any":{"scale":3,"value":"/w=="},"list":[0,null],"broken":"!"},"op":"c","ts_ms":1777890673000}`
	r := newReader(t, config.KafkaInlet{Format: config.FormatDebezium, Mapping: map[string]string{"userId": "$.id", "traits": "$"}})
	for range 2 { // the second time the schema is known
		require.JSONEq(t, `{"type":"identify","userId":1,"timestamp":"2026-05-04T10:31:13.000Z","traits":{"id":1,"total":19.90,"born":"2026-05-04","at":"2026-05-04T10:31:12.123Z",
			"ms":"1970-01-01T00:00:01.000Z","ns":"2026-05-04T10:31:12.123Z","any":-0.001,"list":["1970-01-01",null],"broken":"!"}}`, string(reads(t, r, `{"schema":`+schema+`,"payload":`+payload+`}`).Body))
	}
	require.Contains(t, string(reads(t, r, `{"schema":`+schema+`,"payload":`+payload+`}`).Body), "19.90")
}

func TestDecimals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64().Draw(t, "n")
		scale := rapid.IntRange(0, 30).Draw(t, "scale")
		size := rapid.IntRange(8, 20).Draw(t, "size")
		whole := new(big.Int).Add(big.NewInt(n), new(big.Int).Lsh(big.NewInt(1), uint(size)*8)) // two's complement
		b := whole.Bytes()
		if len(b) > size {
			b = b[len(b)-size:]
		}
		text := string(decimalText(b, scale))
		got, ok := new(big.Rat).SetString(text)
		want := new(big.Rat).SetFrac(big.NewInt(n), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil))
		if !ok || got.Cmp(want) != 0 || event.CheckJSON([]byte(text)) != nil {
			t.Fatalf("%d with scale %d is %s", n, scale, text)
		}
		if _, decimals, _ := strings.Cut(text, "."); len(decimals) != scale {
			t.Fatalf("%s has not %d decimals", text, scale)
		}
	})
	require.Equal(t, "1200", string(decimalText([]byte{12}, -2)))
	require.Equal(t, "0", string(decimalText([]byte{0}, -2)))
	require.Nil(t, decimalText(nil, 0))
	require.Nil(t, decimalText(make([]byte, maxDecimalBytes+1), 0))
}

const orderSchema = `{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"id","type":"string"},
	{"name":"total","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}},{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"day","type":{"type":"int","logicalType":"date"}},{"name":"micro","type":{"type":"long","connect.name":"io.debezium.time.MicroTimestamp"}},
	{"name":"note","type":["null","string"],"default":null},{"name":"qty","type":"long"},{"name":"weight","type":"double"},{"name":"blob","type":"bytes"},
	{"name":"tags","type":{"type":"map","values":"int"}},{"name":"state","type":{"type":"enum","name":"State","symbols":["NEW","PAID"]}},{"name":"customer","type":"shop.Customer"}]}`

func encodeOrder(t testing.TB) []byte {
	var cache avro.SchemaCache
	_, err := cache.Parse(`{"type":"record","name":"Customer","namespace":"shop","fields":[{"name":"email","type":"string"}]}`)
	require.NoError(t, err)
	schema, err := cache.Parse(orderSchema)
	require.NoError(t, err)
	value, err := schema.Encode(map[string]any{
		"id": "o-1", "total": big.NewRat(1990, 100), "at": time.UnixMilli(1777890672123), "day": time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC), "micro": int64(1777890672123456),
		"note": nil, "qty": int64(9007199254740993), "weight": 0.1, "blob": []byte{0, 255}, "tags": map[string]any{"b": 2, "a": 1}, "state": "PAID", "customer": map[string]any{"email": "ann@example.com"},
	})
	require.NoError(t, err)
	return value
}

// avroReader registers the order's schema and gives its reader and id.
func avroReader(t testing.TB, s *registrytest.Server) (*Reader, uint32) {
	s.Add("customer-value", "AVRO", `{"type":"record","name":"Customer","namespace":"shop","fields":[{"name":"email","type":"string"}]}`)
	id := s.Add("orders-value", "AVRO", orderSchema, registrytest.Reference{Name: "shop.Customer", Subject: "customer-value", Version: 1})
	return newReader(t, config.KafkaInlet{Format: config.FormatAvro, Registry: config.SchemaRegistry{URL: s.URL}, Mapping: map[string]string{
		"event": "'Order Completed'", "properties": "$", "context.traits.email": "= record.customer.email", "timestamp": "$.at",
	}}), id
}

func TestAvro(t *testing.T) {
	s := startRegistry(t)
	r, id := avroReader(t, s)
	value := encodeOrder(t)
	e, err := r.Read(t.Context(), Record{Value: registrytest.Frame(id, value)})
	require.NoError(t, err)
	require.Equal(t, `{"context":{"traits":{"email":"ann@example.com"}},"event":"Order Completed","properties":{"at":"2026-05-04T10:31:12.123Z","blob":"AP8=","customer":{"email":"ann@example.com"},`+
		`"day":"2026-05-04","id":"o-1","micro":"2026-05-04T10:31:12.123Z","note":null,"qty":9007199254740993,"state":"PAID","tags":{"a":1,"b":2},"total":19.90,"weight":0.1},"timestamp":"2026-05-04T10:31:12.123Z","type":"track"}`, string(e.Body))
	requests := s.Requests()
	_, err = r.Read(t.Context(), Record{Value: registrytest.Frame(id, value)})
	require.NoError(t, err)
	require.Equal(t, requests, s.Requests(), "a schema is asked for once")

	proto := s.Add("p", "PROTOBUF", `syntax = "proto3";`)
	broken := s.Add("b", "AVRO", `{"type":"nosuch"}`)
	for _, c := range []struct {
		value        []byte
		reason, text string
	}{
		{[]byte(`{"id":"o-1"}`), ReasonFormat, "wire format"},
		{[]byte{0, 0}, ReasonFormat, "wire format"},
		{registrytest.Frame(id, value[:20]), ReasonSchema, "schema 2:"},
		{registrytest.Frame(id, append(value[:len(value):len(value)], 0)), ReasonSchema, "1 bytes stand behind the value"},
		{registrytest.Frame(4711, value), ReasonSchema, "schema 4711: the registry has no such schema"},
		{registrytest.Frame(proto, value), ReasonSchema, "schemas of type PROTOBUF cannot be read"},
		{registrytest.Frame(broken, value), ReasonSchema, "schema 4:"},
	} {
		bad := fault(t, r, string(c.value))
		require.Equal(t, c.reason, bad.Reason)
		require.Contains(t, bad.Detail, c.text)
	}
}

// A registry that is away holds the record; nothing is judged. When it is back the record is as good as ever.
func TestRegistryAway(t *testing.T) {
	s := startRegistry(t)
	id := s.Add("k-value", "JSON", `{"type":"object","required":["id"],"properties":{"id":{"type":"integer"}}}`)
	r := newReader(t, config.KafkaInlet{Format: config.FormatJSONSchema, Registry: config.SchemaRegistry{URL: s.URL}, Mapping: map[string]string{"userId": "= record.id"}})
	rec := Record{Key: registrytest.Frame(id, []byte(`{"id":1}`)), Value: registrytest.Frame(id, []byte(`{"id":7}`))}
	for _, status := range []int{http.StatusServiceUnavailable, http.StatusUnauthorized} {
		s.Answer(status)
		_, err := r.Read(t.Context(), rec)
		require.ErrorIs(t, err, ErrHeld)
	}
	s.Answer(0)
	e, err := r.Read(t.Context(), rec)
	require.NoError(t, err)
	require.JSONEq(t, `{"type":"identify","userId":7}`, string(e.Body))
}

func TestJSONSchema(t *testing.T) {
	s := startRegistry(t)
	s.Add("address", "JSON", `{"type":"object","required":["zip"]}`)
	id := s.Add("c-value", "JSON", `{"type":"object","required":["id"],"properties":{"id":{"type":"integer"},"address":{"$ref":"address.json"}}}`,
		registrytest.Reference{Name: "address.json", Subject: "address", Version: 1})
	r := newReader(t, config.KafkaInlet{Format: config.FormatJSONSchema, Registry: config.SchemaRegistry{URL: s.URL}, Mapping: map[string]string{"userId": "$.id", "traits": "$"}})
	e, err := r.Read(t.Context(), Record{Value: registrytest.Frame(id, []byte(`{"id":7,"address":{"zip":1.50}}`))})
	require.NoError(t, err)
	require.Equal(t, `{"traits":{"id":7,"address":{"zip":1.50}},"userId":7,"type":"identify"}`, string(e.Body))
	require.Contains(t, fault(t, r, string(registrytest.Frame(id, []byte(`{"id":7,"address":{}}`)))).Detail, "zip")
	require.Equal(t, event.InvalidJSON, fault(t, r, string(registrytest.Frame(id, []byte(`{`)))).Reason)

	// Nothing is read from files or the network for a schema.
	for _, ref := range []string{"file:///etc/passwd", "https://example.com/x", "other.json"} {
		outside := s.Add("o", "JSON", `{"$ref":"`+ref+`"}`)
		require.Contains(t, fault(t, r, string(registrytest.Frame(outside, []byte(`{}`)))).Detail, "not among the references")
	}
	wrong := newReader(t, config.KafkaInlet{Format: config.FormatAvro, Registry: config.SchemaRegistry{URL: s.URL}, Mapping: map[string]string{"userId": "$.id"}})
	require.Contains(t, fault(t, wrong, string(registrytest.Frame(id, []byte(`{"id":7}`)))).Detail, "is of format jsonschema, the source says avro")
}

// Debezium's envelope in Avro: the same mapping.
func TestDebeziumInAvro(t *testing.T) {
	const text = `{"type":"record","name":"Envelope","fields":[{"name":"before","type":["null",{"type":"record","name":"Value","fields":[{"name":"id","type":"long"},{"name":"email","type":"string"}]}]},
		{"name":"after","type":["null","Value"]},{"name":"source","type":{"type":"record","name":"Source","fields":[{"name":"table","type":"string"},{"name":"ts_ms","type":"long"}]}},{"name":"op","type":"string"}]}`
	s := startRegistry(t)
	id := s.Add("customers-value", "AVRO", text)
	row := map[string]any{"id": int64(7), "email": "Ann@Example.com"}
	value, err := avro.MustParse(text).Encode(map[string]any{"before": nil, "after": row, "op": "r", "source": map[string]any{"table": "customers", "ts_ms": int64(1777890672123)}})
	require.NoError(t, err)
	r := newReader(t, config.KafkaInlet{Format: config.FormatDebezium, Registry: config.SchemaRegistry{URL: s.URL}, Mapping: map[string]string{"type": "'identify'", "userId": "$.id", "traits.email": "= email(record.email)"}})
	e, err := r.Read(t.Context(), Record{Value: registrytest.Frame(id, value)})
	require.NoError(t, err)
	require.JSONEq(t, `{"type":"identify","userId":7,"timestamp":"2026-05-04T10:31:12.123Z","traits":{"email":"ann@example.com"}}`, string(e.Body))
	require.True(t, e.Historical)
	require.JSONEq(t, string(e.Body), string(reads(t, r, `{"after":{"id":7,"email":"Ann@Example.com"},"op":"c","source":{"ts_ms":1777890672123}}`).Body), "plain JSON on the same topic")
}

// fuzzed reads any bytes twice: no panic, an event.Error or JSON, and the same each time.
func fuzzed(t *testing.T, r *Reader, value []byte) {
	rec := Record{Key: value, Value: value}
	e, err := r.Read(t.Context(), rec)
	if err != nil {
		var known *event.Error
		if !errors.As(err, &known) {
			t.Fatalf("%q: %v", value, err)
		}
		return
	}
	if e.Body != nil && event.CheckJSON(e.Body) != nil && event.Reason(event.CheckJSON(e.Body), "") != event.TooDeep {
		t.Fatalf("%q became %q", value, e.Body)
	}
	again, err := r.Read(t.Context(), rec)
	if err != nil || string(again.Body) != string(e.Body) || again.Skipped != e.Skipped || string(again.Key) != string(e.Key) {
		t.Fatalf("%q became %q, then %q (%v)", value, e.Body, again.Body, err)
	}
}

func FuzzDebezium(f *testing.F) {
	for _, x := range []string{customers, `{"schema":{"type":"struct","fields":[{"field":"after","type":"struct","fields":[{"field":"a","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}}]}]},"payload":{"op":"u","after":{"a":"B8Y="}}}`,
		`{"op":"d","before":{}}`, "null", "", `{"payload":null}`, `{"op":"r","after":{"id":"\ud800"}}`} {
		f.Add([]byte(x))
	}
	r := customersReader(f)
	f.Fuzz(func(t *testing.T, value []byte) { fuzzed(t, r, value) })
}

func FuzzCSV(f *testing.F) {
	for _, x := range []string{"1;2;3;4", "\"a\"\"\";;1e5;\r\n", "a\n", "\"", "\uFEFF;;;"} {
		f.Add([]byte(x))
	}
	r := newReader(f, config.KafkaInlet{Format: config.FormatCSV, CSV: config.CSVLines{Columns: []string{"a", "b", "c", "d"}, Separator: ";", Numbers: []string{"c"}}, Mapping: map[string]string{"traits": "$", "userId": "= lower(record.a)"}})
	f.Fuzz(func(t *testing.T, value []byte) { fuzzed(t, r, value) })
}

func FuzzAvro(f *testing.F) {
	s := startRegistry(f)
	r, id := avroReader(f, s)
	value := encodeOrder(f)
	f.Add(value)
	f.Add(value[:30])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, value []byte) { fuzzed(t, r, registrytest.Frame(id, value)) })
}

func FuzzAvroSchema(f *testing.F) {
	f.Add(orderSchema, []byte{2, 4, 6})
	f.Add(`{"type":"array","items":"null"}`, []byte{254, 255, 255, 255, 15, 0})
	f.Add(`{"type":"record","name":"A","fields":[{"name":"a","type":["null","A"]}]}`, []byte{2, 2, 2, 0})
	f.Add(`{"type":"fixed","name":"F","size":12,"logicalType":"decimal","precision":5}`, []byte("123456789012"))
	f.Fuzz(func(t *testing.T, text string, value []byte) {
		d, err := compileAvro(registry.Schema{Type: registry.Avro, Text: text})
		if err != nil {
			return
		}
		out, err := d.json(value)
		if err == nil && event.CheckJSON(out) != nil {
			t.Fatalf("%q by %q is %q", value, text, out)
		}
	})
}
