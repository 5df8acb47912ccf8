package replay

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/services/weft/replay/door"
)

// inbox is an HTTP door that keeps what it acknowledged, in order.
type inbox struct {
	t   *testing.T
	srv *httptest.Server

	mu     sync.Mutex
	events []string
	ids    map[string]int
	byUser map[string][]string
	fail   func(n int) int // status of the n-th request; 0: take it
	n      int
}

func newInbox(t *testing.T) *inbox {
	t.Helper()
	b := &inbox{t: t, ids: map[string]int{}, byUser: map[string][]string{}}
	b.srv = httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(b.srv.Close)
	return b
}

func (b *inbox) serve(w http.ResponseWriter, r *http.Request) {
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
	if err := json.NewDecoder(in).Decode(&body); err != nil {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n++
	if b.fail != nil {
		if status := b.fail(b.n); status != 0 {
			w.WriteHeader(status)
			return
		}
	}
	for _, it := range body.Batch {
		var e struct{ MessageID, UserID, AnonymousID string }
		if err := json.Unmarshal(it, &e); err != nil {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		b.ids[e.MessageID]++
		if b.ids[e.MessageID] == 1 {
			b.events = append(b.events, string(it))
			b.byUser[e.UserID+e.AnonymousID] = append(b.byUser[e.UserID+e.AnonymousID], string(it))
		}
	}
	_, _ = io.WriteString(w, `{"success":true}`)
}

// taken is how many events were acknowledged, each once. Requests of a cancelled run may still be at work.
func (b *inbox) taken() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.events)
}

func (b *inbox) failing(f func(n int) int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = f
}

func (b *inbox) run(ctx context.Context, opt Options) (Report, error) {
	d, err := door.New(b.srv.URL, "key", door.Options{HTTP: b.srv.Client()})
	require.NoError(b.t, err)
	if opt.To == "" {
		opt.To = "http://door"
	}
	return Run(ctx, opt, d)
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func cdnow(t *testing.T) *Format {
	t.Helper()
	f, err := LoadFormat("../../../schemas/replay/cdnow.yaml")
	require.NoError(t, err)
	return f
}

const fewPurchases = " customer_id  date number_of_cds  dollar_value\r\n" +
	" 00001 19970101  1   11.77\r\n" +
	" 00002 19970112  1   12.00\r\n" +
	" 00002 19970112  5   77.00\r\n" +
	" 00002 19970112  1   12.00\r\n" +
	" 00003 19971345  1   12.00\r\n" +
	" 00004 19970102  2\r\n"

func TestReplayTwiceChangesNothingAndEqualRowsStayDistinct(t *testing.T) {
	b := newInbox(t)
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "few.txt"), fewPurchases)
	opt := Options{File: file, Format: cdnow(t)}

	rep, err := b.run(t.Context(), opt)
	require.NoError(t, err)
	require.EqualValues(t, 6, rep.Rows)
	require.EqualValues(t, 4, rep.Acknowledged)
	require.Equal(t, []int64{6, 7}, []int64{rep.Named[0].Line, rep.Named[1].Line})
	require.ErrorContains(t, errors.New(rep.Named[0].Reason), `column date: "19971345"`)
	require.Contains(t, rep.Named[1].Reason, "has 3 columns, want 4")
	require.Len(t, b.ids, 4)

	orders := map[string]bool{}
	for _, text := range b.byUser["00002"] {
		var e struct {
			Type, Event, Timestamp string
			Properties             struct {
				OrderID  string      `json:"order_id"`
				Total    json.Number `json:"total"`
				Currency string      `json:"currency"`
				Quantity json.Number `json:"quantity"`
			}
		}
		require.NoError(t, json.Unmarshal([]byte(text), &e))
		require.Equal(t, "track", e.Type)
		require.Equal(t, "Order Completed", e.Event)
		require.Equal(t, "1997-01-12T00:00:00.000Z", e.Timestamp)
		require.Equal(t, "USD", e.Properties.Currency)
		require.Contains(t, []json.Number{"12.00", "77.00"}, e.Properties.Total, "digits as they came")
		orders[e.Properties.OrderID] = true
	}
	require.Len(t, orders, 3, "equal rows are orders of their own")

	// Again, with lines added and Unix line ends: the same ids, and the new one.
	write(t, file, strings.ReplaceAll(fewPurchases, "\r\n", "\n")+" 00005 19970103 1 9.99\n")
	rep, err = b.run(t.Context(), opt)
	require.NoError(t, err)
	require.EqualValues(t, 5, rep.Acknowledged)
	require.Len(t, b.ids, 5)
}

