package event

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func path(t testing.TB, text string) Path {
	t.Helper()
	p, err := ParsePath(text)
	require.NoError(t, err, text)
	return p
}

func TestPathsAreRead(t *testing.T) {
	for _, good := range []string{"event", "properties.total", "context['odd name'].id", `context["a.b"]`, "properties.products[0].sku", "properties.products[*].email"} {
		require.Equal(t, good, path(t, good).String())
	}
	for _, bad := range []string{"", ".", "a.", "a..b", "[0]", "[*].a", "a[x]", "a[", "a['b"} {
		_, err := ParsePath(bad)
		require.Error(t, err, bad)
	}
	require.True(t, path(t, "a.b").Beside(path(t, "a.c")))
	require.False(t, path(t, "a.b").Beside(path(t, "b.c")))
	require.Equal(t, `1`, string(path(t, "a[*].b").Find([]byte(`{"a":[{"b":1},{"b":2}]}`))))
	require.Nil(t, path(t, "a.c").Find([]byte(`{"a":[{"b":1}]}`)))
}

func TestRemoveTakesMembersOut(t *testing.T) {
	for _, c := range []struct{ path, from, to string }{
		{"a", `{"a":1,"b":2}`, `{"b":2}`},
		{"b", `{"a":1, "b":2}`, `{"a":1}`},
		{"b", `{"a":1,"b":2 ,"c": 3}`, `{"a":1 ,"c": 3}`},
		{"a", `{ "a" : 1 }`, `{  }`},
		{"a", `{"a":1,"a":2}`, `{}`},
		{"a", `{"a":1,"b":0,"a":2,"a":3}`, `{"b":0}`},
		{"a", `{"a":1,"a":2,"b":0}`, `{"b":0}`},
		{"a", `{"b":0,"\u0061":2}`, `{"b":0}`},
		{"a", `[1]`, `[1]`},
		{"a.b", `{"a":{"b":1e400,"c":1.10},"a":{"b":2}}`, `{"a":{"c":1.10},"a":{}}`},
		{"a[*].b", `{"a":[{"b":1},{"c":0,"b":1},7]}`, `{"a":[{},{"c":0},7]}`},
		{"a[1]", `{"a":[1,2]}`, `{"a":[1,2]}`},
		{"a", `not json`, `not json`},
	} {
		require.Equal(t, c.to, string(path(t, c.path).Remove([]byte(c.from))), "%s of %s", c.path, c.from)
	}
}

func TestReplaceTouchesEveryOne(t *testing.T) {
	hide := func([]byte) []byte { return []byte(`"x"`) }
	for _, c := range []struct{ path, from, to string }{
		{"a", `{"a": 1 ,"a":{"b":2}}`, `{"a": "x" ,"a":"x"}`},
		{"a.b[*]", `{"a":{"b":[1, [2]]}}`, `{"a":{"b":["x", "x"]}}`},
		{"a.b[1]", `{"a":{"b":[1, [2]]}}`, `{"a":{"b":[1, "x"]}}`},
		{"c", `{"a":1}`, `{"a":1}`},
	} {
		require.Equal(t, c.to, string(path(t, c.path).Replace([]byte(c.from), hide)), "%s of %s", c.path, c.from)
	}
	kept := []byte(`{"a":1}`)
	require.Equal(t, string(kept), string(path(t, "a").Replace(kept, func([]byte) []byte { return nil })))
}

func TestRenameKeepsOrderAndWhatIsThere(t *testing.T) {
	for _, c := range []struct{ path, to, from, want string }{
		{"a", "z", `{"b":1, "a" : 1.0}`, `{"b":1, "z" : 1.0}`},
		{"a", "b", `{"b":1,"a":2}`, `{"b":1,"a":2}`},
		{"p[*].a", `"q"`, `{"p":[{"a":1},{"a":2,"b":3}]}`, `{"p":[{"\"q\"":1},{"\"q\"":2,"b":3}]}`},
	} {
		require.Equal(t, c.want, string(path(t, c.path).Rename([]byte(c.from), c.to)))
	}
}

