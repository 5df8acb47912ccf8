// Package door sends events to Weft's HTTP door the way a careful SDK does: in batches, with retries that
// respect Retry-After, and telling what was refused for good.
//
// It owns: the request, its retries, and finding the event at fault when a whole batch is refused. It
// guarantees that Batch returns without an error only when every event was either acknowledged or refused
// for good, and that one call sends one request at a time, so that a caller's order is kept. It must not
// know where events come from nor what they mean.
package door

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
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// MaxBatchEvents and MaxBatchBytes bound a request. Segment takes 500 KB (field facts 5.3); what stands
// around the events must fit as well.
const (
	MaxBatchEvents = 500
	MaxBatchBytes  = 450_000
)

const (
	// requestTimeout is above the door's own limit of 10 s for an answer.
	requestTimeout = 30 * time.Second
	firstPause     = 100 * time.Millisecond
	maxPause       = 10 * time.Second
	// maxRetryAfter bounds what a confused proxy may ask for.
	maxRetryAfter = 5 * time.Minute
	// maxAnswer is the most of an answer that is read.
	maxAnswer = 1 << 20
	// gzipFrom is the size from which a body is compressed.
	gzipFrom = 2048
)

// Options tune a Client; the zero value is right for most.
type Options struct {
	// Patience is how long one batch is tried again before Batch gives up; 0: until its context ends.
	Patience time.Duration
	// HTTP makes the requests; nil: a client of its own.
	HTTP *http.Client
	// OnRetry hears of each attempt that will be repeated: why, and after which pause.
	OnRetry func(reason error, pause time.Duration)
}

// Client sends with one write key to one door. It is safe for concurrent use.
type Client struct {
	url, key string
	opt      Options
	packers  sync.Pool // of *gzip.Writer, which hold most of a megabyte each
}

// New checks the door's address, such as http://127.0.0.1:8080. It connects to nothing.
func New(address, writeKey string, opt Options) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("address of the door: want http://... or https://..., found %q", address)
	}
	if opt.HTTP == nil {
		opt.HTTP = &http.Client{
			Timeout: requestTimeout,
			// A POST is never redirected; following would send the key elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return &Client{url: strings.TrimRight(u.String(), "/"), key: writeKey, opt: opt}, nil
}

// Refusal is one event that the door refused for good.
type Refusal struct {
	Index  int // in the items given to Batch
	Reason string
}

// Result is what became of a batch.
type Result struct {
	Refused []Refusal
	// Unanswered counts events of attempts whose outcome never became known: the door may have taken them,
	// and taken them again by the repetition.
	Unanswered int
}

// ErrUnusable means that repeating cannot help and no event is at fault: a wrong key or address.
var ErrUnusable = errors.New("the door refuses this sender")

// Batch sends items, each the text of one JSON object, through POST /v1/batch, and returns when all were
// acknowledged or refused. An error says that this is not so: ErrUnusable, patience at its end, or ctx's.
func (c *Client) Batch(ctx context.Context, items [][]byte) (Result, error) {
	var res Result
	err := c.send(ctx, items, 0, &res)
	return res, err
}

// send delivers items, whose first has the index from. If all together are refused, halves are sent one
// after the other down to the event at fault.
func (c *Client) send(ctx context.Context, items [][]byte, from int, res *Result) error {
	if len(items) == 0 {
		return nil
	}
	answer, err := c.untilAnswered(ctx, "/v1/batch", Body(items, time.Now()), len(items), res)
	if err != nil {
		return err
	}
	switch {
	case answer.ok():
		for _, r := range answer.Rejected {
			if r.Index >= 0 && r.Index < len(items) {
				res.Refused = append(res.Refused, Refusal{from + r.Index, r.text()})
			}
		}
		return nil
	case len(items) == 1:
		res.Refused = append(res.Refused, Refusal{from, answer.Reason()})
		return nil
	}
	half := len(items) / 2
	if err := c.send(ctx, items[:half], from, res); err != nil {
		return err
	}
	return c.send(ctx, items[half:], from+half, res)
}

// Post sends one body to a path of the door as it is, without retries: for trying what the door says to it.
func (c *Client) Post(ctx context.Context, path string, body []byte) (Answer, error) {
	return c.once(ctx, path, body)
}

// Body is the request of a batch.
func Body(items [][]byte, sentAt time.Time) []byte {
	size := 64
	for _, it := range items {
		size += len(it) + 1
	}
	b := make([]byte, 0, size)
	b = append(b, `{"sentAt":"`...)
	b = sentAt.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	b = append(b, `","batch":[`...)
	for i, it := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, it...)
	}
	return append(b, ']', '}')
}

