package identity

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// ErrLost means that the store holds less of the graph than it had acknowledged.
var ErrLost = errors.New("identity graph went back to an earlier moment")

// witness is what a process has seen of the buckets' counts of writes. A count only grows, and goes back with its
// bucket if a server does. So an answer to what was asked later must not be below what was known before it was asked.
//
// What one process has seen is lost with it. Therefore whoever decides on the graph stores what he had seen with each
// decision, before it has any effect, where another server or nobody can take it back (Vouch); and everybody compares
// that with the graph as it is when he begins, and now and then (Verify). The writes that count are those which
// somebody has seen: nothing stands on the others.
type witness struct {
	mu   sync.Mutex
	seen [buckets]int64
	text []byte // seen, encoded; nil: it has grown since
}

// known is what is known at this moment, of all buckets.
func (w *witness) known() [buckets]int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}

// saw takes in that a bucket counts n writes, by an answer to what was asked when it counted at least least.
func (w *witness) saw(bucket int, n, least int64) error {
	if n < least {
		return fmt.Errorf("%w: bucket %d has %d writes, %d were seen", ErrLost, bucket, n, least)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if n > w.seen[bucket] {
		w.seen[bucket], w.text = n, nil
	}
	return nil
}

// vouchVersion is the first byte of what Vouch gives; a count per bucket follows, as uvarint.
const vouchVersion = 1

// Vouch is what this process has seen of the graph, to be stored with what was decided on it. It must not be changed.
func (g *Graph) Vouch() []byte {
	w := &g.witness
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.text == nil {
		b := make([]byte, 0, 1+3*buckets)
		b = append(b, vouchVersion)
		for _, n := range w.seen {
			b = binary.AppendUvarint(b, uint64(n)) //nolint:gosec // a count
		}
		w.text = b
	}
	return w.text
}

// Verify compares what was vouched for, each as Vouch gave it or nil, with the graph as it is now: one round trip.
// ErrLost if the graph is behind any of it; what others had seen counts for this process too from now on.
func (g *Graph) Verify(ctx context.Context, vouched [][]byte) error {
	for _, text := range vouched {
		if err := g.witness.heard(text); err != nil {
			return err
		}
	}
	known := g.witness.known()
	groups := make([][]string, buckets)
	for b := range groups {
		groups[b] = g.ledgers[b : b+1 : b+1]
	}
	values, err := g.kv.MGetGroups(ctx, groups)
	if err != nil {
		return fmt.Errorf("read the graph's counts: %w", err)
	}
	for b, vs := range values {
		t, err := parseLedger(vs[0])
		if err != nil {
			return fmt.Errorf("%s: %w", g.ledgers[b], err)
		}
		g.pages[b].Store(t.pages)
		if t.writes < known[b] {
			return fmt.Errorf("%w: bucket %d has %d writes, %d were vouched for", ErrLost, b, t.writes, known[b])
		}
	}
	return nil
}

// heard takes in what somebody has vouched for.
func (w *witness) heard(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	if text[0] > vouchVersion {
		return fmt.Errorf("%w: what is vouched for has version %d, known %d", ErrNewerVersion, text[0], vouchVersion)
	}
	var seen [buckets]int64
	in := bytes.NewReader(text[1:])
	for b := range seen {
		n, err := binary.ReadUvarint(in)
		if err != nil {
			return fmt.Errorf("%w: %d bytes that vouch for it are cut short", ErrCorrupt, len(text))
		}
		seen[b] = int64(n) //nolint:gosec // as Vouch wrote it
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for b, n := range seen {
		if n > w.seen[b] {
			w.seen[b], w.text = n, nil
		}
	}
	return nil
}
