package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"": {}, "90m": now.Add(-90 * time.Minute), "2026-05-01": now.AddDate(0, 0, -3).Add(-12 * time.Hour),
		"2026-05-01 10:30": time.Date(2026, 5, 1, 10, 30, 0, 0, time.UTC), "2026-05-01T10:30:00+02:00": time.Date(2026, 5, 1, 8, 30, 0, 0, time.UTC),
	} {
		got, err := parseSince(text, now)
		require.NoError(t, err)
		require.True(t, want.Equal(got), "%q: %s", text, got)
	}
	for _, text := range []string{"yesterday", "-1h", "2026-13-01"} {
		_, err := parseSince(text, now)
		require.ErrorContains(t, err, "--since")
	}
}

func TestReplayOfAFile(t *testing.T) {
	taken := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if key, _, _ := r.BasicAuth(); key != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		taken++
	}))
	t.Cleanup(srv.Close)
	file := filepath.Join(t.TempDir(), "events.jsonl")
	require.NoError(t, os.WriteFile(file, []byte(`{"event":"A","userId":"1"}`+"\n"), 0o600))

	code, stdout, stderr := weft(t, "replay "+file+" --key secret --to "+srv.URL)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "1 events read, 0 done before, 1 acknowledged, 0 refused")
	require.Empty(t, stderr)
	require.Equal(t, 1, taken)

	code, stdout, _ = weft(t, "replay "+file+" --resume --key secret --to "+srv.URL)
	require.Zero(t, code)
	require.Contains(t, stdout, "1 done before, 0 acknowledged")
	require.Equal(t, 1, taken)

	code, _, stderr = weft(t, "replay "+file+" --key wrong --to "+srv.URL)
	require.Equal(t, exitError, code)
	require.Contains(t, stderr, "the door refuses this sender")

	require.NoError(t, os.WriteFile(file, []byte("{\"event\":\"A\",\"userId\":\"1\"}\nbroken\n"), 0o600))
	code, stdout, stderr = weft(t, "replay "+file+" --key secret --to "+srv.URL)
	require.Equal(t, exitError, code)
	require.Contains(t, stdout, "1 refused")
	require.Contains(t, stdout, "line 2: invalid_json")
	require.Empty(t, stderr)

	code, _, stderr = weft(t, "replay "+file)
	require.Equal(t, exitError, code)
	require.Contains(t, stderr, "--key")
}

func TestDemoAndAuditSayWhatTheyNeed(t *testing.T) {
	for commandLine, want := range map[string]string{
		"demo --delay 1s": "--delay of at least", "demo --visitors 0": "--visitors", "audit --since never": "--since",
	} {
		code, _, stderr := weft(t, commandLine)
		require.Equal(t, exitUsage, code, commandLine)
		require.Contains(t, stderr, want)
	}
	for _, commandLine := range []string{"audit", "demo --against"} {
		code, _, stderr := weft(t, commandLine)
		require.Equal(t, exitError, code, commandLine)
		require.Contains(t, stderr, "is empty: give it in the file")
	}
}
