package main

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
)

func TestIdentitySaysWhatItNeeds(t *testing.T) {
	key := filepath.Join(t.TempDir(), "identity.key")
	// Port 1 is nobody's.
	env := []string{"WEFT_CLICKHOUSE_ADDRESSES=127.0.0.1:1", "WEFT_IDENTITY_KEY_FILE=" + key, "WEFT_IDENTITY_DEFAULT_REGION=PL"}
	code, _, stderr := weft(t, "identity show user_id:u1")
	require.Equal(t, exitError, code)
	require.Contains(t, stderr, "clickhouse.addresses")

	code, _, stderr = weft(t, "identity show user_id:u1", env...)
	require.Equal(t, exitError, code)
	require.Contains(t, stderr, "identity.key_file: "+key+" is not there: give the file that the services use")
	require.NoFileExists(t, key, "a new key would find nobody")

	_, err := config.LoadOrCreateSecret(key)
	require.NoError(t, err)
	for commandLine, want := range map[string]string{
		"identity show ann@example.com":     "want a profile id, or TYPE:VALUE such as email:ann@example.com",
		"identity why user_id:null email:a": "names nobody: blocked",
		"identity why user_id:u1":           "accepts 2 arg(s)",
		"identity who user_id:u1":           "unknown command",
	} {
		code, _, stderr = weft(t, commandLine, env...)
		require.Equal(t, exitUsage, code, commandLine)
		require.Contains(t, stderr, want)
	}
	code, _, stderr = weft(t, "identity history user_id:u1", env...)
	require.Equal(t, exitError, code)
	require.Contains(t, stderr, "look up a person")
}
