package event

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func is(id string) func() string { return func() string { return id } }

func TestCompose(t *testing.T) {
	for name, c := range map[string]struct {
		item string
		fill Filling
		want string
	}{
		"nothing missing":      {`{"type":"page","messageId":"m","n":1.00}`, Filling{MessageID: is("x")}, `{"type":"page","messageId":"m","n":1.00}`},
		"digits and escapes":   {`{"a":900719925474099312345678901234,"a":"\u017b\/"}`, Filling{Type: Page, MessageID: is("m")}, `{"type":"page","messageId":"m","a":900719925474099312345678901234,"a":"\u017b\/"}`},
		"empty":                {` { } `, Filling{Type: Page, MessageID: is("m")}, `{"type":"page","messageId":"m" } `},
		"null id replaced":     {`{"messageId":null,"type":"page"}`, Filling{MessageID: is("m")}, `{"messageId":"m","type":"page"}`},
		"blank id replaced":    {`{"type":"page","messageId":" "}`, Filling{MessageID: is("m")}, `{"type":"page","messageId":"m"}`},
		"number kept":          {`{"type":"page","messageId":7}`, Filling{MessageID: is("m")}, `{"type":"page","messageId":7}`},
		"path says more":       {`{"x":1,"type":"purchase"}`, Filling{Type: Track}, `{"x":1,"type":"track"}`},
		"letter case":          {`{"type":"Track"}`, Filling{}, `{"type":"track"}`},
		"type by event":        {`{"event":"E"}`, Filling{}, `{"type":"track","event":"E"}`},
		"context":              {`{"type":"page"}`, Filling{Context: []byte(`{"a":1}`)}, `{"context":{"a":1},"type":"page"}`},
		"context null":         {`{"context":null,"type":"page"}`, Filling{Context: []byte(`{"a":1}`)}, `{"context":{"a":1},"type":"page"}`},
		"context of PHP":       {`{"context":[],"type":"page"}`, Filling{Context: []byte(`{"a":1}`)}, `{"context":{"a":1},"type":"page"}`},
		"own keys win":         {`{"context":{"a":2,"\u0062":3},"type":"page"}`, Filling{Context: []byte(`{"a":1,"b":1,"c":{"d":1.10}}`)}, `{"context":{"a":2,"\u0062":3,"c":{"d":1.10}},"type":"page"}`},
		"own context empty":    {`{"context":{ },"type":"page"}`, Filling{Context: []byte(`{"a":1,"b":2}`)}, `{"context":{ "a":1,"b":2},"type":"page"}`},
		"nothing to merge":     {`{"context":{"a":2},"type":"page"}`, Filling{Context: []byte(`{"a":1}`)}, `{"context":{"a":2},"type":"page"}`},
		"all at once":          {`{"context":{"a":2},"type":"PAGE","messageId":null,"z":1}`, Filling{MessageID: is(`m"1`), Context: []byte(`{"b":1}`)}, `{"context":{"a":2,"b":1},"type":"page","messageId":"m\"1","z":1}`},
		"batch context empty":  {`{"type":"page"}`, Filling{Context: []byte(`{}`)}, `{"type":"page"}`},
		"integrations":         {`{"type":"page"}`, Filling{Integrations: []byte(`{"All":true}`), Context: []byte(`{"a":1}`)}, `{"integrations":{"All":true},"context":{"a":1},"type":"page"}`},
		"own integrations win": {`{"type":"page","integrations":{"Mail":false}}`, Filling{Integrations: []byte(`{"All":true,"Mail":true}`)}, `{"type":"page","integrations":{"Mail":false,"All":true}}`},
		"odd integrations":     {`{"type":"page","integrations":true}`, Filling{Integrations: []byte(`{"All":true}`)}, `{"type":"page","integrations":true}`},
		"line separators kept": {"{\"type\":\"page\",\"x\":\"a\u2028b\"}", Filling{MessageID: is("m")}, "{\"messageId\":\"m\",\"type\":\"page\",\"x\":\"a\u2028b\"}"},
	} {
		t.Run(name, func(t *testing.T) {
			in := bytes.Clone([]byte(c.item))
			got, err := Compose(in, c.fill)
			require.NoError(t, err)
			require.Equal(t, c.want, string(got))
			require.Equal(t, c.item, string(in))
		})
	}
	for item, want := range map[string]string{
		`{}`: MissingType, `{"type":"x"}`: UnknownType, `[`: InvalidJSON, `1`: InvalidType, `{"type":"page","context":1}`: InvalidType,
	} {
		_, err := Compose([]byte(item), Filling{MessageID: is("m"), Context: []byte(`{"a":1}`)})
		require.Equal(t, want, Reason(err, ""), item)
	}
}

