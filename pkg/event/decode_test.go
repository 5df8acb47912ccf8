package event

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var received = time.Date(2026, 11, 22, 7, 0, 0, 0, time.UTC)

func decode(t *testing.T, body string) *Event {
	t.Helper()
	e, err := Decode([]byte(body), Meta{ReceivedAt: received})
	require.NoError(t, err)
	return e
}

func TestDecodeReadsWhatRealSendersWrite(t *testing.T) {
	e := decode(t, ` {"type":"Track","event":"Product Added","userId":null,"anonymousId":"a1","messageId":"m1",
		"timestamp":"2026-11-22T07:59:14.325123456+01:00","sentAt":"2026-11-22T06:59:20Z","category":null,
		"properties":{"points":900719925474099312345678901234,"name":"\u017b\u00f3\u0142te \ud83d\udc5f","price":0.10,"n":null,"products":[{"sku":7}]},
		"context":{"traits":{"email":"A@B.C","phone":48123},"externalIds":[{"id":"L1","type":"loyalty_id","collection":"users"},{"id":null,"type":"x"},3,{"id":"q"}],"historical":true}} `)
	require.Equal(t, Track, e.Type)
	require.Equal(t, "Product Added", e.Name)
	require.Empty(t, e.UserID)
	require.Equal(t, "m1", e.MessageID)
	require.Equal(t, time.Date(2026, 11, 22, 6, 59, 14, 325e6, time.UTC), e.Time)
	require.Equal(t, time.Date(2026, 11, 22, 6, 59, 20, 0, time.UTC), e.SentAt)
	require.False(t, e.TimeClamped)
	require.True(t, e.SaysHistorical())
	require.Equal(t, "900719925474099312345678901234", Text(e.Property("points")))
	require.Equal(t, "0.10", Text(e.Property("price")))
	require.Equal(t, "Żółte 👟", Text(e.Property("name")))
	require.Equal(t, "7", Text(e.Property("products", "0", "sku")))
	require.Empty(t, Text(e.Property("n")))
	require.Nil(t, e.Property("absent", "deeper"))
	require.Empty(t, Text(e.Property("absent")))
	require.Equal(t, "A@B.C", Text(e.Traits().Get("email")))
	require.Equal(t, "L1", Text(e.Context("externalIds", "0", "id")))
	require.JSONEq(t, `{"email":"A@B.C","phone":48123}`, string(e.RawTraits()))
	require.Contains(t, string(e.RawProperties()), `\u017b\u00f3\u0142te \ud83d\udc5f`)
	require.Equal(t, []Identifier{{AnonymousID, "a1"}, {Email, "A@B.C"}, {Phone, "48123"}, {"loyalty_id", "L1"}}, e.Identifiers())
	require.Equal(t, "a1", string(e.Key()))
	require.NoError(t, e.Validate())
}

func TestIdentifiersAndKey(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		ids  []Identifier
		key  string
	}{
		"numbers as ids":        {`{"type":"page","userId":12345678901234567890123}`, []Identifier{{UserID, "12345678901234567890123"}}, "12345678901234567890123"},
		"anonymous first":       {`{"type":"page","userId":"u","anonymousId":"a"}`, []Identifier{{UserID, "u"}, {AnonymousID, "a"}}, "a"},
		"blank left out":        {`{"type":"page","userId":"  ","anonymousId":"","traits":{"email":" ","phone":null}}`, []Identifier{}, ""},
		"traits before context": {`{"type":"identify","traits":{"email":"x@y"},"context":{"traits":{"email":"old@y","phone":"1"}}}`, []Identifier{{Email, "x@y"}, {Phone, "1"}}, "x@y"},
		"external id is key":    {`{"type":"track","event":"E","traits":{"email":"x@y"},"context":{"externalIds":[{"id":9,"type":"card"}]}}`, []Identifier{{Email, "x@y"}, {"card", "9"}}, "9"},
		"alias":                 {`{"type":"alias","userId":"n","previousId":"o"}`, []Identifier{{UserID, "n"}, {UserID, "o"}}, "n"},
		"no duplicates":         {`{"type":"page","userId":"u","context":{"externalIds":[{"id":"u","type":"user_id"}]}}`, []Identifier{{UserID, "u"}}, "u"},
		"group traits are of the group": {`{"type":"group","groupId":"g","userId":"u","traits":{"email":"office@g"},"context":{"traits":{"email":"me@g"}}}`,
			[]Identifier{{UserID, "u"}, {Email, "me@g"}}, "u"},
		"escaped names":      {`{"type":"page","us\u0065rId":"u\u0041"}`, []Identifier{{UserID, "uA"}}, "uA"},
		"first of equal":     {`{"type":"page","userId":"one","userId":"two"}`, []Identifier{{UserID, "one"}}, "one"},
		"overlong left out":  {`{"type":"page","userId":"u","traits":{"email":"` + strings.Repeat("e", MaxIDBytes+1) + `"}}`, []Identifier{{UserID, "u"}}, "u"},
		"half a pair":        {`{"type":"page","userId":"x\ud83dy"}`, []Identifier{{UserID, "x\uFFFDy"}}, "x\uFFFDy"},
		"false is no e-mail": {`{"type":"page","userId":"u","traits":{"email":false}}`, []Identifier{{UserID, "u"}}, "u"},
	} {
		t.Run(name, func(t *testing.T) {
			e := decode(t, c.body)
			require.Equal(t, c.ids, e.Identifiers())
			require.Equal(t, c.key, string(e.Key()))
		})
	}
}