// lines of many users, each with a counter in order.
func manyLines(n, users int) string {
	var b strings.Builder
	r := rand.New(rand.NewPCG(1, 2))
	next := make([]int, users)
	for range n {
		u := r.IntN(users)
		fmt.Fprintf(&b, `{"type":"track","event":"E","anonymousId":"u%d","properties":{"n":%d,"pad":"%s"}}`+"\n", u, next[u], strings.Repeat("x", r.IntN(200)))
		next[u]++
	}
	return b.String()
}

func (b *inbox) requireOrder() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for user, events := range b.byUser {
		for i, text := range events {
			require.Contains(b.t, text, fmt.Sprintf(`"n":%d,`, i), user)
		}
	}
}

func TestReplayKeepsTheOrderOfEachUserThroughRetries(t *testing.T) {
	b := newInbox(t)
	b.fail = func(n int) int {
		if n%3 == 1 {
			return http.StatusServiceUnavailable
		}
		return 0
	}
	file := write(t, filepath.Join(t.TempDir(), "many.jsonl"), manyLines(6000, 40))
	rep, err := b.run(t.Context(), Options{File: file})
	require.NoError(t, err)
	require.EqualValues(t, 6000, rep.Acknowledged)
	require.Len(t, b.events, 6000)
	b.requireOrder()
}

func TestReplayResumesAfterAKill(t *testing.T) {
	b := newInbox(t)
	dir := t.TempDir()
	text := manyLines(8000, 40)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := io.WriteString(z, text)
	require.NoError(t, errors.Join(err, z.Close()))
	file := write(t, filepath.Join(dir, "many.jsonl.gz"), packed.String())

	// As after a SIGKILL: the progress file is what some moment had left, while more was acknowledged.
	ctx, cancel := context.WithCancel(t.Context())
	b.fail = func(n int) int {
		if n == 6 {
			cancel()
			return http.StatusServiceUnavailable
		}
		return 0
	}
	_, err = b.run(ctx, Options{File: file})
	require.ErrorIs(t, err, context.Canceled)
	done, err := readProgress(file + ".progress")
	require.NoError(t, err)
	require.LessOrEqual(t, done.Rows, int64(b.taken()))
	require.Less(t, done.Rows, int64(8000))

	b.failing(nil)
	rep, err := b.run(t.Context(), Options{File: file, Resume: true})
	require.NoError(t, err)
	require.Equal(t, done.Rows, rep.Skipped)
	require.EqualValues(t, 8000-done.Rows, rep.Acknowledged)
	require.Equal(t, 8000, b.taken())
	b.requireOrder()

	// What is done is not sent again; what was added is.
	before := b.n
	rep, err = b.run(t.Context(), Options{File: file, Resume: true})
	require.NoError(t, err)
	require.EqualValues(t, 8000, rep.Skipped)
	require.Equal(t, before, b.n)
	write(t, file, text+`{"event":"Late","userId":"u1"}`+"\n")
	rep, err = b.run(t.Context(), Options{File: file, Resume: true})
	require.NoError(t, err)
	require.EqualValues(t, 1, rep.Acknowledged)
}

func TestReplayRefusesToResumeInAnotherFile(t *testing.T) {
	b := newInbox(t)
	file := write(t, filepath.Join(t.TempDir(), "f.jsonl"), manyLines(100, 3))
	_, err := b.run(t.Context(), Options{File: file})
	require.NoError(t, err)

	_, err = b.run(t.Context(), Options{File: file, Resume: true, To: "http://elsewhere"})
	require.ErrorIs(t, err, ErrOtherFile)
	_, err = b.run(t.Context(), Options{File: file, Resume: true, Format: cdnow(t)})
	require.ErrorIs(t, err, ErrOtherFile)
	write(t, file, strings.Replace(manyLines(100, 3), `"n":0`, `"n":7`, 1))
	_, err = b.run(t.Context(), Options{File: file, Resume: true})
	require.ErrorIs(t, err, ErrOtherFile)
	write(t, file, manyLines(50, 3))
	_, err = b.run(t.Context(), Options{File: file, Resume: true})
	require.ErrorIs(t, err, ErrOtherFile)
}

