package config

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLoadOrCreateSecretGivesAllCallersTheSameSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "identity.key")
	const callers = 16
	secrets := make([][]byte, callers)
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { secrets[i], errs[i] = LoadOrCreateSecret(path) })
	}
	wg.Wait()
	for i := range callers {
		require.NoError(t, errs[i])
		require.Len(t, secrets[i], SecretBytes)
		require.Equal(t, secrets[0], secrets[i])
	}
	again, err := LoadOrCreateSecret(path)
	require.NoError(t, err)
	require.Equal(t, secrets[0], again)

	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	dir, err := os.Stat(filepath.Dir(path))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), dir.Mode().Perm())
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "no temporary file may stay")
}

func TestLoadOrCreateSecretRefusesMalformedFiles(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "short": "abcd", "long": strings.Repeat("ab", SecretBytes+1),
		"not hex": strings.Repeat("zz", SecretBytes),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			_, err := LoadOrCreateSecret(path)
			require.ErrorContains(t, err, path)
			if content != "" {
				require.NotContains(t, err.Error(), content)
			}
			kept, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, content, string(kept))
		})
	}
}

func TestLoadOrCreateSecretReadsSurroundedByWhiteSpace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(path, []byte("  "+strings.Repeat("0A", SecretBytes)+"\r\n"), 0o600))
	secret, err := LoadOrCreateSecret(path)
	require.NoError(t, err)
	require.Equal(t, byte(10), secret[0])
}
