package registry

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// MaxCached bounds the schemas kept per source. A topic has a few in its lifetime; the bound is for topics into
	// which anybody may write any id.
	MaxCached = 256
	// missingFor is how long the registry is not asked again for a schema that it does not have, so that a flood of
	// made-up ids is not one of requests. It may get it later: a replica of a registry lags behind.
	missingFor = 10 * time.Second
)

// Cache keeps what was made of schemas, the ones used last. Safe for concurrent use.
type Cache[T any] struct {
	client *Client
	make   func(Schema) (T, error)
	now    func() time.Time

	mu     sync.Mutex
	byID   map[uint32]*list.Element
	recent *list.List // of *entry[T], the one used last in front
}

type entry[T any] struct {
	id    uint32
	ready chan struct{} // closed when value and err are there
	value T
	err   error
	until time.Time // zero: for ever
}

// NewCache makes a cache of what compile makes of schemas; its error is for ever.
func NewCache[T any](c *Client, compile func(Schema) (T, error)) *Cache[T] {
	return &Cache[T]{client: c, make: compile, now: time.Now, byID: map[uint32]*list.Element{}, recent: list.New()}
}

// Get is what was made of a schema. The registry is asked once, however many ask here; an error of ErrUnavailable is
// not kept.
func (c *Cache[T]) Get(ctx context.Context, id uint32) (T, error) {
	e, first := c.entry(id)
	if first {
		c.fill(ctx, e)
	}
	select {
	case <-e.ready:
		return e.value, e.err
	case <-ctx.Done():
		var none T
		return none, errors.Join(ErrUnavailable, ctx.Err())
	}
}

// entry finds that of id; first says that the caller is to fill it.
func (c *Cache[T]) entry(id uint32) (_ *entry[T], first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.byID[id]; at != nil {
		e := at.Value.(*entry[T]) //nolint:errcheck,forcetypeassert // the list has nothing else
		if e.until.IsZero() || c.now().Before(e.until) {
			c.recent.MoveToFront(at)
			return e, false
		}
		c.drop(at)
	}
	e := &entry[T]{id: id, ready: make(chan struct{})}
	c.byID[id] = c.recent.PushFront(e)
	for c.recent.Len() > MaxCached {
		c.drop(c.recent.Back())
	}
	return e, true
}

func (c *Cache[T]) drop(at *list.Element) {
	e := at.Value.(*entry[T]) //nolint:errcheck,forcetypeassert // the list has nothing else
	if c.byID[e.id] == at {
		delete(c.byID, e.id)
	}
	c.recent.Remove(at)
}

func (c *Cache[T]) fill(ctx context.Context, e *entry[T]) {
	defer close(e.ready)
	s, err := c.client.Schema(ctx, e.id)
	if err == nil {
		e.value, err = c.make(s)
	}
	e.err = err
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.Is(err, ErrNotFound):
		e.until = c.now().Add(missingFor)
	case errors.Is(err, ErrUnavailable):
		if at := c.byID[e.id]; at != nil && at.Value == any(e) {
			c.drop(at)
		}
	}
}
