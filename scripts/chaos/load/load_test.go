package load

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/scripts/chaos/ledger"
	"github.com/weft-cdp/weft/services/weft/demo"
)

// hurtDoor takes every other request only; it says 503 to the others, without a Retry-After to the first.
type hurtDoor struct {
	mu       sync.Mutex
	requests int
	taken    []string
	refuse   func(n int) bool
}

func (d *hurtDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.requests++
	if d.refuse(d.requests) {
		if d.requests > 1 {
			w.Header().Set("Retry-After", "0")
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var body struct {
		Batch []struct {
			MessageID string `json:"messageId"`
			Type      string `json:"type"`
		} `json:"batch"`
	}
	text, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(text, &body)
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var named []string
	for i, e := range body.Batch {
		d.taken = append(d.taken, e.MessageID)
		if e.Type == "" {
			named = append(named, fmt.Sprintf(`{"index":%d,"code":"missing_type"}`, i))
		}
	}
	_, _ = fmt.Fprintf(w, `{"success":true,"rejected":[%s]}`, strings.Join(named, ","))
}

// visitor does three things on one device, the second of which is sent twice; of the third nobody can make an event.
func visitor() []demo.Visitor {
	v := demo.Visitor{N: 0, Parts: []demo.Part{{}}}
	bodies := []map[string]any{{"type": "page"}, {"type": "page"}, {}}
	for i, id := range []string{"m1", "m2", "m3"} {
		v.Parts[0].Actions = append(v.Parts[0].Actions, demo.Action{
			ID: id, Channel: demo.Web, Device: "d", At: time.Duration(i) * 5 * time.Millisecond, Resend: i == 1, Broken: i == 2, Body: bodies[i],
		})
	}
	return []demo.Visitor{v}
}

// What the door refuses is sent again, in order, and written down only once the door has taken it; what is written
// down is not sent by the next process.
func TestLoadWritesDownWhatWasAcknowledged(t *testing.T) {
	d := &hurtDoor{refuse: func(n int) bool { return n%2 == 1 }}
	s := httptest.NewServer(d)
	defer s.Close()
	l, err := ledger.Open(t.TempDir(), false)
	require.NoError(t, err)
	x, err := New(visitor(), []string{s.URL}, nil, l)
	require.NoError(t, err)
	opened := time.Now()
	require.NoError(t, x.Run(context.Background(), opened))
	require.Equal(t, []string{"m1", "m2", "m3"}, compact(d.taken))
	require.Contains(t, d.taken, "m2")
	l.Read(func(b *ledger.Book) {
		require.Len(t, b.Acked, 3)
		require.WithinDuration(t, opened.Add(10*time.Millisecond), b.Done[ID(0, 0, 2)], time.Millisecond)
		for id, at := range b.Acked {
			require.False(t, at.Before(b.Done[id].Truncate(time.Millisecond)))
		}
	})
	require.Equal(t, int64(1), x.Bare.Load(), "only the first refusal did not say when to come again")
	require.Positive(t, x.Answers()[http.StatusServiceUnavailable])

	before := d.requests
	again, err := New(visitor(), []string{s.URL}, nil, l)
	require.NoError(t, err)
	require.NoError(t, again.Run(context.Background(), opened))
	require.Equal(t, before, d.requests)
	require.NoError(t, l.Close())
}

// While nobody takes anything, nothing is written down as acknowledged, and the load ends with its context.
func TestLoadAcknowledgesNothingByItself(t *testing.T) {
	d := &hurtDoor{refuse: func(int) bool { return true }}
	s := httptest.NewServer(d)
	defer s.Close()
	l, err := ledger.Open(t.TempDir(), false)
	require.NoError(t, err)
	x, err := New(visitor(), []string{s.URL}, nil, l)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx, time.Now()) }()
	require.Eventually(t, func() bool { return x.Answers()[http.StatusServiceUnavailable] > 2 }, 30*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	l.Read(func(b *ledger.Book) {
		require.NotEmpty(t, b.Done)
		require.Empty(t, b.Acked)
	})
	require.NoError(t, l.Close())
}

// compact drops repetitions.
func compact(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
