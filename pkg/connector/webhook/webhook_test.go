package webhook

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/connector"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "a secret of the receiver's"

func now() time.Time { return time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC) }

func sender(t *testing.T, url string, change ...func(*config.Webhook)) *Sender {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte(secret+"\n"), 0o600))
	c := config.Webhook{URL: url, SecretFile: file, Timeout: time.Minute, AllowPrivate: true}
	for _, f := range change {
		f(&c)
	}
	s, err := New(c, now)
	require.NoError(t, err)
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

func message() connector.Message {
	return connector.Message{ID: "m1", Payload: []byte(`{"id":"m1","text":"<Grüße>"}`)}
}

func receiver(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestSignedRequest(t *testing.T) {
	var got *http.Request
	var body []byte
	url := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	})
	s := sender(t, url)
	require.True(t, s.Idempotent())
	_, err := s.Send(t.Context(), message())
	require.NoError(t, err)
	require.Equal(t, http.MethodPost, got.Method)
	require.Equal(t, "m1", got.Header.Get(HeaderKey))
	require.Equal(t, message().Payload, body)
	require.Equal(t, "application/json", got.Header.Get("Content-Type"))
	sig := got.Header.Get(HeaderSignature)
	// Computed with: printf '1773489600.{"id":"m1","text":"<Grüße>"}' | openssl dgst -sha256 -hmac "a secret of the receiver's"
	require.Equal(t, "t=1773489600,v1=a54d7453b6e42b86ebb459760489b27ce29f426ce448a458e05e63616548063c", sig)
	require.NoError(t, Verify([]byte(secret), sig, body, now().Add(time.Minute), 5*time.Minute))
	require.ErrorIs(t, Verify([]byte(secret), sig, append(body, ' '), now(), time.Minute), ErrSignature)
	require.ErrorIs(t, Verify([]byte("another secret, quite long"), sig, body, now(), time.Minute), ErrSignature)
	require.ErrorIs(t, Verify([]byte(secret), sig, body, now().Add(time.Hour), time.Minute), ErrSignature)
	require.ErrorIs(t, Verify([]byte(secret), "nonsense", body, now(), time.Minute), ErrSignature)
}

func TestAnswers(t *testing.T) {
	for code, want := range map[int]connector.Class{
		301: connector.Permanent, 302: connector.Permanent, 307: connector.Permanent, 400: connector.Permanent, 401: connector.Permanent,
		404: connector.Permanent, 410: connector.Permanent, 413: connector.Permanent,
		408: connector.Transient, 425: connector.Transient, 429: connector.Transient, 500: connector.Transient, 503: connector.Transient,
	} {
		calls := 0
		url := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
			calls++
			w.Header().Set("Location", "/elsewhere")
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(code)
			_, _ = io.WriteString(w, "because\r\n of this")
		})
		_, err := sender(t, url).Send(t.Context(), message())
		require.Equal(t, want, connector.ClassOf(err), "%d: %v", code, err)
		require.ErrorContains(t, err, "because of this")
		require.Equal(t, 1, calls, "no redirect is followed")
		var e *connector.Error
		require.True(t, errors.As(err, &e))
		if want == connector.Transient {
			require.Equal(t, 7*time.Second, e.RetryAfter)
		}
	}
	require.Equal(t, maxRetryAfter, retryAfter("999999999999", now()))
	require.Equal(t, time.Minute, retryAfter(now().Add(time.Minute).Format(http.TimeFormat), now()))
	require.Zero(t, retryAfter("-3", now()))
	require.Zero(t, retryAfter("soon", now()))
}

func TestConnectionCut(t *testing.T) {
	url := receiver(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	_, err := sender(t, url).Send(t.Context(), message())
	require.Equal(t, connector.Unknown, connector.ClassOf(err), "%v", err)

	_, err = sender(t, "http://127.0.0.1:1").Send(t.Context(), message())
	require.Equal(t, connector.Transient, connector.ClassOf(err), "%v", err)
}

func TestNoWayInside(t *testing.T) {
	for _, ip := range []string{
		"127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.1.1", "224.0.0.1", "255.255.255.255",
		"198.18.0.1", "192.0.2.1", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1",
		"::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "2001::1", "2001:db8::1",
	} {
		require.False(t, public(netip.MustParseAddr(ip)), ip)
	}
	for _, ip := range []string{"1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"} {
		require.True(t, public(netip.MustParseAddr(ip)), ip)
	}

	// A name that leads inside is found out when connecting.
	calls := 0
	url := receiver(t, func(http.ResponseWriter, *http.Request) { calls++ })
	_, port, err := net.SplitHostPort(strings.TrimPrefix(url, "http://"))
	require.NoError(t, err)
	s := sender(t, "https://localhost:"+port, func(c *config.Webhook) { c.AllowPrivate = false })
	_, err = s.Send(t.Context(), message())
	require.ErrorIs(t, err, ErrForbidden)
	require.Equal(t, connector.Permanent, connector.ClassOf(err))
	require.Zero(t, calls)
}

func TestNoProxyFromTheEnvironment(t *testing.T) {
	calls := 0
	proxy := receiver(t, func(http.ResponseWriter, *http.Request) { calls++ })
	t.Setenv("HTTP_PROXY", proxy)
	t.Setenv("HTTPS_PROXY", proxy)
	got := 0
	url := receiver(t, func(http.ResponseWriter, *http.Request) { got++ })
	_, err := sender(t, url).Send(t.Context(), message())
	require.NoError(t, err)
	require.Equal(t, 1, got)
	require.Zero(t, calls)
}

func TestNewRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte(secret), 0o600))
	short := filepath.Join(t.TempDir(), "short")
	require.NoError(t, os.WriteFile(short, []byte("x"), 0o600))
	for _, c := range []config.Webhook{
		{URL: "http://hook.example/x", SecretFile: file, Timeout: time.Second},
		{URL: "https://127.0.0.1/x", SecretFile: file, Timeout: time.Second},
		{URL: "https://[::ffff:10.0.0.1]/x", SecretFile: file, Timeout: time.Second},
		{URL: "https://user@hook.example/x", SecretFile: file, Timeout: time.Second},
		{URL: "ftp://hook.example", SecretFile: file, Timeout: time.Second},
		{URL: "https://hook.example", SecretFile: file},
		{URL: "https://hook.example", SecretFile: short, Timeout: time.Second},
		{URL: "https://hook.example", SecretFile: "/does/not/exist", Timeout: time.Second},
		{URL: ":", SecretFile: file, Timeout: time.Second},
	} {
		_, err := New(c, now)
		require.ErrorContains(t, err, "activator.webhook.", c.URL)
	}
}
