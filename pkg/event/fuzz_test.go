package event

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
	"unicode/utf8"
)

// What is kept of an event that was refused holds no write key, is as long as it was told to be, and Glimpse names nobody
// whom Decode does not name.
func FuzzGlimpse(f *testing.F) {
	for _, s := range []string{
		`{"userId":"u","anonymousId":7,"context":{"externalIds":[{"id":"x","type":"y"}],"traits":{"email":"a@b.example"}},"traits":{"phone":"+49"}}`,
		`{"writeKey":"wk","writekey" : "x","a":{"writeKey":"wk"}}`, `{"writeKey":"a`, `{"wr\u0069teKey":"wk"}`, `{"type":"group","groupId":1e2`, "[1]", "",
	} {
		f.Add([]byte(s), []byte(`{"traits":{"email":"c@d.example"}}`))
	}
	f.Fuzz(func(t *testing.T, item, context []byte) {
		var fill Filling
		if json.Valid(context) && bytes.TrimSpace(context)[0] == '{' {
			fill.Context = bytes.TrimSpace(context)
		}
		before := bytes.Clone(item)
		names := map[Identifier]bool{}
		for _, id := range Glimpse(item, fill).Identifiers() {
			names[id] = true
		}
		e, err := Decode(item, Meta{})
		if err == nil && fill.Context == nil {
			for _, id := range e.Identifiers() {
				if !names[id] {
					t.Fatalf("%q names %v, which is not glimpsed (%v)", item, id, names)
				}
			}
		}
		blank := BlankWriteKeys(item)
		if !bytes.Equal(before, item) {
			t.Fatal("the item was changed")
		}
		var was, is map[string]json.RawMessage
		if json.Unmarshal(item, &was) != nil || !utf8.Valid(item) {
			return
		}
		if err := json.Unmarshal(blank, &is); err != nil || len(was) != len(is) {
			t.Fatalf("%q became %q: %v", item, blank, err)
		}
		var key string
		if !bytes.Contains(item, []byte(`\`)) && json.Unmarshal(is["writeKey"], &key) == nil && key != "" {
			t.Fatalf("%q became %q", item, blank)
		}
	})
}

// A time that is read is written and read again as the same, and is one that JSON and ClickHouse can have.
func FuzzTime(f *testing.F) {
	for _, s := range []string{"2026-11-22T07:00:00.123456789Z", "2026-11-22T07:00:00+01:00", "2026-11-22", "1777890672", "1777890672123", "1e9", "-1", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "20261122T070000Z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, ok := ParseTime(text)
		if !ok {
			return
		}
		again, ok := ParseTime(at.UTC().Format(time.RFC3339Nano))
		if !ok || !again.Equal(at) {
			t.Fatalf("%q is %v, and then %v", text, at, again)
		}
	})
}