func TestSetMakesWhatIsMissing(t *testing.T) {
	for _, c := range []struct{ path, from, to string }{
		{"a", `{}`, `{"a":7}`},
		{"a", ` { } `, ` { "a":7} `},
		{"a", `{"a": 1.50,"a":2}`, `{"a": 7,"a":2}`},
		{"b.c.d", `{"a":1 }`, `{"a":1,"b":{"c":{"d":7}} }`},
		{"b.c", `{"b":null}`, `{"b":{"c":7}}`},
		{"b.c", `{"b":{"x":[1]}}`, `{"b":{"x":[1],"c":7}}`},
		{"b[1].c", `{"b":[0,{}]}`, `{"b":[0,{"c":7}]}`},
		{"b['x.y']", `{"b":{}}`, `{"b":{"x.y":7}}`},
	} {
		got, err := path(t, c.path).Set([]byte(c.from), []byte("7"))
		require.NoError(t, err)
		require.Equal(t, c.to, string(got), "%s in %s", c.path, c.from)
	}
	for p, from := range map[string]string{"a.b": `{"a":1}`, "a[2]": `{"a":[1]}`, "a[*]": `{"a":[1]}`, "b": `[]`, "c": `{`, "d[0].x": `{}`} {
		_, err := path(t, p).Set([]byte(from), []byte("7"))
		require.Error(t, err, "%s in %s", p, from)
	}
}

func TestTreeReadsAsTheRestDoes(t *testing.T) {
	v, err := Tree([]byte(` {"a":[1.10,-2e3,true,false,null,"x\n\"\u00e9"],"b":{},"a":0,"\u0062":1,"\u0063":"\ud83d\ude00"} `))
	require.NoError(t, err)
	require.Equal(t, map[string]any{
		"a": []any{json.Number("1.10"), json.Number("-2e3"), true, false, nil, "x\n\"é"},
		"b": map[string]any{}, "c": "😀",
	}, v)
	for _, bad := range []string{"", "{", "1 2", "{\"a\":\"\xff\"}", strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1)} {
		_, err := Tree([]byte(bad))
		require.Error(t, err, "%.20s", bad)
	}
}

// FuzzEdits has the edits agree with encoding/json on texts without equal names.
func FuzzEdits(f *testing.F) {
	f.Add([]byte(`{"a":{"b":1,"c":[1,{"b":2}]},"b":"x\u0041"}`))
	f.Add([]byte(` {"":0}`))
	f.Add([]byte(`{ "b" : null , "a" : [ ] }`))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := Tree(text)
		var want any
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err != nil {
			return // the scanner is held to encoding/json by a test of its own
		}
		require.NoError(t, d.Decode(&want))
		again, err := json.Marshal(v)
		require.NoError(t, err)
		if again2, err := json.Marshal(want); err == nil && len(again2) == len(again) { // no equal names
			require.Equal(t, string(again2), string(again)) // as text: 1E1000 is a number that no float is
		}
		for _, p := range []string{"a", "b", "a.b", "a.c[*].b", "a[0]"} {
			at := path(t, p)
			removed := at.Remove(text)
			require.True(t, json.Valid(removed), "%s removed from %q: %q", p, text, removed)
			if at.Leaf() != "" {
				require.Nil(t, at.Find(removed), "%s is still in %q", p, removed)
			}
			require.True(t, json.Valid(at.Rename(text, "z")))
			hidden := at.Replace(text, func([]byte) []byte { return []byte(`"hidden"`) })
			require.True(t, json.Valid(hidden))
			if at.Wild() {
				continue
			}
			if set, err := at.Set(text, []byte(`"set"`)); err == nil {
				require.True(t, json.Valid(set), "%s set in %q: %q", p, text, set)
				require.Equal(t, `"set"`, string(at.Find(set)))
			}
		}
	})
}
