package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestSplitRefusesTooManyBeforeItListsThem(t *testing.T) {
	body := []byte(`{"writeKey":"k","batch":[` + strings.TrimSuffix(strings.Repeat("0,", 1_000_000), ",") + `]}`)
	var r Request
	var err error
	perRun := testing.AllocsPerRun(1, func() { r, err = Split(body, 2500) })
	require.Equal(t, TooManyEvents, Reason(err, ""))
	require.Equal(t, "k", r.WriteKey, "whoever sent it can be told")
	require.Empty(t, r.Items)
	require.Less(t, perRun, 50.0)
	r, err = Split([]byte(`{"batch":[1,2,3]}`), 3)
	require.NoError(t, err)
	require.Len(t, r.Items, 3)
}

func TestSplitTakesIntegrationsAlong(t *testing.T) {
	r, err := Split([]byte(`{"batch":[{}],"integrations":{"All":false},"context":null}`), 1)
	require.NoError(t, err)
	require.JSONEq(t, `{"All":false}`, string(r.Integrations))
	require.Nil(t, r.Context)
	r, err = Split([]byte(`{"batch":[{}],"integrations":"none"}`), 1)
	require.NoError(t, err)
	require.Nil(t, r.Integrations)
	_, err = Split([]byte(`{"batch":[{}],"integrations":{"a":"`+strings.Repeat("x", MaxBatchContextBytes)+`"}}`), 1)
	require.Equal(t, TooLarge, Reason(err, ""))
}

// objectOf is n members below properties.
func objectOf(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":%d`, i, i)
	}
	return "{" + strings.TrimPrefix(b.String(), ",") + "}"
}

func TestElementsOfAnEventAreBounded(t *testing.T) {
	body := func(n int) []byte {
		return []byte(`{"type":"page","userId":"u","properties":{"x":[` + strings.TrimSuffix(strings.Repeat("0,", n), ",") + `]}}`)
	}
	_, err := Decode(body(MaxElements), Meta{})
	require.NoError(t, err)
	_, err = Decode(body(MaxElements+1), Meta{})
	require.Equal(t, TooManyKeys, Reason(err, ""))
	require.Equal(t, TooManyKeys, Reason(CheckJSON(body(MaxElements+1)), ""))
	var r Reader
	for range 2 { // each on its own
		_, err = r.Decode(body(MaxElements), Meta{})
		require.NoError(t, err)
	}
	// The items of a batch are events of their own.
	item := string(body(MaxElements / 2))
	req, err := Split([]byte(`{"batch":[`+item+`,`+item+`,`+item+`]}`), 10)
	require.NoError(t, err)
	require.Len(t, req.Items, 3)
}

func TestMembersOfAnEventAreBounded(t *testing.T) {
	body := func(n int) []byte { return []byte(`{"type":"page","userId":"u","properties":` + objectOf(n) + `}`) }
	_, err := Decode(body(MaxKeys-3), Meta{})
	require.NoError(t, err)
	_, err = Decode(body(MaxKeys-2), Meta{})
	require.Equal(t, TooManyKeys, Reason(err, ""))
	var r Reader
	_, err = r.Decode(body(MaxKeys-2), Meta{})
	require.Equal(t, TooManyKeys, Reason(err, ""))
	_, err = r.Decode(body(MaxKeys-3), Meta{})
	require.NoError(t, err, "a reader counts each event on its own")
	// At the top they are not even listed.
	_, err = Compose([]byte(objectOf(200_000)), Filling{Type: Page})
	require.Equal(t, TooManyKeys, Reason(err, ""))
	// A request may have more: it is many events.
	_, err = Split([]byte(`{"batch":[`+strings.TrimSuffix(strings.Repeat(objectOf(3000)+",", 5), ",")+`]}`), 5)
	require.NoError(t, err)
}

// plainMember is a member as encoding/json reads it.
type plainMember struct {
	name  string
	value json.RawMessage
}

// plainMembers reads an object with encoding/json, in order, equal names too.
func plainMembers(b []byte) (list []plainMember, ok bool) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	for d.More() {
		t, err := d.Token()
		name, isText := t.(string)
		if err != nil || !isText {
			return nil, false
		}
		m := plainMember{name: name}
		if err := d.Decode(&m.value); err != nil {
			return nil, false
		}
		list = append(list, m)
	}
	return list, true
}

func plainFind(list []plainMember, name string) json.RawMessage {
	if i := slices.IndexFunc(list, func(m plainMember) bool { return m.name == name }); i >= 0 {
		return list[i].value
	}
	return nil
}