func TestPersonTraits(t *testing.T) {
	e := decode(t, `{"type":"group","groupId":"g","userId":"u","traits":{"name":"ACME"},"context":{"traits":{"name":"Ann"}}}`)
	require.Equal(t, "Ann", Text(e.Traits().Get("name")))
	require.JSONEq(t, `{"name":"ACME"}`, string(e.RawTraits()))
	require.Nil(t, decode(t, `{"type":"page","userId":"u"}`).Traits())
	require.Nil(t, decode(t, `{"type":"page","userId":"u"}`).RawTraits())
	e = decode(t, `{"type":"identify","userId":"u","traits":[],"properties":[ ],"context":null}`) // as PHP writes empty objects
	require.Nil(t, e.RawTraits())
	require.Nil(t, e.RawProperties())
	require.Nil(t, e.RawContext())
}

func TestTime(t *testing.T) {
	at := func(s string) time.Time {
		x, err := time.Parse(time.RFC3339Nano, s)
		require.NoError(t, err)
		return x
	}
	for text, want := range map[string]time.Time{
		`"timestamp":"2026-11-22T06:59:15.024+00:00"`:                                at("2026-11-22T06:59:15.024Z"),
		`"timestamp":null,"originalTimestamp":"2026-11-22T06:00:00Z"`:                at("2026-11-22T06:00:00Z"),
		`"timestamp":"soon","originalTimestamp":"2026-11-22 06:00:00"`:               at("2026-11-22T06:00:00Z"),
		`"timestamp":1795330754`:                                                     at("2026-11-22T06:59:14Z"),
		`"timestamp":1795330754.25`:                                                  at("2026-11-22T06:59:14.25Z"),
		`"timestamp":"1795330754325"`:                                                at("2026-11-22T06:59:14.325Z"),
		`"timestamp":1795330754325999`:                                               at("2026-11-22T06:59:14.325Z"),
		`"timestamp":19970112`:                                                       at("1997-01-12T00:00:00Z"),
		`"timestamp":"20261122065914"`:                                               at("2026-11-22T06:59:14Z"),
		`"timestamp":"1997-01-12"`:                                                   at("1997-01-12T00:00:00Z"),
		`"timestamp":"0001-01-01T00:00:00Z"`:                                         received,
		`"timestamp":{}`:                                                             received,
		`"timestamp":"2026-11-22T07:04:59Z"`:                                         at("2026-11-22T07:04:59Z"),
		`"timestamp":"2026-11-22T07:05:01Z"`:                                         received,
		`"x":1`:                                                                      received,
		`"timestamp":-5`:                                                             received,
		`"timestamp":"99999999999999999999999999999999999999999999999999"`:           received,
		`"timestamp":"2026-11-22T06:59:15+0100","originalTimestamp":"2020-01-01"`:    at("2026-11-22T05:59:15Z"),
		`"timestamp":"2026-11-22T06:59:15.1234567890123Z"`:                           at("2026-11-22T06:59:15.123Z"),
		`"originalTimestamp":"2026-11-22T06:59:15.999Z","sentAt":"2030-01-01 00:00"`: at("2026-11-22T06:59:15.999Z"),
	} {
		e := decode(t, `{"type":"page","userId":"u",`+text+`}`)
		require.Equal(t, want.UTC(), e.Time, text)
		require.Equal(t, strings.Contains(text, "07:05:01"), e.TimeClamped, text)
	}
}

