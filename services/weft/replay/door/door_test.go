package door

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs answer for each request; n counts from 0.
func serve(t *testing.T, answer func(w http.ResponseWriter, n int64, items []json.RawMessage)) *Client {
	t.Helper()
	var n atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(r.Body)
			if err != nil {
				w.WriteHeader(http.StatusTeapot)
				return
			}
			in = z
		}
		var body struct {
			Batch []json.RawMessage `json:"batch"`
		}
		key, _, _ := r.BasicAuth()
		if json.NewDecoder(in).Decode(&body) != nil || key != "key" || r.URL.Path != "/v1/batch" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		answer(w, n.Add(1)-1, body.Batch)
	}))
	t.Cleanup(srv.Close)
	c, err := New(srv.URL+"/", "key", Options{HTTP: srv.Client(), Patience: 10 * time.Second})
	require.NoError(t, err)
	return c
}

func items(n int) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		list[i] = fmt.Appendf(nil, `{"n":%d,"pad":"%s"}`, i, strings.Repeat("x", 100))
	}
	return list
}

func TestBatchRetriesWhatMayPass(t *testing.T) {
	var seen []int
	c := serve(t, func(w http.ResponseWriter, n int64, items []json.RawMessage) {
		seen = append(seen, len(items))
		switch n {
		case 0:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 1:
			w.Header().Set("Retry-After", "0.05")
			w.WriteHeader(http.StatusTooManyRequests)
		case 2:
			panic(http.ErrAbortHandler) // the connection breaks
		default:
			w.WriteHeader(http.StatusOK)
		}
	})
	res, err := c.Batch(t.Context(), items(40))
	require.NoError(t, err)
	require.Empty(t, res.Refused)
	require.Equal(t, []int{40, 40, 40, 40}, seen)
	require.Equal(t, 80, res.Unanswered, "of the 503 and of the broken connection nobody knows")
}

func TestBatchHonoursRetryAfter(t *testing.T) {
	var first, second time.Time
	c := serve(t, func(w http.ResponseWriter, n int64, _ []json.RawMessage) {
		if n == 0 {
			first = time.Now()
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		second = time.Now()
	})
	_, err := c.Batch(t.Context(), items(1))
	require.NoError(t, err)
	require.GreaterOrEqual(t, second.Sub(first), time.Second)
}

func TestBatchFindsTheEventAtFault(t *testing.T) {
	var taken []string
	c := serve(t, func(w http.ResponseWriter, _ int64, items []json.RawMessage) {
		for _, it := range items {
			if strings.Contains(string(it), `"n":13,`) || strings.Contains(string(it), `"n":14,`) {
				w.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(w, `{"code":"missing_event","message":"event: a track has a name"}`)
				return
			}
		}
		for _, it := range items {
			taken = append(taken, string(it))
		}
	})
	all := items(33)
	res, err := c.Batch(t.Context(), all)
	require.NoError(t, err)
	require.Equal(t, []Refusal{
		{13, "missing_event: event: a track has a name"},
		{14, "missing_event: event: a track has a name"},
	}, res.Refused)
	var want []string
	for i, it := range all {
		if i != 13 && i != 14 {
			want = append(want, string(it))
		}
	}
	require.Equal(t, want, taken, "each of the others once, in order")
}

func TestBatchReportsWhatAnAcceptedBatchLost(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ int64, _ []json.RawMessage) {
		_, _ = io.WriteString(w, `{"success":true,"rejected":[{"index":2,"code":"too_large","message":"too_large: 1 MB"},{"index":99}]}`)
	})
	res, err := c.Batch(t.Context(), items(4))
	require.NoError(t, err)
	require.Equal(t, []Refusal{{2, "too_large: 1 MB"}}, res.Refused)
}

func TestBatchGivesUp(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusNotFound, http.StatusMovedPermanently} {
		c := serve(t, func(w http.ResponseWriter, _ int64, _ []json.RawMessage) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		})
		_, err := c.Batch(t.Context(), items(4))
		require.ErrorIs(t, err, ErrUnusable, "%d", status)
	}
	c := serve(t, func(w http.ResponseWriter, _ int64, _ []json.RawMessage) { w.WriteHeader(http.StatusBadGateway) })
	c.opt.Patience = 50 * time.Millisecond
	_, err := c.Batch(t.Context(), items(1))
	require.ErrorContains(t, err, "502")

	ctx, cancel := context.WithCancel(t.Context())
	c.opt.Patience = 0
	c.opt.OnRetry = func(error, time.Duration) { cancel() }
	_, err = c.Batch(ctx, items(1))
	require.ErrorIs(t, err, context.Canceled)
}

func TestNewRefusesWhatIsNoAddress(t *testing.T) {
	for _, a := range []string{"", "127.0.0.1:8080", "ftp://x", "http://"} {
		_, err := New(a, "k", Options{})
		require.Error(t, err, a)
	}
}
