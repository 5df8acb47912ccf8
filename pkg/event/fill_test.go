package event

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestFillContext(t *testing.T) {
	for name, c := range map[string]struct{ body, fill, want string }{
		"no context":        {`{"type":"page","n":1.00}`, `{"ip":"a"}`, `{"context":{"ip":"a"},"type":"page","n":1.00}`},
		"context null":      {`{"context":null}`, `{"ip":"a"}`, `{"context":{"ip":"a"}}`},
		"context of PHP":    {`{"context":[]}`, `{"ip":"a"}`, `{"context":{"ip":"a"}}`},
		"own members stay":  {`{"context":{"os":{"name":"x"},"b":2.50}}`, `{"os":{"name":"y","version":"1"},"c":3}`, `{"context":{"c":3,"os":{"version":"1","name":"x"},"b":2.50}}`},
		"not an object":     {`{"context":{"os":"x"}}`, `{"os":{"name":"y"}}`, `{"context":{"os":"x"}}`},
		"null is filled":    {`{"context":{"os":null}}`, `{"os":{"name":"y"}}`, `{"context":{"os":{"name":"y"}}}`},
		"one level deep":    {`{"context":{"a":{"b":{"c":1}}}}`, `{"a":{"b":{"d":2}}}`, `{"context":{"a":{"b":{"c":1}}}}`},
		"escaped names":     {`{"context":{"\u006fs":{}}}`, `{"os":{"name":"y"}}`, `{"context":{"\u006fs":{"name":"y"}}}`},
		"nothing to do":     {`{"context":{"x":2}}`, `{"x":1}`, `{"context":{"x":2}}`},
		"context is a text": {`{"context":"x"}`, `{"x":1}`, `{"context":"x"}`},
	} {
		t.Run(name, func(t *testing.T) {
			body := []byte(c.body)
			got, err := new(Reader).FillContext(body, []byte(c.fill))
			require.NoError(t, err)
			require.Equal(t, c.want, string(got))
			require.Equal(t, c.body, string(body))
		})
	}
	_, err := new(Reader).FillContext([]byte(`[`), []byte(`{}`))
	require.Equal(t, InvalidJSON, Reason(err, ""))
}

// Whatever comes in: what goes out is JSON, and what the sender said is in it.
func FuzzFillContext(f *testing.F) {
	f.Add([]byte(`{"context":{"ip":"1.2.3.4","os":{"name":"x"}},"n":1.00}`), []byte(`{"os":{"version":"1"},"ip":"x"}`))
	f.Add([]byte(` { "context" : null } `), []byte(`{"a":{"b":1}}`))
	f.Add([]byte(` {"type":"page","userId":"u","properties":{"a":1},"timestamp":"2026-01-02T00:00:00Z"}`), []byte(`{"a":{"b":1}}`))
	f.Add([]byte(`{"type":"page","context":{"c":{"d":1},"traits":{"email":"e"}},"messageId":"m","properties":{"a":{"b":1}}}`), []byte(`{"c":{"e":1}}`))
	f.Add([]byte(`{"properties":{"a":1},"type":"page","c\u006fntext":[],"context":{},"context":{"x":1}}`), []byte(`{"c":{"e":1}}`))
	f.Fuzz(func(t *testing.T, body, fill []byte) {
		if !json.Valid(fill) || bytes.TrimSpace(fill)[0] != '{' || !utf8.Valid(fill) {
			fill = []byte(`{"ip":"x"}`)
		}
		before := bytes.Clone(body)
		var x Reader
		out, err := x.FillContext(body, fill)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			return
		}
		if !json.Valid(out) {
			t.Fatalf("%q became %q", body, out)
		}
		var fresh Reader
		e, err := x.DecodeComposed(out, Meta{ReceivedAt: received})
		alone, err2 := fresh.Decode(out, Meta{ReceivedAt: received})
		if !reflect.DeepEqual(err, err2) {
			t.Fatalf("%q became %q: %v, alone %v", body, out, err, err2)
		}
		if err == nil {
			alone.alias = false
			sameEvent(t, &x, e, alone)
		}
		again, err := x.FillContext(out, fill)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("editing twice: %q, then %q (%v)", out, again, err)
		}
	})
}