func TestSplit(t *testing.T) {
	r, err := Split([]byte("\uFEFF"+`{"writeKey":"k","sentAt":"2026-11-22T07:00:00.5Z","context":{"library":{"name":"x"}},"timestamp":"1999-01-01","batch":[{"a":1.0} , 3,"x",{"b":[]}]}`), 4)
	require.NoError(t, err)
	require.True(t, r.Batch)
	require.Equal(t, "k", r.WriteKey)
	require.Equal(t, received.Add(5e8), r.SentAt)
	require.JSONEq(t, `{"library":{"name":"x"}}`, string(r.Context))
	var items []string
	for _, x := range r.Items {
		items = append(items, string(x))
	}
	require.Equal(t, []string{`{"a":1.0}`, `3`, `"x"`, `{"b":[]}`}, items)

	r, err = Split([]byte(`{"userId":"u","context":{"a":1}}`), 100)
	require.NoError(t, err)
	require.False(t, r.Batch)
	require.Nil(t, r.Context)
	require.Len(t, r.Items, 1)

	for body, want := range map[string]string{`{"batch":[`: InvalidJSON, ``: InvalidJSON, `[]`: InvalidType, `{"batch":[],"context":"x"}`: InvalidType,
		`{"batch":[],"context":{"a":"` + strings.Repeat("x", MaxBatchContextBytes) + `"}}`: TooLarge} {
		_, err := Split([]byte(body), 100)
		require.Equal(t, want, Reason(err, ""), body)
	}
	r, err = Split([]byte(`{"batch":[]}`), 100)
	require.NoError(t, err)
	require.True(t, r.Batch)
	require.Empty(t, r.Items)
}

// Whatever comes in: what goes out is JSON and says the same.
func FuzzCompose(f *testing.F) {
	f.Add([]byte(`{"event":"E","userId":"u","context":{"a":1},"messageId":null}`), []byte(`{"a":2,"b":{"c":[1.50]}}`), "m1", uint8(0))
	f.Add([]byte(`{"type":"Page","name":"\u2028","anonymousId":7,"context":[]}`), []byte(`{"\u0061":2}`), "m\"\\\x01", uint8(3))
	f.Add([]byte(` { } `), []byte(`{}`), "m", uint8(1))
	types := []Type{"", Track, Identify, Page, Screen, Group, Alias}
	f.Fuzz(func(t *testing.T, item, context []byte, id string, which uint8) {
		if !json.Valid(context) || context[skipSpace(context, 0)] != '{' {
			context = nil
		}
		fill := Filling{Type: types[int(which)%len(types)], MessageID: is(id), Context: bytes.TrimSpace(context)}
		if context == nil {
			fill.Context = nil
		}
		before := bytes.Clone(item)
		out, err := Compose(item, fill)
		if !bytes.Equal(before, item) {
			t.Fatal("the item was changed")
		}
		if err != nil {
			return
		}
		if !json.Valid(out) {
			t.Fatalf("%q became %q", item, out)
		}
		var r Reader
		out2, err := r.Compose(item, fill)
		if err != nil || !bytes.Equal(out, out2) {
			t.Fatalf("a Reader makes %q (%v) of it, not %q", out2, err, out)
		}
		whole, err := r.DecodeComposed(out2, Meta{ReceivedAt: received})
		parts, err2 := Decode(out, Meta{ReceivedAt: received})
		if Reason(err, "") != Reason(err2, "") || err == nil && (!bytes.Equal(whole.Body, out) || whole.MessageID != parts.MessageID || whole.Name != parts.Name) {
			t.Fatalf("DecodeComposed differs: %v, %v", err, err2)
		}
		if strings.TrimSpace(id) == "" {
			return // nobody composes with such an id
		}
		again, err := Compose(out, fill)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("composing twice: %q, then %q (%v)", out, again, err)
		}
		was, err := Decode(item, Meta{ReceivedAt: received})
		if err != nil {
			return
		}
		now, err := Decode(out, Meta{ReceivedAt: received})
		if err != nil {
			if Reason(err, "") == InvalidType || Reason(err, "") == TooDeep || Reason(err, "") == InvalidUTF8 || Reason(err, "") == IDTooLong {
				return // by the batch's context, or a name of the new type
			}
			t.Fatalf("%q became %q: %v", item, out, err)
		}
		if was.UserID != now.UserID || was.AnonymousID != now.AnonymousID || was.GroupID != now.GroupID || !was.Time.Equal(now.Time) ||
			!bytes.Equal(was.properties, now.properties) || !bytes.Equal(was.traits, now.traits) ||
			was.MessageID != "" && was.MessageID != now.MessageID || was.Type == now.Type && was.Name != now.Name {
			t.Fatalf("%q became %q", item, out)
		}
	})
}

func TestComposedContextIsTheUnion(t *testing.T) {
	object := rapid.MapOf(rapid.StringMatching(`[a-d"\\]{1,2}`), rapid.Int())
	rapid.Check(t, func(t *rapid.T) {
		own, batch := object.Draw(t, "own"), object.Draw(t, "batch")
		item, err := json.Marshal(map[string]any{"type": "page", "context": own})
		require.NoError(t, err)
		raw, err := json.Marshal(batch)
		require.NoError(t, err)
		out, err := Compose(item, Filling{Context: raw})
		require.NoError(t, err)
		var got struct{ Context map[string]int }
		require.NoError(t, json.Unmarshal(out, &got))
		for k, v := range own {
			batch[k] = v
		}
		require.Equal(t, batch, got.Context)
	})
}
