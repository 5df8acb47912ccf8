package event

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWriteKeysAreBlanked(t *testing.T) {
	for text, want := range map[string]string{
		`{"writeKey":"k","a":1}`:                       `{"writeKey":"","a":1}`,
		`{"a":[{"writeKey" : "k\"\\"}],"writeKey":17}`: `{"a":[{"writeKey" : ""}],"writeKey":""}`,
		`{"writeKey":"cut off`:                         `{"writeKey":""`,
		`{"writeKey":`:                                 `{"writeKey":`,
		`{"writeKey":null,"x":"writeKey"}`:             `{"writeKey":null,"x":"writeKey"}`,
		"no \"writeKey\"\n:\n\"k\" JSON":               "no \"writeKey\"\n:\n\"\" JSON",
		`{"userId":"u"}`:                               `{"userId":"u"}`,
	} {
		require.Equal(t, want, string(BlankWriteKeys([]byte(text))))
	}
}

func TestComposeDropsTheWriteKey(t *testing.T) {
	fill := Filling{MessageID: func() string { return "m" }}
	for item, want := range map[string]string{
		`{"writeKey":"k","type":"page","messageId":"1"}`:    `{"type":"page","messageId":"1"}`,
		`{"type":"page","writeKey":"k","messageId":"1"}`:    `{"type":"page","messageId":"1"}`,
		`{"type":"page","messageId":"1" , "writeKey":"k" }`: `{"type":"page","messageId":"1" }`,
		`{"writeKey":"k"}`:                 `{"type":"track","messageId":"m"}`,
		`{ "writeKey":"k" , "writeKey":7}`: `{"type":"track","messageId":"m" }`,
		`{"writeKey":"k","type":"PAGE","write\u004bey":"k","n":1.0,"properties":{"writeKey":"theirs"}}`: `{"messageId":"m","type":"track","n":1.0,"properties":{"writeKey":"theirs"}}`,
	} {
		fill := fill
		if m, _, _ := scanObject([]byte(item), nil); find([]byte(item), m, "messageId") == nil {
			fill.Type = Track
		}
		got, err := Compose([]byte(item), fill)
		require.NoError(t, err)
		require.Equal(t, want, string(got), item)
	}
}
