package event

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func textsOf(t *testing.T, body string, paths ...string) []string {
	t.Helper()
	p, err := CompilePaths(paths)
	require.NoError(t, err)
	e, err := Decode([]byte(body), Meta{})
	require.NoError(t, err)
	var found Texts
	var texts []string
	for range 2 { // the second time over what the first has left
		p.Find(e, &found)
		texts = nil
		for i := range paths {
			texts = append(texts, found.Text(i))
		}
	}
	return texts
}

func TestPathsFindTexts(t *testing.T) {
	paths := []string{"userId", "type", "event", "traits.email", "context.traits.email", "context.device.id", "context.device['type']",
		`context.integrations["Google Analytics"].clientId`, "properties.a.b.c", "properties.a.b"}
	for body, want := range map[string][]string{
		`{"type":"track","event":" E ","userId":" u ","traits":{"email":"a@b"},"context":{"traits":{"email":7.10},"device":{"id":"D","type":"ios"},"integrations":{"Google Analytics":{"clientId":"1.2"}}},"properties":{"a":{"b":{"c":"x"}}}}`: {
			"u", "track", "E", "a@b", "7.10", "D", "ios", "1.2", "x", ""},
		`{"type":"group","groupId":"g","userId":"u","traits":{"email":"the group's"},"context":{"traits":{"email":"a@b"}}}`: {"u", "group", "", "", "a@b", "", "", "", "", ""},
		`{"type":"identify","userId":"u","traits":{"email":true},"context":{"device":[{"id":"x"}]},"properties":{"a":{"b":"t"}}}`: {
			"u", "identify", "", "", "", "", "", "", "", "t"},
		`{"type":"identify","userId":"u","traits":{"\u0065mail":"escaped","emai":"l"},"context":{"dev\u0069ce":{"i\u0064":"D\"1"}}}`: {
			"u", "identify", "", "escaped", "", `D"1`, "", "", "", ""},
		`{"type":"identify","userId":"u","traits":{"email":null},"context":{"traits":[]}}`: {"u", "identify", "", "", "", "", "", "", "", ""},
	} {
		require.Equal(t, want, textsOf(t, body, paths...), body)
	}
}

func TestPathsRefuse(t *testing.T) {
	for path, want := range map[string]string{
		"": "a dot without a name", "traits": "want userId", "email": "want userId", "traits.": "a dot without a name", "traits.a[0]": "names only",
		"traits.a[*].b": "names only", "integrations.x": "want userId", "traits['a": "does not end",
	} {
		_, err := CompilePaths([]string{path})
		require.ErrorContains(t, err, want, "%q", path)
	}
	_, err := CompilePaths([]string{"traits.a", "traits.a"})
	require.ErrorContains(t, err, "twice")
}

func TestPathsFindWithoutGarbage(t *testing.T) {
	p, err := CompilePaths([]string{"userId", "properties.product_id", "context.library.name", "context.device.id"})
	require.NoError(t, err)
	e, err := Decode([]byte(envelope), Meta{})
	require.NoError(t, err)
	var found Texts
	p.Find(e, &found)
	require.Equal(t, "SKU-507", found.Text(1))
	require.Equal(t, "@segment/analytics-node", found.Text(2))
	require.Zero(t, testing.AllocsPerRun(100, func() { p.Find(e, &found) }))
}

func TestExternalIDs(t *testing.T) {
	e, err := Decode([]byte(`{"type":"track","event":"E","context":{"externalIds":[{"id":"1","type":"a","collection":"users","encoding":"none"},
		{"id":2,"type":"b","collection":"accounts"},{"id":true,"type":"c"},{"id":"3"},{"type":"d"},"x",null,{"id":" ","type":"e"}]}}`), Meta{})
	require.NoError(t, err)
	var got []ExternalID
	e.ExternalIDs(func(x ExternalID) { got = append(got, x) })
	require.Equal(t, []ExternalID{{"1", "a", "users", "none"}, {"2", "b", "accounts", ""}}, got)
}