func TestReasons(t *testing.T) {
	for body, want := range map[string]string{
		``:                               InvalidJSON,
		`{`:                              InvalidJSON,
		`{"a":01}`:                       InvalidJSON,
		`{"a":nan}`:                      InvalidJSON,
		`{"a":1,}`:                       InvalidJSON,
		`{"a":1} x`:                      InvalidJSON,
		"{\"a\":\"\n\"}":                 InvalidJSON,
		`{"a":"\x"}`:                     InvalidJSON,
		`{"a":"\u12"}`:                   InvalidJSON,
		`{'a':1}`:                        InvalidJSON,
		`[]`:                             InvalidType,
		`"x"`:                            InvalidType,
		`null`:                           InvalidType,
		`{}`:                             MissingType,
		`{"type":""}`:                    MissingType,
		`{"type":7.5}`:                   UnknownType,
		`{"type":{}}`:                    InvalidType,
		`{"type":"delete"}`:              UnknownType,
		`{"type":"page"}`:                NoUserAnonID,
		`{"type":"page","userId":{}}`:    InvalidType,
		`{"type":"page","userId":false}`: InvalidType,
		`{"type":"page","userId":[1]}`:   InvalidType,
		`{"type":"page","anonymousId":"a","properties":"x"}`:                                                     InvalidType,
		`{"type":"page","anonymousId":"a","properties":[1]}`:                                                     InvalidType,
		`{"type":"page","anonymousId":"a","context":7}`:                                                          InvalidType,
		`{"type":"page","anonymousId":"a","context":{"traits":"x"}}`:                                             InvalidType,
		`{"type":"track","userId":"u"}`:                                                                          MissingEvent,
		`{"type":"track","userId":"u","event":null}`:                                                             MissingEvent,
		`{"type":"track","userId":"u","event":"  "}`:                                                             MissingEvent,
		`{"type":"group","userId":"u"}`:                                                                          MissingGroupID,
		`{"type":"alias","userId":"u"}`:                                                                          MissingPreviousID,
		`{"type":"alias","previousId":"u"}`:                                                                      MissingUserID,
		`{"type":"page","userId":"` + strings.Repeat("u", MaxIDBytes+1) + `"}`:                                   IDTooLong,
		`{"type":"page","userId":"u","messageId":"` + strings.Repeat("u", MaxIDBytes+1) + `"}`:                   IDTooLong,
		`{"type":"page","userId":"u","x":` + strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth) + `}`: TooDeep,
		`{"type":"page","userId":"u","x":` + strings.Repeat("[", 5000000) + `}`:                                  InvalidJSON,
		`{"type":"page","userId":"u","context":{"externalIds":[` + strings.Repeat("0,", MaxExternalIDs) + `0]}}`: TooManyIDs,
		"{\"type\":\"page\",\"userId\":\"Z\xf3\xb3ty\"}":                                                         InvalidUTF8,
	} {
		e, err := Decode([]byte(body), Meta{ReceivedAt: received})
		if err == nil {
			err = e.Validate()
		}
		if len(body) > 100 {
			body = body[:100]
		}
		require.Error(t, err, body)
		require.Equal(t, want, Reason(err, "other"), "%s: %v", body, err)
		require.Less(t, len(err.Error()), 300)
	}
	for _, body := range []string{
		`{"event":"E","userId":"u"}`, `{"type":"identify","anonymousId":"a"}`, `{"type":"screen","userId":0}`,
		`{"type":"page","userId":"u","x":` + strings.Repeat("[", MaxDepth-1) + strings.Repeat("]", MaxDepth-1) + `}`,
		`{"type":"group","groupId":7,"anonymousId":"a"}`, `{"type":"alias","previousId":"a","userId":"b"}`,
	} {
		require.NoError(t, decode(t, body).Validate(), body)
	}
}

