package event

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valyala/fastjson"
	"pgregory.net/rapid"
)

// readerBodies is events of every kind of trouble.
var readerBodies = []string{
	`{"type":"track","event":"A","userId":7,"timestamp":"2026-01-02T03:04:05Z","context":{"traits":{"a":1},"page":{"url":"x"}},"properties":{"a":"b"}}`,
	`{"type":"group","groupId":"g","traits":{"g":1},"context":{"traits":{"p":1},"historical":true},"originalTimestamp":"2025-01-01T00:00:00Z"}`,
	`{"type":"page","name":"ż\u017c","timestamp":"2126-01-01T00:00:00Z"}`, `{"event":"implied"}`,
	`{"type":"page","us\u0065rId":"escaped","userId":"plain"}`, `{"type":`, `[]`, `{"type":"track","context":7}`, `{"type":"nosuch"}`,
	"{\"type\":\"page\",\"name\":\"\xff\"}", strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200),
}

// A reader that is used again and again reads as Decode does.
func TestReaderReadsAsDecodeDoes(t *testing.T) {
	var r Reader
	m := Meta{Source: "web", MessageID: "m", ReceivedAt: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)}
	for range 2 {
		for _, body := range readerBodies {
			want, wantErr := Decode([]byte(body), m)
			got, err := r.Decode([]byte(body), m)
			require.Equal(t, wantErr, err, body)
			if err != nil {
				continue
			}
			require.Equal(t, want.OwnTime(), got.OwnTime(), body)
			again := *got
			again.alias = false
			require.Equal(t, *want, again, body)
		}
	}
	body := []byte(readerBodies[0])
	if allocs := testing.AllocsPerRun(100, func() { _, _ = r.Decode(body, m) }); allocs > 0 {
		t.Fatalf("%v allocations per event", allocs)
	}
	fill := Filling{MessageID: func() string { return "made" }}
	m.MessageID = ""
	body = []byte(`{"type":"track","event":"A","anonymousId":"a","messageId":"m1","timestamp":"2026-01-02T03:04:05.678Z","context":{"page":{}}}`)
	allocs := testing.AllocsPerRun(100, func() {
		out, err := r.Compose(body, fill)
		require.NoError(t, err)
		e, err := r.DecodeComposed(out, m)
		require.NoError(t, err)
		require.NoError(t, e.Validate())
		if View(e.Key()) != "a" {
			t.Fatal(e.Key())
		}
	})
	require.Zero(t, allocs)
}

// The items of a batch are found in the pass over the whole, or in one of their own: the same.
func TestSplitFindsTheItemsOfTheFirstBatch(t *testing.T) {
	for body, want := range map[string][]string{
		`{"batch":[{"a":1}, 2 ],"batch":[3]}`:         {`{"a":1}`, "2"},
		`{"b\u0061tch":[1,2]}`:                        {"1", "2"},
		`{"b\u0061tch":[1,2],"batch":[3]}`:            {"3"},
		`{"x":{"batch":[1]},"batch":[{"batch":[2]}]}`: {`{"batch":[2]}`},
		"\uFEFF" + ` {"batch":[4]}`:                   {"4"},
	} {
		r, err := Split([]byte(body), 2)
		require.NoError(t, err, body)
		var got []string
		for _, item := range r.Items {
			got = append(got, string(item))
		}
		require.Equal(t, want, got, body)
	}
	for body, want := range map[string]string{
		`{"batch":[1,2,3],"writeKey":"k"}`: TooManyEvents, `{"b\u0061tch":[1,2,3],"writeKey":"k"}`: TooManyEvents, `{"batch":[1,2,3],}`: InvalidJSON,
	} {
		r, err := Split([]byte(body), 2)
		require.Equal(t, want, Reason(err, ""), body)
		require.Equal(t, want == TooManyEvents, r.WriteKey == "k", body)
	}
}

func TestOwnTime(t *testing.T) {
	m := Meta{ReceivedAt: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)}
	for body, want := range map[string]string{
		`{"type":"page"}`: "0001-01-01", `{"type":"page","timestamp":"2026-01-02T00:00:00Z"}`: "0001-01-01",
		`{"type":"page","timestamp":"2126-01-02T00:00:00Z"}`:                                            "2126-01-02",
		`{"type":"page","timestamp":"2026-01-02T00:00:00Z","originalTimestamp":"2025-12-31T00:00:00Z"}`: "2025-12-31",
		`{"type":"page","timestamp":"2026-01-02T00:00:00Z","originalTimestamp":"soon"}`:                 "2026-01-02",
		`{"type":"page","timestamp":"2026-01-02T00:00:00Z","originalTimestamp":null}`:                   "0001-01-01",
	} {
		e, err := Decode([]byte(body), m)
		require.NoError(t, err)
		require.Equal(t, want, e.OwnTime().Format(time.DateOnly), body)
	}
}

// Object finds what fastjson finds, for every name.
func TestObjectFindsWhatFastjsonFinds(t *testing.T) {
	var o Object
	o.Read(nil)
	require.Zero(t, o.Len())
	o.Read([]byte(`[1]`))
	require.Zero(t, o.Len())
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{`a`, `b`, `\u0061`, `ż`, `\u017c`, `a\"b`})
		value := rapid.SampledFrom([]string{`1`, `-2.50`, `"x"`, `"\u0078y"`, `"\/"`, `true`, `null`, `{"a":2}`, `[1]`, `"ż"`})
		n := rapid.IntRange(0, 8).Draw(t, "members")
		var parts []string
		for range n {
			parts = append(parts, `"`+name.Draw(t, "name")+`": `+value.Draw(t, "value"))
		}
		text := []byte("{" + strings.Join(parts, ",") + "}")
		o.Read(text)
		found := map[string]string{}
		for i := range o.Len() {
			if k := o.Name(i); !slices.Contains(keys(found), k) {
				found[k] = o.Value(i).Text()
			}
		}
		for _, k := range []string{"a", "b", "ż", `a"b`} {
			want, err := fastjson.ParseBytes(text) // anew: a miss makes it unescape all names
			if err != nil {
				t.Fatal(err)
			}
			v := want.Get(k)
			if got, ok := found[k]; ok != (v != nil) || got != Text(v) {
				t.Fatalf("%s of %s: %q, fastjson says %q", k, text, got, Text(v))
			}
		}
	})
}

func keys(m map[string]string) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

// A used Reader that meets an object which the scanner does not list, because its name is written with escapes, may be asked
// for its members again and again.
func TestObjectsThatAreNotListedAreReadAgain(t *testing.T) {
	var r Reader
	for range 2 {
		_, err := r.Decode([]byte(`{"type":"page","userId":"`+strings.Repeat("u", 200)+`","properties":{"b":1},"context":{"a":1}}`), Meta{})
		require.NoError(t, err)
		require.Equal(t, 1, r.Context().Len())
		require.Equal(t, 1, r.Properties().Len())
		_, err = r.Decode([]byte(`{"type":"page","userId":"u","c\u006fntext":{"c":1,"d":2},"p\u0072operties":{}}`), Meta{})
		require.NoError(t, err)
		for range 3 {
			require.Equal(t, 2, r.Context().Len())
			require.Equal(t, "d", r.Context().Name(1))
			require.Zero(t, r.Properties().Len())
		}
	}
}
