package tail

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

var at = time.Date(2026, 5, 4, 10, 11, 12, 345e6, time.UTC)

func record(source, body, flags string) *stream.Record {
	m := event.Meta{Source: source, Brand: "main", MessageID: "m", ReceivedAt: at, Flags: flags}
	return &stream.Record{Topic: "weft.events.collected", Partition: 2, Offset: 7, Key: []byte("p-1"), Value: []byte(body), Headers: topic.MetaHeaders(m)}
}

func TestLinesAreForPeople(t *testing.T) {
	var out bytes.Buffer
	p := &Printer{Out: &out}
	for _, r := range []*stream.Record{
		record("web", `{"type":"track","event":"Order Completed","userId":"u-1","properties":{"order_id":"o-1","total":129.90,"products":[1,2],"address":{"x":1},"none":null}}`, "bot,plan_violation"),
		record("shop-backend", `{"type":"identify","userId":"u-1","traits":{"email":"a@b.example"}}`, ""),
		record("web", `{"type":"page","anonymousId":"a-1","name":"Home"}`, ""),
		record("web", "{\"type\":\"track\",\"event\":\"\\u001b[2Jclear\",\"userId\":\"u\\u202e\",\"properties\":{\"a\":\"x\\ny\",\"1\":1,\"2\":2,\"3\":3,\"4\":4,\"5\":5,\"6\":6,\"long\":\"x\"}}", ""),
		record("web", `no event`, ""),
		{Value: []byte(`{}`), Headers: []topic.Header{{Key: topic.HeaderKind, Value: []byte(topic.KindMerge)}}},
		{Value: []byte(`{"type":"page","userId":"u"}`), Headers: []topic.Header{{Key: topic.HeaderRefold, Value: []byte("c1")}}}, // told before
	} {
		require.NoError(t, p.Record(r))
	}
	require.Equal(t, 4, p.Shown)
	require.Equal(t, `10:11:12.345  web             Order Completed           user_id=u-1  [bot,plan_violation]  order_id=o-1 total=129.90 products=[2]
10:11:12.345  shop-backend    identify                  user_id=u-1  email=a@b.example
10:11:12.345  web             page Home                 anonymous_id=a-1
10:11:12.345  web             \x1b[2Jclear              user_id=u\u202e  a=x\ny 1=1 2=2 3=3 4=4 5=5 ...
`, out.String())

	out.Reset()
	p.Colour = true
	require.NoError(t, p.Record(record("web", `{"type":"page","anonymousId":"a-1"}`, "")))
	require.Contains(t, out.String(), bold+"page")
}

func TestJSONHasTheEventAsItIs(t *testing.T) {
	var out bytes.Buffer
	p := &Printer{Out: &out, JSON: true}
	require.NoError(t, p.Record(record("web", `{"type":"page","userId":"u","properties":{"n":1.10}}`, "bot")))
	require.True(t, json.Valid(out.Bytes()))
	require.Contains(t, out.String(), `"topic":"weft.events.collected","partition":2,"offset":7,"key":"p-1","source":"web"`)
	require.Contains(t, out.String(), `"flags":["bot"]`)
	require.Contains(t, out.String(), `"event":{"type":"page","userId":"u","properties":{"n":1.10}}`)
}

func TestFilters(t *testing.T) {
	r := record("web", `{"type":"track","event":"Order Completed","userId":"u-1","context":{"traits":{"email":"Ann@B.example"}}}`, "bot")
	for shown, filters := range map[int][]Filter{
		1: {
			{}, {Sources: []string{"app", "web"}}, {Names: []string{"order completed"}}, {Types: []string{"Track"}}, {Person: "u-1"},
			{Person: "ann@b.example"}, {Person: "p-1"}, {Flag: "bot"}, {Sources: []string{"web"}, Person: "u-1"},
		},
		0: {{Sources: []string{"app"}}, {Names: []string{"Order"}}, {Types: []string{"page"}}, {Person: "u"}, {Flag: "late_clamped"}, {Sources: []string{"web"}, Person: "u-2"}},
	} {
		for _, f := range filters {
			p := &Printer{Out: &bytes.Buffer{}, Filter: f}
			require.NoError(t, p.Record(r))
			require.Equal(t, shown, p.Shown, "%+v", f)
		}
	}
}
