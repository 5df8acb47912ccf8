package demo

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/services/weft/replay/door"
)

// fakeDoor answers requests in memory: HTTP without a network, so that time can be false.
type fakeDoor struct {
	mu     sync.Mutex
	n      int
	events map[string][]string // message ids by source and device, in order
	times  map[string]int
	links  int
	fail   bool
}

func (f *fakeDoor) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := func(status int) *http.Response {
		return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader("{}")), Header: http.Header{}, Request: r}
	}
	f.n++
	if strings.HasPrefix(r.URL.Path, "/v1/unsubscribe") {
		f.links++
		return answer(http.StatusOK), nil
	}
	if f.fail {
		return answer(http.StatusUnauthorized), nil
	}
	if f.n%7 == 0 {
		return answer(http.StatusServiceUnavailable), nil
	}
	var in io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, err
		}
		in = z
	}
	var body struct {
		Batch []struct{ MessageID, AnonymousID, Timestamp string }
	}
	if err := json.NewDecoder(in).Decode(&body); err != nil {
		return nil, err
	}
	key, _, _ := r.BasicAuth()
	for _, e := range body.Batch {
		if _, err := time.Parse(time.RFC3339, e.Timestamp); err != nil {
			return nil, err
		}
		f.times[e.MessageID]++
		if f.times[e.MessageID] == 1 {
			f.events[key+e.AnonymousID] = append(f.events[key+e.AnonymousID], e.MessageID)
		}
	}
	return answer(http.StatusOK), nil
}

func newFakeDoors(t *testing.T) (*fakeDoor, Doors, *http.Client) {
	t.Helper()
	f := &fakeDoor{events: map[string][]string{}, times: map[string]int{}}
	client := &http.Client{Transport: f}
	d := Doors{HTTP: map[Channel]*door.Client{}}
	for _, ch := range []Channel{Web, App, Shop} {
		c, err := door.New("http://door", string(ch), door.Options{HTTP: client})
		require.NoError(t, err)
		d.HTTP[ch] = c
	}
	d.Till = func(_ context.Context, key string, record []byte) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !strings.Contains(string(record), `"soldAt"`) {
			return errors.New("not a sale")
		}
		f.times[key]++
		return nil
	}
	return f, d, client
}

func TestSenderPlaysEveryActionOnceAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := Plan{Seed: 9, Visitors: 300, Run: "t", Delay: 6 * time.Second, Over: 20 * time.Second, Mailbox: true, List: true}
		visitors := Generate(plan)
		f, doors, client := newFakeDoors(t)
		ledger := NewLedger()
		s := NewSender(plan, doors, ledger)
		s.client = client
		deaf := ""
		for i := range visitors {
			v := &visitors[i]
			if len(v.Parts) == 1 {
				continue
			}
			if deaf == "" { // one mail gets lost
				deaf = v.Email
				continue
			}
			time.AfterFunc(v.Start+15*time.Second, func() { s.MailCame(Mail{To: v.Email, Unsubscribe: "http://door/v1/unsubscribe?t=" + v.Email}) })
		}
		require.NoError(t, s.Run(t.Context(), visitors))

		resent := 0
		for i := range visitors {
			v := &visitors[i]
			for k, part := range v.Parts {
				for j := range part.Actions {
					a := &part.Actions[j]
					d, ok := ledger.deed(a)
					if v.Email == deaf && k > 0 {
						require.False(t, ok)
						continue
					}
					require.True(t, ok, "%s of %s", a.ID, v.Story)
					require.False(t, d.Acked.Before(d.At))
					want := 1
					if a.Resend {
						want, resent = 2, resent+1
					}
					if !a.Link {
						require.Equal(t, want, f.times[a.ID], a.ID)
					}
				}
			}
		}
		for device, ids := range f.events {
			if strings.HasSuffix(device, string(Shop)) { // many visitors, no order between them
				continue
			}
			last := 0
			for _, id := range ids {
				n, err := strconv.Atoi(id[strings.LastIndexByte(id, '-')+1:])
				require.NoError(t, err)
				require.Greater(t, n, last, "%s: %v", device, ids)
				last = n
			}
		}
		truth := ledger.Truth(visitors, plan.Delay)
		require.Equal(t, resent, truth.Resent)
		require.Positive(t, truth.Unknown, "answers of 503 leave it open what was taken")
		require.Len(t, truth.Unanswered, 1)
		require.Positive(t, truth.NeverAcked)
		require.Positive(t, f.links)
	})
}

func TestSenderStopsAtAnUnusableDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := Plan{Seed: 1, Visitors: 30, Run: "t", Delay: 6 * time.Second, Over: time.Second}
		f, doors, _ := newFakeDoors(t)
		f.fail = true
		err := NewSender(plan, doors, NewLedger()).Run(t.Context(), Generate(plan))
		require.ErrorIs(t, err, door.ErrUnusable)
	})
}

func TestSenderStopsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := Plan{Seed: 1, Visitors: 30, Run: "t", Delay: 6 * time.Second, Over: time.Hour}
		_, doors, _ := newFakeDoors(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := NewSender(plan, doors, NewLedger()).Run(ctx, Generate(plan))
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}
