package builder

import (
	"context"
	"sync"
	"time"

	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/profile"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Freshness says how new an answer is. It speaks of this stage: what the collector or the stitcher have
// not passed on yet is not in it.
type Freshness struct {
	// AsOf is when the newest event in the profile was received.
	AsOf profile.Time `json:"asOf"`
	// Lag is how many records of the profile's partition of events.identified are not folded yet, of all
	// profiles in it; null while Kafka does not tell.
	Lag *int64 `json:"lag"`
	// CaughtUp: Lag is 0, so everything the stitcher has passed on about this profile is in; and so is what was before, if
	// it is a part of a person that was split.
	CaughtUp bool `json:"caughtUp"`
}

// person is a profile that was found: under its current id, and how fresh.
type person struct {
	id        string
	state     *profile.State
	freshness Freshness
}

// answer is the body of a found profile.
type answer struct {
	profile.Document
	Freshness Freshness `json:"freshness"`
}

// orders is the body of a found profile's order history.
type orders struct {
	Profile   string                  `json:"profile"`
	Orders    []profile.OrderDocument `json:"orders"` // newest first
	Older     int64                   `json:"older"`  // orders that count, but are no longer kept one by one
	Freshness Freshness               `json:"freshness"`
}

func (p person) answer() answer {
	return answer{Document: p.state.Document(p.id), Freshness: p.freshness}
}

func (p person) orders() orders {
	list, older := p.state.Orders()
	return orders{Profile: p.id, Orders: list, Older: older, Freshness: p.freshness}
}

// profiles finds profiles by id. It is safe for concurrent use.
type profiles struct {
	store  *store.Client
	topics topic.Set
	ends   *ends
}

// find follows the merges and splits of a profile id. False: no event of it was ever folded.
func (p *profiles) find(ctx context.Context, id string) (person, bool, error) {
	f, err := keyed.ReadState[state](ctx, p.store, p.topics, topic.StageBuilder, profile.StateVersion, id)
	if err != nil || f.State == nil || f.State.Profile.Events == 0 {
		return person{}, false, err
	}
	s := &f.State.Profile
	fresh := Freshness{AsOf: profile.Time{Time: s.AsOf()}, Lag: p.lag(ctx, topic.Partition([]byte(f.Live), p.topics.Partitions))}
	fresh.CaughtUp = fresh.Lag != nil && *fresh.Lag == 0 && !f.Waiting
	return person{id: f.Live, state: s, freshness: fresh}, true, nil
}

// lag is nil while Kafka or Redis do not tell.
func (p *profiles) lag(ctx context.Context, partition int) *int64 {
	// The end is read first: what is folded in between can only make the lag look smaller than zero.
	end, ok := p.ends.of(ctx, partition)
	if !ok {
		return nil
	}
	applied, err := keyed.Applied(ctx, p.store, p.topics, topic.StageBuilder, partition)
	if err != nil {
		return nil
	}
	lag := max(0, end-max(0, applied))
	return &lag
}

const (
	// endsFor is how long the log's ends are taken as read, so that a thousand requests a second cost Kafka
	// four. An answer's lag is at most this old.
	endsFor = 250 * time.Millisecond
	// endsTimeout bounds the wait for Kafka: a profile is worth more than its lag.
	endsTimeout = time.Second
)

// ends knows the ends of a topic's partitions.
type ends struct {
	read func(ctx context.Context) ([]int64, error)

	mu      sync.Mutex
	offsets []int64 // nil: could not be read
	at      time.Time
}

func newEnds(c *stream.Client, topicName string) *ends {
	return &ends{read: func(ctx context.Context) ([]int64, error) { return c.EndOffsets(ctx, topicName) }}
}

// of is the end of one partition; false while it cannot be read. Requests that come while it is being read
// wait for that reading.
func (e *ends) of(ctx context.Context, partition int) (int64, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Since(e.at) > endsFor {
		// The reading serves others, too: this request's end must not end it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endsTimeout)
		defer cancel()
		offsets, err := e.read(ctx)
		if err != nil {
			offsets = nil // the answer says so by having no lag
		}
		e.offsets, e.at = offsets, time.Now()
	}
	if partition >= len(e.offsets) {
		return 0, false
	}
	return e.offsets[partition], true
}
