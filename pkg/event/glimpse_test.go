package event

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGlimpseSeesWhomFaultyItemsName(t *testing.T) {
	values := func(item string, fill Filling) (list []string) {
		for _, id := range Glimpse([]byte(item), fill).Identifiers() {
			list = append(list, id.Value)
		}
		return list
	}
	for item, want := range map[string][]string{
		`{"userId":"bob"}`: {"bob"},
		`{"type":"nope","userId":17,"anonymousId":"a"}`:                                   {"17", "a"},
		`{"type":"track","userId":{},"traits":7,"context":{"traits":{"email":"b@x"}}}`:    {"b@x"},
		`{"type":"page","context":{"traits":3,"externalIds":[{"type":"card","id":"c"}]}}`: {"c"},
		`{"type":"alias","previousId":"bob","messageId":[]}`:                              {"bob"},
		`{"type":"identify","traits":{"email":"b@x","phone":"+1"}}`:                       {"b@x", "+1"},
		`{"type":"page","context":[1]}`:                                                   nil,
		`{"user\u0049d":"bob","timestamp":{}}`:                                            {"bob"},
		`17`:                                                                              nil, `{"userId":"bob"`: nil, ``: nil,
	} {
		require.Equal(t, want, values(item, Filling{}), item)
	}
	batch := Filling{Context: []byte(`{"traits":{"email":"b@x"},"externalIds":[{"type":"card","id":"c"}]}`)}
	require.Equal(t, []string{"u", "b@x", "c"}, values(`{"userId":"u"}`, batch))
	require.Equal(t, []string{"a@x", "c"}, values(`{"context":{"traits":{"email":"a@x"}}}`, batch), "its own counts")
	require.Equal(t, []string{"b@x", "c"}, values(`{"context":7}`, batch))
	require.Equal(t, []string{"bob"}, values(`{"previousId":"bob"}`, Filling{Type: Alias}))
}
