package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTLSLoadNamesWhatIsWrong(t *testing.T) {
	c, err := TLS{}.Load()
	require.NoError(t, err)
	require.Nil(t, c)
	_, err = TLS{Enabled: true, CAFile: "/does/not/exist"}.Load()
	require.ErrorContains(t, err, "ca_file")
	empty := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(empty, []byte("no certificate"), 0o600))
	_, err = TLS{Enabled: true, CAFile: empty}.Load()
	require.ErrorContains(t, err, empty)
	_, err = TLS{Enabled: true, KeyFile: empty}.Load()
	require.ErrorContains(t, err, "cert_file and key_file")
	c, err = TLS{Enabled: true}.Load()
	require.NoError(t, err)
	require.Nil(t, c.RootCAs, "the system's")
}