// untilAnswered repeats while the door is unavailable.
func (c *Client) untilAnswered(ctx context.Context, path string, body []byte, events int, res *Result) (Answer, error) {
	begun := time.Now()
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		answer, err := c.once(ctx, path, body)
		if ctx.Err() != nil {
			return Answer{}, ctx.Err()
		}
		switch {
		case err != nil:
			res.Unanswered += events
		case answer.retry():
			err = fmt.Errorf("%s answered %d %s", c.url, answer.Status, answer.Reason())
			if answer.Status >= http.StatusInternalServerError {
				res.Unanswered += events // some of a batch may have been written before it failed
			}
		case answer.unusable():
			return answer, fmt.Errorf("%w: %s answered %d %s", ErrUnusable, c.url, answer.Status, answer.Reason())
		default:
			return answer, nil
		}
		wait := jitter(pause)
		if answer.retryAfter > wait {
			wait = answer.retryAfter
		}
		if c.opt.Patience > 0 && time.Since(begun)+wait > c.opt.Patience {
			return Answer{}, fmt.Errorf("send %d events for %s: %w", events, c.opt.Patience, err)
		}
		if c.opt.OnRetry != nil {
			c.opt.OnRetry(err, wait)
		}
		select {
		case <-ctx.Done():
			return Answer{}, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// jitter spreads senders that were refused together: between half of d and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) } //nolint:gosec // no secret

// Answer is what the door said.
type Answer struct {
	Status     int
	Code       string        `json:"code"`
	Message    string        `json:"message"`
	Rejected   []RejectedOne `json:"rejected"`
	Text       string        `json:"-"` // the beginning of a body that is not JSON
	retryAfter time.Duration
}

// RejectedOne is one event of an accepted batch that went to events.rejected.
type RejectedOne struct {
	Index   int    `json:"index"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (r RejectedOne) text() string { return words(r.Code, r.Message) }

// Reason is the answer in words.
func (a Answer) Reason() string {
	if a.Code == "" && a.Message == "" {
		return a.Text
	}
	return words(a.Code, a.Message)
}

func words(code, message string) string {
	switch {
	case code == "" || strings.HasPrefix(message, code):
		return message
	case message == "":
		return code
	}
	return code + ": " + message
}

func (a Answer) ok() bool { return a.Status >= 200 && a.Status < 300 }

func (a Answer) retry() bool {
	switch a.Status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return a.Status >= http.StatusInternalServerError
}

// unusable: nothing that an event could be at fault for. A redirect of a POST is a wrong address.
func (a Answer) unusable() bool {
	switch a.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return false
	}
	return !a.ok()
}

func (c *Client) once(ctx context.Context, path string, body []byte) (Answer, error) {
	encoding := ""
	if len(body) >= gzipFrom {
		packed, err := c.compress(body)
		if err != nil {
			return Answer{}, fmt.Errorf("compress the request: %w", err)
		}
		body, encoding = packed, "gzip"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, bytes.NewReader(body))
	if err != nil {
		return Answer{}, fmt.Errorf("make the request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	req.SetBasicAuth(c.key, "")
	resp, err := c.opt.HTTP.Do(req)
	if err != nil {
		return Answer{}, fmt.Errorf("send to the door: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return Answer{}, fmt.Errorf("read the door's answer: %w", err)
	}
	a := Answer{Status: resp.StatusCode, retryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	if json.Unmarshal(text, &a) != nil {
		a.Text = strings.TrimSpace(string(text[:min(len(text), 200)]))
	}
	a.Status = resp.StatusCode
	return a, nil
}

func (c *Client) compress(body []byte) ([]byte, error) {
	var b bytes.Buffer
	w, ok := c.packers.Get().(*gzip.Writer)
	if !ok {
		w = gzip.NewWriter(&b)
	}
	defer c.packers.Put(w)
	w.Reset(&b)
	_, err := w.Write(body)
	err = errors.Join(err, w.Close())
	return b.Bytes(), err
}

// retryAfter reads seconds or a date; zero if there is none.
func retryAfter(text string, now time.Time) time.Duration {
	if text == "" {
		return 0
	}
	if n, err := strconv.ParseFloat(text, 64); err == nil && n >= 0 {
		return min(time.Duration(n*float64(time.Second)), maxRetryAfter)
	}
	if t, err := http.ParseTime(text); err == nil && t.After(now) {
		return min(t.Sub(now), maxRetryAfter)
	}
	return 0
}