// Split finds what encoding/json finds.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{
		`{"batch":[{"type":"page","userId":"u"},3,"x",[{}]],"writeKey":"k","sentAt":"2026-11-22T07:00:00Z","context":{"a":[1]},"integrations":{"All":true}}`,
		`{"writeKey":7,"batch":[],"context":null}`, `{"event":"E"}`, "\uFEFF{\"batch\":[1]}", `{"batch":{"a":1}}`, `{"b\u0061tch":[{"\u007d":"}"}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		r, err := Split(body, 1000)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		text := bytes.TrimPrefix(body, []byte("\uFEFF"))
		list, isObject := plainMembers(text)
		isObject = isObject && json.Valid(text)
		if err != nil {
			if Reason(err, "") == "" {
				t.Fatalf("no reason: %v", err)
			}
			if Reason(err, "") == InvalidJSON && json.Valid(text) && bytes.Count(text, []byte("["))+bytes.Count(text, []byte("{")) <= maxScanDepth {
				t.Fatalf("%q is JSON, but: %v", body, err)
			}
			return
		}
		if !isObject {
			t.Fatalf("%q is no object, but was taken", body)
		}
		names := map[string]int{}
		for _, m := range list {
			names[m.name]++
		}
		if !utf8.Valid(body) || names["batch"] > 1 || names["writeKey"] > 1 || names["context"] > 1 || bytes.Contains(body, []byte(`\u`)) {
			return // read by rules of our own: the plainly written name, of equal ones the first
		}
		var items []json.RawMessage
		isBatch := json.Unmarshal(plainFind(list, "batch"), &items) == nil && items != nil
		if isBatch != r.Batch {
			t.Fatalf("%q: batch is %v", body, r.Batch)
		}
		if !isBatch {
			items = []json.RawMessage{text}
		}
		if !slices.EqualFunc(items, r.Items, func(a json.RawMessage, b []byte) bool { return bytes.Equal(a, b) }) {
			t.Fatalf("%q: items %q, encoding/json has %q", body, r.Items, items)
		}
		var key string
		if json.Unmarshal(plainFind(list, "writeKey"), &key) == nil && key != r.WriteKey {
			t.Fatalf("%q: write key %q, encoding/json has %q", body, r.WriteKey, key)
		}
		if c := plainFind(list, "context"); isBatch && len(c) > 0 && c[0] == '{' && !bytes.Equal(c, r.Context) {
			t.Fatalf("%q: context %q", body, r.Context)
		}
	})
}

// Compose leaves every member as encoding/json reads it, but for those that it fills in.
func FuzzComposeAgainstEncodingJSON(f *testing.F) {
	f.Add([]byte(`{"event":"E","userId":"u","context":{"a":1},"messageId":null,"n":1.50,"n":2}`), []byte(`{"a":2,"b":{"c":[1.50]}}`), []byte(`{"All":true}`))
	f.Add([]byte(` {"type" : "Page" , "integrations":{"x":false} } `), []byte(`{}`), []byte(`{"x":true,"y":1e3}`))
	f.Fuzz(func(t *testing.T, item, context, integrations []byte) {
		fill := Filling{MessageID: is("made")}
		for to, raw := range map[*[]byte][]byte{&fill.Context: context, &fill.Integrations: integrations} {
			if raw = bytes.TrimSpace(raw); json.Valid(raw) && raw[0] == '{' {
				*to = raw
			}
		}
		out, err := Compose(item, fill)
		if err != nil || !utf8.Valid(item) || !utf8.Valid(context) || !utf8.Valid(integrations) {
			return
		}
		before, ok := plainMembers(item)
		after, ok2 := plainMembers(out)
		if !ok || !ok2 || !json.Valid(out) {
			t.Fatalf("%q became %q", item, out)
		}
		filled := func(m plainMember) bool {
			return slices.Contains([]string{"type", "messageId", "context", "integrations"}, m.name)
		}
		same := func(a, b plainMember) bool { return a.name == b.name && bytes.Equal(a.value, b.value) }
		if !slices.EqualFunc(slices.DeleteFunc(before, filled), slices.DeleteFunc(slices.Clone(after), filled), same) {
			t.Fatalf("%q became %q", item, out)
		}
		for _, batch := range [][]byte{fill.Context, fill.Integrations} {
			name := "context"
			if bytes.Equal(batch, fill.Integrations) {
				name = "integrations"
			}
			inner, isObject := plainMembers(plainFind(after, name))
			outer, _ := plainMembers(batch)
			for _, m := range outer {
				if isObject && plainFind(inner, m.name) == nil {
					t.Fatalf("%q of the batch is not in %q", m.name, out)
				}
			}
		}
	})
}
