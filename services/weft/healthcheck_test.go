package main

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHealthcheckTellsWhetherTheServiceIsReady(t *testing.T) {
	for name, c := range map[string]struct {
		status         int
		answer         string
		code           int
		stdout, stderr string
	}{
		"ready":     {http.StatusOK, "ready\n", 0, "ready\n", ""},
		"not ready": {http.StatusServiceUnavailable, "collector: 3 partitions to go\n", exitError, "", "weft: not ready: collector: 3 partitions to go\n"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/readyz" {
					http.NotFound(w, r)
					return
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.answer))
			}))
			defer server.Close()
			_, port, err := net.SplitHostPort(server.Listener.Addr().String())
			require.NoError(t, err)
			var stdout, stderr bytes.Buffer
			// As in a container: listens on every address, is asked on its own.
			code := run(t.Context(), []string{"healthcheck"}, []string{"WEFT_ADMIN_LISTEN=0.0.0.0:" + port}, &stdout, &stderr)
			require.Equal(t, c.code, code)
			require.Equal(t, c.stdout, stdout.String())
			require.Equal(t, c.stderr, stderr.String())
		})
	}
}

func TestHealthcheckOfNobodyFails(t *testing.T) {
	for name, address := range map[string]string{"no admin server": "", "nothing listens": "127.0.0.1:1"} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			require.Equal(t, exitError, run(t.Context(), []string{"healthcheck"}, []string{"WEFT_ADMIN_LISTEN=" + address}, &stdout, &stderr))
			require.Empty(t, stdout.String())
			require.NotEmpty(t, stderr.String())
		})
	}
}
