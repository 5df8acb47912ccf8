// Package load sends a simulated shop through the public doors while these are being hurt, as careful SDKs and tills
// do: in the order of each device, again and again until somebody acknowledges, and notes in the ledger what was
// acknowledged.
//
// It owns: when an action is done, its record, and the retries. It guarantees that an action is noted as acknowledged
// only after the door or Kafka said so, that a repetition carries the same message id and time, and that a load whose
// process was killed goes on where it was. It must not know what is hurt, nor how Weft works.
package load

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/scripts/chaos/ledger"
	"github.com/weft-cdp/weft/services/weft/demo"
	"github.com/weft-cdp/weft/services/weft/replay/door"
)

const (
	// requestTimeout is above the door's own limit for an answer, and short enough to see what was lost.
	requestTimeout = 12 * time.Second
	// saleTimeout bounds one attempt of a till.
	saleTimeout = 10 * time.Second
	// salePause is between attempts of a till.
	salePause = 500 * time.Millisecond
	// inFlight is how many requests are on their way at once; beyond it devices wait, as they do in tunnels.
	inFlight = 24
)

// Load is one shop's.
type Load struct {
	visitors []demo.Visitor
	ledger   *ledger.Ledger
	http     map[demo.Channel]*door.Client
	kafka    *stream.Client
	room     chan struct{}

	// Answers counts the door's answers by status; Bare counts those of 503 and 429 without Retry-After; Broken
	// counts requests that no answer came to.
	answers      sync.Map // int -> *atomic.Int64
	Bare, Broken atomic.Int64
}

// New prepares a load. doors are the collectors' addresses, which requests go to in turn.
func New(visitors []demo.Visitor, doors []string, kafka *stream.Client, l *ledger.Ledger) (*Load, error) {
	x := &Load{visitors: visitors, ledger: l, http: map[demo.Channel]*door.Client{}, kafka: kafka, room: make(chan struct{}, inFlight)}
	hosts := make([]string, len(doors))
	for i, d := range doors {
		u, err := url.Parse(d)
		if err != nil {
			return nil, fmt.Errorf("address of a door: %w", err)
		}
		hosts[i] = u.Host
	}
	client := &http.Client{Timeout: requestTimeout, Transport: &balancer{hosts: hosts, load: x}}
	for ch, key := range map[demo.Channel]string{demo.Web: "demo-web", demo.App: "demo-app", demo.Shop: "demo-shop"} {
		c, err := door.New(doors[0], key, door.Options{HTTP: client})
		if err != nil {
			return nil, err
		}
		x.http[ch] = c
	}
	return x, nil
}

// balancer sends each request to the next door, and watches the answers.
type balancer struct {
	hosts []string
	next  atomic.Uint64
	load  *Load
}

// RoundTrip implements http.RoundTripper.
func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Host = b.hosts[b.next.Add(1)%uint64(len(b.hosts))]
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		b.load.Broken.Add(1)
		return nil, err
	}
	n, _ := b.load.answers.LoadOrStore(resp.StatusCode, new(atomic.Int64))
	if c, ok := n.(*atomic.Int64); ok { // nothing else is stored
		c.Add(1)
	}
	if (resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusTooManyRequests) && resp.Header.Get("Retry-After") == "" {
		b.load.Bare.Add(1)
	}
	return resp, nil
}

// Answers counts the door's answers by status.
func (x *Load) Answers() map[int]int64 {
	out := map[int]int64{}
	x.answers.Range(func(k, v any) bool {
		if n, ok := v.(*atomic.Int64); ok {
			out[k.(int)] = n.Load() //nolint:errcheck // nothing else is stored
		}
		return true
	})
	return out
}

// ID is an action's name in the ledger.
func ID(visitor, part, action int) string { return fmt.Sprintf("%d/%d/%d", visitor, part, action) }

// step is one action with what the ledger knows of it.
type step struct {
	*demo.Action
	id   string
	due  time.Time
	done bool // noted already
}

// Run sends everything that is not acknowledged yet and returns when all is. opened is the moment of the shop's
// opening, by which visitors come in.
func (x *Load) Run(ctx context.Context, opened time.Time) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var devices sync.WaitGroup
	for i := range x.visitors {
		for _, queue := range x.queues(&x.visitors[i], opened) {
			devices.Go(func() {
				if err := x.play(ctx, queue); err != nil {
					cancel(err)
				}
			})
		}
	}
	devices.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("send the shop's events: %w", context.Cause(ctx))
	}
	return nil
}