// The scanner and the standard library agree on what JSON is.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"type":"track","event":"E","userId":"u","properties":{"a":[1,2.5e+3,null,true,"\u0041\n"]},"context":{"traits":{"email":"x"}}}`,
		`{"type":"alias","previousId":-0,"userId":"\ud83d\udc5f"}`, `{"a":1e}`, ` [ {} , [] ] `, `{"a":"\ud800"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s := scanner{b: body}
		end, err := s.value(skipSpace(body, 0))
		ok := err == nil && skipSpace(body, end) == len(body)
		if ok != json.Valid(body) {
			t.Fatalf("scanner says %v (%v), encoding/json %v: %q", ok, err, json.Valid(body), body)
		}
		e, err := Decode(body, Meta{ReceivedAt: received})
		if err != nil {
			return
		}
		_ = e.Validate()
		for _, id := range e.Identifiers() {
			if strings.TrimSpace(id.Value) == "" || len(id.Value) > MaxIDBytes {
				t.Fatalf("identifier %q", id)
			}
		}
		if e.RawProperties() != nil && e.Property() == nil || e.RawContext() != nil && e.Context() == nil {
			t.Fatalf("fastjson cannot read what was scanned: %q", body)
		}
		if e.Time.After(received.Add(MaxFuture)) {
			t.Fatalf("time %v", e.Time)
		}
		e.Key()
		Text(e.Traits().Get("x"))
	})
}

// What encoding/json writes, the scanner reads back the same.
func TestTextAgreesWithEncodingJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.String().Draw(t, "s")
		raw, err := json.Marshal(want)
		require.NoError(t, err)
		require.Equal(t, strings.ToValidUTF8(want, "\uFFFD"), textOf(raw))
		require.True(t, json.Valid(AppendJSONString(nil, want)))
		require.Equal(t, strings.ToValidUTF8(want, "\uFFFD"), textOf(AppendJSONString(nil, want)))
	})
}

func BenchmarkDecode(b *testing.B) {
	body := []byte(`{"timestamp":"2026-11-22T06:59:14.325Z","integrations":{},"event":"Product Added","type":"track","properties":{"cart_id":"analytics-node-sample-cart","product_id":"SKU-507","sku":"507-41","name":"Żółte buty „Wróbel” 👟","brand":"Çiçek & Søn <GmbH>","category":"รองเท้า/Обувь","variant":null,"price":349.99,"quantity":1,"currency":"PLN","coupon":null},"context":{"story":{"run":"sample","sdk":"analytics-node","step":"16-added-1"},"library":{"name":"@segment/analytics-node","version":"3.1.0"}},"anonymousId":"analytics-node-sample-web","messageId":"node-next-1795330754325-00c39fbe-0320-4286-aceb-2982bdf607aa","_metadata":{"nodeVersion":"v20.20.2","jsRuntime":"node"}}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		e, err := Decode(body, Meta{ReceivedAt: received})
		if err != nil || e.Validate() != nil {
			b.Fatal(err)
		}
	}
}

func TestCorrect(t *testing.T) {
	decode := func(body string) *Event {
		e, err := Decode([]byte(body), Meta{ReceivedAt: received})
		require.NoError(t, err)
		return e
	}
	stamp := func(at time.Time) string { return at.Format(time.RFC3339Nano) }
	e := decode(`{"type":"page","timestamp":"` + stamp(received.Add(-time.Hour)) + `"}`)
	require.Zero(t, e.OwnTime())
	e.Correct(10 * time.Minute)
	require.Equal(t, received.Add(-50*time.Minute), e.Time)
	require.Equal(t, received.Add(-time.Hour), e.OwnTime(), "what it claimed is kept")
	again, err := Decode(e.Body, e.Meta)
	require.NoError(t, err)
	require.Equal(t, e.Time, again.Time, "every stage computes the same")

	e = decode(`{"type":"page","timestamp":"` + stamp(received.Add(time.Hour)) + `"}`)
	require.True(t, e.TimeClamped)
	e.Correct(-time.Hour)
	require.False(t, e.TimeClamped)
	require.Equal(t, received, e.Time)
	require.Equal(t, received.Add(time.Hour), e.OwnTime())

	e = decode(`{"type":"page"}`)
	e.Correct(-time.Hour)
	require.Equal(t, received, e.Time, "the receipt is our own clock's")
}
