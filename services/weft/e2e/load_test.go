//go:build integration

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// callLimit is how long a call of the load may take before its sender gives up, as SDKs do.
const callLimit = 30 * time.Second

// call is one request of the load.
type call struct {
	due, sent, done time.Time
	status          int // 0: no answer
	retryAfter      bool
	first           int // number of its first event
}

// load sends events at a steady rate, whatever the answers are and however late they come: what was to be sent while the
// door was slow is measured as late as it was. Each event is numbered, and its message id says the number.
type load struct {
	t       *testing.T
	doors   []string
	rate    int // events a second
	perCall int

	stop  chan struct{}
	ended chan struct{}
	mu    sync.Mutex
	calls []call
}

// loadName stands before the number in message ids.
const loadName = "load-"

// startLoad begins to send to the doors in turn.
func startLoad(t *testing.T, rate, perCall int, doors ...string) *load {
	l := &load{t: t, doors: doors, rate: rate, perCall: perCall, stop: make(chan struct{}), ended: make(chan struct{})}
	go l.run()
	t.Cleanup(l.end)
	return l
}

func (l *load) run() {
	defer close(l.ended)
	client := &http.Client{Timeout: callLimit, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	defer client.CloseIdleConnections()
	every := time.Second * time.Duration(l.perCall) / time.Duration(l.rate)
	begun := time.Now()
	var calls sync.WaitGroup
	defer calls.Wait()
	for n := 0; ; n++ {
		due := begun.Add(time.Duration(n) * every)
		select {
		case <-l.stop:
			return
		case <-time.After(time.Until(due)): // the pace is the subject, not a wait for something
		}
		c := call{due: due, first: n * l.perCall}
		body, door := l.body(c.first), l.doors[n%len(l.doors)]
		calls.Go(func() {
			c.sent = time.Now()
			c.status, c.retryAfter = send(client, door, body)
			c.done = time.Now()
			l.mu.Lock()
			defer l.mu.Unlock()
			l.calls = append(l.calls, c)
		})
	}
}

func send(client *http.Client, door, body string) (status int, retryAfter bool) {
	req, err := http.NewRequest(http.MethodPost, door+"/v1/batch", strings.NewReader(body))
	if err != nil {
		return 0, false
	}
	req.SetBasicAuth(keyWeb, "")
	resp, err := client.Do(req)
	if err != nil {
		return 0, false
	}
	defer resp.Body.Close() //nolint:errcheck // was only read
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, false
	}
	return resp.StatusCode, resp.Header.Get("Retry-After") != ""
}

// people is how many ids the events of the load have: enough for every partition.
const people = 2000

// body is one batch of events of some 800 bytes, such as a shop's pages send.
func (l *load) body(first int) string {
	var b strings.Builder
	b.Grow(l.perCall * 900)
	b.WriteString(`{"batch":[`)
	for i := range l.perCall {
		if i > 0 {
			b.WriteByte(',')
		}
		n := first + i
		fmt.Fprintf(&b, `{"messageId":"%s%d","anonymousId":"visitor-%d","type":"page","name":"Shoes",`, loadName, n, n*7919%people)
		b.WriteString(`"properties":{"category":"shoes","path":"/shoes/red","title":"Red shoes"},"context":{"ip":"203.0.113.7","locale":"de-AT","userAgent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36","library":{"name":"analytics.js","version":"next-1.70.0"},"page":{"path":"/shoes/red","referrer":"https://www.example.com/","search":"?utm_source=mail","title":"Red shoes","url":"https://shop.example.com/shoes/red?utm_source=mail"},"campaign":{"source":"mail","medium":"email","name":"spring"}}}`)
	}
	fmt.Fprintf(&b, `],"sentAt":%q}`, stamp(time.Now()))
	return b.String()
}

// end stops sending and waits for the answers. It may be called again.
func (l *load) end() {
	l.mu.Lock()
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.mu.Unlock()
	<-l.ended
}

// between is the calls that were due in a time, as far as they are answered.
func (l *load) between(from, to time.Time) []call {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []call
	for _, c := range l.calls {
		if !c.due.Before(from) && c.due.Before(to) {
			out = append(out, c)
		}
	}
	return out
}

// acknowledged is the numbers of the events that a door has answered 200 for.
func (l *load) acknowledged() map[int]bool {
	out := map[int]bool{}
	for _, c := range l.between(time.Time{}, time.Now().Add(callLimit)) {
		for i := range l.perCall {
			if c.status == http.StatusOK {
				out[c.first+i] = true
			}
		}
	}
	return out
}

// statuses counts answers by status.
func statuses(calls []call) map[int]int {
	out := map[int]int{}
	for _, c := range calls {
		out[c.status]++
	}
	return out
}

// latencies of the calls that were taken: from when they were due, and from when they were sent.
func latenciesOf(calls []call) (due, sent []time.Duration) {
	for _, c := range calls {
		if c.status == http.StatusOK {
			due, sent = append(due, c.done.Sub(c.due)), append(sent, c.done.Sub(c.sent))
		}
	}
	return due, sent
}

// quantile of durations; 0 without any.
func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(ds))
	return s[int(float64(len(s)-1)*q)]
}

// probe appends to a file in a directory and syncs it, at a steady pace, until stop is closed: what the disk itself
// needs for what a call brings.
func probe(t *testing.T, dir string, bytes int, every time.Duration, stop <-chan struct{}) <-chan []time.Duration {
	result := make(chan []time.Duration, 1)
	f, err := os.Create(filepath.Join(dir, "probe"))
	require.NoError(t, err)
	go func() {
		var out []time.Duration
		defer func() {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			result <- out
		}()
		data := make([]byte, bytes)
		for next := time.Now(); ; next = next.Add(every) {
			select {
			case <-stop:
				return
			case <-time.After(time.Until(next)):
			}
			begun := time.Now()
			if _, err := f.Write(data); err != nil {
				t.Error(err)
				return
			}
			if err := f.Sync(); err != nil {
				t.Error(err)
				return
			}
			out = append(out, time.Since(begun))
		}
	}()
	return result
}
