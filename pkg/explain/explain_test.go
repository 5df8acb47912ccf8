package explain

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/weft-cdp/weft/pkg/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	rules, err := identity.NewRules(make([]byte, identity.KeyBytes), identity.Options{DefaultRegion: "PL"})
	require.NoError(t, err)
	e := New(nil, rules)
	for text, want := range map[string]string{
		"EMAIL:Ann@X.example": "email:ann@x.example", "user_id:a:b": "user_id:a:b", " phone:123 456 789 ": "phone:+48123456789",
		"10000000-0000-8000-8000-000000000001":         "10000000-0000-8000-8000-000000000001",
		"profile:10000000-0000-8000-8000-00000000000A": "10000000-0000-8000-8000-00000000000a",
	} {
		id, err := e.Parse("", text)
		require.NoError(t, err, text)
		require.Equal(t, want, id.String())
	}
	for text, want := range map[string]string{
		"ann@example.com": "want a profile id, or TYPE:VALUE", "e mail:x": "no type of identifier", "user_id:null": "names nobody: blocked",
		"f47ac10b-58cc-4372-a567-0e02b2c3d479": "anonymous_id:f47ac10b-58cc-4372-a567-0e02b2c3d479", "email: ": "blank",
	} {
		_, err := e.Parse("", text)
		require.ErrorIs(t, err, ErrInput, text)
		require.ErrorContains(t, err, want)
	}
	require.Equal(t, "a\uFFFD[31mb", Plain("a\x1b[31mb"))
}