func TestReplayNamesTheLinesThatWereRefused(t *testing.T) {
	b := newInbox(t)
	text := `{"type":"track","event":"A","userId":"1","messageId":"own"}

{"type":"track","userId":"1"}
not json
{"type":"track","event":"A","userId":"1","messageId":"own"}
` + `{"a":"` + strings.Repeat("x", maxLine) + `"}
{"type":"page","anonymousId":"2"}
{"type":"page","anonymousId":"2","name":"` + strings.Repeat("x", maxEvent) + `"}`
	file := write(t, filepath.Join(t.TempDir(), "f.jsonl"), text)
	rep, err := b.run(t.Context(), Options{File: file, Historical: true})
	require.NoError(t, err)
	var lines []int64
	for _, x := range rep.Named {
		lines = append(lines, x.Line)
	}
	require.Equal(t, []int64{3, 4, 6, 8}, lines)
	require.EqualValues(t, 3, rep.Acknowledged)
	require.Equal(t, 2, b.ids["own"], "an id of its own is kept")
	for _, e := range b.events {
		require.Contains(t, e, `"context":{"historical":true}`)
	}
}

func TestReplayCSV(t *testing.T) {
	f, err := ParseFormat([]byte(`
format: csv
delimiter: ";"
header: true
numbers: [amount]
times: {when: "DD.MM.YYYY hh:mm"}
zone: Europe/Warsaw
event:
  event: "'Order Completed'"
  context.traits.email: $.email
  timestamp: $.when
  properties.order_id: $.no
  properties.total: $.amount
  properties.note: $.note
`))
	require.NoError(t, err)
	b := newInbox(t)
	file := write(t, filepath.Join(t.TempDir(), "f.csv"), "\uFEFFno;email;when;amount;note\n"+
		"007;a@example.com;31.12.2025 23:30;+0019.90;\"two\nlines; and \"\"quotes\"\"\"\n"+
		"8;b@example.com;01.01.2026 00:00;;\n"+
		"9;c@example.com;01.01.2026 00:00;1,5;\n")
	rep, err := b.run(t.Context(), Options{File: file, Format: f})
	require.NoError(t, err)
	require.EqualValues(t, 2, rep.Acknowledged)
	require.Len(t, rep.Named, 1)
	require.EqualValues(t, 5, rep.Named[0].Line)
	i := slices.IndexFunc(b.events, func(s string) bool { return strings.Contains(s, "007") })
	require.GreaterOrEqual(t, i, 0)
	require.Contains(t, b.events[i], `19.90`)
	require.Contains(t, b.events[i], `"2025-12-31T22:30:00.000Z"`)
	require.Contains(t, b.events[i], `two\nlines; and \"quotes\"`)
}

func TestFormatNamesEveryFault(t *testing.T) {
	_, err := ParseFormat([]byte(`
format: csv
delimiter: "ab"
columns: [a, a, row]
numbers: [b]
times: {a: YYYY}
zone: Nowhere/At/All
`))
	for _, want := range []string{"delimiter", `"a" stands twice`, `"row"`, `numbers: no column is called "b"`, "times.a", "zone", "event: want"} {
		require.ErrorContains(t, err, want)
	}
	_, err = ParseFormat([]byte("format: xml\nevents: {}\n"))
	require.ErrorContains(t, err, "events")
	_, err = ParseFormat([]byte("format: space\nevent: {userId: $.a}\n"))
	require.ErrorContains(t, err, "columns: want their names")
}

func TestShippedMappingIsTheTestedOne(t *testing.T) {
	shipped, err := os.ReadFile("../../../schemas/replay/cdnow.yaml")
	require.NoError(t, err)
	tested, err := os.ReadFile("testdata/cdnow.yaml")
	require.NoError(t, err)
	require.Equal(t, string(tested), string(shipped))
}

func TestProgressOfAnAbandonedRunIsNeverAheadOfTheDoor(t *testing.T) {
	b := newInbox(t)
	b.fail = func(n int) int {
		if n > 3 {
			return http.StatusUnauthorized
		}
		return 0
	}
	file := write(t, filepath.Join(t.TempDir(), "f.jsonl"), manyLines(9000, 11))
	rep, err := b.run(t.Context(), Options{File: file})
	require.ErrorIs(t, err, door.ErrUnusable)
	require.LessOrEqual(t, rep.Acknowledged, int64(b.taken()), "of requests cut off nobody knows")
	p, err := readProgress(file + ".progress")
	require.NoError(t, err)
	require.LessOrEqual(t, p.Rows, int64(b.taken()))
	require.Less(t, rep.Took, time.Minute)
}
