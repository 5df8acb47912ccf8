package unsubscribe

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var secret = []byte("0123456789abcdef0123456789abcdef")

func TestWhatIsSignedIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 40, 200)
		c := Claim{
			Brand: text.Draw(t, "brand"), Channel: text.Draw(t, "channel"), Profile: text.Draw(t, "profile"),
			Address: text.Draw(t, "address"), Receipt: text.Draw(t, "receipt"),
			IssuedAt: time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "at")).UTC(),
		}
		token := Sign(secret, c)
		require.Equal(t, token, Sign(secret, c))
		require.Equal(t, token, url.QueryEscape(token), "safe in a URL")
		got, err := Verify(secret, token)
		require.NoError(t, err)
		require.Equal(t, c, got)

		// Any change of one byte is noticed.
		i := rapid.IntRange(0, len(token)-1).Draw(t, "i")
		b := []byte(token)
		b[i] = rapid.SampledFrom([]byte("aZ9-_.")).Draw(t, "byte")
		if string(b) != token {
			_, err = Verify(secret, string(b))
			require.ErrorIs(t, err, ErrInvalid)
		}
	})
}

func TestOthersTokensAreRefused(t *testing.T) {
	token := Sign(secret, Claim{Brand: "main", Channel: "email", Address: "a@b.c"})
	for _, bad := range []string{"", ".", "..", "u1", token + "=", token + " ", token[:len(token)-1], "u2" + token[2:], strings.Repeat("a", 5000)} {
		_, err := Verify(secret, bad)
		require.ErrorIs(t, err, ErrInvalid, bad)
	}
	_, err := Verify([]byte("another secret of thirty-two byt"), token)
	require.ErrorIs(t, err, ErrInvalid)
}

func TestURL(t *testing.T) {
	link := URL("https://shop.example/", secret, Claim{Address: "a@b.c"})
	u, err := url.Parse(link)
	require.NoError(t, err)
	require.Equal(t, "/v1/unsubscribe", u.Path)
	c, err := Verify(secret, u.Query().Get("t"))
	require.NoError(t, err)
	require.Equal(t, "a@b.c", c.Address)
}