// queues are a visitor's actions by device, each in order, without those that are acknowledged.
func (x *Load) queues(v *demo.Visitor, opened time.Time) map[string][]step {
	out := map[string][]step{}
	x.ledger.Read(func(b *ledger.Book) {
		for p := range v.Parts {
			for n := range v.Parts[p].Actions {
				a := &v.Parts[p].Actions[n]
				s := step{Action: a, id: ID(v.N, p, n), due: opened.Add(v.Start + a.At).Truncate(time.Millisecond)}
				if _, acked := b.Acked[s.id]; acked {
					continue
				}
				if at, done := b.Done[s.id]; done {
					s.due, s.done = at, true
				}
				name := string(a.Channel) + "/" + a.Device
				out[name] = append(out[name], s)
			}
		}
	})
	return out
}

// play does one device's actions, those together that are due together.
func (x *Load) play(ctx context.Context, queue []step) error {
	for len(queue) > 0 {
		select {
		case <-ctx.Done():
			return nil // told by who ended it
		case <-time.After(time.Until(queue[0].due)):
		}
		n := 1
		for n < len(queue) && !queue[n].due.After(time.Now()) {
			n++
		}
		if err := x.note(queue[:n]); err != nil {
			return err
		}
		send := x.batch
		if queue[0].Channel == demo.Till {
			send = x.sales
		}
		if err := send(ctx, queue[:n]); err != nil && ctx.Err() == nil {
			return err
		}
		queue = queue[n:]
	}
	return nil
}

// note says in the ledger that steps are done, before anybody is told.
func (x *Load) note(steps []step) error {
	var entries []ledger.Entry
	for _, s := range steps {
		if !s.done {
			entries = append(entries, ledger.Entry{Kind: ledger.Did, At: s.due.UnixMilli(), Actions: []string{s.id}})
		}
	}
	if len(entries) == 0 {
		return nil
	}
	return x.ledger.Append(entries...)
}

func (x *Load) acked(steps []step) error {
	ids := make([]string, len(steps))
	for i, s := range steps {
		ids[i] = s.id
	}
	return x.ledger.Append(ledger.Entry{Kind: ledger.Acked, Actions: ids})
}

// batch sends steps through the HTTP door.
func (x *Load) batch(ctx context.Context, steps []step) error {
	var items, again [][]byte
	var twice []step
	for _, s := range steps {
		body := maps.Clone(s.Body)
		body["messageId"] = s.Action.ID
		body["timestamp"] = s.due.Add(-s.Ago).UTC().Format(timeLayout)
		item, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode %s: %w", s.id, err)
		}
		items = append(items, item)
		if s.Resend {
			again, twice = append(again, item), append(twice, s)
		}
	}
	x.room <- struct{}{}
	defer func() { <-x.room }()
	if err := x.post(ctx, steps, items); err != nil {
		return err
	}
	if err := x.acked(steps); err != nil {
		return err
	}
	return x.post(ctx, twice, again)
}

const timeLayout = "2006-01-02T15:04:05.000Z"

// post sends the items of steps. Those that nobody can make an event of are refused by name, and kept: that is acknowledged.
func (x *Load) post(ctx context.Context, steps []step, items [][]byte) error {
	if len(items) == 0 {
		return nil
	}
	ch := steps[0].Channel
	res, err := x.http[ch].Batch(ctx, items)
	if err != nil {
		return fmt.Errorf("send %d events as %s: %w", len(items), ch, err)
	}
	for _, r := range res.Refused {
		if steps[r.Index].Broken {
			continue
		}
		return fmt.Errorf("the door refuses %s: %s", items[r.Index], r.Reason)
	}
	return nil
}

// sales writes steps to the till's topic, one after the other.
func (x *Load) sales(ctx context.Context, steps []step) error {
	for i, s := range steps {
		body := maps.Clone(s.Body)
		body["soldAt"] = s.due.UTC().Format(timeLayout)
		body["action"] = s.id
		record, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode %s: %w", s.id, err)
		}
		key := []byte(s.id)
		for {
			attempt, cancel := context.WithTimeout(ctx, saleTimeout)
			err := x.kafka.Produce(attempt, demo.TillTopic, topic.Partition(key, demo.TillPartitions), []stream.Record{{Key: key, Value: record}})
			cancel()
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(salePause):
			}
		}
		if err := x.acked(steps[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}
